//! The inventory file of a running broker: applied at the start, and whenever it changes.
//!
//! A file that cannot be applied changes nothing: the broker goes on with the inventory it has
//! and says so, here on stderr, in `status` and in a metric. Only a broker that has none refuses
//! to start.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::Failure;
use crate::core::command::Command;
use crate::engine::handle::Handle;
use crate::engine::input::Told;
use crate::inventory::file;
use crate::inventory::watch::{Seen, read_now, watch as watch_file};
use crate::protocol::info::ApplyInfo;

/// How often a file that could not be applied is tried again: an admin may have confirmed it, or
/// the store may work again.
const RETRY: Duration = Duration::from_secs(5);

/// Why the file is not applied, while it is not.
pub(super) type Trouble = Option<Arc<str>>;

/// The file and how it stands.
pub(super) struct Inventory {
    path: PathBuf,
    handle: Handle,
    trouble: watch::Sender<Trouble>,
    /// What the file said when it was last read.
    text: Option<String>,
}

impl Inventory {
    /// Applies the file for the start.
    ///
    /// # Errors
    /// When it cannot be applied and the broker has no inventory to go on with.
    pub(super) async fn begin(path: &Path, handle: &Handle, trouble: watch::Sender<Trouble>) -> Result<Self, Failure> {
        let mut inventory = Self { path: path.to_owned(), handle: handle.clone(), trouble, text: None };
        let applied = match inventory.read().await {
            Ok(text) => {
                inventory.text = Some(text.clone());
                inventory.apply(text, false).await
            }
            Err(error) => Err(error),
        };
        match applied {
            Ok(_) => Ok(inventory),
            Err(error) if inventory.is_empty().await? => Err(Failure::refused(error)),
            Err(error) => {
                inventory.say(error);
                Ok(inventory)
            }
        }
    }

    /// Fills an empty inventory, on a store that other brokers share: there it is changed by
    /// `resource apply`, as the files of the brokers may differ. Says how things stand.
    pub(super) async fn fill(path: &Path, handle: &Handle, trouble: watch::Sender<Trouble>) {
        let inventory = Self { path: path.to_owned(), handle: handle.clone(), trouble, text: None };
        if let Err(problem) = inventory.try_fill().await {
            inventory.say(problem);
        }
    }

    async fn try_fill(&self) -> Result<(), String> {
        let text = self.read().await?;
        let empty = self.is_empty().await.map_err(|failure| failure.message)?;
        let file = self.path.display();
        let changes = self.apply(text, !empty).await?.changes.len();
        match (empty, changes) {
            (true, changes) => say!("{file} applied to the empty inventory: {changes} changes"),
            (false, 0) => {}
            (false, changes) => say!(
                "{file} differs from the inventory on the shared store ({changes} changes) and is left alone: \
                 `leasehold resource apply {file} --prune` applies it"
            ),
        }
        Ok(())
    }

    async fn read(&self) -> Result<String, String> {
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || read_now(&path)).await.unwrap_or_else(|error| Err(error.to_string()))
    }

    async fn is_empty(&self) -> Result<bool, Failure> {
        let empty = self.handle.read(|view| view.state.resources.is_empty() && view.state.pools.is_empty()).await;
        empty.map_err(|error| Failure::refused(error.to_string()))
    }

    /// Follows the file for ever.
    pub(super) async fn follow(mut self) {
        let (told, mut seen) = mpsc::channel(1);
        let watching = watch_file(self.path.clone(), self.text.clone(), told);
        let following = async {
            loop {
                let troubled = self.trouble.borrow().is_some();
                tokio::select! {
                    seen = seen.recv() => match seen {
                        Some(Seen::Text(text)) => self.apply_changed(text).await,
                        Some(Seen::Unreadable(problem)) => self.say(problem),
                        None => return,
                    },
                    () = tokio::time::sleep(RETRY), if troubled => self.try_again().await,
                }
            }
        };
        tokio::join!(watching, following);
    }

    /// Tries a file again that said the same before; one that says something else is told by
    /// the watch, once it has settled.
    async fn try_again(&mut self) {
        match self.read().await {
            Ok(text) if self.text.as_ref() == Some(&text) => self.apply_changed(text).await,
            Ok(_) => {}
            Err(problem) => self.say(problem),
        }
    }

    async fn apply_changed(&mut self, text: String) {
        self.text = Some(text.clone());
        match self.apply(text, false).await {
            Ok(info) => {
                if !info.changes.is_empty() {
                    say!("{} applied: {} changes", self.path.display(), info.changes.len());
                }
                self.trouble.send_if_modified(|trouble| trouble.take().is_some());
            }
            Err(error) => self.say(error),
        }
    }

    /// Makes the file's part of the inventory what it says; `dry_run` tells only what would change.
    async fn apply(&self, text: String, dry_run: bool) -> Result<ApplyInfo, String> {
        let name = self.path.display().to_string();
        let read = tokio::task::spawn_blocking(move || file::read(&text, &name)).await;
        let declared = read.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let command = Command::Apply { declared: Arc::new(declared), prune: true, confirmed: false, dry_run };
        match self.handle.command(command).await {
            Ok(Told::Applied(info)) => Ok(info),
            Ok(_) => Err(format!("{}: the broker answered itself wrongly", self.path.display())),
            Err(error) => Err(format!("{}: {error}", self.path.display())),
        }
    }

    /// Says once why the file is not applied.
    fn say(&self, problem: String) {
        let problem: Arc<str> = problem.into();
        let new = self.trouble.send_if_modified(|trouble| {
            let new = trouble.as_ref() != Some(&problem);
            *trouble = Some(problem.clone());
            new
        });
        if new {
            say!("the inventory file is not applied, the broker goes on with what it has: {problem}");
        }
    }
}
