//! Lines of an INI file with the places of their parts.
//!
//! The grammar is `rust-ini`'s, but that crate forgets where things stand and stops at its first
//! fault. So each line is given to it alone: no value of span.cfg spans lines, hence the meaning is
//! the same, every fault is found, and every part has its column.

use ini::{Ini, ParseOption};

use std::sync::Arc;

use crate::config::diagnostic::Place;

/// One meaningful line.
pub enum Line {
    /// `[name]`
    Section {
        /// The name, as written.
        name: String,
        /// Where the name stands.
        place: Place,
    },
    /// `key = value`
    Property {
        /// The key, as written.
        key: String,
        /// Where the key stands.
        key_place: Place,
        /// The value without comment and outer blanks.
        value: String,
        /// Where the value stands.
        value_place: Place,
    },
    /// Neither.
    Fault {
        /// What is wrong.
        message: String,
        /// The whole line.
        place: Place,
    },
}

/// The lines that say something: blank lines and comments are left out.
pub fn lines(text: &str) -> impl Iterator<Item = Line> + '_ {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.lines()
        .enumerate()
        .filter_map(|(number, line)| read(number + 1, line.trim_end()))
}

fn read(number: usize, line: &str) -> Option<Line> {
    let body = line.trim_start();
    if body.is_empty() || body.starts_with(['#', ';']) {
        return None;
    }
    let offset = line.len() - body.len();
    let text: Arc<str> = line.into();
    let place = |offset: usize, width: usize| Place {
        line: number,
        text: Arc::clone(&text),
        offset,
        width,
    };
    let fault = |message: &str| {
        Some(Line::Fault {
            message: message.to_owned(),
            place: place(offset, body.len()),
        })
    };

    if let Some((at, control)) = line
        .char_indices()
        .find(|(_, c)| c.is_control() && *c != '\t')
    {
        let message = "a control character stands here; write the line anew".to_owned();
        return Some(Line::Fault {
            message,
            place: place(at, control.len_utf8()),
        });
    }
    let behind_blanks = |start: usize| {
        let rest = line.get(start..).unwrap_or_default();
        start + rest.len() - rest.trim_start().len()
    };
    let options = ParseOption {
        enabled_quote: false,
        enabled_escape: false,
        ..ParseOption::default()
    };
    let Ok(parsed) = Ini::load_from_str_opt(body, options) else {
        return fault(match (body.starts_with('['), body.contains(']')) {
            (true, false) => "the `]` is missing: [dmz-ids]",
            (true, true) => "a section stands on a line of its own: [dmz-ids]",
            (false, _) => "expected `key = value` or [section]",
        });
    };
    if body.starts_with('[') {
        let Some(name) = parsed.sections().flatten().next() else {
            return fault("a section needs a name: [dmz-ids]");
        };
        return Some(Line::Section {
            name: name.to_owned(),
            place: place(behind_blanks(offset + 1), name.len().max(1)),
        });
    }
    let Some((key, value)) = parsed.general_section().iter().next() else {
        return fault("expected `key = value` or [section]");
    };
    let after = line
        .get(offset..)
        .and_then(|rest| rest.find(['=', ':']))
        .map_or(line.len(), |at| offset + at + 1);
    Some(Line::Property {
        key: key.to_owned(),
        key_place: place(offset, key.len().max(1)),
        value: value.to_owned(),
        value_place: place(behind_blanks(after), value.len()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(text: &str) -> Vec<String> {
        lines(text)
            .map(|line| match line {
                Line::Section { name, place } => format!("[{name}]@{}", place.offset),
                Line::Property {
                    key,
                    key_place,
                    value,
                    value_place,
                } => {
                    let at = &value_place.text
                        [value_place.offset..value_place.offset + value_place.width];
                    assert_eq!(at, value);
                    format!("{key}@{}={value}@{}", key_place.offset, value_place.offset)
                }
                Line::Fault { message, place } => format!("{}: {message}", place.line),
            })
            .collect()
    }

    #[test]
    fn comments_and_blanks_do_not_move_the_places() {
        assert_eq!(
            summary(
                "\u{feff}; c\n\n  # c\n[defaults]   ; c\n  direction =  both   ; c\r\nsource=tag:web, 101 # c\n"
            ),
            [
                "[defaults]@1",
                "direction@2=both@15",
                "source@0=tag:web, 101@7"
            ]
        );
    }

    #[test]
    fn blanks_of_any_width_before_a_name_are_not_pointed_at() {
        assert_eq!(
            summary("[ dmz ]\n [\u{3000}%]\nsource =\u{3000}101\n"),
            ["[dmz]@2", "[%]@5", "source@0=101@11"]
        );
    }

    #[test]
    fn quotes_and_backslashes_are_ordinary_characters() {
        assert_eq!(
            summary("comment = \"a\\n\" b\\\nvlan = 1\n"),
            ["comment@0=\"a\\n\" b\\@10", "vlan@0=1@7"]
        );
    }

    #[test]
    fn a_control_character_is_pointed_at_as_a_whole() {
        for control in ["\u{1b}", "\u{85}"] {
            let text = format!("so{control}urce = 101\n");
            let Some(Line::Fault { place, .. }) = lines(&text).next() else {
                panic!("{control:?} is no fault");
            };
            assert_eq!((place.offset, place.width), (2, control.len()));
        }
    }

    #[test]
    fn every_fault_is_found() {
        assert_eq!(
            summary("nonsense\n[open\nvlan = 1\n[]\n= 3\n[a] b\n"),
            [
                "1: expected `key = value` or [section]",
                "2: the `]` is missing: [dmz-ids]",
                "vlan@0=1@7",
                "[]@1",
                "5: expected `key = value` or [section]",
                "6: a section stands on a line of its own: [dmz-ids]",
            ]
        );
    }
}
