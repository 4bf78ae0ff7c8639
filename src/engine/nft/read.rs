//! Our table as the kernel has it, over nfnetlink; nothing is changed.
//!
//! The lists are separate questions. The number of the rule set's generation, asked for before and after,
//! tells whether they belong together.

use std::collections::BTreeMap;
use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::libc;

use super::decode;
use super::decode::attribute;
use crate::sys::error::with_causes;
use crate::sys::netlink_attributes;
use crate::sys::netlink_socket::{DumpState, Netlink, RequestKind};
use pve_span_core::engine::Statistics;
use pve_span_core::engine::nft::{NftState, Seen, SeenChain, SeenRule, TABLE};

/// Why our table could not be read.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// There is no nf_tables to ask.
    #[error("this kernel has no nf_tables (CONFIG_NF_TABLES, CONFIG_NF_TABLES_NETDEV)")]
    Missing,
    /// The caller may not.
    #[error("not permitted to read nftables: this needs root (CAP_NET_ADMIN)")]
    NotPermitted,
    /// The kernel takes its time.
    #[error("cannot read nftables from the kernel ({doing}): no answer in time")]
    Late {
        /// What was being done.
        doing: &'static str,
    },
    /// Something else went wrong.
    #[error("cannot read nftables from the kernel ({doing})")]
    Failed {
        /// What was being done.
        doing: &'static str,
        /// How it failed.
        source: io::Error,
    },
    /// The kernel's answer cannot be decoded.
    #[error("the kernel's answer about nftables is not understood ({doing})")]
    Decode {
        /// What was being done.
        doing: &'static str,
    },
    /// It was always somebody's turn.
    #[error("the kernel's nftables rules kept changing while they were read")]
    Unstable,
}

impl Error {
    fn new(doing: &'static str, source: io::Error) -> Self {
        match source.raw_os_error() {
            // The socket's family, then the subsystem, then the table's family is not there.
            Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT | libc::EOPNOTSUPP | libc::EINVAL) => {
                Self::Missing
            }
            Some(libc::EPERM | libc::EACCES) => Self::NotPermitted,
            Some(libc::EAGAIN) => Self::Late { doing },
            _ => Self::Failed { doing, source },
        }
    }
}

/// How often a table that changed while it was read is read again.
const TRIES: usize = 10;

/// Our table in this network namespace.
pub fn observe() -> NftState {
    match seen() {
        Ok(seen) => NftState::Present(seen),
        // A kernel without nf_tables has no table of ours either; whoever wants one is told when it is made.
        Err(Error::Missing) => NftState::Present(Seen::default()),
        Err(error) => NftState::Failed(with_causes(&error)),
    }
}

/// Our counters alone: cheap enough to be read again and again. Nothing, where there are none or they cannot be read.
pub fn counters() -> BTreeMap<String, Statistics> {
    let list = || {
        let mut kernel = Kernel(Netlink::open(NETLINK_NETFILTER).ok()?);
        kernel
            .list("listing objects", GET_OBJECT, decode::object)
            .ok()?
    };
    let counted = list().unwrap_or_default().into_iter();
    counted
        .filter_map(|(name, counted)| Some((name, counted?)))
        .collect()
}

fn seen() -> Result<Seen, Error> {
    let netlink = Netlink::open(NETLINK_NETFILTER);
    let mut kernel = Kernel(netlink.map_err(|source| Error::new("opening a socket", source))?);
    // By far the most frequent answer, at the price of one question.
    if !kernel.has_table()? {
        return Ok(Seen::default());
    }
    for _ in 0..TRIES {
        let before = kernel.generation()?;
        if !kernel.has_table()? {
            return Ok(Seen::default());
        }
        let seen = kernel.table()?;
        if let (Some(seen), true) = (seen, kernel.generation()? == before) {
            return Ok(seen);
        }
    }
    Err(Error::Unstable)
}

/// The attribute that names the table, in each question: `NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE`, `NFTA_RULE_TABLE` …
/// (linux/netfilter/nf_tables.h).
const TABLE_NAME: u16 = 1;

// The questions (enum nf_tables_msg_types).
const GET_TABLE: u8 = 1;
const GET_CHAIN: u8 = 4;
const GET_RULE: u8 = 7;
const GET_SET: u8 = 10;
const GET_GENERATION: u8 = 16;
const GET_OBJECT: u8 = 19;
const GET_FLOWTABLE: u8 = 23;

/// The kernel's nf_tables.
struct Kernel(Netlink);

impl Kernel {
    fn ask(
        &mut self,
        what: u8,
        want: RequestKind,
        attributes: &[u8],
        take: impl FnMut(&[u8]),
    ) -> io::Result<DumpState> {
        const NFTABLES: u16 = 10;
        const NETDEV: u8 = 5;
        let mut take = take;
        // struct nfgenmsg: the family, NFNETLINK_V0, and a resource that there is none of.
        let mut body = vec![NETDEV, 0, 0, 0];
        body.extend(attributes);
        self.0
            .ask(NFTABLES << 8 | u16::from(what), want, &body, |_, body| {
                take(body.get(4..).unwrap_or_default());
            })
    }

    fn has_table(&mut self) -> Result<bool, Error> {
        let name = attribute(TABLE_NAME, TABLE);
        match self.ask(GET_TABLE, RequestKind::One, &name, |_| {}) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(Error::new("looking for the table", error)),
        }
    }

    /// The number that each change of any table changes.
    fn generation(&mut self) -> Result<u32, Error> {
        let doing = "asking for the generation";
        let mut number = None;
        self.ask(GET_GENERATION, RequestKind::One, &[], |body| {
            number = decode::generation(body);
        })
        .map_err(|source| Error::new(doing, source))?;
        number.ok_or(Error::Decode { doing })
    }

    /// What is in the table; nothing if it changed meanwhile.
    fn table(&mut self) -> Result<Option<Seen>, Error> {
        let chains = self.list("listing chains", GET_CHAIN, decode::chain)?;
        let rules = self.list("listing rules", GET_RULE, decode::rule)?;
        let objects = self.list("listing objects", GET_OBJECT, decode::object)?;
        let sets = self.list("listing sets", GET_SET, decode::set)?;
        let flowtables = self.list("listing flow tables", GET_FLOWTABLE, decode::flowtable)?;
        let (Some(chains), Some(rules), Some(objects), Some(sets), Some(flowtables)) =
            (chains, rules, objects, sets, flowtables)
        else {
            return Ok(None);
        };
        let mut seen = Seen {
            exists: true,
            ..Seen::default()
        };
        let mut of_chain: BTreeMap<String, Vec<SeenRule>> = BTreeMap::new();
        for (chain, rule) in rules {
            of_chain.entry(chain).or_default().push(rule);
        }
        for (name, hook) in chains {
            let rules = of_chain.remove(&name).unwrap_or_default();
            seen.chains.insert(name, SeenChain { hook, rules });
        }
        for (name, counted) in objects {
            match counted {
                Some(counted) => {
                    seen.counters.insert(name, counted);
                }
                None => {
                    seen.strangers.insert(name);
                }
            }
        }
        seen.strangers.extend(sets.into_iter().flatten());
        seen.strangers.extend(flowtables);
        Ok(Some(seen))
    }

    /// A list of what is in our table, each decoded; nothing if it changed while it was sent.
    fn list<T>(
        &mut self,
        doing: &'static str,
        what: u8,
        decode: fn(&[u8]) -> Option<T>,
    ) -> Result<Option<Vec<T>>, Error> {
        let mut found = Vec::new();
        let table = attribute(TABLE_NAME, TABLE);
        // Not all lists are filtered by all kernels.
        let arrived = self.ask(what, RequestKind::List, &table, |body| {
            if netlink_attributes::table(body).as_deref() == Some(TABLE) {
                found.push(decode(body));
            }
        });
        match arrived {
            Ok(DumpState::Whole) => found
                .into_iter()
                .collect::<Option<_>>()
                .map(Some)
                .ok_or(Error::Decode { doing }),
            Ok(DumpState::Broken) => Ok(None),
            // It has just gone.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(Error::new(doing, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_it_from_being_read_is_said() {
        let text = |code| {
            with_causes(&Error::new(
                "listing rules",
                io::Error::from_raw_os_error(code),
            ))
        };
        let missing = "this kernel has no nf_tables (CONFIG_NF_TABLES, CONFIG_NF_TABLES_NETDEV)";
        assert_eq!(text(libc::EPROTONOSUPPORT), missing);
        assert_eq!(text(libc::EOPNOTSUPP), missing);
        assert_eq!(text(libc::EINVAL), missing);
        assert_eq!(
            text(libc::EPERM),
            "not permitted to read nftables: this needs root (CAP_NET_ADMIN)"
        );
        assert_eq!(
            text(libc::EAGAIN),
            "cannot read nftables from the kernel (listing rules): no answer in time"
        );
        assert_eq!(
            text(libc::ENOBUFS),
            "cannot read nftables from the kernel (listing rules): No buffer space available (os error 105)"
        );
    }
}
