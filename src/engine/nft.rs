//! The `nft` engine's side of the kernel: our table is read over netlink, and changed by nft(8).
//!
//! Reading is direct, since every hook and every look of the service does it, and in most cases there is
//! no table at all. Writing is left to nft(8), which knows how its words are put to the kernel.

pub(crate) mod decode;
pub mod diagnose;
pub mod json;
pub mod read;
pub mod run;
