//! `pve-span explain`: what becomes of a guest's frames, and what arrives at a sensor, in words and as a path.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;

use super::context::asked_context;
use super::format::{Format, notice};
use super::status::statistics;
use crate::config::active::InForce;
use crate::reconcile::Error;
use crate::reconcile::inputs::Detail;
use crate::reconcile::observe::{Look, look};
use crate::sys::clock::now;
use crate::sys::output;
use crate::sys::output::Printer;
use pve_span_core::config::Annotations;
use pve_span_core::explain::{
    Arrival, Guest, Hop, InForce as Force, Nic, NicState, OutputPath, Part, Subject, Unexplained,
    View, explain,
};
use pve_span_core::model::{SessionName, some};

#[derive(Serialize)]
struct Report<'a> {
    notice: Option<&'a str>,
    guests: &'a [Guest],
    errors: Vec<String>,
}

/// Exit codes: 0 told, 1 there is no such guest or NIC, 2 cannot tell.
///
/// # Errors
/// The kernel does not answer.
pub fn run(root: &Path, subjects: &[Subject], format: Format) -> Result<u8, Error> {
    let look = look(
        &asked_context(root, "explain"),
        Detail::All,
        &BTreeSet::new(),
    )?;
    notice(&look);
    let nobody = Annotations::default();
    let view = View {
        annotations: look.in_force.annotations().unwrap_or(&nobody),
        cluster: &look.cluster,
        observed: &look.observed,
        desired: &look.desired,
        plan: &look.plan,
        now: now(),
    };
    let mut exit = 0;
    if matches!(look.in_force, InForce::Unknown { .. }) {
        exit = 2;
    }
    let (mut guests, mut errors) = (Vec::new(), Vec::new());
    for told in explain(&view, subjects) {
        match told {
            Ok(guest) => guests.push(counted(guest, &look)),
            Err(why) => {
                exit = exit.max(match why {
                    Unexplained::NotThere(_) => 1,
                    Unexplained::Unknown(_) => 2,
                });
                errors.push(why.to_string());
            }
        }
    }
    let lacks_ovs = look.waits_for_ovs().is_some() || guests.iter().any(is_unplugged);
    if let Some(why) = look.observed.ovs.unanswered().filter(|_| lacks_ovs) {
        log::error!("cannot reach Open vSwitch, so what is on it is missing here: {why}");
        exit = 2;
    }
    if format == Format::Json {
        Printer::new().json(&Report {
            notice: look.in_force.notice(),
            guests: &guests,
            errors: errors.clone(),
        });
    } else {
        let mut page = Page {
            out: Printer::new(),
            look: &look,
            is_first: true,
        };
        guests.iter().for_each(|guest| page.guest(guest));
    }
    errors.iter().for_each(|error| log::error!("{error}"));
    Ok(exit)
}

fn is_unplugged(guest: &Guest) -> bool {
    let mut nics = guest.nics.iter();
    nics.any(|nic| matches!(nic.state, NicState::Unplugged(_)))
}

/// Adds what was counted.
fn counted(mut guest: Guest, look: &Look) -> Guest {
    let frames = |session: &SessionName, output: &str| {
        statistics(session, output, look).map(|counted| counted.frames)
    };
    for nic in &mut guest.nics {
        for part in &mut nic.sessions {
            for leg in part.outputs.iter_mut().filter(|leg| leg.fault.is_none()) {
                leg.frames = frames(&part.session, &leg.output);
            }
        }
        let spelled = nic.nic.to_string();
        for arrival in nic.arrivals.iter_mut().filter(|one| one.fault.is_none()) {
            arrival.frames = frames(&arrival.session, &spelled);
        }
    }
    guest
}

/// What is printed, block by block.
struct Page<'a> {
    out: Printer,
    look: &'a Look,
    is_first: bool,
}

impl Page<'_> {
    fn guest(&mut self, guest: &Guest) {
        self.blank();
        self.out.heading(&guest.to_string());
        guest.notes.iter().for_each(|note| self.out.note(note));
        for nic in &guest.nics {
            self.blank();
            self.nic(nic);
        }
    }

    fn blank(&mut self) {
        if !std::mem::take(&mut self.is_first) {
            self.out.line("");
        }
    }

    fn nic(&mut self, nic: &Nic) {
        let taken = |part: &&Part| part.taken == Some(true);
        let mut legs = nic
            .sessions
            .iter()
            .filter(taken)
            .flat_map(|part| &part.outputs);
        let is_shown = legs.any(|leg| leg.path.starts_with(&nic.path));
        if !is_shown || !nic.notes.is_empty() {
            self.out.line(&way(&nic.path));
        }
        nic.notes.iter().for_each(|note| self.out.note(note));
        nic.arrivals.iter().for_each(|one| self.arrival(nic, one));
        nic.sessions
            .iter()
            .filter(taken)
            .for_each(|part| self.taken(part));
        let mut others = nic.sessions.iter().filter(|part| !taken(part)).peekable();
        if others.peek().is_some() {
            self.out.line(&format!("{} is not taken by", nic.nic));
        }
        for part in others {
            self.out.note(&format!("{}: {}", part.session, part.why));
        }
        if nic.sessions.is_empty() {
            let why = match &self.look.in_force {
                InForce::Unknown { .. } => "which sessions take it cannot be told",
                _ => "no session takes it: there are none",
            };
            self.out.note(why);
        }
    }

    /// A session that takes the NIC, with all its outputs.
    fn taken(&mut self, part: &Part) {
        for (number, leg) in part.outputs.iter().enumerate() {
            self.out.line(&way(&leg.path));
            if number == 0 {
                self.out.note(&format!("taken {}", part.why));
            }
            self.leg(leg);
        }
    }

    fn leg(&mut self, leg: &OutputPath) {
        if let Some(fault) = &leg.fault {
            let text = format!("nothing of it gets to {}: {fault}", leg.output);
            self.out.note_as(&text, output::Look::Bad);
        }
        if let (Some(engine), Some(at)) = (leg.engine, &leg.at) {
            let why = leg.why.as_ref().map(|why| format!(": {why}"));
            let why = why.unwrap_or_default();
            self.out
                .note(&format!("engine {}{why}; {at}", engine.word()));
        }
        self.in_force(
            leg.in_force.as_ref(),
            leg.frames,
            ", of all the session's sources",
        );
    }

    fn arrival(&mut self, nic: &Nic, arrival: &Arrival) {
        let session = &arrival.session;
        if let (true, Some(Force::Unknown(why))) = (arrival.sources.is_empty(), &arrival.in_force) {
            let text = format!(
                "what arrives at {} from session {session} cannot be told: {why}",
                nic.nic
            );
            self.out.line(&text);
            return;
        }
        if let Some(fault) = &arrival.fault {
            let text = format!(
                "nothing arrives at {} from session {session}: {fault}",
                nic.nic
            );
            self.out.line(&text);
        } else {
            let sources = some(&arrival.sources);
            self.out
                .line(&format!("{sources} → {}", way(&arrival.path)));
        }
        let engine = arrival
            .engine
            .as_ref()
            .map(|engine| format!("engine {engine}"));
        engine.iter().for_each(|engine| self.out.note(engine));
        for lack in &arrival.lacks {
            let text = format!("does not arrive: {lack}");
            self.out.note_as(&text, output::Look::Bad);
        }
        self.in_force(arrival.in_force.as_ref(), arrival.frames, "");
        for note in &arrival.notes {
            self.out.note(&format!("note: {note}"));
        }
    }

    fn in_force(&mut self, in_force: Option<&Force>, frames: Option<u64>, whose: &str) {
        let Some(in_force) = in_force else { return };
        let look = match in_force {
            Force::Yes => output::Look::Good,
            _ => output::Look::Bad,
        };
        let frames = frames.map(|frames| {
            let s = if frames == 1 { "" } else { "s" };
            format!("; {frames} frame{s} so far{whose}")
        });
        let text = format!("{}{}", in_force.words(), frames.unwrap_or_default());
        self.out.note_as(&text, look);
    }
}

fn way(path: &[Hop]) -> String {
    let hops: Vec<String> = path.iter().map(Hop::to_string).collect();
    hops.join(" → ")
}
