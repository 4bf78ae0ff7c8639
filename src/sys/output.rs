//! What commands print: tables that fit a terminal, and JSON.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use pve_span_core::model::{is_control, printable};

/// The first error of a write to standard output, from whichever [`Printer`].
static UNWRITTEN: OnceLock<io::Error> = OnceLock::new();

/// Writes what is still to be written, and tells why something could not be. A reader that has gone is not a fault.
pub fn unwritten() -> Option<&'static io::Error> {
    note(io::stdout().flush());
    UNWRITTEN.get()
}

/// Takes note of what became of a write to standard output.
pub fn note(written: io::Result<()>) {
    if let Err(error) = written {
        if error.kind() != io::ErrorKind::BrokenPipe {
            // Only the first one counts.
            let _ = UNWRITTEN.set(error);
        }
    }
}

/// Standard output.
pub struct Printer {
    stream: io::Stdout,
    width: Option<usize>,
    colour: bool,
}

/// How a cell looks on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// As it is.
    Plain,
    /// Well.
    Good,
    /// Not well.
    Bad,
    /// A heading.
    Heading,
}

impl Printer {
    /// Colour and a width only on a terminal.
    pub fn new() -> Self {
        let stream = io::stdout();
        let terminal = stream.is_terminal();
        let columns = || terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        let width = if terminal {
            columns().or(Some(80))
        } else {
            None
        };
        Self {
            width,
            colour: terminal
                && std::env::var_os("NO_COLOR").is_none()
                && std::env::var_os("TERM").is_none_or(|term| term != "dumb"),
            stream,
        }
    }

    /// Prints a line.
    pub fn line(&mut self, text: &str) {
        note(writeln!(self.stream, "{text}"));
    }

    /// Prints a heading.
    pub fn heading(&mut self, text: &str) {
        let text = self.painted(text, Look::Heading);
        self.line(&text);
    }

    /// Prints a line below something, wrapped and indented.
    pub fn note(&mut self, text: &str) {
        self.note_as(text, Look::Plain);
    }

    /// The same, looking like this.
    pub fn note_as(&mut self, text: &str, look: Look) {
        let width = self.width.unwrap_or(usize::MAX).saturating_sub(4).max(20);
        for (number, part) in wrap(text, width).into_iter().enumerate() {
            let indent = if number == 0 { "  " } else { "    " };
            let part = self.painted(&part, look);
            self.line(&format!("{indent}{part}"));
        }
    }

    /// Prints data.
    pub fn json(&mut self, data: &impl serde::Serialize) {
        let text = serde_json::to_string_pretty(data)
            .unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"));
        self.line(&json_for_terminal(&text));
    }

    /// Prints rows below each other, with notes under each.
    pub fn table(&mut self, headings: &[&str], rows: &[Row]) {
        let widths = self.widths(headings, rows);
        let heading: Vec<String> = headings
            .iter()
            .map(|heading| (*heading).to_owned())
            .collect();
        self.row(&heading, &widths, Look::Heading, None);
        for row in rows {
            self.row(&row.cells, &widths, row.look, row.look_at);
            for note in &row.notes {
                self.note(note);
            }
        }
    }

    fn widths(&self, headings: &[&str], rows: &[Row]) -> Vec<usize> {
        let cells = |column: usize| {
            rows.iter()
                .filter_map(move |row| row.cells.get(column))
                .map(|cell| cell.chars().count())
        };
        let mut widths: Vec<usize> = headings
            .iter()
            .enumerate()
            .map(|(column, heading)| {
                cells(column)
                    .chain([heading.chars().count()])
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let longest_word = |column: usize| {
            let cells = rows
                .iter()
                .filter_map(move |row| row.cells.get(column))
                .map(String::as_str);
            let words = cells
                .chain(headings.get(column).copied())
                .flat_map(|cell| cell.split(' '));
            words.map(|word| word.chars().count()).max().unwrap_or(0)
        };
        let least: Vec<usize> = (0..headings.len()).map(longest_word).collect();
        let total =
            |widths: &[usize]| widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1);
        while self.width.is_some_and(|width| total(&widths) > width) {
            let can_shrink = widths
                .iter_mut()
                .zip(&least)
                .filter(|(width, least)| **width > **least);
            match can_shrink.map(|(width, _)| width).max() {
                Some(widest) => *widest -= 1,
                None => break,
            }
        }
        widths
    }

    fn row(&mut self, cells: &[String], widths: &[usize], look: Look, look_at: Option<usize>) {
        let wrapped: Vec<Vec<String>> = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| wrap(cell, *width))
            .collect();
        let height = wrapped.iter().map(Vec::len).max().unwrap_or(0);
        for line in 0..height {
            let mut text = String::new();
            for (column, (cell, width)) in wrapped.iter().zip(widths).enumerate() {
                let part = cell.get(line).map_or("", String::as_str);
                let pad = " ".repeat(width.saturating_sub(part.chars().count()) + 2);
                let look = if look_at.is_none_or(|at| at == column) {
                    look
                } else {
                    Look::Plain
                };
                text.push_str(&self.painted(part, look));
                text.push_str(&pad);
            }
            self.line(text.trim_end());
        }
    }

    fn painted(&self, text: &str, look: Look) -> String {
        let code = match look {
            _ if !self.colour || text.is_empty() => return text.to_owned(),
            Look::Plain => return text.to_owned(),
            Look::Good => "32",
            Look::Bad => "31",
            Look::Heading => "1",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

impl Default for Printer {
    fn default() -> Self {
        Self::new()
    }
}

/// JSON that may be shown as it is: of what does something to a terminal, serde_json escapes only what JSON forbids
/// (RFC 8259 §7). The rest can stand in strings alone, and means the same as an escape.
fn json_for_terminal(text: &str) -> String {
    text.chars().fold(String::new(), |mut shown, c| {
        if c != '\n' && is_control(c) {
            shown.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            shown.push(c);
        }
        shown
    })
}

/// A row of a table.
pub struct Row {
    /// Its cells.
    pub cells: Vec<String>,
    /// How one of them looks.
    pub look: Look,
    /// Which one; all of them without.
    pub look_at: Option<usize>,
    /// What is said below it.
    pub notes: Vec<String>,
}

/// Breaks a text at blanks, and where that does not do, anywhere.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let text = printable(text);
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let used = lines.last().map_or(0, |line| line.chars().count());
            let needed = word.len() + usize::from(used > 0);
            if used + needed <= width || (used == 0 && word.is_empty()) {
                break;
            }
            if used > 0 {
                lines.push(String::new());
                continue;
            }
            let rest = word.split_off(width.max(1).min(word.len()));
            if let Some(line) = lines.last_mut() {
                line.extend(word);
            }
            if rest.is_empty() {
                word = rest;
                break;
            }
            lines.push(String::new());
            word = rest;
        }
        if let Some(line) = lines.last_mut().filter(|_| !word.is_empty()) {
            if !line.is_empty() {
                line.push(' ');
            }
            line.extend(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_at_blanks_or_anywhere() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("fwln999999999o0", 6), ["fwln99", "999999", "9o0"]);
        assert_eq!(
            wrap("a fwln999999999o0 b", 8),
            ["a", "fwln9999", "99999o0", "b"]
        );
        assert_eq!(wrap("", 5), [""]);
    }

    #[test]
    fn json_says_the_same_and_does_nothing_to_a_terminal() {
        let hostile = vec!["a\u{1b}[2J\u{9b}2J\u{7f}\u{202e}ü\n\\"];
        let text = json_for_terminal(&serde_json::to_string_pretty(&hostile).unwrap());
        assert_eq!(
            text,
            "[\n  \"a\\u001b[2J\\u009b2J\\u007f\\u202eü\\n\\\\\"\n]"
        );
        assert_eq!(serde_json::from_str::<Vec<String>>(&text).unwrap(), hostile);
    }
}
