//! What can stand at the cursor of a command line that somebody is typing, for completion.
//!
//! The shells' scripts (debian/completions) only hand the words over. So all shells offer the same, a new command or
//! option is completed by being there, and what clap hides stays hidden. Nothing is looked up here: who can be named is
//! the caller's to find out.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::builder::ValueHint;
use clap::{Arg, ArgAction, Command, CommandFactory, Id};

use super::Cli;
use super::hook_call::PHASES;

/// A word that can stand there, and what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The word.
    pub word: String,
    /// In a few words.
    pub about: String,
}

/// What can stand there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Anything, or nothing.
    Anything,
    /// One of these.
    OneOf(Vec<Candidate>),
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A guest.
    Guest,
    /// A guest, or one of its NICs.
    Nic,
    /// A session.
    Session,
    /// A storage.
    Storage,
}

/// The cursor's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// What can stand there.
    pub wanted: Wanted,
    /// What is there of it.
    pub begun: String,
    /// What stands before it in the same word: `--root=`.
    pub before: String,
    /// What is named already, and need not be named again.
    pub named: BTreeSet<String>,
    /// The root directory that the line asks for.
    pub root: Option<PathBuf>,
}

/// Reads the words behind `pve-span`; the last one ends at the cursor.
pub fn at_cursor(words: &[String]) -> Cursor {
    let mut cli = Cli::command();
    cli.build();
    // bash makes three words of --root=DIR.
    let whole: Vec<&str> = words
        .iter()
        .map(|word| if word == "=" { "" } else { word.as_str() })
        .collect();
    let (current, typed) = match whole.split_last() {
        Some((current, typed)) => (*current, typed),
        None => ("", &[][..]),
    };
    let mut line = Line::new(&cli);
    typed
        .iter()
        .filter(|word| !word.is_empty())
        .for_each(|word| line.read(word));
    line.end(current)
}

/// The line before the cursor.
struct Line<'a> {
    command: &'a Command,
    /// The option that the next word is the value of.
    open: Option<&'a Arg>,
    given: BTreeSet<Id>,
    values: Vec<String>,
    only_values: bool,
    root: Option<PathBuf>,
}

impl<'a> Line<'a> {
    fn new(command: &'a Command) -> Self {
        Self {
            command,
            open: None,
            given: BTreeSet::new(),
            values: Vec::new(),
            only_values: false,
            root: None,
        }
    }

    fn read(&mut self, word: &str) {
        if let Some(arg) = self.open.take() {
            self.take(arg, word);
        } else if self.only_values || !word.starts_with('-') {
            match self.command.find_subcommand(word) {
                Some(command) if self.values.is_empty() => self.command = command,
                _ => self.values.push(word.to_owned()),
            }
        } else if word == "--" {
            self.only_values = true;
        } else if let Some(name) = word.strip_prefix("--") {
            let (name, value) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (name, None),
            };
            let Some(arg) = self.option(name) else { return };
            self.given.insert(arg.get_id().clone());
            match value {
                Some(value) => self.take(arg, value),
                None if takes_value(arg) => self.open = Some(arg),
                None => {}
            }
        }
    }

    fn option(&self, name: &str) -> Option<&'a Arg> {
        let mut all = self.command.get_arguments();
        all.find(|arg| arg.get_long() == Some(name))
    }

    fn take(&mut self, arg: &Arg, value: &str) {
        if arg.get_id() == "root" {
            self.root = Some(value.into());
        }
    }

    fn end(self, current: &str) -> Cursor {
        let is_option = !self.only_values && current.starts_with('-');
        let attached = current
            .strip_prefix("--")
            .filter(|_| is_option)
            .and_then(|option| option.split_once('='));
        let (mut before, mut begun) = ("", current);
        let wanted = if let Some(arg) = self.open {
            wanted(arg)
        } else if let Some((name, value)) = attached {
            (before, begun) = (current.strip_suffix(value).unwrap_or_default(), value);
            self.option(name).map_or(Wanted::Anything, wanted)
        } else if is_option {
            self.options()
        } else if self.command.has_subcommands() {
            commands(self.command)
        } else {
            let mut places = self.command.get_positionals();
            let places: Vec<&Arg> = places.by_ref().filter(|arg| !arg.is_hide_set()).collect();
            match places.get(self.values.len()).or_else(|| {
                let last = places.last();
                last.filter(|arg| matches!(arg.get_action(), ArgAction::Append))
            }) {
                Some(arg) => wanted(arg),
                // Options are all that can follow.
                None => self.options(),
            }
        };
        Cursor {
            wanted,
            begun: begun.to_owned(),
            before: before.to_owned(),
            named: self.values.into_iter().collect(),
            root: self.root,
        }
    }

    fn options(&self) -> Wanted {
        let offered = self.command.get_arguments().filter(|arg| {
            let again = matches!(arg.get_action(), ArgAction::Count);
            !arg.is_hide_set() && (again || !self.given.contains(arg.get_id()))
        });
        let candidate = |arg: &Arg| {
            let help = arg.get_help().map(ToString::to_string);
            Some(Candidate {
                word: format!("--{}", arg.get_long()?),
                about: first_line(&help.unwrap_or_default()),
            })
        };
        Wanted::OneOf(offered.filter_map(candidate).collect())
    }
}

fn takes_value(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

fn commands(command: &Command) -> Wanted {
    let shown = command
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    let candidate = |command: &Command| Candidate {
        word: command.get_name().to_owned(),
        about: first_line(
            &command
                .get_about()
                .map(ToString::to_string)
                .unwrap_or_default(),
        ),
    };
    Wanted::OneOf(shown.map(candidate).collect())
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// What an argument takes.
fn wanted(arg: &Arg) -> Wanted {
    match arg.get_id().as_str() {
        "guests" | "vmid" => Wanted::Guest,
        "subjects" => Wanted::Nic,
        "sessions" => Wanted::Session,
        "storage" => Wanted::Storage,
        "phase" => {
            let phase = |word: &&str| Candidate {
                word: (*word).to_owned(),
                about: String::new(),
            };
            Wanted::OneOf(PHASES.iter().map(phase).collect())
        }
        "root" => Wanted::Folder,
        _ => match arg.get_value_hint() {
            ValueHint::AnyPath | ValueHint::FilePath => Wanted::File,
            ValueHint::DirPath => Wanted::Folder,
            _ => Wanted::Anything,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: &str) -> Cursor {
        at_cursor(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    fn offered(line: &str) -> Vec<String> {
        match at(line).wanted {
            Wanted::OneOf(all) => all.into_iter().map(|one| one.word).collect(),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn each_command_has_its_own_options_and_those_of_all() {
        let doctor = offered("doctor --");
        for option in ["--json", "--root", "--verbose", "--help"] {
            assert!(doctor.contains(&option.to_owned()), "{option}: {doctor:?}");
        }
        assert!(!doctor.contains(&"--events".to_owned()));
        assert!(offered("status --").contains(&"--events".to_owned()));
        assert_eq!(offered("doctor "), doctor, "nothing else can follow");
    }

    #[test]
    fn what_is_hidden_is_not_offered_and_what_is_given_not_again() {
        assert!(!offered("watch --").contains(&"--count-every".to_owned()));
        assert!(!offered("attach --").contains(&"--patience".to_owned()));
        assert!(!offered("").contains(&"complete".to_owned()));
        assert!(!offered("doctor --json --").contains(&"--json".to_owned()));
        assert!(offered("doctor -v --verbose --").contains(&"--verbose".to_owned()));
    }

    #[test]
    fn arguments_and_values_of_options_are_what_they_are() {
        for (line, wanted) in [
            ("attach ", Wanted::Guest),
            ("attach 101 10", Wanted::Guest),
            ("detach --dry-run ", Wanted::Guest),
            ("explain 10", Wanted::Nic),
            ("clear ", Wanted::Session),
            ("verify --time 5 d", Wanted::Session),
            ("verify --time ", Wanted::Anything),
            ("attach --storage ", Wanted::Storage),
            ("attach --storage=l", Wanted::Storage),
            ("attach --storage = l", Wanted::Storage),
            ("attach --storage =", Wanted::Storage),
            ("check ", Wanted::File),
            ("import --mirrors-conf ", Wanted::File),
            ("watch --metrics-file ", Wanted::File),
            ("--root ", Wanted::Folder),
            ("status --root=/x", Wanted::Folder),
            ("hook ", Wanted::Guest),
            ("nonsense --what ever", Wanted::Anything),
        ] {
            if line.starts_with("nonsense") {
                at(line);
                continue;
            }
            assert_eq!(at(line).wanted, wanted, "{line}");
        }
        assert_eq!(offered("hook 101 p").len(), 4);
    }

    #[test]
    fn the_root_directory_and_the_part_before_the_value_are_kept() {
        let cursor = at("--root /x verify --storage=lo");
        assert_eq!(cursor.root, Some("/x".into()));
        let cursor = at("attach 101 --storage=lo");
        assert_eq!(
            (cursor.before.as_str(), cursor.begun.as_str()),
            ("--storage=", "lo")
        );
        assert!(cursor.named.contains("101"));
    }
}
