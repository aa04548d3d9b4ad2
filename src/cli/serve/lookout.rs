//! What a broker sees of the others on its database: it looks at the lab's row, is seen itself, and
//! tells the server what it saw.
//!
//! The database may be away, at the start as later: that is said once and told to whoever asks, and
//! every look connects anew. Only a store that this binary cannot use ends the process.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Failure;
use super::options::Database;
use crate::client::url::BaseUrl;
use crate::clock::{BootTime, boot_now, random_secret};
use crate::protocol::info::BrokerInfo;
use crate::server::sight::{Leader, Sight};
use crate::store::StoreError;
use crate::store::postgres::{Broker, Postgres, Seen, Shared, Step, Taken, Watch};

/// Characters of an instance's name: enough that no two processes ever have the same.
const INSTANCE_CHARS: usize = 16;
/// How often the row is looked at within a term by a broker that leads.
const LOOKS_PER_TERM: u64 = 4;

/// A look at the lab's row.
pub(super) struct Look {
    before: BootTime,
    after: BootTime,
    pub seen: Seen,
}

/// This broker among the others.
pub(super) struct Lookout {
    url: String,
    own: BaseUrl,
    pub term_ms: u64,
    instance: String,
    /// `None` before the database was reached for the first time.
    shared: Option<Shared>,
    sight: watch::Sender<Sight>,
    leads: bool,
    /// When the last look succeeded.
    looked: BootTime,
    /// The leader's last write that was seen, and when.
    heard: Option<(u64, u64, BootTime)>,
    standbys: Vec<Broker>,
    /// When those were asked for.
    asked: Option<BootTime>,
    /// Whether it was said that another advertises what this one does.
    said_alike: bool,
    /// What was said of why the lead could not be taken, until it is.
    kept_from: Option<String>,
}

impl Lookout {
    /// A lookout that has not looked yet, and where the server finds what it sees. Clients reach this
    /// broker at `own`.
    pub(super) fn new(database: &Database, own: BaseUrl) -> (Self, watch::Receiver<Sight>) {
        let term_ms = database.term_ms;
        let (sight, seen) = watch::channel(Sight { own_url: own.to_string(), term_ms, ..Sight::default() });
        let mut instance = random_secret();
        instance.truncate(INSTANCE_CHARS);
        let lookout = Self {
            url: database.url.clone(),
            own,
            term_ms,
            instance,
            shared: None,
            sight,
            leads: false,
            looked: boot_now(),
            heard: None,
            standbys: Vec::new(),
            asked: None,
            said_alike: false,
            kept_from: None,
        };
        (lookout, seen)
    }

    /// Looks at the row; `None` while the database does not answer.
    ///
    /// # Errors
    /// When this binary cannot use the store.
    pub(super) async fn look(&mut self) -> Result<Option<Look>, Failure> {
        let before = boot_now();
        let looked = match self.shared().await {
            Ok(shared) => shared.observe().await,
            Err(error) => Err(error),
        };
        match looked {
            Ok(seen) => {
                let look = Look { before, after: boot_now(), seen };
                self.saw(&look).await;
                Ok(Some(look))
            }
            Err(error) => {
                self.saw_nothing(error)?;
                Ok(None)
            }
        }
    }

    /// Whether to take the lead after a look. A lead that the row says is this process's is over, or
    /// it would not stand by: like one that was given up, it is anybody's.
    pub(super) fn step(&self, watch: &mut Watch, look: &Look) -> Step {
        let mut seen = look.seen.clone();
        seen.leader.take_if(|leader| *leader == self.instance);
        watch.saw(look.before, look.after, &seen)
    }

    /// Takes the lead; `None` when another was faster, or the database does not answer.
    ///
    /// # Errors
    /// When this binary cannot use the store.
    pub(super) async fn take(&mut self, epoch: u64, beat: u64) -> Result<Option<Postgres>, Failure> {
        let taken = match self.shared().await {
            Ok(shared) => shared.take(epoch, beat).await,
            Err(error) => Err(error),
        };
        match taken {
            Ok(Taken::Lead(store)) => {
                self.kept_from = None;
                self.tell(|sight| (sight.epoch, sight.leader) = (Some(epoch + 1), None));
                Ok(Some(*store))
            }
            Ok(Taken::Passed) => {
                self.kept_from = None;
                Ok(None)
            }
            Err(error) => {
                self.kept_from_it(&error)?;
                Ok(None)
            }
        }
    }

    /// Says once why the lead, which seems free, cannot be taken: a copy of the store holds its row, or
    /// the database went away just now.
    fn kept_from_it(&mut self, error: &StoreError) -> Result<(), Failure> {
        refuse_unless_passing(error)?;
        let text = error.to_string();
        if self.kept_from.as_ref() != Some(&text) {
            say!("nobody seems to lead, and the lead cannot be taken yet, which is tried again until it can: {text}");
            self.kept_from = Some(text);
        }
        Ok(())
    }

    /// Notes which role this process has.
    pub(super) fn leads(&mut self, leads: bool) {
        self.leads = leads;
        self.tell(|_| {});
    }

    /// Goes on looking, and being seen, for ever: what a broker that leads does beside it.
    ///
    /// # Errors
    /// Those of [`Lookout::look`].
    pub(super) async fn keep_looking(&mut self) -> Result<std::convert::Infallible, Failure> {
        loop {
            self.look().await?;
            tokio::time::sleep(Duration::from_millis(self.term_ms / LOOKS_PER_TERM)).await;
        }
    }

    /// The brokers that stand by at present; none where the database does not answer.
    pub(super) async fn standbys(&mut self) -> usize {
        let asked = match self.shared().await {
            Ok(shared) => shared.standbys().await,
            Err(error) => Err(error),
        };
        asked.map_or(0, |standbys| standbys.len())
    }

    /// Tells the others that this broker is gone.
    pub(super) async fn leave(&mut self) {
        if let Some(shared) = &mut self.shared {
            shared.leave().await;
        }
    }

    async fn shared(&mut self) -> Result<&mut Shared, StoreError> {
        if self.shared.is_none() {
            let own = self.own.to_string();
            self.shared = Some(Shared::connect(&self.url, &self.instance, &own, self.term_ms).await?);
        }
        Ok(self.shared.as_mut().expect("it was connected right above"))
    }

    async fn saw(&mut self, look: &Look) {
        let Seen { epoch, beat, .. } = look.seen;
        self.looked = look.after;
        if self.heard.is_none_or(|(known_epoch, known_beat, _)| (known_epoch, known_beat) != (epoch, beat)) {
            self.heard = Some((epoch, beat, look.after));
        }
        if self.asked.is_none_or(|asked| look.after.since(asked) >= self.term_ms / 2) {
            self.asked = Some(look.after);
            // For people to see: without an answer what was known before stands.
            if let Some(shared) = &mut self.shared
                && let Ok(standbys) = shared.standbys().await
            {
                self.standbys = standbys;
            }
        }
        let leader = self.leader(&look.seen);
        let brokers = self.brokers(&look.seen);
        let back = self.tell(|sight| {
            sight.epoch = Some(epoch);
            sight.leader = leader;
            sight.brokers = brokers;
            sight.failure.take()
        });
        if back.is_some() {
            say!("the database answers again");
        }
    }

    /// Where the leader is, where another leads and says so.
    fn leader(&mut self, seen: &Seen) -> Option<Leader> {
        seen.leader.as_ref().filter(|leader| **leader != self.instance)?;
        // Another broker checked it before it wrote it.
        let url = BaseUrl::parse(seen.url.as_deref()?).ok()?;
        if url == self.own && !self.said_alike {
            self.said_alike = true;
            say!("the broker that leads says that it is at {url}, as this one does: give each its own --advertise");
        }
        Some(Leader { url: url.to_string(), http: url.http() })
    }

    /// Everybody who was heard of lately.
    fn brokers(&self, seen: &Seen) -> Vec<BrokerInfo> {
        let mut brokers = vec![BrokerInfo {
            url: self.own.to_string(),
            instance: self.instance.clone(),
            leads: self.leads,
            seen_ms: 0,
        }];
        if let Some((leader, url)) = seen.leader.as_ref().zip(seen.url.as_ref()).filter(|(id, _)| **id != self.instance)
        {
            let seen_ms = self.heard.map_or(0, |(_, _, at)| boot_now().since(at));
            brokers.push(BrokerInfo { url: url.clone(), instance: leader.clone(), leads: true, seen_ms });
        }
        brokers.extend(self.standbys.iter().map(|standby| BrokerInfo {
            url: standby.url.clone(),
            instance: standby.instance.clone(),
            leads: false,
            seen_ms: standby.noted_ms_ago,
        }));
        brokers.sort_by(|a, b| (&a.url, &a.instance).cmp(&(&b.url, &b.instance)));
        brokers.dedup_by(|a, b| a.instance == b.instance);
        brokers
    }

    fn saw_nothing(&mut self, error: StoreError) -> Result<(), Failure> {
        refuse_unless_passing(&error)?;
        // After a term another may lead that was not seen to take over.
        let forgotten = boot_now().since(self.looked) > self.term_ms;
        let text: Arc<str> = error.to_string().into();
        let before = self.tell(|sight| {
            if forgotten {
                sight.leader = None;
            }
            sight.failure.replace(text.clone())
        });
        if before.is_none() {
            say!("the database does not answer, and is tried again until it does: {error}");
        } else if before != Some(text) {
            tracing::warn!("{error}");
        }
        Ok(())
    }

    fn tell<T>(&self, change: impl FnOnce(&mut Sight) -> T) -> T {
        let mut told = None;
        self.sight.send_modify(|sight| {
            told = Some(change(sight));
            for broker in &mut sight.brokers {
                if broker.instance == self.instance {
                    broker.leads = self.leads;
                }
            }
        });
        told.expect("a change is made before this returns")
    }
}

/// Whether what failed may work again: all but a store that this binary cannot use.
fn refuse_unless_passing(error: &StoreError) -> Result<(), Failure> {
    match error {
        StoreError::Failed { .. } | StoreError::Deposed { .. } => Ok(()),
        _ => Err(Failure::refused(error.to_string())),
    }
}
