//! Checking a commit out: a process of its own under the build's guard, which ends it with the build.
//!
//! How is git's business ([`pipeline::git`](crate::pipeline::git)): a repository is mirrored once per agent,
//! under a lock, and from there a build's folder is filled by links, so that a second build of it costs what
//! changed. What is said here goes to the log.
//!
//! It exits with 0 when the commit is there, with 1 where the repository has no such commit, and with
//! anything else where that could not be found out.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::builds::happening::Sha;
use crate::cli::{Failure, exit_code};
use crate::pipeline::git::{Git, GitError, Remote};
use crate::protocol::builds::Checkout;

/// The build's own time is over sooner.
const TIME_MAX: Duration = Duration::from_secs(7 * 86_400);

/// What to check out, and where to.
#[derive(Clone, Serialize, Deserialize)]
pub struct Task {
    /// The commit.
    pub checkout: Checkout,
    /// Where mirrors are.
    pub mirrors: PathBuf,
    /// An empty folder.
    pub workspace: PathBuf,
}

/// Checks a commit out; started by a build only.
#[derive(Debug, Args)]
pub struct CheckoutCommand {
    /// The file with what to do; it is removed
    task: PathBuf,
}

impl CheckoutCommand {
    /// Does it; what is to be said is on stdout.
    pub fn execute(self) -> Result<u8, Failure> {
        let task: Task = super::read_once(&self.task).map_err(|error| {
            Failure::own(format!("{}: {error}. It is started by a build only", self.task.display()))
        })?;
        let runtime = crate::cli::runtime()?;
        match runtime.block_on(task.carry_out()) {
            Ok(()) => Ok(exit_code::DONE),
            Err(error) => {
                println!("{error}");
                Ok(if error.absent { exit_code::REFUSED } else { exit_code::OWN })
            }
        }
    }
}

impl Task {
    async fn carry_out(&self) -> Result<(), GitError> {
        let Checkout { git_ref, sha, .. } = &self.checkout;
        let remote = Remote::of_checkout(&self.checkout)?;
        let git = Git::new(self.mirrors.clone()).patient(TIME_MAX);
        println!("fetching {git_ref} from {}", remote.url());
        let no_commit = || GitError { message: format!("{sha:?} is no commit's name").into(), absent: true };
        let commit = Sha::parse(sha).ok_or_else(no_commit)?;
        git.fetch(&remote, git_ref, Some(&commit)).await?;
        git.checkout(&remote, &commit, &self.workspace).await?;
        let title = git.title(&remote, &commit).await.unwrap_or_default();
        println!("{commit} {title}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::{GitError, Task};
    use crate::protocol::builds::Checkout;

    fn git(folder: &Path, words: &[&str]) -> String {
        let done = Command::new("git")
            .arg("-C")
            .arg(folder)
            .args(["-c", "user.name=Ann", "-c", "user.email=ann@desk", "-c", "init.defaultBranch=main"])
            .args(words)
            .output()
            .unwrap();
        assert!(done.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    struct Lab {
        folder: tempfile::TempDir,
    }

    impl Lab {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir(folder.path().join("origin")).unwrap();
            std::fs::create_dir(folder.path().join("mirrors")).unwrap();
            let lab = Self { folder };
            git(&lab.origin(), &["init", "--quiet"]);
            lab
        }

        fn origin(&self) -> std::path::PathBuf {
            self.folder.path().join("origin")
        }

        fn commit(&self, text: &str) -> String {
            std::fs::write(self.origin().join("file"), text).unwrap();
            git(&self.origin(), &["add", "file"]);
            git(&self.origin(), &["commit", "--quiet", "-m", text]);
            git(&self.origin(), &["rev-parse", "HEAD"])
        }

        async fn check_out(&self, name: &str, git_ref: &str, sha: &str) -> Result<String, GitError> {
            let workspace = self.folder.path().join(name);
            let url = self.origin().to_string_lossy().into_owned();
            let checkout = Checkout { url, git_ref: git_ref.into(), sha: sha.into(), user: None, token: None };
            let task = Task { checkout, mirrors: self.folder.path().join("mirrors"), workspace: workspace.clone() };
            task.carry_out().await?;
            assert_eq!(git(&workspace, &["rev-parse", "HEAD"]), sha);
            Ok(std::fs::read_to_string(workspace.join("file")).unwrap())
        }
    }

    #[tokio::test]
    async fn each_commit_is_checked_out_whatever_its_branch_does_since() {
        let lab = Lab::new();
        let first = lab.commit("one");
        let second = lab.commit("two");
        assert_eq!(lab.check_out("a", "refs/heads/main", &second).await.unwrap(), "two");
        assert_eq!(lab.check_out("b", "refs/heads/main", &first).await.unwrap(), "one");
        // The branch is pushed over: the commit is nobody's, and still the build's.
        git(&lab.origin(), &["update-ref", "refs/pull/7/head", &second]);
        git(&lab.origin(), &["reset", "--quiet", "--hard", &first]);
        let third = lab.commit("three");
        assert_eq!(lab.check_out("c", "refs/pull/7/head", &second).await.unwrap(), "two");
        assert_eq!(lab.check_out("d", "refs/heads/main", &third).await.unwrap(), "three");
        git(&lab.origin(), &["tag", "v1", &third]);
        assert_eq!(lab.check_out("e", "refs/tags/v1", &third).await.unwrap(), "three");
        // The mirror is not needed any more once the workspace is there.
        std::fs::remove_dir_all(lab.folder.path().join("mirrors")).unwrap();
        git(&lab.folder.path().join("e"), &["fsck"]);
    }

    #[tokio::test]
    async fn a_commit_that_is_not_there_is_told_from_a_repository_that_is_not() {
        let lab = Lab::new();
        lab.commit("one");
        for git_ref in ["refs/heads/main", "refs/heads/gone"] {
            let not = lab.check_out("a", git_ref, &"1a".repeat(20)).await;
            assert!(not.as_ref().is_err_and(|not| not.absent), "{git_ref}: {not:?}");
        }
        std::fs::rename(lab.origin(), lab.folder.path().join("moved")).unwrap();
        let not = lab.check_out("b", "refs/heads/main", &"1b".repeat(20)).await;
        assert!(not.as_ref().is_err_and(|not| !not.absent), "{not:?}");
    }
}
