//! `iris completions` and `iris man`: what shells and manuals know of the commands, from the same
//! definition that reads the command line.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Command, ValueEnum};

use crate::exit;
use crate::remote::say;

/// Shells that complete commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the names are those of the shells")]
pub enum Shell {
    Bash,
    Elvish,
    Fish,
    #[value(name = "powershell")]
    PowerShell,
    Zsh,
}

/// `iris completions`.
#[derive(Clone, clap::Args)]
pub struct CompletionsOptions {
    /// The shell
    shell: Shell,
}

/// `iris man`.
#[derive(Clone, clap::Args)]
pub struct ManOptions {
    /// Write a page for each command into this directory, which is made when it is missing; without it
    /// the page of `iris` is printed
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Prints what a shell has to run to complete the commands.
pub fn completions(mut commands: Command, options: &CompletionsOptions) -> ExitCode {
    use clap_complete::{Shell as Known, generate};
    let shell = match options.shell {
        Shell::Bash => Known::Bash,
        Shell::Elvish => Known::Elvish,
        Shell::Fish => Known::Fish,
        Shell::PowerShell => Known::PowerShell,
        Shell::Zsh => Known::Zsh,
    };
    let mut script = Vec::new();
    generate(shell, &mut commands, "iris", &mut script);
    end("completions", print(&script))
}

/// Prints the manual, or writes it into a directory.
pub fn man(commands: Command, options: &ManOptions) -> ExitCode {
    let mut page = Vec::new();
    let done = match &options.out {
        None => clap_mangen::Man::new(commands).render(&mut page).and_then(|()| print(&page)),
        Some(directory) => write_pages(commands, directory),
    };
    end("man", done)
}

fn write_pages(commands: Command, directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    clap_mangen::generate_to(commands, directory)
}

fn print(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        // Who read it has gone, and wants no more.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

fn end(verb: &str, done: io::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(verb, &error.to_string());
            ExitCode::from(exit::FAILED)
        }
    }
}
