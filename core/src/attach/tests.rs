use super::super::pve::cluster::parse_vmlist;
use super::super::pve::guest;
use super::super::pve::storage;
use super::*;

fn vmid(number: u32) -> Vmid {
    Vmid::new(number).unwrap()
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// Guests 101 (tag web) and 102 on pve1, the template 103 (tag web) and 104, whose config nobody can read, on pve2.
fn cluster() -> Cluster {
    let mut cluster = Cluster::unknown("not read");
    let line = |vmid: u32, node: &str| format!(r#""{vmid}": {{"node": "{node}", "type": "qemu"}}"#);
    let ids = [(101, "pve1"), (102, "pve1"), (103, "pve2"), (104, "pve2")];
    let ids = ids.map(|(vmid, node)| line(vmid, node)).join(",");
    cluster.placements = Ok(parse_vmlist(&format!(r#"{{"ids": {{{ids}}}}}"#)).unwrap());
    for (number, text) in [
        (101, "tags: web"),
        (102, "name: x"),
        (103, "tags: web\ntemplate: 1"),
    ] {
        let guest = guest::parse(vmid(number), GuestKind::Qemu, text).0;
        cluster.guests.insert(vmid(number), Ok(guest));
    }
    let unknown = Unknown("it is empty".into());
    cluster.guests.insert(vmid(104), Err(unknown));
    cluster
}

/// Guests, templates left out, and what is refused.
fn chosen(text: &str) -> (Vec<u32>, Vec<u32>, Vec<String>) {
    let chosen = choose(&parse_guests(&words(text)).unwrap(), &cluster()).unwrap();
    let refusal = |refusal: Refusal| match refusal.guest {
        Some(vmid) => format!("{vmid}: {}", refusal.why),
        None => refusal.why,
    };
    (
        chosen.guests.iter().map(|vmid| vmid.get()).collect(),
        chosen.templates.iter().map(|vmid| vmid.get()).collect(),
        chosen.refusals.into_iter().map(refusal).collect(),
    )
}

#[test]
fn guests_are_chosen_by_number_range_tag_and_node() {
    assert_eq!(chosen("101,102 101"), (vec![101, 102], vec![], vec![]));
    assert_eq!(chosen("102-200"), (vec![102, 104], vec![103], vec![]));
    assert_eq!(chosen("node:pve1"), (vec![101, 102], vec![], vec![]));
    assert_eq!(chosen("all"), (vec![101, 102, 104], vec![103], vec![]));
    assert_eq!(
        chosen("103 all"),
        (vec![101, 102, 103, 104], vec![], vec![]),
        "a template by its number"
    );
}

#[test]
fn what_is_not_there_or_cannot_be_told_is_refused() {
    let untold = "104: cannot tell whether it has the tag web: it is empty".to_owned();
    assert_eq!(chosen("tag:web"), (vec![101], vec![103], vec![untold]));
    assert_eq!(
        chosen("tag:web 104"),
        (vec![101, 104], vec![103], vec![]),
        "it was named itself"
    );
    assert_eq!(
        chosen("900 300-399 node:pve9"),
        (
            vec![],
            vec![],
            vec![
                "900: there is no such guest".into(),
                "`300-399` takes no guest".into(),
                "`node:pve9` takes no guest".into()
            ]
        )
    );
    let pools = parse_guests(&words("pool:prod")).unwrap();
    assert_eq!(
        choose(&pools, &cluster()),
        Err(Unknown("not read".into())),
        "no pool is known"
    );
}

#[test]
fn words_that_name_no_guest_are_refused_with_the_reason() {
    let faults = |text: &str| {
        let faults = parse_guests(&words(text)).unwrap_err();
        faults.into_iter().map(|fault| fault.0).collect::<Vec<_>>()
    };
    assert_eq!(
        faults("101/net0 tag:web/net1,bridge:vmbr1 port:eno1"),
        [
            "`101/net0`: a hookscript is the whole guest's, not a NIC's; write 101",
            "`tag:web/net1`: a hookscript is the whole guest's, not a NIC's; write tag:web",
            "`bridge:vmbr1` names no guest, and only guests have hookscripts",
            "`port:eno1` names no guest, and only guests have hookscripts",
        ]
    );
    assert_eq!(faults(","), ["which guests? 101, 300-399, tag:web, all"]);
    assert_eq!(
        faults("tga:web"),
        ["`tga:web` is not a selector, did you mean `tag`?"]
    );
}

/// What is done for a guest with this config and this record.
fn step(
    config: &str,
    record: &Known<Option<Chained>>,
    act: impl Fn(&Subject<'_>) -> Result<Step, String>,
) -> Result<Step, String> {
    let guest = Ok(guest::parse(vmid(101), GuestKind::Qemu, config).0);
    act(&Subject {
        guest: &guest,
        record,
    })
}

fn old() -> Chained {
    let volume = "local:snippets/old.pl".parse().unwrap();
    Chained::new(volume, "/var/lib/vz/snippets/old.pl".into()).unwrap()
}

const OURS: &str = "hookscript: nfs1:snippets/pve-span";
const THEIRS: &str = "hookscript: local:snippets/old.pl";

#[test]
fn somebody_else_s_hookscript_stays_or_is_chained() {
    let storages = storage::parse("");
    let attach = |config: &str, others| {
        step(config, &Ok(None), |subject| {
            subject.attach(others, &storages)
        })
    };
    assert_eq!(attach("name: x", Others::Stay), Ok(Step::Attach));
    assert_eq!(
        attach(THEIRS, Others::Stay),
        Err("has local:snippets/old.pl already; --chain keeps calling it".into())
    );
    assert_eq!(attach(THEIRS, Others::Chain), Ok(Step::Chain(old())));
    let ours = "nfs1:snippets/pve-span".parse().unwrap();
    assert_eq!(attach(OURS, Others::Chain), Ok(Step::HasOurs(ours, None)));
    assert_eq!(
        attach("hookscript: gone:snippets/x", Others::Chain),
        Err("has gone:snippets/x, which cannot be chained: there is no storage `gone`".into())
    );
    assert_eq!(
        attach("hookscript: /root/x\u{1b}[2J", Others::Chain),
        Err(
            "its hookscript cannot be chained: `/root/x\\u{1b}[2J` is not a snippet (local:snippets/pve-span)"
                .into()
        )
    );
}

#[test]
fn detaching_restores_what_was_and_touches_nothing_else() {
    let detach = |config: &str, record| step(config, &record, |subject| subject.detach());
    let theirs = Step::HasNotOurs(Some("local:snippets/old.pl".into()));
    assert_eq!(
        detach(THEIRS, Ok(Some(old()))),
        Ok(theirs),
        "a stale record"
    );
    assert_eq!(detach("name: x", Ok(None)), Ok(Step::HasNotOurs(None)));
    assert_eq!(detach(OURS, Ok(None)), Ok(Step::Detach));
    assert_eq!(detach(OURS, Ok(Some(old()))), Ok(Step::Restore(old())));
    assert_eq!(
        detach(OURS, Err(Unknown("it is torn".into()))),
        Err("the record of the hookscript that it had before cannot be used: it is torn".into())
    );
}

#[test]
fn calls_are_proxmox_ve_s_own() {
    let placements = cluster().placements.unwrap();
    let this: NodeName = "pve1".parse().unwrap();
    let call = |number: u32, change: &Change| {
        Call::change(vmid(number), &placements[&vmid(number)], &this, change).to_string()
    };
    let set = Change::Set("local:snippets/pve-span".parse().unwrap());
    assert_eq!(
        call(101, &set),
        "qm set 101 --hookscript local:snippets/pve-span"
    );
    assert_eq!(
        call(104, &Change::Delete),
        "pvesh set /nodes/pve2/qemu/104/config --delete hookscript"
    );
    let odd = Change::Set("local:snippets/it's".parse().unwrap());
    assert_eq!(
        call(101, &odd),
        r"qm set 101 --hookscript 'local:snippets/it'\''s'"
    );
}
