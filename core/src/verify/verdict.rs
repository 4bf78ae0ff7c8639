//! Is a session proven, untested or failed? And if not proven, what is the matter, and what to do.

use serde::Serialize;

use super::capture_points::{Part, Subject, Way};
use super::tally::{Counts, OutputTally};
use crate::engine::nft::spec::Passing;

/// What frames have shown of a session. The later, the worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Each of its sources, in each direction, was seen to be mirrored once, and rightly.
    Proven,
    /// Nothing was seen to be wrong, and not everything was seen.
    Untested,
    /// A frame was missing, doubled or bad, or something is known not to be mirrored.
    Failed,
}

impl Verdict {
    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Untested => "untested",
            Self::Failed => "failed",
        }
    }

    /// Of all that was found.
    pub fn of<'r>(reasons: impl IntoIterator<Item = &'r Reason>) -> Self {
        let worst = reasons.into_iter().map(|reason| match reason {
            Reason::Untested(_) => Self::Untested,
            Reason::Failed(_) => Self::Failed,
        });
        worst.max().unwrap_or(Self::Proven)
    }
}

/// Why something is not proven.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It could not be seen, or there was nothing to see.
    Untested(String),
    /// It is wrong.
    Failed(String),
}

impl Reason {
    /// In words.
    pub fn text(&self) -> &str {
        match self {
            Self::Untested(text) | Self::Failed(text) => text,
        }
    }

    /// The same where not all frames were seen: then one that is missing says nothing.
    pub fn doubted(self) -> Self {
        match self {
            Self::Untested(text) | Self::Failed(text) => Self::Untested(text),
        }
    }
}

/// All that was found of one session's output.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// The frames.
    pub tally: OutputTally,
    /// By subject: frames that are copied where another source sends them.
    pub elsewhere: Vec<u64>,
    /// Frames at the sensor that no session's source has sent or got.
    pub foreign: u64,
    /// Frames at the sensor that are longer than its MTU allows.
    pub oversize: u64,
    /// Frames at the sensor with a bad checksum.
    pub bad_checksum: u64,
}

/// Under which circumstances.
#[derive(Debug, Clone)]
pub struct RunConditions {
    /// For how long.
    pub seconds: f64,
    /// Were marked frames sent?
    pub inject: Inject,
    /// The sensor's device.
    pub device: String,
    /// Its MTU, where it is known.
    pub mtu: Option<usize>,
}

/// Were marked frames sent?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inject {
    /// They were.
    Yes,
    /// Nobody asked for it.
    No,
}

/// Why a session's output is not proven; nothing if it is.
pub fn reasons(part: &Part, found: &Found, watched: &RunConditions) -> Vec<Reason> {
    let blind = part.blind.iter().cloned();
    let mut reasons: Vec<Reason> = blind.map(Reason::Untested).collect();
    let (all, output) = (found.tally.all, &part.key.output);
    for (number, subject) in part.subjects.iter().enumerate() {
        let seen = found.tally.subjects.get(number);
        if seen.is_none_or(|counts| counts.watched == 0) {
            let elsewhere = found.elsewhere.get(number).copied().unwrap_or(0);
            reasons.push(Reason::Untested(unseen(subject, elsewhere, watched)));
        }
    }
    if part.sample > 1 {
        let whole = implausible(part.sample, all.watched, all.arrived);
        let each = part.subjects.iter().zip(&found.tally.subjects);
        reasons.extend(match whole {
            Some(told) => vec![told],
            None => each
                .filter_map(|(subject, counts)| none_of(part.sample, subject, *counts))
                .collect(),
        });
    } else if all.arrived < all.watched {
        reasons.push(Reason::Failed(format!(
            "{} missing at {output} ({}): pve-span status and pve-span plan tell whether the mirror is whole; \
             what the source's rate= or another nftables table drops before it is mirrored is missing too",
            are(all.watched - all.arrived),
            watched.device
        )));
    }
    if found.tally.doubled > 0 {
        reasons.push(Reason::Failed(format!(
            "{} more than once at {output}: is there a mirror made by hand (ovs-vsctl list Mirror, nft list ruleset, \
             tc filter), does a source send from a MAC address that is not in its config, or do both engines serve \
             the output (pve-span plan)?",
            did(found.tally.doubled, "arrived")
        )));
    }
    if found.foreign > 0 {
        reasons.push(Reason::Failed(format!(
            "{} at {output} that no source has sent or got: something else sends to {}, or a source's frames were \
             dropped behind the mirror (rate= on its NIC)",
            did(found.foreign, "arrived"),
            watched.device
        )));
    }
    if let (1.., Some(mtu)) = (found.oversize, watched.mtu) {
        reasons.push(Reason::Failed(format!(
            "{} longer than the MTU of {}, {mtu}: the offloads of {} are on again (pve-span apply switches them \
             off), or a source's MTU is larger",
            are(found.oversize),
            watched.device,
            watched.device
        )));
    }
    if found.bad_checksum > 0 {
        reasons.push(Reason::Failed(format!(
            "{} a bad checksum at {output}: the offloads of {} are on again (pve-span apply switches them off), or \
             a guest sends such frames",
            has(found.bad_checksum),
            watched.device
        )));
    }
    reasons
}

/// Nothing could be told of a source.
fn unseen(subject: &Subject, elsewhere: u64, watched: &RunConditions) -> String {
    let (name, seconds) = (&subject.name, watched.seconds);
    let steps = if seconds < 1.0 { 10.0 } else { 1.0 };
    let in_time = format!("in {} s", (seconds * steps).round() / steps);
    if subject.whole {
        return format!("no frame was seen on {name} {in_time}: wait longer (--time)");
    }
    if subject.passing == Passing::From {
        return format!(
            "no frame was seen from {name} {in_time}: wait longer (--time), or make it send; what it sends cannot be injected"
        );
    }
    let what = match elsewhere {
        0 => format!("no frame was seen to {name} {in_time}"),
        _ => format!(
            "all that was seen to {name} {in_time} came from other sources, and is mirrored where they send it"
        ),
    };
    match (watched.inject, &subject.way) {
        (Inject::No, Way::Device { .. } | Way::Bridge { .. }) => {
            format!("{what}: send some with --inject, or wait longer (--time)")
        }
        (Inject::Yes, Way::Device { .. } | Way::Bridge { .. }) => {
            format!("{what}, nor any marked frame: wait longer (--time)")
        }
        (_, Way::None(why)) => {
            format!("{what}: wait longer (--time); {why}, so nothing is injected")
        }
    }
}

/// One frame in so many: which ones cannot be told, only whether it may be.
fn implausible(sample: u32, watched: u64, arrived: u64) -> Option<Reason> {
    let wanted = watched / u64::from(sample);
    let tolerance = wanted / 2 + 2;
    let told = format!(
        "of {} one in {sample} is mirrored, and {arrived} arrived",
        frames(watched)
    );
    if arrived.abs_diff(wanted) > tolerance {
        Some(Reason::Failed(format!("{told}, not about {wanted}")))
    } else if watched > 0 && (arrived == 0 || wanted == 0) {
        let few = format!("{told}: too few to tell, wait longer (--time)");
        Some(Reason::Untested(few))
    } else {
        None
    }
}

/// The share of all may be about right while nothing is mirrored of one source, or of one direction.
fn none_of(sample: u32, subject: &Subject, counts: Counts) -> Option<Reason> {
    let way = match (subject.whole, subject.passing) {
        (true, _) => "on",
        (false, Passing::From) => "from",
        (false, Passing::To) => "to",
    };
    // As many as would be no accident.
    let is_enough = implausible(sample, counts.watched, 0)
        .is_some_and(|reason| matches!(reason, Reason::Failed(_)));
    (counts.watched > 0 && counts.arrived == 0).then(|| {
        let told = format!(
            "of {} {way} {} none arrived, where one in {sample} is mirrored: wait longer (--time), and if that does not \
             help, see pve-span status and pve-span plan",
            frames(counts.watched),
            subject.name
        );
        if is_enough {
            Reason::Failed(told)
        } else {
            Reason::Untested(told)
        }
    })
}

fn frames(count: u64) -> String {
    match count {
        1 => "1 frame".to_owned(),
        _ => format!("{count} frames"),
    }
}

fn are(count: u64) -> String {
    let verb = if count == 1 { "is" } else { "are" };
    format!("{} {verb}", frames(count))
}

fn has(count: u64) -> String {
    let verb = if count == 1 { "has" } else { "have" };
    format!("{} {verb}", frames(count))
}

fn did(count: u64, verb: &str) -> String {
    format!("{} {verb}", frames(count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::OutputKey;
    use crate::model::SessionName;
    use crate::model::Switch;

    fn part(sample: u32, way: Way) -> Part {
        let subject = Subject {
            name: "101/net0".into(),
            passing: Passing::To,
            whole: false,
            way,
        };
        Part {
            key: OutputKey {
                session: SessionName::from_mark("dmz"),
                output: "200/net1".into(),
            },
            sample,
            dedup: Switch::Yes,
            subjects: vec![subject],
            blind: Vec::new(),
        }
    }

    fn told(part: &Part, (watched, arrived): (u64, u64), inject: Inject) -> Vec<Reason> {
        let counts = Counts { watched, arrived };
        let tally = OutputTally {
            all: counts,
            subjects: vec![counts],
            ..OutputTally::default()
        };
        let found = Found {
            tally,
            ..Found::default()
        };
        let watched = RunConditions {
            seconds: 10.004,
            inject,
            device: "tap200i1".into(),
            mtu: Some(1500),
        };
        reasons(part, &found, &watched)
    }

    fn untested(text: &str) -> Reason {
        Reason::Untested(text.to_owned())
    }

    fn failed(text: &str) -> Reason {
        Reason::Failed(text.to_owned())
    }

    fn sendable() -> Way {
        Way::Device {
            device: "tap101i0".parse().unwrap(),
            mac: 1,
            vlan: None,
        }
    }

    #[test]
    fn a_silent_source_is_not_proven_and_what_helps_is_said() {
        let part_of = |way| part(1, way);
        assert_eq!(
            told(&part_of(sendable()), (0, 0), Inject::No),
            [untested(
                "no frame was seen to 101/net0 in 10 s: send some with --inject, or wait longer (--time)"
            )]
        );
        assert_eq!(
            told(&part_of(sendable()), (0, 0), Inject::Yes),
            [untested(
                "no frame was seen to 101/net0 in 10 s, nor any marked frame: wait longer (--time)"
            )]
        );
        assert_eq!(
            told(
                &part_of(super::super::capture_points::no_mac("101/net0")),
                (0, 0),
                Inject::Yes
            ),
            [untested(
                "no frame was seen to 101/net0 in 10 s: wait longer (--time); the MAC address of 101/net0 is not known, so \
                 nothing is injected"
            )]
        );
        assert_eq!(
            told(&part_of(sendable()), (1, 1), Inject::No),
            [] as [Reason; 0]
        );
    }

    #[test]
    fn of_a_sample_the_share_has_to_be_about_right() {
        let tenth = part(10, sendable());
        assert_eq!(told(&tenth, (1000, 100), Inject::No), [] as [Reason; 0]);
        assert_eq!(told(&tenth, (1000, 60), Inject::No), [] as [Reason; 0]);
        assert_eq!(
            told(&tenth, (1000, 10), Inject::No),
            [failed(
                "of 1000 frames one in 10 is mirrored, and 10 arrived, not about 100"
            )]
        );
        assert_eq!(
            told(&tenth, (1000, 1000), Inject::No),
            [failed(
                "of 1000 frames one in 10 is mirrored, and 1000 arrived, not about 100"
            )]
        );
        assert_eq!(
            told(&tenth, (1000, 0), Inject::No),
            [failed(
                "of 1000 frames one in 10 is mirrored, and 0 arrived, not about 100"
            )]
        );
        assert_eq!(
            told(&tenth, (9, 1), Inject::No),
            [untested(
                "of 9 frames one in 10 is mirrored, and 1 arrived: too few to tell, wait longer (--time)"
            )]
        );
    }

    #[test]
    fn of_a_sample_something_has_to_arrive_of_each_source_and_direction() {
        let mut half = part(2, sendable());
        let mut sending = half.subjects[0].clone();
        sending.passing = Passing::From;
        half.subjects.push(sending);
        let told = |arrived: [u64; 2]| {
            let counts = |arrived| Counts {
                watched: 500,
                arrived,
            };
            let all = Counts {
                watched: 1000,
                arrived: arrived[0] + arrived[1],
            };
            let found = Found {
                tally: OutputTally {
                    all,
                    subjects: arrived.map(counts).to_vec(),
                    ..OutputTally::default()
                },
                ..Found::default()
            };
            let watched = RunConditions {
                seconds: 10.0,
                inject: Inject::No,
                device: "tap200i1".into(),
                mtu: None,
            };
            reasons(&half, &found, &watched)
        };
        assert_eq!(told([250, 250]), [] as [Reason; 0]);
        assert_eq!(
            told([250, 0]),
            [failed(
                "of 500 frames from 101/net0 none arrived, where one in 2 is mirrored: wait longer (--time), and if that \
                 does not help, see pve-span status and pve-span plan"
            )]
        );
    }
}
