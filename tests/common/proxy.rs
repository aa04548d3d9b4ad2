//! A network of the test's own between a client and the broker: it can go silent without closing,
//! for every connection or for those that are open, and it can cut them.
//!
//! What is sent into silence is not lost but late, as TCP would have it: when the network speaks
//! again it arrives.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// A port that leads to another one. The threads behind it end with their connections.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Every connection so far, both of its ends; their numbers are their places.
    connections: Vec<[TcpStream; 2]>,
    /// Connections with a number below this are silent.
    silent_below: usize,
    /// New connections are accepted and closed at once.
    refusing: bool,
}

impl Proxy {
    /// A network that leads to `port` on loopback.
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

    /// Where clients connect.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The base URL that leads through it.
    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }

    /// Nothing passes from here on, on whatever connection, and nothing is closed.
    pub fn silence(&self) {
        self.change(|state| state.silent_below = usize::MAX);
    }

    /// Nothing passes on the connections open now; new ones work: the old socket is half open.
    pub fn silence_present(&self) {
        self.change(|state| state.silent_below = state.connections.len());
    }

    /// Everything passes again, also what was sent meanwhile.
    pub fn speak(&self) {
        self.change(|state| (state.silent_below, state.refusing) = (0, false));
    }

    /// Closes every connection at both ends.
    pub fn cut(&self) {
        self.change(State::close_all);
    }

    /// Closes every connection, and every new one at once, until [`Self::speak`].
    pub fn refuse(&self) {
        self.change(|state| {
            state.refusing = true;
            state.close_all();
        });
    }

    /// How many connections were ever accepted.
    pub fn accepted(&self) -> usize {
        self.shared.locked().connections.len()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.locked());
        self.shared.changed.notify_all();
    }
}

impl State {
    fn close_all(&mut self) {
        for end in self.connections.iter().flatten() {
            // One that is closed already needs nothing.
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread of the proxy panics while it changes its state")
    }

    fn accept(self: &Arc<Self>, near: TcpStream, port: u16) {
        if self.locked().refusing {
            return;
        }
        // Without a broker behind it the connection is closed, as a refusing machine would.
        let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else { return };
        let copy = |stream: &TcpStream| stream.try_clone().expect("a descriptor is left");
        let number = {
            let mut state = self.locked();
            state.connections.push([copy(&near), copy(&far)]);
            state.connections.len() - 1
        };
        for (from, to) in [(copy(&near), copy(&far)), (far, near)] {
            // Small messages must not wait for each other; where the system refuses, they do.
            let _ = to.set_nodelay(true);
            let shared = Arc::clone(self);
            std::thread::spawn(move || shared.carry(number, from, to));
        }
    }

    /// Carries bytes one way until either end closes. In silence it neither writes nor closes.
    fn carry(&self, number: usize, mut from: TcpStream, mut to: TcpStream) {
        let mut bytes = [0_u8; 16 * 1024];
        loop {
            let read = from.read(&mut bytes).unwrap_or(0);
            let mut state = self.locked();
            while number < state.silent_below {
                state = self.changed.wait(state).expect("no thread of the proxy panics while it changes its state");
            }
            drop(state);
            if read == 0 || to.write_all(&bytes[..read]).is_err() {
                // The other way has nothing to carry to any more either.
                let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
                return;
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Wakes the threads that wait in silence, so that they end.
        self.change(|state| {
            state.silent_below = 0;
            state.close_all();
        });
    }
}
