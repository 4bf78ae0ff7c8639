//! Every word of the complaints, and where the caret stands.

use super::super::*;

/// A diagnostic as a reader sees it: the text, the caret, the message, the hint.
fn complaint(text: &str) -> String {
    let error = parse(text).unwrap_err();
    let hint = error
        .hint
        .map_or(String::new(), |hint| format!(" ({hint})"));
    let (indent, caret) = (" ".repeat(error.offset), "^".repeat(error.width));
    format!("{text}\n{indent}{caret}\n{}{hint}", error.message)
}

/// Pins a diagnostic: what is written, where the caret stands, what is said.
macro_rules! complaints {
    ($($name:ident { $($text:expr => $caret:expr, $message:expr;)+ })+) => {
        $(#[test]
        fn $name() {
            $(assert_eq!(complaint($text), concat!($text, "\n", $caret, "\n", $message));)+
        })+
    };
}

complaints! {
    a_missing_part_is_pointed_at_where_it_should_stand {
        "" => "^", "the filter expression is empty (leave the key out to mirror every frame)";
        "tcp and" => "       ^", "expected a primitive, the expression ends";
        "not" => "   ^", "expected a primitive, the expression ends";
        "host" => "    ^", "expected an IP address after `host`, the expression ends";
        "src" => "   ^", "expected `host`, `net`, `port` or an address after `src`, the expression ends";
        "net 10.0.0.0/" => "             ^",
            "expected the length of a prefix after `/`, the expression ends";
        "net 10.0.0.0 mask 8" => "                  ^",
            "expected a mask such as `255.255.255.0` after `mask`, found `8`";
        "ether" => "     ^", "expected `host` or `proto` after `ether`, the expression ends";
    }
    parentheses_that_do_not_match_are_pointed_at {
        "tcp and (udp or (icmp)" => "        ^", "this parenthesis is never closed";
        "tcp) or udp" => "   ^", "this parenthesis was never opened";
        "()" => " ^", "expected a primitive, found `)`";
        "(tcp udp)" => "     ^^^", "expected `and`, `or` or `)`, found `udp`";
    }
    a_misspelt_word_is_recognised {
        "prot 22" => "^^^^", "unknown word `prot` (did you mean `port`?)";
        "tcp prot 22" => "    ^^^^", "expected `and` or `or`, found `prot` (did you mean `port`?)";
        "tcp adn udp" => "    ^^^", "expected `and` or `or`, found `adn` (did you mean `and`?)";
        "TCP" => "^^^", "unknown word `TCP` (tcpdump's words are in lower case: `tcp`)";
        "frobnicate" => "^^^^^^^^^^", "unknown word `frobnicate`";
        "igmp" => "^^^^", "tcpdump's `igmp` is not supported";
    }
    names_are_not_looked_up {
        "host web01" => "     ^^^^^",
            "`web01` is not an IP address (names of hosts are not looked up: write the address)";
        "net lan" => "    ^^^",
            "`lan` is not a network (names of networks are not looked up: write the address)";
        "port http" => "     ^^^^",
            "`http` is not a port number (names of services are not looked up: write the number)";
    }
    a_bad_address_says_why {
        "host 256.0.0.1" => "     ^^^^^^^^^", "invalid IPv4 address `256.0.0.1` (a part is at most 255)";
        "host 10.0.0.0.1" => "     ^^^^^^^^^^",
            "invalid IPv4 address `10.0.0.0.1` (an IPv4 address has four parts)";
        "host 010.0.0.1" => "     ^^^^^^^^^",
            "invalid IPv4 address `010.0.0.1` (drop the leading zero: it could be read as octal)";
        "host 10..1" => "     ^^^^^", "invalid IPv4 address `10..1`";
        "host 2001:db8::1::2" => "     ^^^^^^^^^^^^^^", "invalid IPv6 address `2001:db8::1::2`";
        "host 10" => "     ^^",
            "`10` is not an IP address (write all parts of the address, or the beginning of a network as `net 10`)";
        "host 10.0.0.1 or 443" => "                 ^^^", "`443` is not an IP address (did you mean `port 443`?)";
        "host bc:24:11:00:00:01" => "     ^^^^^^^^^^^^^^^^^",
            "`bc:24:11:00:00:01` is not an IP address (write `ether host bc:24:11:00:00:01`)";
        "ether host bc:24" => "           ^^^^^",
            "invalid MAC address `bc:24` (a MAC address is six bytes in hexadecimal, such as `bc:24:11:00:00:01`)";
    }
    a_bad_network_says_why {
        "net 10.0.0.1/8" => "    ^^^^^^^^^^",
            "non-network bits set in `10.0.0.1/8` (did you mean `net 10.0.0.0/8`?)";
        "net 10.0.0.1 mask 255.0.0.0" => "    ^^^^^^^^^^^^^^^^^^^^^^^",
            "non-network bits set in `10.0.0.1 mask 255.0.0.0` (did you mean `net 10.0.0.0/8`?)";
        "net 2001:db8::1/32" => "    ^^^^^^^^^^^^^^",
            "non-network bits set in `2001:db8::1/32` (did you mean `net 2001:db8::/32`?)";
        "net 10.0.0.0/33" => "    ^^^^^^^^^^^", "`33` is too large for a prefix length: at most 32";
        "net 2001:db8::/129" => "    ^^^^^^^^^^^^^^", "`129` is too large for a prefix length: at most 128";
        "net 10/8" => "    ^^^^", "`10` needs a second part before a mask (write `10.0.0.0`)";
        "net 300" => "    ^^^", "`300` is too large for the first part of an address: at most 255 (write the network as `10.0.0.0/8`)";
        "net 0" => "    ^", "`0` is not a network (every IPv4 address is `net 0.0.0.0/0`)";
        "net 2001:db8:: mask 255.0.0.0" => "    ^^^^^^^^^^^^^^^^^^^^^^^^^",
            "`mask` does not go with an IPv6 network (write the length of the prefix, such as `2001:db8::/64`)";
        "src 10.0.0.0/8" => "    ^^^^^^^^^^", "only a network can have a mask (write `src net 10.0.0.0/8`)";
        "host 10.0.0.0/24" => "     ^^^^^^^^^^^", "only a network can have a mask (write `net 10.0.0.0/24`)";
    }
    a_bad_port_says_why {
        "port 65536" => "     ^^^^^", "`65536` is too large for a port number: at most 65535";
        "portrange 1-65536" => "          ^^^^^^^", "`65536` is too large for a port number: at most 65535";
        "port 022" => "     ^^^", "`022` has a leading zero (drop the zero: tcpdump would read an octal number)";
        "port 1-9" => "     ^^^", "`1-9` is not a port number (a range is `portrange 1-9`)";
        "portrange 1-" => "          ^^", "`1-` is not a port range (a range is two numbers, such as `1-1023`)";
        "port 80 or 10.0.0.1" => "           ^^^^^^^^",
            "`10.0.0.1` is not a port number (an address is `host 10.0.0.1`)";
    }
    words_that_do_not_go_together_are_named {
        "tcp host 10.0.0.1" => "^^^^^^^^", "`tcp` does not go with `host` (write `tcp and host …`)";
        "ip6 dst port 22" => "^^^^^^^^^^^^", "`ip6` does not go with `port` (write `ip6 and dst port …`)";
        "icmp port 22" => "^^^^^^^^^", "`icmp` does not go with `port` (icmp has no ports)";
        "tcp broadcast" => "^^^^^^^^^^^^^", "`tcp` does not go with `broadcast` (write `tcp and broadcast`)";
        "ether port 22" => "^^^^^^^^^^", "`ether` does not go with `port` (leave `ether` out)";
        "src broadcast" => "^^^^^^^^^^^^^", "`src` does not go with `broadcast`";
        "ip host ::1" => "        ^^^", "`ip` does not go with an IPv6 address (leave it out, or write `ip6`)";
        "ip6 net 10.0.0.0/8" => "        ^^^^^^^^^^",
            "`ip6` does not go with an IPv4 address (leave it out, or write `ip`)";
        "ip proto 6" => "   ^^^^^",
            "`proto` goes with `ether` only (write the name of the protocol: `tcp`, `udp`, `sctp`, `icmp` or `icmp6`)";
        "ip broadcast" => "^^^^^^^^^^^^",
            "`ip broadcast` needs a netmask, and a mirrored port has none (write `broadcast`, or `dst host` and the broadcast address)";
    }
    words_in_the_wrong_order_are_turned_round {
        "port src 22" => "     ^^^", "expected a port number after `port`, found `src` (turn it round: `src port`)";
        "src tcp port 22" => "    ^^^",
            "expected `host`, `net`, `port` or an address after `src`, found `tcp` (turn it round: `tcp src`)";
        "src or port 22" => "       ^^^^", "expected `dst` after `src or`, found `port`";
    }
    a_number_without_its_word_is_guessed {
        "tcp 80" => "    ^^", "expected `and` or `or`, found `80` (did you mean `tcp port 80`?)";
        "tcp dst 80" => "        ^^",
            "expected `port` or `portrange` after `tcp dst`, found `80` (did you mean `tcp dst port 80`?)";
        "dst 80" => "    ^^", "`80` is not an IP address (did you mean `dst port 80`?)";
        "tcp and 80" => "        ^^", "nothing says what `80` is (did you mean `port 80`?)";
        "tcp and 10.0.0.1" => "        ^^^^^^^^", "nothing says what `10.0.0.1` is (did you mean `host 10.0.0.1`?)";
        "arp 10.0.0.1" => "    ^^^^^^^^", "expected `and` or `or`, found `10.0.0.1` (did you mean `arp host 10.0.0.1`?)";
        "10.0.0.0/8" => "^^^^^^^^", "nothing says what `10.0.0.0` is (a network is `net` and its address)";
        "ether bc:24:11:00:00:01" => "      ^^^^^^^^^^^^^^^^^",
            "expected `host`, `proto`, `src`, `dst`, `broadcast` or `multicast` after `ether`, found `bc:24:11:00:00:01` (did you mean `ether host bc:24:11:00:00:01`?)";
    }
    vlan_alternatives_are_explained {
        "vlan 10 or 20" => "           ^^",
            "nothing says what `20` is (each `vlan` looks one tag deeper; to choose VLANs use the session's key `vlan = 10, 20`)";
        "vlan 4096" => "     ^^^^", "`4096` is too large for a VLAN id: at most 4095";
    }
    a_bad_ethertype_says_why {
        "ether proto arp" => "            ^^^", "expected a number after `ether proto`, found `arp` (write `ether proto \\arp`)";
        "ether proto \\foo" => "            ^^^^",
            "unknown EtherType name `\\foo` (known are `\\ip`, `\\ip6`, `\\arp` and `\\rarp`: write the number)";
        "ether proto rarp" => "            ^^^^", "`rarp` needs a backslash here (write `ether proto \\rarp`)";
        "ether proto 100" => "            ^^^", "`100` is too small for an EtherType: at least 0x0600";
        "ether proto 0x10000" => "            ^^^^^^^", "`0x10000` is too large for an EtherType: at most 65535";
        "ether proto 0x809b" => "            ^^^^^^", "AppleTalk is not supported";
    }
    characters_from_elsewhere_are_explained {
        "tcp[13] & 2 != 0" => "   ^",
            "expected `and` or `or`, found `[` (tests of single bytes such as `tcp[13] & 2 != 0` are not supported)";
        "tcp & udp" => "    ^", "expected `and` or `or`, found `&` (write `and` or `&&`)";
        "port 80, 443" => "       ^", "expected `and` or `or`, found `,` (write `or` between alternatives)";
        "\"tcp\"" => "^", "expected a primitive, found `\"` (the expression is written without quotes)";
        "tcp é" => "    ^^", "expected `and` or `or`, found `é`";
        "tcp \u{1b}[2J" => "    ^", "expected `and` or `or`, found `\\u{1b}`";
    }
}
