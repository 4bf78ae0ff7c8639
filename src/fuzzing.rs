//! Any bytes as the kernel's answer, for `fuzz/` alone: the decoders are private to their sockets, and nobody but the
//! kernel can answer those.

use crate::engine::nft::decode;
use crate::sys::link_counters::counted;
use crate::sys::netlink_events::is_ours;
use crate::sys::netlink_socket::Messages;
use crate::sys::rtnetlink;

/// Makes everything of an answer that could be made of it; how many messages it had comes back.
pub fn answer(answer: &[u8]) -> usize {
    let mut count = 0;
    for message in Messages(answer) {
        count += 1;
        let Ok(message) = message else { break };
        let _ = message.end();
        rtnetlink::decode(message.kind, message.body);
        let _ = (counted(message.body), is_ours(message.body));
        // Behind struct nfgenmsg.
        decode::everything(message.body.get(4..).unwrap_or_default());
    }
    count
}
