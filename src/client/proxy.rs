//! `HTTPS_PROXY` and `NO_PROXY`, and the tunnel through such a proxy.

use std::fmt;
use std::net::IpAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::connect::first_bytes;
use super::error::ClientError;
use super::url::{BaseUrl, split_authority};

/// Bytes of a proxy's answer; more than this is no answer to a CONNECT.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
const PORT_DEFAULT: u16 = 80;

/// Which proxy a host is reached through.
#[derive(Clone, Default)]
pub(crate) struct Proxies {
    proxy: Option<Proxy>,
    /// Lower case, without a leading dot; `*` is every host.
    direct: Vec<String>,
}

/// A proxy that tunnels by CONNECT. Shown without its user.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// `user:password`, percent-decoded.
    user: Option<String>,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Proxies {
    /// Reads the two variables' texts.
    pub(crate) fn new(proxy: Option<&str>, no_proxy: Option<&str>) -> Result<Self, ClientError> {
        let direct = no_proxy
            .unwrap_or_default()
            .split(',')
            .map(|host| host.trim().trim_start_matches('.').to_ascii_lowercase())
            .filter(|host| !host.is_empty())
            .collect();
        Ok(Self { proxy: proxy.map(parse).transpose()?, direct })
    }

    /// The proxy for a host, unless it is reached directly. Loopback always is.
    pub(crate) fn of(&self, host: &str, port: u16) -> Option<&Proxy> {
        let host = host.to_ascii_lowercase();
        let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let listed = self.direct.iter().any(|entry| {
            let name = entry.strip_suffix(&format!(":{port}")).unwrap_or(entry).trim_matches(['[', ']']);
            name == "*" || host == name || host.strip_suffix(name).is_some_and(|before| before.ends_with('.'))
        });
        if loopback || listed { None } else { self.proxy.as_ref() }
    }
}

fn parse(text: &str) -> Result<Proxy, ClientError> {
    // The text may hold a password: no error repeats it.
    let refuse = |why: &str| {
        ClientError::Config(format!("HTTPS_PROXY is no proxy's URL: {why}. Expected such as http://proxy.example:3128"))
    };
    let trimmed = text.trim();
    let rest = match trimmed.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
        Some(_) => return Err(refuse("only http:// proxies are spoken to (they tunnel TLS all the same)")),
        None => trimmed,
    };
    let authority = rest.split('/').next().unwrap_or(rest);
    let (user, authority) = match authority.rsplit_once('@') {
        Some((user, authority)) => (Some(percent_decoded(user)), authority),
        None => (None, authority),
    };
    let (host, port) = split_authority(authority, PORT_DEFAULT).map_err(refuse)?;
    Ok(Proxy { host, port, user })
}

/// Asks the proxy on `tcp` for a tunnel to `url`.
pub(crate) async fn tunnel(mut tcp: TcpStream, proxy: &Proxy, url: &BaseUrl) -> Result<TcpStream, ClientError> {
    let authority = url.authority(true);
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
    if let Some(user) = &proxy.user {
        request.push_str(&format!("Proxy-Authorization: Basic {}\r\n", base64(user.as_bytes())));
    }
    request.push_str("\r\n");
    let broke = |error: std::io::Error| ClientError::NoBroker(format!("{url} through the proxy {proxy}: {error}"));
    tcp.write_all(request.as_bytes()).await.map_err(broke)?;
    // Byte by byte up to the empty line: what follows belongs to the tunnel. It is a few hundred
    // bytes once per connection.
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= ANSWER_BYTES_MAX {
            return Err(ClientError::NotABroker(format!("the proxy {proxy} answers more than a proxy would")));
        }
        answer.push(tcp.read_u8().await.map_err(broke)?);
    }
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let status = line.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    if line.starts_with(b"HTTP/1.") && status.len() == 3 && status.starts_with(b"2") {
        return Ok(tcp);
    }
    Err(ClientError::NoBroker(format!("the proxy {proxy} of HTTPS_PROXY refused {authority}{}", first_bytes(line))))
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match hex.and_then(|two| u8::from_str_radix(two, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let part = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = part(0) << 16 | part(1) << 8 | part(2);
        for (at, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let index = (bits >> shift & 63) as usize;
            text.push(if at <= chunk.len() { char::from(ALPHABET[index]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Proxies, base64, percent_decoded};

    #[test]
    fn base64_pads() {
        for (text, encoded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
    }

    #[test]
    fn percent_signs_are_decoded_where_two_digits_follow() {
        assert_eq!(percent_decoded("me:a%40b%"), "me:a@b%");
    }

    #[test]
    fn no_proxy_names_hosts_domains_and_ports() {
        let proxies = Proxies::new(Some("http://me:p@proxy:3128/"), Some("lab.example, .corp,10.0.0.1,other:443"));
        let proxies = proxies.expect("a proxy");
        let table = [
            ("lab.example", 443, false),
            ("a.lab.example", 443, false),
            ("notlab.example", 443, true),
            ("x.corp", 443, false),
            ("10.0.0.1", 443, false),
            ("10.0.0.2", 443, true),
            ("other", 443, false),
            ("other", 8443, true),
            ("localhost", 443, false),
            ("::1", 443, false),
        ];
        for (host, port, through) in table {
            assert_eq!(proxies.of(host, port).is_some(), through, "{host}:{port}");
        }
        assert_eq!(proxies.of("else", 1).expect("a proxy").to_string(), "proxy:3128");
        assert!(Proxies::new(Some("proxy"), Some("*")).expect("a proxy").of("lab", 443).is_none());
    }

    #[test]
    fn a_bad_proxy_is_refused_without_repeating_it() {
        for text in ["socks5://me:hush@proxy", "http://me:hush@:1", "http://me:hush@"] {
            let error = Proxies::new(Some(text), None).err().expect(text).to_string();
            assert!(error.contains("HTTPS_PROXY") && !error.contains("hush"), "{error}");
        }
    }
}
