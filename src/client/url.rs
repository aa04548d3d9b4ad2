//! `LEASEHOLD_URL` read into base URLs. Does no I/O.

use std::fmt;

use super::error::ClientError;
use crate::protocol::{PORT_DEFAULT, URL_DEFAULT};

/// Where a broker is: scheme, host, port and path prefix. The same for WebSocket and HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    /// Whether it is spoken to through TLS (`wss`, `https`).
    pub tls: bool,
    /// A name or an address; an IPv6 address without its brackets.
    pub host: String,
    /// As given; else 5327, and 443 through TLS.
    pub port: u16,
    /// Empty, or with a leading and no trailing slash.
    pub prefix: String,
}

const TLS_PORT_DEFAULT: u16 = 443;

impl BaseUrl {
    /// Reads one URL: `ws`, `wss`, `http` or `https`, host, optional port and path prefix.
    pub fn parse(text: &str) -> Result<Self, ClientError> {
        let refuse = |why: &str| {
            ClientError::Config(format!(
                "{text:?} is no broker's URL: {why}. Expected ws, wss, http or https, such as {URL_DEFAULT}"
            ))
        };
        let trimmed = text.trim();
        let (scheme, rest) = trimmed.split_once("://").ok_or_else(|| refuse("it has no scheme"))?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "ws" | "http" => false,
            "wss" | "https" => true,
            _ => return Err(refuse("its scheme is not known")),
        };
        if rest.contains(['?', '#']) {
            return Err(refuse("it has a query or a fragment, which a base URL has not"));
        }
        if rest.chars().any(|c| c.is_whitespace() || c.is_control() || !c.is_ascii()) {
            return Err(refuse("it has a character that a URL cannot have"));
        }
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        if authority.contains('@') {
            return Err(refuse("it has a user; tokens are given by LEASEHOLD_TOKEN"));
        }
        let default = if tls { TLS_PORT_DEFAULT } else { PORT_DEFAULT };
        let (host, port) = split_authority(authority, default).map_err(refuse)?;
        Ok(Self { tls, host, port, prefix: path.trim_end_matches('/').to_owned() })
    }

    /// Reads several, separated by commas; at least one.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, ClientError> {
        let urls =
            text.split(',').filter(|part| !part.trim().is_empty()).map(Self::parse).collect::<Result<Vec<_>, _>>()?;
        if urls.is_empty() {
            return Err(ClientError::Config(format!("LEASEHOLD_URL names no broker: expected such as {URL_DEFAULT}")));
        }
        Ok(urls)
    }

    /// What `LEASEHOLD_URL` says, or the default.
    pub fn from_env() -> Result<Vec<Self>, ClientError> {
        match std::env::var("LEASEHOLD_URL") {
            Ok(text) if !text.trim().is_empty() => Self::parse_list(&text),
            Ok(_) | Err(std::env::VarError::NotPresent) => Self::parse_list(URL_DEFAULT),
            Err(std::env::VarError::NotUnicode(_)) => {
                Err(ClientError::Config("LEASEHOLD_URL is not UTF-8: expected a URL".to_owned()))
            }
        }
    }

    /// `host:port` as it stands in a Host header and in a CONNECT; the default port of the scheme
    /// is left out where `always_port` is not set.
    #[must_use]
    pub fn authority(&self, always_port: bool) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let usual = if self.tls { TLS_PORT_DEFAULT } else { 80 };
        if self.port == usual && !always_port { host } else { format!("{host}:{}", self.port) }
    }

    /// Whether both name one host and port in the same way, whatever is asked for there.
    pub(crate) fn is_same_place(&self, other: &Self) -> bool {
        self.tls == other.tls && self.port == other.port && self.host.eq_ignore_ascii_case(&other.host)
    }

    /// The path below the prefix; `path` begins with a slash.
    #[must_use]
    pub fn path(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// The same place for HTTP, `http` or `https` as it fits.
    #[must_use]
    pub fn http(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority(false), self.prefix)
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "wss" } else { "ws" };
        write!(f, "{scheme}://{}{}", self.authority(true), self.prefix)
    }
}

/// Host and port of `host`, `host:port`, `[v6]` or `[v6]:port`.
pub(crate) fn split_authority(authority: &str, default: u16) -> Result<(String, u16), &'static str> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or("its IPv6 address has no closing bracket")?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| "what is in its brackets is no IPv6 address")?;
        match after.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if after.is_empty() => (host, None),
            None => return Err("something other than a port follows its IPv6 address"),
        }
    } else {
        match authority.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err("an IPv6 address needs brackets"),
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    if host.is_empty() {
        return Err("it has no host");
    }
    let port = match port {
        None => default,
        Some(text) => match text.parse() {
            Ok(port) if port > 0 => port,
            _ => return Err("its port is no number from 1 to 65535"),
        },
    };
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::BaseUrl;

    #[test]
    fn urls_are_read_with_their_defaults() {
        let table = [
            ("ws://lab", false, "lab", 5327, "", "ws://lab:5327"),
            ("http://127.0.0.1:80/", false, "127.0.0.1", 80, "", "ws://127.0.0.1:80"),
            ("wss://lab.example.org", true, "lab.example.org", 443, "", "wss://lab.example.org:443"),
            (" https://lab:8443/lease/hold/ ", true, "lab", 8443, "/lease/hold", "wss://lab:8443/lease/hold"),
            ("WS://[::1]", false, "::1", 5327, "", "ws://[::1]:5327"),
            ("ws://[fe80::1]:9/x", false, "fe80::1", 9, "/x", "ws://[fe80::1]:9/x"),
        ];
        for (text, tls, host, port, prefix, shown) in table {
            let url = BaseUrl::parse(text).expect(text);
            assert_eq!(
                (url.tls, url.host.as_str(), url.port, url.prefix.as_str()),
                (tls, host, port, prefix),
                "{text}"
            );
            assert_eq!(url.to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_url_is_refused_with_the_reason() {
        let table = [
            ("lab:5327", "no scheme"),
            ("ftp://lab", "scheme is not known"),
            ("ws://", "no host"),
            ("ws://:5327", "no host"),
            ("ws://lab:0", "port"),
            ("ws://lab:x", "port"),
            ("ws://::1", "brackets"),
            ("ws://[::1", "bracket"),
            ("ws://[lab]", "IPv6"),
            ("ws://a b", "character"),
            ("ws://lab?x=1", "query"),
            ("ws://me:secret@lab", "user"),
        ];
        for (text, why) in table {
            let error = BaseUrl::parse(text).expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn several_urls_are_separated_by_commas() {
        let urls = BaseUrl::parse_list("ws://a, wss://b/x,").expect("a list");
        assert_eq!(urls.iter().map(ToString::to_string).collect::<Vec<_>>(), ["ws://a:5327", "wss://b:443/x"]);
        assert!(BaseUrl::parse_list(" , ").is_err());
    }

    #[test]
    fn http_and_authority_leave_the_usual_port_out() {
        let url = BaseUrl::parse("wss://lab/x").expect("a URL");
        assert_eq!((url.http().as_str(), url.authority(true).as_str()), ("https://lab/x", "lab:443"));
        assert_eq!(url.path("/v1/ws"), "/x/v1/ws");
        assert_eq!(BaseUrl::parse("ws://[::1]").expect("a URL").http(), "http://[::1]:5327");
    }
}
