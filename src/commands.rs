//! The commands that administrators type: each looks at the node, or changes it, and tells.

mod apply;
mod attach;
mod check;
mod clear;
mod complete;
mod context;
mod doctor;
mod edit;
mod events;
mod explain;
mod format;
mod import;
mod init;
mod plan;
mod ports;
mod rate;
mod review;
mod status;
mod verify;

pub use apply::run as apply;
pub use attach::{attach, detach};
pub use check::run as check;
pub use clear::run as clear;
pub use complete::run as complete;
pub use context::{expect_pve, say_first_step};
pub use doctor::{Verbosity, run as doctor};
pub use edit::run as edit;
pub use events::run as events;
pub use explain::run as explain;
pub use format::Format;
pub use import::run as import;
pub use init::run as init;
pub use plan::run as plan;
pub use ports::run as ports;
pub use status::run as status;
pub use verify::run as verify;
