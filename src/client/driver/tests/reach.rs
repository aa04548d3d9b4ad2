//! Reaching a broker: who answers what instead, TLS, a proxy, tokens.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Broker;
use crate::client::proxy::{Proxies, tunnel};
use crate::client::{BaseUrl, Client, ClientError, Http, Network, Options};

pub(super) const CERTIFICATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls/localhost.pem");
const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls/localhost.key");

/// Reads the head of a request, byte by byte, so that nothing after it is taken.
pub(super) async fn head(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a whole head"));
    }
    String::from_utf8(head).expect("heads are ASCII")
}

async fn answered(answer: &str) -> ClientError {
    let broker = Broker::new().await;
    let script = async {
        let mut tcp = broker.tcp().await;
        head(&mut tcp).await;
        tcp.write_all(answer.as_bytes()).await.expect("the client reads");
    };
    let (client, ()) = tokio::join!(Client::connect(broker.options()), script);
    client.expect_err("that is no broker")
}

#[tokio::test]
async fn a_refused_upgrade_says_who_answered_what() {
    let error = answered("HTTP/1.1 403 Forbidden\r\nServer: nginx/1.2\r\nContent-Length: 9\r\n\r\nnot you\r\n").await;
    let ClientError::NotABroker(text) = &error else { panic!("{error}") };
    for part in ["/lab/v1/ws", "403 Forbidden", "nginx/1.2", "not you"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let error = answered("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>").await;
    assert!(matches!(&error, ClientError::NotABroker(text) if text.contains("200 OK") && text.contains("<html>")));
    let error = answered("SSH-2.0-OpenSSH_9.9\r\n\r\n").await;
    assert!(matches!(error, ClientError::NotABroker(_)), "{error}");
}

#[tokio::test]
async fn a_websocket_of_another_kind_is_no_broker() {
    let broker = Broker::new().await;
    let script = async {
        // The upgrade is fine, the subprotocol is not agreed.
        tokio_tungstenite::accept_async(broker.tcp().await).await
    };
    let (client, _) = tokio::join!(Client::connect(broker.options()), script);
    let error = client.expect_err("not ours").to_string();
    assert!(error.contains("leasehold.v1"), "{error}");
}

#[tokio::test]
async fn nobody_there_is_no_broker_after_the_connect_timeout() {
    let url = Broker::new().await.url();
    let mut options = Options::new(vec![url.clone()]);
    options.connect_timeout_ms = 30;
    let error = Client::connect(options).await.expect_err("nobody listens");
    assert!(matches!(&error, ClientError::NoBroker(why) if why.contains(&url.to_string())), "{error}");
}

pub(super) fn acceptor() -> tokio_rustls::TlsAcceptor {
    let certificate = CertificateDer::from_pem_file(CERTIFICATE).expect("the test's certificate");
    let key = PrivateKeyDer::from_pem_file(KEY).expect("the test's key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("they belong together");
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}

#[tokio::test]
async fn tls_trusts_the_given_authority_and_no_other() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports");
    let port = listener.local_addr().expect("it is bound").port();
    let url = BaseUrl::parse(&format!("https://localhost:{port}")).expect("a URL");
    let script = async {
        let mut tls = acceptor().accept(listener.accept().await.expect("a client").0).await.expect("it trusts us");
        let request = head(&mut tls).await;
        assert!(request.starts_with("GET /v1/status HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("authorization: Bearer t0k\r\n"), "{request}");
        tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue").await.expect("it reads");
        tls.flush().await.expect("it reads");
        let distrusted = acceptor().accept(listener.accept().await.expect("a client").0).await;
        assert!(distrusted.is_err());
    };
    let ask = async {
        let network = Network::default().with_ca_file(CERTIFICATE).with_token("t0k").expect("a token");
        let answer = Http::with_network(vec![url.clone()], network).get("/v1/status").await.expect("an answer");
        assert_eq!(answer.json::<bool>(), Ok(true));
        let error = Http::with_network(vec![url.clone()], Network::default()).get("/v1/status").await;
        let error = error.expect_err("nobody signed that").to_string();
        assert!(error.contains("LEASEHOLD_CA_FILE"), "{error}");
    };
    tokio::join!(script, ask);
}

#[test]
fn a_token_is_not_shown() {
    let network = Network::default().with_token("hush").expect("a token");
    assert!(!format!("{network:?}").contains("hush"));
    assert!(Network::default().with_token("a\nb").is_err());
}

#[tokio::test]
async fn a_proxy_is_asked_for_a_tunnel() {
    let table = [
        ("HTTP/1.1 200 Connection established\r\nX: y\r\n\r\n", true),
        ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", false),
        ("nonsense\r\n\r\n", false),
    ];
    for (answer, opens) in table {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports");
        let port = listener.local_addr().expect("it is bound").port();
        let proxies = Proxies::new(Some(&format!("http://me:a%3Ab@127.0.0.1:{port}")), None).expect("a proxy");
        let proxy = proxies.of("lab.example", 443).expect("it is used");
        let url = BaseUrl::parse("wss://lab.example").expect("a URL");
        let script = async {
            let mut tcp = listener.accept().await.expect("a client").0;
            let asked = head(&mut tcp).await;
            assert!(asked.starts_with("CONNECT lab.example:443 HTTP/1.1\r\nHost: lab.example:443\r\n"), "{asked}");
            assert!(asked.contains("Proxy-Authorization: Basic bWU6YTpi\r\n"), "{asked}");
            tcp.write_all(answer.as_bytes()).await.expect("it reads");
            tcp.write_all(b"tunnelled").await.expect("it reads");
        };
        let ask = async {
            let tcp = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
            match tunnel(tcp, proxy, &url).await {
                Ok(mut tcp) => {
                    assert!(opens, "{answer}");
                    let mut rest = String::new();
                    tcp.read_to_string(&mut rest).await.expect("it is told");
                    assert_eq!(rest, "tunnelled");
                }
                Err(error) => {
                    assert!(!opens, "{error}");
                    assert!(error.to_string().contains("HTTPS_PROXY"), "{error}");
                    assert!(!error.to_string().contains("a:b"), "{error}");
                }
            }
        };
        tokio::join!(script, ask);
    }
}
