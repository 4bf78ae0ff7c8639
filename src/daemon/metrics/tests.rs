use super::super::state::Totals;
use super::*;

fn session(health: Health, outputs: &[(&str, OutputRecord)]) -> SessionRecord {
    SessionRecord {
        health,
        since: 1_800_000_000,
        reasons: Vec::new(),
        ids: Vec::new(),
        present: 2,
        configured: 3,
        blind: 12.5,
        outputs: outputs
            .iter()
            .map(|(name, output)| ((*name).to_owned(), output.clone()))
            .collect(),
    }
}

fn counted(frames: u64, device: &str, dropped: u64) -> OutputRecord {
    OutputRecord {
        frames: Some(frames),
        bytes: Some(frames * 100),
        device: Some(device.into()),
        dropped: Some(dropped),
    }
}

fn state(sessions: &[(&str, SessionRecord)]) -> State {
    State {
        version: "1.2.3".into(),
        pid: 4711,
        started: 1_800_000_000,
        written: 1_800_000_100,
        notice: None,
        sessions: sessions
            .iter()
            .map(|(name, session)| ((*name).to_owned(), session.clone()))
            .collect(),
        totals: Totals {
            reconciles: 40,
            failures: 2,
            last_reconcile: Some(1_800_000_090),
            last_change: Some(1_800_000_050),
        },
    }
}

/// The samples of one metric.
fn samples(state: &State, metric: &str) -> Vec<String> {
    let lines = text(state);
    let of = |line: &&str| {
        let rest = line.strip_prefix(metric);
        rest.is_some_and(|rest| rest.starts_with([' ', '{']))
    };
    lines.lines().filter(of).map(str::to_owned).collect()
}

#[test]
fn the_whole_text() {
    let state = state(&[
        (
            "audit",
            session(
                Health::Degraded,
                &[
                    ("200/net1", counted(7, "tap200i1", 3)),
                    ("201/net1", OutputRecord::default()),
                ],
            ),
        ),
        (
            "dmz-ids",
            session(Health::Active, &[("200/net1", counted(5, "tap200i1", 3))]),
        ),
    ]);
    assert_eq!(text(&state), include_str!("whole.prom"));
}

#[test]
fn what_is_not_known_is_not_told() {
    let mut bare = State {
        version: "1.2.3".into(),
        ..State::default()
    };
    let told = text(&bare);
    assert!(!told.contains("timestamp"), "{told}");
    assert!(!told.contains("mirrored"), "{told}");
    assert!(!told.contains("pve_span_session_"), "{told}");
    let states: Vec<_> = Health::ALL
        .map(|health| format!("pve_span_sessions{{state=\"{}\"}} 0", health.word()))
        .into();
    assert_eq!(samples(&bare, "pve_span_sessions"), states);
    bare = state(&[("dmz", session(Health::Idle, &[]))]);
    let record = bare.sessions.values_mut().next().unwrap();
    record.blind = f64::NAN;
    assert_eq!(
        samples(&bare, "pve_span_session_blind_seconds_total"),
        Vec::<String>::new()
    );
}

#[test]
fn a_device_of_two_sessions_is_counted_once_and_the_later_count_is_the_higher() {
    let state = state(&[
        (
            "a",
            session(Health::Active, &[("200/net1", counted(1, "tap200i1", 10))]),
        ),
        (
            "b",
            session(Health::Active, &[("200/net1", counted(1, "tap200i1", 12))]),
        ),
    ]);
    assert_eq!(
        samples(&state, "pve_span_output_dropped_frames_total"),
        ["pve_span_output_dropped_frames_total{device=\"tap200i1\"} 12"]
    );
    assert_eq!(samples(&state, "pve_span_output_info").len(), 2);
}

#[test]
fn a_notice_says_that_the_file_is_not_in_force() {
    let mut state = state(&[]);
    let mut told = |notice: Option<&str>| {
        state.notice = notice.map(str::to_owned);
        samples(&state, "pve_span_config_in_force")
    };
    assert_eq!(told(None), ["pve_span_config_in_force 1"]);
    assert_eq!(told(Some("why")), ["pve_span_config_in_force 0"]);
}

#[test]
fn a_hostile_name_stays_a_label() {
    let sources = |name: &str| {
        let state = state(&[(name, session(Health::Active, &[]))]);
        assert!(!text(&state).lines().any(|line| line.starts_with("evil")));
        samples(&state, "pve_span_session_sources")
    };
    assert_eq!(
        sources("a\"} 1\nevil{x=\"é"),
        [r#"pve_span_session_sources{session="a\"} 1\nevil{x=\"é"} 2"#]
    );
    assert_eq!(
        sources(r"a\n"),
        [r#"pve_span_session_sources{session="a\\n"} 2"#]
    );
}

#[test]
fn a_stopped_service_says_only_that() {
    assert_eq!(
        stopped(),
        "# HELP pve_span_up Whether the service runs (1), or was stopped (0).\n\
         # TYPE pve_span_up gauge\n\
         pve_span_up 0\n"
    );
}
