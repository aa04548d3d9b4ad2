//! Running git: what it is given of the world, how long it may take, and what is told of its errors.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::time::timeout;

use super::{GitError, Remote};

/// What of git's errors is read, and what of them is told.
const ERROR_BYTES_MAX: usize = 64 * 1024;
const ERROR_CHARS_TOLD: usize = 1_000;
/// Variables of this process that git is given; everything else stays here.
const GIVEN: &[&str] = &[
    "PATH",
    "TMPDIR",
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
];

/// One git to be run.
pub(super) struct Call<'a> {
    pub home: &'a Path,
    /// Where it runs: in a repository.
    pub inside: Option<&'a Path>,
    pub arguments: &'a [&'a OsStr],
    /// What is read of its output.
    pub bytes_max: usize,
    /// Whose token it is given.
    pub login: &'a Remote,
}

/// What came of it.
pub(super) struct Output {
    pub stdout: Vec<u8>,
    /// Whether there was more.
    pub cut: bool,
    status: ExitStatus,
    stderr: Vec<u8>,
}

impl Output {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Itself, unless git failed.
    pub(super) fn success(self, arguments: &[&OsStr], remote: &Remote) -> Result<Self, GitError> {
        if self.status.success() {
            return Ok(self);
        }
        let said = without_secrets(&String::from_utf8_lossy(&self.stderr), remote);
        let said: String = said.trim().chars().take(ERROR_CHARS_TOLD).collect();
        let what = arguments.first().map(|what| what.to_string_lossy().into_owned()).unwrap_or_default();
        let said = if said.is_empty() { self.status.to_string() } else { said };
        Err(GitError::new(format!("git {what} of {} failed: {said}", remote.url)))
    }
}

impl Call<'_> {
    /// Runs it. When its time is over, or nobody waits for it any more, its whole process group is killed.
    pub(super) async fn run(&self, time_max: Duration) -> Result<Output, GitError> {
        let mut command = self.command();
        let mut child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => GitError::new("there is no git here: install it, or set PATH"),
            _ => GitError::new(format!("git cannot be started: {error}")),
        })?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let group = Group(group);
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        let all = async {
            let (stdout, stderr) = tokio::join!(read(stdout, self.bytes_max), read(stderr, ERROR_BYTES_MAX));
            let status = child.wait().await.map_err(|error| GitError::new(format!("git is lost: {error}")))?;
            let (stdout, cut) = stdout;
            Ok(Output { stdout, cut, status, stderr: stderr.0 })
        };
        let Ok(output) = timeout(time_max, all).await else {
            drop(group);
            let what = self.arguments.first().map(|what| what.to_string_lossy().into_owned()).unwrap_or_default();
            let message = format!("git {what} of {} took longer than {} s", self.login.url, time_max.as_secs());
            return Err(GitError::new(message));
        };
        group.settle();
        output
    }

    fn command(&self) -> Command {
        let mut command = Command::new("git");
        command.env_clear().envs(GIVEN.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command
            .env("HOME", self.home)
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ALLOW_PROTOCOL", "file:git:http:https:ssh")
            .env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
            .env("GIT_LFS_SKIP_SMUDGE", "1");
        let settings = self.settings();
        command.env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (number, (key, value)) in settings.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{number}"), key).env(format!("GIT_CONFIG_VALUE_{number}"), value);
        }
        if let Some(inside) = self.inside {
            command.arg("-C").arg(inside);
        }
        command.args(self.arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        command
    }

    /// What git is told by its environment, where no other user of the machine sees it.
    fn settings(&self) -> Vec<(String, String)> {
        let mut settings: Vec<(String, String)> = [
            ("core.hooksPath", "/dev/null"),
            ("core.fsmonitor", "false"),
            ("gc.autoDetach", "false"),
            ("maintenance.auto", "false"),
            ("advice.detachedHead", "false"),
            ("fetch.fsckObjects", "false"),
            // A repository that a pull request names may not lead elsewhere on this machine.
            ("protocol.ext.allow", "never"),
            ("http.lowSpeedLimit", "1000"),
            ("http.lowSpeedTime", "30"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec();
        if let Some((user, token)) = &self.login.login {
            let line = format!("Authorization: Basic {}", STANDARD.encode(format!("{user}:{token}")));
            // For that host alone, wherever it sends git on.
            settings.push((format!("http.{}.extraHeader", origin(&self.login.url)), line));
        }
        settings
    }
}

/// The scheme and host of a URL.
fn origin(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let host = rest.split('/').next().unwrap_or_default();
    format!("{scheme}://{host}/")
}

/// A process group, killed when nobody waits for it any more.
struct Group(Option<Pid>);

impl Group {
    /// Its leader has ended by itself.
    fn settle(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It fails when all of the group are gone, which is what is wanted.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// Reads a stream to its end and keeps its beginning; tells whether there was more.
async fn read(stream: Option<impl AsyncRead + Unpin>, bytes_max: usize) -> (Vec<u8>, bool) {
    let Some(mut stream) = stream else { return (Vec::new(), false) };
    let mut kept = Vec::new();
    let mut piece = vec![0; 16 * 1024];
    let mut cut = false;
    loop {
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return (kept, cut),
            Ok(bytes) => {
                let room = bytes_max.saturating_sub(kept.len());
                cut |= bytes > room;
                kept.extend_from_slice(&piece[..bytes.min(room)]);
            }
        }
    }
}

/// What git said, with the token and what it is sent as replaced.
fn without_secrets(said: &str, remote: &Remote) -> String {
    let Some((user, token)) = &remote.login else { return said.to_owned() };
    let sent = STANDARD.encode(format!("{user}:{token}"));
    let mut said = said.replace(&sent, "***");
    if !token.is_empty() {
        said = said.replace(&**token, "***");
    }
    said
}
