//! A double of a broker that stands by: it sends everything to the leader, or knows none.
//!
//! As the protocol page has it: 307 with the same path and query there, or 503.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

/// A port behind which somebody stands by. The thread behind it ends with the test.
pub struct Standby {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The leader's port.
    leader: Mutex<Option<u16>>,
    asked: Mutex<usize>,
}

impl Standby {
    /// One that knows no leader.
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let shared = Arc::new(Shared::default());
        let answering = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // Whoever leaves before the answer wants none.
                let _ = answering.answer(stream);
            }
        });
        Self { port, shared }
    }

    /// One that sends to this port on loopback.
    pub fn of(leader: u16) -> Self {
        let standby = Self::new();
        standby.knows(Some(leader));
        standby
    }

    /// From here on it sends to this port, or nowhere.
    pub fn knows(&self, leader: Option<u16>) {
        *self.shared.leader.lock().expect("nobody panicked") = leader;
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        *self.shared.asked.lock().expect("nobody panicked")
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }
}

impl Shared {
    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut request = String::new();
        while !request.ends_with("\r\n\r\n") && reader.read_line(&mut request)? > 0 {}
        let Some(path) = request.split(' ').nth(1) else { return Ok(()) };
        *self.asked.lock().expect("nobody panicked") += 1;
        // Libraries for WebSockets follow to their own scheme, those for HTTP to theirs.
        let scheme = if request.to_ascii_lowercase().contains("\r\nupgrade: websocket\r\n") { "ws" } else { "http" };
        let leader = *self.leader.lock().expect("nobody panicked");
        let (status, header) = match leader {
            Some(port) => ("307 Temporary Redirect", format!("Location: {scheme}://127.0.0.1:{port}{path}")),
            None => ("503 Service Unavailable", "Retry-After: 1".to_owned()),
        };
        let code: u16 = status[..3].parse().expect("a status");
        let body = json!({
            "type": "urn:leasehold:standby", "title": "standby", "status": code, "detail": "it stands by",
            "code": "standby",
        });
        let body = body.to_string();
        let length = body.len();
        // In one write, as a broker sends it: of a refused upgrade a client sees what came with the headers.
        let answer =
            format!("HTTP/1.1 {status}\r\n{header}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        stream.write_all(answer.as_bytes())?;
        // What is left of a body is taken, so that the answer is not lost with it.
        stream.shutdown(std::net::Shutdown::Write)?;
        reader.read_to_end(&mut Vec::new()).map(drop)
    }
}
