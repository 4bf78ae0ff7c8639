//! How long a reconcile of the `nft` engine takes with 1, 100 and 1,000 mirrored NICs: hooks and commands as whole
//! processes, and of it nft(8). `cargo bench --bench reconcile`, as root; with `-- --quick` fewer runs.
//!
//! As in `hook`: every figure is a median, and a budget that is not kept is said and fails nothing.

#![allow(clippy::print_stdout, clippy::print_stderr)]

#[path = "../tests/lab/mod.rs"]
mod lab;

mod calls;
mod hyperfine;
mod machine;
mod mirrored;
mod start;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use hyperfine::Effort;
use machine::machine;
use mirrored::{CALLS, HOOKS, Situation, Source, Took};
use start::{Pace, start};
use table::{Table, ms};

/// One guest first: the next one's budget is a multiple of its figures.
const SITUATIONS: [Situation; 4] = [
    Situation {
        name: "1 of 1",
        guests: 1,
        source: Source::One,
    },
    Situation {
        name: "1 of 500",
        guests: 500,
        source: Source::One,
    },
    Situation {
        name: "100 of 100",
        guests: 100,
        source: Source::All,
    },
    Situation {
        name: "1,000 of 1,000",
        guests: 1000,
        source: Source::All,
    },
];

fn main() -> ExitCode {
    start(run)
}

fn run(pace: Pace) -> Result<(), String> {
    let (hooks, commands) = match pace {
        Pace::Quick => (Effort { turns: 1, runs: 10 }, Effort { turns: 1, runs: 3 }),
        Pace::Full => (Effort { turns: 5, runs: 10 }, Effort { turns: 1, runs: 15 }),
    };
    let hyperfine = hyperfine::version()?;
    let mut measured = Vec::new();
    for situation in &SITUATIONS {
        eprintln!("measuring: {} NICs mirrored …", situation.name);
        measured.push(situation.measure(hooks, commands)?);
    }
    println!(
        "\n{}, {hyperfine}; NICs mirrored of how many; medians of {} runs (hooks) and {} (commands)\n",
        machine(),
        hooks.turns * hooks.runs,
        commands.turns * commands.runs
    );
    print!("{}", figures(&measured));
    println!();
    print!("{}", budgets(&measured));
    Ok(())
}

fn figures(measured: &[Vec<Took>]) -> Table<5> {
    let [first, second, third, fourth] = SITUATIONS.map(|situation| situation.name);
    let mut table = Table::new(["what", first, second, third, fourth], 1..5);
    for (number, call) in CALLS.iter().enumerate() {
        let mut line = |what: &str, figure: &dyn Fn(&Took) -> Option<Duration>| {
            let mut cells: [String; 5] = std::array::from_fn(|_| String::new());
            let figures = measured
                .iter()
                .map(|took| took.get(number).and_then(figure));
            for (cell, figure) in cells.iter_mut().skip(1).zip(figures) {
                *cell = figure.map(ms).unwrap_or_default();
            }
            cells[0] = what.to_owned();
            if cells.iter().skip(1).any(|cell| !cell.is_empty()) {
                table.row(cells);
            }
        };
        line(call.does, &|took| Some(took.whole));
        line("– of it nft(8)", &|took| took.nft);
    }
    table
}

/// The design's figures for hooks.
fn budgets(measured: &[Vec<Took>]) -> Table<4> {
    let mut table = Table::new(["hook", "budget", "one of one", "one of 500"], 2..4);
    let [Some(one), Some(many)] = [measured.first(), measured.get(1)] else {
        return table;
    };
    for ((call, one), many) in CALLS.iter().zip(one).zip(many).take(HOOKS) {
        let kept = |kept: bool| if kept { "yes" } else { "**no**" };
        table.row([
            call.does.to_owned(),
            "≤ 15 ms; ≤ 3 × that".to_owned(),
            kept(one.whole <= Duration::from_millis(15)).to_owned(),
            kept(many.whole <= one.whole * 3).to_owned(),
        ]);
    }
    table
}
