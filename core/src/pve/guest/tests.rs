//! Guests' configs, with the traps that Proxmox VE's own grammar has.

use super::*;

fn vm(text: &str) -> (Guest, Vec<String>) {
    let (guest, warnings) = parse(Vmid::new(101).unwrap(), GuestKind::Qemu, text);
    (
        guest,
        warnings
            .into_iter()
            .map(|w| format!("{}: {}", w.line, w.message))
            .collect(),
    )
}

fn nic(guest: &Guest, index: u8) -> &Nic {
    &guest.nics[&NicIndex::new(index).unwrap()]
}

#[test]
fn a_vm_with_every_trap_is_read_up_to_its_first_section() {
    let (guest, warnings) = vm(include_str!("../../../../tests/samples/qemu-101.conf"));
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(guest.name.as_deref(), Some("web1"));
    assert_eq!(guest.tags, ["prod".to_owned(), "web".to_owned()].into());
    assert_eq!(guest.nics.len(), 3);
    assert_eq!(nic(&guest, 0).bridge.as_deref(), Some("vmbr2"));
    assert_eq!(nic(&guest, 0).tag, Some(10));
    assert!(nic(&guest, 0).firewall);
    assert_eq!(nic(&guest, 0).mac.as_deref(), Some("BC:24:11:2A:00:01"));
    assert_eq!(nic(&guest, 1).model, "e1000e");
    assert_eq!(nic(&guest, 1).mac.as_deref(), Some("BC:24:11:2A:00:02"));
    assert_eq!(
        nic(&guest, 1).bridge.as_deref(),
        Some("vmbr0"),
        "a pending change is not in force"
    );
    assert_eq!(nic(&guest, 2).bridge, None, "user-mode NAT has no port");
}

#[test]
fn a_container_with_raw_lxc_lines_is_read() {
    let vmid = Vmid::new(300).unwrap();
    let (guest, warnings) = parse(
        vmid,
        GuestKind::Lxc,
        include_str!("../../../../tests/samples/lxc-300.conf"),
    );
    assert_eq!(warnings, []);
    assert_eq!(guest.name.as_deref(), Some("mon"));
    assert_eq!(nic(&guest, 0).bridge.as_deref(), Some("vmbr0"));
    assert_eq!(nic(&guest, 0).tag, Some(20));
    assert_eq!(nic(&guest, 1).trunks.to_string(), "10,20-29");
}

#[test]
fn what_is_not_understood_is_a_warning_and_the_rest_counts() {
    let (guest, warnings) = vm(
        "garbage\nnet0: superfast=BC:24:11:2A:00:01,bridge=vmbr2\nnet32: virtio\n\
         net1: virtio,bridge=vmbr0,tag=5000,firewall=maybe\n[broken\nnet2: virtio,bridge=vmbr9\ntemplate: on\n",
    );
    assert_eq!(
        warnings,
        [
            "1: not a `key: value` line: `garbage`",
            "2: `net0`: unknown NIC model `superfast`",
            "3: `net32` is not a NIC: net0 to net31",
            "4: `net1`: `tag` is not a VLAN: `5000`",
            "5: not a `key: value` line: `[broken`",
        ]
    );
    assert_eq!(nic(&guest, 0).bridge.as_deref(), Some("vmbr2"));
    assert_eq!(nic(&guest, 1).model, "virtio");
    assert_eq!(nic(&guest, 2).bridge.as_deref(), Some("vmbr9"));
    assert!(guest.template);
}

#[test]
fn a_config_full_of_nonsense_is_warned_of_briefly_and_read_to_its_end() {
    let long = format!("net0{}: virtio\n", "0".repeat(100_000));
    let (guest, warnings) = vm(&format!(
        "{long}{}net0: virtio,bridge={}\n",
        "x\n".repeat(100_000),
        "/".repeat(100_000)
    ));
    assert_eq!(warnings.len(), MOST_WARNINGS);
    assert_eq!(guest.nics.len(), 1);
    assert!(warnings.concat().len() < 100 * MOST_WARNINGS);
}

#[test]
fn a_list_of_trunks_as_long_as_a_file_can_be_is_one_range() {
    let trunks = "0-4095;".repeat((1 << 20) / 7);
    let (guest, warnings) = vm(&format!("net0: virtio,trunks={trunks}\n"));
    assert_eq!(warnings, [] as [String; 0]);
    assert_eq!(nic(&guest, 0).trunks.to_string(), "0-4095");
}

#[test]
fn what_can_keep_copies_from_a_sensor_is_read() {
    let (guest, warnings) = vm(
        "ipconfig1: ip=10.0.0.7/24,gw=10.0.0.1\nipconfig2: ip6=auto\nipconfig3: gw=10.0.0.1\nhostpci0: 0000:01:00\n\
         net1: virtio=BC:24:11:2A:00:01,bridge=vmbr2,rate=5,mtu=9000,link_down=1\n",
    );
    assert_eq!(warnings, [] as [&str; 0]);
    let found = nic(&guest, 1);
    assert_eq!(
        (found.rate.as_deref(), found.mtu, found.link_down),
        (Some("5"), Some(9000), true)
    );
    let addresses: Vec<&str> = guest.addresses.values().map(String::as_str).collect();
    assert_eq!(addresses, ["ip=10.0.0.7/24", "ip6=auto"]);
    assert!(guest.passthrough.contains("hostpci0"));
    let (guest, _) = parse(
        guest.vmid,
        GuestKind::Lxc,
        "net0: name=eth0,bridge=vmbr0,ip=dhcp,ip6=manual\nnet1: name=eth1,bridge=vmbr0,ip=manual\n",
    );
    let addresses: Vec<&str> = guest.addresses.values().map(String::as_str).collect();
    assert_eq!(addresses, ["ip=dhcp"]);
}

#[test]
fn tags_separate_at_semicolon_comma_and_blank() {
    let (guest, _) = vm("tags: Web;prod,a b\n");
    assert_eq!(
        guest.tags.iter().map(String::as_str).collect::<Vec<_>>(),
        ["a", "b", "prod", "web"]
    );
}

#[test]
fn crlf_and_an_empty_file_do_no_harm() {
    let (guest, warnings) =
        vm("name: web1\r\nnet0: virtio,bridge=vmbr2\r\n[PENDING]\r\nname: other\r\n");
    assert_eq!((guest.name.as_deref(), warnings.len()), (Some("web1"), 0));
    assert_eq!(vm("").1.len(), 0);
}
