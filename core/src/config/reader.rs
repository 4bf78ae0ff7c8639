//! Sections and keys of span.cfg → sessions, with every fault on the way.

use std::collections::BTreeMap;

use super::ini;
use super::ini::Line;
use super::session::{At, Session};
use super::values;
use super::values::Fault;
use crate::config::diagnostic::{Diagnostic, Place, Severity, did_you_mean};
use crate::filter;
use crate::filter::Filter;
use crate::model::{Invalid, SessionName, excerpt};

/// Reads a key's value into a session; what is wrong with it comes back, and then the session keeps what it had.
type Read = fn(&mut Session, &str, &Place) -> Vec<Fault>;

/// The keys of a session, and how each is read. All but the last three may stand in `[defaults]`.
const READERS: [(&str, Read); 17] = [
    ("direction", |session, value, _| {
        set(values::direction(value), &mut session.direction)
    }),
    ("exclude", |session, value, place| {
        set_list(value, place, &mut session.exclude)
    }),
    ("point", |session, value, _| {
        set(values::point(value), &mut session.point)
    }),
    ("vlan", |session, value, _| match values::vlans(value) {
        Ok(vlans) => {
            session.vlans = vlans;
            Vec::new()
        }
        Err(faults) => faults,
    }),
    ("filter", |session, value, _| {
        set(read_filter(value).map(Some), &mut session.filter)
    }),
    ("snaplen", |session, value, _| {
        set(values::snaplen(value).map(Some), &mut session.snaplen)
    }),
    ("sample", |session, value, _| {
        set(values::sample(value), &mut session.sample)
    }),
    ("engine", |session, value, _| {
        set(values::engine(value), &mut session.engine)
    }),
    ("dedup", |session, value, _| {
        set(values::switch(value), &mut session.dedup)
    }),
    ("wire", |session, value, _| {
        set(values::switch(value), &mut session.wire)
    }),
    ("pre-stop", |session, value, _| {
        set(values::pre_stop(value), &mut session.pre_stop)
    }),
    ("enabled", |session, value, _| {
        set(values::switch(value), &mut session.enabled)
    }),
    ("expires", |session, value, _| {
        set(values::expires(value).map(Some), &mut session.expires)
    }),
    ("comment", |session, value, _| {
        set(Ok(Some(value.into())), &mut session.comment)
    }),
    ("source", |session, value, place| {
        set_list(value, place, &mut session.sources)
    }),
    ("output", |session, value, place| {
        set_list(value, place, &mut session.outputs)
    }),
    ("capture-only", |session, value, place| {
        set_list(value, place, &mut session.capture_only)
    }),
];

/// The keys of a session.
pub const KEYS: [&str; READERS.len()] = {
    let mut names = [""; READERS.len()];
    let mut at = 0;
    while at < READERS.len() {
        names[at] = READERS[at].0;
        at += 1;
    }
    names
};

const NOT_DEFAULTS: [&str; 3] = ["source", "output", "capture-only"];
const REQUIRED: [&str; 2] = ["source", "output"];

/// A section's keys with their values, as they stand.
pub type Properties = BTreeMap<String, (Place, At<String>)>;

/// The most sessions of a file: more than all bridges of a node can serve.
const MOST_SESSIONS: usize = 1000;

/// Which section a line belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Current {
    #[default]
    None,
    Refused,
    Defaults,
    Session,
}

/// A session that only takes values to see their faults.
pub fn scratch(value: &At<String>) -> Session {
    Session::empty(SessionName::from_mark("-"), value.place.clone())
}

/// The sections so far.
#[derive(Default)]
struct Sections {
    defaults: Option<Section>,
    sessions: Vec<Section>,
    /// Where each of them begins, by name.
    lines: BTreeMap<String, usize>,
    current: Current,
}

pub struct Reader<'a> {
    /// The file's name in the diagnostics.
    pub file: &'a str,
    pub diagnostics: Vec<Diagnostic>,
}

/// A section as it stands.
pub struct Section {
    pub name: SessionName,
    /// Where that stands.
    pub place: Place,
    pub properties: Properties,
    /// Keys that were meant, and are not missing.
    misspelt: Vec<&'static str>,
}

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
    pub fn sections(&mut self, text: &str) -> (Properties, Vec<Section>) {
        let mut found = Sections::default();
        for line in ini::lines(text) {
            match line {
                Line::Fault { message, place } => self.error(place, message, None),
                Line::Section { name, place } => {
                    found.current = self.begin(&mut found, &name, place)
                }
                Line::Property {
                    key,
                    key_place,
                    value,
                    value_place,
                } => {
                    self.property(
                        &mut found,
                        key,
                        key_place,
                        At {
                            value,
                            place: value_place,
                        },
                    );
                }
            }
        }
        (
            found
                .defaults
                .map(|section| section.properties)
                .unwrap_or_default(),
            found.sessions,
        )
    }

    fn begin(&mut self, found: &mut Sections, name: &str, place: Place) -> Current {
        if let Some(line) = found.lines.get(name) {
            let message = format!(
                "duplicate section [{}] (first on line {line})",
                excerpt(name)
            );
            self.error(place, message, Some("join the two sections".into()));
            return Current::Refused;
        }
        let session = match name.parse::<SessionName>() {
            Ok(session) => session,
            Err(error) => {
                let hint = Some(name.to_lowercase().replace([' ', '_', '.'], "-"))
                    .filter(|better| better.parse::<SessionName>().is_ok())
                    .map(|better| format!("write [{better}]"));
                self.error(place, error.to_string(), hint);
                return Current::Refused;
            }
        };
        found.lines.insert(name.to_owned(), place.line);
        let section = Section {
            name: session,
            place,
            properties: Properties::new(),
            misspelt: Vec::new(),
        };
        if name == "defaults" {
            found.defaults = Some(section);
            return Current::Defaults;
        }
        if found.sessions.len() == MOST_SESSIONS {
            self.error(
                section.place,
                format!("more than {MOST_SESSIONS} sessions"),
                None,
            );
            return Current::Refused;
        }
        found.sessions.push(section);
        Current::Session
    }

    fn property(&mut self, found: &mut Sections, key: String, place: Place, value: At<String>) {
        let section = match found.current {
            Current::Session => found.sessions.last_mut(),
            Current::Defaults => found.defaults.as_mut(),
            Current::Refused => None,
            Current::None => {
                let hint = Some("begin a session with its name in brackets: [dmz-ids]".into());
                return self.error(
                    place,
                    format!("`{}` stands before any section", excerpt(&key)),
                    hint,
                );
            }
        };
        if !KEYS.contains(&key.as_str()) {
            let hint = did_you_mean(&key, KEYS);
            let meant = KEYS.iter().find(|known| {
                hint.as_ref()
                    .is_some_and(|hint| hint.contains(&format!("`{known}`")))
            });
            if let (Some(section), Some(meant)) = (section, meant) {
                section.misspelt.push(meant);
            }
            let hint = hint.or_else(|| Some(format!("the keys are {}", KEYS.join(", "))));
            self.error(place, format!("unknown key `{}`", excerpt(&key)), hint);
        } else if found.current == Current::Defaults && NOT_DEFAULTS.contains(&key.as_str()) {
            self.error(
                place,
                format!("`{key}` belongs to a session, not to [defaults]"),
                None,
            );
        } else if let Some(section) = section {
            if let Some((earlier, _)) = section.properties.get(&key) {
                let message = format!("duplicate key `{key}` (first on line {})", earlier.line);
                self.error(
                    place,
                    message,
                    Some("join the two lines with a comma, or delete one".into()),
                );
                self.value(&mut scratch(&value), &key, &value);
            } else {
                section.properties.insert(key, (place, value));
            }
        } else {
            // Nobody asks for it, but its faults count.
            self.value(&mut scratch(&value), &key, &value);
        }
    }

    /// What `[defaults]` gives to every session: read once, since it may be long and they may be many.
    pub fn defaults(&mut self, defaults: &Properties) -> Option<Session> {
        let (_, first) = defaults.values().next()?;
        let mut session = scratch(first);
        for (key, (_, value)) in defaults {
            self.value(&mut session, key, value);
        }
        Some(session)
    }

    /// Makes a session of a section, with the defaults for what it does not say.
    pub fn session(&mut self, section: &Section, defaults: Option<&Session>) -> Session {
        let Section {
            name,
            place,
            properties: own,
            misspelt,
        } = section;
        let (name, place) = (name.clone(), place.clone());
        let mut session = match defaults {
            Some(defaults) => Session {
                name,
                place,
                ..defaults.clone()
            },
            None => Session::empty(name, place),
        };
        for (key, (_, value)) in own {
            self.value(&mut session, key, value);
        }
        for key in REQUIRED
            .into_iter()
            .filter(|key| !own.contains_key(*key) && !misspelt.contains(key))
        {
            let example = if key == "source" {
                "source = 101"
            } else {
                "output = 200/net1"
            };
            let hint = if session.name.as_str() == "default" {
                "did you mean [defaults]?".to_owned()
            } else {
                format!("add a line, `{example}` for example")
            };
            self.error(
                session.place.clone(),
                format!("session {} has no `{key}`", session.name),
                Some(hint),
            );
        }
        session
    }

    /// Reads one value into the session; a fault leaves the default.
    pub fn value(&mut self, session: &mut Session, key: &str, at: &At<String>) {
        let (value, place) = (at.value.as_str(), &at.place);
        session.keys.insert(key.to_owned(), place.clone());
        if value.is_empty() && key != "comment" {
            self.error(place.clone(), format!("`{key}` has no value"), None);
            return;
        }
        let reader = READERS.iter().find(|(name, _)| *name == key);
        let faults = reader.map(|(_, read)| read(session, value, place));
        self.faults(place, faults.unwrap_or_default());
    }
}

fn set<T>(read: Result<T, Fault>, into: &mut T) -> Vec<Fault> {
    match read {
        Ok(value) => {
            *into = value;
            Vec::new()
        }
        Err(fault) => vec![fault],
    }
}

/// What a list had from `[defaults]` goes.
fn set_list<T>(value: &str, place: &Place, into: &mut Vec<At<T>>) -> Vec<Fault>
where
    T: std::str::FromStr<Err = Invalid>,
{
    let (items, faults) = values::list(value, str::parse);
    let items = items.into_iter().map(|item| At {
        value: item.value,
        place: place.within(item.offset, item.width),
    });
    *into = items.collect();
    faults
}

fn read_filter(value: &str) -> Result<Filter, Fault> {
    filter::parse(value).map_err(|error| Fault {
        offset: error.offset,
        width: error.width,
        message: error.message,
        hint: error.hint,
    })
}
