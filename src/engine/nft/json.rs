//! Changes of our table → the JSON that `nft -j -f -` reads (libnftables-json(5)).
//!
//! This exists because names of chains and devices need no quoting in JSON. It only translates: what shall change
//! is decided in the core, and nothing is run here.
//!
//! Fields are written as raw bits, never by their names: for those nft(8) adds tests of its own, such as one of the
//! input device's type, which never holds where frames leave.

use nftables::batch::Batch;
use nftables::expr::{
    BinaryOperation, Expression, NamedExpression, Numgen, Payload, PayloadBase, PayloadRaw, Range,
    SetItem,
};
use nftables::schema::{Chain, Counter, FlushObject, NfCmd, NfListObject, Nftables, Rule, Table};
use nftables::stmt::{self, Dup, JumpTarget, Operator, Statement};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};

use pve_span_core::engine::nft;
use pve_span_core::engine::nft::{
    Act, Command, CopyVerdict, Field, Hook, Match, Side, TABLE, Test,
};

/// When our chains have their turn, lower being earlier: before all that others hang there (nft(8) calls -300 to 300 by
/// name), as what a firewall drops or a flowtable forwards has been on the wire all the same.
pub const PRIORITY: i32 = -500;

/// A rule's number that cannot be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("rule handle {0} does not fit the 32 bits that the nftables crate has for it")]
pub struct HandleTooLarge(pub u64);

/// The commands, as one transaction.
///
/// # Errors
///
/// When a rule's handle is above 2³²; the kernel counts them up in each table.
pub fn commands(commands: &[Command]) -> Result<Nftables<'_>, HandleTooLarge> {
    let mut batch = Batch::new();
    for command in commands {
        batch.add_cmd(self::command(command)?);
    }
    Ok(batch.to_nftables())
}

fn command(command: &Command) -> Result<NfCmd<'_>, HandleTooLarge> {
    Ok(match command {
        Command::AddTable => NfCmd::Add(table()),
        Command::DeleteTable => NfCmd::Delete(table()),
        Command::AddCounter(name) => NfCmd::Add(counter(name)),
        Command::DeleteCounter(name) => NfCmd::Delete(counter(name)),
        Command::AddChain(name, hook) => {
            NfCmd::Add(NfListObject::Chain(chain(name, hook.as_ref())))
        }
        Command::FlushChain(name) => NfCmd::Flush(FlushObject::Chain(chain(name, None))),
        Command::DeleteChain(name) => NfCmd::Delete(NfListObject::Chain(chain(name, None))),
        Command::AddRule(chain, rule) => NfCmd::Add(NfListObject::Rule(Rule {
            expr: statements(rule).into(),
            comment: Some(rule.comment().into()),
            ..rule_in(chain)
        })),
        Command::DeleteRule(chain, handle) => NfCmd::Delete(NfListObject::Rule(Rule {
            handle: Some(u32::try_from(*handle).map_err(|_| HandleTooLarge(*handle))?),
            ..rule_in(chain)
        })),
    })
}

fn table<'a>() -> NfListObject<'a> {
    NfListObject::Table(Table {
        family: NfFamily::NetDev,
        name: TABLE.into(),
        handle: None,
    })
}

fn counter(name: &str) -> NfListObject<'_> {
    NfListObject::Counter(Counter {
        family: NfFamily::NetDev,
        table: TABLE.into(),
        name: name.into(),
        handle: None,
        packets: None,
        // The crate would write a null.
        bytes: Some(0),
    })
}

fn chain<'a>(name: &'a str, hook: Option<&'a Hook>) -> Chain<'a> {
    let chain = Chain {
        family: NfFamily::NetDev,
        table: TABLE.into(),
        name: name.into(),
        ..Chain::default()
    };
    match hook {
        None => chain,
        Some(hook) => Chain {
            _type: Some(NfChainType::Filter),
            hook: Some(match hook.side {
                Side::Ingress => NfHook::Ingress,
                Side::Egress => NfHook::Egress,
            }),
            dev: Some(hook.device.as_str().into()),
            prio: Some(PRIORITY),
            policy: Some(NfChainPolicy::Accept),
            ..chain
        },
    }
}

fn rule_in(chain: &str) -> Rule<'_> {
    Rule {
        family: NfFamily::NetDev,
        table: TABLE.into(),
        chain: chain.into(),
        ..Rule::default()
    }
}

fn statements(rule: &nft::Rule) -> Vec<Statement<'_>> {
    let mut statements: Vec<_> = apart(&rule.matches).iter().map(test).collect();
    let target = |chain: &str| JumpTarget {
        target: chain.to_owned().into(),
    };
    match &rule.action {
        Act::Jump(chain) => statements.push(Statement::Jump(target(chain))),
        Act::Goto(chain) => statements.push(Statement::Goto(target(chain))),
        Act::Return => statements.push(Statement::Return(None)),
        Act::Accept => statements.push(Statement::Accept(None)),
        Act::Drop => statements.push(Statement::Drop(None)),
        Act::Copy {
            counter,
            device,
            index: _,
            then,
        } => {
            statements.push(Statement::Counter(stmt::Counter::Named(counter.into())));
            statements.push(Statement::Dup(Dup {
                addr: Expression::String(device.as_str().into()),
                dev: None,
            }));
            match then {
                CopyVerdict::Accept => statements.push(Statement::Accept(None)),
                CopyVerdict::Continue => {}
            }
        }
    }
    statements
}

/// The tests, so that nft(8) does not make one comparison of two fields that are neighbours in the frame.
///
/// It does so wherever single values are compared (1.0.6: `payload_do_merge` in its src/rule.c), and twice the result is
/// wrong. Of "the source port is not 22, and the destination port is not 22" it makes "they are not both 22". And a
/// comparison that begins before the EtherType and goes on into it misses the VLAN tag that the kernel has taken out
/// of the bytes, unless the kernel has `nft_payload_need_vlan_copy`. Comparisons under a mask are left alone, so one
/// of all bits is put on.
fn apart(matches: &[Match]) -> Vec<Match> {
    let mut plain: Vec<Field> = Vec::new();
    let mut apart = matches.to_vec();
    for test in &mut apart {
        let Match::Bits { field, ranges, .. } = test else {
            continue;
        };
        let single = matches!(ranges.as_slice(), [(low, high)] if low == high);
        if !single || field.mask.is_some() {
            continue;
        }
        let touches = |other: &Field| {
            field.offset + field.length == other.offset
                || other.offset + other.length == field.offset
        };
        if plain.iter().any(touches) {
            field.mask = u128::MAX.checked_shr(128_u32.saturating_sub(field.length));
        } else {
            plain.push(*field);
        }
    }
    apart
}

fn test(test: &Match) -> Statement<'static> {
    Statement::Match(match test {
        Match::Sample(frames) => stmt::Match {
            left: Expression::Named(NamedExpression::Numgen(Numgen {
                ng_mod: *frames,
                ..Numgen::default()
            })),
            right: Expression::Number(0),
            op: Operator::EQ,
        },
        Match::Bits {
            field,
            test,
            ranges,
        } => {
            let (right, several) = match ranges.as_slice() {
                [range] => (values(*range), range.0 != range.1),
                ranges => {
                    let items = ranges.iter().map(|range| SetItem::Element(values(*range)));
                    let set = NamedExpression::Set(items.collect());
                    (Expression::Named(set), true)
                }
            };
            let op = match (test, several) {
                (Test::NotIn, _) => Operator::NEQ,
                (Test::In, true) => Operator::IN,
                (Test::In, false) => Operator::EQ,
            };
            stmt::Match {
                left: bits(*field),
                right,
                op,
            }
        }
    })
}

fn bits(field: Field) -> Expression<'static> {
    let payload = Payload::PayloadRaw(PayloadRaw {
        base: PayloadBase::LL,
        offset: field.offset,
        len: field.length,
    });
    let payload = Expression::Named(NamedExpression::Payload(payload));
    match field.mask {
        None => payload,
        Some(mask) => {
            Expression::BinaryOperation(Box::new(BinaryOperation::AND(payload, number(mask))))
        }
    }
}

fn values((low, high): (u128, u128)) -> Expression<'static> {
    if low == high {
        return number(low);
    }
    Expression::Range(Box::new(Range {
        range: [number(low), number(high)],
    }))
}

/// A JSON number where the crate has room for it.
fn number(number: u128) -> Expression<'static> {
    match u32::try_from(number) {
        Ok(number) => Expression::Number(number),
        Err(_) => Expression::String(format!("{number:#x}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pve_span_core::model::IfName;
    use serde_json::json;

    fn translated(command: Command) -> serde_json::Value {
        let commands = [command];
        let document = super::commands(&commands).unwrap();
        serde_json::to_value(&document).unwrap()["nftables"][0].clone()
    }

    fn expressions(matches: Vec<Match>, action: Act) -> serde_json::Value {
        let rule = nft::Rule {
            matches,
            action,
            purpose: "test".into(),
        };
        translated(Command::AddRule("c".into(), rule))["add"]["rule"]["expr"].clone()
    }

    fn bits(field: (u32, u32, Option<u128>), test: Test, ranges: &[(u128, u128)]) -> Match {
        let (offset, length, mask) = field;
        Match::Bits {
            field: Field {
                offset,
                length,
                mask,
            },
            test,
            ranges: ranges.to_vec(),
        }
    }

    #[test]
    fn a_base_chain_says_where_it_hangs() {
        let hook = Hook {
            device: "tap101i0".parse::<IfName>().unwrap(),
            side: Side::Egress,
        };
        assert_eq!(
            translated(Command::AddChain("to/1".into(), Some(hook))),
            json!({"add": {"chain": {
                "family": "netdev", "table": "pve-span", "name": "to/1", "type": "filter",
                "hook": "egress", "dev": "tap101i0", "prio": -500, "policy": "accept"
            }}})
        );
    }

    #[test]
    fn things_are_deleted_by_name_and_rules_by_handle() {
        let named = json!({"family": "netdev", "table": "pve-span", "name": "c"});
        let chain = || Command::DeleteChain("c".into());
        assert_eq!(translated(chain()), json!({"delete": {"chain": named}}));
        assert_eq!(
            translated(Command::FlushChain("c".into())),
            json!({"flush": {"chain": named}})
        );
        assert_eq!(
            translated(Command::DeleteRule("c".into(), 7))["delete"]["rule"]["handle"],
            7
        );
        let commands = [Command::DeleteRule("c".into(), 1 << 32)];
        assert_eq!(super::commands(&commands), Err(HandleTooLarge(1 << 32)));
    }

    #[test]
    fn a_copy_is_counted_and_may_be_the_last_thing() {
        let copy = |then| Act::Copy {
            counter: "n".into(),
            device: "tap200i1".parse::<IfName>().unwrap(),
            index: 9,
            then,
        };
        let sample = vec![Match::Sample(100)];
        assert_eq!(
            expressions(sample, copy(CopyVerdict::Accept)),
            json!([
                {"match": {"left": {"numgen": {"mode": "inc", "mod": 100}}, "right": 0, "op": "=="}},
                {"counter": "n"}, {"dup": {"addr": "tap200i1"}}, {"accept": null}
            ])
        );
        assert_eq!(
            expressions(Vec::new(), copy(CopyVerdict::Continue)),
            json!([{"counter": "n"}, {"dup": {"addr": "tap200i1"}}])
        );
    }

    #[test]
    fn neighbours_are_kept_from_being_merged() {
        let whole = |offset: u32, length| bits((offset, length, None), Test::NotIn, &[(22, 22)]);
        let rule = [whole(0, 48), whole(432, 16), whole(96, 16), whole(48, 48)];
        let said = expressions(rule.to_vec(), Act::Accept);
        let masks = [0, 1, 2, 3].map(|at: usize| said[at]["match"]["left"]["&"][1].clone());
        let none = serde_json::Value::Null;
        assert_eq!(
            masks,
            [none.clone(), none.clone(), none, json!("0xffffffffffff")]
        );
        let ports = expressions(vec![whole(432, 16), whole(448, 16)], Act::Accept);
        assert_eq!(ports[1]["match"]["left"]["&"][1], json!(65535));
    }

    #[test]
    fn bits_are_compared_with_values_ranges_and_sets_of_them() {
        let one = |test: Match| expressions(vec![test], Act::Goto("c".into()))[0]["match"].clone();
        let payload = |offset: u32, length: u32| json!({"payload": {"base": "ll", "offset": offset, "len": length}});
        let (any, kind) = ((208, 32, Some(0xff00_ff00)), (96, 16, None));
        assert_eq!(
            one(bits(kind, Test::In, &[(2048, 2048)])),
            json!({"left": payload(96, 16), "right": 2048, "op": "=="})
        );
        assert_eq!(
            one(bits(kind, Test::NotIn, &[(5, 9)])),
            json!({"left": payload(96, 16), "right": {"range": [5, 9]}, "op": "!="})
        );
        assert_eq!(
            one(bits(
                any,
                Test::In,
                &[(0x0a00_0000, 0x0a00_0000), (u32::MAX.into(), 1 << 40)]
            )),
            json!({
                "left": {"&": [payload(208, 32), 0xff00_ff00_u32]},
                "right": {"set": [0x0a00_0000, {"range": [u32::MAX, "0x10000000000"]}]},
                "op": "in"
            })
        );
    }
}
