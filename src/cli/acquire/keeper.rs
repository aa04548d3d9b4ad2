//! `acquire --detach`: a keeper process holds the lease for as long as another process lives.
//!
//! The keeper is this binary re-executed in a session of its own. It claims, and hands what it got
//! to the `acquire` that started it, which prints it and lets it go; until then the end of either
//! is the end of both. It ends, and the lease with it, when the process of `--while-pid` is gone,
//! when the lease is released elsewhere, or by a signal. When the lease ends otherwise under it
//! (lost, revoked, its hold over) the process is stopped first: what it uses is another's next.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Args;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{AcquireCommand, HandedOver, hand_over};
use crate::cli::granting::{self, sleep_until};
use crate::cli::run::SecretsHow;
use crate::cli::run::handle::this_binary;
use crate::cli::run::hold::deadline_of;
use crate::cli::run::signals::{self, Signals};
use crate::cli::run::tree;
use crate::cli::terminal::Messages;
use crate::cli::{Failure, Globals, exit_code, runtime};
use crate::client::{BaseUrl, LeaseGuard, LeaseState, Network, Options, Standing};
use crate::clock::{BootTime, boot_now};
use crate::protocol::call::ClaimRequest;

/// How long a release may take when there is no broker.
const RELEASE: Duration = Duration::from_secs(5);
/// How often is looked whether a process lives, where the system does not tell.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What the keeper is to do.
#[derive(Debug, Serialize, Deserialize)]
struct Task {
    url: String,
    request: ClaimRequest,
    ttl_ms: Option<u64>,
    connect_timeout_ms: u64,
    pid: i32,
    /// With the number it means one process for ever.
    start: u64,
    grace_ms: u64,
    secrets: Option<String>,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Told {
    Granted(Box<HandedOver>),
    Failed { code: u8, message: String },
}

/// The keeper of an `acquire --detach`; started by it only.
#[derive(Debug, Args)]
pub struct KeeperCommand {}

/// Starts a keeper, waits until it holds the lease, prints it and lets the keeper go.
pub fn detach(command: &AcquireCommand, globals: &Globals) -> Result<u8, Failure> {
    let pid = command.while_pid.filter(|pid| *pid > 0);
    let Some((pid, start)) = pid.and_then(|pid| Some((pid, tree::start_of(pid)?))) else {
        let pid = command.while_pid.unwrap_or_default();
        return Err(Failure::own(format!("--while-pid {pid}: there is no such process")));
    };
    let task = Task {
        url: globals.url.clone(),
        request: command.claim.request(&["leasehold acquire".to_owned()]),
        ttl_ms: command.claim.ttl,
        connect_timeout_ms: command.claim.connect_timeout,
        pid,
        start,
        grace_ms: command.grace,
        secrets: command.secrets.map(|how| if how == SecretsHow::Env { "env" } else { "file" }.to_owned()),
    };
    let own = |error: std::io::Error| Failure::own(format!("the keeper cannot be started: {error}"));
    let mut keeper = start_keeper(&task).map_err(own)?;
    let mut answer = String::new();
    BufReader::new(&keeper).read_line(&mut answer).map_err(own)?;
    match serde_json::from_str(&answer) {
        Ok(Told::Granted(handed)) => {
            command.print(&handed)?;
            // From here on it lives without this process. Unheard it gives the lease back.
            keeper.write_all(b"kept\n").map_err(own)?;
            Ok(exit_code::DONE)
        }
        Ok(Told::Failed { code, message }) => Err(Failure::new(code, message)),
        Err(_) => Err(Failure::own("the keeper was killed before it held a lease")),
    }
}

fn start_keeper(task: &Task) -> std::io::Result<UnixStream> {
    let (mut socket, theirs) = UnixStream::pair()?;
    Command::new(this_binary()?)
        .arg0("leasehold")
        .arg("__keeper")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .spawn()?;
    let mut line = serde_json::to_vec(task)?;
    line.push(b'\n');
    socket.write_all(&line)?;
    Ok(socket)
}

impl KeeperCommand {
    /// Serves until the lease is over. Its stdin is the socket to the `acquire`.
    pub fn execute(self) -> Result<u8, Failure> {
        let own = |error: std::io::Error| {
            Failure::own(format!("the keeper cannot work: {error}. It is started by `leasehold acquire` only"))
        };
        #[cfg(target_os = "linux")]
        let _ = nix::sys::prctl::set_name(c"leasehold-keep");
        let held = signals::hold().map_err(own)?;
        // Fails where it leads a group already, which is as good.
        let _ = nix::unistd::setsid();
        let socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().map_err(own)?);
        let mut line = String::new();
        let mut reader = BufReader::new(socket.try_clone().map_err(own)?);
        reader.read_line(&mut line).map_err(own)?;
        let task: Task = serde_json::from_str(&line).map_err(|error| own(error.into()))?;
        let messages = Messages::to_stderr();
        let runtime = runtime()?;
        let result = runtime.block_on(async {
            let mut signals = Signals::new(&held).map_err(own)?;
            Keeper { task, socket, signals: &mut signals, messages: &messages }.keep().await
        });
        runtime.shutdown_background();
        messages.flush();
        result
    }
}

struct Keeper<'a> {
    task: Task,
    socket: UnixStream,
    signals: &'a mut Signals,
    messages: &'a Messages,
}

impl Keeper<'_> {
    async fn keep(mut self) -> Result<u8, Failure> {
        let result = self.obtain().await;
        if let Err(failure) = &result {
            // Where nobody listens any more there is nobody to tell.
            let _ = tell(&self.socket, &Told::Failed { code: failure.code, message: failure.message.clone() });
            return Ok(exit_code::DONE);
        }
        result
    }

    async fn obtain(&mut self) -> Result<u8, Failure> {
        let options = Options {
            network: Network::from_env()?,
            ttl_ms: self.task.ttl_ms,
            needs: self.task.request.needs.clone(),
            connect_timeout_ms: self.task.connect_timeout_ms,
            ..Options::new(BaseUrl::parse_list(&self.task.url)?)
        };
        let mut gone = watch_process(self.task.pid, self.task.start);
        let mut starter = StarterWatch::begin(&self.socket)
            .map_err(|error| Failure::own(format!("the keeper cannot work: {error}")))?;
        let request = self.task.request.clone();
        let pid = self.task.pid;
        let client = tokio::select! {
            opened = granting::open(options, self.messages, self.signals) => opened?,
            why = abandoned(pid, &mut gone, &mut starter) => return Err(why),
        };
        let granted = tokio::select! {
            granted = granting::wait(&client, request, self.messages, self.signals) => granted.map_err(Failure::from),
            why = abandoned(pid, &mut gone, &mut starter) => Err(why),
        };
        let code = match granted {
            Ok(lease) => self.hand_and_hold(lease, gone, starter).await,
            Err(why) => Err(why),
        };
        // On every way out: a session that is only dropped keeps its place for a ttl.
        granting::close(&client).await;
        code
    }

    async fn hand_and_hold(
        &mut self,
        lease: LeaseGuard,
        gone: oneshot::Receiver<()>,
        starter: StarterWatch,
    ) -> Result<u8, Failure> {
        let how = self.task.secrets.as_deref().map(|how| if how == "env" { SecretsHow::Env } else { SecretsHow::File });
        let (handed, _secrets) = hand_over(&lease.info(), &self.task.url, how, None)?;
        tell(&self.socket, &Told::Granted(Box::new(handed)))
            .map_err(|error| Failure::own(format!("nobody waits for the lease any more: {error}")))?;
        if !starter.heard.await.unwrap_or(false) {
            return Ok(exit_code::OWN);
        }
        self.messages.flush();
        let_go_of_streams();
        self.hold(lease, gone).await;
        Ok(exit_code::DONE)
    }

    /// Holds until there is a reason not to, and gives the lease back.
    async fn hold(&mut self, lease: LeaseGuard, mut gone: oneshot::Receiver<()>) {
        let mut state = lease.watch();
        loop {
            let now_state = state.borrow_and_update().clone();
            match ending(&now_state) {
                Stop::No => {}
                Stop::Quietly => return,
                Stop::Process { kill_by } => {
                    self.stop_process(kill_by, &mut gone).await;
                    break;
                }
            }
            tokio::select! {
                changed = state.changed() => if changed.is_err() && state.borrow().standing == Standing::Active {
                    self.stop_process(boot_now(), &mut gone).await;
                    return;
                },
                _ = &mut gone => break,
                caught = self.signals.next() => if caught.number != Signal::SIGHUP as i32 {
                    break;
                },
                () = sleep_until(now_state.terminate_at) => {}
            }
        }
        if !lease.state().standing.is_final() {
            let _ = tokio::time::timeout(RELEASE, lease.release(None)).await;
        }
    }

    /// TERM, then KILL after the grace or when the lease leaves no more.
    async fn stop_process(&self, kill_by: BootTime, gone: &mut oneshot::Receiver<()>) {
        tree::signal_one(self.task.pid, self.task.start, Signal::SIGTERM);
        tree::signal_one(self.task.pid, self.task.start, Signal::SIGCONT);
        let kill_at = boot_now().plus(self.task.grace_ms).min(kill_by);
        tokio::select! {
            _ = &mut *gone => return,
            () = sleep_until(kill_at) => {}
        }
        tree::signal_one(self.task.pid, self.task.start, Signal::SIGKILL);
        let _ = tokio::time::timeout(RELEASE, gone).await;
    }
}

/// Comes when nobody has any use for the lease any more.
async fn abandoned(pid: i32, gone: &mut oneshot::Receiver<()>, starter: &mut StarterWatch) -> Failure {
    tokio::select! {
        _ = gone => Failure::own(format!("--while-pid {pid}: the process is gone")),
        _ = &mut starter.heard => Failure::own("nobody waits for the lease any more"),
    }
}

/// What a lease's state means for the process it is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    No,
    /// It was released: whoever did that is done with it.
    Quietly,
    Process {
        kill_by: BootTime,
    },
}

fn ending(state: &LeaseState) -> Stop {
    let kill_by = deadline_of(state).kill_at();
    match &state.standing {
        Standing::Active if boot_now() < state.terminate_at => Stop::No,
        Standing::Ended { why, .. } if why == "released" || why == "session_closed" => Stop::Quietly,
        Standing::Active | Standing::Ending(_) | Standing::Lost => Stop::Process { kill_by },
        // Its resources may be another's already; the process has its grace to leave them alone.
        Standing::Ended { .. } => Stop::Process { kill_by: BootTime(u64::MAX) },
    }
}

fn tell(mut socket: &UnixStream, told: &Told) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(told)?;
    line.push(b'\n');
    socket.write_all(&line)
}

/// Hears whether the `acquire` that started this took the lease over to its caller (`true`) or
/// ended (`false`).
struct StarterWatch {
    heard: oneshot::Receiver<bool>,
}

impl StarterWatch {
    fn begin(socket: &UnixStream) -> std::io::Result<Self> {
        let mut socket = socket.try_clone()?;
        let (tell, heard) = oneshot::channel();
        std::thread::Builder::new().name("starter".to_owned()).spawn(move || {
            let mut byte = [0];
            let _ = tell.send(matches!(socket.read(&mut byte), Ok(1)));
        })?;
        Ok(Self { heard })
    }
}

/// A keeper that kept its caller's output open would keep whoever reads it waiting.
fn let_go_of_streams() {
    if let Ok(null) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stderr(&null);
        let _ = nix::unistd::dup2_stdin(&null);
    }
}

/// Comes when the process is gone.
fn watch_process(pid: i32, start: u64) -> oneshot::Receiver<()> {
    let (tell, gone) = oneshot::channel();
    let watch = move || {
        tree::wait_until_gone(pid, start, LOOK_EVERY);
        let _ = tell.send(());
    };
    let _ = std::thread::Builder::new().name("process".to_owned()).spawn(watch);
    gone
}

#[cfg(test)]
mod tests {
    use super::{Stop, ending};
    use crate::client::{LeaseState, Standing};
    use crate::clock::{BootTime, boot_now};

    #[test]
    fn only_a_release_spares_the_process() {
        let ended = |why: &str| Standing::Ended { why: why.into(), message: String::new() };
        let state = |standing, left_ms| LeaseState {
            deadline: boot_now().plus(left_ms),
            terminate_at: boot_now().plus(left_ms / 2),
            hold_ends_at: None,
            standing,
        };
        assert_eq!(ending(&state(Standing::Active, 600_000)), Stop::No);
        assert_eq!(ending(&state(ended("released"), 600_000)), Stop::Quietly);
        assert_eq!(ending(&state(ended("revoked"), 600_000)), Stop::Process { kill_by: BootTime(u64::MAX) });
        for standing in [Standing::Active, Standing::Lost] {
            assert!(matches!(ending(&state(standing, 0)), Stop::Process { kill_by } if kill_by <= boot_now()));
        }
    }
}
