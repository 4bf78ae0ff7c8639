//! `pve-span`: arguments → log → run → exit code.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use pve_span::cli::hook_call::{is_command, plain_hook, with_hook};
use pve_span::cli::{Cli, Command, WatchArgs};
use pve_span::hook::Caller;
use pve_span::reconcile::Error;
use pve_span::sys::error::with_causes;
use pve_span::sys::logging;
use pve_span::sys::logging::Journal;
use pve_span::sys::output;
use pve_span::sys::output::Printer;
use pve_span::{cli, commands, daemon, hook};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let caller = Caller::of(&args, is_command(&args, "hook"));
    if let Some((root, vmid, phase)) = plain_hook(&args) {
        let _ = std::panic::catch_unwind(|| {
            logging::start(&root, 0, Journal::Too);
            hook::run(&root, vmid, phase, hook::DEADLINE, &caller);
        });
        return ExitCode::SUCCESS;
    }
    let args = with_hook(args);
    if is_command(&args, "hook") {
        // A guest must not be kept from starting by what it is called with, nor by a fault of ours.
        let _ = std::panic::catch_unwind(|| parse_and_run(&args, &caller));
        return ExitCode::SUCCESS;
    }
    let exit = parse_and_run(&args, &caller);
    match output::unwritten() {
        Some(error) => {
            logging::say(&format!("pve-span: error: cannot write output: {error}\n"));
            ExitCode::from(cli::UNWRITTEN)
        }
        None => exit,
    }
}

fn parse_and_run(args: &[OsString], caller: &Caller) -> ExitCode {
    match Cli::try_parse_from(args) {
        Ok(cli) => run(&cli, caller),
        Err(error) if error.use_stderr() => {
            logging::say(&error.to_string());
            ExitCode::from(cli::USAGE)
        }
        // What was asked for is the help, or the version.
        Err(error) => {
            output::note(error.print());
            ExitCode::SUCCESS
        }
    }
}

fn run(cli: &Cli, caller: &Caller) -> ExitCode {
    let journal = match cli.command {
        Command::Hook(_) => Journal::Too,
        Command::Watch(_) => Journal::Stderr,
        _ => Journal::No,
    };
    logging::start(&cli.root, cli.verbose, journal);
    let root = &cli.root;
    if let Some((json, failed)) = needs_root(&cli.command) {
        if !nix::unistd::geteuid().is_root() {
            return ExitCode::from(fail(&Error::NotRoot, json, failed));
        }
    }
    if let Some((json, failed)) = needs_pve(&cli.command) {
        if let Err(error) = commands::expect_pve(root) {
            return ExitCode::from(fail(&error, json, failed));
        }
        let writes_one = |command: &Command| {
            matches!(
                command,
                Command::Init(_) | Command::Edit(_) | Command::Import(_)
            )
        };
        if !writes_one(&cli.command) {
            commands::say_first_step(root);
        }
    }
    let (result, json, failed) = match &cli.command {
        Command::Hook(args) => {
            hook::run(root, &args.vmid, &args.phase, args.deadline, caller);
            return ExitCode::SUCCESS;
        }
        Command::Watch(args) => return watch(root, args),
        Command::Check(args) => {
            return ExitCode::from(commands::check(
                root,
                args.file.as_deref(),
                args.json.into(),
            ));
        }
        Command::Complete(args) => return ExitCode::from(commands::complete(root, &args.words)),
        Command::Attach(args) => return ExitCode::from(commands::attach(root, args)),
        Command::Detach(args) => return ExitCode::from(commands::detach(root, args)),
        Command::Doctor(args) => {
            let extent = if cli.verbose > 0 {
                commands::Verbosity::All
            } else {
                commands::Verbosity::Findings
            };
            return ExitCode::from(commands::doctor(root, extent, args.json.into()));
        }
        Command::Plan(args) => (commands::plan(root, args.json.into()), args.json, 1),
        Command::Apply(args) => (commands::apply(root, args.json.into()), args.json, 1),
        Command::Clear(args) => (
            commands::clear(root, &args.sessions, args.json.into()),
            args.json,
            1,
        ),
        Command::Status(args) if args.events => {
            (commands::events(root, args.json.into()), args.json, 2)
        }
        Command::Status(args) => (commands::status(root, args.json.into()), args.json, 2),
        Command::Explain(args) => {
            let result = commands::explain(root, &args.subjects, args.json.into());
            (result, args.json, 2)
        }
        Command::Verify(args) => (commands::verify(root, args), args.json, 2),
        Command::Ports(args) => (commands::ports(root, args.json.into()), args.json, 2),
        Command::Init(args) => return ExitCode::from(commands::init(root, args)),
        Command::Edit(args) => return ExitCode::from(commands::edit(root, args)),
        Command::Import(args) => return ExitCode::from(commands::import(root, args)),
    };
    ExitCode::from(result.unwrap_or_else(|error| fail(&error, json, failed)))
}

/// Prints the one reason why a command did not do its work.
fn fail(error: &Error, json: bool, failed: u8) -> u8 {
    let text = with_causes(error);
    if json {
        Printer::new().json(&serde_json::json!({"error": text}));
    }
    ::log::error!("{text}");
    match error {
        Error::NoSession { .. } => cli::USAGE,
        _ => failed,
    }
}

/// What root alone may do, which is all but to check a file: whether it prints JSON, and how it then ends.
fn needs_root(command: &Command) -> Option<(bool, u8)> {
    match command {
        Command::Hook(_) => None,
        Command::Watch(_) => Some((false, 1)),
        Command::Doctor(args) => Some((args.json, 2)),
        Command::Clear(args) => Some((args.json, 1)),
        Command::Status(args) => Some((args.json, 2)),
        Command::Plan(args) | Command::Apply(args) => Some((args.json, 1)),
        Command::Explain(args) => Some((args.json, 2)),
        Command::Verify(args) => Some((args.json, 2)),
        Command::Ports(args) => Some((args.json, 2)),
        other => needs_pve(other),
    }
}

/// What cannot do without /etc/pve: whether it prints JSON, and how it ends if that hangs. The others go by the last good
/// copy.
fn needs_pve(command: &Command) -> Option<(bool, u8)> {
    match command {
        Command::Check(args) => args.file.is_none().then_some((args.json, 2)),
        Command::Attach(args) => Some((args.common.json, 1)),
        Command::Detach(args) => Some((args.common.json, 1)),
        Command::Import(args) => Some((args.json, 2)),
        Command::Init(_) | Command::Edit(_) => Some((false, 1)),
        Command::Hook(_)
        | Command::Watch(_)
        | Command::Complete(_)
        | Command::Doctor(_)
        | Command::Clear(_)
        | Command::Status(_)
        | Command::Plan(_)
        | Command::Apply(_)
        | Command::Explain(_)
        | Command::Verify(_)
        | Command::Ports(_) => None,
    }
}

fn watch(root: &Path, args: &WatchArgs) -> ExitCode {
    let count_every = if args.count_every.is_finite() {
        args.count_every.clamp(0.1, 3600.0)
    } else {
        15.0
    };
    let options = daemon::Options {
        root: root.to_owned(),
        metrics_file: args.metrics_file.clone(),
        listen: args.listen,
        count_every: Duration::from_secs_f64(count_every),
    };
    match daemon::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            ::log::error!("{}", with_causes(&error));
            ExitCode::FAILURE
        }
    }
}
