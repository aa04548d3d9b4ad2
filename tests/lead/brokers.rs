//! Brokers on one database: started, watched from outside, ended.

use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::net::TcpSocket;

use super::common::broker::reserve_port;
use super::common::http::{self, Answer};
use super::common::process::{self, Output, Process};
use super::common::wait::{eventually, until};

/// One broker: its process, or the place for one.
pub struct Broker {
    process: Option<Process>,
    pub port: u16,
    /// Keeps the port while there is no process.
    _reserved: TcpSocket,
    pub home: tempfile::TempDir,
    store: String,
    args: Vec<String>,
    envs: Vec<(String, String)>,
}

impl Broker {
    /// A place for one on the database at this URL, with its own inventory file.
    pub fn on(store: &str, inventory: Option<&str>) -> Self {
        let (reserved, port) = reserve_port();
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        let mut args = Vec::new();
        if let Some(inventory) = inventory {
            std::fs::write(home.path().join("lab.toml"), inventory).expect("a temporary file can be written");
            args.extend(["--inventory".to_owned(), "lab.toml".to_owned()]);
        }
        let store = store.to_owned();
        Self { process: None, port, _reserved: reserved, home, store, args, envs: Vec::new() }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Adds a variable to its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.envs.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts its process, and waits until it listens.
    pub fn start(&mut self) {
        let process = self.launch();
        process.stderr.wait_for("listening on ws://");
        self.process = Some(process);
    }

    /// Starts its process and waits for nothing.
    pub fn launch(&self) -> Process {
        let mut command = process::leasehold(self.home.path());
        command.current_dir(self.home.path()).args(["serve", "--listen", &format!("127.0.0.1:{}", self.port)]);
        command.args(["--store", &self.store]).args(&self.args);
        command.envs(self.envs.iter().map(|(name, value)| (name, value)));
        Process::start(&mut command)
    }

    /// The same, started.
    pub fn started(mut self) -> Self {
        self.start();
        self
    }

    /// Where clients are sent to it, unless it was told otherwise.
    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }

    /// Asks it.
    pub fn get(&self, path: &str) -> Answer {
        http::request(self.port, "GET", path, &[], None)
    }

    /// What it tells of itself.
    pub fn status(&self) -> Value {
        self.get("/v1/status").ok()
    }

    /// The same of one that may change its role at this moment: then it says so, and nothing else.
    fn status_at_a_change(&self) -> Value {
        self.get("/v1/status").json()
    }

    /// Whether it leads, and grants.
    pub fn leads(&self) -> bool {
        self.get("/readyz").status == 200
    }

    /// Waits until it leads.
    pub fn wait_leads(&self) {
        until("the broker leads", || self.leads());
    }

    /// Waits until it stands by, and knows who leads.
    pub fn wait_follows(&self, leader: &Self) {
        let url = leader.url();
        until("the broker knows who leads", || {
            let status = self.status_at_a_change();
            status["role"] == "standby" && status["leader"] == url.as_str()
        });
    }

    /// Its running process.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the broker runs")
    }

    /// Everything that its process said so far.
    pub fn said(&self) -> String {
        self.process.as_ref().map(|process| process.stderr.text()).unwrap_or_default()
    }

    /// Ends its process by a signal, and waits for its end.
    pub fn end(&mut self, signal: Signal) -> Output {
        let mut process = self.process.take().expect("the broker runs");
        process.signal(signal);
        process.wait()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- stderr of the broker on port {}:\n{}---", self.port, self.said());
        }
    }
}

/// Two brokers on one database: the first leads, the second stands by and knows it.
pub fn pair(store: &str, inventory: &str) -> (Broker, Broker) {
    let first = Broker::on(store, Some(inventory)).started();
    first.wait_leads();
    let second = Broker::on(store, Some(inventory)).started();
    second.wait_follows(&first);
    (first, second)
}

/// Waits until one of these leads; answers it, and the other.
pub fn leader_of<'b>(one: &'b mut Broker, other: &'b mut Broker) -> (&'b mut Broker, &'b mut Broker) {
    let first = eventually("one of two brokers leads", || match (one.leads(), other.leads()) {
        (true, false) => Some(true),
        (false, true) => Some(false),
        _ => None,
    });
    if first { (one, other) } else { (other, one) }
}
