//! The pure core: text and observed state in, a plan out.
//!
//! The promise: no I/O below this line. Nothing here opens a file, a socket or a process, asks for
//! the time or reads the environment; clock, node name and paths arrive as arguments. That is what
//! makes a dry run free and the laws of `docs/architecture.md` testable. The crate depends on none of nix, libc and log, asks jiff
//! for no clock, and its `clippy.toml` has `make lint` refuse what the standard library and the rest could do.

pub mod engine;
pub mod pve;

pub mod attach;
pub mod config;
pub mod doctor;
pub mod explain;
pub mod filter;
pub mod health;
pub mod import;
pub mod model;
pub mod plan;
pub mod resolve;
pub mod state;
pub mod suggestions;
pub mod verify;
