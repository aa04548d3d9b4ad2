//! A WebSocket client by hand that speaks JSON-RPC: what a test author would write.
//!
//! It blocks, one thread per client. Notifications that arrive while an answer is awaited are
//! kept in order for [`Client::notice`]. Pings are answered whenever something is read.

use std::collections::VecDeque;
use std::net::TcpStream;
use std::time::Duration;

use leasehold::clock::{BootTime, boot_now};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket, client};

use super::wait::PATIENCE;

/// A connection, with or without a session.
pub struct Client {
    socket: WebSocket<TcpStream>,
    last_id: u64,
    last_request: u64,
    notices: VecDeque<(String, Value)>,
    /// What opening or resuming answered, and the instance.
    pub opened: Value,
}

/// Something read from the socket.
#[derive(Debug)]
pub enum Heard {
    /// A JSON text.
    Json(Value),
    /// The broker closed: the code and its words.
    Closed(u16, String),
    /// The connection ended without a Close.
    Gone,
    /// Nothing within the limit.
    Nothing,
}

/// The bytes of a frame as a client sends it, or ought not to: `head` is the first byte (FIN 0x80,
/// and the opcode), and it is masked unless the test is about that.
pub fn frame(head: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    let mut bytes = vec![head];
    match u16::try_from(payload.len()) {
        Ok(short @ 0..126) => bytes.push(mask | u8::try_from(short).expect("it is below 126")),
        Ok(long) => {
            bytes.push(mask | 126);
            bytes.extend(long.to_be_bytes());
        }
        Err(_) => {
            bytes.push(mask | 127);
            bytes.extend((payload.len() as u64).to_be_bytes());
        }
    }
    if masked {
        // A mask of zeros is one like any other, and leaves the payload readable.
        bytes.extend([0; 4]);
    }
    bytes.extend(payload);
    bytes
}

/// The bytes of a call in a frame of its own.
pub fn call_frame(id: u64, method: &str, params: &Value) -> Vec<u8> {
    let text = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string();
    frame(0x81, text.as_bytes(), true)
}

/// The connection has ended.
#[derive(Debug)]
pub struct Ended;

/// The upgrade request that every client sends.
pub fn upgrade_request(port: u16) -> Request {
    let mut request =
        format!("ws://127.0.0.1:{port}/v1/ws").into_client_request().expect("a loopback URL is a valid request");
    let subprotocol = "leasehold.v1".parse().expect("a plain word is a header value");
    request.headers_mut().insert("Sec-WebSocket-Protocol", subprotocol);
    request
}

impl Client {
    /// Connects, without opening a session.
    #[track_caller]
    pub fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the broker accepts connections");
        stream.set_nodelay(true).expect("an option of TCP can be set");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let (socket, _) = client(upgrade_request(port), stream).expect("the broker upgrades to a WebSocket");
        Self { socket, last_id: 0, last_request: 0, notices: VecDeque::new(), opened: Value::Null }
    }

    /// The same where the broker may be gone, or go meanwhile: `None` then.
    pub fn try_connect(port: u16) -> Option<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let (socket, _) = client(upgrade_request(port), stream).ok()?;
        Some(Self { socket, last_id: 0, last_request: 0, notices: VecDeque::new(), opened: Value::Null })
    }

    /// Opens a session of `owner` with the default ttl.
    #[track_caller]
    pub fn open(&mut self, owner: &str) -> &Value {
        self.open_with(json!({ "owner": owner }))
    }

    /// Opens a session with these parameters; an instance is added where there is none.
    #[track_caller]
    pub fn open_with(&mut self, mut params: Value) -> &Value {
        if params["instance"].is_null() {
            params["instance"] = json!(leasehold::clock::random_secret());
        }
        let instance = params["instance"].clone();
        self.opened = self.call("session.open", params);
        self.opened["instance"] = instance;
        &self.opened
    }

    /// The session's number.
    #[track_caller]
    pub fn session(&self) -> u64 {
        self.opened["session"].as_u64().expect("a session is open")
    }

    /// Claims `needs` and answers the claim as it stands: `granted` or `queued`.
    #[track_caller]
    pub fn acquire(&mut self, needs: &[&str]) -> Value {
        self.acquire_with(json!({ "needs": needs }))
    }

    /// The same with any parameters; the request id is the next one unless it is given.
    #[track_caller]
    pub fn acquire_with(&mut self, mut params: Value) -> Value {
        if params["request_id"].is_null() {
            self.last_request += 1;
            params["request_id"] = json!(self.last_request);
        }
        self.call("lease.acquire", params)
    }

    /// Claims `needs`, which must be granted at once, and answers the lease.
    #[track_caller]
    pub fn lease(&mut self, needs: &[&str]) -> Value {
        let claim = self.acquire(needs);
        assert_eq!(claim["state"], "granted", "{claim}");
        claim["lease"].clone()
    }

    /// Releases a lease.
    #[track_caller]
    pub fn release(&mut self, lease: u64) -> Value {
        self.call("lease.release", json!({ "lease": lease }))
    }

    /// Calls a method that must succeed, and answers its result.
    #[track_caller]
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.try_call(method, params.clone()).unwrap_or_else(|error| panic!("{method} {params} failed: {error}"))
    }

    /// Calls a method that must be refused, and answers the stable code.
    #[track_caller]
    pub fn refused(&mut self, method: &str, params: Value) -> String {
        let error = self.try_call(method, params.clone()).expect_err("this call is to be refused");
        error["data"]["code"].as_str().unwrap_or_else(|| panic!("no code: {error}")).to_owned()
    }

    /// Calls a method and answers its result or its error.
    #[track_caller]
    pub fn try_call(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        let id = self.ask(method, params);
        loop {
            match self.hear(PATIENCE) {
                Heard::Json(mut message) if message["id"] == json!(id) => {
                    return outcome(&mut message);
                }
                Heard::Json(message) => self.keep(message),
                other => panic!("no answer to {method}: {other:?}"),
            }
        }
    }

    /// The same on a connection that may end at any moment: `None` when it ended before the answer.
    pub fn call_while_up(&mut self, method: &str, params: Value) -> Option<Result<Value, Value>> {
        self.last_id += 1;
        let id = self.last_id;
        let text = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string();
        self.send(Message::Text(text.into())).ok()?;
        loop {
            match self.hear(PATIENCE) {
                Heard::Json(mut message) if message["id"] == json!(id) => {
                    return Some(outcome(&mut message));
                }
                Heard::Json(message) => self.keep(message),
                Heard::Closed(..) | Heard::Gone => return None,
                Heard::Nothing => panic!("no answer to {method} within {PATIENCE:?}"),
            }
        }
    }

    /// Sends a call without waiting for its answer; answers its number.
    #[track_caller]
    pub fn ask(&mut self, method: &str, params: Value) -> u64 {
        self.last_id += 1;
        let text = json!({ "jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params }).to_string();
        self.send(Message::Text(text.into())).expect("the socket is open");
        self.last_id
    }

    /// Waits for the answer to a call that was sent by [`Self::ask`]; `None` when none came
    /// within the limit.
    #[track_caller]
    pub fn answer_within(&mut self, limit: Duration, id: u64) -> Option<Result<Value, Value>> {
        let deadline = boot_now().plus(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        loop {
            match self.hear(Duration::from_millis(deadline.since(boot_now()))) {
                Heard::Json(mut message) if message["id"] == json!(id) => {
                    return Some(outcome(&mut message));
                }
                Heard::Json(message) => self.keep(message),
                Heard::Nothing => return None,
                other => panic!("no answer: {other:?}"),
            }
        }
    }

    /// The answer to what was asked before, where the broker may close instead: `None` then.
    pub fn answer_or_close(&mut self, id: u64) -> Option<Result<Value, Value>> {
        loop {
            match self.hear(PATIENCE) {
                Heard::Json(mut message) if message["id"] == json!(id) => return Some(outcome(&mut message)),
                Heard::Json(message) => self.keep(message),
                Heard::Closed(..) | Heard::Gone => return None,
                Heard::Nothing => panic!("neither an answer nor a Close"),
            }
        }
    }

    /// Sends any frame.
    pub fn send(&mut self, message: Message) -> Result<(), Error> {
        self.socket.send(message)
    }

    /// Writes any bytes to the connection, past every rule of the protocol.
    pub fn write_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        std::io::Write::write_all(self.socket.get_mut(), bytes)
    }

    /// The connection itself, for another thread to write to.
    pub fn stream(&self) -> TcpStream {
        self.socket.get_ref().try_clone().expect("a socket can be cloned")
    }

    /// Waits for the next notification of `method` and answers its parameters; others before it
    /// are dropped.
    #[track_caller]
    pub fn notice(&mut self, method: &str) -> Value {
        self.notice_within(PATIENCE, method).unwrap_or_else(|| panic!("no {method} within {PATIENCE:?}"))
    }

    /// The same with a limit; `None` when none came, or the connection ended.
    pub fn notice_within(&mut self, limit: Duration, method: &str) -> Option<Value> {
        let deadline = boot_now().plus(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        loop {
            while let Some((name, params)) = self.notices.pop_front() {
                if name == method {
                    return Some(params);
                }
            }
            match self.hear(Duration::from_millis(deadline.since(boot_now()))) {
                Heard::Json(message) => self.keep(message),
                Heard::Closed(..) | Heard::Gone | Heard::Nothing => return None,
            }
        }
    }

    /// The next notification of whatever method: `Ok(None)` when none came within the limit, an
    /// error when the connection has ended.
    pub fn next_notice(&mut self, limit: Duration) -> Result<Option<(String, Value)>, Ended> {
        let deadline = boot_now().plus(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        loop {
            if let Some(notice) = self.notices.pop_front() {
                return Ok(Some(notice));
            }
            match self.hear(Duration::from_millis(deadline.since(boot_now()))) {
                Heard::Json(message) => self.keep(message),
                Heard::Nothing => return Ok(None),
                Heard::Closed(..) | Heard::Gone => return Err(Ended),
            }
        }
    }

    /// Reads until `until`, so that pings are answered: the session lives on. Notifications are
    /// kept. Answers whether the connection is still there.
    pub fn attend(&mut self, until: BootTime) -> bool {
        while boot_now() < until {
            match self.hear(Duration::from_millis(until.since(boot_now()))) {
                Heard::Json(message) => self.keep(message),
                Heard::Nothing => {}
                Heard::Closed(..) | Heard::Gone => return false,
            }
        }
        true
    }

    fn keep(&mut self, mut message: Value) {
        if let Some(method) = message["method"].as_str() {
            let method = method.to_owned();
            self.notices.push_back((method, message["params"].take()));
        }
    }

    /// Waits for the broker to close, and answers the code and the words of its Close; 1006 where
    /// the connection ended without one.
    #[track_caller]
    pub fn closed(&mut self) -> (u16, String) {
        loop {
            match self.hear(PATIENCE) {
                Heard::Json(message) => self.keep(message),
                Heard::Closed(code, reason) => return (code, reason),
                Heard::Gone => return (1006, String::new()),
                Heard::Nothing => panic!("the broker did not close within {PATIENCE:?}"),
            }
        }
    }

    /// Reads the next text or the end.
    pub fn hear(&mut self, limit: Duration) -> Heard {
        let deadline = boot_now().plus(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        loop {
            let left = Duration::from_millis(deadline.since(boot_now()).max(1));
            self.socket.get_ref().set_read_timeout(Some(left)).expect("a timeout can be set");
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    return Heard::Json(serde_json::from_str(&text).expect("the broker sends JSON"));
                }
                Ok(Message::Close(frame)) => {
                    let frame = frame.map(|frame| (frame.code.into(), frame.reason.to_string()));
                    let (code, reason) = frame.unwrap_or((1005, String::new()));
                    return Heard::Closed(code, reason);
                }
                Ok(_) => {}
                Err(Error::Io(error)) if is_timeout(&error) => {
                    if boot_now() >= deadline {
                        return Heard::Nothing;
                    }
                }
                Err(_) => return Heard::Gone,
            }
        }
    }

    /// Closes cleanly, with code 1000: everything of the session is free at once.
    pub fn close(mut self) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        // A broker that closed first has it already.
        let _ = self.socket.close(Some(frame));
        while self.socket.read().is_ok() {}
    }

    /// Lets the TCP connection drop without a Close: the session lives on until its ttl is over.
    pub fn drop_connection(self) {
        // Fails where the broker dropped it first, which is what was wanted.
        let _ = self.socket.get_ref().shutdown(std::net::Shutdown::Both);
    }
}

/// The result or the error of an answer.
fn outcome(message: &mut Value) -> Result<Value, Value> {
    let error = message["error"].take();
    if error.is_null() { Ok(message["result"].take()) } else { Err(error) }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}
