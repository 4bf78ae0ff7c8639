//! `pve-span verify`: proof that sessions mirror, by the frames themselves.
//!
//! Look, watch, look again: what was seen counts only for what was there all the time. Nothing on the node is changed; with
//! `--inject`, frames are sent.

mod capture;
mod capture_log;
mod probe;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::time::Duration;

use super::context::{anew, asked_context};
use super::format::{Format, notice};
use crate::cli::VerifyArgs;
use crate::config::active::InForce;
use crate::reconcile::Error;
use crate::reconcile::inputs::Detail;
use crate::reconcile::observe::{Look, look};
use capture::Outcome;
use probe::ProbeSender;
use pve_span_core::config::diagnostic::did_you_mean;
use pve_span_core::health::{Health, ReasonId, faults, health};
use pve_span_core::model::{NicId, SessionName, printable};
use pve_span_core::state::{Desired, NO_SOURCE, SessionPhase, SessionState};
use pve_span_core::verify::capture_points::CapturePlan;
use pve_span_core::verify::verdict::{Found, Inject, Reason, RunConditions, Verdict, reasons};
use report::{OutputReport, SessionReport};

/// Exit codes: 0 no session has failed, 1 one has, 2 cannot tell. With `--strict`, untested is failed.
///
/// # Errors
/// Nothing can be told, or there is no such session.
pub fn run(root: &Path, args: &VerifyArgs) -> Result<u8, Error> {
    let context = asked_context(root, "verify");
    let before = look(&context, Detail::All, &BTreeSet::new())?;
    if let InForce::Unknown { why, .. } = &before.in_force {
        return Err(Error::NotInForce(why.clone()));
    }
    notice(&before);
    let asked = asked(&before, &args.sessions)?;
    let is_waiting = |state: &&SessionState| before.desired.waiting.contains(&state.name);
    let silent = before.waits_for_ovs();
    if let Some(why) = silent.filter(|_| asked.iter().all(is_waiting)) {
        return Err(Error::Ovs(why.to_owned()));
    }
    let chosen: Vec<&SessionState> = asked
        .iter()
        .copied()
        .filter(|state| state.phase == SessionPhase::Running)
        .collect();
    let mac = |nic: NicId| {
        let guest = before.cluster.guest(nic.vmid)?;
        guest.nics.get(&nic.index)?.mac_number()
    };
    let nobody = BTreeMap::new();
    let annotations = before.in_force.annotations();
    let sessions = annotations.map_or(&nobody, |annotations| &annotations.sessions);
    let watching = CapturePlan::of(sessions, &before.desired, &before.observed, &mac, &chosen);
    // Keyed by the operating system's random numbers.
    let secret = RandomState::new().hash_one("pve-span verify");
    let mut injector = if args.inject {
        let is_asked = |name: &SessionName| chosen.iter().any(|state| state.name == *name);
        ProbeSender::of(&watching.groups, secret.rotate_left(32), is_asked)
    } else {
        ProbeSender::default()
    };
    let time = Duration::from_secs(args.time.into());
    let outcome = if watching.groups.is_empty() {
        Outcome::nothing()
    } else {
        log::info!("watching for {} s", args.time);
        capture::watch(&watching.groups, time, &mut injector, secret)?
    };
    let after = look(&anew(context), Detail::All, &BTreeSet::new())?;
    let verify = Verify {
        before: &before,
        after: &after,
        watching: &watching,
        outcome: &outcome,
        injector: &injector,
        inject: if args.inject { Inject::Yes } else { Inject::No },
        by_name: !args.sessions.is_empty(),
    };
    let sessions: Vec<SessionReport> = asked.iter().map(|state| verify.session(state)).collect();
    let json = Format::from(args.json);
    report::tell(&sessions, &outcome, &before.in_force, json);
    let counted = sessions.iter().filter(|session| !session.skipped);
    // Where there is nothing to test, nothing was tested.
    let worst = counted.map(|session| session.verdict).max();
    Ok(match worst.unwrap_or(Verdict::Untested) {
        Verdict::Proven => 0,
        Verdict::Untested if args.strict => 1,
        Verdict::Untested => {
            log::warn!("not everything was tested; that is no failure (--strict makes it one)");
            0
        }
        Verdict::Failed => 1,
    })
}

/// The sessions that are asked for, all of them by default.
fn asked<'a>(look: &'a Look, names: &[String]) -> Result<Vec<&'a SessionState>, Error> {
    let states = &look.desired.sessions;
    for name in names {
        if !states.iter().any(|state| state.name.as_str() == name) {
            let known = states.iter().map(|state| state.name.as_str());
            return Err(Error::NoSession {
                name: printable(name),
                hint: did_you_mean(name, known),
            });
        }
    }
    let is_asked = |state: &&SessionState| {
        names.is_empty() || names.iter().any(|name| state.name.as_str() == name)
    };
    Ok(states.iter().filter(is_asked).collect())
}

struct Verify<'a> {
    before: &'a Look,
    after: &'a Look,
    watching: &'a CapturePlan,
    outcome: &'a Outcome,
    injector: &'a ProbeSender,
    inject: Inject,
    by_name: bool,
}

impl Verify<'_> {
    fn session(&self, state: &SessionState) -> SessionReport {
        let (outputs, found): (Vec<OutputReport>, Vec<Vec<Reason>>) =
            self.outputs(&state.name).into_iter().unzip();
        let told = |reasons: &[Reason], skipped, outputs| SessionReport {
            name: state.name.clone(),
            verdict: Verdict::of(reasons),
            skipped,
            reasons: reasons
                .iter()
                .map(|reason| reason.text().to_owned())
                .collect(),
            outputs,
        };
        let is_idle = state.present.is_empty() && state.unplugged.is_empty();
        let idle = || match state.unknown.first() {
            Some(unknown) => unknown.clone(),
            None => NO_SOURCE.to_owned(),
        };
        if let Some(why) = state
            .phase
            .over()
            .map(str::to_owned)
            .or_else(|| is_idle.then(idle))
        {
            let why = Reason::Untested(why);
            return told(&[why], !self.by_name, outputs);
        }
        let mut reasons = self.not_in_force(state);
        let changed = self.has_changed(state);
        let blind = self.watching.blind.get(&state.name);
        let blind = blind.into_iter().flatten().cloned();
        reasons.extend(blind.chain(changed.clone()).map(Reason::Untested));
        let is_all_seen = self.outcome.faults.is_empty() && changed.is_none();
        let found = found.into_iter().flatten();
        reasons.extend(found.map(|reason| {
            if is_all_seen {
                reason
            } else {
                reason.doubted()
            }
        }));
        if outputs.is_empty() && reasons.is_empty() {
            let nothing = "nothing of it can be watched here".to_owned();
            reasons.push(Reason::Untested(nothing));
        }
        if !outputs.is_empty() {
            let flaws = self.outcome.early.iter().chain(&self.outcome.faults);
            reasons.extend(flaws.cloned().map(Reason::Untested));
        }
        let mut seen = BTreeSet::new();
        reasons.retain(|reason| seen.insert(reason.clone()));
        told(&reasons, false, outputs)
    }

    /// What is wrong already without a look at frames.
    fn not_in_force(&self, state: &SessionState) -> Vec<Reason> {
        let mut told: Vec<(ReasonId, bool)> = Vec::new();
        let mut reasons = Vec::new();
        for look in [self.before, self.after] {
            let mut sessions = look.desired.sessions.iter();
            let Some(found) = sessions.find(|now| now.name == state.name) else {
                continue;
            };
            let (health, mut why) = health(found, &look.desired, &look.observed, &look.plan);
            if health == Health::Degraded {
                why.extend(faults(found));
            }
            let waits = look.desired.waiting.contains(&found.name);
            for reason in why.drain(..) {
                let is_certain = !waits && reason.is_certain();
                let key = (reason.id, is_certain);
                if told.contains(&key) {
                    continue;
                }
                reasons.push(if is_certain {
                    Reason::Failed(reason.text)
                } else {
                    Reason::Untested(reason.text)
                });
                told.push(key);
            }
        }
        reasons
    }

    /// Was the session another one at the end?
    fn has_changed(&self, state: &SessionState) -> Option<String> {
        let same = of_session(&self.before.desired, &state.name)
            == of_session(&self.after.desired, &state.name)
            && self.devices(self.before) == self.devices(self.after);
        (!same).then(|| {
            "its sources, its output or its lines in span.cfg changed while it was watched: verify it again"
                .to_owned()
        })
    }

    /// The interface indexes of all that was watched.
    fn devices(&self, look: &Look) -> BTreeMap<String, Option<u32>> {
        let spots = self.watching.groups.iter().flat_map(|group| {
            let points = group.points.iter().map(|point| &point.spot);
            points.chain([&group.sensor.spot])
        });
        spots
            .map(|spot| {
                let link = look.observed.links.get(&spot.device);
                (spot.device.to_string(), link.map(|link| link.index))
            })
            .collect()
    }

    /// What was found of each of its outputs, and why that proves nothing.
    fn outputs(&self, session: &SessionName) -> Vec<(OutputReport, Vec<Reason>)> {
        let mut outputs = Vec::new();
        let groups = self.watching.groups.iter().zip(&self.outcome.groups);
        for (number, (group, (heard, tally))) in groups.enumerate() {
            for (place, part) in group.parts.iter().enumerate() {
                if part.key.session != *session {
                    continue;
                }
                let found = Found {
                    tally: tally.parts.get(place).cloned().unwrap_or_default(),
                    elsewhere: heard.elsewhere.get(place).cloned().unwrap_or_default(),
                    foreign: tally.foreign,
                    oversize: heard.oversize,
                    bad_checksum: heard.bad_checksum,
                };
                let watched = RunConditions {
                    seconds: self.outcome.judged.as_secs_f64(),
                    inject: self.inject,
                    device: group.sensor.spot.device.to_string(),
                    mtu: heard.mtu,
                };
                let mut unproven = reasons(part, &found, &watched);
                let mut report = OutputReport::of(group, part, &found);
                for (at, source) in report.sources.iter_mut().enumerate() {
                    let key = (number, place, at);
                    source.injected = self.injector.sent.get(&key).copied().unwrap_or(0);
                    source.not_injected = self.injector.refused.get(&key).cloned();
                    if let (Some(why), 0, true) = (
                        &source.not_injected,
                        source.watched,
                        part.subjects[at].can_be_sent_to(),
                    ) {
                        let told = format!("nothing was injected to {}: {why}", source.source);
                        unproven.push(Reason::Untested(told));
                    }
                }
                report
                    .sources
                    .sort_by_key(|source| (source.source.len(), source.source.clone()));
                outputs.push((report, unproven));
            }
        }
        outputs
    }
}

/// What a session comes to, for comparing.
fn of_session<'a>(desired: &'a Desired, name: &SessionName) -> impl PartialEq + use<'a> {
    let mirrors = desired.mirrors.iter();
    let mirrors = mirrors.filter(|(key, _)| key.of.session == *name);
    let copies = desired.copies.iter();
    let copies = copies.filter(|(key, _)| key.session == *name);
    let mut states = desired.sessions.iter();
    let state = states.find(|state| state.name == *name);
    let (mirrors, copies): (Vec<_>, Vec<_>) = (mirrors.collect(), copies.collect());
    (mirrors, copies, state)
}
