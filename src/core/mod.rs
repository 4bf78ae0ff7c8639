//! The pure core: text and observed state in, a plan out.
//!
//! The promise: no I/O below this line. Nothing here opens a file, a socket or a process, asks for
//! the time or reads the environment; clock, node name and paths arrive as arguments. That is what
//! makes a dry run free and the laws of `docs/architecture.md` testable; `tests/purity.rs` enforces it.

pub mod annotations;
pub mod attach;
pub mod chained;
pub mod cluster;
pub mod copies;
pub mod diagnostic;
pub mod doctor;
pub mod explain;
pub mod filter;
pub mod guest;
pub mod health;
pub mod import;
pub mod interest;
pub mod loops;
pub mod model;
pub mod naming;
pub mod nft;
pub mod offer;
pub mod plan;
pub mod port_settings;
pub mod ports;
pub mod resolve;
pub mod selector;
pub mod state;
pub mod storage;
pub mod verify;
