//! Port mirroring (SPAN, RSPAN) for Proxmox VE that follows its guests.
//!
//! ```text
//! span.cfg text ─┐
//! guest configs ─┼─► core (pure): parse → resolve → Desired ─┐
//! cluster files ─┘                                           ├─► plan(Desired, Observed) → Plan ─► apply ─► observe again
//! OVSDB, netlink ──► Observed ───────────────────────────────┘                                   (the plan must now be empty)
//! ```

pub mod apply;
pub mod chain;
pub mod cli;
pub mod cluster_lock;
pub mod commands;
pub mod core;
pub mod doctor;
pub mod editor;
pub mod events;
pub mod files;
pub mod hook;
pub mod inforce;
pub mod linux;
pub mod lock;
pub mod log;
pub mod look;
pub mod outputs;
pub mod ovs;
pub mod proxmox;
pub mod pve;
pub mod reading;
pub mod report;
pub mod saved;
pub mod span_file;
pub mod watch;
