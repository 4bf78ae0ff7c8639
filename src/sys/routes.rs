//! Which devices routes go out by, asked device by device: a router may have a million routes, and the kernel chooses.

use std::io;

use netlink_sys::protocols::NETLINK_ROUTE;
use nix::libc;

use super::Error;
use super::netlink_socket::{Netlink, RequestKind};

/// The `rtm_type` of a route to somewhere (linux/rtnetlink.h, `RTN_UNICAST`).
const UNICAST: u8 = 1;

/// The table of the node's own addresses (`RT_TABLE_LOCAL`).
const LOCAL: u8 = 255;

/// Made by the kernel for an address (`RTPROT_KERNEL`), a link-local one for instance, which every device with IPv6 has.
const KERNEL: u8 = 2;

/// Does a route go out by this device, in any table? Routes that the kernel keeps for the node's own addresses do not
/// count.
///
/// # Errors
/// The kernel does not answer.
pub fn is_routed(index: u32) -> Result<bool, Error> {
    let failed = |source| Error::Socket {
        doing: "listing routes",
        source,
    };
    // Without strict checking the kernel would list them all.
    let mut socket = Netlink::open(NETLINK_ROUTE)
        .and_then(Netlink::strict)
        .map_err(failed)?;
    for family in [libc::AF_INET, libc::AF_INET6] {
        let mut found = false;
        let family = u8::try_from(family).unwrap_or_default();
        let asked = socket.ask(
            libc::RTM_GETROUTE,
            RequestKind::List,
            &question(family, index),
            |kind, route| {
                found |= kind == libc::RTM_NEWROUTE && leads_away(route);
            },
        );
        match asked {
            Ok(_) if found => return Ok(true),
            Ok(_) => {}
            Err(error) if has_none(&error) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(false)
}

/// The device has gone, or this kernel has no such protocol.
fn has_none(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENODEV | libc::EOPNOTSUPP | libc::EAFNOSUPPORT)
    )
}

/// A struct rtmsg, with `RTA_OIF` behind it.
fn question(family: u8, index: u32) -> Vec<u8> {
    let mut body = vec![0; 12];
    body[0] = family;
    body[7] = UNICAST;
    body.extend(8_u16.to_ne_bytes());
    body.extend(libc::RTA_OIF.to_ne_bytes());
    body.extend(index.to_ne_bytes());
    body
}

/// Read off the route's struct rtmsg: its type, its table and who made it.
fn leads_away(route: &[u8]) -> bool {
    let [kind, table, maker] = [7, 4, 5].map(|at| route.get(at).copied());
    kind == Some(UNICAST) && table != Some(LOCAL) && maker != Some(KERNEL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_that_the_kernel_makes_for_addresses_do_not_count() {
        let route = |table, maker, kind| [2, 24, 0, 0, table, maker, 0, kind, 0, 0, 0, 0];
        let [by_hand, advertised] = [3, 9];
        assert!(leads_away(&route(254, by_hand, UNICAST)));
        assert!(leads_away(&route(254, advertised, UNICAST)));
        assert!(!leads_away(&route(254, KERNEL, UNICAST)));
        assert!(!leads_away(&route(LOCAL, by_hand, UNICAST)));
        assert!(!leads_away(&route(254, by_hand, 2)));
        assert!(!leads_away(&[2, 24, 0]));
    }

    #[test]
    fn loopback_has_no_route_that_leads_away() {
        assert!(!is_routed(1).unwrap());
    }
}
