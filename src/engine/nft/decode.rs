//! What nf_tables says, decoded (linux/netfilter/nf_tables.h). Bytes in, values out; nothing here panics on
//! any bytes.

use std::collections::BTreeMap;

use crate::sys::netlink_attributes::{Attributes, table, text};
use pve_span_core::engine::Statistics;
use pve_span_core::engine::nft::{Hook, SeenRule, Side};
use pve_span_core::model::IfName;

/// An attribute with a text, as nf_tables wants it: with its NUL.
pub fn attribute(kind: u16, text: &str) -> Vec<u8> {
    let length = 4 + text.len() + 1;
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    bytes.extend(u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(text.as_bytes());
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

/// The number of a generation.
pub fn generation(body: &[u8]) -> Option<u32> {
    const NFTA_GEN_ID: u16 = 1;
    Attributes(body).number(NFTA_GEN_ID)
}

/// A chain's name, and where it hangs.
pub fn chain(body: &[u8]) -> Option<(String, Option<Hook>)> {
    const NFTA_CHAIN_NAME: u16 = 3;
    const NFTA_CHAIN_HOOK: u16 = 4;
    let chain = Attributes(body);
    let hook = chain.nested(NFTA_CHAIN_HOOK).and_then(hook);
    Some((chain.text(NFTA_CHAIN_NAME)?, hook))
}

/// Nothing for a base chain whose device has gone, and for hooks that netdev has not.
fn hook(hook: Attributes<'_>) -> Option<Hook> {
    const NFTA_HOOK_HOOKNUM: u16 = 1;
    const NFTA_HOOK_DEV: u16 = 3;
    const NFTA_HOOK_DEVS: u16 = 4;
    const NFTA_DEVICE_NAME: u16 = 1;
    let side = match hook.number(NFTA_HOOK_HOOKNUM)? {
        // linux/netfilter.h, NF_NETDEV_INGRESS and NF_NETDEV_EGRESS.
        0 => Side::Ingress,
        1 => Side::Egress,
        _ => return None,
    };
    let device = hook.text(NFTA_HOOK_DEV).or_else(|| {
        hook.nested(NFTA_HOOK_DEVS)
            .and_then(|devices| devices.text(NFTA_DEVICE_NAME))
    })?;
    let device: IfName = device.parse().ok()?;
    Some(Hook { device, side })
}

/// A rule, and the chain that it is in.
pub fn rule(body: &[u8]) -> Option<(String, SeenRule)> {
    const NFTA_RULE_CHAIN: u16 = 2;
    const NFTA_RULE_HANDLE: u16 = 3;
    const NFTA_RULE_EXPRESSIONS: u16 = 4;
    const NFTA_RULE_USERDATA: u16 = 7;
    let rule = Attributes(body);
    let seen = SeenRule {
        handle: rule.long(NFTA_RULE_HANDLE)?,
        comment: rule
            .get(NFTA_RULE_USERDATA)
            .map(comment)
            .unwrap_or_default(),
        copies_to: rule.nested(NFTA_RULE_EXPRESSIONS).and_then(copies_to),
    };
    Some((rule.text(NFTA_RULE_CHAIN)?, seen))
}

/// The comment among what nft(8) has written beside a rule: a byte says what, a byte how long (libnftnl's
/// udata.h, `NFTNL_UDATA_RULE_COMMENT`).
fn comment(mut userdata: &[u8]) -> String {
    const COMMENT: u8 = 0;
    while let [kind, length, rest @ ..] = userdata {
        let Some((value, rest)) = rest.split_at_checked(usize::from(*length)) else {
            break;
        };
        if *kind == COMMENT {
            return text(value);
        }
        userdata = rest;
    }
    String::new()
}

/// The interface index that a rule copies to: `dup` names a register, which an `immediate` before it has filled.
fn copies_to(expressions: Attributes<'_>) -> Option<u32> {
    const NFTA_EXPR_NAME: u16 = 1;
    const NFTA_EXPR_DATA: u16 = 2;
    const NFTA_IMMEDIATE_DREG: u16 = 1;
    const NFTA_IMMEDIATE_DATA: u16 = 2;
    const NFTA_DATA_VALUE: u16 = 1;
    const NFTA_DUP_SREG_DEV: u16 = 2;
    let mut registers: BTreeMap<u32, u32> = BTreeMap::new();
    for (_, expression) in expressions.iter() {
        let expression = Attributes(expression);
        let Some(data) = expression.nested(NFTA_EXPR_DATA) else {
            continue;
        };
        match expression.get(NFTA_EXPR_NAME) {
            Some(b"immediate\0") => {
                let value = data
                    .nested(NFTA_IMMEDIATE_DATA)
                    .and_then(|data| data.get(NFTA_DATA_VALUE))
                    .and_then(|value| value.try_into().ok())
                    // An interface index is a number of the host's.
                    .map(u32::from_ne_bytes);
                if let (Some(register), Some(value)) = (data.number(NFTA_IMMEDIATE_DREG), value) {
                    registers.insert(register, value);
                }
            }
            Some(b"dup\0") => {
                return registers.get(&data.number(NFTA_DUP_SREG_DEV)?).copied();
            }
            _ => {}
        }
    }
    None
}

/// A named object, and what it has counted if it is a counter.
pub fn object(body: &[u8]) -> Option<(String, Option<Statistics>)> {
    const NFTA_OBJ_NAME: u16 = 2;
    const NFTA_OBJ_TYPE: u16 = 3;
    const NFTA_OBJ_DATA: u16 = 4;
    const NFT_OBJECT_COUNTER: u32 = 1;
    const NFTA_COUNTER_BYTES: u16 = 1;
    const NFTA_COUNTER_PACKETS: u16 = 2;
    let object = Attributes(body);
    let counted = if object.number(NFTA_OBJ_TYPE)? == NFT_OBJECT_COUNTER {
        let data = object.nested(NFTA_OBJ_DATA)?;
        Some(Statistics {
            frames: data.long(NFTA_COUNTER_PACKETS)?,
            bytes: data.long(NFTA_COUNTER_BYTES)?,
        })
    } else {
        None
    };
    Some((object.text(NFTA_OBJ_NAME)?, counted))
}

/// A set's or map's name; nothing within for one that is a part of a rule.
pub fn set(body: &[u8]) -> Option<Option<String>> {
    const NFTA_SET_NAME: u16 = 2;
    const NFTA_SET_FLAGS: u16 = 3;
    const NFT_SET_ANONYMOUS: u32 = 1;
    let set = Attributes(body);
    let is_anonymous = set.number(NFTA_SET_FLAGS).unwrap_or(0) & NFT_SET_ANONYMOUS != 0;
    let name = set.text(NFTA_SET_NAME)?;
    Some((!is_anonymous).then_some(name))
}

/// A flow table's name.
pub fn flowtable(body: &[u8]) -> Option<String> {
    const NFTA_FLOWTABLE_NAME: u16 = 2;
    Attributes(body).text(NFTA_FLOWTABLE_NAME)
}

/// All that is ever made of a body, whichever was asked for.
pub fn everything(body: &[u8]) {
    let _ = (table(body), generation(body), chain(body), rule(body));
    let _ = (object(body), set(body), flowtable(body));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nla(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(4 + value.len())
            .unwrap()
            .to_ne_bytes()
            .to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn texts_carry_their_nul() {
        for text in ["", "a", "abc", "abcd", "pve-span"] {
            assert_eq!(
                attribute(1, text),
                nla(1, format!("{text}\0").as_bytes()),
                "{text}"
            );
        }
    }

    #[test]
    fn comments_are_found_among_other_notes() {
        assert_eq!(comment(b"\x01\x02ab\x00\x05dmz!\x00"), "dmz!");
        assert_eq!(comment(b""), "");
        assert_eq!(comment(b"\x00\x09short"), "");
    }

    #[test]
    fn a_hook_without_device_is_none() {
        let number = nla(1, &0_u32.to_be_bytes());
        assert_eq!(hook(Attributes(&number)), None);
        let device = [number.clone(), nla(3, b"tap101i0\0")].concat();
        let devices = [number, nla(4, &nla(1, b"tap101i0\0"))].concat();
        let ingress = Some(Hook {
            device: "tap101i0".parse().unwrap(),
            side: Side::Ingress,
        });
        assert_eq!(hook(Attributes(&device)), ingress);
        assert_eq!(hook(Attributes(&devices)), ingress);
    }

    fn decode_all(bytes: &[u8]) {
        everything(bytes);
        let _ = (
            comment(bytes),
            copies_to(Attributes(bytes)),
            hook(Attributes(bytes)),
        );
    }

    /// Attributes within attributes, with lies about their lengths.
    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let leaf = proptest::collection::vec(any::<u8>(), 0..12);
        leaf.prop_recursive(4, 64, 4, |inner| {
            proptest::collection::vec((0_u16..8, inner, -4_i32..5), 0..4).prop_map(|parts| {
                let part = |(kind, value, lie): (u16, Vec<u8>, i32)| {
                    let mut bytes = nla(kind, &value);
                    let length = i32::try_from(value.len()).unwrap() + 4 + lie;
                    let length = u16::try_from(length.max(0)).unwrap();
                    bytes[..2].copy_from_slice(&length.to_ne_bytes());
                    bytes
                };
                parts.into_iter().flat_map(part).collect()
            })
        })
    }

    proptest! {
        #[test]
        fn hostile_bytes_do_not_panic(bytes: Vec<u8>) {
            decode_all(&bytes);
        }

        #[test]
        fn hostile_attributes_do_not_panic(bytes in hostile()) {
            decode_all(&bytes);
        }
    }
}
