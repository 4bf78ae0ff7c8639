//! What each engine's objects are as data, and their difference.

pub mod nft;
pub mod port;
