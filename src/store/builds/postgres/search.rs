//! The search's tables on PostgreSQL: the words of a piece are a `tsvector` made of them as they are.

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::PostgresBuilds;
use crate::builds::build::BuildId;
use crate::builds::log::LogId;
use crate::store::builds::Answer;
use crate::store::builds::alike::search_queue;
use crate::store::builds::search::{Candidate, IndexPiece, Narrowing, PieceId, SearchTables, ToIndex, Word};
use crate::store::builds::tables::{conditions, signed};
use crate::store::postgres::failed;

const INDEXING: &str = "write the search index";
const SEARCHING: &str = "read the search index";

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, PgArguments>;

fn number(id: PieceId) -> i64 {
    signed(id.0)
}

impl SearchTables for PostgresBuilds {
    fn aim<'a>(&'a self, target: &'a str, embedded: bool) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut writing = self.begin(INDEXING).await?;
            let changed = "UPDATE search_aim SET target = $1 WHERE target <> $1";
            if writing.execute(sqlx::query(changed).bind(target)).await? == 0 {
                return writing.undo().await;
            }
            let queue = "INSERT INTO search_queue SELECT build, attempt, 0 FROM log WHERE settled = 1
                ON CONFLICT (build, attempt) DO NOTHING";
            writing.execute(sqlx::query(queue)).await?;
            if !embedded {
                // As fast however much there is. It waits for searches under way, and is as whole as the rest.
                writing.execute(sqlx::query("TRUNCATE search_piece")).await?;
            }
            writing.commit().await
        })
    }

    search_queue! { PgRow, failed }

    fn index<'a>(&'a self, piece: &'a IndexPiece) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut writing = self.begin(INDEXING).await?;
            let put = "INSERT INTO search_piece (piece, first_line, last_line, words)
                VALUES ($1, $2, $3, array_to_tsvector($4::text[]))
                ON CONFLICT (piece) DO UPDATE SET first_line = excluded.first_line, last_line = excluded.last_line,
                    words = excluded.words";
            let put = sqlx::query(put).bind(number(piece.id)).bind(signed(piece.first_line));
            writing.execute(put.bind(signed(piece.last_line)).bind(&piece.words)).await?;
            writing.commit().await
        })
    }

    fn unindex(&self, log: LogId) -> Answer<'_, ()> {
        Box::pin(async move {
            let Some((lowest, highest)) = PieceId::range(log) else { return Ok(()) };
            let mut writing = self.begin(INDEXING).await?;
            let delete = "DELETE FROM search_piece WHERE piece BETWEEN $1 AND $2";
            writing.execute(sqlx::query(delete).bind(number(lowest)).bind(number(highest))).await?;
            writing.commit().await
        })
    }

    fn candidates<'a>(&'a self, narrowing: &'a Narrowing) -> Answer<'a, Vec<Candidate>> {
        Box::pin(async move {
            // Words are letters and digits only, so nothing in them means anything to the index.
            let word = |word: &Word| format!("'{}'{}", word.text, if word.begins { ":*" } else { "" });
            let words: Vec<String> = narrowing.words.iter().map(word).collect();
            let (conditions, values) = conditions(narrowing, 4);
            let text = format!(
                "SELECT piece, first_line, last_line FROM search_piece
                WHERE words @@ $1::tsquery AND piece BETWEEN $2 AND $3{conditions} ORDER BY piece DESC LIMIT $4"
            );
            let mut query: Query<'_> = sqlx::query(AssertSqlSafe(text)).bind(words.join(" & "));
            query = query.bind(number(narrowing.from)).bind(number(narrowing.to));
            query = query.bind(i64::try_from(narrowing.limit).unwrap_or(i64::MAX));
            for value in values {
                query = query.bind(value.to_string());
            }
            let found = self.rows(SEARCHING, query).await?;
            let candidate = |row: &PgRow| {
                let (piece, first, last): (i64, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
                let [piece, first_line, last_line] = [piece, first, last].map(i64::cast_unsigned);
                Ok(Candidate { id: PieceId(piece), first_line, last_line })
            };
            found.iter().map(candidate).collect::<sqlx::Result<_>>().map_err(failed(SEARCHING))
        })
    }
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests {
    use super::super::tests::Database;
    use crate::store::builds::search::contract::contract;

    contract! { Database::new() }
}
