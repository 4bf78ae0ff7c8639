//! Guest configs: what stands behind the first section header is never looked at, how lines end says nothing, and
//! every warning is about a line that is there.

use pve_span_core::model::{GuestKind, VlanSet, Vmid};
use pve_span_core::pve::guest::{Guest, Warning, parse};

/// Checks one input, as a VM's config and as a container's.
pub fn check(data: &[u8]) {
    // As /etc/pve is read.
    let text = String::from_utf8_lossy(data);
    for kind in [GuestKind::Qemu, GuestKind::Lxc] {
        let (guest, warnings) = read(kind, &text);
        assert_eq!((guest.vmid, guest.kind), (vmid(), kind));
        is_sound(&text, &guest, &warnings);

        let same = (guest, warnings);
        assert_eq!(same, read(kind, current(&text)), "the sections count");
        let more = format!("{text}\n[later]\n{text}\n");
        assert_eq!(same, read(kind, &more), "another section counts");
        let crlf = text.replace('\n', "\r\n");
        assert_eq!(same, read(kind, &crlf), "the ends of lines count");
    }
}

fn vmid() -> Vmid {
    Vmid::new(101).unwrap()
}

fn read(kind: GuestKind, text: &str) -> (Guest, Vec<Warning>) {
    parse(vmid(), kind, text)
}

/// What stands before the first `[…]` that has a line to itself.
fn current(text: &str) -> &str {
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        let name = line.trim_end().strip_prefix('[');
        let name = name.and_then(|rest| rest.strip_suffix(']'));
        if name.is_some_and(|name| !name.is_empty()) {
            break;
        }
        end += line.len();
    }
    &text[..end]
}

fn is_sound(text: &str, guest: &Guest, warnings: &[Warning]) {
    let lines = text.lines().count();
    for warning in warnings {
        assert!((1..=lines).contains(&warning.line), "{warning:?}");
        super::assert_printable(&warning.message);
        // A config may have a megabyte, and a warning must not repeat it.
        assert!(
            warning.message.len() < 1024,
            "{} bytes",
            warning.message.len()
        );
    }
    assert!(warnings.len() <= 100);
    assert!(warnings.is_sorted_by_key(|warning| warning.line));
    for tag in &guest.tags {
        assert!(!tag.is_empty() && !tag.contains([';', ',']));
    }
    for nic in guest.nics.values() {
        assert!(nic.tag.is_none_or(|tag| tag <= VlanSet::MAX));
    }
}
