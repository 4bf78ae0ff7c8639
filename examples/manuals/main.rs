//! Writes the man pages and the shells' completions for the package: `manuals FOLDER`.
//!
//! Everything comes from the command line as clap knows it, so a new command has its page and its completions by being
//! there; exit codes come from the table in docs/commands.md, which is their only place. The package's build
//! runs this; the program itself carries none of it.

#![allow(clippy::print_stderr)]

mod page;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;
use pve_span::cli::Cli;

/// What docs/commands.md says, at the time of the build.
const COMMANDS: &str = include_str!("../../docs/commands.md");

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: manuals FOLDER");
        return ExitCode::from(2);
    };
    match write(&folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("manuals: cannot write to {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

/// `man/*.8` and `completions/*` below `folder`.
fn write(folder: &Path) -> io::Result<()> {
    let (man, completions) = (folder.join("man"), folder.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let pages = page::names(&command);
    write_pages(&command, &pages, &man)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut Cli::command(), "pve-span", &completions)?;
    }
    Ok(())
}

/// A page for the command, and one for each command below it that is not hidden.
fn write_pages(command: &clap::Command, pages: &[String], folder: &Path) -> io::Result<()> {
    let name = page::name(command);
    fs::write(
        folder.join(format!("{name}.8")),
        page::page(command, pages, COMMANDS)?,
    )?;
    for below in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        write_pages(below, pages, folder)?;
    }
    Ok(())
}
