//! Writes the man pages, and the documentation as the package installs it: `manuals FOLDER`, in the repository.
//!
//! Commands' pages come from the command line as clap knows it, so a new command has its page by being there; exit codes
//! come from the table in docs/commands.md, which is their only place. span.cfg(5) is docs/span.cfg.md. The package's
//! build runs this; the program itself carries none of it.

#![allow(clippy::print_stderr)]

mod links;
mod markdown;
mod page;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::CommandFactory as _;
use pve_span::cli::Cli;

/// What docs/commands.md says, at the time of the build.
const COMMANDS: &str = include_str!("../../docs/commands.md");

/// What span.cfg(5) says.
const SPAN_CFG: &str = include_str!("../../docs/span.cfg.md");

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

/// `man/*` and `docs/*` below `folder`.
fn write(folder: &Path) -> io::Result<()> {
    let (man, docs) = (folder.join("man"), folder.join("docs"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&docs)?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let pages = page::names(&command);
    write_pages(&command, &pages, &man)?;
    fs::write(man.join("span.cfg.5"), page::span_cfg(SPAN_CFG)?)?;
    write_docs(&docs)
}

/// The README and the pages of docs/, with links that lead somewhere where they are installed.
fn write_docs(folder: &Path) -> io::Result<()> {
    let mut pages = vec![PathBuf::from("README.md")];
    for entry in fs::read_dir("docs")? {
        pages.push(entry?.path());
    }
    pages.retain(|page| page.extension().is_some_and(|ending| ending == "md"));
    for page in pages {
        let text = fs::read_to_string(&page)?;
        let name = page.file_name().unwrap_or_default();
        let text = links::fit(&page.display().to_string(), &text);
        fs::write(folder.join(name), text)?;
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
