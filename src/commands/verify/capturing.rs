//! Watches the devices for a bounded time: one thread, one loop, bounded memory.
//!
//! Sensors' sockets are open before sources', so that no copy is missed of a frame that was seen. Only what is seen a moment
//! later, until the time is over, is judged; what comes before and after helps to judge it.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::inject::Injector;
use crate::apply::Error;
use crate::core::annotations::Switch;
use crate::core::model::IfName;
use crate::core::nft::Side;
use crate::core::verify::identity::Identities;
use crate::core::verify::tally::{Arrival, Event, Tally, Window, tally};
use crate::core::verify::watching::{Expect, Group, Spot};
use crate::core::verify::{checksum, frame_length, outer_vlan};
use crate::linux::capture::{Capture, Frame, Next, Room, mtu};

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

/// What was seen of a group.
#[derive(Default)]
pub struct Heard {
    events: Vec<Event>,
    arrivals: Vec<Arrival>,
    /// By part and subject: frames that are copied where another source sends them.
    pub elsewhere: Vec<Vec<u64>>,
    /// Frames at the sensor that are too long.
    pub oversize: u64,
    /// Frames at the sensor with a bad checksum.
    pub bad_checksum: u64,
    /// The MTU of the sensor's device.
    pub mtu: Option<usize>,
}

/// What came out.
pub struct Outcome {
    /// By group: what was seen, and what it comes to.
    pub groups: Vec<(Heard, Tally)>,
    /// For how long frames were judged.
    pub judged: Duration,
    /// Why nothing is proven, whatever was seen.
    pub faults: Vec<String>,
}

impl Outcome {
    /// There was nothing to watch.
    pub fn nothing() -> Self {
        Self {
            groups: Vec::new(),
            judged: Duration::ZERO,
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
    injector: &mut Injector,
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
            watch.faults.extend(stopped_early(begin));
            ended = true;
        }
    }
    if signals_arrived(&signals) {
        watch.faults.push("it was interrupted".to_owned());
    }
    watch.window.until = now().max(watch.window.from);
    let judged = Instant::now().saturating_duration_since(begin);
    for grace in GRACE {
        let until = Instant::now() + grace;
        while Instant::now() < until && watch.remembered < 2 * MOST {
            let left = until.saturating_duration_since(Instant::now());
            watch.turn(left, None)?;
        }
        if !watch.lacks() {
            break;
        }
    }
    watch.lost();
    Ok(watch.outcome(judged))
}

/// Enough is enough, and the time that was watched counts.
fn stopped_early(begin: Instant) -> Option<String> {
    let seconds = begin.elapsed().as_secs_f64();
    (seconds < 1.0).then(|| {
        format!(
            "there is too much traffic: {MOST} frames, as many as are remembered, came within {seconds:.1} s; name one session"
        )
    })
}

struct Watch<'a> {
    groups: &'a [Group],
    sockets: Vec<(Capture, Vec<(Side, Role)>)>,
    identities: Vec<Identities>,
    heard: Vec<Heard>,
    window: Window,
    remembered: usize,
    room: Room,
    faults: Vec<String>,
}

impl<'a> Watch<'a> {
    fn open(groups: &'a [Group], secret: u64) -> Result<Self, Error> {
        let mut roles: BTreeMap<&IfName, Vec<(Side, Role)>> = BTreeMap::new();
        let mut order: Vec<&IfName> = Vec::new();
        let mut add = |spot: &'a Spot, role: Role| {
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
        let heard = |group: &Group| Heard {
            elsewhere: group
                .parts
                .iter()
                .map(|part| vec![0; part.subjects.len()])
                .collect(),
            mtu: mtu(&group.sensor.spot.device),
            ..Heard::default()
        };
        let identities = |group: &Group| Identities {
            secret,
            snaplen: group.sensor.snaplen.map(usize::from),
        };
        Ok(Self {
            groups,
            sockets,
            identities: groups.iter().map(identities).collect(),
            heard: groups.iter().map(heard).collect(),
            window: Window { from: 0, until: 0 },
            remembered: 0,
            room: Room::new(),
            faults: Vec::new(),
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
        for _ in 0..TURN {
            let frame = match socket.next(&mut self.room).map_err(Error::Capture)? {
                Next::Frame(frame) => frame,
                Next::Empty => return Ok(()),
                Next::Odd => {
                    let fault = format!(
                        "{} hands out frames of a kind that cannot be looked at",
                        socket.device()
                    );
                    if !self.faults.contains(&fault) {
                        self.faults.push(fault);
                    }
                    continue;
                }
                Next::Down => {
                    let fault = format!("{} went down or away meanwhile", socket.device());
                    if !self.faults.contains(&fault) {
                        self.faults.push(fault);
                    }
                    return Ok(());
                }
            };
            for (side, role) in roles.iter().filter(|(side, _)| *side == frame.side) {
                debug_assert_eq!(*side, frame.side);
                self.remembered += match role {
                    Role::Sensor(group) => {
                        let (Some(shape), Some(heard), Some(identities)) = (
                            self.groups.get(*group),
                            self.heard.get_mut(*group),
                            self.identities.get(*group),
                        ) else {
                            continue;
                        };
                        heard.arrival(shape, &frame, *identities, self.window)
                    }
                    Role::Point(group, point) => {
                        let (Some(shape), Some(heard), Some(identities)) = (
                            self.groups.get(*group),
                            self.heard.get_mut(*group),
                            self.identities.get(*group),
                        ) else {
                            continue;
                        };
                        heard.event(shape, *point, &frame, *identities, self.window)
                    }
                };
            }
        }
        Ok(())
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
            self.faults.push(format!(
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
            faults: self.faults,
        }
    }
}

impl Heard {
    /// A frame that leaves for the sensor; how much there is to remember.
    fn arrival(
        &mut self,
        group: &Group,
        frame: &Frame<'_>,
        identities: Identities,
        window: Window,
    ) -> usize {
        let before = self.arrivals.len();
        if group
            .sensor
            .vlan
            .is_some_and(|vlan| outer_vlan(frame.bytes) != vlan)
        {
            return 0;
        }
        if group.sensor.wire == Switch::Yes && window.has(frame.time) {
            let length = frame_length(frame.bytes);
            self.oversize += u64::from(self.mtu.is_some_and(|mtu| length > mtu));
            let is_cut = group.sensor.snaplen.is_some();
            self.bad_checksum += u64::from(!is_cut && checksum::is_bad(frame.bytes));
        }
        let time = frame.time;
        identities.units(frame.bytes, frame.segments, |unit| {
            self.arrivals.push(Arrival {
                identity: unit.identity,
                time,
                stream: unit.stream,
            });
        });
        self.arrivals.len() - before
    }

    /// A frame at a source.
    fn event(
        &mut self,
        group: &Group,
        at: usize,
        frame: &Frame<'_>,
        identities: Identities,
        window: Window,
    ) -> usize {
        let before = self.events.len();
        let Some(point) = group.points.get(at) else {
            return 0;
        };
        match point.takes.expects(frame.bytes) {
            Expect::Nothing => {}
            Expect::Elsewhere => {
                let part = self.elsewhere.get_mut(point.part);
                let count = part.and_then(|part| part.get_mut(point.subject));
                if let Some(count) = count.filter(|_| window.has(frame.time)) {
                    *count += 1;
                }
            }
            Expect::Copy => {
                let (time, point) = (frame.time, u32::try_from(at).unwrap_or(u32::MAX));
                identities.units(frame.bytes, frame.segments, |unit| {
                    self.events.push(Event {
                        identity: unit.identity,
                        time,
                        point,
                        stream: unit.stream,
                    });
                });
            }
        }
        self.events.len() - before
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
