//! The network: connections as TCP has them, whose two streams keep their order, and everything
//! that can happen to them.
//!
//! What is sent arrives later, in order, or never. A partition holds everything back and lets it
//! through afterwards, so that old sockets deliver late. A cut loses what is under way, and each
//! end hears of it or not.

use std::collections::VecDeque;

use super::world::{Ev, World};
use crate::engine::input::SocketId;

/// Messages a client's system buffers before the broker's writes are stuck.
pub(super) const WINDOW: usize = 4;

/// Something on its way.
#[derive(Clone, Debug)]
pub(super) enum Item {
    Text(String),
    Ping,
    Pong,
    /// The end of the stream, with the code of a Close frame where there was one.
    Closed {
        code: Option<u16>,
        clean: bool,
    },
}

/// A connection.
pub(super) struct Link {
    pub client: usize,
    /// The broker's process that it leads to.
    pub life: u64,
    pub to_broker: VecDeque<Item>,
    pub to_client: VecDeque<Item>,
    /// Nothing passes any more, and nobody is told.
    pub dead: bool,
}

impl World {
    /// How long a message takes, microseconds.
    pub(super) fn delay(&mut self) -> u64 {
        match self.dice.roll(20) {
            0 => self.dice.between(5_000, 150_000),
            1..=4 => self.dice.between(1_000, 8_000),
            _ => self.dice.between(50, 1_000),
        }
    }

    /// A stream's items keep their order as each arrival takes the first of them.
    pub(super) fn send_to_broker(&mut self, socket: SocketId, item: Item) {
        let delay = self.delay();
        let Some(link) = self.links.get_mut(&socket).filter(|link| !link.dead) else { return };
        link.to_broker.push_back(item);
        self.after(delay, Ev::ToBroker(socket));
    }

    pub(super) fn send_to_client(&mut self, socket: SocketId, item: Item) {
        let delay = self.delay();
        let Some(link) = self.links.get_mut(&socket).filter(|link| !link.dead) else { return };
        link.to_client.push_back(item);
        self.after(delay, Ev::ToClient(socket));
    }

    pub(super) fn arrives_at_broker(&mut self, socket: SocketId) {
        let Some(link) = self.links.get(&socket).filter(|link| !link.dead) else { return };
        let (client, life) = (link.client, link.life);
        let there = self.here.enter(life);
        let frozen_until = if there { self.here.frozen_until } else { 0 };
        let held = self.runners[client].cut_off_until.max(frozen_until);
        if held > self.now {
            self.at(held, Ev::ToBroker(socket));
            return;
        }
        let item = self.links.get_mut(&socket).and_then(|link| link.to_broker.pop_front());
        // Whoever writes does not read while its write is stuck; here reading goes on, which is worse.
        if let Some(item) = item.filter(|_| there && self.here.process.is_some()) {
            self.read_by_broker(socket, item);
        }
    }

    pub(super) fn arrives_at_client(&mut self, socket: SocketId) {
        let Some(link) = self.links.get(&socket).filter(|link| !link.dead) else { return };
        let client = link.client;
        let runner = &self.runners[client];
        let held = runner.cut_off_until.max(runner.frozen_until).max(runner.slow_until);
        if held > self.now {
            self.at(held, Ev::ToClient(socket));
            return;
        }
        let item = self.links.get_mut(&socket).and_then(|link| link.to_client.pop_front());
        if self.here.enter(self.links.get(&socket).map_or(0, |link| link.life)) {
            self.pump(socket);
        }
        if let Some(item) = item.filter(|_| self.runners[client].socket == Some(socket)) {
            self.read_by_client(client, socket, item);
        }
    }

    /// A connection breaks, and what is under way is lost.
    pub(super) fn cut(&mut self, client: usize, client_hears: bool, broker_hears: bool) {
        let Some(socket) = self.runners[client].socket else { return };
        let Some(link) = self.links.get_mut(&socket) else { return };
        link.to_broker.clear();
        link.to_client.clear();
        let closed = Item::Closed { code: None, clean: false };
        if client_hears {
            self.send_to_client(socket, closed.clone());
        }
        if broker_hears {
            self.send_to_broker(socket, closed);
        }
        if !client_hears
            && !broker_hears
            && let Some(link) = self.links.get_mut(&socket)
        {
            link.dead = true;
        } else if client_hears != broker_hears {
            self.deaf.insert(socket, client_hears);
        }
    }
}
