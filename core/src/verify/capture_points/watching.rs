//! All that has to be watched for sessions, whichever engine serves them.

use std::collections::BTreeMap;

use super::{CapturePlan, Node, Part};
use crate::config::Session;
use crate::model::{NicId, SessionName};
use crate::state::port_map::PortMap;
use crate::state::{Desired, Observed, SessionState};

impl CapturePlan {
    /// What has to be watched for these sessions, and for all that share an output with them.
    pub fn of(
        sessions: &BTreeMap<SessionName, Session>,
        desired: &Desired,
        observed: &Observed,
        mac: &dyn Fn(NicId) -> Option<u64>,
        asked: &[&SessionState],
    ) -> Self {
        let node = Node {
            sessions,
            desired,
            observed,
            map: PortMap::new(observed),
            mac,
        };
        let mut watching = Self::default();
        for (key, wanted) in &desired.mirrors {
            if let Some(bridge) = key.engine.bridge() {
                node.mirror(&key.of, bridge, &wanted.config, &mut watching);
            }
        }
        for (key, copies) in &desired.copies {
            node.copies(key, copies, &mut watching);
        }
        let is_asked = |part: &Part| asked.iter().any(|state| state.name == part.key.session);
        watching
            .groups
            .retain(|group| group.parts.iter().any(is_asked));
        watching
    }
}
