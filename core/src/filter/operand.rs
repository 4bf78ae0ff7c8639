//! Reads operands: numbers, ports, addresses, networks.
//!
//! This exists to keep the rules of writing a value apart from the rules of putting words together.
//! It sees one word at a time and knows no positions: what is wrong goes to the parser as a
//! [`OperandError`], which knows where the word stands. Nothing is looked up by name.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::tree::{EtherAddr, Ipv4Net, Ipv6Net, PortRange, VlanTag};

/// What is wrong with an operand.
#[derive(Debug)]
pub(super) struct OperandError {
    pub message: String,
    pub hint: Option<String>,
}

impl OperandError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// What a word looks like, in the order in which libpcap's scanner decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Mac(EtherAddr),
    Number,
    /// Two to four decimal numbers with dots between them, good or bad.
    Dotted,
    /// Something with a colon.
    V6,
    Name,
}

/// A network of either family.
#[derive(Clone, Copy, Debug)]
pub(super) enum Network {
    V4(Ipv4Net),
    V6(Ipv6Net),
}

/// What follows the address of a network.
#[derive(Clone, Copy, Debug)]
pub(super) enum Suffix<'a> {
    None,
    Length(&'a str),
    Mask(&'a str),
}

/// A word as it appears in a message: hostile text is not repeated at length, nor as it is.
pub(super) fn shown(word: &str) -> String {
    const LONGEST: usize = 48;
    let mut shown = String::from("`");
    for (index, character) in word.chars().enumerate() {
        match character {
            _ if index == LONGEST => {
                shown.push('…');
                break;
            }
            '\\' | '"' | '\'' => shown.push(character),
            other => shown.extend(other.escape_debug()),
        }
    }
    shown.push('`');
    shown
}

/// What the word looks like.
pub(super) fn shape(word: &str) -> Shape {
    if let Some(mac) = mac(word) {
        Shape::Mac(mac)
    } else if digits(word).is_some() {
        Shape::Number
    } else if word.contains(':') {
        Shape::V6
    } else if word.contains('.') && word.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        Shape::Dotted
    } else {
        Shape::Name
    }
}

/// The digits of a number and their base.
fn digits(word: &str) -> Option<(&str, u32)> {
    let hex = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X"));
    let (digits, base) = hex.map_or((word, 10), |digits| (digits, 16));
    let good = |byte: u8| char::from(byte).is_digit(base);
    (!digits.is_empty() && digits.bytes().all(good)).then_some((digits, base))
}

/// A number, decimal or hexadecimal, up to `most`; `what` is what it is for, with its article.
fn number(word: &str, what: &str, most: u16) -> Result<u16, OperandError> {
    let shown = shown(word);
    let Some((digits, base)) = digits(word) else {
        return Err(OperandError::new(format!("{shown} is not {what}")));
    };
    if base == 10 && digits.len() > 1 && digits.starts_with('0') {
        return Err(OperandError::new(format!("{shown} has a leading zero"))
            .hint("drop the zero: tcpdump would read an octal number"));
    }
    match u16::from_str_radix(digits, base) {
        Ok(number) if number <= most => Ok(number),
        _ => Err(OperandError::new(format!(
            "{shown} is too large for {what}: at most {most}"
        ))),
    }
}

/// The VLAN id in `vlan N`.
pub(super) fn vlan(word: &str) -> Result<VlanTag, OperandError> {
    let id = number(word, "a VLAN id", VlanTag::MAX)?;
    VlanTag::new(id).ok_or_else(|| OperandError::new("the VLAN id does not fit in a tag"))
}

/// The operand of `port`.
pub(super) fn port(word: &str) -> Result<PortRange, OperandError> {
    if word.contains('-') && port_range(word).is_ok() {
        let message = format!("{} is not a port number", shown(word));
        return Err(OperandError::new(message).hint(format!("a range is `portrange {word}`")));
    }
    one_port(word).map(|port| PortRange::new(port, port))
}

/// The operand of `portrange`: `A-B` in either order, or a single port.
pub(super) fn port_range(word: &str) -> Result<PortRange, OperandError> {
    match word.split_once('-') {
        Some((first, last)) if !first.is_empty() && !last.is_empty() => {
            Ok(PortRange::new(one_port(first)?, one_port(last)?))
        }
        Some(_) => Err(
            OperandError::new(format!("{} is not a port range", shown(word)))
                .hint("a range is two numbers, such as `1-1023`"),
        ),
        None => one_port(word).map(|port| PortRange::new(port, port)),
    }
}

fn one_port(word: &str) -> Result<u16, OperandError> {
    number(word, "a port number", u16::MAX).map_err(|complaint| match shape(word) {
        Shape::Dotted | Shape::V6 => complaint.hint(format!("an address is `host {word}`")),
        Shape::Name | Shape::Mac(_) => {
            complaint.hint("names of services are not looked up: write the number")
        }
        Shape::Number => complaint,
    })
}

/// The operand of `ether proto`; `name` is what stood behind a backslash.
pub(super) fn ether_type(word: &str) -> Result<u16, OperandError> {
    let type_number = match word.strip_prefix('\\') {
        Some(name) => protocol_number(name).ok_or_else(|| {
            let message = format!("unknown EtherType name {}", shown(word));
            OperandError::new(message)
                .hint(r"known are `\ip`, `\ip6`, `\arp` and `\rarp`: write the number")
        })?,
        None if protocol_number(word).is_some() => {
            return Err(
                OperandError::new(format!("{} needs a backslash here", shown(word)))
                    .hint(format!(r"write `ether proto \{word}`")),
            );
        }
        None => number(word, "an EtherType", u16::MAX)?,
    };
    match type_number {
        // IEEE 802.3 §3.2.6: below is a length; libpcap takes the number for an LLC SAP there.
        ..0x0600 => Err(OperandError::new(format!(
            "{} is too small for an EtherType: at least 0x0600",
            shown(word)
        ))),
        // libpcap, gencode.c, gen_linktype: these two also match in SNAP frames.
        0x809b | 0x80f3 => Err(OperandError::new("AppleTalk is not supported")),
        other => Ok(other),
    }
}

fn protocol_number(name: &str) -> Option<u16> {
    Some(match name {
        "ip" => 0x0800,
        "arp" => 0x0806,
        "rarp" => 0x8035,
        "ip6" => 0x86dd,
        _ => return None,
    })
}

/// The operand of `ether host`.
pub(super) fn ether_host(word: &str) -> Result<EtherAddr, OperandError> {
    mac(word).ok_or_else(|| {
        OperandError::new(format!("invalid MAC address {}", shown(word)))
            .hint("a MAC address is six bytes in hexadecimal, such as `bc:24:11:00:00:01`")
    })
}

/// A MAC address in any of libpcap's ways: `1:2:3:4:5:6` (or with `-` or `.`), `0102.0304.0506`,
/// `010203040506`.
fn mac(word: &str) -> Option<EtherAddr> {
    let mut bytes = [0_u8; 6];
    for separator in [':', '-', '.'] {
        if word.split(separator).count() == bytes.len() {
            for (byte, part) in bytes.iter_mut().zip(word.split(separator)) {
                *byte = hex_byte(part)?;
            }
            return Some(EtherAddr(bytes));
        }
    }
    let packed: String = match word.len() {
        12 => word.to_owned(),
        14 if word.split('.').all(|part| part.len() == 4) => word.replace('.', ""),
        _ => return None,
    };
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = hex_byte(packed.get(2 * index..2 * index + 2)?)?;
    }
    Some(EtherAddr(bytes))
}

/// One or two hexadecimal digits and nothing else.
fn hex_byte(part: &str) -> Option<u8> {
    let good = (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
    good.then(|| u8::from_str_radix(part, 16).ok()).flatten()
}

/// The operand of `host`. As in tcpdump, `10.1` is every address that begins so.
pub(super) fn host(word: &str) -> Result<Network, OperandError> {
    match shape(word) {
        Shape::Number if word.parse::<u8>().is_err() => {
            Err(not_an_address(word).hint(format!("did you mean `port {word}`?")))
        }
        Shape::Number => Err(not_an_address(word)
            .hint("write all parts of the address, or the beginning of a network as `net 10`")),
        Shape::Dotted | Shape::V6 => net(word, Suffix::None),
        Shape::Mac(_) => Err(not_an_address(word).hint(format!("write `ether host {word}`"))),
        Shape::Name => {
            Err(not_an_address(word).hint("names of hosts are not looked up: write the address"))
        }
    }
}

/// The operand of `net`.
pub(super) fn net(word: &str, suffix: Suffix<'_>) -> Result<Network, OperandError> {
    match shape(word) {
        Shape::Number => classful(word, suffix),
        Shape::Dotted => ipv4_net(word, suffix).map(Network::V4),
        Shape::V6 => ipv6_net(word, suffix).map(Network::V6),
        Shape::Mac(_) => Err(not_a_network(word).hint(format!("write `ether host {word}`"))),
        Shape::Name => {
            Err(not_a_network(word).hint("names of networks are not looked up: write the address"))
        }
    }
}

fn not_an_address(word: &str) -> OperandError {
    OperandError::new(format!("{} is not an IP address", shown(word)))
}

fn not_a_network(word: &str) -> OperandError {
    OperandError::new(format!("{} is not a network", shown(word)))
}

/// `net 10` is 10.0.0.0/8. What tcpdump makes of 0 and of numbers above 255 is nobody's intent.
fn classful(word: &str, suffix: Suffix<'_>) -> Result<Network, OperandError> {
    let octet = number(word, "the first part of an address", 255)
        .map_err(|complaint| complaint.hint("write the network as `10.0.0.0/8`"))?;
    let octet = u8::try_from(octet).map_err(|_| not_a_network(word))?;
    if !matches!(suffix, Suffix::None) {
        let message = format!("{} needs a second part before a mask", shown(word));
        return Err(OperandError::new(message).hint(format!("write `{octet}.0.0.0`")));
    }
    if octet == 0 {
        return Err(not_a_network(word).hint("every IPv4 address is `net 0.0.0.0/0`"));
    }
    let address = Ipv4Addr::new(octet, 0, 0, 0);
    Ipv4Net::new(address, Ipv4Addr::new(255, 0, 0, 0))
        .map(Network::V4)
        .ok_or_else(|| not_a_network(word))
}

fn ipv4_net(word: &str, suffix: Suffix<'_>) -> Result<Ipv4Net, OperandError> {
    let (address, given) = ipv4_parts(word)?;
    let (mask, written) = match suffix {
        Suffix::None => (prefix_mask(given), word.to_owned()),
        Suffix::Length(length) => {
            let bits = prefix_length(length, 32)?;
            (prefix_mask(u32::from(bits)), format!("{word}/{length}"))
        }
        Suffix::Mask(mask) => {
            let (bits, _) = ipv4_parts(mask)?;
            (bits, format!("{word} mask {mask}"))
        }
    };
    Ipv4Net::new(address, mask).ok_or_else(|| {
        let complaint = OperandError::new(format!("non-network bits set in {}", shown(&written)));
        match Ipv4Net::new(address & mask, mask) {
            Some(meant) => complaint.hint(format!("did you mean `{meant}`?")),
            None => complaint,
        }
    })
}

/// One to four leading parts of an IPv4 address, and how many bits they are.
fn ipv4_parts(word: &str) -> Result<(Ipv4Addr, u32), OperandError> {
    let invalid = || OperandError::new(format!("invalid IPv4 address {}", shown(word)));
    let mut octets = [0_u8; 4];
    let mut bits = 0;
    for (index, part) in word.split('.').enumerate() {
        let octet = octets
            .get_mut(index)
            .ok_or_else(|| invalid().hint("an IPv4 address has four parts"))?;
        if part.len() > 1 && part.starts_with('0') {
            return Err(invalid().hint("drop the leading zero: it could be read as octal"));
        }
        if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(invalid());
        }
        *octet = part
            .parse()
            .map_err(|_| invalid().hint("a part is at most 255"))?;
        bits += 8;
    }
    Ok((Ipv4Addr::from(octets), bits))
}

fn prefix_mask(bits: u32) -> Ipv4Addr {
    let host_bits = 32_u32.saturating_sub(bits);
    Ipv4Addr::from_bits(u32::MAX.checked_shl(host_bits).unwrap_or(0))
}

fn ipv6_net(word: &str, suffix: Suffix<'_>) -> Result<Ipv6Net, OperandError> {
    let address: Ipv6Addr = word
        .parse()
        .map_err(|_| OperandError::new(format!("invalid IPv6 address {}", shown(word))))?;
    let bits = match suffix {
        Suffix::None => 128,
        Suffix::Length(length) => prefix_length(length, 128)?,
        Suffix::Mask(_) => {
            return Err(
                OperandError::new("`mask` does not go with an IPv6 network").hint(format!(
                    "write the length of the prefix, such as `{word}/64`"
                )),
            );
        }
    };
    Ipv6Net::new(address, bits).ok_or_else(|| {
        let complaint = OperandError::new(format!("non-network bits set in `{word}/{bits}`"));
        let host_bits = 128_u32.saturating_sub(u32::from(bits));
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        match Ipv6Net::new(Ipv6Addr::from_bits(address.to_bits() & mask), bits) {
            Some(meant) => complaint.hint(format!("did you mean `{meant}`?")),
            None => complaint,
        }
    })
}

fn prefix_length(word: &str, most: u8) -> Result<u8, OperandError> {
    let bits = number(word, "a prefix length", u16::from(most))?;
    u8::try_from(bits).map_err(|_| OperandError::new("the prefix length is out of range"))
}

/// A whole IP address, which tcpdump would want `host` in front of.
pub(super) fn is_address(word: &str) -> bool {
    word.parse::<core::net::IpAddr>().is_ok() && !matches!(shape(word), Shape::Mac(_))
}
