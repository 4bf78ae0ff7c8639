//! Durations in words.

use std::time::Duration;

/// `850 ms`, `12 s`, `3 min`, `2 h`: as exact as anybody wants to read it.
pub fn duration(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        seconds @ 1..=119 => format!("{seconds} s"),
        seconds @ 120..=7199 => format!("{} min", seconds / 60),
        seconds @ 7200..=172_799 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_told_in_one_unit() {
        let told = [0, 1, 119, 120, 7199, 7200, 172_800].map(|s| duration(Duration::from_secs(s)));
        assert_eq!(
            told,
            ["0 ms", "1 s", "119 s", "2 min", "119 min", "2 h", "2 days"]
        );
    }
}
