//! How fast frames are copied right now: nftables' counters, looked at twice. Open vSwitch tells new figures every few
//! seconds only (`stats-update-interval`, ovs-vswitchd.conf.db(5)), which is too long to wait for.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::engine::nft;
use crate::reconcile::observe::Look;
use pve_span_core::engine::Statistics;
use pve_span_core::engine::nft::{NftState, names};
use pve_span_core::model::OutputKey;
use pve_span_core::model::SessionName;

/// How fast frames are copied.
#[derive(Clone, Copy, Serialize)]
pub struct Rate {
    frames_per_second: f64,
    bits_per_second: f64,
}

/// How long frames are counted for a rate.
const MOMENT: Duration = Duration::from_millis(250);

/// What has been counted for how long.
pub struct Measured {
    before: BTreeMap<String, Statistics>,
    after: BTreeMap<String, Statistics>,
    time: Duration,
}

impl Measured {
    /// Counts for a moment, where there is anything to count.
    pub fn take(look: &Look) -> Option<Self> {
        let NftState::Present(seen) = &look.observed.nft else {
            return None;
        };
        if seen.counters.is_empty() {
            return None;
        }
        let (began, before) = (Instant::now(), nft::read::counters());
        std::thread::sleep(MOMENT);
        Some(Self {
            before,
            time: began.elapsed(),
            after: nft::read::counters(),
        })
    }

    #[allow(clippy::cast_precision_loss)]
    /// The rate of one output of a session.
    pub fn rate(&self, session: &SessionName, output: &str) -> Option<Rate> {
        let key = OutputKey::new(session, output);
        let counter = names::counter(&key);
        let (before, after) = (self.before.get(&counter)?, self.after.get(&counter)?);
        let seconds = self.time.as_secs_f64();
        let per_second = |before: u64, after: u64| after.saturating_sub(before) as f64 / seconds;
        Some(Rate {
            frames_per_second: per_second(before.frames, after.frames).round(),
            bits_per_second: (per_second(before.bytes, after.bytes) * 8.0).round(),
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (frames, bits) = (short(self.frames_per_second), short(self.bits_per_second));
        write!(f, "{}/s {bits}bit/s", frames.trim_end())
    }
}

/// `1.2 k`, `34 M`: two digits say enough of a rate.
fn short(number: f64) -> String {
    let (number, unit) = match number {
        n if n >= 1e9 => (n / 1e9, " G"),
        n if n >= 1e6 => (n / 1e6, " M"),
        n if n >= 1e3 => (n / 1e3, " k"),
        n => return format!("{n:.0} "),
    };
    if number < 10.0 {
        format!("{number:.1}{unit}")
    } else {
        format!("{number:.0}{unit}")
    }
}
