//! The commands: what is typed, turned into calls of the other modules.
//!
//! This file owns the root of the command line and hands each family of commands to a file of its
//! own. A command is a `clap` struct with `execute(self, &Globals) -> Result<u8, Failure>`; it
//! makes the runtime it needs itself, as `run` must block signals before any thread exists.
//! Data goes to stdout, messages to stderr.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub mod acquire;
pub mod claim;
pub mod exit_code;
pub mod granting;
pub mod held;
pub mod run;
pub mod tags;
pub mod terminal;
pub mod waiting;

mod agent;
mod bench;
mod broker;
mod build;
mod events;
mod hook;
mod lease;
mod manual;
mod output;
mod provide;
mod queue;
mod resource;
mod serve;
mod session;
mod status;
mod store;
mod why;
mod words;

pub use exit_code::Failure;

/// Lease test resources: devices, accounts, networks, ports, licence seats.
///
/// A broker keeps the inventory and leases it to test runners; the connection is the claim on the
/// resource. `leasehold serve --inventory lab.toml` is the broker, `leasehold run -n phone -- make
/// test` runs a command while it holds a phone.
#[derive(Debug, Parser)]
#[command(name = "leasehold", version, about, long_about, arg_required_else_help = true, max_term_width = 110)]
pub struct Cli {
    /// What every command reads.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command reads.
#[derive(Clone, Debug, Args)]
pub struct Globals {
    /// The broker: ws, wss, http or https, host, optional port and path; several with commas between them
    #[arg(long, global = true, env = "LEASEHOLD_URL", value_name = "URL", default_value = crate::protocol::URL_DEFAULT)]
    pub url: String,
}

/// Everything `leasehold` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a command while resources are held for it
    ///
    /// The command finds what it holds in LEASEHOLD_... variables, keeps the terminal, and is stopped when the
    /// lease ends. Exits with the command's own code (128+n for signal n, 126 and 127 as a shell has them); 120
    /// when the lease was lost or ended and the command stopped for it; 124 when no lease came within --wait;
    /// 125 for everything else of its own.
    Run(run::RunCommand),
    Acquire(acquire::AcquireCommand),
    Agent(agent::AgentCommand),
    Release(held::ReleaseCommand),
    Extend(held::ExtendCommand),
    Renew(held::RenewCommand),
    Bench(bench::BenchCommand),
    Build(build::BuildCommand),
    /// Print the completions of a shell
    Completions(manual::Completions),
    Events(events::EventsCommand),
    Hook(hook::HookCommand),
    Lease(lease::LeaseCommand),
    /// Print the manual page
    Man(manual::Man),
    Provide(provide::ProvideCommand),
    Queue(queue::QueueCommand),
    Resource(resource::ResourceCommand),
    Serve(serve::ServeCommand),
    Session(session::SessionCommand),
    Status(status::StatusCommand),
    Store(store::StoreCommand),
    Why(why::WhyCommand),
    /// Watch over the command of a `run`
    #[command(name = "__guard", hide = true)]
    Guard(run::guard::GuardCommand),
    /// Hold the lease of an `acquire --detach`
    #[command(name = "__keeper", hide = true)]
    Keeper(acquire::keeper::KeeperCommand),
    /// See a build of an `agent` through
    #[command(name = "__build", hide = true)]
    AgentBuild(agent::build::BuildCommand),
    /// Check the commit of a build out
    #[command(name = "__checkout", hide = true)]
    Checkout(agent::build::checkout::CheckoutCommand),
    /// Run the container of a build
    #[command(name = "__container", hide = true)]
    Container(agent::container::ContainerCommand),
    /// End the containers of a build
    #[command(name = "__container-kill", hide = true)]
    KillContainer(agent::container::KillContainerCommand),
}

/// Reads the process's command line, does it, and answers with what the process exits with.
pub fn main() -> ExitCode {
    let words: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let result = match Cli::try_parse_from(&words) {
        Ok(cli) => cli.command.execute(&cli.globals),
        Err(error) => return usage_exit(&words, &error),
    };
    ExitCode::from(result.unwrap_or_else(|failure| {
        if !failure.message.is_empty() {
            eprintln!("leasehold: {failure}");
        }
        failure.code
    }))
}

impl Command {
    fn execute(self, globals: &Globals) -> Result<u8, Failure> {
        match self {
            Self::Bench(command) => command.execute(globals),
            Self::Build(command) => command.execute(globals),
            Self::Hook(command) => command.execute(globals),
            Self::Run(command) => command.execute(globals),
            Self::Acquire(command) => command.execute(globals),
            Self::Agent(command) => command.execute(globals),
            Self::Release(command) => command.execute(globals),
            Self::Extend(command) => command.execute(globals),
            Self::Renew(command) => command.execute(globals),
            Self::Keeper(command) => command.execute(),
            Self::Completions(command) => command.execute(),
            Self::Events(command) => command.execute(globals),
            Self::Lease(command) => command.execute(globals),
            Self::Man(command) => command.execute(),
            Self::Provide(command) => command.execute(globals),
            Self::Queue(command) => command.execute(globals),
            Self::Resource(command) => command.execute(globals),
            Self::Serve(command) => command.execute(),
            Self::Session(command) => command.execute(globals),
            Self::Status(command) => command.execute(globals),
            Self::Store(command) => command.execute(),
            Self::Why(command) => command.execute(globals),
            Self::Guard(command) => command.execute(),
            Self::AgentBuild(command) => command.execute(),
            Self::Checkout(command) => command.execute(),
            Self::Container(command) => command.execute(),
            Self::KillContainer(command) => command.execute(),
        }
    }
}

/// A runtime with two threads: one may print or compute while the other keeps sessions alive.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|error| Failure::own(format!("the system gives no threads: {error}")))
}

/// `clap` found the help to print, or a mistake. A mistake of `run` or `acquire` must not look
/// like an exit of their command, so it has their own code.
fn usage_exit(words: &[std::ffi::OsString], error: &clap::Error) -> ExitCode {
    // Only fails where stderr or stdout is closed: there is nobody to tell.
    let _ = error.print();
    if !error.use_stderr() {
        return ExitCode::from(exit_code::DONE);
    }
    let code = usage_code(words);
    if words.iter().any(|word| word == "acquire") && asks_for_env(words) {
        println!("{}", acquire::format::shell_failure(code).trim_end());
    }
    ExitCode::from(code)
}

/// Whether `eval` waits for the output, and has to fail with it.
fn asks_for_env(words: &[std::ffi::OsString]) -> bool {
    words.iter().any(|word| word == "--format=env")
        || words.windows(2).any(|pair| pair[0] == "--format" && pair[1] == "env")
}

fn usage_code(words: &[std::ffi::OsString]) -> u8 {
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("run" | "acquire") => return exit_code::OWN,
            Some("--url") => drop(words.next()),
            Some(option) if option.starts_with('-') => {}
            _ => return exit_code::USAGE,
        }
    }
    exit_code::USAGE
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::CommandFactory;

    use super::{Cli, exit_code, usage_code};

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn usage_errors_of_run_have_a_code_of_their_own() {
        for (line, code) in [
            ("leasehold run --nonsense", exit_code::OWN),
            ("leasehold --url ws://run acquire", exit_code::OWN),
            ("leasehold --url=ws://x run", exit_code::OWN),
            ("leasehold status --nonsense", exit_code::USAGE),
            ("leasehold nonsense run", exit_code::USAGE),
            ("leasehold", exit_code::USAGE),
        ] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert_eq!(usage_code(&words), code, "{line}");
        }
    }
}
