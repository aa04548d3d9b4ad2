//! What was computed and may not leave yet: it waits for the batch it was computed after.

use tokio::sync::oneshot;

use super::input::{Answer, Outgoing, Release, SocketId, Told};
use crate::protocol::error::RpcError;
use crate::protocol::rpc::Id;

/// Something to tell.
pub enum Output {
    /// To a socket.
    Socket(SocketId, Outgoing),
    /// To whoever gave a command.
    Told(oneshot::Sender<Result<Told, RpcError>>, Result<Told, RpcError>),
    /// To whoever asked the books.
    Release(Release, Result<(), RpcError>),
    /// To whoever stops the broker.
    Stopped(oneshot::Sender<()>),
}

/// Outputs by what they wait for: `open` for the batch that is being made, `sealed` for the one
/// that is being committed, `ready` for nobody.
#[derive(Default)]
pub struct Held {
    open: Vec<Output>,
    sealed: Vec<Output>,
    ready: Vec<Output>,
}

impl Held {
    /// Holds an output until the batch that is being made is durable.
    pub fn hold(&mut self, output: Output) {
        self.open.push(output);
    }

    /// Lets an output leave at once: it tells nothing of what is not durable.
    pub fn tell_now(&mut self, output: Output) {
        self.ready.push(output);
    }

    /// The same, for the answer to a call that has one.
    pub fn tell_socket(&mut self, socket: SocketId, id: Option<Id>, result: Result<Answer, RpcError>) {
        if let Some(id) = id {
            self.ready.push(Output::Socket(socket, Outgoing::Answer { id, result }));
        }
    }

    /// Whether nothing waits for a batch.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.open.is_empty() && self.sealed.is_empty()
    }

    /// The batch that was being made is being committed.
    pub fn seal(&mut self) {
        assert!(self.sealed.is_empty(), "a batch was sealed while another is being committed");
        std::mem::swap(&mut self.open, &mut self.sealed);
    }

    /// There is no batch: nothing changed, and all that went before is durable.
    pub fn release(&mut self) {
        self.ready.append(&mut self.open);
    }

    /// The batch that was being committed is durable.
    pub fn release_sealed(&mut self) {
        self.ready.append(&mut self.sealed);
    }

    /// The batch that was being committed is not there, nor what was decided on top of it: whoever
    /// waits for an answer gets this one instead. Nobody else hears anything, but for sockets that
    /// are to close.
    pub fn refuse_all(&mut self, error: &RpcError) {
        let sealed = std::mem::take(&mut self.sealed);
        for output in sealed.into_iter().chain(std::mem::take(&mut self.open)) {
            let instead = match output {
                Output::Socket(socket, Outgoing::Answer { id, .. }) => {
                    Output::Socket(socket, Outgoing::Answer { id, result: Err(error.clone()) })
                }
                Output::Told(answer, _) => Output::Told(answer, Err(error.clone())),
                Output::Release(release, _) => Output::Release(release, Err(error.clone())),
                Output::Stopped(done) => Output::Stopped(done),
                close @ Output::Socket(_, Outgoing::Close { .. }) => close,
                Output::Socket(..) => continue,
            };
            self.ready.push(instead);
        }
    }

    /// What may leave now, in the order it was computed.
    pub fn take(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.ready)
    }
}
