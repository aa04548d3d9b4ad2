//! A real PostgreSQL server for tests, made for one test process and gone with it.
//!
//! A small shell keeps it: it holds the other end of a pipe, and stops the server and removes its
//! folder when that pipe closes, which happens however the test process ends. Nothing is downloaded;
//! the programs are found on the `PATH` or where Debian keeps them.
//!
//! ```text
//!   test process ══pipe══▶ sh postgres.sh ──pg_ctl──▶ postgres, on 127.0.0.1 and a socket
//! ```
//!
//! Roles: `leasehold` needs no password and owns what [`Server::database`] makes; `guarded` needs
//! [`PASSWORD`]; the superuser is reached through [`Server::sql`] alone.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use nix::unistd::{User, geteuid};

/// What the role `guarded` must say; with characters that a URL has to write another way.
pub const PASSWORD: &str = "p@ss/w:rd%&?";

/// When this is set, a test that finds no PostgreSQL fails.
pub const REQUIRED: &str = "LEASEHOLD_TEST_REQUIRE_POSTGRES";

/// Others may take a free port before the server does.
const PORTS_TRIED: u32 = 5;

/// The server that the tests of this process share, started by the first that asks; `None`, said
/// loudly, where there is none to start.
///
/// # Panics
/// When it does not start, and where there is none and [`REQUIRED`] is set.
#[must_use]
pub fn shared() -> Option<&'static Server> {
    static SHARED: OnceLock<Option<Server>> = OnceLock::new();
    SHARED.get_or_init(|| Server::find(&["fsync = off"])).as_ref()
}

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct Server {
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
    keeper: Mutex<Keeper>,
    databases: AtomicU64,
}

/// The shell beside it, asked in lines and answering in lines.
#[derive(Debug)]
struct Keeper {
    child: Child,
    /// `None` once it has been told to go.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Server {
    /// Starts one with these lines in its `postgresql.conf`; `None`, said loudly, where there is
    /// none to start.
    ///
    /// # Panics
    /// When it does not start, and where there is none and [`REQUIRED`] is set.
    #[must_use]
    pub fn find(settings: &[&str]) -> Option<Self> {
        let Some(programs) = programs() else {
            let required = std::env::var_os(REQUIRED).is_some();
            assert!(!required, "{REQUIRED} is set, and there is no initdb on the PATH or in /usr/lib/postgresql");
            // Past the capture of test output; fails only where nobody reads.
            let _ = writeln!(std::io::stderr(), "SKIPPED: there is no PostgreSQL here (initdb): nothing ran on it");
            return None;
        };
        Some(Self::start(programs, settings).unwrap_or_else(|why| panic!("PostgreSQL does not start: {why}")))
    }

    fn start(programs: PathBuf, settings: &[&str]) -> Result<Self, String> {
        let mut keeper = Keeper::start(&programs)?;
        keeper.answer()?;
        let folder = PathBuf::from(keeper.line()?);
        for setting in settings {
            keeper.order(&format!("set {setting}"))?;
        }
        let mut tries = 0..PORTS_TRIED;
        let port = loop {
            let port = free_port()?;
            match keeper.order(&format!("start {port}")) {
                Err(why) if tries.next().is_none() => return Err(why),
                Err(_) => {}
                Ok(()) => break port,
            }
        };
        let server = Self { programs, folder, port, keeper: Mutex::new(keeper), databases: AtomicU64::new(0) };
        let roles = format!(
            "CREATE ROLE leasehold LOGIN; CREATE ROLE guarded LOGIN PASSWORD '{PASSWORD}'; \
             GRANT leasehold TO guarded"
        );
        server.sql("postgres", &roles)?;
        Ok(server)
    }

    /// Makes an empty database and answers its URL, for the role that needs no password.
    ///
    /// # Panics
    /// When the server refuses.
    #[must_use]
    pub fn database(&self) -> String {
        let name = format!("lab_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let made = self.sql("postgres", &format!("CREATE DATABASE {name} OWNER leasehold TEMPLATE template0"));
        made.expect("a database can be made");
        self.url("leasehold", &name)
    }

    /// The URL of a database for a role, without a password.
    #[must_use]
    pub fn url(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/{database}", self.port)
    }

    /// The port on 127.0.0.1, the same after a restart.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Runs statements as the superuser in a database and answers their rows, columns parted by `|`.
    ///
    /// # Errors
    /// What the server or `psql` said.
    pub fn sql(&self, database: &str, statements: &str) -> Result<String, String> {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-p", &self.port.to_string()]);
        psql.arg("-h").arg(&self.folder).args(["-d", database, "-c", statements]).stdin(Stdio::null());
        let output = psql.output().map_err(|error| format!("psql cannot be run: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Stops the server in one of PostgreSQL's ways, `smart`, `fast` or `immediate` (as if it had
    /// crashed), and waits until it has stopped. Its data stays, and so does its port.
    ///
    /// # Errors
    /// What PostgreSQL said.
    pub fn stop(&self, mode: &str) -> Result<(), String> {
        self.keeper().order(&format!("stop {mode}"))
    }

    /// Starts it again after [`Server::stop`], and waits until it accepts connections.
    ///
    /// # Errors
    /// What PostgreSQL said.
    pub fn start_again(&self) -> Result<(), String> {
        self.keeper().order(&format!("start {}", self.port))
    }

    fn keeper(&self) -> std::sync::MutexGuard<'_, Keeper> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keeper {
    fn start(programs: &Path) -> Result<Self, String> {
        let mut shell = Command::new("sh");
        shell.args(["-c", include_str!("postgres.sh"), "sh"]).arg(programs).arg(std::env::temp_dir());
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        // Apart from the test's group, whose end it must outlive; in a folder that everybody may enter.
        shell.process_group(0).current_dir("/");
        if geteuid().is_root() {
            let user = unprivileged().ok_or("initdb refuses root, and there is no user postgres or nobody")?;
            shell.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        let mut child = shell.spawn().map_err(|error| format!("sh cannot be run: {error}"))?;
        let answers = child.stdout.take().map(BufReader::new).ok_or("sh has no stdout")?;
        Ok(Self { orders: child.stdin.take(), child, answers })
    }

    fn order(&mut self, order: &str) -> Result<(), String> {
        let orders = self.orders.as_mut().ok_or("the server is gone")?;
        writeln!(orders, "{order}").map_err(|error| format!("its keeper cannot be told: {error}"))?;
        self.answer()
    }

    fn answer(&mut self) -> Result<(), String> {
        match self.line()?.as_str() {
            "ok" => Ok(()),
            failed => Err(failed.to_owned()),
        }
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(0) | Err(_) => Err("its keeper has ended".to_owned()),
            Ok(_) => Ok(line.trim_end().to_owned()),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.child.wait();
    }
}

/// Where PostgreSQL's programs are: beside the `initdb` on the `PATH`, else the newest of Debian's.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).find_map(|folder| folder.join("initdb").canonicalize().ok());
    if let Some(found) = on_path.and_then(|program| program.parent().map(Path::to_path_buf)) {
        return Some(found);
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(Result::ok);
    let version = |folder: &Path| folder.file_name().and_then(OsStr::to_str)?.parse::<u32>().ok();
    let newest = versions.map(|entry| entry.path()).filter(|folder| folder.join("bin/initdb").exists());
    newest.max_by_key(|folder| version(folder)).map(|folder| folder.join("bin"))
}

/// Who the server runs as where the tests run as root.
fn unprivileged() -> Option<User> {
    ["postgres", "nobody"].into_iter().find_map(|name| User::from_name(name).ok().flatten())
}

fn free_port() -> Result<u16, String> {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    free.map(|address| address.port()).map_err(|error| format!("no port is free: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_comes_back_after_a_crash_and_goes_with_its_owner() {
        let Some(server) = Server::find(&["fsync = off"]) else { return };
        let url = server.database();
        let name = url.rsplit('/').next().unwrap();
        server.sql(name, "CREATE SCHEMA kept").unwrap();
        server.stop("immediate").unwrap();
        assert!(server.sql(name, "VALUES (1)").is_err(), "it has stopped");
        server.start_again().unwrap();
        server.sql(name, "ALTER SCHEMA kept OWNER TO leasehold").unwrap();
        assert_eq!(server.sql(name, "VALUES (1, 'a')").unwrap(), "1|a");
        let folder = server.folder.clone();
        assert!(folder.join("data").exists());
        drop(server);
        assert!(!folder.exists(), "nothing is left behind");
    }
}
