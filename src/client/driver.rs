//! Moves bytes and time for the machine: sockets, timers, channels. (being built)

use std::sync::Arc;

use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::Options;
use super::connect::Network;
use super::error::ClientError;
use super::event::{Event, LeaseState};
use super::url::BaseUrl;
use crate::protocol::call::{ClaimRequest, LeaseReleased};
use crate::protocol::info::{ClaimInfo, LeaseInfo};

/// What a handle asks of the driver.
#[derive(Debug)]
pub(crate) enum Command {
    Acquire {
        request_id: u64,
        request: Box<ClaimRequest>,
        progress: watch::Sender<Option<Arc<ClaimInfo>>>,
        done: oneshot::Sender<Result<Grant, ClientError>>,
    },
    Cancel {
        request_id: u64,
    },
    Release {
        lease: u64,
        outcome: Option<String>,
        done: Option<oneshot::Sender<Result<LeaseReleased, ClientError>>>,
    },
    Extend {
        lease: u64,
        until: u64,
        done: oneshot::Sender<Result<Arc<LeaseInfo>, ClientError>>,
    },
    Close {
        done: oneshot::Sender<Result<(), ClientError>>,
    },
}

/// A lease on its way to its guard.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) info: watch::Receiver<Arc<LeaseInfo>>,
    pub(crate) state: watch::Receiver<LeaseState>,
}

/// The session as handles see it.
#[derive(Debug, Default)]
pub(crate) struct Link {
    pub(crate) session: Option<u64>,
    pub(crate) secret: Option<String>,
    pub(crate) ttl_ms: Option<u64>,
    pub(crate) up: bool,
    pub(crate) closed: Option<ClientError>,
}

/// Starts the task that owns a session.
pub(crate) fn spawn(
    _options: Options,
    _inbox: mpsc::UnboundedReceiver<Command>,
    _events: broadcast::Sender<Event>,
    link: watch::Sender<Link>,
) -> Result<(), ClientError> {
    link.send_modify(|link| link.closed = Some(ClientError::NoBroker("(being built)".to_owned())));
    Ok(())
}

/// Closes a session from outside.
pub(crate) async fn close_session(
    _urls: &[BaseUrl],
    _network: &Network,
    _session: u64,
    _secret: &str,
) -> Result<(), ClientError> {
    Err(ClientError::NoBroker("(being built)".to_owned()))
}
