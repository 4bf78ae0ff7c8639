use super::*;

fn volume(text: &str) -> Volume {
    text.parse().unwrap()
}

fn of<'a>(storages: &'a Storages, id: &str) -> &'a Storage {
    storages.get(&id.parse().unwrap()).unwrap()
}

#[test]
fn a_node_s_own_file_is_read() {
    let storages = parse(
        "dir: local\n\tpath /var/lib/vz\n\tcontent iso,vztmpl,backup\n\n\
         lvmthin: local-lvm\n\tthinpool data\n\tvgname pve\n\tcontent rootdir,images\n\n\
         # shared by all\nnfs: share\n\texport /srv\n\tserver 10.0.0.9\n\tcontent snippets,iso\n\tnodes pve1,pve2\n\n\
         cifs: off\n\tdisable\n\tpath /srv/off\n\tserver a\n\tshare b\n\tcontent-dirs iso=isos,snippets=hooks/all\n",
    );
    let local = of(&storages, "local");
    assert_eq!(local.content_with_snippets(), "backup,iso,snippets,vztmpl");
    assert!(!local.allows_snippets() && !local.shared && !local.disabled);
    let path = |text: &str| storages.path(&volume(text)).map_err(|error| error.0);
    assert_eq!(
        path("local:snippets/pve-span").as_deref(),
        Ok("/var/lib/vz/snippets/pve-span")
    );
    assert_eq!(
        path("share:snippets/x y").as_deref(),
        Ok("/mnt/pve/share/snippets/x y")
    );
    assert_eq!(
        path("off:snippets/x").as_deref(),
        Ok("/srv/off/hooks/all/x")
    );
    assert_eq!(
        path("local-lvm:snippets/x"),
        Err("the storage `local-lvm` (lvmthin) keeps no snippets".into())
    );
    assert_eq!(
        path("none:snippets/x"),
        Err("there is no storage `none`".into())
    );
    let share = of(&storages, "share");
    assert!(share.shared && share.allows_snippets() && !share.disabled);
    assert!(share.is_on(&"pve2".parse().unwrap()) && !share.is_on(&"pve3".parse().unwrap()));
    assert!(of(&storages, "off").disabled);
}

#[test]
fn local_is_always_there_and_always_at_its_place() {
    let usual = parse("");
    assert_eq!(usual, Storages::default());
    assert!(of(&usual, "local").allows_snippets());
    for odd in [
        "nfs: local\n\tserver a\n\texport /x\n\tcontent iso\n",
        "dir: local\n\tpath /srv\n\tcontent iso\n",
        "dir: local\n\tpath /var/lib/vz/sub\n\tcontent iso\n",
    ] {
        assert_eq!(parse(odd), usual, "{odd}");
    }
    let restricted = parse("dir: local\n\tcontent snippets\n\tnodes pve1\n");
    let local = of(&restricted, "local");
    assert_eq!(local.nodes, None);
    assert_eq!(local.snippets.as_deref(), Some("/var/lib/vz/snippets"));
}

#[test]
fn what_is_not_understood_is_passed_over() {
    let storages = parse(
        "garbage\n\tpath /x\n\ndir: ../up\n\tpath /x\n\ndir: one\npath /not/indented\n\tpath /one\n   \n\tcontent none\n\n\
         dir: nowhere\n\tcontent snippets\n\ndir: hostile\n\tpath /a\u{1b}[2J\n",
    );
    let names: Vec<&str> = storages.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(names, ["hostile", "local", "nowhere", "one"]);
    let one = of(&storages, "one");
    assert_eq!(one.snippets.as_deref(), Some("/one/snippets"));
    assert_eq!(one.content_with_snippets(), "snippets");
    assert_eq!(of(&storages, "nowhere").snippets, None);
    assert_eq!(of(&storages, "hostile").snippets, None);
    let many: String = (0..5000).map(|n| format!("dir: s{n}\n\n")).collect();
    assert_eq!(parse(&many).iter().count(), MOST + 1);
}

#[test]
fn a_storage_without_content_keeps_what_its_type_does() {
    let storages = parse("dir: a1\n\tpath /a\n\ncephfs: b1\n\nzfspool: c1\n");
    assert!(!of(&storages, "a1").allows_snippets());
    assert_eq!(
        of(&storages, "b1").content_with_snippets(),
        "backup,snippets"
    );
    assert_eq!(
        of(&storages, "b1").snippets.as_deref(),
        Some("/mnt/pve/b1/snippets")
    );
    assert_eq!(of(&storages, "c1").snippets, None);
}

#[test]
fn volumes_are_snippets_and_nothing_else() {
    assert!(volume("nfs-1:snippets/pve-span").is_ours());
    assert!(!volume("local:snippets/pve-span.pl").is_ours());
    assert_eq!(volume("local:snippets/a b").to_id(), "local:snippets/a b");
    for bad in [
        "local:iso/x",
        "local:snippets/",
        "local:snippets/..",
        "local:snippets/a/b",
        "local:snippets/a\nb",
        "-x:snippets/a",
        "snippets/a",
        "",
    ] {
        assert!(bad.parse::<Volume>().is_err(), "{bad}");
    }
    assert_eq!(
        "/etc/passwd\u{1b}[2J".parse::<Volume>().unwrap_err().0,
        "`/etc/passwd\\u{1b}[2J` is not a snippet (local:snippets/pve-span)"
    );
}
