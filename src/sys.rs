//! The system's side: network devices and the node's own addresses, files, the terminal and the log, and work under a deadline.

pub mod clock;
pub mod error;
pub(crate) mod ethtool;
pub mod files;
pub mod logging;
pub mod output;

pub mod capture;
mod isolated;
pub(crate) mod link_counters;
pub(crate) mod link_names;
pub mod lock_held;
pub mod mirred;
pub mod mounts;
pub(crate) mod netlink_attributes;
pub mod netlink_events;
pub(crate) mod netlink_socket;
pub(crate) mod process;
pub(crate) mod program;
pub mod progress;
pub(crate) mod routes;
pub(crate) mod rtnetlink;
mod supervise;
pub(crate) mod terminal;
pub(crate) mod write;

pub(crate) use isolated::{Error as IsolatedError, isolated};
pub use link_counters::{Counted, counters};
pub use link_names::names;
pub use progress::Progress;
pub use routes::is_routed;
pub use rtnetlink::{Error, PortVlan, links, links_named, port_vlans};
pub(crate) use supervise::{ChildAttempt, Deadlines, supervise};
pub use write::write_in_time;
