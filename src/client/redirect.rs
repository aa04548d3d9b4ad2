//! Following a broker that stands by to the one that leads: `307` and its `Location`. Does no I/O.
//!
//! A redirect is followed only to where the connection is as safe as here, as the token goes along:
//! never from TLS to plain text. A few hops at most, and never in a circle.

use super::error::ClientError;
use super::url::{BaseUrl, split_authority};

/// A standby knows the leader, which may have handed over just now; whatever sends on more often
/// does not know.
const HOPS_MAX: usize = 3;
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// Whether an answer with this status sends the same request elsewhere.
pub(crate) const fn sends_elsewhere(status: u16) -> bool {
    matches!(status, 307 | 308)
}

/// The way of one request: where it is now, and where it came from.
#[derive(Clone, Debug)]
pub(crate) struct Trail {
    /// The place asked for below a base URL, with its query.
    asked: String,
    base: BaseUrl,
    path: String,
    /// Places that sent it on.
    left: Vec<(BaseUrl, String)>,
}

impl Trail {
    /// Begins at `base`, asking for `path`, which begins with a slash.
    pub(crate) fn new(base: &BaseUrl, path: &str) -> Self {
        Self { asked: path.to_owned(), base: base.clone(), path: base.path(path), left: Vec::new() }
    }

    /// Whom to ask.
    pub(crate) fn base(&self) -> &BaseUrl {
        &self.base
    }

    /// What to ask for: the whole path and query.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Whether somebody sent it on.
    pub(crate) fn is_redirected(&self) -> bool {
        !self.left.is_empty()
    }

    /// Goes where `location` says, as far as that is followed.
    pub(crate) fn follow(&mut self, location: Option<&str>) -> Result<(), ClientError> {
        let from = self.base.clone();
        let refuse = |why: String| {
            let shown: String = location.unwrap_or_default().chars().take(200).collect();
            ClientError::Misdirected(format!("{from} sends to {shown:?}: {why}"))
        };
        let location = location.ok_or_else(|| refuse("there is no Location, so nobody knows where".to_owned()))?;
        let (base, path) = resolve(&self.base, location).map_err(|why| refuse(why.to_owned()))?;
        if self.base.tls && !base.tls {
            return Err(refuse("that is not encrypted, and this connection is. What does its --advertise say?".into()));
        }
        if self.left.len() >= HOPS_MAX {
            return Err(refuse(format!("that is one redirect more than the {HOPS_MAX} that are followed")));
        }
        // The same text for people, whatever is asked for: without what was asked, where it ends so.
        let prefix = path.strip_suffix(&self.asked).unwrap_or_default().to_owned();
        let base = BaseUrl { prefix, ..base };
        self.left.push((std::mem::replace(&mut self.base, base), std::mem::replace(&mut self.path, path)));
        let here = |(base, path): &(BaseUrl, String)| self.base.is_same_place(base) && *path == self.path;
        if self.left.iter().any(here) {
            return Err(refuse("the request was there already, so it goes round in a circle".to_owned()));
        }
        Ok(())
    }

    /// An error on the way, saying who sent the request there.
    pub(crate) fn told(&self, error: ClientError) -> ClientError {
        let Some((first, _)) = self.left.first() else { return error };
        let sent = |why: String| format!("{first} says that another broker leads, but {why}");
        match error {
            ClientError::NoBroker(why) => ClientError::NoBroker(sent(why)),
            ClientError::NotABroker(why) => ClientError::NotABroker(sent(why)),
            other => other,
        }
    }
}

/// Where a Location leads: the base without a prefix, and the whole path with its query.
fn resolve(from: &BaseUrl, location: &str) -> Result<(BaseUrl, String), &'static str> {
    let location = location.split('#').next().unwrap_or_default().trim();
    if location.is_empty() || location.chars().any(|c| c.is_whitespace() || c.is_control() || !c.is_ascii()) {
        return Err("that is no URL");
    }
    if location.starts_with('/') && !location.starts_with("//") {
        return Ok((BaseUrl { prefix: String::new(), ..from.clone() }, location.to_owned()));
    }
    let (tls, rest) = match location.split_once("//") {
        Some(("", rest)) => (from.tls, rest),
        Some((scheme, rest)) => match scheme.to_ascii_lowercase().as_str() {
            "ws:" | "http:" => (false, rest),
            "wss:" | "https:" => (true, rest),
            _ => return Err("its scheme is none of ws, wss, http and https"),
        },
        None => return Err("expected a whole URL, or a path"),
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.contains('@') {
        return Err("it has a user, and tokens are not taken from there");
    }
    let (host, port) = split_authority(authority, if tls { HTTPS_PORT } else { HTTP_PORT })?;
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Ok((BaseUrl { tls, host, port, prefix: String::new() }, path))
}

#[cfg(test)]
mod tests {
    use super::{BaseUrl, ClientError, Trail};

    fn trail(url: &str) -> Trail {
        Trail::new(&BaseUrl::parse(url).expect("a URL"), "/v1/ws")
    }

    #[test]
    fn a_location_is_a_url_or_a_path() {
        let table = [
            ("ws://a", "http://b:5327/v1/ws", "ws://b:5327", "/v1/ws"),
            ("ws://a", "ws://b/v1/ws", "ws://b:80", "/v1/ws"),
            ("ws://a/lab", "https://b/v1/ws#x", "wss://b:443", "/v1/ws"),
            ("wss://a", "WSS://[::1]:9/x/v1/ws", "wss://[::1]:9/x", "/x/v1/ws"),
            ("wss://a", "//b/v1/ws", "wss://b:443", "/v1/ws"),
            ("ws://a/lab", "/other/v1/ws", "ws://a:5327/other", "/other/v1/ws"),
            ("ws://a", "http://b:1/elsewhere?x=1", "ws://b:1", "/elsewhere?x=1"),
            ("ws://a", "http://b:1?x", "ws://b:1", "/?x"),
        ];
        for (from, location, base, path) in table {
            let mut trail = trail(from);
            trail.follow(Some(location)).expect(location);
            assert_eq!((trail.base().to_string().as_str(), trail.path()), (base, path), "{location}");
            assert!(trail.is_redirected());
        }
    }

    #[test]
    fn what_is_not_followed_says_why() {
        let table = [
            ("wss://a", Some("ws://b/v1/ws"), "not encrypted"),
            ("wss://a", Some("http://b/v1/ws"), "not encrypted"),
            ("ws://a", None, "no Location"),
            ("ws://a", Some(""), "no URL"),
            ("ws://a", Some("b:5327"), "whole URL"),
            ("ws://a", Some("ftp://b/"), "scheme"),
            ("ws://a", Some("http://me:x@b/v1/ws"), "user"),
            ("ws://a", Some("http:///v1/ws"), "no host"),
            ("ws://a", Some("http://a:5327/v1/ws"), "circle"),
            ("ws://a/lab", Some("/lab/v1/ws"), "circle"),
            ("ws://a", Some("HTTP://A:5327/v1/ws"), "circle"),
        ];
        for (from, location, why) in table {
            let error = trail(from).follow(location).expect_err(why);
            assert!(matches!(&error, ClientError::Misdirected(text) if text.contains(why)), "{location:?}: {error}");
        }
    }

    #[test]
    fn a_circle_and_a_long_way_come_to_an_end() {
        let mut circle = trail("ws://a");
        circle.follow(Some("ws://b:1/v1/ws")).expect("the first hop");
        assert!(circle.follow(Some("ws://a:5327/v1/ws")).is_err());
        let mut long = trail("ws://a");
        let hops = (1..).take_while(|hop| long.follow(Some(&format!("ws://b:{hop}/v1/ws"))).is_ok()).count();
        assert_eq!(hops, 3);
    }

    #[test]
    fn an_error_after_a_redirect_says_who_sent_there() {
        let mut trail = trail("ws://a");
        let refused = || ClientError::NoBroker("ws://b:1: refused".to_owned());
        assert_eq!(trail.told(refused()), refused());
        trail.follow(Some("ws://b:1/v1/ws")).expect("a hop");
        let told = trail.told(refused()).to_string();
        assert!(told.contains("ws://a:5327 says") && told.contains("ws://b:1: refused"), "{told}");
    }
}
