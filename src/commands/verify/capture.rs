//! Watches the devices for a bounded time: one thread, one loop, bounded memory.
//!
//! Sensors' sockets are open before sources', so that no copy is missed of a frame that was seen. Only what is seen a moment
//! later, until the time is over, is judged; what comes before and after helps to judge it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::capture_log::Heard;
use super::probe::ProbeSender;
use crate::reconcile::Error;
use crate::sys::capture::{Capture, Next, Room};
use pve_span_core::engine::nft::Side;
use pve_span_core::model::IfName;
use pve_span_core::verify::capture_points::{DeviceSide, Group};
use pve_span_core::verify::identity::FrameHasher;
use pve_span_core::verify::tally::{Tally, Window, tally};

/// How long frames are seen before the first is judged.
const LEAD: Duration = Duration::from_millis(250);

/// How long copies may take, in two steps: as a rule, and where some are missing.
const GRACE: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(2)];

/// How many frames are remembered: some hundred megabytes.
const MOST: usize = 2 << 20;

/// What all sockets together may hold until it is looked at, and one of them.
const BUFFERS: usize = 512 << 20;
const BUFFER: usize = 64 << 20;

/// Frames taken from one socket before the next has its turn.
const TURN: usize = 256;

/// What a device's frames are watched for.
enum Role {
    /// What leaves for a group's sensor.
    Sensor(usize),
    /// One of a group's points.
    Point(usize, usize),
}

/// What came out.
pub struct Outcome {
    /// By group: what was seen, and what it comes to.
    pub groups: Vec<(Heard, Tally)>,
    /// For how long frames were judged.
    pub judged: Duration,
    /// Why it was watched for less long.
    pub early: Vec<String>,
    /// Why not all frames were seen, so that one that is missing says nothing.
    pub faults: Vec<String>,
}

impl Outcome {
    /// There was nothing to watch.
    pub fn nothing() -> Self {
        Self {
            groups: Vec::new(),
            judged: Duration::ZERO,
            early: Vec::new(),
            faults: Vec::new(),
        }
    }
}

/// Watches the groups.
///
/// # Errors
/// The sockets cannot be opened, or the kernel does not hand out what they see.
pub fn watch(
    groups: &[Group],
    time: Duration,
    injector: &mut ProbeSender,
    secret: u64,
) -> Result<Outcome, Error> {
    let signals = signals()?;
    let mut watch = Watch::open(groups, secret)?;
    watch.window.from = now() + nanos(LEAD);
    watch.window.until = watch.window.from + nanos(time);
    let begin = Instant::now() + LEAD;
    let end = begin + time;
    let mut ended = false;
    while !ended && (Instant::now() < end || injector.is_busy()) {
        let left = end.saturating_duration_since(Instant::now());
        let pause = injector
            .pause()
            .unwrap_or(left)
            .min(Duration::from_millis(50));
        ended = watch.turn(pause, Some(&signals))?;
        if Instant::now() >= begin {
            injector.next();
        }
        if watch.remembered > MOST {
            watch.early.extend(stopped_early(begin, watch.remembered));
            ended = true;
        }
    }
    if signals_arrived(&signals) {
        watch.early.push("it was interrupted".to_owned());
    }
    watch.window.until = now().max(watch.window.from);
    let judged = Instant::now().saturating_duration_since(begin);
    for grace in GRACE {
        watch.wait_for_copies(grace)?;
        if !watch.lacks() {
            break;
        }
    }
    watch.lost();
    Ok(watch.outcome(judged))
}

/// Enough is enough, and the time that was watched counts, if it is a second.
fn stopped_early(begin: Instant, remembered: usize) -> Option<String> {
    (begin.elapsed() < Duration::from_secs(1)).then(|| too_much(remembered))
}

fn too_much(remembered: usize) -> String {
    format!(
        "there is too much traffic: {remembered} frames came in no time, and no more are remembered; name one session, or watch at a quieter time"
    )
}

struct Watch<'a> {
    groups: &'a [Group],
    sockets: Vec<(Capture, Vec<(Side, Role)>)>,
    identities: Vec<FrameHasher>,
    heard: Vec<Heard>,
    window: Window,
    remembered: usize,
    /// From when the oldest frame is that waits in a socket, as far as can be told.
    behind: Option<u64>,
    room: Room,
    early: Vec<String>,
    faults: BTreeSet<String>,
}

impl<'a> Watch<'a> {
    fn open(groups: &'a [Group], secret: u64) -> Result<Self, Error> {
        let mut roles: BTreeMap<&IfName, Vec<(Side, Role)>> = BTreeMap::new();
        let mut order: Vec<&IfName> = Vec::new();
        let mut add = |spot: &'a DeviceSide, role: Role| {
            if !order.contains(&&spot.device) {
                order.push(&spot.device);
            }
            roles
                .entry(&spot.device)
                .or_default()
                .push((spot.side, role));
        };
        for (number, group) in groups.iter().enumerate() {
            add(&group.sensor.spot, Role::Sensor(number));
        }
        for (number, group) in groups.iter().enumerate() {
            for (at, point) in group.points.iter().enumerate() {
                add(&point.spot, Role::Point(number, at));
            }
        }
        let buffer = (BUFFERS / order.len().max(1)).min(BUFFER);
        let mut sockets = Vec::new();
        for device in order {
            let socket = Capture::open(device, buffer).map_err(Error::Capture)?;
            sockets.push((socket, roles.remove(device).unwrap_or_default()));
        }
        let identities = |group: &Group| FrameHasher {
            secret,
            snaplen: group.sensor.snaplen.map(usize::from),
        };
        Ok(Self {
            groups,
            sockets,
            identities: groups.iter().map(identities).collect(),
            heard: groups.iter().map(Heard::of).collect(),
            window: Window { from: 0, until: 0 },
            remembered: 0,
            behind: None,
            room: Room::new(),
            early: Vec::new(),
            faults: BTreeSet::new(),
        })
    }

    /// Waits for frames and takes them; says whether a signal has come.
    fn turn(&mut self, pause: Duration, signals: Option<&SignalFd>) -> Result<bool, Error> {
        let sockets = self.sockets.iter().map(|(socket, _)| socket.as_fd());
        let fds = sockets.chain(signals.map(AsFd::as_fd));
        let mut fds: Vec<PollFd<'_>> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let timeout = PollTimeout::try_from(pause).unwrap_or(PollTimeout::ZERO);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::Watch(errno.into())),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
        for (at, _) in ready.iter().enumerate().filter(|(_, ready)| **ready) {
            self.drain(at)?;
        }
        Ok(signals.is_some() && ready.last() == Some(&true))
    }

    fn drain(&mut self, at: usize) -> Result<(), Error> {
        let Some((socket, roles)) = self.sockets.get(at) else {
            return Ok(());
        };
        let mut last = 0;
        for _ in 0..TURN {
            let frame = match socket.next(&mut self.room).map_err(Error::Capture)? {
                Next::Frame(frame) => frame,
                Next::Empty => return Ok(()),
                Next::Odd => {
                    self.faults.insert(format!(
                        "{} hands out frames of a kind that cannot be looked at",
                        socket.device()
                    ));
                    continue;
                }
                Next::Down => {
                    let device = socket.device();
                    self.faults
                        .insert(format!("{device} went down or away meanwhile"));
                    return Ok(());
                }
            };
            last = frame.time;
            if self.remembered > 2 * MOST {
                // A guest decides how small the segments of its pieces are: one may be tens of thousands.
                self.faults.insert(too_much(self.remembered));
                return Ok(());
            }
            for (_, role) in roles.iter().filter(|(side, _)| *side == frame.side) {
                let (Role::Sensor(group) | Role::Point(group, _)) = role;
                let (Some(shape), Some(heard), Some(identities)) = (
                    self.groups.get(*group),
                    self.heard.get_mut(*group),
                    self.identities.get(*group),
                ) else {
                    continue;
                };
                self.remembered += match role {
                    Role::Sensor(_) => heard.arrival(shape, &frame, *identities, self.window),
                    Role::Point(_, at) => heard.event(shape, *at, &frame, *identities, self.window),
                };
            }
        }
        // There is more.
        self.behind = Some(self.behind.map_or(last, |time| time.min(last)));
        Ok(())
    }

    /// Takes what arrives within a time after the window, and what has waited in the sockets for longer.
    fn wait_for_copies(&mut self, grace: Duration) -> Result<(), Error> {
        let end = Instant::now() + grace;
        let last = self.window.until + nanos(grace);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            self.behind = None;
            self.turn(left, None)?;
            let is_behind = self.behind.is_some_and(|time| time < last);
            if Instant::now() >= end && !is_behind {
                return Ok(());
            }
            if self.remembered > 2 * MOST {
                self.faults.insert(too_much(self.remembered));
                return Ok(());
            }
        }
    }

    /// Is anything missing yet?
    fn lacks(&mut self) -> bool {
        let window = self.window;
        let lacks = |(group, heard): (&Group, &mut Heard)| {
            let tally = tally(group, &mut heard.events, &mut heard.arrivals, window);
            let mut parts = tally.parts.iter().zip(&group.parts);
            parts.any(|(tally, part)| part.sample == 1 && tally.all.arrived < tally.all.watched)
        };
        self.groups.iter().zip(&mut self.heard).any(lacks)
    }

    /// What the sockets had no room for.
    fn lost(&mut self) {
        let lost: u64 = self
            .sockets
            .iter()
            .map(|(socket, _)| u64::from(socket.lost()))
            .sum();
        if lost > 0 {
            self.faults.insert(format!(
                "the capture lost {lost} frames: there is too much traffic to look at all of it; name one session, or watch at a quieter time"
            ));
        }
    }

    fn outcome(self, judged: Duration) -> Outcome {
        let (groups, window) = (self.groups, self.window);
        let tallied = self
            .heard
            .into_iter()
            .zip(groups)
            .map(|(mut heard, group)| {
                let mut events = std::mem::take(&mut heard.events);
                let mut arrivals = std::mem::take(&mut heard.arrivals);
                let tally = tally(group, &mut events, &mut arrivals, window);
                (heard, tally)
            });
        Outcome {
            groups: tallied.collect(),
            judged,
            early: self.early,
            faults: self.faults.into_iter().collect(),
        }
    }
}

fn signals() -> Result<SignalFd, Error> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGINT);
    mask.add(Signal::SIGTERM);
    let failed = |errno: Errno| Error::Watch(errno.into());
    mask.thread_block().map_err(failed)?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map_err(failed)
}

fn signals_arrived(signals: &SignalFd) -> bool {
    matches!(signals.read_signal(), Ok(Some(_)))
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, nanos)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
