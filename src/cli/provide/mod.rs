//! `provide`: brings the resources of a file to the lab for as long as it runs.
//!
//! It is one session after another: while a broker knows its session everything stands, however
//! often sockets drop or brokers change; when one was lost all the same (this machine slept) it opens
//! another and its resources return. What a file says is for the core to judge; here it is read,
//! watched, and said what came of it.

pub(in crate::cli) mod key;

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use clap::Args;
use tokio::sync::mpsc;

use self::key::Key;
use super::granting;
use super::run::report::Ending;
use super::run::signals::{self, Caught, Signals};
use super::serve::options::state_folder;
use super::terminal::Messages;
use super::words::count;
use super::{Failure, Globals, exit_code, runtime};
use crate::client::{BaseUrl, Client, ClientError, Event, Network, Options};
use crate::core::apply::{Declared, DeclaredResource};
use crate::core::inventory::Pool;
use crate::core::types::ProviderName;
use crate::engine::query::wire_values;
use crate::inventory::file;
use crate::inventory::watch::{Seen, read_now, watch};
use crate::protocol::call::{ProvidedResource, ProviderProvide};
use crate::protocol::info::ApplyInfo;
use crate::units::parse_duration_ms;

/// How often what was refused is tried again: who holds a resource may have given it back.
pub(in crate::cli) const RETRY: Duration = Duration::from_secs(5);
/// How long a broker is waited for once there was one: a year.
pub(in crate::cli) const FOR_EVER_MS: u64 = 366 * 86_400_000;

/// Bring the resources of a file along, for as long as this runs
///
/// They go offline when it ends, or when the broker has not heard of it for its ttl: nobody new gets them then, and
/// who holds one is told. Started again, it takes over at once from its own session that the broker still has.
#[derive(Debug, Args)]
pub struct ProvideCommand {
    /// An inventory file: its resources; a pool in it gives them defaults and no policy. Followed when it changes
    file: PathBuf,
    /// Its name, one of a kind in the lab [default: the host's]
    #[arg(long)]
    name: Option<String>,
    /// How long the broker waits for a sign of life, 2s to 10m [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    ttl: Option<u64>,
    /// Even where the file removes more than a fifth of what this provider had
    #[arg(long)]
    yes: bool,
    /// Give up when no broker is there for this long at the start
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms, default_value = "2m")]
    connect_timeout: u64,
}

/// How a session came to its end.
enum Over {
    /// A signal ended it.
    Signalled,
    /// The broker does not know it any more.
    Gone(String),
    /// Another provides under the name.
    Superseded(String),
}

/// What is provided, and how that stands.
struct Provider<'a> {
    name: ProviderName,
    path: &'a Path,
    messages: &'a Messages,
    key: Key,
    host: Option<String>,
    /// Set while the socket is down: whether it was said that no broker is there.
    away: Option<bool>,
    /// What the broker took last.
    taken: Option<ProviderProvide>,
    /// What the file says since, and why that is not taken.
    refused: Option<(ProviderProvide, String)>,
}

impl ProvideCommand {
    /// Provides until a signal.
    pub fn execute(self, globals: &Globals) -> Result<u8, Failure> {
        // First of all, as every thread from here on is to hold them back.
        let held = signals::hold().map_err(|error| Failure::own(format!("signals cannot be read: {error}")))?;
        let host = nix::unistd::gethostname().ok().and_then(|host| host.into_string().ok());
        let name = self.name.as_deref().or(host.as_deref()).unwrap_or_default();
        let name = ProviderName::parse(name).map_err(|error| Failure::usage(format!("{error}: say --name NAME")))?;
        let folder = state_folder().ok_or_else(|| {
            Failure::usage("no place for the provider's key: neither STATE_DIRECTORY, XDG_STATE_HOME nor HOME is set")
        })?;
        let text = read_now(&self.file).map_err(Failure::refused)?;
        let key = key::take(&folder, &name)?;
        let messages = Messages::to_stderr();
        let mut provider =
            Provider { name, path: &self.file, messages: &messages, key, host, away: None, taken: None, refused: None };
        let mut request = provider.request(&text).map_err(Failure::refused)?;
        request.confirmed = self.yes;
        let runtime = runtime()?;
        let result = runtime.block_on(async {
            let signals = Signals::new(&held);
            let mut signals = signals.map_err(|error| Failure::own(format!("signals cannot be read: {error}")))?;
            let (told, mut seen) = mpsc::channel(1);
            tokio::spawn(watch(self.file.clone(), Some(text), told));
            let mut options = self.options(globals)?;
            loop {
                let client = match granting::open(options.clone(), &messages, &mut signals).await {
                    Ok(client) => client,
                    Err(not) if not.ended == Ending::Interrupted => return Ok(exit_code::DONE),
                    Err(not) => return Err(not.into()),
                };
                let request = provider.taken.clone().unwrap_or_else(|| request.clone());
                let over = provider.serve(&client, request, &mut seen, &mut signals).await;
                granting::close(&client).await;
                match over? {
                    Over::Signalled => return Ok(exit_code::DONE),
                    Over::Superseded(message) => return Err(Failure::refused(message)),
                    Over::Gone(why) => messages.line(format!("the session is lost ({why}): opening another")),
                }
                options = Options { connect_timeout_ms: FOR_EVER_MS, ..self.options(globals)? };
            }
        });
        runtime.shutdown_background();
        messages.flush();
        result
    }

    fn options(&self, globals: &Globals) -> Result<Options, Failure> {
        options(globals, self.ttl, self.connect_timeout)
    }
}

/// For a provider's session, with this ttl, that waits so long for a broker.
pub(in crate::cli) fn options(globals: &Globals, ttl_ms: Option<u64>, wait_ms: u64) -> Result<Options, Failure> {
    let config = |error: ClientError| Failure::own(error.to_string());
    Ok(Options {
        network: Network::from_env().map_err(config)?,
        ttl_ms,
        connect_timeout_ms: wait_ms,
        ..Options::new(BaseUrl::parse_list(&globals.url).map_err(config)?)
    })
}

/// Says what happened to a provider's session; answers the end of it, where another took over. `away` is set while the
/// socket is down, to whether it was said that no broker is there.
pub(in crate::cli) fn hear(event: Event, away: &mut Option<bool>, messages: &Messages) -> Option<String> {
    match event {
        Event::Superseded(by) => return Some(by.message),
        Event::Disconnected { .. } => *away = Some(false),
        Event::NoBroker { why } if *away == Some(false) => {
            *away = Some(true);
            messages.line(format!("no broker: {why}; trying again"));
        }
        Event::Connected { resumed, .. } => match (away.take(), resumed) {
            (Some(_), true) => messages.line("reconnected to the broker"),
            (Some(true), false) => messages.line("connected to the broker"),
            _ => {}
        },
        Event::StoreState { message, .. } => messages.line(message),
        _ => {}
    }
    None
}

impl Provider<'_> {
    /// Provides in one session, until that is over.
    async fn serve(
        &mut self,
        client: &Client,
        request: ProviderProvide,
        seen: &mut mpsc::Receiver<Seen>,
        signals: &mut Signals,
    ) -> Result<Over, Failure> {
        let mut events = client.events();
        let mut asking = Some(ask(client, request));
        let mut begun = false;
        loop {
            let again = self.refused.as_ref().filter(|_| asking.is_none()).map(|(request, _)| request.clone());
            let (asked, idle) = (asking.is_some(), asking.is_none());
            tokio::select! {
                () = stopped(signals) => return Ok(Over::Signalled),
                error = client.closed() => match error {
                    ClientError::SessionGone(why) => return Ok(Over::Gone(why)),
                    error => return Err(failure(&error)),
                },
                Some(event) = events.next() => if let Some(message) = hear(event, &mut self.away, self.messages) {
                    return Ok(Over::Superseded(message));
                },
                (request, result) = answer(&mut asking), if asked => {
                    asking = None;
                    match result {
                        Ok(applied) => self.took(request, &applied),
                        Err(ClientError::Refused { message, .. }) if begun => self.refuse(request, message),
                        // Why the session is over is told by itself.
                        Err(ClientError::Closed | ClientError::SessionGone(_)) => {}
                        Err(error) => return Err(failure(&error)),
                    }
                    begun = true;
                }
                Some(news) = seen.recv(), if idle => match news {
                    Seen::Text(text) => match self.request(&text) {
                        Ok(request) => asking = Some(ask(client, request)),
                        Err(problem) => self.messages.line(format!("the file is not taken: {problem}")),
                    },
                    Seen::Unreadable(problem) => self.messages.line(format!("the file is not taken: {problem}")),
                },
                () = tokio::time::sleep(RETRY), if again.is_some() => asking = again.map(|again| ask(client, again)),
            }
        }
    }

    /// What a changed file says is refused: what was taken before stands.
    fn refuse(&mut self, request: ProviderProvide, message: String) {
        if self.refused.as_ref().is_none_or(|(_, before)| *before != message) {
            self.messages.line(format!("the file is not taken, what it said before stands: {message}"));
        }
        self.refused = Some((request, message));
    }

    fn took(&mut self, request: ProviderProvide, applied: &ApplyInfo) {
        let resources = count(request.resources.len(), "resource");
        let changes = match applied.changes.len() {
            0 => String::new(),
            changes => format!(", {} made", count(changes, "change")),
        };
        self.messages.line(format!("provider {} is online with {resources}{changes}", self.name));
        // What was confirmed was confirmed once.
        self.taken = Some(ProviderProvide { confirmed: false, ..request });
        self.refused = None;
    }

    /// What a file's text asks the broker for.
    fn request(&self, text: &str) -> Result<ProviderProvide, String> {
        let declared = file::read(text, &self.path.display().to_string()).map_err(|error| error.to_string())?;
        Ok(ProviderProvide {
            name: self.name.to_string(),
            key: self.key.secret.clone(),
            host: self.host.clone(),
            resources: provided(declared).map_err(|problem| format!("{}: {problem}", self.path.display()))?,
            confirmed: false,
        })
    }
}

/// A question to the broker, with what was asked.
type Asking<'a> = Pin<Box<dyn Future<Output = (ProviderProvide, Result<ApplyInfo, ClientError>)> + 'a>>;

fn ask(client: &Client, request: ProviderProvide) -> Asking<'_> {
    Box::pin(async move {
        let result = client.provide(request.clone()).await;
        (request, result)
    })
}

async fn answer(asking: &mut Option<Asking<'_>>) -> (ProviderProvide, Result<ApplyInfo, ClientError>) {
    match asking {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}

/// The resources of a file that a provider can bring.
fn provided(declared: Declared) -> Result<Vec<ProvidedResource>, String> {
    if let Some(pool) = declared.pools.iter().find(|pool| **pool != Pool::named(pool.name.clone())) {
        return Err(format!(
            "pool \"{}\" has a policy: a provider's file may only give labels and properties to what is in it; the \
             rest belongs to the broker's own inventory file",
            pool.name
        ));
    }
    let one = |resource: DeclaredResource| {
        let (spec, was) = (resource.spec, resource.was);
        if !spec.secrets.is_empty() {
            return Err(format!(
                "resource \"{}\" has secrets: those of a provider's resources are not in this version, as the broker \
                 would read them on its own machine",
                spec.name
            ));
        }
        Ok(ProvidedResource {
            name: spec.name.to_string(),
            was: was.map(|was| was.to_string()),
            pool: spec.pool.to_string(),
            labels: wire_values(&spec.labels),
            properties: wire_values(&spec.properties),
            slots: Some(spec.slots),
        })
    };
    declared.resources.into_iter().map(one).collect()
}

/// What an error of a session's is for a command.
pub(in crate::cli) fn failure(error: &ClientError) -> Failure {
    if error.is_no_broker() { Failure::no_broker(error.to_string()) } else { Failure::refused(error.to_string()) }
}

/// Comes with the first signal that ends it.
async fn stopped(signals: &mut Signals) {
    use nix::sys::signal::Signal::{SIGUSR1, SIGUSR2};
    loop {
        let Caught { number, .. } = signals.next().await;
        if number != SIGUSR1 as i32 && number != SIGUSR2 as i32 {
            return;
        }
    }
}
