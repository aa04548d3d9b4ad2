//! What `serve` goes by: flags before `leasehold.toml` before the defaults, each checked before
//! anything is opened.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::ServeCommand;
use crate::cli::exit_code::Failure;
use crate::client::url::BaseUrl;
use crate::engine::machine;
use crate::inventory::config::{self, Config, TERM_MS};
use crate::inventory::pipelines::{PipelineConfig, PipelineSettings};
use crate::protocol::PORT_DEFAULT;
use crate::server::limits::Limits;
use crate::units::{parse_duration_ms, show_duration_ms};

/// The longer promise of a planned stop: long enough for an upgrade, and to look why it failed.
const RESTART_GRACE_MS_DEFAULT: u64 = 5 * 60_000;
/// How long the journal and ended leases are kept: a quarter, as people ask about last month.
const RETENTION_MS_DEFAULT: u64 = 90 * 86_400_000;

/// How long a leader is left alone that writes nothing, unless told otherwise: a standby leads in less
/// than twice of it after a crash, and a database may be busy for as long.
const TERM_MS_DEFAULT: u64 = 2_000;

/// Where the data is.
pub(super) enum StoreAt {
    /// A file of this broker's own.
    File(PathBuf),
    /// A database that brokers share.
    Database(Database),
}

/// A database that brokers share, and how this one does.
pub(super) struct Database {
    /// May have a password in it: shown to nobody.
    pub url: String,
    /// Where clients reach this broker; `None` is where it listens.
    pub advertise: Option<BaseUrl>,
    pub term_ms: u64,
}

/// What builds go by, and where they are kept beside the store.
pub(super) struct BuildSettings {
    pub pipelines: Arc<PipelineSettings>,
    /// Logs, unless the configuration says where.
    pub logs_folder: PathBuf,
    /// Mirrors of repositories. Nothing is lost with them.
    pub mirrors: PathBuf,
}

/// What `serve` goes by.
pub(super) struct Settings {
    pub listen: SocketAddr,
    pub store: StoreAt,
    pub inventory: Option<PathBuf>,
    /// Builds, where the configuration has a repository.
    pub builds: Option<BuildSettings>,
    pub insecure: bool,
    pub retention_ms: u64,
    pub engine: machine::Options,
    pub server: Limits,
}

impl Settings {
    pub(super) fn resolve(command: &ServeCommand) -> Result<Self, Failure> {
        let config = match &command.config {
            Some(path) => {
                let text = std::fs::read_to_string(path);
                let text =
                    text.map_err(|error| Failure::usage(format!("{} cannot be read: {error}", path.display())))?;
                config::read(&text, &path.display().to_string()).map_err(|error| Failure::usage(error.to_string()))?
            }
            None => Config::default(),
        };
        let listen = command.listen.clone().or(config.listen);
        let listen = match listen {
            Some(text) => address(&text)?,
            None => SocketAddr::from(([127, 0, 0, 1], PORT_DEFAULT)),
        };
        if !listen.ip().is_loopback() && !command.insecure {
            return Err(Failure::usage(format!(
                "{listen} can be reached from other machines, and there are no tokens yet: listen on 127.0.0.1, \
                 or say --insecure where everybody who reaches it may do everything"
            )));
        }
        let store = store(
            command.store.clone().or(config.store),
            command.advertise.clone().or(config.advertise),
            command.term.as_deref().map(term).transpose()?.or(config.term_ms),
            listen,
        )?;
        let builds = config.pipelines.map(|pipelines| builds(pipelines, &store, listen)).transpose()?;
        let limits = &config.limits;
        let defaults = Limits::default();
        let ms = |set: Option<u64>, default: Duration| set.map_or(default, Duration::from_millis);
        Ok(Self {
            listen,
            store,
            inventory: command.inventory.clone().or(config.inventory),
            builds,
            insecure: command.insecure,
            retention_ms: config.retention_ms.unwrap_or(RETENTION_MS_DEFAULT),
            engine: machine::Options {
                limits: limits.of_core(&crate::core::limits::Limits::default()),
                restart_grace_ms: config.restart_grace_ms.unwrap_or(RESTART_GRACE_MS_DEFAULT),
            },
            server: Limits {
                connections_max: limits.connections_max.unwrap_or(defaults.connections_max),
                handshake_timeout: ms(limits.handshake_timeout_ms, defaults.handshake_timeout),
                outbound_messages_max: limits.outbound_messages_max.unwrap_or(defaults.outbound_messages_max),
                flush_timeout: ms(limits.flush_timeout_ms, defaults.flush_timeout),
            },
        })
    }
}

/// What builds go by, with the secrets of their hooks.
fn builds(config: PipelineConfig, store: &StoreAt, listen: SocketAddr) -> Result<BuildSettings, Failure> {
    let said = config.has_public_url();
    let mut settings = config.resolve().map_err(Failure::usage)?;
    match store {
        StoreAt::Database(Database { advertise: Some(url), .. }) => {
            settings.reached_at(&url.to_string().replacen("ws", "http", 1));
        }
        _ if !said && listen.ip().is_unspecified() => {
            return Err(Failure::usage(format!(
                "{listen} is no address that a link could lead to: say in the configuration where people reach this \
                 broker, such as public_url = \"https://lab.example.org\""
            )));
        }
        _ => settings.reached_at(&format!("http://{listen}")),
    }
    let (logs_folder, mirrors) = match store {
        StoreAt::File(path) => (beside(path, "logs"), beside(path, "mirrors")),
        StoreAt::Database(_) if settings.logs.url.is_none() => {
            return Err(Failure::usage(
                "brokers that share a database share their logs: say under [logs] where those are, such as \
                 url = \"s3://bucket/prefix\", or url = \"file:///FOLDER\" where all brokers have that folder",
            ));
        }
        StoreAt::Database(_) => {
            let folder = state_folder().ok_or_else(|| {
                Failure::usage("no place for mirrors of repositories: set STATE_DIRECTORY, XDG_STATE_HOME or HOME")
            })?;
            (folder.join("logs"), folder.join("mirrors"))
        }
    };
    Ok(BuildSettings { pipelines: Arc::new(settings), logs_folder, mirrors })
}

/// A folder beside the store: `leasehold.db` has `leasehold-logs`.
fn beside(store: &Path, what: &str) -> PathBuf {
    let mut name = store.file_stem().unwrap_or_default().to_owned();
    name.push("-");
    name.push(what);
    store.with_file_name(name)
}

/// `HOST:PORT`, where the host is an address or `localhost`.
fn address(text: &str) -> Result<SocketAddr, Failure> {
    let named = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    named.as_deref().unwrap_or(text).parse().map_err(|_| {
        Failure::usage(format!(
            "--listen {text:?} is no address: expected ADDRESS:PORT, such as 127.0.0.1:{PORT_DEFAULT}"
        ))
    })
}

fn term(text: &str) -> Result<u64, Failure> {
    let ms = parse_duration_ms(text).map_err(|error| Failure::usage(format!("--term: {error}")))?;
    if (TERM_MS.0..=TERM_MS.1).contains(&ms) {
        return Ok(ms);
    }
    let (least, most) = (show_duration_ms(TERM_MS.0), show_duration_ms(TERM_MS.1));
    Err(Failure::usage(format!("--term {text} is out of range: expected {least} to {most}")))
}

fn store(
    named: Option<String>,
    advertise: Option<String>,
    term_ms: Option<u64>,
    listen: SocketAddr,
) -> Result<StoreAt, Failure> {
    let url = named.as_deref().filter(|named| is_database(named));
    let Some(url) = url else {
        let path = file("--store", named)?;
        for (flag, given) in [("--advertise", advertise.is_some()), ("--term", term_ms.is_some())] {
            if given {
                return Err(Failure::usage(format!(
                    "{flag} is for brokers that share a store, and a file is one broker's alone: leave it out, or say \
                     --store postgres://..."
                )));
            }
        }
        return Ok(StoreAt::File(path));
    };
    let advertise = advertise.as_deref().map(BaseUrl::parse).transpose();
    let advertise = advertise.map_err(|error| Failure::usage(format!("--advertise: {error}")))?;
    if advertise.is_none() && listen.ip().is_unspecified() {
        return Err(Failure::usage(format!(
            "{listen} is no address to send clients to: say with --advertise where they reach this broker, such as \
             --advertise ws://broker-1.example.org:{}",
            listen.port()
        )));
    }
    Ok(StoreAt::Database(Database { url: url.to_owned(), advertise, term_ms: term_ms.unwrap_or(TERM_MS_DEFAULT) }))
}

/// Whether what an option names is a database, not a file.
pub(in crate::cli) fn is_database(named: &str) -> bool {
    named.starts_with("postgres://") || named.starts_with("postgresql://")
}

/// The file that an option names, or where data is kept when nobody says.
pub(in crate::cli) fn file(option: &str, named: Option<String>) -> Result<PathBuf, Failure> {
    let Some(named) = named else { return default_store() };
    match named.strip_prefix("sqlite:").map(|path| path.trim_start_matches("//")) {
        Some(path) if !path.is_empty() && !named.starts_with("sqlite:///") => Ok(PathBuf::from(path)),
        Some(path) if !path.is_empty() => Ok(PathBuf::from(format!("/{}", path.trim_start_matches('/')))),
        // Not repeated: something close to a database's URL may have a password in it.
        _ => Err(Failure::usage(format!(
            "{option} names no store: expected sqlite:PATH, or postgres://USER@HOST:PORT/DATABASE"
        ))),
    }
}

/// Where services and people keep state, as the system tells.
pub(in crate::cli) fn state_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // systemd names several with colons between them; the first is as good as any.
    let service = set("STATE_DIRECTORY").and_then(|list| std::env::split_paths(&list).next());
    let person =
        || set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state"))).map(|base| base.join("leasehold"));
    service.or_else(person)
}

fn default_store() -> Result<PathBuf, Failure> {
    let folder = state_folder().ok_or_else(|| {
        Failure::usage(
            "no place for the data: neither STATE_DIRECTORY, XDG_STATE_HOME nor HOME is set; say --store sqlite:PATH",
        )
    })?;
    Ok(folder.join("leasehold.db"))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::{Database, StoreAt, address, store, term};
    use crate::cli::exit_code::Failure;

    const HERE: &str = "127.0.0.1:5327";
    const EVERYWHERE: &str = "0.0.0.0:5327";
    const DATABASE: &str = "postgres://me:hunter2@db/lab";

    fn read(
        named: Option<&str>,
        advertise: Option<&str>,
        term_ms: Option<u64>,
        listen: &str,
    ) -> Result<StoreAt, Failure> {
        let listen: SocketAddr = listen.parse().unwrap();
        store(named.map(str::to_owned), advertise.map(str::to_owned), term_ms, listen)
    }

    fn refusal(read: Result<StoreAt, Failure>) -> String {
        match read {
            Ok(_) => panic!("it was taken"),
            Err(failure) => failure.message,
        }
    }

    #[test]
    fn a_store_is_named_by_its_kind() {
        for (named, path) in
            [("sqlite:lab.db", "lab.db"), ("sqlite:/x/lab.db", "/x/lab.db"), ("sqlite:///x/lab.db", "/x/lab.db")]
        {
            let found = read(Some(named), None, None, HERE);
            assert!(matches!(&found, Ok(StoreAt::File(found)) if found.to_str() == Some(path)), "{named}");
        }
        for named in ["lab.db", "sqlite:", "postgres:me:hunter2@x/y"] {
            let error = refusal(read(Some(named), None, None, HERE));
            assert!(error.contains("names no store") && !error.contains("hunter2"), "{named}: {error}");
        }
    }

    #[test]
    fn a_database_comes_with_where_clients_reach_the_broker() {
        let database = |advertise, term_ms, listen| match read(Some(DATABASE), advertise, term_ms, listen) {
            Ok(StoreAt::Database(Database { advertise, term_ms, .. })) => {
                (advertise.map(|url| url.to_string()), term_ms)
            }
            other => panic!("no database: {:?}", other.err()),
        };
        assert_eq!(database(None, None, HERE), (None, 2_000));
        let told = Some("wss://b1.example.org".to_owned());
        assert_eq!(
            database(told.as_deref(), Some(5_000), EVERYWHERE),
            (Some("wss://b1.example.org:443".into()), 5_000)
        );
        for (advertise, listen, says) in
            [(None, EVERYWHERE, "--advertise"), (Some("b1:5327"), HERE, "no scheme"), (Some("ws://"), HERE, "no host")]
        {
            let error = refusal(read(Some(DATABASE), advertise, None, listen));
            assert!(error.contains(says) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn what_is_for_shared_stores_is_refused_with_a_file() {
        let sqlite = Some("sqlite:lab.db");
        assert!(refusal(read(sqlite, Some("ws://b1"), None, HERE)).contains("--advertise is for brokers that share"));
        assert!(refusal(read(sqlite, None, Some(2_000), HERE)).contains("--term is for brokers that share"));
        assert!(refusal(read(None, None, Some(2_000), HERE)).contains("--term"));
    }

    #[test]
    fn a_term_has_bounds() {
        assert_eq!((term("1s").ok(), term("1m").ok()), (Some(1_000), Some(60_000)));
        for text in ["999ms", "61s", "2", "soon"] {
            assert!(term(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_has_a_port() {
        assert!(address("localhost:0").unwrap().ip().is_loopback());
        assert!(address("[::1]:5327").unwrap().ip().is_loopback());
        assert!(address("127.0.0.1").unwrap_err().message.contains("ADDRESS:PORT"));
    }
}
