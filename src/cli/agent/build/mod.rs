//! A build: a process of this binary for each, started by the agent, that holds the build's lease.
//!
//! ```text
//!   job from the agent ─▶ resume the session ─▶ checkout ─▶ step ─▶ step ... ─▶ log whole ─▶ report ─▶ close
//!                                                 └── each under the guard, which kills all of it ──┘
//! ```
//!
//! It is built like `run`: signals held back, subreaper, and the guard started before there are threads; the
//! guard kills everything when the deadline comes or this process is gone, and then closes the session.
//! Nothing runs before the broker has answered the resume.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use clap::Args;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub mod checkout;
mod course;
mod environment;
mod reasons;
mod reporter;
mod verdict;

use self::course::Course;
use self::reasons::{Outside, Reasons, Times};
use self::reporter::Reporter;
use self::verdict::{Outcome, Verdict};
use super::container::{self, Came};
use super::folders::{BuildFolder, Folders};
use super::handover::{FromBuild, Handover, ToBuild};
use super::output::mask::Masker;
use super::output::sender::{Sender, Sent};
use super::output::spool::{self, Bounds};
use super::output::tap::{self, Tap};
use crate::cli::granting;
use crate::cli::run::guard::talk::{self, Lines, Order, SessionKey, Start};
use crate::cli::run::handle::{GuardHandle, this_binary};
use crate::cli::run::hold::deadline_of;
use crate::cli::run::link::GuardLink;
use crate::cli::run::secrets::SecretsDirectory;
use crate::cli::run::signals::{self, Signals};
use crate::cli::run::{environment as lease_environment, tree};
use crate::cli::terminal::Messages;
use crate::cli::{Failure, exit_code, runtime};
use crate::client::http::Http;
use crate::client::{BaseUrl, Client, ClientError, LeaseGuard, Network, Options, Waiting};
use crate::clock::{BootTime, boot_now};
use crate::protocol::builds::Reported;
use crate::protocol::info::LeaseInfo;
use crate::units::show_bytes;

/// Between TERM and KILL for what a step leaves behind when it ends, at most.
const LEFTOVER_GRACE_MS_MAX: u64 = 2_000;
/// How long the rest of a log is tried to be brought to a broker, from the end of the build on.
const REST_MS: u64 = 10 * 60_000;
/// The same where the agent is gone: it may be started again at once.
const REST_MS_ALONE: u64 = 5_000;
/// How long giving the lease back may take.
const RELEASE: std::time::Duration = std::time::Duration::from_secs(5);

/// A build; started by `leasehold agent` only.
#[derive(Debug, Args)]
pub struct BuildCommand {}

/// What is made before there are threads.
struct Prepared {
    held: signals::Held,
    guard: GuardHandle,
    tree: tree::Tree,
    /// What the build prints.
    output: OwnedFd,
    /// The way to the agent.
    agent: UnixStream,
}

impl BuildCommand {
    /// Sees a build through. Its stdin is the socket to the agent.
    pub fn execute(self) -> Result<u8, Failure> {
        let own = |error: std::io::Error| {
            Failure::own(format!("the build cannot be begun: {error}. It is started by `leasehold agent` only"))
        };
        // Else it is called by the link it was started through.
        #[cfg(target_os = "linux")]
        let _ = nix::sys::prctl::set_name(c"leasehold-build");
        let prepared = prepare().map_err(own)?;
        let mut lines = Lines::default();
        let handover = begin(&prepared.agent, &mut lines).map_err(own)?;
        let folder = BuildFolder::at(handover.folder.clone());
        let _locked = folder.make().map_err(own)?;
        folder.keep_key(&handover.key).map_err(own)?;
        let messages = Messages::to_stderr();
        let runtime = runtime()?;
        let told = prepared.agent.try_clone().map_err(own)?;
        let verdict = runtime.block_on(async { see_through(&handover, &folder, prepared, lines).await.map_err(own) });
        runtime.shutdown_background();
        let verdict = verdict?;
        if let Err(error) = tidy(&handover, &folder, &verdict) {
            messages.line(format!("build #{}: its folder cannot be put away: {error}", handover.job.build));
        }
        tell(&told, &FromBuild::Ended { what: verdict.line(boot_now().since(handover.taken_at)) });
        messages.flush();
        Ok(exit_code::DONE)
    }
}

/// Everything that has to happen while this process has one thread.
fn prepare() -> std::io::Result<Prepared> {
    let held = signals::hold()?;
    tree::become_subreaper()?;
    let mut tree = tree::Tree::below_self();
    tree.spare_present();
    let (output, printed) = tap::pipe()?;
    let nothing = std::fs::File::open("/dev/null")?;
    let guard = GuardHandle::spawn_with(&this_binary()?, &nothing, Some(&printed))?;
    let agent = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    Ok(Prepared { held, guard, tree, output, agent })
}

/// Reads the job.
fn begin(mut agent: &UnixStream, lines: &mut Lines) -> std::io::Result<Box<Handover>> {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let count = agent.read(&mut bytes)?;
        if count == 0 {
            return Err(std::io::Error::other("nobody says what to build"));
        }
        if let Some(ToBuild::Begin(handover)) = lines.push(&bytes[..count]).into_iter().next() {
            return Ok(handover);
        }
    }
}

/// An agent that is gone has no use for it.
fn tell(agent: &UnixStream, word: &FromBuild) {
    use std::io::Write;
    let mut agent = agent;
    let _ = agent.set_nonblocking(false).and_then(|()| agent.write_all(&talk::line(word)));
}

/// Removes the folder, or puts it aside for people to look at.
fn tidy(handover: &Handover, folder: &BuildFolder, verdict: &Verdict) -> std::io::Result<()> {
    let failed = matches!(verdict.outcome, Outcome::Failed | Outcome::TimedOut);
    let root = folder.path().parent().and_then(std::path::Path::parent);
    match root.filter(|_| handover.keep_failed && failed) {
        Some(root) => Folders::make(root)?.keep(folder).map(drop),
        None => folder.remove(),
    }
}

/// A build under way.
struct Build<'a> {
    handover: &'a Handover,
    folder: &'a BuildFolder,
    tap: Tap,
    http: Http,
    /// When to give up bringing the rest of the log and the reports; `None` while the build goes on.
    until: watch::Sender<Option<BootTime>>,
}

/// From the job to the session's close.
async fn see_through(
    handover: &Handover,
    folder: &BuildFolder,
    prepared: Prepared,
    lines: Lines,
) -> std::io::Result<Verdict> {
    let Prepared { held, guard, tree, output, agent } = prepared;
    let job = &handover.job;
    let (writer, reader) = spool::create(&folder.spool(), Bounds::default())?;
    let tap = Tap::open(output, Masker::new(environment::secrets(handover, None)), writer)?;
    let config = |error: ClientError| std::io::Error::other(error.to_string());
    let network = Network::from_env().map_err(config)?;
    let urls = BaseUrl::parse_list(&handover.url).map_err(config)?;
    let http = Http::with_network(urls.clone(), network.clone());
    let times = Times { taken_at: handover.taken_at, timeout_ms: job.timeout_ms, grace_ms: job.grace_ms };
    let outside = Outside::new(agent, lines, Signals::new(&held)?, &tap, times)?;
    let link = GuardLink::new(guard)?;
    let sender = Sender { http: http.clone(), build: job.build, attempt: job.attempt, key: handover.key.clone() };
    let until = watch::Sender::new(None);
    let sending = tokio::spawn(sender.send(reader, until.subscribe()));
    let options = Options { network, connect_timeout_ms: handover.connect_timeout_ms, ..Options::new(urls) };
    let (client, waiting) = Client::adopt(options, job.session.clone()).map_err(config)?;
    let build = Build { handover, folder, tap, http, until };
    let (verdict, lease, link) = build.begin(waiting, link, tree, outside).await;
    build.conclude(&verdict, sending).await;
    if let Some(lease) = lease {
        release(lease, verdict.outcome).await;
    }
    granting::close(&client).await;
    link.done().await;
    Ok(verdict)
}

async fn release(lease: LeaseGuard, outcome: Outcome) {
    if !lease.state().standing.is_final() {
        // What is not given back in time comes back with the session.
        let _ = tokio::time::timeout(RELEASE, lease.release(outcome.of_the_work())).await;
    }
}

impl Build<'_> {
    /// Waits for the lease, then does the work.
    async fn begin(
        &self,
        waiting: Waiting,
        link: GuardLink,
        tree: tree::Tree,
        mut outside: Outside,
    ) -> (Verdict, Option<LeaseGuard>, GuardLink) {
        let session = &self.handover.job.session;
        let key =
            SessionKey { url: self.handover.url.clone(), session: session.session, secret: session.secret.clone() };
        link.order(Order::Session(key));
        let lease = tokio::select! {
            lease = waiting => lease,
            reason = outside.next() => return (reason.verdict, None, link),
        };
        let lease = match lease {
            Ok(lease) => lease,
            Err(error @ ClientError::Refused { .. }) => {
                return (Verdict::of(Outcome::Stopped, error.to_string()), None, link);
            }
            Err(error) => return (Verdict::lost(error.to_string()), None, link),
        };
        let info = lease.info();
        self.tap.mask(Masker::new(environment::secrets(self.handover, Some(&info))));
        let reasons = Reasons::new(outside, &lease, self.tap.clone());
        let mut course = Course::new(link, tree, self.tap.clone(), lease, reasons);
        let verdict = self.work(&mut course, &info).await.err().unwrap_or_else(Verdict::passed);
        let (link, lease) = course.finish();
        (verdict, Some(lease), link)
    }

    /// Checks out and runs the steps. How it ends, other than well, is the error.
    async fn work(&self, course: &mut Course, info: &LeaseInfo) -> Result<(), Verdict> {
        let job = &self.handover.job;
        self.tap.say("--- checkout");
        self.checkout(course).await?;
        let reporting = tokio::spawn({
            let (reporter, until) = (self.reporter(), self.until.subscribe());
            async move { reporter.report(Reported::Running, until).await }
        });
        let secrets = self.secrets_file(info)?;
        let worked = match &job.container {
            Some(_) => self.contained(course, info, secrets.as_ref()).await,
            None => self.steps(course, info, secrets.as_ref()).await,
        };
        reporting.abort();
        worked
    }

    async fn checkout(&self, course: &mut Course) -> Result<(), Verdict> {
        let task = checkout::Task {
            checkout: self.handover.job.checkout.clone(),
            mirrors: self.handover.mirrors.clone(),
            workspace: self.folder.workspace(),
        };
        let told = self.folder.tell("checkout.json", &task).map_err(lost_to("the checkout cannot be begun"))?;
        let start = Start {
            environment: BTreeMap::new(),
            folder: Some(self.folder.path().to_owned()),
            ..self.start(course, helper("__checkout", told))
        };
        match course.run(start).await? {
            tree::Ended::Code(0) => Ok(()),
            tree::Ended::Code(code) if code == i32::from(exit_code::REFUSED) => {
                Err(Verdict::of(Outcome::Failed, "the commit could not be checked out"))
            }
            ended => Err(Verdict::lost(format!("the checkout {}", how(ended)))),
        }
    }

    async fn steps(
        &self,
        course: &mut Course,
        info: &LeaseInfo,
        secrets: Option<&SecretsDirectory>,
    ) -> Result<(), Verdict> {
        let file = secrets.map(|secrets| secrets.file().to_string_lossy().into_owned());
        let variables = environment::on_the_agent(self.handover, info, self.folder, file.as_deref());
        for step in &self.handover.job.steps {
            self.tap.say(&heading(&step.name));
            if !self.folder.workspace().is_dir() {
                // The guard would say that there is no `sh`, and that is nobody's fault.
                let why = format!("step \"{}\" has no workspace to run in: a step before removed it", step.name);
                return Err(Verdict::of(Outcome::Failed, why));
            }
            let command = ["sh", "-e", "-c", step.run.as_str()].map(OsString::from).to_vec();
            let start = Start {
                environment: variables.clone(),
                bare: true,
                folder: Some(self.folder.workspace()),
                remove: secrets.map(|secrets| secrets.directory().to_owned()),
                ..self.start(course, command)
            };
            let ended = course.run(start).await?;
            failed(&format!("step \"{}\"", step.name), ended)?;
        }
        Ok(())
    }

    /// All steps in one container. It is removed by whoever comes last: the helper that made it, this
    /// process, the guard's hook, the agent, or the agent's next start.
    async fn contained(
        &self,
        course: &mut Course,
        info: &LeaseInfo,
        secrets: Option<&SecretsDirectory>,
    ) -> Result<(), Verdict> {
        let file = secrets.map(|_| container::SECRETS_FILE.to_owned());
        let variables = environment::in_a_container(self.handover, info, file.as_deref());
        let task = container::Task::new(
            self.handover,
            info.lease,
            self.folder,
            variables,
            secrets.map(|secrets| secrets.directory().to_owned()),
        )
        .map_err(|why| Verdict::of(Outcome::Failed, why))?;
        let told = self.folder.tell("container.json", &task).map_err(lost_to("the container cannot be begun"))?;
        let kill = self.folder.tell("kill.json", &task.killing()).map_err(lost_to("the container cannot be begun"))?;
        let start = Start {
            on_lost: Some(container::kill_line(&kill)),
            remove: secrets.map(|secrets| secrets.directory().to_owned()),
            ..self.start(course, helper("__container", told))
        };
        let ended = course.run(start).await;
        // Whatever became of the helper, and while the lease is held: what it is for may be in use in there.
        let removed = if task.may_exist() { self.removed(&task).await } else { Ok(()) };
        let ended = ended?;
        let (code, out_of_memory) = match task.came() {
            Some(Came::Exited { code, out_of_memory }) => (code, out_of_memory),
            Some(Came::Refused(why)) => return Err(Verdict::of(Outcome::Failed, why)),
            Some(Came::Failed(why)) => return Err(Verdict::lost(why)),
            None => return Err(Verdict::lost(format!("what watched over its container {}", how(ended)))),
        };
        removed.map_err(|why| Verdict::lost(format!("its container cannot be removed: {why}")))?;
        failed(&contained_what(out_of_memory, task.memory_bytes()), tree::Ended::Code(code))
    }

    async fn removed(&self, task: &container::Task) -> Result<(), String> {
        let tap = self.tap.clone();
        let trouble = move |why: String| {
            let line = format!("its container cannot be removed, which is tried on: {why}");
            tokio::task::spawn_blocking(move || tap.say(&line));
        };
        let removed = task.killing().persist(trouble).await;
        if let Err(why) = &removed {
            eprintln!("leasehold: build #{}: a container of it may be left: {why}", self.handover.job.build);
        }
        removed
    }

    /// A command as all of them are started.
    fn start(&self, course: &Course, command: Vec<OsString>) -> Start {
        Start {
            command,
            leftover_grace_ms: self.handover.job.grace_ms.min(LEFTOVER_GRACE_MS_MAX),
            deadline: Some(deadline_of(&course.lease().state())),
            ..Start::default()
        }
    }

    fn secrets_file(&self, info: &LeaseInfo) -> Result<Option<SecretsDirectory>, Verdict> {
        let file = lease_environment::secrets_file(info, BTreeMap::new());
        if file.is_empty() {
            return Ok(None);
        }
        SecretsDirectory::write(&file).map(Some).map_err(lost_to("the secrets cannot be handed over"))
    }

    fn reporter(&self) -> Reporter {
        let job = &self.handover.job;
        Reporter { http: self.http.clone(), build: job.build, attempt: job.attempt, key: self.handover.key.clone() }
    }

    /// Nothing of it runs any more: brings the rest of the log to the broker, and says how it ended.
    async fn conclude(&self, verdict: &Verdict, sending: JoinHandle<Sent>) {
        let alone = verdict.message.as_deref() == Some(reasons::AGENT_GONE);
        let rest_ms = if alone { REST_MS_ALONE } else { REST_MS };
        self.until.send_replace(Some(boot_now().plus(rest_ms)));
        let (tap, line) = (self.tap.clone(), verdict.line(boot_now().since(self.handover.taken_at)));
        let finishing = tokio::task::spawn_blocking(move || {
            tap.say(&line);
            tap.finish()
        });
        let (Ok(log), Ok(sent)) = (finishing.await, sending.await) else { return };
        let build = self.handover.job.build;
        if let Sent::Closed(why) | Sent::Failed(why) = &sent {
            eprintln!("leasehold: build #{build}: not all of its log is stored: {why}");
        }
        if let Err(why) = self.reporter().report(verdict.report(log), self.until.subscribe()).await {
            eprintln!("leasehold: build #{build}: its end could not be reported: {why}");
        }
    }
}

/// Reads what a helper is told, and removes it.
pub(super) fn read_once<T: serde::de::DeserializeOwned>(path: &std::path::Path) -> std::io::Result<T> {
    let bytes = std::fs::read(path)?;
    std::fs::remove_file(path)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// A hidden command of this binary, which reads what to do in a file that it removes.
fn helper(name: &str, told: std::path::PathBuf) -> Vec<OsString> {
    let binary = this_binary().unwrap_or_else(|_| "leasehold".into());
    vec![binary.into(), name.into(), told.into()]
}

/// How a step is announced; what follows in the log until the next such line belongs to it.
pub(super) fn heading(name: &str) -> String {
    format!("--- {}", name.replace(['\n', '\r'], " "))
}

fn how(ended: tree::Ended) -> String {
    match ended {
        tree::Ended::Code(code) => format!("exited with {code}"),
        tree::Ended::Signal(number) => {
            let name = nix::sys::signal::Signal::try_from(number).map_or("an unknown signal", |signal| signal.as_str());
            format!("was ended by {name}")
        }
    }
}

/// What ended, in a container that exited.
fn contained_what(out_of_memory: bool, memory_bytes: Option<u64>) -> String {
    match (out_of_memory, memory_bytes) {
        (false, _) => "the container".to_owned(),
        (true, Some(bytes)) => format!("memory ran out in the container, which has {}, and it", show_bytes(bytes)),
        (true, None) => {
            "the machine's memory ran out for the container, which has no bound of its own, and it".to_owned()
        }
    }
}

fn failed(what: &str, ended: tree::Ended) -> Result<(), Verdict> {
    let exit_code = match ended {
        tree::Ended::Code(0) => return Ok(()),
        tree::Ended::Code(code) => code,
        tree::Ended::Signal(number) => i32::from(exit_code::of_signal(number)),
    };
    let message = Some(format!("{what} {}", how(ended)));
    Err(Verdict { outcome: Outcome::Failed, message, exit_code: Some(exit_code) })
}

fn lost_to(what: &'static str) -> impl Fn(std::io::Error) -> Verdict {
    move |error| Verdict::lost(format!("{what}: {error}"))
}
