//! GitHub's payloads, which Gitea's resemble.

use serde::Deserialize;

use super::body::{self, Person};
use crate::builds::happening::{Happening, Pull, PullAction, What};

/// What a delivery of GitHub says.
pub(super) fn said(event: &str, body: &[u8]) -> Result<Happening, String> {
    match event {
        "ping" => Err("a ping: the hook is set up".to_owned()),
        "push" => push(body),
        "pull_request" => {
            let payload: PullPayload = body::read(body)?;
            let action = match payload.action.as_str() {
                "closed" => PullAction::Closed,
                "converted_to_draft" => PullAction::Drafted,
                "opened" => PullAction::Opened,
                "synchronize" => PullAction::Pushed,
                "ready_for_review" => PullAction::Ready,
                "reopened" => PullAction::Reopened,
                "edited" if payload.changes.as_ref().is_some_and(|changes| changes.base.is_some()) => {
                    PullAction::Retargeted
                }
                "edited" => return Err("only the words of the pull request were edited".to_owned()),
                other => return Err(ignored_action(other)),
            };
            payload.happening(action)
        }
        other => Err(ignored_event(other)),
    }
}

/// Why nothing comes of an event.
pub(super) fn ignored_event(event: &str) -> String {
    format!("nothing is built of the event {event:?}: push and pull_request are")
}

/// Why nothing comes of what was done to a pull request.
pub(super) fn ignored_action(action: &str) -> String {
    let shown: String = action.chars().take(40).collect();
    format!("nothing is built of a pull request that is {shown:?}")
}

#[derive(Deserialize)]
struct PushPayload {
    #[serde(rename = "ref")]
    git_ref: String,
    before: String,
    after: String,
    #[serde(default)]
    head_commit: Option<Commit>,
    repository: Repository,
    #[serde(default)]
    sender: Option<Person>,
    #[serde(default)]
    pusher: Option<Person>,
}

#[derive(Deserialize)]
struct Commit {
    id: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Repository {
    full_name: String,
}

/// A push of a branch or a tag; Gitea sends the same.
pub(super) fn push(body: &[u8]) -> Result<Happening, String> {
    let payload: PushPayload = body::read(body)?;
    let after = body::maybe_sha(&payload.after, "after")?;
    let commit = payload.head_commit.as_ref();
    let what = if let Some(branch) = payload.git_ref.strip_prefix("refs/heads/") {
        What::Push {
            branch: body::name(branch, "branch")?,
            before: body::maybe_sha(&payload.before, "before")?,
            after,
            title: commit.map(|commit| body::title(&commit.message)),
        }
    } else if let Some(tag) = payload.git_ref.strip_prefix("refs/tags/") {
        // Of a tag with a message `after` is the tag itself.
        let commit = commit.and_then(|commit| crate::builds::happening::Sha::parse(&commit.id));
        What::Tag { tag: body::name(tag, "tag")?, sha: after.map(|after| commit.unwrap_or(after)) }
    } else {
        return Err("nothing is built of a ref that is neither a branch nor a tag".to_owned());
    };
    Ok(Happening {
        repository: body::name(&payload.repository.full_name, "repository")?,
        what,
        by: body::by(&[payload.sender.as_ref(), payload.pusher.as_ref()]),
    })
}

/// What is told of a pull request.
#[derive(Deserialize)]
pub(super) struct PullPayload {
    pub action: String,
    pub pull_request: PullRequest,
    #[serde(default)]
    pub changes: Option<Changes>,
    repository: Repository,
    #[serde(default)]
    sender: Option<Person>,
}

/// A pull request.
#[derive(Deserialize)]
pub(super) struct PullRequest {
    number: u64,
    #[serde(default)]
    pub title: String,
    #[serde(default)]
    pub draft: Option<bool>,
    head: Side,
    base: Side,
}

/// One side of a pull request.
#[derive(Deserialize)]
struct Side {
    #[serde(rename = "ref")]
    branch: String,
    sha: String,
    /// `None` when the repository is gone.
    #[serde(default)]
    repo: Option<SideRepository>,
}

#[derive(Deserialize)]
struct SideRepository {
    id: u64,
}

/// What was changed by an edit.
#[derive(Default, Deserialize)]
pub(super) struct Changes {
    /// GitHub's word for another base.
    #[serde(default)]
    pub base: Option<serde::de::IgnoredAny>,
    /// Gitea's.
    #[serde(default, rename = "ref")]
    pub git_ref: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    pub title: Option<From>,
}

/// What something was before.
#[derive(Deserialize)]
pub(super) struct From {
    #[serde(default)]
    pub from: String,
}

impl PullPayload {
    /// What happened, given the action's meaning.
    pub(super) fn happening(self, action: PullAction) -> Result<Happening, String> {
        let PullRequest { number, title, draft, head, base } = self.pull_request;
        let id = |side: &Side| side.repo.as_ref().map(|repository| repository.id);
        // A head whose repository is gone was a stranger's, for all that anybody knows.
        let fork = id(&head).is_none() || id(&head) != id(&base);
        let pull = Pull {
            number,
            title: body::title(&title),
            head: body::sha(&head.sha, "head")?,
            head_branch: body::name(&head.branch, "head branch")?,
            base_branch: body::name(&base.branch, "base branch")?,
            base: body::maybe_sha(&base.sha, "base")?,
            fork,
            draft: draft.unwrap_or(false),
        };
        Ok(Happening {
            repository: body::name(&self.repository.full_name, "repository")?,
            what: What::Pull { action, pull },
            by: body::by(&[self.sender.as_ref()]),
        })
    }
}
