//! Attributes of netlink messages (linux/netlink.h, `struct nlattr`), with numbers as nfnetlink writes them.

use netlink_packet_core::{NLA_HEADER_SIZE, NlasIterator};

/// A run of attributes.
#[derive(Clone, Copy)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Attributes<'a> {
    /// Each attribute's kind and value, up to the first that is broken.
    pub(crate) fn iter(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let attributes = NlasIterator::new(self.0).map_while(Result::ok);
        attributes.map(|attribute| {
            let end = usize::from(attribute.length());
            let value = attribute.into_inner().get(NLA_HEADER_SIZE..end);
            (attribute.kind(), value.unwrap_or_default())
        })
    }

    pub(crate) fn get(self, kind: u16) -> Option<&'a [u8]> {
        let mut of_kind = self.iter().filter(|(found, _)| *found == kind);
        of_kind.next().map(|(_, value)| value)
    }

    pub(crate) fn nested(self, kind: u16) -> Option<Self> {
        self.get(kind).map(Self)
    }

    pub(crate) fn text(self, kind: u16) -> Option<String> {
        self.get(kind).map(text)
    }

    /// A number in network byte order.
    pub(crate) fn number(self, kind: u16) -> Option<u32> {
        self.get(kind)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// A long number in network byte order.
    pub(crate) fn long(self, kind: u16) -> Option<u64> {
        self.get(kind)?.try_into().ok().map(u64::from_be_bytes)
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

/// The table that something is in: `NFTA_CHAIN_TABLE`, `NFTA_RULE_TABLE`, `NFTA_SET_TABLE`, `NFTA_OBJ_TABLE` and
/// `NFTA_FLOWTABLE_TABLE` are the same number.
pub(crate) fn table(body: &[u8]) -> Option<String> {
    Attributes(body).text(1)
}
