//! `leasehold serve`: the broker. The only place where store, engine and server meet.
//!
//! Everything that can be refused without touching the store is refused first; then the port is
//! taken, the store opened, the inventory applied, and only then is anybody served.

/// Says something on stderr. Where that cannot be written to the broker goes on: `eprintln!` would
/// end it.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "leasehold: {}", format_args!($($text)*));
    }};
}

mod inventory;
mod options;

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::inventory::Inventory;
use self::options::Settings;
use super::exit_code::{self, Failure};
use crate::engine;
use crate::engine::handle::Handle;
use crate::server::http::router;
use crate::server::limits::Limits;
use crate::server::listen::listen;
use crate::server::shared::{About, App, Shared};
use crate::store::Store;
use crate::store::sqlite::Sqlite;
use crate::units::show_duration_ms;

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
    /// Where the data is: sqlite:PATH [default: leasehold.db in $STATE_DIRECTORY or $XDG_STATE_HOME/leasehold]
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
    /// The inventory file: applied now, and again when it changes
    #[arg(long, value_name = "FILE")]
    inventory: Option<std::path::PathBuf>,
    /// A leasehold.toml; what is said on the command line goes before it
    #[arg(long, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// Admit requests from anywhere, from anybody: there are no tokens yet
    #[arg(long)]
    insecure: bool,
    /// The address that other brokers tell clients of (not in this version)
    #[arg(long, value_name = "URL", hide = true)]
    advertise: Option<String>,
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
    let mut signals = Signals::new()?;
    let listener = bind(settings.listen).await?;
    let address = listener.local_addr().map_err(|error| Failure::refused(error.to_string()))?;
    fit_files(&mut settings.server);
    let store = Sqlite::open(&settings.store).await.map_err(|error| Failure::refused(error.to_string()))?;
    let (name, reader) = (store.name(), store.reader());
    let (handle, mut engine) = engine::start(store, settings.engine.clone(), settings.retention_ms)
        .await
        .map_err(|error| Failure::refused(error.to_string()))?;
    let (tell_error, inventory_error) = watch::channel(None);
    let inventory = match &settings.inventory {
        Some(path) => Some(Inventory::begin(path, &handle, tell_error).await?),
        None => None,
    };
    let about = About {
        store: name.clone(),
        inventory: settings.inventory.as_ref().map(|path| path.display().to_string()),
        insecure: settings.insecure,
    };
    let shared = Arc::new(Shared::new(handle.clone(), settings.server.clone(), about, inventory_error));
    handle.accepting().await.map_err(|error| Failure::refused(error.message))?;
    let app = App { shared: shared.clone(), reader };
    let serving = tokio::spawn(listen(listener, router(app), shared.clone()));
    announce(&handle, &settings, address, &name).await?;
    let following = inventory.map(|inventory| tokio::spawn(inventory.follow()));
    tokio::select! {
        _ = signals.next() => {}
        ended = &mut engine => {
            let why = ended.map_or_else(|error| format!(": {error}"), |ended| format!(": {ended:?}"));
            return Err(Failure::refused(format!("the engine ended{why}: start the broker again, it loses nothing")));
        }
    }
    if let Some(following) = following {
        following.abort();
    }
    tokio::select! {
        () = wind_down(handle, &settings.engine, shared, serving) => {}
        number = signals.next() => {
            say!("stopping at once");
            return Ok(exit_code::of_signal(number));
        }
    }
    // The engine ends when nobody is left to ask it anything.
    let _ = tokio::time::timeout(GOODBYE, engine).await;
    say!("stopped");
    Ok(exit_code::DONE)
}

/// The planned stop: no grants, everybody renews and is promised longer, then goodbye.
async fn wind_down(handle: Handle, engine: &engine::machine::Options, shared: Arc<Shared>, serving: JoinHandle<()>) {
    let grace = show_duration_ms(engine.restart_grace_ms);
    say!("stopping: no more grants; sessions that renew now keep their leases for {grace}");
    handle.stop().await;
    shared.closing.cancel();
    let goodbye = async {
        // Fails only where a task panicked, which has been said.
        let _ = serving.await;
        shared.tasks.wait().await;
    };
    // Whoever does not say goodbye in time is dropped; its session has its promise all the same.
    let _ = tokio::time::timeout(GOODBYE, goodbye).await;
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

async fn announce(handle: &Handle, settings: &Settings, address: SocketAddr, store: &str) -> Result<(), Failure> {
    let counts = handle.read(|view| (view.state.resources.len(), view.state.pools.len(), view.state.leases.len()));
    let (resources, pools, leases) = counts.await.map_err(|error| Failure::refused(error.message))?;
    let (resources, pools, leases) = (many(resources, "resource"), many(pools, "pool"), many(leases, "lease"));
    let from = settings.inventory.as_ref().map(|path| format!(", from {}", path.display())).unwrap_or_default();
    say!("data in {store}");
    say!("{resources} in {pools}{from}; {leases} held");
    if settings.insecure {
        say!("--insecure: WHOEVER REACHES {address} MAY DO EVERYTHING AN ADMIN MAY");
    }
    // The last line: from here on connections are accepted.
    say!("listening on ws://{address}");
    Ok(())
}

fn many(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// SIGTERM, SIGINT and SIGHUP: once for a planned stop, twice for at once.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    /// Taken, never looked at: where files may not grow any further, the store's failure says so,
    /// and the broker goes on; by default the system would kill it.
    _file_too_large: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(|error| Failure::refused(format!("cannot listen for signals: {error}")));
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hang_up: on(SignalKind::hangup())?,
            _file_too_large: on(SignalKind::from_raw(nix::sys::signal::Signal::SIGXFSZ as i32))?,
        })
    }

    /// The number of the signal that comes next.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            _ = self.hang_up.recv() => SignalKind::hangup().as_raw_value(),
        }
    }
}
