//! The tables of logs in a database that brokers share.

use sqlx::{AssertSqlSafe, Row as _};

use super::PostgresBuilds;
use crate::builds::build::BuildId;
use crate::builds::log::LogId;
use crate::store::StoreError;
use crate::store::builds::alike::log_rows;
use crate::store::builds::logs::common::{From, LogRows, LogWriteRows};
use crate::store::builds::logs::{Piece, Segment};
use crate::store::builds::tables::signed;
use crate::store::postgres::failed;

type Result<T> = std::result::Result<T, StoreError>;

log_rows! { PostgresBuilds, failed }

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests {
    use super::super::tests::Database;
    use crate::store::builds::logs::contract::contract;

    contract! { Database::new() }
}
