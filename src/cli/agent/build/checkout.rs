//! Checking a commit out, with the real git: a process of its own under the build's guard.
//!
//! A repository is mirrored once per agent, under a lock; from there a build's folder is filled by links, so
//! that a second build of it costs what changed. What git prints goes to the log. Its credentials come by
//! the environment of the git process, through a helper that answers for that one host: they are in no
//! argument, no configuration and no URL that git could print.
//!
//! It exits with 0 when the commit is there, with 1 where the repository has no such commit, and with
//! anything else where that could not be found out.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::Args;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cli::{Failure, exit_code};
use crate::protocol::builds::Checkout;

/// Bytes of what git says that are looked at for why it failed.
const SAID_BYTES_MAX: usize = 64 * 1024;
/// What git says where a repository does not have what it is asked for.
const NOT_THERE: &[&str] = &["couldn't find remote ref", "not our ref", "no such remote ref", "unadvertised object"];
/// Answers git with what stands in the environment, and only when it asks for it.
const HELPER: &str = concat!(
    r#"!f() { test "$1" = get && "#,
    r#"printf 'username=%s\npassword=%s\n' "$LEASEHOLD_GIT_USER" "$LEASEHOLD_GIT_TOKEN"; }; f"#,
);
/// Variables of this process that git must not see: they would lead it to another repository, or are ours.
const HIDDEN: &[&str] = &[
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_DIR",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_TEMPLATE_DIR",
    "GIT_WORK_TREE",
    "LEASEHOLD_ADMIN_TOKEN",
    "LEASEHOLD_TOKEN",
];

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

/// Why there is no checkout.
#[derive(Debug)]
enum Not {
    /// The repository does not have it.
    There(String),
    /// It could not be found out.
    Known(String),
}

impl From<io::Error> for Not {
    fn from(error: io::Error) -> Self {
        Self::Known(error.to_string())
    }
}

impl CheckoutCommand {
    /// Does it; what git prints is on stdout and stderr.
    pub fn execute(self) -> Result<u8, Failure> {
        let task: Task = super::read_once(&self.task).map_err(|error| {
            Failure::own(format!("{}: {error}. It is started by a build only", self.task.display()))
        })?;
        match task.carry_out() {
            Ok(()) => Ok(exit_code::DONE),
            Err(Not::There(why)) => {
                println!("{why}");
                Ok(exit_code::REFUSED)
            }
            Err(Not::Known(why)) => {
                println!("{why}");
                Ok(exit_code::OWN)
            }
        }
    }
}

impl Task {
    fn carry_out(&self) -> Result<(), Not> {
        let mirror = Mirror { at: self.mirrors.join(mirror_name(&self.checkout.url)), checkout: &self.checkout };
        // Until the workspace is filled: what it is filled from must not be tidied up meanwhile.
        let _locked = mirror.lock()?;
        let branch = mirror.bring()?;
        self.fill(&mirror, &branch)
    }

    /// Makes a repository of its own in the workspace, of which the files are links to the mirror's.
    fn fill(&self, mirror: &Mirror<'_>, branch: &str) -> Result<(), Not> {
        let Checkout { url, sha, .. } = &self.checkout;
        let workspace = self.workspace.as_os_str();
        let mut clone = mirror.git();
        clone.args([
            "clone",
            "--quiet",
            "--local",
            "--no-checkout",
            "--no-tags",
            "--single-branch",
            "--branch",
            branch,
        ]);
        clone.arg(&mirror.at).arg(workspace);
        quietly(&mut clone)?;
        let here = || {
            let mut git = mirror.git();
            git.arg("-C").arg(workspace);
            git
        };
        quietly(here().args(["remote", "set-url", "origin", &without_credentials(url)]))?;
        quietly(here().args(["checkout", "--quiet", "--force", "--detach", sha]))?;
        println!("{} at {sha}", self.checkout.git_ref);
        // For people, and of no consequence: a title may hold anything, which the page escapes.
        drop(run(here().args(["--no-pager", "log", "-1", "--format=%an: %s"])));
        Ok(())
    }
}

/// A repository's mirror.
struct Mirror<'a> {
    at: PathBuf,
    checkout: &'a Checkout,
}

impl Mirror<'_> {
    fn lock(&self) -> io::Result<File> {
        let path = self.at.with_extension("lock");
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        if file.try_lock().is_err() {
            println!("waiting for another build that fetches from this repository");
            file.lock()?;
        }
        Ok(file)
    }

    /// Sees to it that the commit is in the mirror; answers the branch or tag that leads to it there.
    fn bring(&self) -> Result<String, Not> {
        let Checkout { url, git_ref, sha, .. } = self.checkout;
        if !self.at.join("HEAD").is_file() {
            let format = if sha.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" };
            let mut init = self.git();
            init.args(["init", "--quiet", "--bare", format]).arg(&self.at);
            quietly(&mut init)?;
        }
        if !self.has()? {
            println!("fetching {git_ref} from {}", without_credentials(url));
            let fetched = self.fetch(git_ref)?;
            // The ref went on since, or is gone: most forges give a commit by its name too.
            if !self.has()? {
                let by_name = self.fetch(sha)?;
                if !self.has()? {
                    let why = by_name.or(fetched).unwrap_or_default();
                    return Err(Not::There(format!("the repository has no commit {sha} (looked in {git_ref}). {why}")));
                }
            }
            // What was fetched stays in many files otherwise.
            drop(run(self.inside().args(["gc", "--auto", "--quiet"])));
        }
        let branch = ["refs/heads/", "refs/"].iter().find_map(|prefix| git_ref.strip_prefix(prefix)).unwrap_or(git_ref);
        quietly(self.inside().args(["update-ref", &format!("refs/heads/{branch}"), sha]))?;
        Ok(branch.to_owned())
    }

    fn has(&self) -> io::Result<bool> {
        let commit = format!("{}^{{commit}}", self.checkout.sha);
        let mut look = self.inside();
        look.args(["cat-file", "-e", &commit]).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(look.status()?.success())
    }

    /// Fetches; answers why not, where the repository does not have it.
    fn fetch(&self, what: &str) -> Result<Option<String>, Not> {
        let mut fetch = self.inside();
        fetch.args(["fetch", "--no-tags", "--force", "--no-write-fetch-head", "--no-auto-maintenance", "--"]);
        fetch.args([&self.checkout.url, what]);
        match run(&mut fetch)? {
            Ok(()) => Ok(None),
            Err(said) if NOT_THERE.iter().any(|words| said.contains(words)) => Ok(Some(last_line(&said))),
            Err(said) => Err(Not::Known(format!("git could not fetch: {}", last_line(&said)))),
        }
    }

    fn inside(&self) -> Command {
        let mut git = self.git();
        git.arg("-C").arg(&self.at);
        git
    }

    /// Git, as it is always called: it asks nobody, runs no hooks, and has the credentials of this checkout.
    fn git(&self) -> Command {
        let mut git = Command::new("git");
        git.stdin(Stdio::null());
        for name in HIDDEN {
            git.env_remove(name);
        }
        let mut settings = vec![
            ("core.hooksPath".to_owned(), "/dev/null"),
            ("init.templateDir".to_owned(), ""),
            ("advice.detachedHead".to_owned(), "false"),
            ("gc.autoDetach".to_owned(), "false"),
        ];
        if let (Some(token), Some(place)) = (&self.checkout.token, place_of(&self.checkout.url)) {
            git.env("LEASEHOLD_GIT_USER", self.checkout.user.as_deref().unwrap_or("x-access-token"));
            git.env("LEASEHOLD_GIT_TOKEN", token);
            // The empty one takes away those that the machine has.
            settings.push((format!("credential.{place}.helper"), ""));
            settings.push((format!("credential.{place}.helper"), HELPER));
        }
        git.env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C").env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (index, (key, value)) in settings.iter().enumerate() {
            git.env(format!("GIT_CONFIG_KEY_{index}"), key).env(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
        git
    }
}

/// Runs a command, printing what it says; answers what it said on stderr where it failed.
fn run(command: &mut Command) -> io::Result<Result<(), String>> {
    let started = command.stderr(Stdio::piped()).spawn();
    let mut child = started.map_err(|error| io::Error::new(error.kind(), format!("git cannot be run: {error}")))?;
    let mut said = Vec::new();
    if let Some(mut stderr) = child.stderr.take() {
        let mut bytes = [0; 8 * 1024];
        while let Ok(count @ 1..) = stderr.read(&mut bytes) {
            io::stderr().write_all(&bytes[..count])?;
            said.extend_from_slice(&bytes[..count]);
            let surplus = said.len().saturating_sub(SAID_BYTES_MAX);
            said.drain(..surplus);
        }
    }
    let status = child.wait()?;
    Ok(if status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&said).into_owned()) })
}

/// The same for what works, or the agent is at fault.
fn quietly(command: &mut Command) -> Result<(), Not> {
    run(command)?.map_err(|said| Not::Known(format!("git failed: {}", last_line(&said))))
}

fn last_line(said: &str) -> String {
    said.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it does not say why").to_owned()
}

/// A folder's name for a repository: what people recognize, and what tells it from all others.
fn mirror_name(url: &str) -> String {
    let readable: String = without_credentials(url)
        .chars()
        .rev()
        .take(40)
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
        .collect();
    let readable: String = readable.chars().rev().collect();
    let hash = Sha256::digest(url.as_bytes());
    let hash: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{hash}.git", readable.trim_matches(['-', '.']))
}

/// A URL's scheme and host, for which alone the credentials are; `None` where it has none.
fn place_of(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    (matches!(scheme, "http" | "https") && !host.is_empty()).then(|| format!("{scheme}://{host}"))
}

/// A URL as it may be shown: without the user and password in it.
fn without_credentials(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let host = rest[..end].rsplit_once('@').map_or(&rest[..end], |(_, host)| host);
            format!("{scheme}://{host}{}", &rest[end..])
        }
        None => url.to_owned(),
    }
}

/// The password in a URL, which must not be seen either.
pub(super) fn password_in(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let (credentials, _) = rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())].rsplit_once('@')?;
    credentials.split_once(':').map(|(_, password)| password)
}

#[cfg(test)]
mod tests {
    use super::{Not, Task, mirror_name, password_in, place_of, run, without_credentials};
    use crate::protocol::builds::Checkout;
    use std::path::Path;
    use std::process::Command;

    #[test]
    fn urls_are_shown_and_matched_without_their_credentials() {
        let url = "https://me:hush@forge.example:8443/acme/app.git";
        assert_eq!(without_credentials(url), "https://forge.example:8443/acme/app.git");
        assert_eq!(place_of(url).as_deref(), Some("https://forge.example:8443"));
        assert_eq!((password_in(url), password_in("https://me@forge.example/x:y")), (Some("hush"), None));
        for path in ["/srv/app.git", "git@forge.example:acme/app.git"] {
            assert_eq!((without_credentials(path).as_str(), place_of(path)), (path, None));
        }
        assert_ne!(mirror_name("https://a/x.git"), mirror_name("https://b/x.git"));
        assert!(mirror_name("https://forge.example/acme/app.git").contains("forge.example-acme-app.git-"));
    }

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

        fn check_out(&self, name: &str, git_ref: &str, sha: &str) -> Result<String, Not> {
            let workspace = self.folder.path().join(name);
            let url = self.origin().to_string_lossy().into_owned();
            let checkout = Checkout { url, git_ref: git_ref.into(), sha: sha.into(), user: None, token: None };
            let task = Task { checkout, mirrors: self.folder.path().join("mirrors"), workspace: workspace.clone() };
            task.carry_out()?;
            assert_eq!(git(&workspace, &["rev-parse", "HEAD"]), sha);
            Ok(std::fs::read_to_string(workspace.join("file")).unwrap())
        }
    }

    #[test]
    fn each_commit_is_checked_out_whatever_its_branch_does_since() {
        let lab = Lab::new();
        let first = lab.commit("one");
        let second = lab.commit("two");
        assert_eq!(lab.check_out("a", "refs/heads/main", &second).unwrap(), "two");
        assert_eq!(lab.check_out("b", "refs/heads/main", &first).unwrap(), "one");
        // The branch is pushed over: the commit is nobody's, and still the build's.
        git(&lab.origin(), &["update-ref", "refs/pull/7/head", &second]);
        git(&lab.origin(), &["reset", "--quiet", "--hard", &first]);
        let third = lab.commit("three");
        assert_eq!(lab.check_out("c", "refs/pull/7/head", &second).unwrap(), "two");
        assert_eq!(lab.check_out("d", "refs/heads/main", &third).unwrap(), "three");
        git(&lab.origin(), &["tag", "v1", &third]);
        assert_eq!(lab.check_out("e", "refs/tags/v1", &third).unwrap(), "three");
        // The mirror is not needed any more once the workspace is there.
        std::fs::remove_dir_all(lab.folder.path().join("mirrors")).unwrap();
        git(&lab.folder.path().join("e"), &["fsck"]);
    }

    #[test]
    fn a_commit_that_is_not_there_is_told_from_a_repository_that_is_not() {
        let lab = Lab::new();
        lab.commit("one");
        for git_ref in ["refs/heads/main", "refs/heads/gone"] {
            let not = lab.check_out("a", git_ref, &"1a".repeat(20));
            assert!(matches!(not, Err(Not::There(_))), "{git_ref}: {not:?}");
        }
        std::fs::rename(lab.origin(), lab.folder.path().join("moved")).unwrap();
        let not = lab.check_out("b", "refs/heads/main", &"1b".repeat(20));
        assert!(matches!(not, Err(Not::Known(_))), "{not:?}");
    }

    #[test]
    fn what_failed_says_why() {
        assert!(run(Command::new("sh").args(["-c", "exit 0"])).unwrap().is_ok());
        let said = run(Command::new("sh").args(["-c", "echo so >&2; exit 3"])).unwrap().unwrap_err();
        assert_eq!(said, "so\n");
    }
}
