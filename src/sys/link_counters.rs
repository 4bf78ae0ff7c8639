//! How many frames have passed each device (`RTM_GETSTATS`, linux/if_link.h): a tenth of what the devices' own messages
//! cost.

use std::collections::BTreeMap;

use netlink_sys::protocols::NETLINK_ROUTE;

use super::Error;
use super::netlink_socket::{Netlink, RequestKind};

/// What a device has counted (struct rtnl_link_stats64).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// Frames that it received: seen from the node.
    pub received: u64,
    /// Frames that the node sent through it.
    pub sent: u64,
    /// Frames that it had no room to send.
    pub send_dropped: u64,
}

/// `RTM_GETSTATS` (linux/rtnetlink.h).
const GET_STATS: u16 = 94;
/// `IFLA_STATS_LINK_64`.
const LINK_64: u16 = 1;

/// All devices' counters, by interface index.
///
/// # Errors
/// The kernel does not answer.
pub fn counters() -> Result<BTreeMap<u32, Counted>, Error> {
    let failed = |source| Error::Socket {
        doing: "counting frames",
        source,
    };
    let mut socket = Netlink::open(NETLINK_ROUTE).map_err(failed)?;
    // struct if_stats_msg: family, padding, index, which of the statistics.
    let mut body = vec![0; 8];
    body.extend((1_u32 << (LINK_64 - 1)).to_ne_bytes());
    let mut found = BTreeMap::new();
    socket
        .ask(GET_STATS, RequestKind::List, &body, |_, answer| {
            found.extend(counted(answer));
        })
        .map_err(failed)?;
    // A list that changed while it was sent may lack a device, which then is not counted this time.
    Ok(found)
}

pub(crate) fn counted(answer: &[u8]) -> Option<(u32, Counted)> {
    let index = u32::from_ne_bytes(*answer.get(4..)?.first_chunk()?);
    let attribute = answer.get(12..)?;
    let kind = u16::from_ne_bytes(*attribute.get(2..)?.first_chunk()?);
    let number = |place: usize| {
        let bytes = attribute.get(4 + place * 8..)?.first_chunk()?;
        Some(u64::from_ne_bytes(*bytes))
    };
    // rx_packets, tx_packets, rx_bytes, tx_bytes, rx_errors, tx_errors, rx_dropped, tx_dropped
    let counted = Counted {
        received: number(0)?,
        sent: number(1)?,
        send_dropped: number(7)?,
    };
    (kind == LINK_64).then_some((index, counted))
}
