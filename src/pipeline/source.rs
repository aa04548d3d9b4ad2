//! Where pipelines come from: the broker's own configuration, or `.leasehold.toml` at a commit.
//!
//! What comes from a fork is judged by the base's file, never by its own: whoever may open a pull request
//! does not decide what is run, or with which secrets.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::git::{Changed, Git, GitError, Kept, Remote, full_ref};
use crate::builds::build::{Line, Subject};
use crate::builds::happening::{Forge, Pull, Sha, What};
use crate::builds::matching::{self, Touched};
use crate::builds::plan::{On, Pipeline, Plan};
use crate::inventory::pipelines::Repository;
use crate::inventory::pipelines::pipeline_file::{self, FILE_BYTES_MAX, FILE_NAME};

/// How long packing a mirror may take.
const TIDY_MAX: Duration = Duration::from_secs(3_600);
/// Before what failed is tried again: a forge may tell of a commit before it hands it out.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// What something that happened comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sought {
    /// These plans are to run; of a pull request that became a draft: these may go on.
    Wanted(Vec<Arc<Plan>>),
    /// None, and why.
    Nothing(Arc<str>),
    /// The pipelines have a mistake: which, and where. Looked at again they have it still.
    Mistaken(Arc<str>),
    /// The pipelines cannot be read, and why.
    Failed(Arc<str>),
}

/// What somebody asked to be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What.
    pub subject: Subject,
    /// By which plans.
    pub plans: Vec<Arc<Plan>>,
}

/// Reads pipelines.
#[derive(Clone, Debug)]
pub struct PipelineSource {
    git: Git,
}

impl PipelineSource {
    /// Reads what is not in the configuration by these mirrors.
    #[must_use]
    pub const fn new(git: Git) -> Self {
        Self { git }
    }

    /// The plans for something that happened.
    pub async fn seek(&self, repository: &Arc<Repository>, what: &What) -> Sought {
        if matching::event(what).is_none() {
            // Whatever the pipelines say: nothing starts, and nothing of the line goes on.
            return Sought::Wanted(Vec::new());
        }
        let mut pauses = PAUSES.into_iter();
        loop {
            match (self.look(repository, what).await, pauses.next()) {
                (Ok(sought), _) => return sought,
                (Err(error), Some(pause)) => {
                    tracing::info!(%error, repository = %repository.name, "trying again");
                    sleep(pause).await;
                }
                (Err(error), None) => return Sought::Failed(error.message),
            }
        }
    }

    async fn look(&self, repository: &Arc<Repository>, what: &What) -> Result<Sought, GitError> {
        let pipelines = match &repository.pipelines {
            Some(pipelines) => pipelines.clone(),
            None => {
                let remote = remote(repository).await?;
                let sha = self.definition(&remote, repository.forge, what).await?;
                // Beside the delivery, whose time it must not take.
                let (git, mirrored) = (self.git.clone().patient(TIDY_MAX), remote.clone());
                tokio::spawn(async move { git.tidy(&mirrored).await });
                match self.read(&remote, repository, &sha).await? {
                    Ok(pipelines) => pipelines.into(),
                    Err(sought) => return Ok(sought),
                }
            }
        };
        let touched =
            if matching::needs_paths(&pipelines, what) { self.touched(repository, what).await? } else { Touched::Any };
        Ok(match matching::wanted(&pipelines, what, &touched) {
            Ok(plans) => Sought::Wanted(plans),
            Err(reason) => Sought::Nothing(reason),
        })
    }

    /// The commit whose `.leasehold.toml` counts.
    async fn definition(&self, remote: &Remote, forge: Forge, what: &What) -> Result<Sha, GitError> {
        match what {
            What::Push { branch, after, .. } => self.git.fetch(remote, &branch_ref(branch), after.as_ref()).await,
            What::Tag { tag, sha } => self.git.fetch(remote, &format!("refs/tags/{tag}"), sha.as_ref()).await,
            // As the base branch is now: an old base would bring back what was mended since.
            What::Pull { pull, .. } if pull.fork => self.git.fetch(remote, &branch_ref(&pull.base_branch), None).await,
            What::Pull { pull, .. } => self.git.fetch(remote, &forge.pull_ref(pull.number), Some(&pull.head)).await,
        }
    }

    /// The file at a commit; what comes of it where it is not there or is wrong.
    async fn read(
        &self,
        remote: &Remote,
        repository: &Repository,
        sha: &Sha,
    ) -> Result<Result<Vec<Pipeline>, Sought>, GitError> {
        let bytes = match self.git.file(remote, sha, FILE_NAME, FILE_BYTES_MAX).await? {
            Kept::File(bytes) => bytes,
            Kept::Nothing => {
                let reason = format!("there is no {FILE_NAME} at {}", sha.short());
                return Ok(Err(Sought::Nothing(reason.into())));
            }
            Kept::Odd(why) => return Ok(Err(Sought::Mistaken(why.into()))),
        };
        let Ok(text) = String::from_utf8(bytes) else {
            return Ok(Err(Sought::Mistaken(format!("{FILE_NAME} at {} is not UTF-8", sha.short()).into())));
        };
        let read = pipeline_file::read(&text, FILE_NAME, repository);
        Ok(read.map_err(|error| Sought::Mistaken(format!("{error} (at {})", sha.short()).into())))
    }

    /// The paths that a change touches. Where nobody can tell (a new branch, a commit that is gone) it may be any.
    async fn touched(&self, repository: &Arc<Repository>, what: &What) -> Result<Touched, GitError> {
        let remote = remote(repository).await?;
        let changed = match what {
            What::Push { branch, before: Some(before), after: Some(after), .. } => {
                let git_ref = branch_ref(branch);
                self.git.fetch(&remote, &git_ref, Some(after)).await?;
                if self.git.fetch(&remote, &git_ref, Some(before)).await.is_err() {
                    return Ok(Touched::Any);
                }
                self.git.changed(&remote, before, after, false).await?
            }
            What::Pull { pull, .. } => self.touched_by_pull(&remote, repository.forge, pull).await?,
            _ => return Ok(Touched::Any),
        };
        Ok(match changed {
            Changed::Paths(paths) => Touched::Paths(paths),
            Changed::TooMany => Touched::Any,
        })
    }

    async fn touched_by_pull(&self, remote: &Remote, forge: Forge, pull: &Pull) -> Result<Changed, GitError> {
        self.git.fetch(remote, &forge.pull_ref(pull.number), Some(&pull.head)).await?;
        let base = self.git.fetch(remote, &branch_ref(&pull.base_branch), None).await?;
        // Without a common ancestor everything has changed.
        Ok(self.git.changed(remote, &base, &pull.head, true).await.unwrap_or(Changed::TooMany))
    }

    /// What somebody asks for: what a ref has now, by one pipeline, or by all.
    ///
    /// # Errors
    /// In words.
    pub async fn ask(
        &self,
        repository: &Arc<Repository>,
        git_ref: Option<&str>,
        pipeline: Option<&str>,
    ) -> Result<Asked, Arc<str>> {
        let remote = remote(repository).await.map_err(|error| error.message)?;
        let git_ref = match git_ref {
            Some(name) => full_ref(name),
            None => self.git.default_branch(&remote).await.map_err(|error| error.message)?,
        };
        let subject = self.subject(&remote, &git_ref).await.map_err(|error| error.message)?;
        let pipelines = match &repository.pipelines {
            Some(pipelines) => pipelines.clone(),
            None => {
                let sha = self.definition_asked(&remote, &subject).await.map_err(|error| error.message)?;
                match self.read(&remote, repository, &sha).await.map_err(|error| error.message)? {
                    Ok(pipelines) => pipelines.into(),
                    Err(Sought::Nothing(reason) | Sought::Mistaken(reason) | Sought::Failed(reason)) => {
                        return Err(reason);
                    }
                    Err(Sought::Wanted(_)) => return Err("the pipelines were not read".into()),
                }
            }
        };
        let asked = |one: &&Pipeline| pipeline.is_none_or(|name| *one.plan.name == *name);
        let on = match &subject.line {
            Line::Pull(_) => On::PullRequest,
            Line::Branch(_) | Line::Tag(_) => On::Manual,
        };
        let plans: Vec<_> = pipelines.iter().filter(asked).map(|one| matching::plan(one, on)).collect();
        if plans.is_empty() {
            let names: Vec<&str> = pipelines.iter().map(|one| &*one.plan.name).collect();
            let wanted = pipeline.unwrap_or_default();
            return Err(format!("{} has no pipeline {wanted:?}; it has: {}", repository.name, names.join(", ")).into());
        }
        Ok(Asked { subject, plans })
    }

    async fn subject(&self, remote: &Remote, git_ref: &str) -> Result<Subject, GitError> {
        let sha = self.git.fetch(remote, git_ref, None).await?;
        let title = self.git.title(remote, &sha).await?;
        let line = line(git_ref);
        // A ref does not say whose a pull request is: it is treated as a stranger's.
        let fork = matches!(line, Line::Pull(_));
        Ok(Subject { line, sha, git_ref: git_ref.into(), base: None, title: Some(title.into()), fork })
    }

    async fn definition_asked(&self, remote: &Remote, subject: &Subject) -> Result<Sha, GitError> {
        if !subject.fork {
            return Ok(subject.sha.clone());
        }
        let branch = self.git.default_branch(remote).await?;
        self.git.fetch(remote, &branch, None).await
    }
}

/// The line that a ref is.
fn line(git_ref: &str) -> Line {
    let pull = git_ref.strip_prefix("refs/pull/").or_else(|| git_ref.strip_prefix("refs/merge-requests/"));
    let number = pull.and_then(|rest| rest.split('/').next()?.parse().ok());
    match (number, git_ref.strip_prefix("refs/tags/")) {
        (Some(number), _) => Line::Pull(number),
        (None, Some(tag)) => Line::Tag(tag.into()),
        (None, None) => Line::Branch(git_ref.strip_prefix("refs/heads/").unwrap_or(git_ref).into()),
    }
}

fn branch_ref(branch: &str) -> String {
    format!("refs/heads/{branch}")
}

/// The repository's remote. Its token is read where that may block.
async fn remote(repository: &Arc<Repository>) -> Result<Remote, GitError> {
    let repository = repository.clone();
    let read = tokio::task::spawn_blocking(move || Remote::of(&repository)).await;
    read.unwrap_or_else(|_| Err(GitError { message: "the broker stops".into(), absent: false }))
}

#[cfg(test)]
mod tests;
