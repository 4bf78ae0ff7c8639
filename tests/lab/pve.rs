//! The node's /etc/pve, as the cluster filesystem (pmxcfs) shows it.
//!
//! Formats are those of files captured from a real cluster. Like pmxcfs, every write shows as a rename and moves
//! the counters by which readers tell what to read again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::guest::{Guest, Kind};
use super::node::Node;

struct Entry {
    node: String,
    kind: Kind,
    version: u32,
}

/// The tree and its counters.
pub(super) struct Tree {
    dir: PathBuf,
    mount_point: PathBuf,
    unmounted: PathBuf,
    node: String,
    guests: BTreeMap<u32, Entry>,
    /// Of guest configs: grows with every write of any.
    writes: u32,
    /// Of the list itself.
    list_version: u32,
    files: BTreeMap<String, u32>,
}

impl Tree {
    /// A fresh node that is its own whole cluster.
    pub fn new(root: &Path, node: &str) -> Tree {
        let dir = root.join("etc/pve");
        let mut tree = Tree {
            dir: dir.clone(),
            mount_point: dir.clone(),
            unmounted: root.join("etc/.pve-unmounted"),
            node: node.to_owned(),
            guests: BTreeMap::new(),
            writes: 0,
            list_version: 0,
            files: BTreeMap::new(),
        };
        tree.make_node(node);
        for (link, target) in [
            ("local", ""),
            ("qemu-server", "/qemu-server"),
            ("lxc", "/lxc"),
        ] {
            symlink(format!("nodes/{node}{target}"), dir.join(link)).expect("the tree is new");
        }
        tree.write(
            ".members",
            &format!("{{\n\"nodename\": \"{node}\",\n\"version\": 0\n}}\n"),
        );
        tree.write(
            "user.cfg",
            "user:root@pam:1:0:::root@example.invalid:::\n\n",
        );
        tree.write_list();
        tree
    }

    fn make_node(&self, node: &str) {
        for kind in [Kind::Vm, Kind::Ct] {
            std::fs::create_dir_all(self.dir.join("nodes").join(node).join(kind.folder()))
                .expect("the tree is ours");
        }
    }

    fn conf(&self, node: &str, kind: Kind, vmid: u32) -> String {
        format!("nodes/{node}/{}/{vmid}.conf", kind.folder())
    }

    /// Writes a file; the next read of `.version` shows it.
    fn write(&mut self, name: &str, text: &str) {
        let path = self.dir.join(name);
        let new = self.dir.join(".new.tmp");
        std::fs::write(&new, text)
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", new.display()));
        std::fs::rename(&new, &path)
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }

    fn write_list(&mut self) {
        let mut text = format!("{{\n\"version\": {}", self.list_version);
        if !self.guests.is_empty() {
            let line = |(vmid, entry): (&u32, &Entry)| {
                let Entry {
                    node,
                    kind,
                    version,
                } = entry;
                format!(
                    "\"{vmid}\": {{ \"node\": \"{node}\", \"type\": \"{}\", \"version\": {version} }}",
                    kind.word()
                )
            };
            let lines: Vec<String> = self.guests.iter().map(line).collect();
            let _ = write!(text, ",\n\"ids\": {{\n{}}}", lines.join(",\n"));
        }
        text.push_str("\n\n}\n");
        self.write(".vmlist", &text);
        self.write_version();
    }

    fn write_version(&mut self) {
        let mut text = format!(
            "{{\n\"starttime\": 1790000000,\n\"clinfo\": 0,\n\"vmlist\": {}",
            self.list_version
        );
        for (name, version) in &self.files {
            let _ = write!(text, ",\n\"{name}\": {version}");
        }
        text.push_str("\n}\n");
        self.write(".version", &text);
    }

    fn put(&mut self, node: &str, guest: &Guest) {
        self.make_node(node);
        self.write(&self.conf(node, guest.kind, guest.vmid), &guest.to_conf());
        self.writes += 1;
        self.list_version += 1;
        let entry = Entry {
            node: node.to_owned(),
            kind: guest.kind,
            version: self.writes,
        };
        self.guests.insert(guest.vmid, entry);
    }
}

impl Node {
    /// Writes a guest's config on this node, a new one or over the old one. Its devices follow only with
    /// [`Node::start_guest`] or [`Node::replug`].
    pub fn add(&self, guest: &Guest) {
        self.add_all([guest]);
    }

    /// Writes many configs at once.
    pub fn add_all<'a>(&self, guests: impl IntoIterator<Item = &'a Guest>) {
        let mut tree = self.tree.lock().unwrap();
        for guest in guests {
            let node = match tree.guests.get(&guest.vmid) {
                Some(entry) => entry.node.clone(),
                None => tree.node.clone(),
            };
            tree.put(&node, guest);
            self.guests
                .lock()
                .unwrap()
                .insert(guest.vmid, guest.clone());
        }
        tree.write_list();
    }

    /// Changes a guest's config: `edit(101, |guest| guest.tags("ids"))`.
    #[track_caller]
    pub fn edit(&self, vmid: u32, change: impl FnOnce(Guest) -> Guest) {
        let guest = self.guests.lock().unwrap().get(&vmid).cloned();
        self.add(&change(
            guest.unwrap_or_else(|| panic!("there is no guest {vmid}")),
        ));
    }

    /// Files a guest's config under another node, as the end of a migration does. Its devices stay as they are.
    #[track_caller]
    pub fn file_under(&self, node: &str, vmid: u32) {
        let mut tree = self.tree.lock().unwrap();
        let entry = tree
            .guests
            .get(&vmid)
            .unwrap_or_else(|| panic!("there is no guest {vmid}"));
        let (kind, old) = (entry.kind, tree.conf(&entry.node, entry.kind, vmid));
        let new = tree.conf(node, kind, vmid);
        tree.make_node(node);
        std::fs::rename(tree.dir.join(old), tree.dir.join(new))
            .expect("the config is where it was filed");
        tree.writes += 1;
        tree.list_version += 1;
        let version = tree.writes;
        tree.guests.insert(
            vmid,
            Entry {
                node: node.to_owned(),
                kind,
                version,
            },
        );
        tree.write_list();
    }

    /// Takes a guest's config away, as destroying it does.
    #[track_caller]
    pub fn destroy(&self, vmid: u32) {
        let mut tree = self.tree.lock().unwrap();
        let entry = tree
            .guests
            .remove(&vmid)
            .unwrap_or_else(|| panic!("there is no guest {vmid}"));
        let conf = tree.dir.join(tree.conf(&entry.node, entry.kind, vmid));
        std::fs::remove_file(conf).expect("the config is where it was filed");
        tree.list_version += 1;
        tree.write_list();
        self.guests.lock().unwrap().remove(&vmid);
    }

    /// Writes `/etc/pve/span.cfg`. pmxcfs does not count it in `.version`.
    pub fn span_cfg(&self, text: &str) {
        self.tree.lock().unwrap().write("span.cfg", text);
    }

    /// Writes any other file of the tree: `pve_file("nodes/pve1/host.fw", …)`.
    pub fn pve_file(&self, name: &str, text: &str) {
        self.tree.lock().unwrap().write(name, text);
    }

    /// Writes `/etc/pve/user.cfg`, where the pools are.
    pub fn user_cfg(&self, text: &str) {
        let mut tree = self.tree.lock().unwrap();
        tree.write("user.cfg", text);
        *tree.files.entry("user.cfg".to_owned()).or_default() += 1;
        tree.write_version();
    }

    /// Writes `/etc/pve/.members`, and makes the folders of the nodes that it names.
    pub fn members(&self, text: &str) {
        let mut tree = self.tree.lock().unwrap();
        let members: serde_json::Value = serde_json::from_str(text).expect(".members is JSON");
        for node in members["nodelist"]
            .as_object()
            .into_iter()
            .flat_map(serde_json::Map::keys)
        {
            tree.make_node(node);
        }
        tree.write(".members", text);
    }

    /// Leaves an empty directory at `/etc/pve`, as if pmxcfs were down.
    pub fn unmount_pve(&self) {
        let mut tree = self.tree.lock().unwrap();
        std::fs::rename(&tree.mount_point, &tree.unmounted).expect("/etc/pve is mounted");
        std::fs::create_dir(&tree.mount_point).expect("it has just been moved away");
        tree.dir = tree.unmounted.clone();
    }

    /// Brings the tree back, with what has been written to it meanwhile.
    pub fn mount_pve(&self) {
        let mut tree = self.tree.lock().unwrap();
        std::fs::remove_dir(&tree.mount_point).expect("/etc/pve is an empty directory");
        std::fs::rename(&tree.unmounted, &tree.mount_point).expect("/etc/pve was unmounted");
        tree.dir = tree.mount_point.clone();
    }
}
