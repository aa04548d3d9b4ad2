//! Taking the builds over: at the start, and again after the store failed.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::builds::book::{Book, Contents, RECENT_KEPT_MS};
use crate::builds::status::{Status, StatusKey};
use crate::store::StoreError;
use crate::store::builds::{BuildStore, Loaded};

/// Reads the book as the store has it, and makes this process the one that writes.
///
/// # Errors
/// As the store says.
pub(super) async fn take_over(store: &Arc<dyn BuildStore>, now_ms: i64) -> Result<Book, StoreError> {
    let Loaded { open, waiting, recent, untold, of_deliveries, last_build, last_delivery } =
        store.take_over(now_ms.saturating_sub(RECENT_KEPT_MS)).await?;
    let mut statuses: Vec<Status> = untold;
    statuses.extend(of_deliveries.into_iter().filter(Status::tells_of_mistake));
    // What open builds have told already: an older one's must not come in a newer one's place.
    let mut keys: BTreeSet<StatusKey> = open.iter().map(StatusKey::of).collect();
    for status in &statuses {
        keys.remove(&status.key);
    }
    for key in keys {
        statuses.extend(store.status(&key).await?);
    }
    Ok(Book::new(Contents { open, waiting, recent, statuses, last_build, last_delivery }))
}
