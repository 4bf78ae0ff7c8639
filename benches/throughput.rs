//! What mirroring costs the traffic: small frames a second and one TCP stream, unmirrored and mirrored in several ways,
//! in one run. And how long a guest that starts is not mirrored yet. `cargo bench --bench throughput`, as root; with
//! `-- --quick` less of it.
//!
//! All nodes stand side by side and take turns, so that a machine that slows down meanwhile slows all of them. Figures
//! are medians of the turns.

#![allow(clippy::print_stdout, clippy::print_stderr)]

#[path = "../tests/lab/mod.rs"]
mod lab;

mod machine;
mod start;
mod table;
mod traffic;
mod ways;

use std::process::ExitCode;
use std::time::Duration;

use lab::Node;
use machine::machine;
use start::{Pace, start};
use table::Table;
use traffic::{Frames, blind, frames, tcp};
use ways::{Bridge, COMPARED, Way, build};

/// How much is measured.
struct Effort {
    turns: usize,
    /// Of each measurement in a turn.
    time: Duration,
    starts: usize,
}

fn main() -> ExitCode {
    start(measure)
}

fn measure(pace: Pace) -> Result<(), String> {
    let effort = match pace {
        Pace::Quick => Effort {
            turns: 3,
            time: Duration::from_millis(500),
            starts: 15,
        },
        Pace::Full => Effort {
            turns: 11,
            time: Duration::from_secs(1),
            starts: 100,
        },
    };
    let mut measured = Vec::new();
    for (bridge, way) in COMPARED {
        measured.push(Measured::new(bridge, way)?);
    }
    for turn in 1..=effort.turns {
        eprintln!("measuring: turn {turn} of {} …", effort.turns);
        for one in &mut measured {
            one.turn(effort.time)?;
        }
    }
    println!("\n{}; medians of {} turns\n", machine(), effort.turns);
    print!("{}", compare(&measured));
    drop(measured);
    eprintln!("measuring: starts …");
    println!(
        "\nFrom a guest's plugged port to its first mirrored frame, by the hook; medians of {} starts\n",
        effort.starts
    );
    let mut starts = Table::new(["bridge", "engine", "blind", "the longest"], 2..4);
    for (bridge, engine) in [(Bridge::Linux, "nft"), (Bridge::Ovs, "ovs")] {
        let times = blind(bridge, effort.starts)?;
        let milliseconds: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
        let longest = milliseconds.iter().copied().fold(f64::NAN, f64::max);
        starts.row([
            bridge.name().to_owned(),
            engine.to_owned(),
            format!("{:.2} ms", median(milliseconds)),
            format!("{longest:.2} ms"),
        ]);
    }
    print!("{starts}");
    Ok(())
}

/// A node, and what was measured on it.
struct Measured {
    bridge: Bridge,
    way: Way,
    node: Node,
    frames: Vec<Frames>,
    tcp: Vec<f64>,
}

impl Measured {
    fn new(bridge: Bridge, way: Way) -> Result<Measured, String> {
        Ok(Measured {
            bridge,
            way,
            node: build(bridge, way)?,
            frames: Vec::new(),
            tcp: Vec::new(),
        })
    }

    fn turn(&mut self, time: Duration) -> Result<(), String> {
        let frames = frames(&self.node, time);
        // Fast and wrong is not worth measuring.
        let mirrors = frames.copies > 0.5;
        if mirrors != (self.way != Way::Unmirrored) {
            return Err(format!(
                "{}, {}: {:.2} copies of each frame",
                self.bridge.name(),
                self.way.name(),
                frames.copies
            ));
        }
        self.frames.push(frames);
        self.tcp.push(tcp(&self.node, time)?);
        Ok(())
    }

    fn per_second(&self) -> f64 {
        median(self.frames.iter().map(|frames| frames.per_second).collect())
    }

    fn copies(&self) -> f64 {
        median(self.frames.iter().map(|frames| frames.copies).collect())
    }
}

fn compare(measured: &[Measured]) -> Table<7> {
    let headings = [
        "bridge",
        "way",
        "frames/s",
        "of unmirrored",
        "copies of each",
        "one TCP stream",
        "of unmirrored",
    ];
    let mut table = Table::new(headings, 2..7);
    let mut baseline = (0.0, 0.0);
    for one in measured {
        let (frames, tcp) = (one.per_second(), median(one.tcp.clone()));
        if one.way == Way::Unmirrored {
            baseline = (frames, tcp);
        }
        table.row([
            one.bridge.name().to_owned(),
            one.way.name().to_owned(),
            format!("{:.0} k", frames / 1e3),
            format!("{:.2}", frames / baseline.0),
            format!("{:.2}", one.copies()),
            format!("{:.1} Gbit/s", tcp / 1e9),
            format!("{:.2}", tcp / baseline.1),
        ]);
    }
    table
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    let low = figures.len().saturating_sub(1) / 2;
    match (figures.get(low), figures.get(middle)) {
        (Some(low), Some(high)) => (low + high) / 2.0,
        _ => f64::NAN,
    }
}
