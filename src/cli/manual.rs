//! `completions` and `man`: what is known of the command line, for shells and for `man`.
//!
//! Made from the same definition as the command line itself, so that neither can lag behind.

use std::io::Write;

use clap::{Args, CommandFactory};

use super::{Cli, Failure, exit_code};

/// Prints the completions of a shell.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell to print them for
    pub shell: clap_complete::Shell,
}

/// Prints the manual page.
#[derive(Debug, Args)]
pub struct Man {
    /// The command whose page to print; without it the page of `leasehold`
    pub command: Option<String>,
}

impl Completions {
    /// Writes the script to stdout.
    pub fn execute(self) -> Result<u8, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "leasehold", &mut script);
        write_out(&script)
    }
}

impl Man {
    /// Writes the page, in troff, to stdout.
    pub fn execute(self) -> Result<u8, Failure> {
        let mut root = Cli::command();
        root.build();
        let command = match &self.command {
            None => root,
            Some(name) => root.find_subcommand(name).cloned().ok_or_else(|| {
                Failure::usage(format!("there is no command {name:?}; `leasehold --help` lists them"))
            })?,
        };
        let mut page = Vec::new();
        clap_mangen::Man::new(command)
            .render(&mut page)
            .map_err(|error| Failure::refused(format!("the manual page cannot be made: {error}")))?;
        write_out(&page)
    }
}

/// A reader that closes the pipe early (`| head`) has what it wanted.
fn write_out(bytes: &[u8]) -> Result<u8, Failure> {
    match std::io::stdout().write_all(bytes) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::refused(format!("stdout cannot be written: {error}")))
        }
        _ => Ok(exit_code::DONE),
    }
}
