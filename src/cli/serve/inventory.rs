//! The inventory file of a running broker: applied at the start, and again when it changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::cli::exit_code::Failure;
use crate::core::command::Command;
use crate::engine::handle::Handle;
use crate::engine::input::Told;
use crate::inventory::watch::{Seen, read_now};
use crate::inventory::{file, watch as watcher};
use crate::protocol::info::ApplyInfo;

/// Why the file is not applied, for `status` and the metric; `None` when it is.
pub(super) type TellError = watch::Sender<Option<Arc<str>>>;

/// Applies the file. A broker that has an inventory starts with that when the file is bad; one
/// that has none does not start. Answers the text that was applied.
pub(super) async fn apply_at_start(handle: &Handle, path: &Path, tell: &TellError) -> Result<Option<String>, Failure> {
    let outcome = match read_now(path) {
        Ok(text) => apply(handle, path, &text).await.map(|info| (text, info)),
        Err(message) => Err(message),
    };
    match outcome {
        Ok((text, _)) => Ok(Some(text)),
        Err(message) => {
            let known = handle.read(|view| view.state.resources.len()).await;
            let known = known.map_err(|error| Failure::refused(error.message))?;
            if known == 0 {
                return Err(Failure::refused(message));
            }
            eprintln!("leasehold: {message}");
            eprintln!("leasehold: the file is not applied: starting with the {known} resources on the books");
            tell.send_replace(Some(message.into()));
            Ok(None)
        }
    }
}

/// Applies the file whenever it has settled on something else.
pub(super) async fn follow(handle: Handle, path: PathBuf, known: Option<String>, tell: TellError) {
    let (told, mut seen) = mpsc::channel(1);
    tokio::spawn(watcher::watch(path.clone(), known, told));
    while let Some(seen) = seen.recv().await {
        let outcome = match seen {
            Seen::Text(text) => apply(&handle, &path, &text).await,
            Seen::Unreadable(message) => Err(message),
        };
        match outcome {
            Ok(info) => {
                let waiting = info.changes.iter().filter(|change| change.pending).count();
                let later = if waiting > 0 { format!(", {waiting} of them once they are free") } else { String::new() };
                eprintln!("leasehold: {} applied: {} changes{later}", path.display(), info.changes.len());
                tell.send_replace(None);
            }
            Err(message) => {
                eprintln!("leasehold: {message}");
                eprintln!("leasehold: the file is not applied: the inventory stays as it is");
                tell.send_replace(Some(message.into()));
            }
        }
    }
}

async fn apply(handle: &Handle, path: &Path, text: &str) -> Result<ApplyInfo, String> {
    let name = path.display().to_string();
    let declared = file::read(text, &name).map_err(|error| error.to_string())?;
    let command = Command::Apply { declared: Arc::new(declared), prune: true, confirmed: false, dry_run: false };
    match handle.command(command).await {
        Ok(Told::Applied(info)) => Ok(info),
        Ok(_) => Err(format!("{name}: the broker has no answer to this")),
        Err(error) => Err(format!("{name}: {}", error.message)),
    }
}
