//! `pve-span`: arguments → log → run → exit code.

use std::process::ExitCode;

use clap::Parser;
use pve_span::cli::{Cli, Command};
use pve_span::log::Journal;
use pve_span::{apply, cli, commands, hook, log, ovs};

fn main() -> ExitCode {
    let args = cli::with_hook(std::env::args_os().collect());
    match Cli::try_parse_from(&args) {
        Ok(cli) => run(&cli),
        Err(error) => {
            let _ = error.print();
            // A hookscript must not stop a guest because of its arguments.
            let is_hook = args.iter().any(|arg| arg == "hook");
            ExitCode::from(if is_hook || !error.use_stderr() { 0 } else { 2 })
        }
    }
}

fn run(cli: &Cli) -> ExitCode {
    let journal = if matches!(cli.command, Command::Hook(_)) {
        Journal::Too
    } else {
        Journal::No
    };
    log::start(&cli.root, cli.verbose, journal);
    let root = &cli.root;
    let result = match &cli.command {
        Command::Hook(args) => {
            hook::run(root, &args.vmid, &args.phase, args.deadline);
            Ok(0)
        }
        Command::Check(args) => Ok(commands::check(
            root,
            args.file.as_deref(),
            args.json.into(),
        )),
        Command::Plan(args) => commands::plan(root, args.json.into()),
        Command::Apply(args) => commands::apply(root, args.json.into()),
        Command::Clear(args) => commands::clear(root, &args.sessions, args.json.into()),
        Command::Status(args) => commands::status(root, args.json.into()).or_else(cannot_tell),
        Command::Ports(args) => commands::ports(root, args.json.into()).or_else(cannot_tell),
    };
    ExitCode::from(result.unwrap_or_else(|error| {
        ::log::error!("{}", ovs::chain(&error));
        1
    }))
}

#[allow(clippy::needless_pass_by_value)]
fn cannot_tell(error: apply::Error) -> Result<u8, apply::Error> {
    ::log::error!("{}", ovs::chain(&error));
    Ok(2)
}
