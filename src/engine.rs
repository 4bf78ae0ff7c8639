//! The engines' way to the kernel and to Open vSwitch: observe, commit, counters.

pub mod nft;
pub mod ovs;
pub mod port;
