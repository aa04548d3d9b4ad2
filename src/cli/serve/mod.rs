//! `leasehold serve`: the broker. The only place where store, engine and server meet.
//!
//! Everything that can be refused without touching the store is refused first, and then the port is
//! taken. A broker with a file of its own opens it, applies the inventory, and only then serves
//! anybody ([`lead`]); one that shares a database serves from the start, and leads when it can
//! ([`member`]).

/// Says something on stderr. Where that cannot be written to the broker goes on: `eprintln!` would
/// end it.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "leasehold: {}", format_args!($($text)*));
    }};
}

mod inventory;
mod lead;
mod lookout;
mod member;
pub(super) mod options;
mod signals;

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::net::TcpListener;

use self::lead::Lead;
use self::options::{Settings, StoreAt};
use self::signals::Signals;
use super::exit_code::{self, Failure};
use crate::server::front::{Front, Process};
use crate::server::limits::Limits;
use crate::server::listen::listen;
use crate::store::Store as _;
use crate::store::sqlite::Sqlite;

/// How long sockets and requests under way may take to end once the broker has said that it stops.
const GOODBYE: Duration = Duration::from_secs(3);
/// Files a broker needs beside its connections: the store's, and those of the system.
const FILES_BESIDE: u64 = 128;

/// Be the broker
#[derive(Debug, Args)]
pub struct ServeCommand {
    /// Where to listen; any address but loopback needs --insecure [default: 127.0.0.1:5327]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Where the data is: sqlite:PATH [default: leasehold.db in $STATE_DIRECTORY or $XDG_STATE_HOME/leasehold],
    /// or postgres://USER@HOST:PORT/DATABASE, which several brokers may share (the password: PGPASSWORD or PGPASSFILE)
    #[arg(long, value_name = "STORE", hide_env_values = true)]
    store: Option<String>,
    /// The inventory file: applied now, and again when it changes; on a shared store only while that is empty
    #[arg(long, value_name = "FILE")]
    inventory: Option<PathBuf>,
    /// A leasehold.toml; what is said on the command line goes before it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Admit requests from anywhere, from anybody: there are no tokens yet
    #[arg(long)]
    insecure: bool,
    /// On a shared store: where clients reach this broker, told by the others [default: where it listens]
    #[arg(long, value_name = "URL")]
    advertise: Option<String>,
    /// On a shared store: how long a leader is left alone that writes nothing, 1s to 1m [default: 2s]
    #[arg(long, value_name = "DURATION")]
    term: Option<String>,
}

impl ServeCommand {
    /// Serves until it is told to stop.
    pub fn execute(self) -> Result<u8, Failure> {
        let settings = Settings::resolve(&self)?;
        let filter = tracing_subscriber::EnvFilter::try_from_env("LEASEHOLD_LOG");
        let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
        let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
        // A log that cannot be written, its disk is full, must not be the broker's end; setting it
        // up fails only where a test has set another one before.
        let _ = log.log_internal_errors(false).try_init();
        // One thread for everybody: there is one writer, and a hand-over between threads costs more
        // than what is done on either side of it. The store has a thread of its own.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::refused(format!("the broker cannot start threads: {error}")))?;
        let done = runtime.block_on(serve(settings));
        runtime.shutdown_timeout(GOODBYE);
        done
    }
}

async fn serve(mut settings: Settings) -> Result<u8, Failure> {
    let signals = Signals::new()?;
    let listener = bind(settings.listen).await?;
    let address = listener.local_addr().map_err(|error| Failure::refused(error.to_string()))?;
    fit_files(&mut settings.server);
    if let Some(builds) = settings.builds.as_mut().filter(|_| settings.listen.port() == 0) {
        // Only now the port is known.
        Arc::make_mut(&mut builds.pipelines).reached_at(&format!("http://{address}"));
    }
    match &settings.store {
        StoreAt::File(path) => {
            let store = Sqlite::open(path).await.map_err(|error| Failure::refused(error.to_string()))?;
            alone(&settings, store, listener, address, signals).await
        }
        StoreAt::Database(database) => member::serve(&settings, database, listener, address, signals).await,
    }
}

/// Leads from the start to the end, on a store that is nobody else's.
async fn alone(
    settings: &Settings,
    store: Sqlite,
    listener: TcpListener,
    address: SocketAddr,
    mut signals: Signals,
) -> Result<u8, Failure> {
    let process = Process::new(settings.server.clone(), settings.insecure, store.name(), None);
    let process = Arc::new(process);
    let (mut lead, routes) = Lead::begin(store, settings, &process).await?;
    say!("data in {}", process.store);
    say!("{}", lead.holdings().await?);
    warn_insecure(settings, address);
    let mut serving = Some(tokio::spawn(listen(listener, Arc::new(Front::new(process, routes)))));
    // The last line: from here on connections are accepted.
    say!("listening on ws://{address}");
    tokio::select! {
        _ = signals.next() => {}
        ended = lead.ended() => {
            let why = ended.map_or_else(|error| format!(": {error}"), |ended| format!(": {ended:?}"));
            return Err(Failure::refused(format!("the engine ended{why}: start the broker again, it loses nothing")));
        }
    }
    tokio::select! {
        () = lead.wind_down(settings.engine.restart_grace_ms, &mut serving) => {}
        number = signals.next() => return Ok(at_once(number)),
    }
    lead.end().await;
    say!("stopped");
    Ok(exit_code::DONE)
}

fn at_once(signal: i32) -> u8 {
    say!("stopping at once");
    exit_code::of_signal(signal)
}

fn warn_insecure(settings: &Settings, address: SocketAddr) {
    if settings.insecure {
        say!("--insecure: WHOEVER REACHES {address} MAY DO EVERYTHING AN ADMIN MAY");
    }
}

/// Raises the bound on open files as far as this process may. Where that is not enough for
/// `connections_max`, fewer are taken, and that is said.
fn fit_files(limits: &mut Limits) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let wanted = u64::try_from(limits.connections_max).unwrap_or(u64::MAX).saturating_add(FILES_BESIDE);
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let raised = wanted.min(hard).max(soft);
    let now = if raised > soft && setrlimit(Resource::RLIMIT_NOFILE, raised, hard).is_err() { soft } else { raised };
    if now < wanted {
        let fit = now.saturating_sub(FILES_BESIDE).max(1);
        say!("only {now} files may be open (ulimit -n), so at most {fit} connections are served");
        limits.connections_max = usize::try_from(fit).unwrap_or(limits.connections_max);
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => ": another process listens there; stop it, or use another --listen",
            std::io::ErrorKind::AddrNotAvailable => ": this machine has no such address; use another --listen",
            std::io::ErrorKind::PermissionDenied => ": use a port above 1023, or grant CAP_NET_BIND_SERVICE",
            _ => "",
        };
        Failure::refused(format!("cannot listen on {address}: {error}{hint}"))
    })
}
