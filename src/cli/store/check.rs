//! `store check`.

use serde::Serialize;

use super::place::{Place, at};
use crate::archive::check::{self, Checked};
use crate::cli::output::{self, Cell, Screen, Table};
use crate::cli::{Failure, exit_code, runtime};
use crate::store::StoreError;
use crate::store::archive::Snapshot;
use crate::store::postgres::PostgresSnapshot;
use crate::store::sqlite::SqliteSnapshot;

/// What is printed with `--json`.
#[derive(Serialize)]
struct Report<'a> {
    store: &'a str,
    ok: bool,
    #[serde(flatten)]
    checked: &'a Checked,
}

pub(super) fn check(place: &Place, json: bool) -> Result<u8, Failure> {
    let looked = runtime()?.block_on(async {
        match place {
            Place::File(path) => looked(SqliteSnapshot::open(path).await?).await,
            Place::Database { url, .. } => looked(PostgresSnapshot::open(url).await?).await,
        }
    });
    let (store, checked) = looked.map_err(|error| at(place, error))?;
    let ok = checked.found.is_empty();
    if json {
        output::print(&output::json(&Report { store: &store, ok, checked: &checked })?)?;
    } else {
        tell(&store, &checked)?;
    }
    Ok(if ok { exit_code::DONE } else { exit_code::REFUSED })
}

async fn looked<S: Snapshot>(mut from: S) -> Result<(String, Checked), StoreError> {
    let checked = check::check(&mut from).await;
    let name = from.name();
    from.close().await?;
    Ok((name, checked?))
}

fn tell(store: &str, checked: &Checked) -> Result<(), Failure> {
    let found = &checked.found;
    if !found.is_empty() {
        let mut table = Table::new(&["TABLE", "KEY", "WHAT IS WRONG"]);
        for finding in &found.findings {
            let key = if finding.key.is_empty() { output::NOTHING } else { &finding.key };
            table.row([Cell::from(finding.table), key.into(), finding.what.as_str().into()]);
        }
        output::print(&table.render(Screen::of_stdout()))?;
    }
    let Checked { batch, events, replayed_after, replayed, rows, leases, .. } = checked;
    let from = match replayed_after {
        0 => String::new(),
        after => format!(" (those after the checkpoint at event {after})"),
    };
    output::say(&format!(
        "{store} at batch {batch}: looked at {events} events, replayed {replayed}{from}, compared {rows} rows and \
         {leases} leases"
    ));
    match found.count() {
        0 => output::say("the tables are what the journal says"),
        1 => output::say("1 thing is wrong"),
        many => output::say(&format!("{many} things are wrong")),
    }
    Ok(())
}
