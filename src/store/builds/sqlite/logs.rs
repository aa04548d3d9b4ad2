//! The tables of logs in the builds' file.

use sqlx::{AssertSqlSafe, Row as _};

use super::SqliteBuilds;
use crate::builds::build::BuildId;
use crate::builds::log::LogId;
use crate::store::StoreError;
use crate::store::builds::alike::log_rows;
use crate::store::builds::logs::common::{From, LogRows, LogWriteRows};
use crate::store::builds::logs::{Piece, Segment};
use crate::store::builds::tables::signed;
use crate::store::sqlite::failed;

type Result<T> = std::result::Result<T, StoreError>;

log_rows! { SqliteBuilds, failed }

#[cfg(test)]
mod tests {
    use super::super::tests::Folder;
    use crate::store::builds::logs::contract::contract;

    contract! { Some(Folder::new()) }
}
