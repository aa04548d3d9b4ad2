//! `agent`: runs builds, as many at once as it has slots.
//!
//! ```text
//!   broker ◀──provides── executor, slots, labels
//!     └──work──▶ take ──▶ a process for each build (`build`), with a guard
//! ```
//!
//! An agent is a provider of one resource in the pool `executor`; a build that is granted a slot of it is
//! this agent's to take. Here is what outlives single builds; what a build does is in [`build`].

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

pub mod build;
mod children;
pub mod container;
mod folders;
mod handover;
mod leftovers;
pub mod output;
mod provider;
mod work;

use self::folders::Folders;
use self::handover::{ContainerPolicy, Handover};
use self::provider::Executor;
use self::work::{Taken, Taker};
use super::provide::{self, key};
use super::run::signals::{self, Caught, Signals};
use super::serve::options::state_folder;
use super::terminal::Messages;
use super::words::count;
use super::{Failure, Globals, exit_code, runtime};
use crate::client::Options;
use crate::client::http::Http;
use crate::core::types::ProviderName;
use crate::units::parse_duration_ms;

/// Builds that were taken and have no process yet.
const TAKEN_MAX: usize = 4;

/// Run builds that the broker has for this machine
///
/// It brings an executor with so many slots to the broker, takes the builds that are granted one, and runs each in a
/// folder and a process group of its own, or in a container. SIGTERM: no new build, and it leaves when those under way
/// have ended; a second one stops them. Killed, its builds end at once, and are tried again where their pipelines say.
#[derive(Debug, Args)]
pub struct AgentCommand {
    /// How many builds at once
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u32).range(1..=1000))]
    slots: u32,
    /// What pipelines may ask for, `os=linux`; repeat for more. `os`, `arch` and `host` are there unless given
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, Value)>,
    /// Its name, one of a kind in the lab [default: the host's]
    #[arg(long)]
    name: Option<String>,
    /// How long the broker waits for a sign of life, 2s to 10m [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    ttl: Option<u64>,
    /// Where workspaces, mirrors of repositories and unsent logs are [default: agent-NAME in the state folder]
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// The socket of Docker or Podman for builds in containers; `auto` looks at DOCKER_HOST and the usual places
    #[arg(long, value_name = "unix://PATH", default_value = "auto")]
    container_socket: String,
    /// A folder of this machine of which containers may mount what is in it; repeat for more
    #[arg(long, value_name = "DIR")]
    mount_allow: Vec<PathBuf>,
    /// A variable of this environment that builds get too; repeat for more
    #[arg(long, value_name = "NAME")]
    env_pass: Vec<String>,
    /// Which builds' folders are removed when they end: all, or all but failed ones' (the newest ten of those are kept)
    #[arg(long, value_enum, value_name = "WHICH", default_value = "always")]
    cleanup: Cleanup,
    /// Give up when no broker is there for this long at the start
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms, default_value = "2m")]
    connect_timeout: u64,
}

/// Which builds' folders are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Cleanup {
    /// All.
    Always,
    /// Those of builds that passed, or were not this machine's to finish.
    Passed,
}

/// Reads a label as an inventory file would: a number, a truth value, or text.
fn label(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    let number = value.parse::<i64>().map(Value::from);
    let value = match value {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        other => number.unwrap_or_else(|_| Value::from(other)),
    };
    Ok((name.to_owned(), value))
}

/// An agent at work.
struct Agent<'a> {
    command: &'a AgentCommand,
    url: &'a str,
    name: String,
    folders: Folders,
    passed_on: BTreeMap<String, String>,
    messages: Messages,
}

impl AgentCommand {
    /// Runs builds until a signal.
    pub fn execute(self, globals: &Globals) -> Result<u8, Failure> {
        // First of all, as every thread from here on is to hold them back.
        let held = signals::hold().map_err(|error| Failure::own(format!("signals cannot be read: {error}")))?;
        let host = nix::unistd::gethostname().ok().and_then(|host| host.into_string().ok());
        let name = self.name.as_deref().or(host.as_deref()).unwrap_or_default();
        let name = ProviderName::parse(name).map_err(|error| Failure::usage(format!("{error}: say --name NAME")))?;
        let state = state_folder();
        let work = self.work.clone().or_else(|| Some(state.as_ref()?.join(format!("agent-{name}"))));
        let work = work.ok_or_else(|| {
            Failure::usage("no place to work: neither STATE_DIRECTORY, XDG_STATE_HOME nor HOME is set; say --work DIR")
        })?;
        let used = |error: std::io::Error| {
            let why = if error.kind() == ErrorKind::WouldBlock {
                "another agent works there".into()
            } else {
                error.to_string()
            };
            Failure::refused(format!("{} cannot be worked in: {why}", work.display()))
        };
        let folders = Folders::make(&work).map_err(used)?;
        let _locked = folders.lock().map_err(used)?;
        let key = key::take(state.as_deref().unwrap_or(&work), &name)?;
        let executor = Executor {
            name: name.to_string(),
            key: key.secret.clone(),
            host: host.clone(),
            slots: self.slots,
            labels: self.labels(host.as_deref()),
        };
        let messages = Messages::to_stderr();
        let passed_on = self.passed_on()?;
        let runtime = runtime()?;
        let agent = Agent {
            command: &self,
            url: &globals.url,
            name: name.to_string(),
            folders,
            passed_on,
            messages: messages.clone(),
        };
        let result = runtime.block_on(async {
            let signals = Signals::new(&held);
            let signals = signals.map_err(|error| Failure::own(format!("signals cannot be read: {error}")))?;
            agent.work(executor, provide::options(globals, self.ttl, self.connect_timeout)?, signals).await
        });
        runtime.shutdown_background();
        messages.flush();
        result
    }

    fn labels(&self, host: Option<&str>) -> BTreeMap<String, Value> {
        let own = [("os", Some(std::env::consts::OS)), ("arch", Some(std::env::consts::ARCH)), ("host", host)];
        let own = own.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Value::from(value?))));
        own.chain(self.labels.iter().cloned()).collect()
    }

    fn passed_on(&self) -> Result<BTreeMap<String, String>, Failure> {
        let read = |name: &String| match std::env::var(name) {
            Ok(value) => Some(Ok((name.clone(), value))),
            Err(std::env::VarError::NotPresent) => None,
            Err(error) => Some(Err(Failure::usage(format!("--env-pass {name}: {error}")))),
        };
        self.env_pass.iter().filter_map(read).collect()
    }
}

impl Agent<'_> {
    /// Provides, takes and runs until a signal, and then until nothing runs any more.
    async fn work(&self, executor: Executor, options: Options, mut signals: Signals) -> Result<u8, Failure> {
        // Before there are others.
        let present = self.folders.present();
        let unseen = |error| Failure::refused(format!("what builds of before have left cannot be seen: {error}"));
        let present = present.map_err(unseen)?;
        let http = Http::with_network(options.urls.clone(), options.network.clone());
        let (open, opened) = watch::channel(true);
        let (online_tell, online) = oneshot::channel();
        let mut providing =
            tokio::spawn(provider::provide(executor, options, self.messages.clone(), opened, online_tell));
        let containers = self.containers();
        let ready = async {
            if online.await.is_err() {
                // Why it will never be is told by what was to tell it.
                std::future::pending::<()>().await;
            }
            // Not before: until then they may be of another agent of the name.
            leftovers::remove_containers(&self.name, &containers, &self.messages).await;
        };
        tokio::select! {
            () = ready => {}
            over = &mut providing => return over.unwrap_or(Ok(())).map(|()| exit_code::DONE),
            () = ending(&mut signals) => {
                drop(open);
                // Its goodbye to the broker, bounded by itself.
                let _ = providing.await;
                return Ok(exit_code::DONE);
            }
        }
        tokio::spawn(leftovers::put_away(present, http.clone(), self.messages.clone()));
        let (taken_tell, mut taken) = mpsc::channel(TAKEN_MAX);
        let (stop, stopped) = watch::channel(false);
        let (ask, asking) = watch::channel(true);
        let taker = Taker {
            http: http.clone(),
            agent: self.name.clone(),
            messages: self.messages.clone(),
            asking,
            stopped: stopped.clone(),
        };
        tokio::spawn(taker.take_on(taken_tell));
        let mut builds = JoinSet::new();
        let failed = loop {
            tokio::select! {
                Some(one) = taken.recv() => {
                    builds.spawn(self.see_through(one, &http, &stopped));
                }
                Some(_) = builds.join_next() => {}
                over = &mut providing => break over.unwrap_or(Ok(())).err(),
                () = ending(&mut signals) => break None,
            }
        };
        ask.send_replace(false);
        if failed.is_some() {
            stop.send_replace(true);
        } else {
            open.send_replace(false);
        }
        let see_through = |one| self.see_through(one, &http, &stopped);
        self.drain(builds, taken, see_through, stop, signals).await;
        drop(open);
        if failed.is_none() {
            // Its goodbye to the broker, bounded by itself.
            let _ = providing.await;
        }
        failed.map_or(Ok(exit_code::DONE), Err)
    }

    /// Waits until the builds under way have ended, and so have those that are being taken: one that was taken is
    /// this agent's.
    async fn drain<F: Future<Output = ()> + Send + 'static>(
        &self,
        mut builds: JoinSet<()>,
        mut taken: mpsc::Receiver<Taken>,
        see_through: impl Fn(Taken) -> F,
        stop: watch::Sender<bool>,
        mut signals: Signals,
    ) {
        let (mut said, mut taking) = (0, true);
        while taking || !builds.is_empty() {
            if std::mem::replace(&mut said, builds.len()) != said && !builds.is_empty() {
                let left = count(said, "build");
                let how = if *stop.borrow() { "being stopped" } else { "waited for; a second signal stops what runs" };
                self.messages.line(format!("no new work: {left} {how}"));
            }
            tokio::select! {
                one = taken.recv(), if taking => match one {
                    Some(one) => {
                        builds.spawn(see_through(one));
                    }
                    None => taking = false,
                },
                Some(_) = builds.join_next() => {}
                () = ending(&mut signals) => {
                    stop.send_replace(true);
                    said = 0;
                }
            }
        }
    }

    fn containers(&self) -> ContainerPolicy {
        let socket = Some(self.command.container_socket.clone()).filter(|socket| socket != "auto");
        ContainerPolicy { socket, mount_allow: self.command.mount_allow.clone() }
    }

    /// A build's process, from its start to its end.
    fn see_through(&self, taken: Taken, http: &Http, stop: &watch::Receiver<bool>) -> impl Future<Output = ()> + use<> {
        children::see_through(self.handover(taken), http.clone(), self.messages.clone(), stop.clone())
    }

    fn handover(&self, taken: Taken) -> Handover {
        let Taken { job, key, at } = taken;
        Handover {
            folder: self.folders.build(job.build, job.attempt).path().to_owned(),
            mirrors: self.folders.mirrors(),
            job,
            key,
            taken_at: at,
            url: self.url.to_owned(),
            agent: self.name.clone(),
            passed_on: self.passed_on.clone(),
            containers: self.containers(),
            connect_timeout_ms: self.command.connect_timeout,
            keep_failed: self.command.cleanup == Cleanup::Passed,
        }
    }
}

/// Comes with the next signal that ends a program.
async fn ending(signals: &mut Signals) {
    use nix::sys::signal::Signal::{SIGUSR1, SIGUSR2};
    loop {
        let Caught { number, .. } = signals.next().await;
        if number != SIGUSR1 as i32 && number != SIGUSR2 as i32 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::label;

    #[test]
    fn labels_are_read_as_an_inventory_has_them() {
        for (text, value) in
            [("os=linux", json!("linux")), ("cores=16", json!(16)), ("gpu=true", json!(true)), ("x=", json!(""))]
        {
            let (name, read) = label(text).unwrap();
            assert_eq!((name.as_str(), read), (text.split('=').next().unwrap(), value));
        }
        assert!(label("linux").is_err());
    }
}
