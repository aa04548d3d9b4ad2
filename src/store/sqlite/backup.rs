//! A backup of a file, while a broker writes to it.
//!
//! SQLite copies what is committed as of one moment; the copy is marked as a backup, made durable
//! and given its name in one step.

use std::path::Path;

use sqlx::{ConnectOptions, Connection};

use super::schema::{Kind, LEASES};
use super::target::{begin_part, give_name};
use super::{Result, failed, options, snapshot};

/// Backs the store at `path` up into `to`, in place of what has that name.
///
/// # Errors
/// As [`super::SqliteSnapshot::open`]; a store of an older version is backed up as it is.
pub async fn backup(path: &Path, to: &Path) -> Result<()> {
    let to = super::prepare_folder(to).map_err(failed("create the backup's folder"))?;
    let (mut connection, _) = snapshot::look(path).await?;
    let (part, _lock) = begin_part(&to)?;
    let copied = async {
        snapshot::vacuum_into(&mut connection, &part).await?;
        let mut copy = options(&part).connect().await.map_err(failed("mark the backup"))?;
        LEASES.mark(&mut copy, Kind::Backup).await?;
        copy.close().await.map_err(failed("mark the backup"))?;
        give_name(&part, &to, None).map_err(failed("put the backup in its place"))
    };
    let copied = copied.await;
    // Read from only.
    let _ = connection.close().await;
    if copied.is_err() {
        snapshot::remove(&part);
    }
    copied
}
