//! For how long frames pass a source and are not mirrored, when something happens.
//!
//! A numbered frame goes out each half millisecond. What arrives at its destination and not at the sensor was missed;
//! the time from the first of these to the first that is mirrored again is how long the session was blind.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::lab::{Capture, Node};

/// How often a frame is sent.
const BEAT: Duration = Duration::from_micros(500);

/// What each frame says before its number.
const TOKEN: &str = "beat-";

/// How many frames have to be mirrored in a row before it is over.
const IN_A_ROW: usize = 20;

/// How long the end is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Has `event` happen while `from` sends to `to`, and tells for how long the sensor missed what passed from its
/// beginning on.
pub fn blind(
    node: &Node,
    [from, to, sensor]: [&str; 3],
    event: impl FnOnce(),
) -> Result<Duration, String> {
    let (mut at_sensor, mut at_destination) = (node.capture(sensor), node.capture(to));
    let sender = node.sender(from);
    let stop = AtomicBool::new(false);
    let (sent, event_at) = thread::scope(|scope| {
        let beat = scope.spawn(|| {
            let mut sent: Vec<Instant> = Vec::new();
            while !stop.load(Ordering::Acquire) {
                // Each frame has another EtherType: Open vSwitch may send one that it knows the old way for a while.
                let ethertype = u16::try_from(0x9200 + sent.len() % 0x5000).unwrap_or(0x9200);
                let frame = node
                    .frame(from, to, &format!("{TOKEN}{:08}", sent.len()))
                    .ethertype_is(ethertype);
                sent.push(Instant::now());
                sender.send(&frame);
                thread::sleep(BEAT);
            }
            sent
        });
        let event_at = Instant::now();
        event();
        let deadline = Instant::now() + PATIENCE;
        let mut over = false;
        let already = numbers(&mut at_sensor).len();
        while !over && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
            over = numbers(&mut at_sensor).len() >= already + IN_A_ROW;
        }
        stop.store(true, Ordering::Release);
        let sent = beat.join().unwrap_or_default();
        (if over { sent } else { Vec::new() }, event_at)
    });
    if sent.is_empty() {
        return Err(format!("{sensor} is blind to {from} for good"));
    }
    node.settle();
    let (mirrored, delivered) = (numbers(&mut at_sensor), numbers(&mut at_destination));
    if delivered.len() < IN_A_ROW {
        return Err(format!("of what {from} sends nothing arrives at {to}"));
    }
    let since = sent.partition_point(|at| *at < event_at);
    let missed = |number: &usize| *number >= since && !mirrored.contains(number);
    let Some(first) = delivered.iter().copied().find(missed) else {
        return Ok(Duration::ZERO);
    };
    // The first that begins a row: a frame that passed on an old way is no end.
    let end = mirrored
        .range(first..)
        .copied()
        .find(|number| (*number..number + IN_A_ROW / 2).all(|one| mirrored.contains(&one)));
    let at = |number: usize| sent.get(number).copied().unwrap_or(event_at);
    Ok(end.map_or(PATIENCE, |end| at(end).duration_since(at(first))))
}

fn numbers(capture: &mut Capture) -> BTreeSet<usize> {
    let frames = capture.frames();
    let number = |payload: &[u8]| {
        let rest = payload.strip_prefix(TOKEN.as_bytes())?.get(..8)?;
        std::str::from_utf8(rest).ok()?.parse().ok()
    };
    frames
        .iter()
        .filter_map(|frame| number(frame.payload()))
        .collect()
}
