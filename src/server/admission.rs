//! Who may ask at all, before there are tokens: requests that a person or program on this machine
//! made on purpose.
//!
//! A web page that somebody has open can send requests to loopback too, and a proxy can carry the
//! whole world there. So the Host must be a loopback name (a page that rebinds DNS has its own),
//! nothing may have been forwarded, and an Origin must be the broker's own. `--insecure` lifts the
//! first two and never the last. Pure, so that the table of its tests is the policy.

use axum::http::HeaderMap;
use axum::http::header::{HOST, ORIGIN};

use crate::protocol::error::{RpcError, code};

/// Headers by which proxies say that they forward.
const FORWARDING: &[&str] = &["forwarded", "via"];
/// And how the names of their others begin.
const FORWARDING_PREFIX: &str = "x-forwarded-";

/// Decides over a request by its headers. `insecure` is whether `serve` was told so.
///
/// # Errors
/// `not_admitted`, saying which header and what to do.
pub fn admit(headers: &HeaderMap, insecure: bool) -> Result<(), RpcError> {
    let host = single(headers, HOST.as_str())?;
    if !insecure {
        check_forwarding(headers)?;
        check_host(host)?;
    }
    check_origin(single(headers, ORIGIN.as_str())?, host)
}

/// Whether an address, as in a Host header, is this machine by name: `localhost`, `127.x.y.z` or
/// `[::1]`, with or without a port.
#[must_use]
pub fn is_loopback_authority(authority: &str) -> bool {
    let Some(name) = without_port(authority) else { return false };
    if let Some(address) = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok_and(|address| address.is_loopback());
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

/// The name without its port; `None` when what follows the colon is no port.
fn without_port(authority: &str) -> Option<&str> {
    let end = if authority.starts_with('[') {
        authority.find(']')? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (name, rest) = authority.split_at(end);
    match rest.strip_prefix(':') {
        None if rest.is_empty() => Some(name),
        Some(port) if port.is_empty() || port.parse::<u16>().is_ok() => Some(name),
        _ => None,
    }
}

fn check_forwarding(headers: &HeaderMap) -> Result<(), RpcError> {
    let forwarded = |name: &str| FORWARDING.contains(&name) || name.starts_with(FORWARDING_PREFIX);
    match headers.keys().map(axum::http::HeaderName::as_str).find(|name| forwarded(name)) {
        None => Ok(()),
        Some(name) => Err(refuse(format!(
            "the request has the header `{name}`, so it was forwarded to this broker, which has no tokens: reach the \
             broker directly, or start it with --insecure if everybody who can reach the proxy may use it"
        ))),
    }
}

fn check_host(host: Option<&str>) -> Result<(), RpcError> {
    match host {
        Some(host) if is_loopback_authority(host) => Ok(()),
        Some(host) => Err(refuse(format!(
            "the header `Host` is `{}`: without tokens only loopback names are served; ask for localhost, 127.0.0.1 \
             or [::1], or start the broker with --insecure",
            shown(host)
        ))),
        None => Err(refuse("the header `Host` is missing: send one that is localhost, 127.0.0.1 or [::1]")),
    }
}

fn check_origin(origin: Option<&str>, host: Option<&str>) -> Result<(), RpcError> {
    let Some(origin) = origin else { return Ok(()) };
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    match (authority, host) {
        (Some(authority), Some(host)) if authority.eq_ignore_ascii_case(host) => Ok(()),
        _ => Err(refuse(format!(
            "the header `Origin` is `{}`, which is not this broker: web pages of others may not use it; a program \
             should send no Origin",
            shown(origin)
        ))),
    }
}

/// The header's value; `None` where it is missing. Twice, or not as text, is nobody's good faith.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, RpcError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            let text =
                value.to_str().map_err(|_| refuse(format!("the header `{name}` is not text: send plain ASCII")))?;
            Ok(Some(text))
        }
        (Some(_), Some(_)) => Err(refuse(format!("the header `{name}` is there twice: send it once"))),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

fn refuse(message: impl Into<String>) -> RpcError {
    RpcError::new(code::NOT_ADMITTED, message)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderName, HeaderValue};

    use super::{admit, is_loopback_authority};

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn requests_are_admitted_by_their_headers() {
        let local = ("host", "localhost:5327");
        // headers, admitted without --insecure, admitted with it, the header named when not
        type Row<'a> = (&'a [(&'a str, &'a str)], bool, bool, &'a str);
        let table: &[Row<'_>] = &[
            (&[local], true, true, ""),
            (&[("host", "127.0.0.1:5327")], true, true, ""),
            (&[("host", "127.3.2.1")], true, true, ""),
            (&[("host", "[::1]:5327")], true, true, ""),
            (&[("host", "LOCALHOST")], true, true, ""),
            (&[], false, true, "Host"),
            (&[("host", "broker.lab:5327")], false, true, "Host"),
            (&[("host", "localhost.evil.example")], false, true, "Host"),
            (&[("host", "127.0.0.1.evil.example")], false, true, "Host"),
            (&[("host", "10.0.0.1")], false, true, "Host"),
            (&[local, ("host", "evil.example")], false, false, "host"),
            (&[local, ("forwarded", "for=10.0.0.1")], false, true, "forwarded"),
            (&[local, ("x-forwarded-for", "10.0.0.1")], false, true, "x-forwarded-for"),
            (&[local, ("x-forwarded-proto", "https")], false, true, "x-forwarded-proto"),
            (&[local, ("via", "1.1 proxy")], false, true, "via"),
            (&[local, ("origin", "http://localhost:5327")], true, true, ""),
            (&[local, ("origin", "http://localhost:3000")], false, false, "Origin"),
            (&[local, ("origin", "https://evil.example")], false, false, "Origin"),
            (&[local, ("origin", "null")], false, false, "Origin"),
            (&[("host", "broker.lab"), ("origin", "https://broker.lab")], false, true, "Host"),
            (&[("host", "broker.lab"), ("origin", "https://evil.example")], false, false, "Host"),
        ];
        for (lines, secure, insecure, named) in table {
            let headers = headers(lines);
            assert_eq!(admit(&headers, false).is_ok(), *secure, "{lines:?}");
            assert_eq!(admit(&headers, true).is_ok(), *insecure, "{lines:?} with --insecure");
            if let Err(error) = admit(&headers, false) {
                assert_eq!(error.data.code, "not_admitted");
                assert!(error.message.contains(&format!("`{named}`")), "{lines:?}: {error}");
            }
        }
    }

    #[test]
    fn loopback_names_are_exact() {
        for (authority, loopback) in [
            ("localhost", true),
            ("localhost.", true),
            ("[::1]", true),
            ("127.255.255.254:1", true),
            ("localhost:5327x", false),
            ("[::1", false),
            ("[::2]", false),
            ("127.0.0.1@evil", false),
            ("0x7f.0.0.1", false),
            ("", false),
        ] {
            assert_eq!(is_loopback_authority(authority), loopback, "{authority}");
        }
    }
}
