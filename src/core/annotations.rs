//! `span.cfg` text → sessions, or every fault that it has.
//!
//! A file with an error is not taken at all: its reader keeps the last good copy. What is merely
//! not available in this version is marked as such and refused session by session.

mod checks;
mod ini;
mod values;

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::diagnostic::{Diagnostic, Place, Severity, did_you_mean};
use super::filter::{self, Filter};
use super::model::{Direction, SessionName, VlanSet, printable};
use super::selector::{Output, Selector};
pub(crate) use checks::reaches;
use ini::Line;
use values::Fault;

/// Where a guest's frames are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// On the bridge, after the guest's firewall.
    Bridge,
    /// At the guest's own device, before the firewall.
    Guest,
}

/// Which engine may mirror a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineChoice {
    /// What fits.
    Auto,
    /// Open vSwitch's mirrors.
    Ovs,
    /// nftables' `dup`.
    Nft,
}

/// A yes or a no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// On.
    Yes,
    /// Off.
    No,
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At<T> {
    /// What is meant.
    pub value: T,
    /// Where it is said.
    pub place: Place,
}

/// One SPAN session as the file describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its name.
    pub name: SessionName,
    /// Where its section begins.
    pub place: Place,
    /// Whose frames.
    pub sources: Vec<At<Selector>>,
    /// Whose not.
    pub exclude: Vec<At<Selector>>,
    /// Where to.
    pub outputs: Vec<At<Output>>,
    /// Which of a source's frames.
    pub direction: Direction,
    /// Where they are taken.
    pub point: Point,
    /// Only these VLANs; all when empty.
    pub vlans: VlanSet,
    /// Only frames that match.
    pub filter: Option<Filter>,
    /// Bytes kept of each frame.
    pub snaplen: Option<u16>,
    /// One frame in so many; 1 is every frame.
    pub sample: u32,
    /// Which engine may mirror it.
    pub engine: EngineChoice,
    /// A frame between two sources arrives once.
    pub dedup: Switch,
    /// Wire-sized frames with valid checksums.
    pub wire: Switch,
    /// Switched off by hand?
    pub enabled: Switch,
    /// When it ends by itself.
    pub expires: Option<Timestamp>,
    /// The administrator's note.
    pub comment: Option<String>,
    /// Where each of its keys has its value, `[defaults]` included.
    pub keys: BTreeMap<String, Place>,
    /// Why this version cannot mirror it, if it cannot.
    pub unsupported: Vec<String>,
}

/// What a file says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Annotations {
    /// Its sessions by name; without meaning when the file has errors.
    pub sessions: BTreeMap<SessionName, Session>,
    /// Everything worth saying about it, in the order of the lines.
    pub diagnostics: Vec<Diagnostic>,
}

impl Annotations {
    /// May the file be taken?
    pub fn is_valid(&self) -> bool {
        self.diagnostics
            .iter()
            .all(|diagnostic| diagnostic.severity != Severity::Error)
    }
}

/// The keys of a session; all but the last two may stand in `[defaults]`.
const KEYS: [&str; 15] = [
    "direction",
    "exclude",
    "point",
    "vlan",
    "filter",
    "snaplen",
    "sample",
    "engine",
    "dedup",
    "wire",
    "enabled",
    "expires",
    "comment",
    "source",
    "output",
];
const NOT_DEFAULTS: [&str; 2] = ["source", "output"];

/// A section's keys with their values, as they stand.
type Properties = BTreeMap<String, (Place, At<String>)>;

/// Reads a file; `file` is its name in the diagnostics.
pub fn parse(file: &str, text: &str) -> Annotations {
    let mut reader = Reader {
        file,
        diagnostics: Vec::new(),
    };
    if text.trim_start_matches('\u{feff}').trim().is_empty() {
        reader.diagnostics.push(Diagnostic {
            file: file.to_owned(),
            place: None,
            severity: Severity::Error,
            message: "the file is empty".into(),
            hint: Some("a file with nothing but a comment line ends every session".into()),
        });
    }
    let (defaults, sections) = reader.sections(text);
    let mut sessions = BTreeMap::new();
    for (name, place, properties) in sections {
        let session = reader.session(name.clone(), &place, &defaults, &properties);
        sessions.insert(name, session);
    }
    // Values of [defaults] are read anew for each session, so their faults come up as often; and once more here
    // for the file that has no session yet.
    for (key, (_, value)) in &defaults {
        reader.value(
            &mut Session::empty(SessionName::from_mark("defaults"), value.place.clone()),
            key,
            value,
        );
    }
    reader
        .diagnostics
        .extend(checks::check(file, &mut sessions));
    reader.diagnostics.sort_by(|a, b| {
        (&a.place, a.severity, &a.message).cmp(&(&b.place, b.severity, &b.message))
    });
    reader.diagnostics.dedup();
    Annotations {
        sessions,
        diagnostics: reader.diagnostics,
    }
}

struct Reader<'a> {
    file: &'a str,
    diagnostics: Vec<Diagnostic>,
}

type Section = (SessionName, Place, Properties);

impl Reader<'_> {
    fn error(&mut self, place: Place, message: String, hint: Option<String>) {
        let file = self.file.to_owned();
        self.diagnostics.push(Diagnostic {
            file,
            place: Some(place),
            severity: Severity::Error,
            message,
            hint,
        });
    }

    fn faults(&mut self, place: &Place, faults: impl IntoIterator<Item = Fault>) {
        for fault in faults {
            self.error(
                place.within(fault.offset, fault.width.max(1)),
                fault.message,
                fault.hint,
            );
        }
    }

    /// The file's sections: `[defaults]` apart, the sessions in their order.
    fn sections(&mut self, text: &str) -> (Properties, Vec<Section>) {
        let mut defaults: Option<(Place, Properties)> = None;
        let mut sections: Vec<Section> = Vec::new();
        // What the current section is: nothing yet, refused, the defaults, or the last session.
        enum Current {
            None,
            Refused,
            Defaults,
            Session,
        }
        let mut current = Current::None;
        for line in ini::lines(text) {
            match line {
                Line::Fault { message, place } => self.error(place, message, None),
                Line::Section { name, place } => {
                    let earlier = if name == "defaults" {
                        defaults.as_ref().map(|(place, _)| place.line)
                    } else {
                        sections
                            .iter()
                            .find(|(known, ..)| known.as_str() == name)
                            .map(|(_, place, _)| place.line)
                    };
                    current = match (earlier, name.parse::<SessionName>()) {
                        (Some(line), _) => {
                            let message = format!(
                                "[{}] stands twice, first on line {line}",
                                printable(&name)
                            );
                            self.error(place, message, Some("join the two sections".into()));
                            Current::Refused
                        }
                        (None, Err(error)) => {
                            let hint = Some(name.to_lowercase().replace([' ', '_', '.'], "-"))
                                .filter(|better| better.parse::<SessionName>().is_ok())
                                .map(|better| format!("write [{better}]"));
                            self.error(place, error.to_string(), hint);
                            Current::Refused
                        }
                        (None, Ok(_)) if name == "defaults" => {
                            defaults = Some((place, Properties::new()));
                            Current::Defaults
                        }
                        (None, Ok(session)) => {
                            sections.push((session, place, Properties::new()));
                            Current::Session
                        }
                    };
                }
                Line::Property {
                    key,
                    key_place,
                    value,
                    value_place,
                } => {
                    let properties = match current {
                        Current::Session => sections.last_mut().map(|(.., properties)| properties),
                        Current::Defaults => defaults.as_mut().map(|(_, properties)| properties),
                        Current::None => {
                            let hint =
                                Some("begin a session with its name in brackets: [dmz-ids]".into());
                            self.error(
                                key_place,
                                format!("`{}` stands before any section", printable(&key)),
                                hint,
                            );
                            continue;
                        }
                        Current::Refused => None,
                    };
                    let in_defaults = matches!(current, Current::Defaults);
                    if !KEYS.contains(&key.as_str()) {
                        let hint = did_you_mean(&key, KEYS)
                            .or_else(|| Some(format!("the keys are {}", KEYS.join(", "))));
                        self.error(
                            key_place,
                            format!("unknown key `{}`", printable(&key)),
                            hint,
                        );
                    } else if in_defaults && NOT_DEFAULTS.contains(&key.as_str()) {
                        self.error(
                            key_place,
                            format!("`{key}` belongs to a session, not to [defaults]"),
                            None,
                        );
                    } else if let Some(properties) = properties {
                        if let Some((earlier, _)) = properties.get(&key) {
                            let message = format!(
                                "`{key}` stands twice in this section, first on line {}",
                                earlier.line
                            );
                            self.error(
                                key_place,
                                message,
                                Some("join the two lines with a comma, or delete one".into()),
                            );
                        } else {
                            properties.insert(
                                key,
                                (
                                    key_place,
                                    At {
                                        value,
                                        place: value_place,
                                    },
                                ),
                            );
                        }
                    }
                }
            }
        }
        (
            defaults
                .map(|(_, properties)| properties)
                .unwrap_or_default(),
            sections,
        )
    }

    fn session(
        &mut self,
        name: SessionName,
        place: &Place,
        defaults: &Properties,
        own: &Properties,
    ) -> Session {
        let mut session = Session::empty(name, place.clone());
        for key in KEYS {
            if let Some((_, value)) = own.get(key).or_else(|| defaults.get(key)) {
                self.value(&mut session, key, value);
            }
        }
        for key in NOT_DEFAULTS {
            if !own.contains_key(key) {
                let message = format!("session {} has no `{key}`", session.name);
                let example = if key == "source" {
                    "source = 101"
                } else {
                    "output = 200/net1"
                };
                self.error(
                    place.clone(),
                    message,
                    Some(format!("add a line, `{example}` for example")),
                );
            }
        }
        session
    }

    /// Reads one value into the session; a fault leaves the default.
    fn value(&mut self, session: &mut Session, key: &str, at: &At<String>) {
        let (value, place) = (at.value.as_str(), &at.place);
        session.keys.insert(key.to_owned(), place.clone());
        if value.is_empty() && key != "comment" {
            self.error(place.clone(), format!("`{key}` has no value"), None);
            return;
        }
        let faults: Vec<Fault> = match key {
            "source" => set_list(value, place, &mut session.sources),
            "exclude" => set_list(value, place, &mut session.exclude),
            "output" => set_list(value, place, &mut session.outputs),
            "direction" => set(values::direction(value), |direction| {
                session.direction = direction
            }),
            "point" => set(values::point(value), |point| session.point = point),
            "vlan" => values::vlans(value)
                .map(|vlans| session.vlans = vlans)
                .err()
                .unwrap_or_default(),
            "filter" => set(read_filter(value), |filter| session.filter = Some(filter)),
            "snaplen" => set(values::snaplen(value), |bytes| {
                session.snaplen = Some(bytes)
            }),
            "sample" => set(values::sample(value), |frames| session.sample = frames),
            "engine" => set(values::engine(value), |engine| session.engine = engine),
            "dedup" => set(values::switch(value), |dedup| session.dedup = dedup),
            "wire" => set(values::switch(value), |wire| session.wire = wire),
            "enabled" => set(values::switch(value), |enabled| session.enabled = enabled),
            "expires" => set(values::expires(value), |expires| {
                session.expires = Some(expires)
            }),
            _ => {
                session.comment = Some(value.to_owned());
                Vec::new()
            }
        };
        self.faults(place, faults);
        if key == "wire" && session.wire == Switch::Yes {
            self.warn(
                place,
                "`wire = yes` has no effect yet: frames arrive as the sources' offloads left them",
            );
        }
        if key == "dedup" && session.dedup == Switch::No {
            self.warn(
                place,
                "`dedup = no` has no effect: Open vSwitch delivers every frame once",
            );
        }
    }

    fn warn(&mut self, place: &Place, message: &str) {
        let (file, place) = (self.file.to_owned(), Some(place.clone()));
        self.diagnostics.push(Diagnostic {
            file,
            place,
            severity: Severity::Warning,
            message: message.into(),
            hint: None,
        });
    }
}

fn set<T>(read: Result<T, Fault>, mut put: impl FnMut(T)) -> Vec<Fault> {
    match read {
        Ok(value) => {
            put(value);
            Vec::new()
        }
        Err(fault) => vec![fault],
    }
}

fn set_list<T>(value: &str, place: &Place, into: &mut Vec<At<T>>) -> Vec<Fault>
where
    T: std::str::FromStr<Err = super::model::Invalid>,
{
    match values::list(value, str::parse) {
        Ok(items) => {
            into.extend(items.into_iter().map(|item| At {
                value: item.value,
                place: place.within(item.offset, item.width),
            }));
            Vec::new()
        }
        Err(faults) => faults,
    }
}

fn read_filter(value: &str) -> Result<Filter, Fault> {
    filter::parse(value).map_err(|error| Fault {
        offset: error.offset,
        width: error.width,
        message: error.message,
        hint: error.hint,
    })
}

impl Session {
    fn empty(name: SessionName, place: Place) -> Self {
        Self {
            name,
            place,
            sources: Vec::new(),
            exclude: Vec::new(),
            outputs: Vec::new(),
            direction: Direction::Both,
            point: Point::Bridge,
            vlans: VlanSet::default(),
            filter: None,
            snaplen: None,
            sample: 1,
            engine: EngineChoice::Auto,
            dedup: Switch::Yes,
            wire: Switch::Yes,
            enabled: Switch::Yes,
            expires: None,
            comment: None,
            keys: BTreeMap::new(),
            unsupported: Vec::new(),
        }
    }

    /// Is it over at this time, in seconds since 1970?
    pub fn has_expired(&self, now: i64) -> bool {
        self.expires.is_some_and(|end| end.as_second() <= now)
    }
}

#[cfg(test)]
mod tests;
