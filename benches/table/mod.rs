//! The table: what was measured, beside its budget.

use std::time::Duration;

/// What a figure may be at most.
pub struct Budget {
    /// In words.
    pub text: String,
    /// Is it kept?
    pub kept: bool,
}

/// Lines of cells, printed as a Markdown table with aligned columns.
pub struct Table(Vec<[String; 7]>);

impl Table {
    /// The headings only.
    pub fn new() -> Self {
        let headings = [
            "what", "node", "pve-span", "script", "ratio", "budget", "within",
        ];
        Self(vec![headings.map(str::to_owned)])
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
        self.0.push([
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

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = |column: usize| {
            let cells = self.0.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: [usize; 7] = std::array::from_fn(width);
        for (number, row) in self.0.iter().enumerate() {
            for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
                if is_number(column) {
                    write!(f, "| {cell:>width$} ")?;
                } else {
                    write!(f, "| {cell:<width$} ")?;
                }
            }
            writeln!(f, "|")?;
            if number == 0 {
                for (column, width) in widths.into_iter().enumerate() {
                    let end = if is_number(column) { ":" } else { "-" };
                    write!(f, "|{}{end}", "-".repeat(width + 1))?;
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

fn is_number(column: usize) -> bool {
    (2..5).contains(&column)
}

/// `3.14 ms`
pub fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

/// `1/5.9`: how much of the peer's time.
pub fn ratio(ours: Duration, script: Duration) -> String {
    format!("1/{:.1}", script.as_secs_f64() / ours.as_secs_f64())
}
