//! The client's steps: what `src/client/machine` does, a function for a function.

use super::rules::{Broken, Size};
use super::world::{Client, Down, Lease, Phase, Promise, Runs, Said, Side, Use};

impl Client {
    pub fn runs(&self) -> bool {
        self.runs == Runs::Yes && self.phase != Phase::Over
    }

    pub fn uses(&self) -> Option<u8> {
        match self.has {
            Use::Held { fence, .. } => Some(fence),
            _ => None,
        }
    }

    /// The answer that a renewal names: `Machine::counted`.
    pub fn counted(&self, size: &Size) -> u8 {
        match self.has {
            Use::Held { long, .. } if long > 0 && !size.breaks(Broken::NamesNewest) => long.min(self.newest.number),
            _ => self.newest.number,
        }
    }

    /// Time passes on its clock. The guard ends the use at the deadline, also while the client's
    /// process stands still: `Machine::expire` and `cli/run/guard`.
    pub fn tick(&mut self, size: &Size) {
        self.newest.age = (self.newest.age + 1).min(size.usable(self.newest.long));
        if let Use::Held { left, .. } = &mut self.has {
            *left = left.saturating_sub(1);
        }
        self.lose_expired();
    }

    pub fn lose_expired(&mut self) {
        if let Use::Held { fence, left: 0, .. } = self.has
            && self.runs != Runs::Frozen
        {
            self.has = Use::Owed { fence };
        }
    }

    /// Counts by an answer, if it is the newest: `Machine::count`.
    fn count(&mut self, size: &Size, mut promise: Promise, named: u8) {
        if size.breaks(Broken::CountsFromReceipt) {
            promise.age = 0;
        }
        let mut newer = promise.number > self.newest.number;
        newer |= promise.long && size.breaks(Broken::OlderLongerCounts);
        if newer {
            self.newest = promise;
            self.named = named;
        }
        let usable = |long: bool| size.usable(long).saturating_sub(promise.age);
        if let Use::Held { fence, long, left, ending } = &mut self.has {
            *ending |= named == *fence;
            if newer && (!*ending || size.breaks(Broken::EndingExtends)) {
                *long = if promise.long { promise.number } else { 0 };
                *left = usable(promise.long);
            } else if newer {
                *left = (*left).min(usable(false));
            }
        }
    }

    /// What the broker says of a lease: `Machine::lease_seen`.
    fn lease_seen(&mut self, size: &Size, request: u8, lease: Lease) {
        match &mut self.has {
            Use::Held { fence, ending, .. } if *fence == lease.fence => *ending |= lease.ending,
            Use::None if self.wants && request == self.request => {
                self.wants = false;
                if lease.ending || self.named == lease.fence {
                    self.has = Use::Owed { fence: lease.fence };
                    return;
                }
                let left = size.usable(self.newest.long).saturating_sub(self.newest.age);
                let long = if self.newest.long { self.newest.number } else { 0 };
                self.has = Use::Held { fence: lease.fence, long, left, ending: false };
            }
            Use::None => self.has = Use::Owed { fence: lease.fence },
            Use::Held { .. } | Use::Owed { .. } => {}
        }
    }
}

impl Side {
    /// The client reads a packet: `Machine::received`.
    pub fn read(&mut self, size: &Size, told: Down) {
        let client = &mut self.client;
        match told {
            Down::Renewed { promise, named } => client.count(size, promise, named),
            Down::Resumed { promise, named, request, lease, waiting } => {
                client.phase = Phase::Up;
                client.count(size, promise, named);
                // What is not listed is over: `Machine::reconcile`.
                let fence = lease.map_or(0, |lease| lease.fence);
                if matches!(client.has, Use::Held { fence: own, .. } | Use::Owed { fence: own } if own != fence) {
                    client.has = Use::None;
                }
                if let Some(lease) = lease {
                    client.lease_seen(size, request, lease);
                } else if !waiting && request == client.request {
                    client.wants = false;
                } else if request < client.request {
                    // The claim did not arrive: it is made again.
                    (client.request, client.wants) = (request, false);
                }
            }
            Down::Granted { request, fence } => {
                client.lease_seen(size, request, Lease { fence, ending: false, kept: false });
            }
            Down::Ending { fence } => {
                if let Use::Held { fence: own, ending, .. } = &mut client.has {
                    *ending |= *own == fence;
                }
            }
            Down::Over { fence } => {
                if matches!(client.has, Use::Held { fence: own, .. } | Use::Owed { fence: own } if own == fence) {
                    client.has = Use::None;
                }
            }
            Down::Gone => client.phase = Phase::Over,
        }
        // An answer may have come after the deadline, or have shortened a promise to what has passed.
        self.client.lose_expired();
    }

    /// A new socket, and a resume on it: `Machine::connected`.
    pub fn resume(&mut self, size: &Size) {
        for up in self.up.iter_mut().flatten() {
            up.socket += 1;
        }
        if let Some(socket) = &mut self.presence.socket {
            *socket += 1;
        }
        self.client.phase = Phase::Resuming;
        let names = self.client.counted(size);
        self.send(0, Said::Resume { age: 0, names });
    }
}
