//! span.cfg: read, with the last good copy, written and edited.

pub mod active;
pub mod editor;
pub mod span_file;
