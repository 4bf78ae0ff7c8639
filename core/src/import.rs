//! Mirrors that others have made → sessions that do the same: read, joined by what they have in common, and written
//! as span.cfg.
//!
//! What cannot be carried over is never dropped without a word: it stands there as a comment, with the reason.

mod already_configured;
mod draft;
mod merge;
pub mod mirrors_conf;
mod name_sessions;
pub mod ovs_mirrors;
mod writer;

pub use draft::{Draft, Origin, Rule};
pub use merge::merge;
pub use name_sessions::name_sessions;
pub use writer::{append, text};

#[cfg(test)]
mod tests;
