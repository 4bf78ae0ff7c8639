//! How long a hook takes: the whole process, beside a shell script that does the same with ovs-vsctl; and the pure
//! core on a large node. `cargo bench --bench hook`, as root; with `-- --quick` fewer runs.
//!
//! Every figure is a median. The budgets are the design's; being over one is said in the table and fails nothing,
//! since a time says as much about the machine as about pve-span. docs/performance.md has the figures of one machine.
//! PVE_SPAN_BEFORE names the binary of another version: each hook is timed beside that one, too.

#![allow(clippy::print_stdout, clippy::print_stderr, clippy::expect_used)]

#[path = "../tests/lab/mod.rs"]
mod lab;

mod calls;
mod hyperfine;
mod large;
mod machine;
mod situation;
mod start;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use hyperfine::Effort;
use machine::machine;
use situation::{HOOKS, Hooked, Measured, Plugged, Situation, Source};
use start::{Pace, start};
use table::{Budget, Table, ms, ratio};

const SITUATIONS: [Situation; 4] = [
    Situation {
        name: "1 guest",
        guests: 1,
        plugged: Plugged::Directly,
        source: Source::Guest,
    },
    Situation {
        name: "500 guests",
        guests: 500,
        plugged: Plugged::Directly,
        source: Source::Guest,
    },
    Situation {
        name: "500 guests, firewall bridges",
        guests: 500,
        plugged: Plugged::BehindFirewall,
        source: Source::Guest,
    },
    Situation {
        name: "500 guests, source = tag:web",
        guests: 500,
        plugged: Plugged::Directly,
        source: Source::Tag,
    },
];

fn main() -> ExitCode {
    start(run)
}

fn run(pace: Pace) -> Result<(), String> {
    let effort = match pace {
        Pace::Quick => Effort { turns: 1, runs: 15 },
        Pace::Full => Effort {
            turns: 10,
            runs: 10,
        },
    };
    let hyperfine = hyperfine::version()?;
    let mut table = Table::of_hooks();
    let mut changes = Table::new(["what", "node", "before", "now", "now / before"], 2..5);
    let mut one_guest = None;
    for situation in &SITUATIONS {
        eprintln!("measuring: {} …", situation.name);
        let measured = situation.measure(effort)?;
        add(&mut table, situation.name, &measured, one_guest.as_ref());
        compare(&mut changes, situation.name, &measured);
        one_guest.get_or_insert(measured);
    }
    eprintln!("measuring: the core …");
    let core = hyperfine::median(large::times(20)).ok_or("the core was not measured")?;
    table.add(
        "resolve and plan 200 sessions",
        "10,000 guests",
        &ms(core),
        None,
        &[at_most(core, Duration::from_millis(100))],
    );
    let size = std::fs::metadata(lab::binary())
        .map_err(|error| format!("cannot measure the binary: {error}"))?
        .len();
    let budget = Budget {
        text: "≤ 8 MiB".to_owned(),
        kept: size <= 8 << 20,
    };
    let tenths = size * 10 / (1 << 20);
    let size = format!("{}.{} MiB", tenths / 10, tenths % 10);
    table.add("the binary, stripped", "", &size, None, &[budget]);
    println!(
        "\n{}, {hyperfine}; medians of {} runs\n",
        machine(),
        effort.turns * effort.runs
    );
    print!("{table}");
    if situation::before().is_some() {
        print!("\n{changes}");
    }
    Ok(())
}

/// One situation's lines beside those of the binary before.
fn compare(table: &mut Table<5>, node: &str, measured: &Measured) {
    for (hook, Hooked { ours, before, .. }) in HOOKS.iter().zip(&measured.hooks) {
        if let Some(before) = before {
            let part = ours.as_secs_f64() / before.as_secs_f64();
            let what = format!("{}, {}", hook.phase, hook.does);
            table.row([
                what,
                node.to_owned(),
                ms(*before),
                ms(*ours),
                format!("{part:.2}"),
            ]);
        }
    }
}

/// One situation's lines. The first one is held to the design's figures, the others to the first one.
fn add(table: &mut Table<7>, node: &str, measured: &Measured, one_guest: Option<&Measured>) {
    for (number, (hook, hooked)) in HOOKS.iter().zip(&measured.hooks).enumerate() {
        let Hooked { ours, script, .. } = hooked;
        let one = one_guest.and_then(|measured| measured.hooks.get(number));
        let mut budgets = vec![match one {
            None => at_most(*ours, Duration::from_millis(5)),
            Some(one) => Budget {
                text: format!("≤ 3 × {}", ms(one.ours)),
                kept: *ours <= one.ours * 3,
            },
        }];
        // In pre-start the script does not call ovs-vsctl.
        if one.is_none() && hook.phase != "pre-start" {
            budgets.push(Budget {
                text: "≤ 1/5".to_owned(),
                kept: *ours * 5 <= *script,
            });
        }
        let what = format!("{}, {}", hook.phase, hook.does);
        let peer = (ms(*script), ratio(*ours, *script));
        table.add(&what, node, &ms(*ours), Some(peer), &budgets);
        if number == 0 {
            let what = "– of it ovs-vswitchd";
            table.add(what, node, &ms(measured.vswitchd), None, &[]);
        }
    }
}

fn at_most(time: Duration, budget: Duration) -> Budget {
    Budget {
        text: format!("≤ {} ms", budget.as_millis()),
        kept: time <= budget,
    }
}
