//! Gitea's and Forgejo's payloads: GitHub's, but for how a pull request is edited.

use super::body;
use super::github::{self, PullPayload, ignored_action, ignored_event};
use crate::builds::happening::{Happening, PullAction};

/// What a delivery of Gitea says. Tags come as `push` too, so `create` and `delete` say nothing new.
pub(super) fn said(event: &str, body: &[u8]) -> Result<Happening, String> {
    match event {
        "push" => github::push(body),
        "pull_request" | "pull_request_sync" => {
            let mut payload: PullPayload = body::read(body)?;
            let draft = payload.pull_request.draft.unwrap_or_else(|| is_draft(&payload.pull_request.title));
            payload.pull_request.draft = Some(draft);
            let action = action(&payload, draft)?;
            payload.happening(action)
        }
        other => Err(ignored_event(other)),
    }
}

fn action(payload: &PullPayload, draft: bool) -> Result<PullAction, String> {
    let changes = payload.changes.as_ref();
    match payload.action.as_str() {
        "closed" => Ok(PullAction::Closed),
        "opened" => Ok(PullAction::Opened),
        "synchronized" | "synchronize" => Ok(PullAction::Pushed),
        "reopened" => Ok(PullAction::Reopened),
        "edited" if changes.is_some_and(|changes| changes.git_ref.is_some() || changes.base.is_some()) => {
            Ok(PullAction::Retargeted)
        }
        "edited" => {
            // A draft is one by its title.
            let title = changes.and_then(|changes| changes.title.as_ref());
            match title.map(|title| is_draft(&title.from)) {
                Some(true) if !draft => Ok(PullAction::Ready),
                Some(false) if draft => Ok(PullAction::Drafted),
                _ => Err("only the words of the pull request were edited".to_owned()),
            }
        }
        other => Err(ignored_action(other)),
    }
}

/// Whether a title says that it is a draft, as Gitea has it unless it was set otherwise.
fn is_draft(title: &str) -> bool {
    let start = title.trim_start().get(..5).unwrap_or(title).to_ascii_lowercase();
    start.starts_with("wip:") || start.starts_with("[wip]")
}
