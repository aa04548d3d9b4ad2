//! The contract on SQLite, and what only a file can do: be torn, be full, be another's (being built).

use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::store::contract::{Factory, contract};

/// A store in a folder of its own.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("lab/store.db")
    }
}

impl Factory for Folder {
    type Store = Sqlite;

    async fn open(&self) -> Result<Sqlite> {
        Sqlite::open(self.path()).await
    }
}

contract! { Folder::new() =>
    records_come_back_as_they_were,
    events_come_back_as_they_were,
    records_are_replaced_and_deleted,
    requests_are_forgotten_up_to_a_number,
    batches_out_of_order_are_refused,
    a_second_opener_is_refused,
    history_is_by_resource_newest_first,
    the_journal_can_be_narrowed,
    reopening_keeps_what_is_committed,
    pruning_keeps_what_is_held_or_young,
}
