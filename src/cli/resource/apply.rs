//! `resource apply`: an inventory file sent to the broker, and what it changes.

use std::io::Read;

use clap::Args;

use crate::cli::broker::Broker;
use crate::cli::output::{self, Cell, Screen, Table};
use crate::cli::words::count;
use crate::cli::{Failure, exit_code};
use crate::protocol::INVENTORY_BYTES_MAX;
use crate::protocol::http::ApplyRequest;
use crate::protocol::info::ApplyInfo;

#[derive(Debug, Args)]
pub(super) struct Apply {
    /// The inventory file; - reads it from stdin
    file: String,
    /// Show what would change and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Remove what came from a file and is not in this one
    #[arg(long)]
    prune: bool,
    /// Even where it removes more than a fifth of what came from a file
    #[arg(long)]
    yes: bool,
}

/// What the message says after the changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It was done.
    Done,
    /// It would be done.
    DryRun,
}

impl Apply {
    pub(super) fn execute(self, broker: &Broker, json: bool) -> Result<u8, Failure> {
        let body = ApplyRequest {
            text: read(&self.file)?,
            file: Some(self.file),
            dry_run: self.dry_run,
            prune: self.prune,
            confirmed: self.yes,
        };
        let applied: ApplyInfo = broker.post("/v1/inventory/apply", &body)?;
        report(&applied, json, if self.dry_run { Said::DryRun } else { Said::Done })
    }
}

fn read(file: &str) -> Result<String, Failure> {
    let refuse = |error: std::io::Error| Failure::refused(format!("{file} cannot be read: {error}"));
    let mut text = String::new();
    // One byte more than may be sent tells a file that is too long from one that just fits.
    let limit = u64::try_from(INVENTORY_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    if file == "-" {
        std::io::stdin().take(limit).read_to_string(&mut text).map_err(refuse)?;
    } else {
        std::fs::File::open(file).map_err(refuse)?.take(limit).read_to_string(&mut text).map_err(refuse)?;
    }
    if text.len() > INVENTORY_BYTES_MAX {
        return Err(Failure::refused(format!(
            "{file} is longer than {INVENTORY_BYTES_MAX} bytes: write ranges (`port-{{20000..20999}}`), or split it"
        )));
    }
    Ok(text)
}

/// Prints the changes and says what they came to.
pub(super) fn report(applied: &ApplyInfo, json: bool, said: Said) -> Result<u8, Failure> {
    if json {
        output::print(&output::json(applied)?)?;
        return Ok(exit_code::DONE);
    }
    if !applied.changes.is_empty() {
        let mut table = Table::new(&["CHANGE", "WHAT", "NAME", "DETAIL"]);
        for change in &applied.changes {
            let pending = if change.pending { " (when its last lease ends)" } else { "" };
            table.row([
                Cell::from(change.action.as_str()),
                change.what.as_str().into(),
                change.name.as_str().into(),
                format!("{}{pending}", change.detail).trim().into(),
            ]);
        }
        output::print(&table.render(Screen::of_stdout()))?;
    }
    output::say(&message(applied, said));
    Ok(exit_code::DONE)
}

fn message(applied: &ApplyInfo, said: Said) -> String {
    let unchanged = usize::try_from(applied.unchanged).unwrap_or(usize::MAX);
    let stay = format!("{} as before", count(unchanged, "resource"));
    match (applied.changes.len(), said) {
        (0, _) => format!("nothing changes; {stay}"),
        (changes, Said::DryRun) => format!("a dry run: {} would be made, {stay}", count(changes, "change")),
        (changes, Said::Done) if applied.applied => format!("{} made, {stay}", count(changes, "change")),
        (changes, Said::Done) => format!("{} not made, {stay}", count(changes, "change")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Said, message};
    use crate::protocol::info::{ApplyInfo, ChangeInfo};

    #[test]
    fn the_message_says_what_was_done() {
        let change = ChangeInfo {
            action: "add".into(),
            what: "resource".into(),
            name: "a".into(),
            detail: String::new(),
            pending: false,
        };
        let mut applied = ApplyInfo {
            changes: vec![change.clone(), change],
            unchanged: 1,
            applied: true,
            now: 0,
            now_time: String::new(),
        };
        assert_eq!(message(&applied, Said::Done), "2 changes made, 1 resource as before");
        assert_eq!(message(&applied, Said::DryRun), "a dry run: 2 changes would be made, 1 resource as before");
        applied.changes.clear();
        assert_eq!(message(&applied, Said::Done), "nothing changes; 1 resource as before");
    }
}
