//! Changes as rows: what is written of a batch, whichever store it goes to.
//!
//! Of several changes to one record in a batch the last is written, as whole records replace each
//! other; of a status the one with the highest version.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::builds::build::{Build, BuildId};
use crate::builds::change::{Change, Note};
use crate::builds::delivery::{Delivery, DeliveryId, Outcome};
use crate::builds::status::{Status, StatusKey, Whose};
use crate::store::StoreError;

/// Bodies above this many bytes are compressed off the broker's thread.
const INLINE_BYTES_MAX: usize = 16 * 1024;
/// zstd's own default: webhooks shrink to a tenth, at some hundred megabytes a second.
const LEVEL: i32 = 3;

/// The rows of a batch.
#[derive(Debug, Default)]
pub(super) struct Rows<'a> {
    pub builds: BTreeMap<BuildId, &'a Build>,
    pub notes: Vec<&'a Note>,
    pub deliveries: BTreeMap<DeliveryId, &'a Delivery>,
    /// Compressed.
    pub bodies: Vec<(DeliveryId, Vec<u8>)>,
    pub statuses: BTreeMap<&'a StatusKey, &'a Status>,
}

impl<'a> Rows<'a> {
    pub(super) async fn of(changes: &'a [Change]) -> Result<Self, StoreError> {
        let mut rows = Self::default();
        for change in changes {
            match change {
                Change::Accepted(delivery, body) => {
                    rows.deliveries.insert(delivery.id, delivery);
                    rows.bodies.push((delivery.id, compressed(body).await?));
                }
                Change::Delivery(delivery) => {
                    rows.deliveries.insert(delivery.id, delivery);
                }
                Change::Build(build) => {
                    rows.builds.insert(build.id, build);
                }
                Change::Note(note) => rows.notes.push(note),
                Change::Status(status) => {
                    let row: &mut &Status = rows.statuses.entry(&status.key).or_insert(status);
                    if status.version >= row.version {
                        *row = status;
                    }
                }
            }
        }
        Ok(rows)
    }

    /// The highest numbers among them; 0 where there is none.
    pub(super) fn last(&self) -> (BuildId, DeliveryId) {
        let build = self.builds.last_key_value().map_or_else(BuildId::default, |(id, _)| *id);
        let delivery = self.deliveries.last_key_value().map_or_else(DeliveryId::default, |(id, _)| *id);
        (build, delivery)
    }
}

/// Whether a delivery is still to be worked on.
pub(super) const fn waits(delivery: &Delivery) -> bool {
    matches!(delivery.outcome, Outcome::Accepted)
}

/// When a build was over; `None` while it is not.
pub(super) fn ended_ms(build: &Build) -> Option<i64> {
    // A phase is final with its moment; where that is missing, the newest that is known counts.
    let times = build.times;
    build.phase.is_final().then(|| times.ended_ms.unwrap_or(times.created_ms))
}

/// Whose a status is, as columns: a build's number, or a delivery's.
pub(super) const fn whose(status: &Status) -> (Option<u64>, Option<u64>) {
    match status.whose {
        Whose::Build(id) => (Some(id.0), None),
        Whose::Delivery(id) => (None, Some(id.0)),
    }
}

async fn compressed(body: &Arc<[u8]>) -> Result<Vec<u8>, StoreError> {
    let done = if body.len() <= INLINE_BYTES_MAX {
        zstd::bulk::compress(body, LEVEL)
    } else {
        let body = Arc::clone(body);
        let compressing = tokio::task::spawn_blocking(move || zstd::bulk::compress(&body, LEVEL));
        compressing.await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
    };
    done.map_err(|error| StoreError::Failed { doing: "compress a delivery", source: error.into() })
}

/// A body as it came.
pub(super) async fn decompressed(body: Vec<u8>) -> Result<Arc<[u8]>, StoreError> {
    let decompressing = tokio::task::spawn_blocking(move || zstd::decode_all(body.as_slice()));
    let done = decompressing.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    done.map(Arc::from)
        .map_err(|error| StoreError::Inconsistent { what: format!("a delivery's body cannot be read: {error}") })
}
