//! `leasehold serve`: the broker. The only place where store, engine and server meet.
//!
//! Everything that can be refused without touching the store is refused first; then the port is
//! taken, the store opened, the inventory applied, and only then is anybody served.

mod inventory;
mod options;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use self::options::Settings;
use super::exit_code::{self, Failure};
use crate::engine;
use crate::engine::handle::Handle;
use crate::server::http::router;
use crate::server::listen::listen;
use crate::server::shared::{About, App, Shared};
use crate::store::Store;
use crate::store::sqlite::Sqlite;
use crate::units::show_duration_ms;

/// How long sockets and requests under way may take to end once the broker has said that it stops.
const GOODBYE: Duration = Duration::from_secs(3);

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
        // Fails only where a test has set a subscriber before.
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::refused(format!("the broker cannot start threads: {error}")))?;
        let done = runtime.block_on(serve(settings));
        runtime.shutdown_timeout(GOODBYE);
        done
    }
}

async fn serve(settings: Settings) -> Result<u8, Failure> {
    let mut signals = Signals::new()?;
    let listener = bind(settings.listen).await?;
    let address = listener.local_addr().map_err(|error| Failure::refused(error.to_string()))?;
    let store = Sqlite::open(&settings.store).await.map_err(|error| Failure::refused(error.to_string()))?;
    let (name, reader) = (store.name(), store.reader());
    let (handle, engine) = engine::start(store, settings.engine.clone(), settings.retention_ms)
        .await
        .map_err(|error| Failure::refused(error.to_string()))?;
    let (tell_error, inventory_error) = watch::channel(None);
    let applied = match &settings.inventory {
        Some(path) => inventory::apply_at_start(&handle, path, &tell_error).await?,
        None => None,
    };
    let about = About {
        store: name.clone(),
        inventory: settings.inventory.as_ref().map(|path| path.display().to_string()),
        insecure: settings.insecure,
    };
    let shared = Arc::new(Shared::new(handle.clone(), settings.server.clone(), about, inventory_error));
    announce(&handle, &settings, address, &name).await?;
    handle.accepting().await.map_err(|error| Failure::refused(error.message))?;
    if let Some(path) = settings.inventory {
        tokio::spawn(inventory::follow(handle.clone(), path, applied, tell_error));
    }
    let app = App { shared: shared.clone(), reader };
    let serving = tokio::spawn(listen(listener, router(app), shared.clone()));
    tokio::select! {
        () = signals.stop() => {}
        ended = engine => {
            let why = ended.err().map_or_else(String::new, |error| format!(": {error}"));
            return Err(Failure::refused(format!("the engine ended{why}: start the broker again, it loses nothing")));
        }
    }
    tokio::select! {
        () = wind_down(&handle, &settings.engine, &shared) => {}
        () = signals.stop() => {
            eprintln!("leasehold: stopping at once");
            return Ok(exit_code::DONE);
        }
    }
    drop((serving, shared, handle));
    eprintln!("leasehold: stopped");
    Ok(exit_code::DONE)
}

/// The planned stop: no grants, everybody renews and is promised longer, then goodbye.
async fn wind_down(handle: &Handle, engine: &engine::machine::Options, shared: &Shared) {
    let grace = show_duration_ms(engine.restart_grace_ms);
    eprintln!("leasehold: stopping: no more grants; sessions that renew now keep their leases for {grace}");
    handle.stop().await;
    shared.closing.cancel();
    // Whoever does not say goodbye in time is dropped; its session has its promise all the same.
    let _ = tokio::time::timeout(GOODBYE, shared.tasks.wait()).await;
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
    eprintln!("leasehold: listening on ws://{address}");
    eprintln!("leasehold: {resources} resources in {pools} pools, {leases} leased");
    eprintln!("leasehold: data in {store}");
    if settings.insecure {
        eprintln!("leasehold: --insecure: whoever reaches {address} may do everything an admin may");
    }
    Ok(())
}

/// SIGTERM and SIGINT: once for a planned stop, twice for at once.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::refused(format!("cannot listen for signals: {error}")));
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
