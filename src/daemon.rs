//! The service: keeps this node's mirrors right between hooks.
//!
//! It hears of devices, of our table, of Open vSwitch's database and of /etc/pve, and answers each with the same
//! reconcile that a hook runs. The process itself only waits: what may hang (a read in /etc/pve, Open vSwitch, nft) is
//! done by children, so that it always answers systemd and ends when it is told to.

mod config_poller;
mod duration;
mod error;
mod event_sources;
mod faults;
mod flap_guard;
mod instance_lock;
pub mod metrics;
pub mod metrics_server;
mod schedule;
mod sd_notify;
mod service;
mod session_health;
pub mod state;
mod task_reports;
mod tasks;
mod transitions;

pub use error::Error;
pub use service::Options;

/// Runs the service until it is told to end.
///
/// # Errors
/// It cannot be started.
pub fn run(options: Options) -> Result<(), Error> {
    service::Service::new(options)?.run()
}
