//! A broker in a directory of its own: started, killed, stopped and started again.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use tokio::net::TcpSocket;

use super::http;
use super::process::{self, Output, Process};
use super::ws;

/// What to start; see [`Broker::with`].
#[derive(Clone, Debug, Default)]
pub struct Setup {
    inventory: Option<String>,
    config: Option<String>,
    args: Vec<String>,
    envs: Vec<(String, String)>,
    store: Option<PathBuf>,
}

impl Setup {
    /// Adds an argument of `serve`.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Gives it a leasehold.toml with this text.
    pub fn config(mut self, text: impl Into<String>) -> Self {
        self.config = Some(text.into());
        self
    }

    /// Adds a variable to the broker's environment.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.envs.push((name.into(), value.into()));
        self
    }

    /// Keeps its data in this folder, not in the broker's own.
    pub fn store_in(mut self, folder: &Path) -> Self {
        self.store = Some(folder.join("lab.db"));
        self
    }

    /// Starts it and waits until it accepts connections.
    pub fn start(self) -> Broker {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        if let Some(inventory) = &self.inventory {
            std::fs::write(dir.path().join("lab.toml"), inventory).expect("a temporary file can be written");
        }
        if let Some(config) = &self.config {
            std::fs::write(dir.path().join("leasehold.toml"), config).expect("a temporary file can be written");
        }
        let (reserved, port) = reserve_port();
        let mut broker = Broker { process: None, earlier: String::new(), port, _reserved: reserved, dir, setup: self };
        broker.start();
        broker
    }
}

/// A broker's process, and the directory with its store and its inventory.
pub struct Broker {
    process: Option<Process>,
    /// What its earlier processes printed to stderr.
    earlier: String,
    port: u16,
    /// Keeps the port while the broker is down: another test's broker there would tell its clients
    /// that it never heard of their sessions.
    _reserved: TcpSocket,
    dir: tempfile::TempDir,
    setup: Setup,
}

impl Broker {
    /// Starts one with this inventory text.
    pub fn with_inventory(inventory: &str) -> Self {
        Self::with(inventory).start()
    }

    /// One to set up further before it is started.
    pub fn with(inventory: &str) -> Setup {
        Setup { inventory: Some(inventory.to_owned()), ..Setup::default() }
    }

    /// One without an inventory file.
    pub fn empty() -> Setup {
        Setup::default()
    }

    /// Starts its process again on the same port and store, and waits until it accepts
    /// connections. The one before must have ended.
    pub fn start(&mut self) {
        let mut process = Process::start(&mut self.serve_command());
        let line = process.stderr.wait_for("listening on ws://");
        let port = line
            .split_once("listening on ws://")
            .and_then(|(_, rest)| rest.split([' ', '/', ',']).next())
            .and_then(|authority| authority.rsplit_once(':'))
            .and_then(|(_, port)| port.parse().ok());
        self.port = port.unwrap_or_else(|| panic!("no port in {line:?}"));
        assert!(process.poll().is_none(), "the broker ended at once:\n{}", process.stderr.text());
        self.process = Some(process);
    }

    /// The command line that [`Self::start`] runs.
    pub fn serve_command(&self) -> Command {
        let mut command = process::leasehold(self.dir.path());
        command.current_dir(self.dir.path()).arg("serve").arg("--listen").arg(format!("127.0.0.1:{}", self.port));
        command.arg("--store").arg(format!("sqlite:{}", self.store_path().display()));
        if self.setup.inventory.is_some() {
            command.arg("--inventory").arg(self.inventory_path());
        }
        if self.setup.config.is_some() {
            command.arg("--config").arg("leasehold.toml");
        }
        command.args(&self.setup.args).envs(self.setup.envs.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The database file.
    pub fn store_path(&self) -> PathBuf {
        self.setup.store.clone().unwrap_or_else(|| self.dir.path().join("lab.db"))
    }

    /// The inventory file.
    pub fn inventory_path(&self) -> PathBuf {
        self.dir.path().join("lab.toml")
    }

    /// The directory for everything of this broker; gone when it is dropped.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The port it listens on, the same over restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }

    /// Its running process.
    #[track_caller]
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the broker runs")
    }

    /// Everything it ever printed to stderr.
    pub fn stderr(&self) -> String {
        let now = self.process.as_ref().map(|process| process.stderr.text()).unwrap_or_default();
        format!("{}{now}", self.earlier)
    }

    /// Kills it with -9 and waits until it is gone.
    pub fn kill9(&mut self) {
        self.end_by(Signal::SIGKILL);
    }

    /// Stops it as planned, with SIGTERM, and waits for its end.
    pub fn term(&mut self) -> Output {
        self.end_by(Signal::SIGTERM)
    }

    /// Kills it with -9 and starts it again.
    pub fn restart(&mut self) {
        self.kill9();
        self.start();
    }

    fn end_by(&mut self, signal: Signal) -> Output {
        let mut process = self.process.take().expect("the broker runs");
        process.signal(signal);
        let output = process.wait();
        self.earlier.push_str(&output.stderr);
        output
    }

    /// A command line that talks to this broker, not started.
    pub fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = process::leasehold(self.dir.path());
        command.current_dir(self.dir.path()).env("LEASEHOLD_URL", self.url()).args(args);
        command
    }

    /// Runs a command to its end.
    #[track_caller]
    pub fn cli<S: AsRef<OsStr>>(&self, args: &[S]) -> Output {
        process::run(&mut self.command(args))
    }

    /// Runs a command, split at spaces, to its end.
    #[track_caller]
    pub fn sh(&self, line: &str) -> Output {
        self.cli(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// Starts a command and leaves it running.
    pub fn spawn<S: AsRef<OsStr>>(&self, args: &[S]) -> Process {
        Process::start(&mut self.command(args))
    }

    /// A WebSocket to it, without a session yet.
    pub fn connect(&self) -> ws::Client {
        ws::Client::connect(self.port)
    }

    /// A WebSocket to it with an open session of `owner`.
    pub fn session(&self, owner: &str) -> ws::Client {
        let mut client = self.connect();
        client.open(owner);
        client
    }

    /// An HTTP request to it.
    pub fn http(&self, method: &str, path: &str, body: Option<&serde_json::Value>) -> http::Answer {
        http::request(self.port, method, path, &[], body)
    }
}

/// A port that the system gives to nobody who asks for any, bound and not listened on: a broker
/// that names it gets it.
pub fn reserve_port() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v4().expect("a socket can be made");
    socket.set_reuseaddr(true).expect("an option of TCP can be set");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port is free");
    let port = socket.local_addr().expect("it is bound").port();
    (socket, port)
}

impl Drop for Broker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- stderr of the broker:\n{}---", self.stderr());
        }
    }
}
