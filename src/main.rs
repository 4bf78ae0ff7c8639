//! `pve-span`: arguments → log → run → exit code.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use pve_span::cli::{Cli, Command};
use pve_span::log::Journal;
use pve_span::{apply, cli, commands, hook, log, ovs};

fn main() -> ExitCode {
    let args = cli::with_hook(std::env::args_os().collect());
    if cli::is_hook(&args) {
        // A guest must not be kept from starting by what it is called with, nor by a fault of ours.
        let _ = std::panic::catch_unwind(|| parse_and_run(&args));
        return ExitCode::SUCCESS;
    }
    parse_and_run(&args)
}

fn parse_and_run(args: &[OsString]) -> ExitCode {
    match Cli::try_parse_from(args) {
        Ok(cli) => run(&cli),
        Err(error) => {
            let _ = error.print();
            ExitCode::from(if error.use_stderr() { 2 } else { 0 })
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
