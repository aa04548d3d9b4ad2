//! Connections: to where, with which settings, and how long anything on them may take.
//!
//! A leader that stands still, or whose network does, must not keep others from the lab's row for
//! longer than its term, so the database ends what takes longer: statements, open transactions and
//! connections that are dead. The other way round every call from here has a limit of its own, as a
//! cut network answers nothing. A password appears in no error, name or log line.

use std::fmt;
use std::future::Future;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tokio::time::timeout;

use super::{Result, failed};
use crate::store::StoreError;

/// The oldest PostgreSQL whose settings are all there.
const OLDEST: u32 = 130_000;
/// Parameters that a URL may have: those that the driver knows.
const PARAMETERS: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "options",
];
/// Texts whose statements a connection keeps prepared. More kinds of batches are prepared anew.
const TEXTS_KEPT: usize = 100;

/// Which database, and who we are there.
#[derive(Clone)]
pub struct Target {
    options: PgConnectOptions,
    name: String,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Target {
    /// Reads `postgres://USER:PASSWORD@HOST:PORT/DATABASE?PARAMETERS`; a server on this machine is
    /// reached by its socket with `?host=FOLDER`. What it leaves out comes from the environment as for
    /// `psql` (`PGPASSWORD`, `PGPASSFILE`, ...).
    ///
    /// # Errors
    /// Says what is wrong without showing any of it, as it may be a password.
    pub fn parse(url: &str) -> Result<Self> {
        let refuse = |what: String| failed("read the store's URL")(what);
        let Some((_, rest)) = url.split_once("://").filter(|(scheme, _)| ["postgres", "postgresql"].contains(scheme))
        else {
            return Err(refuse("it does not begin with postgres://".to_owned()));
        };
        let known = |parameter: &str| {
            let name = parameter.split('=').next().unwrap_or_default();
            PARAMETERS.contains(&name) || (name.starts_with("options[") && name.ends_with(']'))
        };
        let parameters = rest.split_once('?').map_or("", |(_, parameters)| parameters);
        if parameters.split('&').any(|parameter| !parameter.is_empty() && !known(parameter)) {
            let known = PARAMETERS.join(", ");
            return Err(refuse(format!(
                "it has a parameter that is none of {known}; in a password write %3F for ?, %26 for &"
            )));
        }
        let options = PgConnectOptions::from_str(url).map_err(|error| match error {
            sqlx::Error::Configuration(what) => refuse(format!(
                "{what}; in a password write %40 for @, %3A for :, %2F for /, %3F for ?, %23 for #, %25 for %"
            )),
            other => failed("read the store's URL")(other),
        })?;
        let user = options.get_username();
        let database = options.get_database().unwrap_or(user);
        let name = match options.get_socket() {
            Some(folder) => format!("postgres://{user}@localhost/{database}?host={}", folder.display()),
            None => format!("postgres://{user}@{}:{}/{database}", options.get_host(), options.get_port()),
        };
        let options = options.statement_cache_capacity(TEXTS_KEPT).disable_statement_logging();
        Ok(Self { options, name })
    }

    /// What people call it; without the password.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether both are the same store, as far as their URLs tell: by one name, and by the same options,
    /// which may name a schema.
    pub fn is(&self, other: &Self) -> bool {
        self.name == other.name && self.options.get_options() == other.options.get_options()
    }

    /// How connections of a pool are made; each still needs its settings.
    pub fn options(&self, who: Who) -> PgConnectOptions {
        self.options.clone().application_name(who.name())
    }

    /// Connects, and sets what `who` needs.
    ///
    /// # Errors
    /// When the server is not there, refuses, or is a replica where `who` must know the present.
    pub async fn connect(&self, who: Who, limits: Limits) -> Result<PgConnection> {
        let doing = "connect to the store's database";
        let connecting = async {
            let mut connection = self.options(who).connect().await.map_err(|error| self.refused(error))?;
            who.settle(&mut connection, limits).await.map_err(failed(doing))?;
            Ok(connection)
        };
        let within = Duration::from_millis(limits.connect_ms);
        timeout(within, connecting)
            .await
            .unwrap_or_else(|_| Err(failed(doing)(format!("{} did not answer in {within:?}", self.name))))
    }

    /// What the server said when it was called, with what to do about it.
    fn refused(&self, error: sqlx::Error) -> StoreError {
        let doing = "connect to the store's database";
        let code = error.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()));
        let advice = match (code.as_deref(), &error) {
            (Some("3D000"), _) => "; create it first: createdb",
            (Some("28P01" | "28000"), _) => {
                "; check the user and the password in the URL, PGPASSWORD or the password file, and pg_hba.conf"
            }
            (Some("57P03"), _) => "; it is starting or stopping",
            (None, sqlx::Error::Io(_)) => "; check that it runs and is reached from here",
            (None, sqlx::Error::Tls(_)) => "; see sslmode",
            _ => "",
        };
        let said = error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
        failed(doing)(format!("{} says: {said}{advice}", self.name))
    }
}

/// What is said of a server that follows another.
const REPLICA: &str = "its server is a read-only replica: give the address of the primary";

/// Checks that the server can keep a store that brokers share.
///
/// # Errors
/// When it is too old, a replica, or set to be read only.
pub async fn check_server(connection: &mut PgConnection, limits: Limits) -> Result<()> {
    let doing = "use the store's database";
    let found = connection.server_version_num().unwrap_or(0);
    if found < OLDEST {
        let (major, oldest) = (found / 10_000, OLDEST / 10_000);
        return Err(failed(doing)(format!("its server is PostgreSQL {major}: {oldest} or later is needed")));
    }
    const ASK: &str = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'";
    let (replica, read_only): (bool, bool) =
        limits.of_read(doing, sqlx::query_as(ASK).fetch_one(&mut *connection)).await?;
    if replica {
        return Err(failed(doing)(REPLICA));
    }
    if read_only {
        return Err(failed(doing)("it is set to be read only (default_transaction_read_only)"));
    }
    if let Some(off) = promises_void(connection, limits).await? {
        tracing::warn!("the store's database has {off}: what a broker told may be lost with the server's power");
    }
    Ok(())
}

/// Settings of the server that void what is promised of durability.
async fn promises_void(connection: &mut PgConnection, limits: Limits) -> Result<Option<String>> {
    const ASK: &str = "SELECT string_agg(name || ' = off', ', ') FROM pg_settings
        WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off'";
    limits.of_read("read the server's settings", sqlx::query_scalar(ASK).fetch_one(connection)).await
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Writes the books. Its name is looked for where a leader is in the way that leads no more.
    Leader,
    /// Watches, and notes itself; takes the lead.
    Standby,
    /// Answers questions about the past, and whether this process leads.
    Reader,
    /// Reads the tables, whole, which may take long.
    Loader,
    /// Writes the builds.
    Builds,
    /// Reads or fills a whole store, in one transaction that takes as long as it takes.
    Mover,
}

impl Who {
    /// What the database calls the connection (`application_name`).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Leader => "leasehold leader",
            Self::Standby => "leasehold standby",
            Self::Reader | Self::Loader => "leasehold reader",
            Self::Builds => "leasehold builds",
            Self::Mover => "leasehold store",
        }
    }

    /// Sets what this connection needs. By name, and only where the server knows the name: versions
    /// differ, and other databases that speak the protocol more so. Fails on a replica, which an
    /// address may lead to from one day to the next: it tells of the past, and by that a leader that
    /// was deposed would take itself for one that is not.
    pub async fn settle(self, connection: &mut PgConnection, limits: Limits) -> sqlx::Result<()> {
        const SET: &str = "SELECT set_config(wanted.name, wanted.value, false)
            FROM unnest($1::text[], $2::text[]) AS wanted (name, value) JOIN pg_settings AS known
            ON known.name = wanted.name AND known.context = 'user'
            WHERE NOT (wanted.name = 'synchronous_commit' AND wanted.value = 'on' AND known.setting = 'remote_apply')";
        let (names, values): (Vec<&str>, Vec<String>) = self.settings(limits).into_iter().unzip();
        let set = sqlx::query(SET).persistent(false).bind(names).bind(values);
        set.execute(&mut *connection).await?;
        // A whole store may be read from anywhere: it is as of one moment in any case.
        if self == Self::Mover {
            return Ok(());
        }
        let replica: bool = sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(connection).await?;
        if replica { Err(sqlx::Error::Configuration(REPLICA.into())) } else { Ok(()) }
    }

    fn settings(self, limits: Limits) -> Vec<(&'static str, String)> {
        let ms = |number: u64| number.to_string();
        let dead_ms = ms(limits.dead_ms);
        let mut settings = vec![
            ("jit", "off".to_owned()),
            ("tcp_user_timeout", dead_ms),
            ("tcp_keepalives_idle", "1".to_owned()),
            ("tcp_keepalives_interval", "1".to_owned()),
            ("tcp_keepalives_count", "2".to_owned()),
            ("idle_in_transaction_session_timeout", ms(if self == Self::Mover { 0 } else { limits.statement_ms })),
            ("default_transaction_isolation", "read committed".to_owned()),
        ];
        match self {
            Self::Leader | Self::Standby | Self::Builds => settings.extend([
                ("statement_timeout", ms(limits.statement_ms)),
                // Before the statement's, so that it is known what was waited for.
                ("lock_timeout", ms(at_least_one(limits.statement_ms / 4 * 3))),
                ("transaction_timeout", ms(limits.statement_ms * 2)),
            ]),
            Self::Reader => settings.push(("statement_timeout", ms(limits.read_ms))),
            Self::Loader => settings.push(("statement_timeout", "0".to_owned())),
            Self::Mover => {
                settings.extend(["statement_timeout", "lock_timeout", "transaction_timeout"].map(|name| (name, ms(0))));
            }
        }
        match self {
            // A batch is a statement of many parts, planned once for all its sizes, and each row of it is
            // found by its key, however small its table was when it was planned.
            Self::Leader => settings.extend(
                [
                    ("synchronous_commit", "on"),
                    ("plan_cache_mode", "force_generic_plan"),
                    ("enable_seqscan", "off"),
                    ("enable_hashjoin", "off"),
                    ("enable_mergejoin", "off"),
                ]
                .map(|(name, value)| (name, value.to_owned())),
            ),
            // That it stands by is a hint, which may be lost, and is taken back by time alone.
            Self::Standby => settings.push(("synchronous_commit", "off".to_owned())),
            Self::Reader | Self::Loader => settings.push(("default_transaction_read_only", "on".to_owned())),
            Self::Builds | Self::Mover => settings.push(("synchronous_commit", "on".to_owned())),
        }
        settings
    }
}

/// How long things may take, milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Until the database gives up a statement, a lock, or a transaction that nobody goes on with.
    pub statement_ms: u64,
    /// Until it gives up a connection whose other end is silent.
    dead_ms: u64,
    /// Until a write is given up here.
    write_ms: u64,
    /// Until connecting is given up here.
    connect_ms: u64,
    /// Until an answer about the past, or the next row of one, is given up.
    read_ms: u64,
}

impl Limits {
    /// Nobody waits for whoever reads or fills a whole store.
    pub const UNHURRIED: Self =
        Self { statement_ms: 0, dead_ms: 60_000, write_ms: 60_000, connect_ms: 15_000, read_ms: 600_000 };

    /// Builds keep nobody from the lab's row, so they may take longer than a term: as long as a new leader
    /// may have to wait for what an older one was writing when it was cut off.
    pub const BUILDS: Self =
        Self { statement_ms: 5_000, dead_ms: 8_000, write_ms: 8_000, connect_ms: 5_000, read_ms: 30_000 };

    /// All that has to do with leading lies within the term.
    pub const fn of_term(term_ms: u64) -> Self {
        Self {
            statement_ms: at_least_one(term_ms / 2),
            dead_ms: at_least_one(term_ms / 4 * 3),
            write_ms: at_least_one(term_ms / 8 * 5),
            connect_ms: at_least_one(term_ms / 8 * 5),
            read_ms: 30_000,
        }
    }

    /// Waits for a write or a look at who leads, as long as that makes sense.
    pub async fn of_write<T>(self, doing: &'static str, work: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
        within(self.write_ms, doing, work).await
    }

    /// Waits for an answer, or the next row of one.
    pub async fn of_read<T>(self, doing: &'static str, work: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
        within(self.read_ms, doing, work).await
    }
}

const fn at_least_one(ms: u64) -> u64 {
    if ms > 0 { ms } else { 1 }
}

async fn within<T>(ms: u64, doing: &'static str, work: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
    match timeout(Duration::from_millis(ms), work).await {
        Ok(done) => done.map_err(failed(doing)),
        Err(_) => Err(failed(doing)(format!("the database did not answer in {ms} ms"))),
    }
}

/// Says goodbye to the server, where it can still hear it; not waited for.
pub fn hang_up(connection: PgConnection) {
    tokio::spawn(timeout(Duration::from_secs(1), connection.close()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_shows_all_but_the_password() {
        for (url, name) in [
            ("postgres://ann:s3cret@db.lab:5433/books", "postgres://ann@db.lab:5433/books"),
            ("postgresql://ann:s3cret@db.lab:5432?sslmode=require", "postgres://ann@db.lab:5432/ann"),
            ("postgres://ann:s3cret@localhost/books?host=/run/pg", "postgres://ann@localhost/books?host=/run/pg"),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!(target.name(), name);
            assert!(!format!("{target:?}").contains("s3cret"));
        }
    }

    #[test]
    fn a_bad_url_is_refused_without_showing_any_of_it() {
        for (url, said) in [
            ("mysql://ann:s3cret@db/books", "does not begin with postgres://"),
            ("postgres://ann:s3cret@db:many/books", "invalid port number"),
            ("postgres://ann:s3?cret@db/books", "none of sslmode"),
            ("postgres://ann:s3cret@db/books?sslmode=maybe", "unknown value"),
            ("postgres://ann@db/books?passwd=s3cret", "none of sslmode"),
            ("postgres://ann:s3/cret@db/books", "invalid port number"),
        ] {
            let refused = Target::parse(url).unwrap_err().to_string();
            assert!(refused.contains(said), "{url}: {refused}");
            assert!(!refused.contains("cret") && refused.contains("failed to read the store's URL"), "{refused}");
        }
    }
}
