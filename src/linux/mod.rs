//! The kernel's side: network devices and the node's own addresses, and work under a deadline.

mod netlink;
mod supervise;

pub use netlink::{Error, links};
pub use supervise::{Ended, supervise};
