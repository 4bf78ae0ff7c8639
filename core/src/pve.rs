//! Proxmox VE's files: text in, values out.

pub mod chained_hook;
pub mod cluster;
pub mod guest;
pub mod storage;
