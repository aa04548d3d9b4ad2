//! `leasehold.toml`: the broker's own settings.
//!
//! Owns what the file may say and how it is checked. A field is `None` where the file says
//! nothing; whoever starts the broker lets flags go before the file, and the file before the
//! defaults that stand here or with the bounds themselves. Everything that is not known is
//! refused, so that a setting nobody reads is never taken for one that works.

use std::path::{Path, PathBuf};

use toml::de::DeValue;

use super::document::{InventoryError, Placed, Section, Source, shown};
use super::pipelines::{self, PipelineConfig};
use crate::core::refusal::Code;

/// How long a planned stop promises to those who renew, unless told otherwise, milliseconds.
pub const RESTART_GRACE_MS_DEFAULT: u64 = 5 * 60_000;
/// The longest promise of a planned stop, milliseconds: resources stay unused for as long.
pub const RESTART_GRACE_MS_MAX: u64 = 60 * 60_000;
/// How long the journal and ended leases are kept, unless told otherwise, milliseconds.
pub const RETENTION_MS_DEFAULT: u64 = 90 * DAY_MS;
/// The shortest retention, milliseconds: `resource history` must be able to answer for yesterday's run.
pub const RETENTION_MS_MIN: u64 = DAY_MS;
/// The longest retention, milliseconds (ten years).
pub const RETENTION_MS_MAX: u64 = 3_653 * DAY_MS;

/// How long a leader is left alone that writes nothing: the shortest, below which a busy database
/// would depose it, and the longest, milliseconds.
pub const TERM_MS: (u64, u64) = (1_000, 60_000);

const DAY_MS: u64 = 86_400_000;
/// The largest number a bound may be set to; beyond it memory is the bound.
pub(super) const COUNT_MAX: u64 = 1_000_000;

pub(super) const KEYS: &[&str] = &[
    "listen",
    "store",
    "advertise",
    "term",
    "inventory",
    "restart_grace",
    "retention",
    "limits",
    "public_url",
    "hooks",
    "repository",
    "logs",
    "search",
];
pub(super) const LIMITS: &[&str] = &[
    "sessions_max",
    "claims_per_session_max",
    "leases_per_session_max",
    "connections_max",
    "handshake_timeout",
    "outbound_messages_max",
    "flush_timeout",
];
/// What the design has under the name, for whoever tries it too early.
const LATER: &[&str] = &["tls", "tokens", "webhooks", "insecure"];

/// What `leasehold.toml` says. Relative paths are taken from the file's own folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// `HOST:PORT`. Default `127.0.0.1:5327`.
    pub listen: Option<String>,
    /// `sqlite:PATH`, or `postgres://...`, which may have a password in it. Default: a file in the
    /// state folder.
    pub store: Option<String>,
    /// Where clients reach this broker, told by the others that share its store.
    pub advertise: Option<String>,
    /// How long a leader is left alone that writes nothing, milliseconds.
    pub term_ms: Option<u64>,
    /// The inventory file that is watched. Default: none.
    pub inventory: Option<PathBuf>,
    /// What a planned stop promises, milliseconds. Default [`RESTART_GRACE_MS_DEFAULT`].
    pub restart_grace_ms: Option<u64>,
    /// How long the past is kept, milliseconds. Default [`RETENTION_MS_DEFAULT`].
    pub retention_ms: Option<u64>,
    /// Bounds. Their defaults stand with the bounds themselves.
    pub limits: LimitSettings,
    /// Repositories that builds are made of, and what goes with them. Default: none.
    pub pipelines: Option<PipelineConfig>,
}

/// What `[limits]` says, for the core's bounds and the server's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitSettings {
    /// Open sessions of the broker.
    pub sessions_max: Option<usize>,
    /// Waiting claims of one session.
    pub claims_per_session_max: Option<usize>,
    /// Leases of one session.
    pub leases_per_session_max: Option<usize>,
    /// Open connections, WebSocket and HTTP together.
    pub connections_max: Option<usize>,
    /// How long a connection may take to say what it wants, milliseconds.
    pub handshake_timeout_ms: Option<u64>,
    /// Messages that wait to be written to one socket.
    pub outbound_messages_max: Option<usize>,
    /// How long one write to a socket may take, milliseconds.
    pub flush_timeout_ms: Option<u64>,
}

impl LimitSettings {
    /// The core's bounds: those set here, else `defaults`.
    #[must_use]
    pub fn of_core(&self, defaults: &crate::core::limits::Limits) -> crate::core::limits::Limits {
        crate::core::limits::Limits {
            sessions_max: self.sessions_max.unwrap_or(defaults.sessions_max),
            claims_per_session_max: self.claims_per_session_max.unwrap_or(defaults.claims_per_session_max),
            leases_per_session_max: self.leases_per_session_max.unwrap_or(defaults.leases_per_session_max),
        }
    }
}

/// Reads a configuration. `file_name` is what errors call it, and what relative paths start from.
///
/// # Errors
/// The first mistake, with its place and what was expected.
pub fn read(text: &str, file_name: &str) -> Result<Config, InventoryError> {
    let source = Source::new(text, file_name);
    let document = source.parse()?;
    let table = document.get_ref();
    for (key, _) in table {
        let name = &**key.get_ref();
        if LATER.contains(&name) {
            let message = format!("{name} in the configuration is not in this version yet: remove it");
            return Err(source.refuse_as(Code::NotInThisVersion, &key.span(), message));
        }
    }
    let top = Section::open(source, "the configuration", KEYS, table, document.span())?;
    let folder = Path::new(file_name).parent().unwrap_or_else(|| Path::new(""));
    let restart_grace = top.duration_ms("restart_grace", 0, RESTART_GRACE_MS_MAX)?;
    let retention = top.duration_ms("retention", RETENTION_MS_MIN, RETENTION_MS_MAX)?;
    let term = top.duration_ms("term", TERM_MS.0, TERM_MS.1)?;
    Ok(Config {
        listen: top.text("listen")?.map(|text| listen(source, &text)).transpose()?,
        store: top.text("store")?.map(|text| store(source, &text, folder)).transpose()?,
        advertise: top.text("advertise")?.map(|text| text.value.to_owned()),
        term_ms: term.map(|placed| placed.value),
        inventory: top.text("inventory")?.map(|text| inventory(source, &text, folder)).transpose()?,
        restart_grace_ms: restart_grace.map(|placed| placed.value),
        retention_ms: retention.map(|placed| placed.value),
        limits: limits(source, &top)?,
        pipelines: pipelines::read(source, &top, folder)?,
    })
}

fn listen(source: Source<'_>, text: &Placed<&str>) -> Result<String, InventoryError> {
    let sound = text.value.rsplit_once(':').is_some_and(|(host, port)| {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host_sound = match bare {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && !host.contains(|c: char| c == ':' || c == '/' || c.is_whitespace()),
        };
        host_sound && port.parse::<u16>().is_ok() && !port.starts_with('+')
    });
    if sound {
        return Ok(text.value.to_owned());
    }
    let message =
        format!("listen is {}: expected HOST:PORT, such as \"127.0.0.1:5327\" or \"[::1]:5327\"", shown(text.value));
    Err(source.refuse(&text.span, message))
}

fn store(source: Source<'_>, text: &Placed<&str>, folder: &Path) -> Result<String, InventoryError> {
    // What is wrong with it is not repeated: it may have a password in it.
    if text.value.starts_with("postgres://") || text.value.starts_with("postgresql://") {
        return Ok(text.value.to_owned());
    }
    match text.value.strip_prefix("sqlite:").filter(|path| !path.is_empty()) {
        Some(path) => Ok(format!("sqlite:{}", folder.join(path).display())),
        None => Err(source.refuse(&text.span, "store is neither \"sqlite:PATH\" nor \"postgres://...\"")),
    }
}

fn inventory(source: Source<'_>, text: &Placed<&str>, folder: &Path) -> Result<PathBuf, InventoryError> {
    if text.value.is_empty() {
        return Err(source.refuse(&text.span, "inventory is empty: expected the path of the inventory file"));
    }
    Ok(folder.join(text.value))
}

fn limits(source: Source<'_>, top: &Section<'_, '_>) -> Result<LimitSettings, InventoryError> {
    let Some((_, value)) = top.field("limits") else { return Ok(LimitSettings::default()) };
    let DeValue::Table(table) = value.get_ref() else {
        return Err(top.unexpected("limits", value, "a table under [limits]"));
    };
    let section = Section::open(source, "[limits]", LIMITS, table, value.span())?;
    let count = |key: &str| -> Result<Option<usize>, InventoryError> {
        let number = section.whole(key, 1, COUNT_MAX)?;
        Ok(number.map(|number| usize::try_from(number).expect("COUNT_MAX fits a usize")))
    };
    let span = |key: &str| -> Result<Option<u64>, InventoryError> {
        Ok(section.duration_ms(key, 1_000, 10 * 60_000)?.map(|placed| placed.value))
    };
    Ok(LimitSettings {
        sessions_max: count("sessions_max")?,
        claims_per_session_max: count("claims_per_session_max")?,
        leases_per_session_max: count("leases_per_session_max")?,
        connections_max: count("connections_max")?,
        handshake_timeout_ms: span("handshake_timeout")?,
        outbound_messages_max: count("outbound_messages_max")?,
        flush_timeout_ms: span("flush_timeout")?,
    })
}

#[cfg(test)]
mod tests {
    use super::{Config, LimitSettings, read};
    use crate::core::limits::Limits;
    use crate::core::refusal::Code;

    #[test]
    fn everything_that_can_be_set_is_read() {
        let text = r#"
            listen = "[::1]:5327"
            store = "sqlite:data/lab.db"
            advertise = "ws://broker-1:5327"
            term = "3s"
            inventory = "/etc/leasehold/lab.toml"
            restart_grace = "10m"
            retention = "30d"
            [limits]
            sessions_max = 10
            claims_per_session_max = 11
            leases_per_session_max = 12
            connections_max = 13
            handshake_timeout = "5s"
            outbound_messages_max = 14
            flush_timeout = "20s"
        "#;
        let limits = LimitSettings {
            sessions_max: Some(10),
            claims_per_session_max: Some(11),
            leases_per_session_max: Some(12),
            connections_max: Some(13),
            handshake_timeout_ms: Some(5_000),
            outbound_messages_max: Some(14),
            flush_timeout_ms: Some(20_000),
        };
        let core = Limits { sessions_max: 10, claims_per_session_max: 11, leases_per_session_max: 12 };
        assert_eq!(limits.of_core(&Limits::default()), core);
        let expected = Config {
            listen: Some("[::1]:5327".into()),
            store: Some("sqlite:/srv/data/lab.db".into()),
            inventory: Some("/etc/leasehold/lab.toml".into()),
            advertise: Some("ws://broker-1:5327".into()),
            term_ms: Some(3_000),
            restart_grace_ms: Some(600_000),
            retention_ms: Some(2_592_000_000),
            limits,
            pipelines: None,
        };
        assert_eq!(read(text, "/srv/leasehold.toml"), Ok(expected));
    }

    #[test]
    fn nothing_set_is_nothing_set() {
        assert_eq!(read("", "leasehold.toml"), Ok(Config::default()));
        assert_eq!(LimitSettings::default().of_core(&Limits::default()), Limits::default());
        let here = read("store = \"sqlite:a.db\"\ninventory = \"lab.toml\"", "leasehold.toml").expect("reads");
        assert_eq!((here.store.as_deref(), here.inventory), (Some("sqlite:a.db"), Some("lab.toml".into())));
    }

    #[test]
    fn a_database_is_kept_as_it_is_named_and_never_repeated() {
        let url = "postgres://u:hunter2@db/x";
        let config = read(&format!("store = \"{url}\""), "leasehold.toml").expect("reads");
        assert_eq!(config.store.as_deref(), Some(url));
        let error = read("store = \"postgres:u:hunter2@db/x\"", "leasehold.toml").expect_err("no URL");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn every_mistake_is_named_with_its_place() {
        for (text, wrong, place) in [
            ("lisen = \"x\"", "unknown key \"lisen\" in the configuration", "1:1"),
            ("lisen = \"x\"", "did you mean \"listen\"?", "1:1"),
            ("listen = 5327", "listen of the configuration is 5327: expected a text", "1:10"),
            ("listen = \"localhost\"", "expected HOST:PORT", "1:10"),
            ("listen = \":5327\"", "expected HOST:PORT", "1:10"),
            ("listen = \"::1:5327\"", "expected HOST:PORT", "1:10"),
            ("listen = \"a:70000\"", "expected HOST:PORT", "1:10"),
            ("listen = \"http://a:80\"", "expected HOST:PORT", "1:10"),
            ("store = \"lab.db\"", "neither \"sqlite:PATH\" nor", "1:9"),
            ("store = \"sqlite:\"", "neither \"sqlite:PATH\" nor", "1:9"),
            ("term = \"500ms\"", "from 1s to 1m", "1:8"),
            ("inventory = \"\"", "expected the path", "1:13"),
            ("restart_grace = \"2h\"", "from 0ms to 1h", "1:17"),
            ("retention = \"1h\"", "from 1d to 3653d", "1:13"),
            ("limits = 3", "expected a table under [limits]", "1:10"),
            ("[limits]\nsesions_max = 3", "did you mean \"sessions_max\"?", "2:1"),
            ("[limits]\nsessions_max = 0", "expected a whole number from 1 to 1000000", "2:16"),
            ("[limits]\nhandshake_timeout = 5", "expected a duration in quotes with a unit", "2:21"),
            ("[limit]", "did you mean \"limits\"?", "1:2"),
            ("listen = ", "this is not TOML", "1:10"),
        ] {
            let error = read(text, "leasehold.toml").expect_err(text);
            assert!(error.message.contains(wrong), "{text}: {error}");
            assert_eq!(format!("{}:{}", error.line, error.column), place, "{text}: {error}");
            assert_eq!(error.code, Code::InvalidInventory, "{text}");
        }
    }

    #[test]
    fn what_comes_later_is_refused_by_name() {
        for (text, what) in [
            ("[tls]\ncert = \"x\"", "tls in the configuration is not in this version yet"),
            ("tokens = true", "tokens in the configuration is not in this version yet"),
        ] {
            let error = read(text, "leasehold.toml").expect_err(text);
            assert_eq!(error.code, Code::NotInThisVersion, "{error}");
            assert!(error.message.contains(what), "{error}");
        }
    }
}
