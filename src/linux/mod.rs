//! The kernel's side: network devices and the node's own addresses, and work under a deadline.

mod names;
mod netlink;
mod supervise;
mod write;

pub use names::names;
pub use netlink::{Error, links, links_named};
pub use supervise::{Ended, supervise};
pub use write::write_in_time;
