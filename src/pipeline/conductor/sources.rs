//! Deliveries on their way through git: a few at a time, and of one repository one after the other, in the
//! order in which they came.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::task::Event;
use crate::builds::book::{Book, Command, Found};
use crate::builds::delivery::{Delivery, DeliveryId};
use crate::inventory::pipelines::{PipelineSettings, Repository};
use crate::pipeline::source::{PipelineSource, Sought};

/// Deliveries that git works on at one time.
const AT_ONCE_MAX: usize = 4;
/// How long one may take.
const TAKES_MAX: Duration = Duration::from_secs(120);

/// Deliveries on their way.
pub(super) struct Sources {
    source: PipelineSource,
    settings: Arc<PipelineSettings>,
    events: mpsc::Sender<Event>,
    /// What waits, by repository.
    queues: BTreeMap<Arc<str>, VecDeque<Arc<Delivery>>>,
    /// Repositories of which one is under way.
    busy: BTreeSet<Arc<str>>,
    known: BTreeSet<DeliveryId>,
    /// Grows each time that all is forgotten: what was looked up before is not heard of any more.
    generation: u64,
}

impl Sources {
    pub(super) fn new(source: PipelineSource, settings: Arc<PipelineSettings>, events: mpsc::Sender<Event>) -> Self {
        Self {
            source,
            settings,
            events,
            queues: BTreeMap::new(),
            busy: BTreeSet::new(),
            known: BTreeSet::new(),
            generation: 0,
        }
    }

    /// Has all deliveries worked on that wait in the book; those known are known. Answers what is decided
    /// without a look.
    pub(super) fn take(&mut self, book: &Book) -> Vec<Command> {
        let mut decided = Vec::new();
        for delivery in
            book.waiting().filter(|delivery| !self.known.contains(&delivery.id)).cloned().collect::<Vec<_>>()
        {
            self.known.insert(delivery.id);
            let Ok(happening) = &delivery.said else { continue };
            match self.settings.repository(delivery.forge, &happening.repository) {
                Some(repository) => self.queues.entry(repository.name.clone()).or_default().push_back(delivery),
                None => {
                    let reason = format!("no [[repository]] of the broker's configuration is {}", happening.repository);
                    decided.push(Command::unknown(delivery.id, happening.repository.clone(), reason));
                }
            }
        }
        self.go_on();
        decided
    }

    /// What was found for a delivery is here: it is decided before whatever is found for the next of its
    /// repository, whose turn it is now.
    pub(super) fn found(
        &mut self,
        id: DeliveryId,
        generation: u64,
        repository: &Arc<Repository>,
        sought: Sought,
    ) -> Option<Command> {
        if generation != self.generation {
            return None;
        }
        self.busy.remove(&repository.name);
        self.go_on();
        let found = match sought {
            Sought::Wanted(plans) => Found::Wanted(plans),
            Sought::Nothing(reason) => Found::Nothing(reason),
            Sought::Mistaken(reason) => Found::Mistaken(reason),
            Sought::Failed(reason) => Found::Failed(reason),
        };
        Some(Command::Work { delivery: id, repository: repository.name.clone(), found })
    }

    /// A delivery is worked on, for good.
    pub(super) fn done(&mut self, delivery: &Delivery) {
        self.known.remove(&delivery.id);
    }

    /// Forgets what is under way: the book is another, and has what is to be done.
    pub(super) fn forget(&mut self) {
        self.queues.clear();
        self.busy.clear();
        self.known.clear();
        self.generation += 1;
    }

    fn go_on(&mut self) {
        while self.busy.len() < AT_ONCE_MAX {
            // The delivery that came first, of a repository that has its turn.
            let next = self.queues.iter().filter(|(name, _)| !self.busy.contains(*name));
            let next = next.filter_map(|(name, queue)| Some((queue.front()?.id, name.clone()))).min();
            let Some((_, name)) = next else { return };
            let Some(delivery) = self.queues.get_mut(&name).and_then(VecDeque::pop_front) else { return };
            self.queues.retain(|_, queue| !queue.is_empty());
            let Some(repository) = self.settings.repositories.get(&name).cloned() else { return };
            self.busy.insert(name);
            self.look(delivery, repository);
        }
    }

    fn look(&self, delivery: Arc<Delivery>, repository: Arc<Repository>) {
        let (source, events, generation) = (self.source.clone(), self.events.clone(), self.generation);
        tokio::spawn(async move {
            let Ok(happening) = &delivery.said else { return };
            let sought = tokio::time::timeout(TAKES_MAX, source.seek(&repository, &happening.what)).await;
            let sought = sought.unwrap_or_else(|_| Sought::Failed(late(&repository).into()));
            // Fails only where the conductor is gone: whoever leads next looks again.
            let _ = events.send(Event::Found(delivery.id, generation, repository.clone(), sought)).await;
        });
    }
}

/// What is said of a repository whose pipelines could not be read in time.
pub(super) fn late(repository: &Repository) -> String {
    format!(
        "{} did not answer in two minutes: look at the network, or put its pipelines under [[repository.pipeline]]; \
         then have it worked on again",
        repository.url
    )
}
