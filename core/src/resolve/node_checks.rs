//! What span.cfg names on this node and in the cluster, judged before it is in force: outputs that something else needs,
//! and ports by other names.

use super::availability::need_of_nic;
use super::outputs::Outputs;
use super::session::phase;
use super::{View, ports};
use crate::config::diagnostic::{Diagnostic, Place, Severity};
use crate::config::selector::Output;
use crate::config::{Annotations, At, Session};
use crate::model::IfName;
use crate::pve::cluster::Cluster;
use crate::state::port_map::PortMap;
use crate::state::{Assumptions, Desired, Observed, SessionPhase};

/// Looks at every session that is to run.
pub fn check(
    file: &str,
    annotations: &Annotations,
    (cluster, observed, desired): (&Cluster, &Observed, &Desired),
    assume: &Assumptions,
) -> Vec<Diagnostic> {
    let map = ports(annotations, observed, &assume.gone);
    let View { outputs, .. } = View::new(&map, annotations, observed, cluster, assume);
    let has_no_source = |session: &Session| {
        let mut states = desired.sessions.iter();
        states.any(|state| state.name == session.name && state.has_no_source)
    };
    let mut found = Vec::new();
    let sessions = annotations.sessions.values();
    let running = sessions.filter(|session| phase(session, assume) == SessionPhase::Running);
    for session in running {
        for output in &session.outputs {
            let mut refusal = refusal(file, session, output, &outputs);
            // The file is all nodes', and a port of that name may be free where the session has its sources.
            let is_port = matches!(output.value, Output::Port(_));
            if let Some(refusal) = refusal
                .as_mut()
                .filter(|_| is_port && has_no_source(session))
            {
                refusal.severity = Severity::Warning;
                refusal.message = format!("on this node, {}", refusal.message);
            }
            let is_refused = refusal.is_some();
            found.extend(refusal);
            if let (Output::Port(port), false) = (&output.value, is_refused) {
                let other = other_name(port, &map);
                found.extend(other.map(|message| warning(file, &output.place, message)));
            }
        }
        for source in &session.sources {
            let other = map.instead_of(&source.value);
            found.extend(other.map(|message| warning(file, &source.place, message)));
        }
    }
    found
}

/// An output that is not provably free.
fn refusal(
    file: &str,
    session: &Session,
    output: &At<Output>,
    outputs: &Outputs<'_>,
) -> Option<Diagnostic> {
    let need = match &output.value {
        Output::Nic(nic) => {
            let need = need_of_nic(outputs.cluster.guest(nic.vmid)?, *nic)?.err()?;
            (!need.is_confirmed_by(session, &output.value)).then_some(need)?
        }
        Output::Port(port) => outputs.standing_of_port(session, port)?.err()?,
        Output::Vlan(_) | Output::Vxlan(..) | Output::Gre(..) | Output::Erspan(..) => return None,
    };
    Some(Diagnostic {
        file: file.to_owned(),
        place: Some(output.place.clone()),
        severity: Severity::Error,
        message: format!("output {} is refused: {need}", output.value),
        hint: Some(need.remedy(&output.value)),
    })
}

/// A port that is there under another name.
fn other_name(port: &IfName, map: &PortMap) -> Option<String> {
    let is_there = map.ports.contains_key(port);
    map.other_name(port).filter(|_| !is_there)
}

fn warning(file: &str, place: &Place, message: String) -> Diagnostic {
    Diagnostic {
        file: file.to_owned(),
        place: Some(place.clone()),
        severity: Severity::Warning,
        message,
        hint: None,
    }
}
