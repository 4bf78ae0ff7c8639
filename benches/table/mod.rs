//! Tables of what was measured, beside budgets where there are some.

// Each benchmark uses a part of it.
#![allow(dead_code)]

use std::ops::Range;
use std::time::Duration;

/// What a figure may be at most.
pub struct Budget {
    /// In words.
    pub text: String,
    /// Is it kept?
    pub kept: bool,
}

/// Lines of cells, printed as a Markdown table with aligned columns.
pub struct Table<const COLUMNS: usize> {
    rows: Vec<[String; COLUMNS]>,
    numbers: Range<usize>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    /// The headings only; the columns `numbers` are aligned to the right.
    pub fn new(headings: [&str; COLUMNS], numbers: Range<usize>) -> Self {
        Self {
            rows: vec![headings.map(str::to_owned)],
            numbers,
        }
    }

    /// Adds a line.
    pub fn row(&mut self, cells: [String; COLUMNS]) {
        self.rows.push(cells);
    }
}

impl Table<7> {
    /// The table of hooks.
    pub fn of_hooks() -> Self {
        let headings = [
            "what", "node", "pve-span", "script", "ratio", "budget", "within",
        ];
        Self::new(headings, 2..5)
    }

    /// Adds a figure; `script` is the peer's, where there is one.
    pub fn add(
        &mut self,
        what: &str,
        node: &str,
        figure: &str,
        script: Option<(String, String)>,
        budgets: &[Budget],
    ) {
        let (script, ratio) = script.unwrap_or_default();
        let join = |texts: Vec<&str>| texts.join(", ");
        let budget = join(budgets.iter().map(|budget| budget.text.as_str()).collect());
        let within = join(
            budgets
                .iter()
                .map(|budget| if budget.kept { "yes" } else { "**no**" })
                .collect(),
        );
        self.row([
            what.to_owned(),
            node.to_owned(),
            figure.to_owned(),
            script,
            ratio,
            budget,
            within,
        ]);
    }
}

impl<const COLUMNS: usize> std::fmt::Display for Table<COLUMNS> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: [usize; COLUMNS] = std::array::from_fn(width);
        for (number, row) in self.rows.iter().enumerate() {
            for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
                if self.numbers.contains(&column) {
                    write!(f, "| {cell:>width$} ")?;
                } else {
                    write!(f, "| {cell:<width$} ")?;
                }
            }
            writeln!(f, "|")?;
            if number == 0 {
                for (column, width) in widths.into_iter().enumerate() {
                    let end = if self.numbers.contains(&column) {
                        ":"
                    } else {
                        "-"
                    };
                    write!(f, "|{}{end}", "-".repeat(width + 1))?;
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

/// `3.14 ms`
pub fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

/// `1/5.9`: how much of the peer's time.
pub fn ratio(ours: Duration, script: Duration) -> String {
    format!("1/{:.1}", script.as_secs_f64() / ours.as_secs_f64())
}
