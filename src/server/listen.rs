//! Accepting connections: how many, how long, and how they end.
//!
//! Every connection is a task with a place among `connections_max`; a WebSocket keeps its
//! connection's place. Beyond them a connection is told 503 and closed, and when even too many of
//! those are being told, it is closed at once.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower_service::Service;

use super::front::{Front, Process};
use super::limits::{CLOSE_TIMEOUT, HEADER_BYTES_MAX, HEADERS_MAX};

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// A connection's place among `connections_max`, free again when its last holder drops it.
#[derive(Clone, Debug)]
pub struct Place(#[expect(dead_code, reason = "held for what its drop does")] Arc<OwnedSemaphorePermit>);

/// Connections that are being told at one time that there are too many.
const TURNED_AWAY_MAX: usize = 64;
/// How long to wait after the system had no connection to give (no file descriptors, most often).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a connection says nothing before its peer is asked whether it is there.
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(60);
/// How often it is asked then.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(15);
/// How often without an answer, before it counts as gone.
const KEEP_ALIVE_TIMES: u32 = 4;

/// Accepts and serves until the process is closing; then nothing new is accepted, requests under
/// way are finished, and sockets are closed with 1001. The process's `tasks` tell when all is over.
pub async fn listen(listener: TcpListener, front: Arc<Front>) {
    let process = front.process.clone();
    let places = Arc::new(Semaphore::new(process.limits.connections_max));
    let turned_away = Arc::new(Semaphore::new(TURNED_AWAY_MAX));
    let mut closing = pin!(process.closing.cancelled());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut closing => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Answers are written whole, so there is nothing to wait for. Only fails on a dead socket.
        let _ = stream.set_nodelay(true);
        keep_alive(&stream);
        if let Ok(place) = places.clone().try_acquire_owned() {
            let place = Place(Arc::new(place));
            process.tasks.spawn(connection(stream, Peer(address), place, front.clone()));
        } else if let Ok(permit) = turned_away.clone().try_acquire_owned() {
            process.metrics.turned_away();
            process.tasks.spawn(async move {
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, turn_away(stream)).await;
                drop(permit);
            });
        }
    }
    process.tasks.close();
}

/// Lets the system find out peers that went away without a word, though nothing is to be sent to them: who
/// follows a log that says nothing for hours. Fails as the one before.
fn keep_alive(stream: &TcpStream) {
    use rustix::net::sockopt;

    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, KEEP_ALIVE_AFTER);
    let _ = sockopt::set_tcp_keepintvl(stream, KEEP_ALIVE_EVERY);
    let _ = sockopt::set_tcp_keepcnt(stream, KEEP_ALIVE_TIMES);
}

async fn connection(stream: TcpStream, peer: Peer, place: Place, front: Arc<Front>) {
    let process: Arc<Process> = front.process.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(place.clone());
        // A connection may outlast a role.
        let mut routes = front.routes();
        async move {
            let answer = routes.call(request.map(Body::new)).await;
            Ok::<_, Infallible>(answer.unwrap_or_else(|never| match never {}))
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new());
    builder.header_read_timeout(process.limits.handshake_timeout);
    builder.max_buf_size(HEADER_BYTES_MAX);
    builder.max_headers(HEADERS_MAX);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service).with_upgrades());
    // An error here is the peer's: it went away, or spoke no HTTP, and was told so.
    tokio::select! {
        _ = &mut serving => return,
        () = process.closing.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}

/// Tells a connection beyond the limit that it is, without reading what it asks.
async fn turn_away(mut stream: TcpStream) -> std::io::Result<()> {
    let body = concat!(
        r#"{"type":"urn:leasehold:overloaded","title":"overloaded","status":503,"code":"overloaded","detail":"#,
        r#""the broker has as many connections as it may: try again later, or raise connections_max under [limits]"}"#,
    );
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\
         retry-after: 5\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await?;
    // Until the peer is done too, or its time is over: a reset would take the answer with it.
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(())
}
