//! Brings a build's log to the broker: in order, each byte once, across every sort of absence.
//!
//! What is sent stays until it is acknowledged, and every answer says where the log ends, so neither a lost
//! answer nor another broker makes a gap or a repetition. A line goes out at once; what is printed while
//! that is under way, and for a moment after, goes in the next piece.
//!
//! Where more waits than goes in one piece, the next full ones are sent ahead, so that the broker has work while
//! this side reads and the other way round. What comes of that counts only where it is stored: it is sent again
//! in its turn otherwise.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use hyper::Method;
use hyper::body::Bytes;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::chunk::{body, is_in_line};
use super::spool::{Acknowledged, Chunk, SpoolReader};
use crate::client::ClientError;
use crate::client::http::{Answer, Http};
use crate::clock::{BootTime, boot_now, jitter};
use crate::protocol::LEASE_KEY_HEADER;
use crate::protocol::builds::{LOG_CHUNK_BYTES_MAX, LogStored};

/// Between the beginnings of two pieces that are not full.
const EVERY_MS: u64 = 100;
/// The first pause after a try that failed; each further one is twice as long.
const PAUSE_MS: u64 = 100;
const PAUSE_MS_MAX: u64 = 5_000;

/// Full pieces that are under way behind the one that is waited for.
const AHEAD_MAX: usize = 2;

/// How sending came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The broker has all of it.
    Whole,
    /// The broker takes no more of it: the log is closed, or there is no such build.
    Closed(String),
    /// No broker took it in time, or it could not be read back.
    Failed(String),
}

/// Whose log it is, and under which key.
#[derive(Clone)]
pub struct Sender {
    /// The brokers.
    pub http: Http,
    /// The build.
    pub build: u64,
    /// Its attempt.
    pub attempt: u32,
    /// The key that the build was taken under.
    pub key: String,
}

/// A piece, and what the broker says to it where it was sent ahead. What nobody waits for any more is given up.
struct Piece {
    chunk: Chunk,
    /// Whether it goes on with a line.
    in_line: bool,
    ahead: JoinSet<Heard>,
}

/// What an answer means for what was sent.
enum Heard {
    /// It is stored up to there.
    Stored(u64),
    /// Never.
    Refused(String),
    /// Not now.
    Again(String),
}

impl Sender {
    /// Sends until there is nothing more, or nobody takes it. `until` says when to give up where there is
    /// no broker; `None` is never.
    pub async fn send(self, mut spool: SpoolReader, until: watch::Receiver<Option<BootTime>>) -> Sent {
        let mut in_line = false;
        let mut ahead = VecDeque::new();
        loop {
            let piece = match ahead.pop_front() {
                Some(piece) => piece,
                None => {
                    let piece;
                    (spool, piece) = match self.next(spool, &mut in_line).await {
                        Ok(next) => next,
                        Err(error) => return unreadable(&error),
                    };
                    piece
                }
            };
            if piece.chunk.bytes.is_empty() {
                if spool.is_over() && spool.waiting() == 0 {
                    return Sent::Whole;
                }
                spool.more().await;
                continue;
            }
            let (began, acknowledged) = (boot_now(), spool.acknowledged());
            let bringing = self.bring(piece, &acknowledged, &until);
            let (brought, sent_ahead) = tokio::join!(bringing, self.send_ahead(spool, &mut ahead, &mut in_line));
            spool = match sent_ahead {
                Ok(spool) => spool,
                Err(error) => return unreadable(&error),
            };
            if let Err(sent) = brought {
                spool.abandon();
                return sent;
            }
            if ahead.is_empty() {
                self.pause(&spool, began).await;
            }
        }
    }

    /// Sends the pieces after the one that is being brought, where they are full.
    async fn send_ahead(
        &self,
        mut spool: SpoolReader,
        ahead: &mut VecDeque<Piece>,
        in_line: &mut bool,
    ) -> io::Result<SpoolReader> {
        while ahead.len() < AHEAD_MAX && spool.waiting() >= LOG_CHUNK_BYTES_MAX as u64 {
            let mut piece;
            (spool, piece) = self.next(spool, in_line).await?;
            let (sender, offset, body) = (self.clone(), piece.chunk.offset, body(&piece.chunk, 0, piece.in_line));
            piece.ahead.spawn(async move { sender.put(offset, body).await });
            ahead.push_back(piece);
        }
        Ok(spool)
    }

    /// Reads what comes next, where reading may take its time. `in_line` is whether that goes on with a line, and
    /// then whether what comes after it does.
    async fn next(&self, mut spool: SpoolReader, in_line: &mut bool) -> io::Result<(SpoolReader, Piece)> {
        let reading = tokio::task::spawn_blocking(move || {
            let chunk = spool.next(LOG_CHUNK_BYTES_MAX)?;
            Ok((spool, chunk))
        });
        let (spool, chunk) = reading.await.unwrap_or_else(|error| Err(io::Error::other(error)))?;
        let after = is_in_line(&chunk, chunk.bytes.len(), *in_line);
        let before = std::mem::replace(in_line, after);
        Ok((spool, Piece { chunk, in_line: before, ahead: JoinSet::new() }))
    }

    /// Waits while more may come for the next piece.
    async fn pause(&self, spool: &SpoolReader, began: BootTime) {
        while !spool.is_over() && spool.waiting() < LOG_CHUNK_BYTES_MAX as u64 {
            let left_ms = began.plus(EVERY_MS).since(boot_now());
            if left_ms == 0 || tokio::time::timeout(Duration::from_millis(left_ms), spool.more()).await.is_err() {
                return;
            }
        }
    }

    /// Sends one piece until the broker has it.
    async fn bring(
        &self,
        piece: Piece,
        acknowledged: &Acknowledged,
        until: &watch::Receiver<Option<BootTime>>,
    ) -> Result<(), Sent> {
        let Piece { chunk, in_line, mut ahead } = piece;
        let ends = chunk.offset + chunk.bytes.len() as u64;
        let (mut skip, mut pause_ms, mut is_said) = (0_usize, PAUSE_MS, false);
        loop {
            let offset = chunk.offset + skip as u64;
            let heard = match ahead.join_next().await {
                Some(Ok(heard @ Heard::Stored(stored))) if stored >= ends => heard,
                // It may have come before its turn.
                Some(_) => continue,
                None => self.put(offset, body(&chunk, skip, in_line)).await,
            };
            let why = match heard {
                Heard::Stored(stored) if stored >= ends => {
                    acknowledged.up_to(ends);
                    if is_said {
                        eprintln!("leasehold: build #{}: its log is being stored again", self.build);
                    }
                    return Ok(());
                }
                Heard::Stored(stored) if stored > offset => {
                    acknowledged.up_to(stored);
                    skip = usize::try_from(stored - chunk.offset).unwrap_or(usize::MAX);
                    pause_ms = PAUSE_MS;
                    continue;
                }
                Heard::Stored(stored) if stored < chunk.offset => {
                    let why = format!("the broker has {stored} bytes of the log, and had {} before", chunk.offset);
                    return Err(Sent::Failed(why));
                }
                Heard::Stored(stored) => {
                    // Before what was asked for, within this piece: as after a broker was put back.
                    skip = usize::try_from(stored - chunk.offset).unwrap_or(usize::MAX);
                    "the broker stored nothing of it".to_owned()
                }
                Heard::Refused(why) => return Err(Sent::Closed(why)),
                Heard::Again(why) => why,
            };
            let wait = Duration::from_millis(pause_ms / 2 + jitter(pause_ms / 2 + 1));
            pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
            if pause_ms == PAUSE_MS_MAX && !is_said {
                is_said = true;
                eprintln!("leasehold: build #{}: its log waits on this disk until it can be stored: {why}", self.build);
            }
            if !may_wait(wait, until).await {
                return Err(Sent::Failed(why));
            }
        }
    }

    async fn put(&self, offset: u64, body: Vec<u8>) -> Heard {
        let path = format!("/v1/builds/{}/log?attempt={}&offset={offset}", self.build, self.attempt);
        let body = Some(("application/octet-stream", Bytes::from(body)));
        let headers = [(LEASE_KEY_HEADER, self.key.as_str())];
        match self.http.send(Method::PATCH, &path, body, &headers).await {
            Ok(answer) => heard(&answer),
            Err(error @ ClientError::Config(_)) => Heard::Refused(error.to_string()),
            Err(error) => Heard::Again(error.to_string()),
        }
    }
}

fn unreadable(error: &io::Error) -> Sent {
    Sent::Failed(format!("the log cannot be read back from the disk: {error}"))
}

fn heard(answer: &Answer) -> Heard {
    match answer.status {
        200..300 | 409 => match serde_json::from_slice::<LogStored>(&answer.body) {
            Ok(stored) => Heard::Stored(stored.bytes),
            // A 409 of something else, or an answer cut short.
            Err(_) => Heard::Again(answer.refusal().to_string()),
        },
        status @ 400..500 if status != 408 && status != 429 => Heard::Refused(answer.refusal().to_string()),
        _ => Heard::Again(answer.refusal().to_string()),
    }
}

/// Waits; `false` where there is no more time to.
pub async fn may_wait(pause: Duration, until: &watch::Receiver<Option<BootTime>>) -> bool {
    tokio::time::sleep(pause).await;
    until.borrow().is_none_or(|until| boot_now() < until)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::time::Duration;

    use tokio::sync::watch;

    use super::super::spool::{Bounds, create};
    use super::{Sender, Sent};
    use crate::client::http::Http;
    use crate::client::{BaseUrl, Network};

    /// A broker that takes nothing of any log.
    fn closed() -> BaseUrl {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = BaseUrl::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                // The head, and the line of times; what it printed is less than a socket holds.
                lines.find(|line| line.contains(';'));
                let body = r#"{"type":"urn:leasehold:log_closed","code":"log_closed","detail":"it is closed"}"#;
                let head = format!(
                    "HTTP/1.1 410 Gone\r\nContent-Type: application/problem+json\r\nContent-Length: {}",
                    body.len()
                );
                let _ = (&stream).write_all(format!("{head}\r\nConnection: close\r\n\r\n{body}").as_bytes());
                // Read to its end, as closing before would break what was answered.
                lines.for_each(drop);
            }
        });
        url
    }

    #[tokio::test]
    async fn a_build_whose_log_nobody_takes_prints_on_past_the_spool_s_bound() {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, reader) = create(folder.path(), Bounds { file_bytes: 100, spool_bytes: 400 }).unwrap();
        let (tell, printed) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let room = writer.room();
            for _ in 0..100 {
                room.wait();
                writer.append(0, &[b'x'; 50]).unwrap();
            }
            let _ = tell.send(());
        });
        let http = Http::with_network(vec![closed()], Network::default());
        let sender = Sender { http, build: 1, attempt: 1, key: "k".into() };
        let (_until, until) = watch::channel(None);
        let sent = sender.send(reader, until).await;
        assert!(matches!(&sent, Sent::Closed(why) if why.contains("it is closed")), "{sent:?}");
        tokio::time::timeout(Duration::from_secs(60), printed).await.expect("it is not held up").unwrap();
    }
}
