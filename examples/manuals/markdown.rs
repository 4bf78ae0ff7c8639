//! A page of docs/ as a man page's body: the part of Markdown that those pages are written in.
//!
//! A table becomes a list, as columns do not fit a terminal: the first cell is what is explained. What is not understood
//! fails the build, so that nobody finds a broken page later.

use std::io;

use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

/// The body of a page: everything below its first heading.
///
/// # Errors
/// Something in it is not understood.
pub fn body(roff: &mut Roff, text: &str) -> io::Result<()> {
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.trim().is_empty() {
            continue;
        }
        if line.starts_with("# ") {
            roff.control("SH", ["DESCRIPTION"]);
        } else if let Some(title) = line.strip_prefix("## ") {
            roff.control("SH", [plain(title).to_uppercase().as_str()]);
        } else if let Some(title) = line.strip_prefix("### ") {
            roff.control("SS", [plain(title).as_str()]);
        } else if line.starts_with("```") {
            roff.control("PP", []);
            roff.control("nf", []);
            roff.control("RS", ["4"]);
            for code in lines.by_ref().take_while(|line| !line.starts_with("```")) {
                roff.text([roman(code)]);
            }
            roff.control("RE", []);
            roff.control("fi", []);
        } else if line.starts_with("| ") {
            let heads = cells(line);
            let rule = lines.next().unwrap_or_default();
            if !rule.starts_with("|---") {
                return Err(misunderstood(rule));
            }
            while let Some(row) = lines.next_if(|line| line.starts_with('|')) {
                list_row(roff, &heads, &cells(row));
            }
        } else if let Some(first) = line.strip_prefix("- ") {
            let mut item = first.to_owned();
            while let Some(more) = lines.next_if(|line| line.starts_with("  ")) {
                item.push(' ');
                item.push_str(more.trim());
            }
            roff.control("IP", ["\u{2022}", "2"]);
            roff.text(inlines(&item));
        } else if line.starts_with(['<', '!', '>', ' ', '#', '*']) && !line.starts_with("**") {
            return Err(misunderstood(line));
        } else {
            let mut paragraph = line.to_owned();
            let begins_else = |line: &str| {
                line.trim().is_empty() || line.starts_with(['#', '|', '`']) && is_block(line)
            };
            while let Some(more) =
                lines.next_if(|line| !begins_else(line) && !line.starts_with("- "))
            {
                paragraph.push(' ');
                paragraph.push_str(more);
            }
            roff.control("PP", []);
            roff.text(inlines(&paragraph));
        }
    }
    Ok(())
}

/// Begins this line something that is no paragraph?
fn is_block(line: &str) -> bool {
    line.starts_with('#') || line.starts_with("| ") || line.starts_with("```")
}

fn misunderstood(line: &str) -> io::Error {
    io::Error::other(format!("this Markdown is not understood: {line}"))
}

/// A row of a table: what is explained, and then the other cells, each with its column's head if that has one.
fn list_row(roff: &mut Roff, heads: &[String], row: &[String]) {
    let Some((first, rest)) = row.split_first() else {
        return;
    };
    roff.control("TP", []);
    roff.text([bold(plain(first))]);
    let mut parts = Vec::new();
    for (place, cell) in rest.iter().enumerate() {
        let head = heads.get(place + 1).map_or("", String::as_str);
        let is_last = place + 1 == rest.len();
        if cell.is_empty() {
            continue;
        }
        let cell = match head {
            "" | "takes" => cell.clone(),
            head => format!("{head}: {cell}"),
        };
        parts.push(if is_last { cell } else { format!("{cell}; ") });
    }
    let text = parts.concat();
    roff.text(inlines(text.trim_end_matches("; ")));
}

/// A row's cells. A `|` within backquotes belongs to the cell.
pub fn cells(row: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut in_code = false;
    for c in row.trim().trim_start_matches('|').chars() {
        match c {
            '`' => in_code = !in_code,
            '|' if !in_code => {
                cells.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(cell) = cells.last_mut() {
            cell.push(c);
        }
    }
    // Behind the last bar is nothing.
    cells.pop();
    cells.iter().map(|cell| cell.trim().to_owned()).collect()
}

/// A text with bold for what stands in backquotes, italics for what stands in asterisks, and without links' targets.
fn inlines(text: &str) -> Vec<Inline> {
    let mut out = Vec::new();
    for (place, piece) in without_links(text).split('`').enumerate() {
        if place % 2 == 1 {
            out.push(bold(piece));
            continue;
        }
        for (place, piece) in piece.replace("**", "*").split('*').enumerate() {
            match (piece.is_empty(), place % 2 == 1) {
                (true, _) => {}
                (_, true) => out.push(italic(piece)),
                (_, false) => out.push(roman(piece)),
            }
        }
    }
    out
}

/// Markdown without its marks.
pub fn plain(text: &str) -> String {
    without_links(text).replace(['`', '*'], "")
}

/// Of links the words stay; `<https://…>` stays as it is, without its brackets.
fn without_links(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(link) = next_link(rest) {
        out.push_str(&rest[..link.start]);
        out.push_str(link.words);
        rest = &rest[link.end..];
    }
    out.push_str(rest);
    out
}

/// A link in a text.
pub struct Link<'a> {
    /// What is shown.
    pub words: &'a str,
    /// Where it leads.
    pub target: &'a str,
    /// Where it begins.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
}

/// The first link, `[words](target)`, outside of backquotes.
pub fn next_link(text: &str) -> Option<Link<'_>> {
    let mut from = 0;
    loop {
        let start = from + text.get(from..)?.find('[')?;
        let behind = start + 1;
        let parsed = text[behind..].split_once("](").and_then(|(words, rest)| {
            let (target, _) = rest.split_once(')')?;
            let is_one = !words.contains("\n\n") && (!words.contains('[') || words.contains('`'));
            is_one.then_some((words, target))
        });
        let is_code = text[..start].matches('`').count() % 2 == 1;
        match parsed {
            Some((words, target)) if !is_code => {
                let end = behind + words.len() + 2 + target.len() + 1;
                return Some(Link {
                    words,
                    target,
                    start,
                    end,
                });
            }
            _ => from = behind,
        }
    }
}
