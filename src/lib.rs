//! Port mirroring (SPAN, RSPAN) for Proxmox VE that follows its guests.
//!
//! ```text
//! span.cfg text ─┐
//! guest configs ─┼─► core (pure): parse → resolve → Desired ─┐
//! cluster files ─┘                                           ├─► plan(Desired, Observed) → Plan ─► apply ─► observe again
//! OVSDB, netlink ──► Observed ───────────────────────────────┘                                   (the plan must now be empty)
//! ```

pub mod config;
pub mod engine;
#[doc(hidden)]
pub mod fuzzing;

pub mod cli;
pub mod commands;
pub mod daemon;
pub mod hook;
pub mod pve;
pub mod reconcile;
pub mod sys;
