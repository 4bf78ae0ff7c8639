//! A fault in a file, shown where it stands: file, line, column, the line with a caret, a hint.

use std::fmt;

use serde::Serialize;

use super::model::printable;

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
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line, counted from 1.
    pub line: usize,
    /// The whole line as it stands in the file.
    pub text: String,
    /// Where it begins, in bytes from the line's start.
    pub offset: usize,
    /// How long it is, in bytes.
    pub width: usize,
}

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

    /// The caret line under the text: tabs stay tabs, so that it lines up in every terminal.
    fn carets(&self) -> String {
        let before = self.text.get(..self.offset).unwrap_or("");
        let under = self.text.get(self.offset..).unwrap_or("");
        let width = under
            .char_indices()
            .take_while(|(at, _)| *at < self.width)
            .count()
            .max(1);
        let blanks: String = before
            .chars()
            .map(|c| {
                if c == '\t' {
                    "\t".to_owned()
                } else {
                    " ".repeat(printable(&c.to_string()).chars().count())
                }
            })
            .collect();
        format!("{blanks}{}", "^".repeat(width))
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
        let text: String = place
            .text
            .chars()
            .map(|c| {
                if c == '\t' {
                    "\t".into()
                } else {
                    printable(&c.to_string())
                }
            })
            .collect();
        writeln!(f, " {} | {text}", place.line)?;
        write!(f, " {:margin$} | {}", "", place.carets())?;
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
        .map(|(_, known)| format!("did you mean `{known}`?"))
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
        assert_eq!((place.column(), place.carets()), (3, "  ^".into()));
        let broken = Place {
            line: 1,
            text: "ä".into(),
            offset: 1,
            width: 9,
        };
        assert_eq!((broken.column(), broken.carets()), (1, "^".into()));
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
