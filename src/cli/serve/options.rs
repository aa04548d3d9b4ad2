//! What `serve` goes by: flags before `leasehold.toml` before the defaults, each checked before
//! anything is opened.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::ServeCommand;
use crate::cli::exit_code::Failure;
use crate::engine::machine;
use crate::inventory::config::{self, Config};
use crate::protocol::PORT_DEFAULT;
use crate::server::limits::Limits;

/// The longer promise of a planned stop: long enough for an upgrade, and to look why it failed.
const RESTART_GRACE_MS_DEFAULT: u64 = 5 * 60_000;
/// How long the journal and ended leases are kept: a quarter, as people ask about last month.
const RETENTION_MS_DEFAULT: u64 = 90 * 86_400_000;

/// What `serve` goes by.
pub(super) struct Settings {
    pub listen: SocketAddr,
    pub store: PathBuf,
    pub inventory: Option<PathBuf>,
    pub insecure: bool,
    pub retention_ms: u64,
    pub engine: machine::Options,
    pub server: Limits,
}

impl Settings {
    pub(super) fn resolve(command: &ServeCommand) -> Result<Self, Failure> {
        if command.advertise.is_some() {
            return Err(Failure::usage(
                "--advertise is not in this version: it comes with standby brokers; leave it out",
            ));
        }
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
        let limits = &config.limits;
        let defaults = Limits::default();
        let ms = |set: Option<u64>, default: Duration| set.map_or(default, Duration::from_millis);
        Ok(Self {
            listen,
            store: store(command.store.clone().or(config.store))?,
            inventory: command.inventory.clone().or(config.inventory),
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

/// `HOST:PORT`, where the host is an address or `localhost`.
fn address(text: &str) -> Result<SocketAddr, Failure> {
    let named = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    named.as_deref().unwrap_or(text).parse().map_err(|_| {
        Failure::usage(format!(
            "--listen {text:?} is no address: expected ADDRESS:PORT, such as 127.0.0.1:{PORT_DEFAULT}"
        ))
    })
}

fn store(named: Option<String>) -> Result<PathBuf, Failure> {
    let Some(named) = named else { return default_store() };
    if named.starts_with("postgres:") || named.starts_with("postgresql:") {
        return Err(Failure::usage("PostgreSQL is not in this version: use --store sqlite:PATH"));
    }
    match named.strip_prefix("sqlite:").map(|path| path.trim_start_matches("//")) {
        Some(path) if !path.is_empty() && !named.starts_with("sqlite:///") => Ok(PathBuf::from(path)),
        Some(path) if !path.is_empty() => Ok(PathBuf::from(format!("/{}", path.trim_start_matches('/')))),
        _ => Err(Failure::usage(format!("--store {named:?} is no store: expected sqlite:PATH"))),
    }
}

/// Where services and people keep state, as the system tells.
fn default_store() -> Result<PathBuf, Failure> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // systemd names several with colons between them; the first is as good as any.
    let service = set("STATE_DIRECTORY").and_then(|list| std::env::split_paths(&list).next());
    let person =
        || set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state"))).map(|base| base.join("leasehold"));
    let folder = service.or_else(person).ok_or_else(|| {
        Failure::usage(
            "no place for the data: neither STATE_DIRECTORY, XDG_STATE_HOME nor HOME is set; say --store sqlite:PATH",
        )
    })?;
    Ok(folder.join("leasehold.db"))
}

#[cfg(test)]
mod tests {
    use super::{address, store};

    #[test]
    fn a_store_is_named_by_its_kind() {
        for (named, path) in
            [("sqlite:lab.db", "lab.db"), ("sqlite:/x/lab.db", "/x/lab.db"), ("sqlite:///x/lab.db", "/x/lab.db")]
        {
            assert_eq!(store(Some(named.to_owned())).unwrap().to_str(), Some(path), "{named}");
        }
        for named in ["lab.db", "sqlite:", "postgres://x/y"] {
            assert!(store(Some(named.to_owned())).is_err(), "{named}");
        }
    }

    #[test]
    fn an_address_has_a_port() {
        assert!(address("localhost:0").unwrap().ip().is_loopback());
        assert!(address("[::1]:5327").unwrap().ip().is_loopback());
        assert!(address("127.0.0.1").unwrap_err().message.contains("ADDRESS:PORT"));
    }
}
