//! A plan in words: the dry run.

use std::fmt;

use super::{Action, Change, Plan};
use crate::model::printable;
use crate::state::{MirrorKey, MirrorOutput};

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MirrorKey {
            bridge,
            session,
            output,
        } = &self.mirror;
        match bridge {
            Some(bridge) => write!(f, "{bridge}")?,
            None => f.write_str("nft")?,
        }
        write!(f, " {session} → {}: {}", printable(output), self.change)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remove { why } => write!(f, "remove mirror ({why})"),
            Self::Create => f.write_str("create mirror"),
            Self::SetOutput {
                from: MirrorOutput::None,
                to,
            } => write!(f, "output {to}"),
            Self::SetOutput { from, to } => write!(f, "output {to} instead of {from}"),
            Self::SetAll { all: true } => f.write_str("everything on the bridge"),
            Self::SetAll { all: false } => f.write_str("no longer everything on the bridge"),
            Self::SetVlans { to } if to.is_empty() => f.write_str("every VLAN"),
            Self::SetVlans { to } => write!(f, "VLAN {to} only"),
            Self::SetSnaplen { to: Some(bytes) } => {
                write!(f, "the first {bytes} bytes of each frame")
            }
            Self::SetSnaplen { to: None } => f.write_str("whole frames"),
            Self::SetFrames { to } => f.write_str(to),
            Self::Renew => f.write_str("put in order"),
            Self::SetSource {
                port,
                nic,
                from,
                to,
            } => {
                let sign = match (from, to) {
                    (None, _) => "+",
                    (_, None) => "-",
                    _ => "~",
                };
                write!(f, "{sign} source ")?;
                match nic {
                    Some(nic) => write!(f, "{nic} ({port})")?,
                    None => write!(f, "{port}")?,
                }
                match (from, to) {
                    (Some(from), Some(to)) => write!(f, ", {to} instead of {from}"),
                    (None, Some(to)) => write!(f, ", {to}"),
                    _ => Ok(()),
                }
            }
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for action in &self.actions {
            writeln!(f, "{action}")?;
        }
        for change in &self.ports {
            writeln!(f, "{change}")?;
        }
        if let Some(tidy) = self.tidy {
            writeln!(f, "{tidy}")?;
        }
        for problem in &self.problems {
            writeln!(f, "{}: {}", problem.session, problem.text)?;
        }
        for remark in &self.remarks {
            writeln!(f, "{}: note: {}", remark.session, remark.text)?;
        }
        Ok(())
    }
}
