//! How each benchmark is started.

use std::process::ExitCode;

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// A moment only, to see that it works.
    Quick,
    /// Enough for figures that can be told.
    Full,
}

/// Measures at the pace that the arguments ask for.
pub fn start(measure: fn(Pace) -> Result<(), String>) -> ExitCode {
    match paced().and_then(|pace| pace.map_or(Ok(()), measure)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// Nothing, when this is not the moment to measure.
fn paced() -> Result<Option<Pace>, String> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let asked = |arg: &str| args.iter().any(|given| given == arg);
    if let Some(other) = args
        .iter()
        .find(|arg| !["--bench", "--quick"].contains(&arg.as_str()))
    {
        return Err(format!(
            "unknown argument `{other}`; the benchmark takes --quick"
        ));
    }
    // `cargo test --all-targets` starts it too.
    if !asked("--bench") {
        println!("not measuring: start it with cargo bench");
        return Ok(None);
    }
    if cfg!(debug_assertions) {
        return Err("this is a debug build: start it with cargo bench".to_owned());
    }
    Ok(Some(if asked("--quick") {
        Pace::Quick
    } else {
        Pace::Full
    }))
}
