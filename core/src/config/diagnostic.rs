//! A fault in a file, shown where it stands: file, line, column, the line with a caret, a hint.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::model::printable;

/// How bad a fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file is not valid; the last good copy stays in force.
    Error,
    /// The file is valid, but this session or output needs what this version does not have.
    Unsupported,
    /// Probably not what was meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Unsupported => "unsupported",
            Self::Warning => "warning",
        })
    }
}

/// A place within a line.
#[derive(Debug, Clone)]
pub struct Place {
    /// The line, counted from 1.
    pub line: usize,
    /// The whole line as it stands in the file; shared, since a line may have many places.
    pub text: Arc<str>,
    /// Where it begins, in bytes from the line's start.
    pub offset: usize,
    /// How long it is, in bytes.
    pub width: usize,
}

/// Places of one file are told apart by where they are.
impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.line, self.offset, self.width).cmp(&(other.line, other.offset, other.width))
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Place {}

/// How much of a long line is shown: so many characters before the place, and so many in all.
const BEFORE: usize = 60;
const SHOWN: usize = 160;

impl Place {
    /// A part of this place: `offset` and `width` in bytes from its own start.
    pub fn within(&self, offset: usize, width: usize) -> Self {
        Self {
            offset: self.offset + offset,
            width,
            ..self.clone()
        }
    }

    /// The column in characters, counted from 1.
    fn column(&self) -> usize {
        self.text
            .get(..self.offset)
            .map_or(0, |before| before.chars().count())
            + 1
    }

    /// The line, or its part around the place, and the carets under it. Tabs stay tabs, so that the
    /// carets stand right in every terminal.
    fn shown(&self) -> (String, String) {
        let before: Vec<char> = self.text.get(..self.offset).unwrap_or("").chars().collect();
        let behind = self.text.get(self.offset..).unwrap_or("");
        let is_long = self.text.chars().nth(SHOWN).is_some();
        let skipped = if is_long {
            before.len().saturating_sub(BEFORE)
        } else {
            0
        };
        let as_shown = |c: &char| {
            if *c == '\t' {
                "\t".to_owned()
            } else {
                printable(&c.to_string())
            }
        };
        let room = SHOWN.saturating_sub(before.len() - skipped);
        let cut = is_long && behind.chars().nth(room).is_some();
        let mut text = String::from(if skipped > 0 { "…" } else { "" });
        let mut carets = String::from(if skipped > 0 { " " } else { "" });
        for c in before.iter().skip(skipped) {
            text.push_str(&as_shown(c));
            carets.push_str(&if *c == '\t' {
                "\t".to_owned()
            } else {
                " ".repeat(as_shown(c).chars().count())
            });
        }
        for (at, c) in behind
            .char_indices()
            .take(if is_long { room } else { usize::MAX })
        {
            text.push_str(&as_shown(&c));
            if at < self.width {
                carets.push_str(&"^".repeat(as_shown(&c).chars().count()));
            }
        }
        if self.width == 0 || behind.is_empty() {
            carets.push('^');
        }
        if cut {
            text.push('…');
        }
        (text, carets)
    }
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// The file's name as the user knows it.
    pub file: String,
    /// Where; nothing when it is about the file as a whole.
    pub place: Option<Place>,
    /// How bad.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(place) = &self.place else {
            write!(f, "{}: {}: {}", self.file, self.severity, self.message)?;
            return self
                .hint
                .as_ref()
                .map_or(Ok(()), |hint| write!(f, "\n  = {hint}"));
        };
        writeln!(
            f,
            "{}:{}:{}: {}: {}",
            self.file,
            place.line,
            place.column(),
            self.severity,
            self.message
        )?;
        let margin = place.line.to_string().len();
        let (text, carets) = place.shown();
        writeln!(f, " {} | {text}", place.line)?;
        write!(f, " {:margin$} | {carets}", "")?;
        self.hint
            .as_ref()
            .map_or(Ok(()), |hint| write!(f, "\n {:margin$} = {hint}", ""))
    }
}

impl Serialize for Diagnostic {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut out = serializer.serialize_struct("Diagnostic", 6)?;
        out.serialize_field("file", &self.file)?;
        out.serialize_field("line", &self.place.as_ref().map(|place| place.line))?;
        out.serialize_field("column", &self.place.as_ref().map(Place::column))?;
        out.serialize_field("severity", &self.severity)?;
        out.serialize_field("message", &self.message)?;
        out.serialize_field("hint", &self.hint)?;
        out.end()
    }
}

/// The word that was probably meant, if one of `known` is close to `word`.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let distance = |known: &str| strsim::damerau_levenshtein(&word.to_lowercase(), known);
    known
        .into_iter()
        .map(|known| (distance(known), known))
        .filter(|(distance, known)| *distance <= 2 && *distance < known.len().max(2) / 2 + 1)
        .min()
        .map(|(_, known)| format!("did you mean `{}`?", printable(known)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_points_at_its_place() {
        let diagnostic = Diagnostic {
            file: "/etc/pve/span.cfg".into(),
            place: Some(Place {
                line: 12,
                text: "\tsouce = 101".into(),
                offset: 1,
                width: 5,
            }),
            severity: Severity::Error,
            message: "unknown key `souce`".into(),
            hint: did_you_mean("souce", ["source", "output"]),
        };
        assert_eq!(
            diagnostic.to_string(),
            "/etc/pve/span.cfg:12:2: error: unknown key `souce`\n 12 | \tsouce = 101\n    | \t^^^^^\n    = did you mean `source`?"
        );
    }

    #[test]
    fn columns_count_characters_and_never_split_one() {
        let place = Place {
            line: 1,
            text: "ä€ = x".into(),
            offset: 5,
            width: 1,
        };
        assert_eq!((place.column(), place.shown().1), (3, "  ^".into()));
        let broken = Place {
            line: 1,
            text: "ä".into(),
            offset: 1,
            width: 9,
        };
        assert_eq!((broken.column(), broken.shown().1), (1, "^".into()));
    }

    #[test]
    fn only_near_words_are_suggested() {
        assert_eq!(
            did_you_mean("direcion", ["direction"]).as_deref(),
            Some("did you mean `direction`?")
        );
        assert_eq!(did_you_mean("banana", ["direction", "vlan"]), None);
    }
}
