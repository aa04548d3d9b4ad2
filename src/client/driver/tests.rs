//! The driver against brokers that these tests play by hand, over real sockets on loopback.
//!
//! No test waits for a time: each awaits what must happen, however long the machine takes.

mod http;
mod reach;
mod session;
mod standby;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Message, Result as WsResult};

use crate::client::{BaseUrl, Options};
use crate::protocol::SUBPROTOCOL;

/// Listens where a broker would.
struct Broker {
    listener: TcpListener,
}

impl Broker {
    async fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports") }
    }

    fn url(&self) -> BaseUrl {
        let address = self.listener.local_addr().expect("it is bound");
        BaseUrl::parse(&format!("ws://{address}/lab")).expect("an address is a URL")
    }

    fn options(&self) -> Options {
        Options::new(vec![self.url()])
    }

    async fn tcp(&self) -> TcpStream {
        self.listener.accept().await.expect("a client comes").0
    }

    /// The next client's WebSocket.
    async fn socket(&self) -> Peer {
        #[expect(clippy::result_large_err, reason = "the library's callback is so")]
        let agree = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
            assert_eq!(request.uri().path(), "/lab/v1/ws");
            response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
            Ok(response)
        };
        let socket = tokio_tungstenite::accept_hdr_async(self.tcp().await, agree).await.expect("it upgrades");
        Peer { socket }
    }

    /// The next client's WebSocket with session 3 opened on it.
    async fn opened(&self, ttl_ms: u64) -> Peer {
        let mut peer = self.socket().await;
        let open = peer.request("session.open").await;
        peer.answer(&open, opened(10, ttl_ms, &[])).await;
        peer
    }
}

/// A broker's end of a socket.
struct Peer {
    socket: WebSocketStream<TcpStream>,
}

impl Peer {
    async fn next(&mut self) -> Option<WsResult<Message>> {
        self.socket.next().await
    }

    /// The next request, which must be of this method.
    async fn request(&mut self, method: &str) -> Value {
        let request = self.any_request().await.expect("the client is there");
        assert_eq!(request["method"], method, "{request}");
        request
    }

    /// The next request; `None` when the client is gone.
    async fn any_request(&mut self) -> Option<Value> {
        loop {
            match self.next().await?.ok()? {
                Message::Text(text) => return Some(serde_json::from_str(&text).expect("JSON")),
                Message::Ping(_) | Message::Pong(_) => {}
                _ => return None,
            }
        }
    }

    async fn say(&mut self, message: Value) {
        self.socket.send(Message::text(message.to_string())).await.expect("the client reads");
    }

    async fn answer(&mut self, request: &Value, result: Value) {
        self.say(json!({"jsonrpc": "2.0", "id": request["id"], "result": result})).await;
    }

    async fn notice(&mut self, method: &str, params: Value) {
        self.say(json!({"jsonrpc": "2.0", "method": method, "params": params})).await;
    }

    /// Grants the next claim as lease 7.
    async fn grant(&mut self) {
        let acquire = self.request("lease.acquire").await;
        let request_id = acquire["params"]["request_id"].as_u64().expect("a whole number");
        self.answer(&acquire, granted(request_id, 7)).await;
    }
}

fn opened(renewal: u64, ttl_ms: u64, claims: &[Value]) -> Value {
    json!({
        "session": 3, "secret": "hush", "ttl_ms": ttl_ms, "renewal": renewal, "promise_ms": ttl_ms,
        "now": 1_000, "now_time": "", "state": {"claims": claims, "now": 1_000, "now_time": ""},
    })
}

fn granted(request_id: u64, lease: u64) -> Value {
    let lease = json!({
        "lease": lease, "fence": lease, "state": "active", "claim": 70, "session": 3, "request_id": request_id,
        "owner": "me@here", "owner_verified": false, "needs": ["phone"], "resources": {},
        "queued_at": 900, "queued_at_time": "", "granted_at": 1_000, "granted_at_time": "",
    });
    json!({"request_id": request_id, "claim": 70, "state": "granted", "lease": lease, "now": 1_000, "now_time": ""})
}

fn released(why: &str) -> Value {
    json!({"lease": 7, "why": why, "message": "so", "now": 1_000, "now_time": ""})
}

fn done() -> Value {
    json!({"now": 1_000, "now_time": ""})
}
