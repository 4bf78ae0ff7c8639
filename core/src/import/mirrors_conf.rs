//! proxmox-ovs-mirror's `mirrors.conf`: `BRIDGE SOURCE DEST_VMID DEST_NIC [promisc=yes|no] [select=both|src|dst]` on each
//! line, separated by blanks. A `#` begins a comment wherever it stands.
//!
//! It is read as that tool reads it, also where it is lenient: an option that it does not know it ignores, and of two
//! lines about the same source and destination the first one counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::draft::{Origin, Rule, nic_source};
use crate::config::diagnostic::{Diagnostic, Place, Severity, did_you_mean};
use crate::config::selector::{Output, Selector};
use crate::model::{
    IfName, Invalid, NicId, NicIndex, Taken, VlanSet, Vmid, decimal, excerpt, is_control,
    port_owner,
};

/// What a line should be.
const FORM: &str = "BRIDGE SOURCE DEST_VMID DEST_NIC [promisc=yes|no] [select=both|src|dst]";

/// What is said of an option that has no counterpart.
const PROMISC: &str =
    "promisc=yes is not needed: Open vSwitch makes its ports promiscuous by itself";

/// Words that can be meant by an option.
const OPTIONS: [&str; 5] = [
    "promisc=yes",
    "promisc=no",
    "select=both",
    "select=src",
    "select=dst",
];

/// The most faults that are told: nobody reads more.
const MOST_DIAGNOSTICS: usize = 1000;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MirrorsConf {
    /// Its lines, as far as they are understood.
    pub rules: Vec<Rule>,
    /// One for each rule.
    pub origins: Vec<Origin>,
    /// What the tool calls each mirror in Open vSwitch.
    pub names: Vec<String>,
    /// Lines that are not understood, and what is strange.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads a file; `file` is its name in the diagnostics.
pub fn parse(file: &str, text: &str) -> MirrorsConf {
    let mut conf = MirrorsConf::default();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = Line::new(number + 1, line);
        if line.words.is_empty() {
            continue;
        }
        let mut say = |severity, fault: Fault| {
            if conf.diagnostics.len() < MOST_DIAGNOSTICS {
                conf.diagnostics.push(Diagnostic {
                    file: file.to_owned(),
                    place: Some(fault.place),
                    severity,
                    message: fault.message,
                    hint: fault.hint,
                });
            }
        };
        let read = match line.read() {
            Ok(read) => read,
            Err(fault) => {
                say(Severity::Error, fault);
                continue;
            }
        };
        for fault in read.warnings {
            say(Severity::Warning, fault);
        }
        if let Some(first) = seen.get(&read.name) {
            let message = format!("the same as line {first}, which counts");
            say(Severity::Warning, line.fault(&line.whole(), message));
            continue;
        }
        seen.insert(read.name.clone(), line.number);
        conf.origins.push(Origin {
            label: format!("mirrors.conf, line {}: {}", line.number, excerpt(line.body)),
            wish: None,
            left_out: Vec::new(),
            needless: read.needless,
        });
        conf.rules.push(Rule {
            origin: conf.rules.len(),
            ..read.rule
        });
        conf.names.push(read.name);
    }
    conf
}

struct Fault {
    place: Place,
    message: String,
    hint: Option<String>,
}

/// A word and where it begins, in bytes.
#[derive(Clone, Copy)]
struct Word<'a> {
    at: usize,
    text: &'a str,
}

struct Line<'a> {
    number: usize,
    text: &'a str,
    /// Without comment and outer blanks.
    body: &'a str,
    words: Vec<Word<'a>>,
}

/// What a line means.
struct Read {
    rule: Rule,
    name: String,
    warnings: Vec<Fault>,
    needless: Option<&'static str>,
}

impl<'a> Line<'a> {
    fn new(number: usize, text: &'a str) -> Self {
        let before = text.split('#').next().unwrap_or_default();
        let mut words = Vec::new();
        let mut at = 0;
        for part in before.split(|c: char| c.is_ascii_whitespace()) {
            if !part.is_empty() {
                words.push(Word { at, text: part });
            }
            at += part.len() + 1;
        }
        Self {
            number,
            text,
            body: before.trim_ascii(),
            words,
        }
    }

    fn whole(&self) -> Word<'a> {
        let at = self.words.first().map_or(0, |word| word.at);
        let text = self.body;
        Word { at, text }
    }

    fn fault(&self, word: &Word<'_>, message: String) -> Fault {
        let place = Place {
            line: self.number,
            text: Arc::from(self.text),
            offset: word.at,
            width: word.text.len(),
        };
        let hint = None;
        Fault {
            place,
            message,
            hint,
        }
    }

    fn read(&self) -> Result<Read, Fault> {
        let [bridge, source, vmid, nic, options @ ..] = self.words.as_slice() else {
            let message = format!("{} of at least 4 words are here", self.words.len());
            return Err(Fault {
                hint: Some(format!("a line is: {FORM}")),
                ..self.fault(&self.whole(), message)
            });
        };
        let at = |word: &Word<'_>, Invalid(message)| self.fault(word, message);
        let name = if_name(bridge.text).map_err(|error| at(bridge, error))?;
        let (source, port) = source_of(source.text).map_err(|error| at(source, error))?;
        let output = NicId {
            vmid: vmid.text.parse::<Vmid>().map_err(|error| at(vmid, error))?,
            index: index(nic.text).map_err(|error| at(nic, error))?,
        };
        let mut taken = Taken::Both;
        let mut warnings = Vec::new();
        let mut needless = None;
        for option in options {
            match option.text {
                "promisc=yes" => needless = Some(PROMISC),
                "promisc=no" => needless = None,
                "select=both" => taken = Taken::Both,
                "select=src" => taken = Taken::Sent,
                "select=dst" => taken = Taken::Delivered,
                unknown => {
                    let message = format!(
                        "`{}` is no option, and proxmox-ovs-mirror ignores it, too",
                        excerpt(unknown)
                    );
                    warnings.push(Fault {
                        hint: did_you_mean(&unknown.chars().take(20).collect::<String>(), OPTIONS),
                        ..self.fault(option, message)
                    });
                }
            }
        }
        Ok(Read {
            name: format!("mirror_{name}_{port}_to_vm{}i{}", output.vmid, output.index),
            rule: Rule {
                source,
                taken,
                output: Output::Nic(output),
                vlans: VlanSet::default(),
                snaplen: None,
                origin: 0,
            },
            warnings,
            needless,
        })
    }
}

fn if_name(text: &str) -> Result<IfName, Invalid> {
    let name: IfName = text.parse()?;
    if text.chars().any(is_control) {
        return Err(Invalid(format!(
            "`{}` has a character that turns text round",
            excerpt(text)
        )));
    }
    Ok(name)
}

/// A port, or `vm<ID>:<nic>`; and the port's name.
fn source_of(text: &str) -> Result<(Selector, String), Invalid> {
    if let Some((vmid, nic)) = text
        .strip_prefix("vm")
        .and_then(|rest| rest.split_once(':'))
    {
        let (vmid, index) = (vmid.parse::<Vmid>()?, index(nic)?);
        let source = nic_source(NicId { vmid, index });
        return Ok((source, format!("tap{vmid}i{index}")));
    }
    let name = if_name(text)?;
    let source = match port_owner(text) {
        Some((nic, _)) => nic_source(nic),
        None => Selector::Port(name),
    };
    Ok((source, text.to_owned()))
}

/// `1`, as the tool has it, or `net1`, as Proxmox VE does.
fn index(text: &str) -> Result<NicIndex, Invalid> {
    let bare = text.strip_prefix("net").unwrap_or(text);
    decimal(bare).and_then(NicIndex::new).ok_or_else(|| {
        Invalid(format!(
            "`{}` is not the number of a NIC (0 to {})",
            excerpt(text),
            NicIndex::MAX
        ))
    })
}
