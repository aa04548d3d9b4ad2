//! The network between one broker and the database, the test's own: it goes silent, is slow, refuses,
//! and knows where a message begins and ends, so that a fault can strike around each message of a
//! write.
//!
//! A write of a broker is one statement: one request, one answer. A trap catches the next one at a
//! [`Point`]; whoever set it decides what becomes of it, however much later.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use leasehold::clock::boot_now;

use super::common::wait::{PATIENCE, clock_reaches};

/// What the statement of a batch contains and no other statement does.
const BATCH: &[u8] = b"UPDATE lab SET batch";
/// The length and the number of a client's first message when it asks for TLS.
const TLS_ASKED: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// A moment of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// The broker has sent the statement; the database has not got it.
    Sent,
    /// The database has answered, so it is durable; the broker has not got the answer.
    Answered,
    /// The broker has the answer, and has not sent the next one.
    Told,
}

/// What becomes of what was caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Deliver,
    Cut,
}

#[derive(Default)]
struct State {
    /// Both ends of every connection there is, by number.
    connections: BTreeMap<u64, [TcpStream; 2]>,
    last_connection: u64,
    silent: bool,
    /// The one connection that silence does not touch.
    spared: Option<u64>,
    refusing: bool,
    delay_ms: u64,
    trap: Option<Point>,
    /// The connection whose message the trap has caught.
    caught: Option<u64>,
    order: Option<Order>,
    /// Connections on which a batch is under way.
    writing: BTreeSet<u64>,
    /// The tags of the last answer to a batch that came after an order: what a late one was told.
    told: Option<String>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// A port that leads to the database. The threads behind it end with their connections.
pub struct Wire {
    port: u16,
    shared: Arc<Shared>,
}

impl Wire {
    /// A network that leads to the database on `port` of loopback.
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let own = listener.local_addr().expect("it is bound").port();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                accepting.accept(near, port);
            }
        });
        Self { port: own, shared }
    }

    /// Where the broker connects.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Nothing passes from here on, and nothing is closed: what is sent arrives late.
    pub fn silence(&self) {
        self.shared.change(|state| state.silent = true);
    }

    /// The same, but for the connection on which a write is caught.
    pub fn silence_others(&self) {
        self.shared.change(|state| (state.silent, state.spared) = (true, state.caught));
    }

    /// Closes every connection, and every new one at once.
    pub fn refuse(&self) {
        self.shared.change(|state| {
            state.refusing = true;
            state.close_all();
        });
    }

    /// Every message takes this much longer from here on, each way.
    pub fn slow(&self, delay_ms: u64) {
        self.shared.change(|state| state.delay_ms = delay_ms);
    }

    /// Everything passes again, also what was sent meanwhile.
    pub fn speak(&self) {
        self.shared.change(|state| {
            (state.silent, state.spared, state.refusing, state.delay_ms) = (false, None, false, 0);
        });
    }

    /// Sets a trap for the next batch that comes to this point: it is held there, but for
    /// [`Point::Told`].
    pub fn trap(&self, point: Point) -> Trap {
        self.shared.change(|state| {
            (state.trap, state.caught, state.order, state.told) = (Some(point), None, None, None);
        });
        Trap { shared: Arc::clone(&self.shared) }
    }

    /// Sets a trap and waits until it has caught something. Panics when nothing comes.
    #[track_caller]
    pub fn catch(&self, point: Point) -> Caught {
        self.trap(point).wait()
    }
}

/// A trap that is set, until it is waited for.
pub struct Trap {
    shared: Arc<Shared>,
}

impl Trap {
    /// Waits until it has caught something. Panics when nothing comes.
    #[track_caller]
    pub fn wait(self) -> Caught {
        let caught = self.shared.wait(PATIENCE, |state| state.caught);
        assert!(caught.is_some(), "nobody writes");
        Caught { shared: self.shared }
    }
}

/// A batch that stands still at its point. Dropped, it goes on.
pub struct Caught {
    shared: Arc<Shared>,
}

impl Caught {
    /// Lets it go on.
    pub fn deliver(self) {}

    /// Lets a statement go to the database, and answers what the database says of it: how many batches
    /// it wrote and the tag of the command, or the code of an error. `None` when it says nothing.
    pub fn deliver_and_hear(self) -> Option<String> {
        self.shared.change(|state| state.order = Some(Order::Deliver));
        self.shared.wait(PATIENCE, |state| state.told.clone())
    }

    /// Closes the connection at both ends instead.
    pub fn cut(self) {
        self.shared.change(|state| state.order = Some(Order::Cut));
    }
}

impl Drop for Caught {
    fn drop(&mut self) {
        self.shared.change(|state| {
            state.order.get_or_insert(Order::Deliver);
        });
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // Wakes the threads that wait, so that they end.
        self.shared.change(|state| {
            (state.silent, state.order) = (false, Some(Order::Cut));
            state.close_all();
        });
    }
}

impl State {
    fn close_all(&mut self) {
        for end in self.connections.values().flatten() {
            // One that is closed already needs nothing.
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread of the wire panics while it changes its state")
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.locked());
        self.changed.notify_all();
    }

    fn wait<T>(&self, limit: Duration, mut look: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
        let deadline = boot_now().plus(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        let mut state = self.locked();
        loop {
            let left_ms = deadline.since(boot_now());
            if let Some(found) = look(&mut state) {
                return Some(found);
            }
            if left_ms == 0 {
                return None;
            }
            let waited = self.changed.wait_timeout(state, Duration::from_millis(left_ms));
            state = waited.expect("no thread of the wire panics while it changes its state").0;
        }
    }

    fn accept(self: &Arc<Self>, near: TcpStream, port: u16) {
        if self.locked().refusing {
            return;
        }
        // Without a database behind it the connection is closed, as a refusing machine would.
        let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else { return };
        let copy = |stream: &TcpStream| stream.try_clone().expect("a descriptor is left");
        let number = {
            let mut state = self.locked();
            state.last_connection += 1;
            let number = state.last_connection;
            state.connections.insert(number, [copy(&near), copy(&far)]);
            number
        };
        for (from, to, up) in [(copy(&near), copy(&far), true), (far, near, false)] {
            // Small messages must not wait for each other; where the system refuses, they do.
            let _ = to.set_nodelay(true);
            let shared = Arc::clone(self);
            std::thread::spawn(move || shared.carry(number, from, to, up));
        }
    }

    /// Carries whole requests up, or whole answers down, until either end closes.
    fn carry(&self, number: u64, mut from: TcpStream, mut to: TcpStream, up: bool) {
        let mut reading = Reading::new(up);
        let mut is_cut = false;
        while let Some(unit) = reading.next(&mut from) {
            if up && unit.bytes == TLS_ASKED {
                // Plain, so that messages can be read here.
                if from.write_all(b"N").is_err() {
                    break;
                }
                continue;
            }
            is_cut = !self.pass(number, &unit, &mut to, up);
            if is_cut {
                break;
            }
        }
        self.pause(number);
        if up && !is_cut {
            // A broker that has gone may have asked something that the database is to answer still.
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
        // The other way has nothing to carry to any more either.
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        self.change(|state| {
            state.connections.remove(&number);
            state.writing.remove(&number);
        });
    }

    /// Carries one request or answer; answers whether the connection goes on.
    fn pass(&self, number: u64, unit: &Unit, to: &mut TcpStream, up: bool) -> bool {
        let delay_ms = self.locked().delay_ms;
        if delay_ms > 0 {
            clock_reaches(boot_now().plus(delay_ms));
        }
        self.pause(number);
        let write = if up { unit.is_batch } else { self.locked().writing.contains(&number) };
        let order = if write { self.trapped(number, if up { Point::Sent } else { Point::Answered }) } else { None };
        if order == Some(Order::Cut) {
            return false;
        }
        let mut state = self.locked();
        if up && write {
            state.writing.insert(number);
        } else if write {
            state.writing.remove(&number);
            if state.order.is_some() {
                state.told.get_or_insert_with(|| unit.tags());
            }
        }
        drop(state);
        self.changed.notify_all();
        let gone = to.write_all(&unit.bytes).is_err();
        if write && !up {
            self.change(|state| {
                if state.trap == Some(Point::Told) {
                    (state.trap, state.caught) = (None, Some(number));
                }
            });
        }
        !gone
    }

    /// Stands still while the trap for this point has caught this message; answers the order then.
    fn trapped(&self, number: u64, point: Point) -> Option<Order> {
        let mut state = self.locked();
        if state.trap != Some(point) {
            return None;
        }
        (state.trap, state.caught) = (None, Some(number));
        self.changed.notify_all();
        while state.order.is_none() {
            state = self.changed.wait(state).expect("no thread of the wire panics while it changes its state");
        }
        state.order
    }

    /// Waits while this connection is silent.
    fn pause(&self, number: u64) {
        let mut state = self.locked();
        while state.silent && state.spared != Some(number) {
            state = self.changed.wait(state).expect("no thread of the wire panics while it changes its state");
        }
    }
}

/// One request, up to where the broker waits for an answer, or one answer, up to where the database
/// waits for a request.
#[derive(Debug, Default)]
struct Unit {
    bytes: Vec<u8>,
    is_batch: bool,
}

impl Unit {
    /// What an answer says in short: numbers in its rows, the tags of commands that were done, codes of
    /// errors.
    fn tags(&self) -> String {
        let mut tags = Vec::new();
        let mut rest = self.bytes.as_slice();
        while let Some((kind, body, after)) = message(rest) {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            match kind {
                // One column of eight bytes: how many batches were written.
                b'D' if body.len() == 14 => {
                    tags.push(i64::from_be_bytes(body[6..].try_into().expect("it has eight bytes")).to_string());
                }
                b'C' => tags.push(text(body.strip_suffix(b"\0").unwrap_or(body))),
                b'E' => {
                    let code = body.split(|byte| *byte == 0).find(|field| field.first() == Some(&b'C'));
                    tags.push(format!("error {}", text(code.and_then(|code| code.get(1..)).unwrap_or_default())));
                }
                _ => {}
            }
            rest = after;
        }
        tags.join(", ")
    }
}

/// The first whole message: its kind, its body, what follows it.
fn message(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let length = u32::from_be_bytes(bytes.get(1..5)?.try_into().ok()?);
    let end = 1 + usize::try_from(length).ok()?;
    Some((bytes[0], bytes.get(5..end)?, &bytes[end..]))
}

/// A direction of a connection, read message by message.
struct Reading {
    up: bool,
    /// The client's first messages have no kind; a later one is read once the server answers.
    started: bool,
    bytes: Vec<u8>,
    /// Names of prepared statements that write a batch.
    batches: BTreeSet<Vec<u8>>,
}

impl Reading {
    fn new(up: bool) -> Self {
        Self { up, started: !up, bytes: Vec::new(), batches: BTreeSet::new() }
    }

    /// The next unit; `None` at the end. What is left at the end of a direction is a unit too.
    fn next(&mut self, from: &mut TcpStream) -> Option<Unit> {
        let mut read = [0_u8; 64 * 1024];
        loop {
            if let Some(unit) = self.take() {
                return Some(unit);
            }
            match from.read(&mut read) {
                Ok(count) if count > 0 => self.bytes.extend_from_slice(&read[..count]),
                _ if self.bytes.is_empty() => return None,
                _ => return Some(Unit { bytes: std::mem::take(&mut self.bytes), is_batch: false }),
            }
        }
    }

    fn take(&mut self) -> Option<Unit> {
        if !self.started {
            let length = u32::from_be_bytes(self.bytes.get(..4)?.try_into().ok()?);
            let length = usize::try_from(length).ok()?;
            if self.bytes.len() < length {
                return None;
            }
            let bytes: Vec<u8> = self.bytes.drain(..length).collect();
            self.started = bytes != TLS_ASKED;
            return Some(Unit { bytes, is_batch: false });
        }
        let (mut at, mut is_batch) = (0, false);
        while let Some((kind, body, _)) = message(&self.bytes[at..]) {
            is_batch |= self.up && is_batch_in(&mut self.batches, kind, body);
            at += 5 + body.len();
            // Up: sync, query, flush, goodbye, password. Down: ready, or a question to the client.
            let ends = if self.up { b"SQHXp".as_slice() } else { b"ZR".as_slice() };
            if ends.contains(&kind) {
                return Some(Unit { bytes: self.bytes.drain(..at).collect(), is_batch });
            }
        }
        None
    }
}

/// Whether this message has a batch done: a bind of a prepared statement that writes one, or a query.
fn is_batch_in(batches: &mut BTreeSet<Vec<u8>>, kind: u8, body: &[u8]) -> bool {
    let is_batch = |text: &[u8]| text.windows(BATCH.len()).any(|part| part.eq_ignore_ascii_case(BATCH));
    let mut texts = body.split(|byte| *byte == 0);
    match kind {
        b'P' => {
            let name = texts.next().unwrap_or_default().to_vec();
            if is_batch(body) {
                batches.insert(name);
            } else {
                batches.remove(&name);
            }
            false
        }
        b'B' => texts.nth(1).is_some_and(|name| batches.contains(name)),
        b'Q' => is_batch(body),
        _ => false,
    }
}

/// The traps, tried with a client of the same library as the brokers'.
#[cfg(test)]
mod tests {
    use leasehold::testing::postgres::Server;
    use sqlx::{Connection as _, PgConnection};

    use super::{Point, Wire};

    /// A statement as a batch is one: it does nothing unless it is the next.
    const WRITE: &str =
        "WITH led AS (UPDATE lab SET batch = $1 WHERE batch = $1 - 1 RETURNING 1) SELECT count(*) FROM led";

    fn on_a_thread(url: &str, batch: i64) -> std::thread::JoinHandle<Result<i64, sqlx::Error>> {
        let url = url.to_owned();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let mut connection = PgConnection::connect(&url).await?;
                sqlx::query_scalar(WRITE).bind(batch).fetch_one(&mut connection).await
            })
        })
    }

    #[test]
    fn a_write_is_caught_at_each_of_its_points() {
        let Some(server) = Server::find(&["fsync = off"]) else { return };
        let (url, name) = (server.database(), "lab_0");
        let lab = "CREATE TABLE lab (batch int8); INSERT INTO lab VALUES (0); GRANT ALL ON lab TO leasehold";
        server.sql(name, lab).unwrap();
        let wire = Wire::to(server.port());
        let url = url.replace(&format!(":{}/", server.port()), &format!(":{}/", wire.port()));
        let last = || server.sql(name, "SELECT batch FROM lab").unwrap();

        let (trap, writer) = (wire.trap(Point::Sent), on_a_thread(&url, 1));
        let caught = trap.wait();
        assert_eq!(last(), "0");
        assert_eq!(caught.deliver_and_hear().as_deref(), Some("1, SELECT 1"));
        assert_eq!(writer.join().unwrap().unwrap(), 1);

        let (trap, writer) = (wire.trap(Point::Sent), on_a_thread(&url, 1));
        assert_eq!(trap.wait().deliver_and_hear().as_deref(), Some("0, SELECT 1"));
        assert_eq!(writer.join().unwrap().unwrap(), 0);

        let (trap, writer) = (wire.trap(Point::Sent), on_a_thread(&url, 2));
        trap.wait().cut();
        writer.join().unwrap().unwrap_err();
        assert_eq!(last(), "1");

        let (trap, writer) = (wire.trap(Point::Answered), on_a_thread(&url, 2));
        trap.wait().cut();
        writer.join().unwrap().unwrap_err();
        assert_eq!(last(), "2");

        let (trap, writer) = (wire.trap(Point::Sent), on_a_thread(&url, 3));
        let caught = trap.wait();
        wire.silence_others();
        let other = on_a_thread(&url, 4);
        assert_eq!(caught.deliver_and_hear().as_deref(), Some("1, SELECT 1"));
        assert_eq!(writer.join().unwrap().unwrap(), 1);
        assert!(!other.is_finished() && last() == "3", "silence lets nothing through");
        wire.speak();
        assert_eq!(other.join().unwrap().unwrap(), 1);

        let (trap, writer) = (wire.trap(Point::Told), on_a_thread(&url, 5));
        trap.wait();
        assert_eq!((writer.join().unwrap().unwrap(), last().as_str()), (1, "5"));
    }
}
