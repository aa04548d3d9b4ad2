//! What a forge sends: signed deliveries of pushes and pull requests, in its own headers and fields.
//!
//! Of each payload only the fields are there that a receiver may rely on.

use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::super::http::{self, Answer};
use super::Kind;

/// The secret of the hooks.
pub const SECRET: &str = "the secret of both sides";

/// A delivery that can be sent, and sent again as the same.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub kind: Kind,
    /// The forge's own name for it.
    pub id: String,
    /// The event's name in its header.
    pub event: String,
    /// The raw body.
    pub body: String,
    /// What it is signed with.
    pub secret: String,
}

/// A pull request as it is told.
#[derive(Clone, Debug)]
pub struct Pull<'a> {
    pub repository: &'a str,
    pub number: u64,
    pub title: &'a str,
    pub head: &'a str,
    pub head_branch: &'a str,
    pub base: &'a str,
    pub base_branch: &'a str,
    pub fork: bool,
    pub draft: bool,
    pub by: &'a str,
}

impl Default for Pull<'_> {
    fn default() -> Self {
        Self {
            repository: "acme/app",
            number: 7,
            title: "Make the icon blue",
            head: "",
            head_branch: "blue",
            base: "",
            base_branch: "main",
            fork: false,
            draft: false,
            by: "alice",
        }
    }
}

impl Delivery {
    fn new(kind: Kind, event: &str, body: &Value) -> Self {
        let id = leasehold::clock::random_secret();
        let id = format!("{}-{}-{}-{}-{}", &id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..32]);
        Self { kind, id, event: event.to_owned(), body: body.to_string(), secret: SECRET.to_owned() }
    }

    /// Something happened to a pull request. `action` is GitHub's word: `opened`, `synchronize`, `closed` ...
    pub fn pull(kind: Kind, action: &str, pull: &Pull<'_>) -> Self {
        match kind {
            Kind::Github => Self::new(kind, "pull_request", &like_github(action, pull)),
            // Gitea has its own word for a push, in an event of its own.
            Kind::Gitea if action == "synchronize" => {
                Self::new(kind, "pull_request_sync", &like_github("synchronized", pull))
            }
            Kind::Gitea => Self::new(kind, "pull_request", &like_github(action, pull)),
            Kind::Gitlab => Self::new(kind, "Merge Request Hook", &merge_request(action, pull)),
        }
    }

    /// A branch has another commit.
    pub fn push(kind: Kind, repository: &str, branch: &str, before: &str, after: &str) -> Self {
        let commit = json!({
            "id": after, "message": "Make it so\n\nWith reasons.", "added": [], "modified": ["a"], "removed": [],
        });
        let mut body = json!({
            "ref": format!("refs/heads/{branch}"), "before": before, "after": after,
            "commits": [commit.clone()],
        });
        match kind {
            Kind::Gitlab => {
                body["object_kind"] = "push".into();
                body["checkout_sha"] = after.into();
                body["user_username"] = "alice".into();
                body["project"] = json!({ "id": 15, "path_with_namespace": repository });
                Self::new(kind, "Push Hook", &body)
            }
            Kind::Gitea | Kind::Github => {
                body["head_commit"] = commit;
                body["repository"] = repository_of(repository);
                body["sender"] = json!({ "login": "alice" });
                body["pusher"] = json!({ "name": "alice", "login": "alice" });
                body["deleted"] = false.into();
                body["created"] = false.into();
                Self::new(kind, "push", &body)
            }
        }
    }

    /// Its headers, signature and all.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let signature = self.signature();
        match self.kind {
            Kind::Github => vec![
                ("User-Agent", "GitHub-Hookshot/044aadd".to_owned()),
                ("X-GitHub-Delivery", self.id.clone()),
                ("X-GitHub-Event", self.event.clone()),
                ("X-Hub-Signature-256", format!("sha256={signature}")),
            ],
            Kind::Gitea => vec![
                ("X-Gitea-Delivery", self.id.clone()),
                ("X-Gitea-Event", self.event.clone()),
                ("X-Gitea-Signature", signature),
            ],
            Kind::Gitlab => vec![
                ("User-Agent", "GitLab/17.5.0".to_owned()),
                ("X-Gitlab-Event", self.event.clone()),
                ("X-Gitlab-Event-UUID", self.id.clone()),
                ("X-Gitlab-Webhook-UUID", "0d7c4a3e-0000-4000-8000-000000000001".to_owned()),
                ("Idempotency-Key", self.id.clone()),
                ("X-Gitlab-Token", self.secret.clone()),
            ],
        }
    }

    /// HMAC-SHA-256 over the raw body, as hexadecimal digits.
    fn signature(&self) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()).expect("any length");
        mac.update(self.body.as_bytes());
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Sends it to a broker on loopback.
    #[track_caller]
    pub fn send(&self, port: u16) -> Answer {
        let mut text = format!(
            "POST /hooks/{} HTTP/1.1\r\nHost: lab.example\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n",
            self.kind.as_str(),
            self.body.len()
        );
        for (name, value) in self.headers() {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.push_str(&self.body);
        http::raw(port, text.as_bytes())
    }
}

fn repository_of(name: &str) -> Value {
    json!({ "id": 1_296_269, "full_name": name, "name": name.rsplit('/').next(), "default_branch": "main" })
}

fn like_github(action: &str, pull: &Pull<'_>) -> Value {
    let own = repository_of(pull.repository);
    let mut from = own.clone();
    if pull.fork {
        from["id"] = 42.into();
        from["full_name"] = format!("{}/app", pull.by).into();
    }
    json!({
        "action": action,
        "number": pull.number,
        "pull_request": {
            "number": pull.number,
            "title": pull.title,
            "state": if action == "closed" { "closed" } else { "open" },
            "draft": pull.draft,
            "head": { "sha": pull.head, "ref": pull.head_branch, "repo": from, "repo_id": from["id"] },
            "base": { "sha": pull.base, "ref": pull.base_branch, "repo": own, "repo_id": own["id"] },
        },
        "repository": own,
        "sender": { "login": pull.by },
    })
}

fn merge_request(action: &str, pull: &Pull<'_>) -> Value {
    let (action, oldrev) = match action {
        "opened" => ("open", None),
        "synchronize" => ("update", Some("1".repeat(40))),
        "reopened" => ("reopen", None),
        "closed" => ("close", None),
        other => (other, None),
    };
    let mut attributes = json!({
        "id": 99, "iid": pull.number, "title": pull.title, "action": action, "draft": pull.draft,
        "work_in_progress": pull.draft, "state": if action == "close" { "closed" } else { "opened" },
        "source_branch": pull.head_branch, "target_branch": pull.base_branch,
        "source_project_id": if pull.fork { 42 } else { 15 }, "target_project_id": 15,
        "last_commit": { "id": pull.head, "message": pull.title },
    });
    if let Some(oldrev) = oldrev {
        attributes["oldrev"] = oldrev.into();
    }
    json!({
        "object_kind": "merge_request",
        "event_type": "merge_request",
        "user": { "username": pull.by },
        "project": { "id": 15, "path_with_namespace": pull.repository },
        "object_attributes": attributes,
        "changes": {},
    })
}
