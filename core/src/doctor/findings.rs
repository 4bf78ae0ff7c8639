//! A finding, and the names by which documentation and programs know each.

use serde::{Deserialize, Serialize};

use crate::model::{MAX_LISTED, printable};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something does not work.
    Error,
    /// Something will not work, or may not, or nobody can tell.
    Warning,
    /// Worth knowing.
    Note,
    /// As it should be.
    Ok,
}

impl Severity {
    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
            Self::Ok => "ok",
        }
    }
}

macro_rules! ids {
    ($($name:ident $word:literal $about:literal,)*) => {
        /// What a finding is about. The words are for good: programs and documentation go by them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Id {
            $(#[doc = $about] #[serde(rename = $word)] $name,)*
        }

        impl Id {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its word.
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }
        }
    };
}

ids! {
    Versions "versions" "What runs here.",
    CannotTell "cannot-tell" "A part of the examination was not done in time.",
    PveHangs "pve-hangs" "/etc/pve does not answer.",
    PveUnmounted "pve-unmounted" "/etc/pve is empty.",
    GuestConfig "guest-config" "A guest's config is not understood.",
    CfgMissing "cfg-missing" "There is no span.cfg.",
    CfgFaults "cfg-faults" "span.cfg has errors.",
    CfgUnsupported "cfg-unsupported" "span.cfg asks for what is not there.",
    CfgWarnings "cfg-warnings" "span.cfg says what is probably not meant.",
    LastGoodCopy "last-good-copy" "Not the file is in force.",
    NothingInForce "nothing-in-force" "No file is in force.",
    Cfg "cfg" "span.cfg as a whole.",
    SessionEmpty "session-empty" "A session takes nothing.",
    SessionOver "session-over" "A session is switched off or has expired.",
    SessionDegraded "session-degraded" "A session is not whole.",
    PlanPending "plan-pending" "Not everything is as span.cfg has it.",
    KernelLacks "kernel-lacks" "The kernel lacks a part of nftables.",
    KernelUnclear "kernel-unclear" "What the kernel has cannot be tried.",
    Kernel "kernel" "The kernel's nftables.",
    NftMissing "nft-missing" "There is no nft(8).",
    NftOld "nft-old" "nft(8) is too old.",
    NftUnclear "nft-unclear" "nft(8) does not tell its version.",
    Nft "nft" "nft(8).",
    TableUnreadable "table-unreadable" "Our table cannot be read.",
    ChainBefore "chain-before" "Somebody else's chain comes before ours.",
    OvsAbsent "ovs-absent" "A session needs Open vSwitch.",
    OvsDown "ovs-down" "Open vSwitch does not answer.",
    OvsSchema "ovs-schema" "Its database has no mirrors as we know them.",
    OvsBehind "ovs-behind" "ovs-vswitchd does not act.",
    MirrorBudget "mirror-budget" "A bridge has many mirrors.",
    Ovs "ovs" "Open vSwitch.",
    MirrorForeign "mirror-foreign" "Somebody else mirrors a source, too.",
    TcMirred "tc-mirred" "A filter of tc copies or diverts frames.",
    BridgeMissing "bridge-missing" "A guest's bridge is not here.",
    ServiceStopped "service-stopped" "The service does not run.",
    ServiceDisabled "service-disabled" "It is not started with the node.",
    ServiceVersion "service-version" "It is of another version.",
    ServiceUnclear "service-unclear" "systemctl does not answer.",
    Service "service" "The service.",
    SnippetMissing "snippet-missing" "A hookscript is missing.",
    SnippetNotExecutable "snippet-not-executable" "A hookscript cannot be called.",
    SnippetBroken "snippet-broken" "A hookscript cannot run.",
    SnippetUnclear "snippet-unclear" "A hookscript cannot be looked at.",
    SnippetChanged "snippet-changed" "The snippet is not the package's.",
    SnippetAbsent "snippet-absent" "Nobody's hookscript, and not there.",
    ProgramMissing "program-missing" "The snippet finds no pve-span.",
    Snippet "snippet" "The hookscripts.",
    StorageUnknown "storage-unknown" "A hookscript is on a storage that is none.",
    StorageUnclear "storage-unclear" "storage.cfg cannot be read.",
    StorageContent "storage-content" "A storage does not allow snippets.",
    ChainStale "chain-stale" "A record of a chained hookscript is of no use.",
    SourceUnattached "source-unattached" "A source does not call pve-span.",
    HookscriptForeign "hookscript-foreign" "A source has another hookscript.",
    SourceElsewhere "source-elsewhere" "A source is on another node than the sensor.",
    MacShared "mac-shared" "Two guests have one MAC address.",
    Passthrough "passthrough" "A source may have a network card for itself.",
    SensorOff "sensor-off" "A sensor does not run.",
    SensorElsewhere "sensor-elsewhere" "A sensor is on another node.",
    SensorFirewall "sensor-firewall" "A sensor is behind a firewall bridge.",
    SensorAddress "sensor-address" "A sensor's output has an address.",
    SensorOnlyNic "sensor-only-nic" "A sensor has no other NIC.",
    SensorUnplugged "sensor-unplugged" "A sensor's cable is unplugged.",
    SensorRate "sensor-rate" "A sensor's output is slowed down.",
    Sensors "sensors" "The sensors.",
    MtuSmaller "mtu-smaller" "An output takes smaller frames than its sources.",
    Mtu "mtu" "The frames' sizes.",
    ClearsMirrors "clears-mirrors" "A script wipes mirrors.",
    Scripts "scripts" "Scripts of others.",
    OvsOffload "ovs-offload" "Open vSwitch offloads flows.",
    TcOffload "tc-offload" "A network card switches frames.",
    DpdkPort "dpdk-port" "Open vSwitch drives network cards itself.",
    Offload "offload" "Hardware offloads.",
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is about.
    pub id: Id,
    /// What is the matter, and what follows from it.
    pub what: String,
    /// What was seen, and where.
    pub evidence: String,
    /// What to do: a command where there is one.
    pub remedy: Option<String>,
}

/// Findings, while they are collected. What comes from files and programs is made fit for a terminal.
#[derive(Debug, Default)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// Something is not as it should be.
    pub fn add(
        &mut self,
        severity: Severity,
        id: Id,
        what: impl AsRef<str>,
        evidence: impl AsRef<str>,
        remedy: impl AsRef<str>,
    ) {
        self.0.push(Finding {
            severity,
            id,
            what: bounded(what.as_ref()),
            evidence: bounded(evidence.as_ref()),
            remedy: Some(bounded(remedy.as_ref())),
        });
    }

    /// Something is as it should be.
    pub fn ok(&mut self, id: Id, what: impl AsRef<str>, evidence: impl AsRef<str>) {
        self.0.push(Finding {
            severity: Severity::Ok,
            id,
            what: bounded(what.as_ref()),
            evidence: bounded(evidence.as_ref()),
            remedy: None,
        });
    }

    /// Has nothing been found with any of these?
    pub fn none_of(&self, ids: &[Id]) -> bool {
        !self.0.iter().any(|finding| ids.contains(&finding.id))
    }

    /// The worst first, otherwise as they were found.
    pub fn sorted(mut self) -> Vec<Finding> {
        self.0.sort_by_key(|finding| finding.severity);
        self.0
    }
}

/// The most of a text that is told, in characters.
const LONGEST: usize = 1000;

fn bounded(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => printable(text.get(..end).unwrap_or_default()) + "…",
        None => printable(text),
    }
}

/// `101, 102, 103 and 4 more`.
pub fn listed<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let mut items = items.into_iter();
    let mut shown: Vec<String> = items
        .by_ref()
        .take(MAX_LISTED)
        .map(|item| item.to_string())
        .collect();
    let more = items.count();
    if more > 0 {
        return format!("{} and {more} more", shown.join(", "));
    }
    match (shown.pop(), shown.is_empty()) {
        (Some(last), false) => format!("{} and {last}", shown.join(", ")),
        (Some(last), true) => last,
        (None, _) => String::new(),
    }
}

/// A word of a command, as a shell has to get it.
pub fn shell_word(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "=:,._/@%+-".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// `guest 101 refers`, `guests 101 and 102 refer`.
pub fn plural<'a>(count: usize, one: &'a str, more: &'a str) -> &'a str {
    if count == 1 { one } else { more }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_stands_for_one_thing_and_is_what_json_has() {
        let mut words: Vec<&str> = Id::ALL.iter().map(|id| id.word()).collect();
        for id in Id::ALL {
            assert_eq!(serde_json::to_value(id).unwrap(), id.word());
        }
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Id::ALL.len());
    }

    #[test]
    fn lists_are_short_and_texts_end() {
        assert_eq!(listed([1]), "1");
        assert_eq!(listed([1, 2]), "1 and 2");
        assert_eq!(shell_word("virtio=BC:24,trunks=1"), "virtio=BC:24,trunks=1");
        assert_eq!(shell_word("trunks=20;30"), "'trunks=20;30'");
        assert_eq!(shell_word("a'b"), "'a'\\''b'");
        assert_eq!(listed([1, 2, 3]), "1, 2 and 3");
        assert_eq!(listed(1..=7), "1, 2, 3, 4, 5 and 2 more");
        assert_eq!(bounded(&"ü\u{1b}".repeat(1000)).matches('ü').count(), 500);
    }
}
