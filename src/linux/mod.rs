//! The kernel's side: network devices and the node's own addresses, nftables, and work under a deadline.

mod apart;
pub mod capture;
pub mod child;
mod counters;
pub mod desk;
#[doc(hidden)]
pub mod fuzzing;
pub mod job;
pub mod listener;
pub mod mirred;
pub mod mounts;
mod names;
mod netlink;
pub mod nft;
pub mod port;
pub mod program;
pub mod progress;
mod routes;
mod socket;
mod supervise;
mod write;

pub use apart::{Error as ApartError, apart};
pub use counters::{Counted, counters};
pub use names::names;
pub use netlink::{Error, PortVlan, links, links_named, port_vlans};
pub use progress::Progress;
pub use routes::is_routed;
pub use supervise::{Attempt, Ended, Patience, supervise};
pub use write::write_in_time;
