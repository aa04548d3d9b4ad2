//! A forge of the test's own: it speaks the commit-status API of GitHub, GitLab or Gitea as the real one does,
//! with what each asks of a request and how each says no, and shows what a pull request would show.
//!
//! It fails on demand: one [`Trouble`] a request, in their order. It knows no commit but those it was told of.
//! [`delivery`] is its other half: what it sends.

pub mod delivery;
mod rules;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use serde_json::Value;

use super::wait::{PATIENCE, eventually};

/// Which forge it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Gitea,
    Github,
    Gitlab,
}

impl Kind {
    /// As in routes and configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gitea => "gitea",
            Self::Github => "github",
            Self::Gitlab => "gitlab",
        }
    }

    /// Where its API begins on its host.
    const fn api_path(self) -> &'static str {
        match self {
            Self::Gitea => "/api/v1",
            Self::Github => "/api/v3",
            Self::Gitlab => "/api/v4",
        }
    }
}

/// The token that it knows.
pub const TOKEN: &str = "tok_0123456789abcdef";

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// It answers this, and has taken nothing.
    Answer(u16, Vec<(&'static str, String)>, String),
    /// It takes the request, and the answer is lost with the connection.
    Lost,
    /// It thinks until [`Forge::wake`].
    Sleepy,
}

impl Trouble {
    /// An answer without anything beside its code.
    pub fn code(code: u16) -> Self {
        Self::Answer(code, Vec::new(), String::new())
    }
}

/// A request that it got.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// Names in small letters.
    pub headers: BTreeMap<String, String>,
    pub body: Value,
}

/// What a pull request shows of a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub state: String,
    pub description: String,
    pub target_url: String,
}

/// A place for statuses: repository, commit, context.
type PlaceKey = (String, String, String);

#[derive(Debug, Default)]
struct State {
    commits: BTreeSet<(String, String)>,
    /// Every status it took, oldest first.
    statuses: BTreeMap<PlaceKey, Vec<Shown>>,
    requests: Vec<Request>,
    troubles: VecDeque<Trouble>,
    awake: u64,
    closed: bool,
    open: Vec<TcpStream>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }
}

/// A forge on loopback. Its threads end with it.
pub struct Forge {
    kind: Kind,
    port: u16,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Forge {
    /// One that knows no commit yet.
    pub fn start(kind: Kind) -> Self {
        let mut forge = Self { kind, port: 0, shared: Arc::default(), accepting: None };
        forge.open();
        forge
    }

    /// Which it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its address, as `api` in the configuration.
    pub fn api(&self) -> String {
        format!("http://127.0.0.1:{}{}", self.port, self.kind.api_path())
    }

    /// Where it listens, the same over [`Self::close`] and [`Self::open`].
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Lets it know a commit.
    pub fn know(&self, repository: &str, sha: &str) {
        self.shared.state().commits.insert((repository.to_owned(), sha.to_owned()));
    }

    /// The next request meets this trouble, after those that were said before.
    pub fn misbehave(&self, trouble: Trouble) {
        self.shared.state().troubles.push_back(trouble);
    }

    /// Lets requests that it thinks about go on.
    pub fn wake(&self) {
        self.shared.state().awake += 1;
        self.shared.changed.notify_all();
    }

    /// Refuses connections from here on, and cuts those that are open.
    pub fn close(&mut self) {
        let mut state = self.shared.state();
        state.closed = true;
        for stream in state.open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        state.awake += 1;
        drop(state);
        self.shared.changed.notify_all();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(accepting) = self.accepting.take() {
            accepting.join().expect("it accepts until it is closed");
        }
    }

    /// Listens (again).
    pub fn open(&mut self) {
        let listener = eventually("the forge's port is free", || TcpListener::bind(("127.0.0.1", self.port)).ok());
        self.port = listener.local_addr().expect("it is bound").port();
        self.shared.state().closed = false;
        let (kind, shared) = (self.kind, Arc::clone(&self.shared));
        self.accepting = Some(std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.state().closed {
                    break;
                }
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(kind, &shared, stream));
            }
        }));
    }

    /// What a pull request with this commit shows of the context.
    pub fn shown(&self, repository: &str, sha: &str, context: &str) -> Option<Shown> {
        self.history(repository, sha, context).pop()
    }

    /// All that it took for the context, oldest first.
    pub fn history(&self, repository: &str, sha: &str, context: &str) -> Vec<Shown> {
        let key = (repository.to_owned(), sha.to_owned(), context.to_owned());
        self.shared.state().statuses.get(&key).cloned().unwrap_or_default()
    }

    /// Waits until it shows this state, and answers what it shows.
    #[track_caller]
    pub fn comes_to_show(&self, repository: &str, sha: &str, context: &str, state: &str) -> Shown {
        eventually(&format!("{context} of {repository} at {sha} shows {state}"), || {
            self.shown(repository, sha, context).filter(|shown| shown.state == state)
        })
    }

    /// Every request that it got, oldest first, also those that met trouble.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.state().requests.clone()
    }
}

impl Drop for Forge {
    fn drop(&mut self) {
        self.close();
    }
}

/// Serves one request and closes.
fn serve(kind: Kind, shared: &Shared, stream: TcpStream) {
    let _ = stream.set_read_timeout(Some(PATIENCE));
    if let Ok(copy) = stream.try_clone() {
        shared.state().open.push(copy);
    }
    let Some(request) = read(&stream) else { return };
    let trouble = {
        let mut state = shared.state();
        state.requests.push(request.clone());
        state.troubles.pop_front()
    };
    let (code, headers, body) = match trouble {
        Some(Trouble::Answer(code, headers, body)) => (code, headers, body),
        other => {
            if matches!(other, Some(Trouble::Sleepy)) {
                let state = shared.state();
                let until = state.awake + 1;
                drop(shared.changed.wait_while(state, |state| state.awake < until));
            }
            let (code, body) = rules::answer(kind, &mut shared.state(), &request);
            if matches!(other, Some(Trouble::Lost)) {
                let _ = stream.shutdown(Shutdown::Both);
                return;
            }
            (code, Vec::new(), body.to_string())
        }
    };
    let _ = write(&stream, code, &headers, &body);
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path, headers, body: serde_json::from_slice(&body).unwrap_or(Value::Null) })
}

fn write(mut stream: &TcpStream, code: u16, headers: &[(&str, String)], body: &str) -> std::io::Result<()> {
    let mut text = format!("HTTP/1.1 {code} Said\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
        text.push_str("Content-Type: application/json; charset=utf-8\r\n");
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.push_str(body);
    stream.write_all(text.as_bytes())?;
    stream.shutdown(Shutdown::Write)
}
