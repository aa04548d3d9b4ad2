//! Builds in containers, through the Docker API of Docker or Podman.
//!
//! A helper process under the build's guard makes the container, passes on what it prints and ends with it, so
//! that to its build it is a command like any other: TERM stops the container, then kills it. What the guard
//! cannot reach by a signal is reached by a label: whoever comes last removes all containers of the build,
//! be that this helper, the build, the guard's hook when the lease is lost or the build was killed, the agent
//! when a build's process has died, or the agent's next start. Only where all of these die at once, machine
//! and engine apart, does a container run on until the agent is started again.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bollard::Docker;
use bollard::container::AttachContainerResults;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptions, InspectContainerOptions, StartContainerOptions,
    StopContainerOptionsBuilder,
};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

mod engine;
mod image;
mod killing;
mod login;
mod output;

use self::engine::{Engine, Info, connect};
pub use self::killing::{Killing, kill_line};
use self::output::{Output, follow_to_its_end};
use super::folders::BuildFolder;
use super::handover::{ContainerPolicy, Handover};
use crate::cli::{Failure, exit_code};

/// Where the commit is in a container.
const WORKSPACE: &str = "/workspace";
/// Where the lease's secrets are in a container.
const SECRETS: &str = "/run/leasehold";
/// The file with them.
pub const SECRETS_FILE: &str = "/run/leasehold/secrets.json";
/// Labels by which containers are found again.
const LABEL_AGENT: &str = "leasehold.agent";
const LABEL_BUILD: &str = "leasehold.build";
const LABEL_LEASE: &str = "leasehold.lease";
/// Runs the steps, two arguments each: the heading, and what is for the shell. It is the container's first
/// process, so TERM is its to pass on: to everything in the container, as a guard does. No step begins after it,
/// whatever the one under way makes of it.
///
/// What the steps print is one stream, as it is on the agent itself. The other one is its own, to say what an engine
/// need not know: that memory ran out (Podman's watcher misses it), as the container's cgroup has it, of either kind.
const DRIVER: &str = r#"
exec 9>&2 2>&1
over=
code=0
trap 'over=1; kill -TERM -1' TERM
while [ $# -gt 0 ] && [ $code -eq 0 ] && [ -z "$over" ]; do
    printf '%s\n' "$1"
    sh -e -c "$2" 9>&- &
    step=$!
    shift 2
    wait $step || code=$?
    while kill -0 $step 2>/dev/null; do
        code=0
        wait $step || code=$?
    done
done
for counts in /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control; do
    [ -r $counts ] || continue
    while read -r name value; do
        case $name=$value in oom_kill=[1-9]*) echo OUT-OF-MEMORY >&9 ;; esac
    done <$counts
done
exit $code
"#;
/// What runtimes say of a container that will not start the next time either: its image has no `sh`, or it has too
/// little memory for that.
const NEVER_STARTS: &[&str] = &["executable file not found", "command that was not found", "memory limit too low"];
/// How much sooner than the build's grace the container's own is over.
const GRACE_LEAD_MS: u64 = 1_000;

/// A container to run; written by the build for its helper.
#[derive(Clone, Serialize, Deserialize)]
pub struct Task {
    killing: Killing,
    image: String,
    /// Headings and commands by turns.
    steps: Vec<String>,
    environment: BTreeMap<String, String>,
    binds: Vec<String>,
    network: Option<String>,
    memory_bytes: Option<u64>,
    cpu_milli: Option<u64>,
    pids: Option<u32>,
    labels: BTreeMap<String, String>,
    grace_ms: u64,
    /// Where the helper says what came of it.
    result: PathBuf,
}

/// What came of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Came {
    /// Its steps ended, with this code.
    Exited {
        /// 0 to 255.
        code: i32,
        /// Whether something in there was killed as memory ran out.
        out_of_memory: bool,
    },
    /// The engine has no such image, or does not take what is asked for.
    Refused(String),
    /// The engine failed, or is not there.
    Failed(String),
}

/// Runs a build's container; started by a build only.
#[derive(Debug, Args)]
pub struct ContainerCommand {
    /// The file with what to do; it is removed
    task: PathBuf,
}

/// Ends the containers of a build; started by a guard only.
#[derive(Debug, Args)]
pub struct KillContainerCommand {
    /// The file that says which
    task: PathBuf,
}

impl Task {
    /// The container of a build.
    ///
    /// # Errors
    /// In words, where the pipeline asks for what this agent does not allow.
    pub fn new(
        handover: &Handover,
        lease: u64,
        folder: &BuildFolder,
        environment: BTreeMap<String, String>,
        secrets: Option<PathBuf>,
    ) -> Result<Self, String> {
        let (job, policy) = (&handover.job, &handover.containers);
        let container = job.container.clone().unwrap_or_default();
        let mut binds = vec![format!("{}:{WORKSPACE}", folder.workspace().display())];
        binds.extend(secrets.map(|secrets| format!("{}:{SECRETS}:ro", secrets.display())));
        for mount in &container.mounts {
            binds.push(allowed(mount, policy)?);
        }
        let steps = job.steps.iter().flat_map(|step| [super::build::heading(&step.name), step.run.clone()]);
        let labels = [
            (LABEL_AGENT, handover.agent.clone()),
            (LABEL_BUILD, label_of(&handover.agent, job.build, job.attempt)),
            (LABEL_LEASE, lease.to_string()),
        ];
        Ok(Self {
            killing: Killing::of_build(policy, &handover.agent, job.build, job.attempt),
            image: image::tagged(&container.image),
            steps: steps.collect(),
            environment,
            binds,
            network: container.network,
            memory_bytes: container.memory_bytes,
            cpu_milli: container.cpu_milli,
            pids: container.pids,
            labels: labels.map(|(name, value)| (name.to_owned(), value)).into(),
            grace_ms: job.grace_ms,
            result: folder.private().join("container-result.json"),
        })
    }

    /// How to end it.
    #[must_use]
    pub const fn killing(&self) -> &Killing {
        &self.killing
    }

    /// How much memory it may have.
    #[must_use]
    pub const fn memory_bytes(&self) -> Option<u64> {
        self.memory_bytes
    }

    /// Whether its helper came so far that there may be a container.
    #[must_use]
    pub fn may_exist(&self) -> bool {
        self.begun().exists()
    }

    /// The file by which that is known.
    fn begun(&self) -> PathBuf {
        self.result.with_extension("begun")
    }

    /// What its helper said came of it; `None` where it said nothing.
    #[must_use]
    pub fn came(&self) -> Option<Came> {
        serde_json::from_slice(&std::fs::read(&self.result).ok()?).ok()
    }
}

/// One build's label: another agent on the same engine may have builds of the same number.
fn label_of(agent: &str, build: u64, attempt: u32) -> String {
    format!("{agent}/{build}-{attempt}")
}

/// A mount, where this agent allows it.
fn allowed(mount: &str, policy: &ContainerPolicy) -> Result<String, String> {
    let parts: Vec<&str> = mount.split(':').collect();
    let (host, inside, mode) = match parts[..] {
        [host, inside] => (host, inside, ""),
        [host, inside, mode @ ("ro" | "rw")] => (host, inside, mode),
        _ => return Err(format!("the mount {mount:?} is none: expected HOST:CONTAINER or HOST:CONTAINER:ro")),
    };
    if !host.starts_with('/') || !inside.starts_with('/') {
        return Err(format!("the mount {mount:?} needs whole paths, which begin with /"));
    }
    if Path::new(inside).starts_with(WORKSPACE) || Path::new(inside).starts_with(SECRETS) {
        return Err(format!("the mount {mount:?} would hide what the build has in {inside}"));
    }
    // With links followed on both sides: what is allowed is a place, not a name.
    let real = Path::new(host).canonicalize().map_err(|error| format!("the mount {mount:?}: {host}: {error}"))?;
    let mut places = policy.mount_allow.iter().filter_map(|folder| folder.canonicalize().ok());
    if !places.any(|folder| real.starts_with(folder)) {
        return Err(format!("this agent does not allow to mount {host}: it is started without --mount-allow for it"));
    }
    let mode = if mode.is_empty() { String::new() } else { format!(":{mode}") };
    Ok(format!("{}:{inside}{mode}", real.display()))
}

impl ContainerCommand {
    /// Runs it to its end; what it prints is on stdout.
    pub fn execute(self) -> Result<u8, Failure> {
        let own = |error: std::io::Error| {
            Failure::own(format!("{}: {error}. It is started by a build only", self.task.display()))
        };
        let task: Task = super::build::read_once(&self.task).map_err(own)?;
        let runtime = crate::cli::runtime()?;
        let came = runtime.block_on(task.run()).unwrap_or_else(|came| came);
        if let Came::Refused(why) | Came::Failed(why) = &came {
            println!("{why}");
        }
        let written = serde_json::to_vec(&came).map_err(std::io::Error::from);
        written.and_then(|bytes| std::fs::write(&task.result, bytes)).map_err(own)?;
        Ok(exit_code::DONE)
    }
}

impl KillContainerCommand {
    /// Ends them.
    pub fn execute(self) -> Result<u8, Failure> {
        let read = std::fs::read(&self.task).and_then(|bytes| Ok(serde_json::from_slice::<Killing>(&bytes)?));
        let killing = match read {
            // The build that was to be watched has put everything away.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(exit_code::DONE),
            read => read.map_err(|error| Failure::own(format!("{}: {error}", self.task.display())))?,
        };
        let runtime = crate::cli::runtime()?;
        runtime.block_on(killing.kill()).map_err(Failure::refused)?;
        Ok(exit_code::DONE)
    }
}

/// What the engine says, without what the library says of it.
fn said(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => message.clone(),
        Error::DockerStreamError { error } => error.clone(),
        other => other.to_string(),
    }
}

/// What an engine's answer to what it is asked for means for a build: some things it will never do, others it may
/// do later. Of a container that was made, `404` and `409` say only that somebody removed it.
fn told(what: &str, error: &Error, is_made: bool) -> Came {
    let words = format!("{what}: {}", said(error));
    match error {
        Error::DockerResponseServerError { status_code: 400, .. } => Came::Refused(words),
        Error::DockerResponseServerError { status_code: 404 | 409, .. } if !is_made => Came::Refused(words),
        // To Podman that is an error like any other.
        Error::DockerResponseServerError { message, .. }
            if NEVER_STARTS.iter().any(|never| message.contains(never)) =>
        {
            Came::Refused(words)
        }
        _ => Came::Failed(words),
    }
}

impl Task {
    async fn run(&self) -> Result<Came, Came> {
        let mut ended = signal(SignalKind::terminate()).map_err(|error| Came::Failed(error.to_string()))?;
        let engine = tokio::select! {
            engine = self.ready() => engine?,
            _ = ended.recv() => return Err(Came::Failed("it was stopped before its container ran".to_owned())),
        };
        let docker = &engine.docker;
        // Not left half way: a container that is made when nobody asks for it any more is found by nobody.
        let (id, output) = self.begin(&engine).await?;
        let followed = {
            let following = follow_to_its_end(docker, &id, output);
            tokio::pin!(following);
            tokio::select! {
                followed = &mut following => followed,
                _ = ended.recv() => {
                    let (stopped, followed) = tokio::join!(self.stop(docker, &id), following);
                    stopped.and(followed)
                }
            }
        };
        let said = followed.map_err(|error| Came::Failed(format!("the container's output cannot be had: {error}")))?;
        let looked = docker.inspect_container(&id, None::<InspectContainerOptions>).await;
        let looked = looked.map_err(|error| Came::Failed(format!("the container cannot be looked at: {error}")))?;
        let state = looked.state.unwrap_or_default();
        if state.running == Some(true) {
            return Err(Came::Failed("the engine ended the output of a container that still runs".to_owned()));
        }
        let code = state.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or(-1);
        let out_of_memory = said || state.oom_killed == Some(true);
        if out_of_memory {
            println!("memory ran out, and something in the container was killed for it");
        }
        Ok(Came::Exited { code, out_of_memory })
    }

    /// Finds the engine, and sees to it that it has the image. Leaves nothing where it is dropped half way.
    async fn ready(&self) -> Result<Engine, Came> {
        let engine = connect(self.killing.socket.as_deref()).await.map_err(Came::Failed)?;
        image::have(&engine.docker, &self.image).await?;
        Ok(engine)
    }

    /// Makes and starts the container; answers its number, and all that it prints.
    async fn begin(&self, engine: &Engine) -> Result<(String, Output), Came> {
        let docker = &engine.docker;
        let info = engine.info().await.map_err(Came::Failed)?;
        if self.is_limited() && !info.has_limits() {
            println!("memory, cpus and pids are not in force: the engine is rootless, and this machine has cgroups v1");
        }
        std::fs::write(self.begun(), "").map_err(|error| Came::Failed(error.to_string()))?;
        let made = docker.create_container(None::<CreateContainerOptions>, self.body(&info)).await;
        let made = made.map_err(|error| told("the container cannot be made", &error, false))?;
        for warning in &made.warnings {
            println!("the engine warns: {warning}");
        }
        // Before it starts, and not read from the engine's log: Podman's ends before it has been read to its end.
        let options = AttachContainerOptionsBuilder::new().stream(true).stdout(true).stderr(true).build();
        let attached = docker.attach_container(&made.id, Some(options)).await;
        let AttachContainerResults { output, input: _ } =
            attached.map_err(|error| told("the container's output cannot be had", &error, true))?;
        let started = docker.start_container(&made.id, None::<StartContainerOptions>).await;
        started.map_err(|error| told("the container cannot be started", &error, true))?;
        Ok((made.id, output))
    }

    const fn is_limited(&self) -> bool {
        self.memory_bytes.is_some() || self.cpu_milli.is_some() || self.pids.is_some()
    }

    fn body(&self, info: &Info) -> ContainerCreateBody {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let (user, group) = (nix::unistd::getuid(), nix::unistd::getgid());
        let words = ["-c", DRIVER, "sh"].into_iter().chain(self.steps.iter().map(String::as_str));
        ContainerCreateBody {
            image: Some(self.image.clone()),
            // Where the engine is this user's own, root in the container is this user, and nobody else is. An image
            // may name another.
            user: Some(if info.is_rootless() { "0:0".to_owned() } else { format!("{user}:{group}") }),
            entrypoint: Some(vec!["sh".to_owned()]),
            cmd: Some(words.map(str::to_owned).collect()),
            env: Some(self.environment.iter().map(|(name, value)| format!("{name}={value}")).collect()),
            working_dir: Some(WORKSPACE.to_owned()),
            labels: Some(self.labels.clone().into_iter().collect()),
            host_config: Some(HostConfig {
                binds: Some(self.binds.clone()),
                network_mode: self.network.clone(),
                memory: self.memory_bytes.map(number),
                nano_cpus: self.cpu_milli.map(|milli| number(milli.saturating_mul(1_000_000))),
                pids_limit: self.pids.map(i64::from),
                security_opt: Some(vec!["no-new-privileges".to_owned()]),
                // It is kept by the build.
                log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        }
    }

    /// TERM, and KILL when the grace is over.
    async fn stop(&self, docker: &Docker, id: &str) -> Result<(), Error> {
        let grace_s = self.grace_ms.saturating_sub(GRACE_LEAD_MS) / 1_000;
        let options = StopContainerOptionsBuilder::new().t(i32::try_from(grace_s).unwrap_or(i32::MAX)).build();
        match docker.stop_container(id, Some(options)).await {
            // It had ended already.
            Err(Error::DockerResponseServerError { status_code: 304 | 404, .. }) => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        BuildFolder, Came, ContainerPolicy, Error, Info, LABEL_AGENT, LABEL_BUILD, LABEL_LEASE, Task, allowed, told,
    };

    #[test]
    fn what_a_pipeline_says_of_its_container_reaches_the_engine() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("cache")).unwrap();
        let cache = root.join("cache").display().to_string();
        let told = json!({
            "job": {
                "build": 17, "attempt": 2, "repository": "acme/app", "pipeline": "unit", "line": "branch main",
                "session": {
                    "session": 1, "secret": "s", "instance": "i", "request_id": 1, "lease": 5, "ttl_ms": 10_000,
                },
                "checkout": { "url": "/origin", "git_ref": "refs/heads/main", "sha": "1a" },
                "steps": [{ "name": "test", "run": "true" }], "env": {}, "timeout_ms": 1, "grace_ms": 2,
                "container": {
                    "image": "debian", "network": "none", "mounts": [format!("{cache}:/cache:ro")],
                    "memory_bytes": 67_108_864, "cpu_milli": 1_500, "pids": 64,
                },
            },
            "key": "k", "taken_at": 0, "url": "ws://localhost", "folder": "/builds/17-2", "mirrors": "/builds/mirrors",
            "agent": "rack", "passed_on": {}, "containers": { "socket": null, "mount_allow": [cache] },
            "connect_timeout_ms": 0, "keep_failed": false,
        });
        let handover = serde_json::from_value(told).unwrap();
        let build = BuildFolder::at("/builds/17-2".into());
        let task = Task::new(&handover, 5, &build, [("CI".into(), "true".into())].into(), None).unwrap();
        let rootless: Info = serde_json::from_value(json!({ "Rootless": true })).unwrap();
        let (body, rootless) = (task.body(&Info::default()), task.body(&rootless));
        let user = format!("{}:{}", nix::unistd::getuid(), nix::unistd::getgid());
        assert_eq!((body.user, rootless.user), (Some(user), Some("0:0".to_owned())));
        assert_eq!((body.image.as_deref(), body.env), (Some("debian:latest"), Some(vec!["CI=true".to_owned()])));
        assert_eq!(body.cmd.unwrap()[3..], ["--- test", "true"]);
        let labels = body.labels.unwrap();
        assert_eq!((&*labels[LABEL_AGENT], &*labels[LABEL_BUILD], &*labels[LABEL_LEASE]), ("rack", "rack/17-2", "5"));
        let host = body.host_config.unwrap();
        let binds = vec!["/builds/17-2/workspace:/workspace".to_owned(), format!("{cache}:/cache:ro")];
        assert_eq!((host.binds, host.network_mode.as_deref()), (Some(binds), Some("none")));
        assert_eq!((host.memory, host.nano_cpus, host.pids_limit), (Some(67_108_864), Some(1_500_000_000), Some(64)));
        assert_eq!(host.security_opt, Some(vec!["no-new-privileges".to_owned()]));
        assert_eq!((host.privileged, host.cap_add), (None, None));
    }

    #[test]
    fn only_what_an_engine_will_never_do_is_refused() {
        let came = |status_code, is_made| {
            let error = Error::DockerResponseServerError { status_code, message: "so".to_owned() };
            told("it cannot be", &error, is_made)
        };
        let refused: Vec<(u16, bool)> = [400, 404, 409, 500]
            .into_iter()
            .flat_map(|code| [(code, false), (code, true)])
            .filter(|(code, is_made)| matches!(came(*code, *is_made), Came::Refused(_)))
            .collect();
        // A container that is gone was removed by somebody: the build may be tried again.
        assert_eq!(refused, [(400, false), (400, true), (404, false), (409, false)]);
        let message = "runc: exec: \"sh\": executable file not found in $PATH".to_owned();
        let no_shell = Error::DockerResponseServerError { status_code: 500, message };
        assert!(matches!(told("it cannot be started", &no_shell, true), Came::Refused(_)));
    }

    #[test]
    fn only_places_that_the_agent_allows_are_mounted() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("cache/cargo")).unwrap();
        std::fs::create_dir_all(root.join("secret")).unwrap();
        std::os::unix::fs::symlink(root.join("secret"), root.join("cache/link")).unwrap();
        let policy = ContainerPolicy { socket: None, mount_allow: vec![root.join("cache")] };
        let at = |path: &str| root.join(path).display().to_string();
        let cargo = at("cache/cargo");
        assert_eq!(allowed(&format!("{cargo}:/cargo:ro"), &policy), Ok(format!("{cargo}:/cargo:ro")));
        assert_eq!(allowed(&format!("{cargo}:/cargo"), &policy), Ok(format!("{cargo}:/cargo")));
        for refused in [
            format!("{}:/x", at("secret")),
            format!("{}:/x", at("cache/link")),
            format!("{}:/x", at("cache/../secret")),
            format!("{}:/x", at("cache/none")),
            format!("{cargo}:/workspace/x"),
            format!("{cargo}:/x:exec"),
            format!("{cargo}:x"),
            "volume:/x".to_owned(),
        ] {
            assert!(allowed(&refused, &policy).is_err(), "{refused}");
        }
    }
}
