//! What happened at a forge, in one vocabulary for all of them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A kind of forge; Forgejo speaks as Gitea.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forge {
    /// Gitea and Forgejo.
    Gitea,
    /// GitHub, also on a company's own server.
    Github,
    /// GitLab.
    Gitlab,
}

impl Forge {
    /// As in routes, configuration and the books.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gitea => "gitea",
            Self::Github => "github",
            Self::Gitlab => "gitlab",
        }
    }

    /// Reads one, as people and routes name it: Forgejo is Gitea.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "gitea" | "forgejo" => Some(Self::Gitea),
            "github" => Some(Self::Github),
            "gitlab" => Some(Self::Gitlab),
            _ => None,
        }
    }

    /// Where it keeps the head of a pull request, also of one from a fork.
    #[must_use]
    pub fn pull_ref(self, number: u64) -> String {
        match self {
            Self::Gitlab => format!("refs/merge-requests/{number}/head"),
            Self::Gitea | Self::Github => format!("refs/pull/{number}/head"),
        }
    }
}

impl fmt::Display for Forge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A commit's full name: 40 or 64 lower-case hexadecimal digits. A name that exists is a valid one, so it
/// can stand in a git command's arguments.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha(Arc<str>);

impl Sha {
    /// Reads one; `None` where it is none, or the all-zero name by which forges say "no commit".
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let sound = matches!(text.len(), 40 | 64) && text.bytes().all(hexadecimal);
        (sound && text.bytes().any(|byte| byte != b'0')).then(|| Self(text.into()))
    }

    /// All of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first ten digits, for people.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..10]
    }
}

impl TryFrom<String> for Sha {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is no commit's name"))
    }
}

impl From<Sha> for String {
    fn from(sha: Sha) -> Self {
        sha.0.as_ref().to_owned()
    }
}

impl fmt::Display for Sha {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a delivery says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happening {
    /// The repository's full name at the forge, `owner/name` (in GitLab groups may nest).
    pub repository: Arc<str>,
    /// What happened.
    pub what: What,
    /// Who did it, the forge's name for them.
    pub by: Arc<str>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// A branch has another commit, or is gone.
    Push {
        /// Its name, without `refs/heads/`.
        branch: Arc<str>,
        /// What it had before; `None` for a new branch.
        before: Option<Sha>,
        /// What it has now; `None` when it was deleted.
        after: Option<Sha>,
        /// The newest commit's first line.
        title: Option<Arc<str>>,
    },
    /// A tag was set or deleted.
    Tag {
        /// Its name, without `refs/tags/`.
        tag: Arc<str>,
        /// The commit; `None` when it was deleted.
        sha: Option<Sha>,
    },
    /// Something of a pull request.
    Pull {
        /// What.
        action: PullAction,
        /// As it is now.
        pull: Pull,
    },
}

/// What happened to a pull request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullAction {
    /// It is closed, merged or not.
    Closed,
    /// It became a draft.
    Drafted,
    /// It is new.
    Opened,
    /// It has another head commit.
    Pushed,
    /// It is no draft any more.
    Ready,
    /// It is open again.
    Reopened,
    /// It goes to another base.
    Retargeted,
}

impl PullAction {
    /// Whether it asks for a build; the others end what runs.
    #[must_use]
    pub const fn starts(self) -> bool {
        matches!(self, Self::Opened | Self::Pushed | Self::Ready | Self::Reopened | Self::Retargeted)
    }
}

/// A pull request (at GitLab: merge request).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// Its number, which people see.
    pub number: u64,
    /// What it is called.
    pub title: Arc<str>,
    /// Its newest commit.
    pub head: Sha,
    /// The branch that it comes from, in its own repository.
    pub head_branch: Arc<str>,
    /// The branch that it goes to.
    pub base_branch: Arc<str>,
    /// That branch's commit; GitLab does not say.
    pub base: Option<Sha>,
    /// Whether it comes from another repository, or from one that is gone.
    pub fork: bool,
    /// Whether it is a draft.
    pub draft: bool,
}
