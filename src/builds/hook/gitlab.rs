//! GitLab's payloads. What they are is said by the payload itself; system hooks send the same.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::body::{self, Person};
use crate::builds::happening::{Happening, Pull, PullAction, What};

/// What a delivery of GitLab says.
pub(super) fn said(body: &[u8]) -> Result<Happening, String> {
    #[derive(Deserialize)]
    struct Kind {
        #[serde(default)]
        object_kind: Option<String>,
        #[serde(default)]
        event_name: Option<String>,
    }
    let kind: Kind = body::read(body)?;
    match kind.object_kind.or(kind.event_name).as_deref() {
        Some("push") => push(body),
        Some("tag_push") => tag(body),
        Some("merge_request") => merge_request(body),
        Some(other) => {
            let shown: String = other.chars().take(40).collect();
            Err(format!("nothing is built of the event {shown:?}: push, tag_push and merge_request are"))
        }
        None => Err("the payload does not say what it is: object_kind is missing".to_owned()),
    }
}

#[derive(Deserialize)]
struct PushPayload {
    #[serde(rename = "ref")]
    git_ref: String,
    before: String,
    after: String,
    /// The commit, also of a tag with a message.
    #[serde(default)]
    checkout_sha: Option<String>,
    #[serde(default)]
    user_username: Option<String>,
    #[serde(default)]
    user_name: Option<String>,
    project: Project,
    #[serde(default)]
    commits: Vec<Commit>,
}

#[derive(Deserialize)]
struct Project {
    path_with_namespace: String,
}

#[derive(Deserialize)]
struct Commit {
    id: String,
    #[serde(default)]
    message: String,
}

impl PushPayload {
    fn happening(self, what: What) -> Result<Happening, String> {
        let person = Person { login: self.user_username, username: None, name: self.user_name };
        Ok(Happening {
            repository: body::name(&self.project.path_with_namespace, "project")?,
            what,
            by: body::by(&[Some(&person)]),
        })
    }
}

fn push(body: &[u8]) -> Result<Happening, String> {
    let payload: PushPayload = body::read(body)?;
    let branch = payload.git_ref.strip_prefix("refs/heads/").ok_or("nothing is built of a ref that is no branch")?;
    let newest = payload.commits.iter().find(|commit| commit.id == payload.after);
    let what = What::Push {
        branch: body::name(branch, "branch")?,
        before: body::maybe_sha(&payload.before, "before")?,
        after: body::maybe_sha(&payload.after, "after")?,
        title: newest.map(|commit| body::title(&commit.message)),
    };
    payload.happening(what)
}

fn tag(body: &[u8]) -> Result<Happening, String> {
    let payload: PushPayload = body::read(body)?;
    let tag = payload.git_ref.strip_prefix("refs/tags/").ok_or("the payload's ref is no tag")?;
    let after = body::maybe_sha(&payload.after, "after")?;
    let commit = payload.checkout_sha.as_deref().map(|sha| body::sha(sha, "checkout_sha")).transpose()?;
    let what = What::Tag { tag: body::name(tag, "tag")?, sha: after.map(|after| commit.unwrap_or(after)) };
    payload.happening(what)
}

#[derive(Deserialize)]
struct MergePayload {
    project: Project,
    #[serde(default)]
    user: Option<Person>,
    object_attributes: Attributes,
    #[serde(default)]
    changes: Changes,
}

#[derive(Deserialize)]
struct Attributes {
    iid: u64,
    #[serde(default)]
    title: String,
    #[serde(default)]
    action: Option<String>,
    /// The head before, where it is another one now.
    #[serde(default)]
    oldrev: Option<String>,
    source_branch: String,
    target_branch: String,
    /// `None` when the project is gone.
    #[serde(default)]
    source_project_id: Option<u64>,
    #[serde(default)]
    target_project_id: Option<u64>,
    #[serde(default)]
    last_commit: Option<LastCommit>,
    #[serde(default)]
    draft: Option<bool>,
    /// What `draft` was called before.
    #[serde(default)]
    work_in_progress: Option<bool>,
}

#[derive(Deserialize)]
struct LastCommit {
    id: String,
}

#[derive(Default, Deserialize)]
struct Changes {
    #[serde(default)]
    draft: Option<Change>,
    #[serde(default)]
    work_in_progress: Option<Change>,
    #[serde(default)]
    target_branch: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Change {
    #[serde(default)]
    current: Option<bool>,
}

fn merge_request(body: &[u8]) -> Result<Happening, String> {
    let payload: MergePayload = body::read(body)?;
    let action = merge_action(&payload)?;
    let attributes = payload.object_attributes;
    let (source, target) = (attributes.source_project_id, attributes.target_project_id);
    let head = attributes.last_commit.ok_or("the payload's merge request has no commit")?;
    let pull = Pull {
        number: attributes.iid,
        title: body::title(&attributes.title),
        head: body::sha(&head.id, "last_commit")?,
        head_branch: body::name(&attributes.source_branch, "source branch")?,
        base_branch: body::name(&attributes.target_branch, "target branch")?,
        base: None,
        fork: source.is_none() || source != target,
        draft: attributes.draft.or(attributes.work_in_progress).unwrap_or(false),
    };
    Ok(Happening {
        repository: body::name(&payload.project.path_with_namespace, "project")?,
        what: What::Pull { action, pull },
        by: body::by(&[payload.user.as_ref()]),
    })
}

fn merge_action(payload: &MergePayload) -> Result<PullAction, String> {
    let (attributes, changes) = (&payload.object_attributes, &payload.changes);
    match attributes.action.as_deref() {
        Some("close" | "merge") => Ok(PullAction::Closed),
        Some("open") => Ok(PullAction::Opened),
        Some("reopen") => Ok(PullAction::Reopened),
        Some("update") if attributes.oldrev.as_ref().is_some_and(|oldrev| !oldrev.is_empty()) => Ok(PullAction::Pushed),
        Some("update") if changes.target_branch.is_some() => Ok(PullAction::Retargeted),
        Some("update") => {
            let drafted =
                changes.draft.as_ref().or(changes.work_in_progress.as_ref()).and_then(|change| change.current);
            match drafted {
                Some(true) => Ok(PullAction::Drafted),
                Some(false) => Ok(PullAction::Ready),
                None => Err("neither the commits, the target branch nor the draft mark changed".to_owned()),
            }
        }
        Some(other) => {
            let shown: String = other.chars().take(40).collect();
            Err(format!("nothing is built of a merge request's {shown:?}"))
        }
        None => Err("the payload does not say what happened to the merge request".to_owned()),
    }
}
