//! Three brokers on one PostgreSQL, each on a network of its own to it.
//!
//! Brokers are found out about from outside only: by their probes, as a load balancer does it. A
//! broker that does not answer at once is none.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use leasehold::testing::postgres::Server;
use nix::sys::signal::Signal;
use tokio::net::TcpSocket;

use super::common::broker::reserve_port;
use super::common::http::{self, Answer};
use super::common::process::{self, Process};
use super::common::wait::{PATIENCE, eventually, within};
use super::wire::Wire;

/// How many brokers there are.
pub const BROKERS: usize = 3;
/// How long a broker that runs may take to answer a probe, on a machine that is busy.
const PROBE: Duration = Duration::from_secs(2);

/// The database that the brokers share.
pub struct Database {
    server: Server,
    /// Its URL, with the server's own port.
    url: String,
}

impl Database {
    /// An empty one on a server of its own, that makes durable what it says is; `None`, said loudly,
    /// where there is no PostgreSQL.
    pub fn find() -> Option<Self> {
        let server = Server::find(&[])?;
        let url = server.database();
        Some(Self { server, url })
    }

    /// Its URL by way of another port.
    fn url_by(&self, port: u16) -> String {
        self.url.replace(&format!(":{}/", self.server.port()), &format!(":{port}/"))
    }

    /// Stops it: `fast`, or `immediate` as if it had crashed.
    pub fn stop(&self, how: &str) {
        self.server.stop(how).unwrap_or_else(|why| panic!("PostgreSQL does not stop: {why}"));
    }

    /// Starts it again.
    pub fn start(&self) {
        self.server.start_again().unwrap_or_else(|why| panic!("PostgreSQL does not start again: {why}"));
    }
}

/// One broker: its process, or the place for one.
pub struct Node {
    process: Option<Process>,
    /// What processes before said on stderr, as far as it is worth keeping.
    earlier: String,
    frozen: bool,
    port: u16,
    /// Keeps the port while there is no process.
    _reserved: TcpSocket,
    /// Its way to the database.
    pub wire: Wire,
    args: Vec<String>,
    envs: Vec<(String, String)>,
    home: tempfile::TempDir,
}

impl Node {
    fn new(database: &Database, setup: &Setup) -> Self {
        let (reserved, port) = reserve_port();
        let wire = Wire::to(database.server.port());
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        std::fs::write(home.path().join("lab.toml"), &setup.inventory).expect("a temporary file can be written");
        let address = format!("127.0.0.1:{port}");
        let (store, advertise) = (database.url_by(wire.port()), format!("http://{address}"));
        let mut args: Vec<String> =
            ["serve", "--listen", &address, "--store", &store, "--advertise", &advertise, "--inventory", "lab.toml"]
                .map(str::to_owned)
                .into();
        args.extend(setup.args.iter().cloned());
        Self {
            process: None,
            earlier: String::new(),
            frozen: false,
            port,
            _reserved: reserved,
            wire,
            args,
            envs: Vec::new(),
            home,
        }
    }

    /// Adds a variable to the environment of the processes to come.
    pub fn env(&mut self, name: &str, value: impl Into<String>) {
        self.envs.push((name.to_owned(), value.into()));
    }

    /// Starts a process in the place, and waits until it answers.
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "the one before has ended");
        let mut command = process::leasehold(self.home.path());
        command.current_dir(self.home.path()).args(&self.args).env("LEASEHOLD_LOG", "leasehold=info");
        command.envs(self.envs.iter().map(|(name, value)| (name, value)));
        let mut process = Process::start(&mut command);
        let up = within(PATIENCE, || {
            let ended = process.poll().is_some();
            (ended || probe(self.port, "/healthz").is_some()).then_some(!ended)
        });
        assert!(up == Some(true), "the broker does not answer:\n{}", process.stderr.text());
        self.process = Some(process);
    }

    /// Whether it has a process that is not frozen.
    pub fn is_up(&self) -> bool {
        self.process.is_some() && !self.frozen
    }

    /// Where it runs.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The base URL for clients.
    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }

    /// Kills it with -9 and waits until it is gone.
    pub fn kill9(&mut self) {
        self.end(Signal::SIGKILL);
    }

    /// Stops it as planned; it must end by itself, and well.
    pub fn term(&mut self) {
        let output = self.end(Signal::SIGTERM);
        assert_eq!(output.code, Some(0), "a planned stop:\n{}", output.stderr);
    }

    /// Stops its process where it stands.
    pub fn freeze(&mut self) {
        self.running().signal(Signal::SIGSTOP);
        self.frozen = true;
    }

    /// Lets it go on.
    pub fn wake(&mut self) {
        self.running().signal(Signal::SIGCONT);
        self.frozen = false;
    }

    /// Whether it leads and grants, by its own word.
    pub fn is_ready(&self) -> bool {
        self.is_up() && probe(self.port, "/readyz").is_some_and(|answer| answer.status == 200)
    }

    /// Asks it something, and answers what it says, if it does at once.
    pub fn ask(&self, path: &str) -> Option<Answer> {
        probe(self.port, path)
    }

    /// Everything it and those before it said on stderr.
    pub fn stderr(&self) -> String {
        let now = self.process.as_ref().map(|process| process.stderr.text()).unwrap_or_default();
        format!("{}{now}", self.earlier)
    }

    /// Panics when its process has ended by itself.
    pub fn lives(&mut self) {
        if let Some(status) = self.process.as_mut().and_then(Process::poll) {
            panic!("a broker ended by itself, with {status}:\n{}", self.stderr());
        }
    }

    fn running(&mut self) -> &mut Process {
        self.process.as_mut().expect("it has a process")
    }

    fn end(&mut self, signal: Signal) -> process::Output {
        let mut process = self.process.take().expect("it has a process");
        process.signal(signal);
        let output = process.wait();
        self.frozen = false;
        // The last words of each are worth keeping, not those of an hour.
        let text: Vec<&str> = output.stderr.lines().collect();
        self.earlier = text[text.len().saturating_sub(40)..].join("\n") + "\n";
        output
    }
}

/// What all brokers are started with.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// The text of the inventory file.
    pub inventory: String,
    /// Further arguments of `serve`.
    pub args: Vec<String>,
}

/// The brokers and the database.
pub struct Cluster {
    /// The brokers.
    pub nodes: Vec<Node>,
    /// The database; last, so that the brokers go first.
    pub database: Database,
}

impl Cluster {
    /// Finds places for the brokers, and starts none.
    pub fn prepare(database: Database, setup: &Setup) -> Self {
        let nodes = (0..BROKERS).map(|_| Node::new(&database, setup)).collect();
        Self { nodes, database }
    }

    /// Starts every broker, and waits until one leads.
    pub fn start(&mut self) {
        for node in &mut self.nodes {
            node.start();
        }
        self.whole();
    }

    /// The URLs of all, from one on, so that not every client begins with the same.
    pub fn urls(&self, first: usize) -> String {
        let count = self.nodes.len();
        let urls: Vec<String> = (0..count).map(|at| self.nodes[(first + at) % count].url()).collect();
        urls.join(",")
    }

    /// The one that leads, waited for.
    #[track_caller]
    pub fn leader(&self) -> usize {
        eventually("one of the brokers leads", || self.ready())
    }

    /// One of those that stand by.
    #[track_caller]
    pub fn standby(&self) -> usize {
        let leader = self.leader();
        (0..BROKERS).find(|at| *at != leader && self.nodes[*at].is_up()).expect("three brokers run")
    }

    /// Waits until another than this one leads.
    #[track_caller]
    pub fn other_leader(&self, than: usize) -> usize {
        eventually("another broker takes over", || self.ready().filter(|leader| *leader != than))
    }

    /// Waits until every broker answers, and one leads.
    #[track_caller]
    pub fn whole(&mut self) {
        eventually("all brokers answer and one leads", || {
            self.nodes.iter_mut().for_each(Node::lives);
            let up = self.nodes.iter().all(|node| node.is_up() && node.ask("/healthz").is_some());
            let leading = self.nodes.iter().filter(|node| node.is_ready()).count();
            (up && leading == 1).then_some(())
        });
    }

    /// Asks the one that leads, until it answers well.
    #[track_caller]
    pub fn ask(&self, path: &str) -> serde_json::Value {
        eventually("the leader answers", || {
            let answer = self.nodes[self.ready()?].ask(path)?;
            (answer.status == 200).then(|| answer.json())
        })
    }

    fn ready(&self) -> Option<usize> {
        self.nodes.iter().position(Node::is_ready)
    }

    /// The command line of a client of these brokers.
    pub fn command(&self, home: &Path, first: usize) -> std::process::Command {
        let mut command = process::leasehold(home);
        command.env("LEASEHOLD_URL", self.urls(first));
        command
    }
}

/// Asks whoever listens on `port`; `None` when the whole answer is not there in time.
fn probe(port: u16, path: &str) -> Option<Answer> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, PROBE).ok()?;
    stream.set_read_timeout(Some(PROBE)).ok()?;
    let head = format!("GET {path} HTTP/1.1\r\nConnection: close\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let text = String::from_utf8_lossy(&answer);
    text.contains("\r\n\r\n").then(|| http::parse(&text))
}
