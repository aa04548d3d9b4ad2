//! Git as it is installed, over repositories made here.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Changed, Git, Kept, Remote};
use crate::builds::happening::Sha;

struct World {
    folder: tempfile::TempDir,
    git: Git,
    remote: Remote,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let origin = folder.path().join("origin");
        std::fs::create_dir(&origin).expect("made");
        let git = Git::new(folder.path().join("mirrors"));
        let remote = Remote::new(origin.to_str().expect("UTF-8"), None).expect("a path");
        let world = Self { folder, git, remote };
        world.run(&["init", "--quiet", "-b", "main"]);
        world
    }

    fn origin(&self) -> PathBuf {
        self.folder.path().join("origin")
    }

    /// Runs git as somebody who works there would.
    fn run(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .arg("-C")
            .arg(self.origin())
            .args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"])
            .args(arguments)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("HOME", self.folder.path())
            .output()
            .expect("git is there");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
    }

    fn commit(&self, path: &str, text: &str) -> Sha {
        let file = self.origin().join(path);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        std::fs::write(file, text).expect("written");
        self.run(&["add", "-A"]);
        self.run(&["commit", "--quiet", "-m", &format!("change {path}\n\nmore")]);
        self.head()
    }

    fn head(&self) -> Sha {
        Sha::parse(&self.run(&["rev-parse", "HEAD"])).expect("a commit")
    }
}

const MAIN: &str = "refs/heads/main";

#[tokio::test]
async fn a_commit_is_fetched_read_and_checked_out() {
    let world = World::new();
    let first = world.commit("a.txt", "one");
    let second = world.commit("sub/b.txt", "two");
    let (git, remote) = (&world.git, &world.remote);
    assert_eq!(git.fetch(remote, MAIN, Some(&second)).await.as_ref(), Ok(&second));
    assert_eq!(git.fetch(remote, MAIN, None).await.as_ref(), Ok(&second));
    assert_eq!(git.default_branch(remote).await.as_deref(), Ok(MAIN));
    assert_eq!(git.file(remote, &first, "a.txt", 3).await, Ok(Kept::File(b"one".to_vec())));
    assert_eq!(git.file(remote, &first, "sub/b.txt", 3).await, Ok(Kept::Nothing));
    let odd = async |sha, path, bytes_max| match git.file(remote, sha, path, bytes_max).await {
        Ok(Kept::Odd(why)) => why,
        other => panic!("it is to be odd: {other:?}"),
    };
    assert!(odd(&first, "a.txt", 2).await.contains("larger than 2"));
    assert!(odd(&second, "sub", 9).await.contains("no file"));
    assert_eq!(git.title(remote, &second).await.as_deref(), Ok("change sub/b.txt"));
    let paths = git.changed(remote, &first, &second, false).await;
    assert_eq!(paths, Ok(Changed::Paths(vec!["sub/b.txt".to_owned()])));

    let folder = world.folder.path().join("checkout");
    git.checkout(remote, &first, &folder).await.expect("checked out");
    assert_eq!(std::fs::read_to_string(folder.join("a.txt")).expect("there"), "one");
    assert!(!folder.join("sub").exists() && folder.join(".git").is_dir());
    // It is a repository of its own: the mirror may go.
    std::fs::remove_dir_all(world.folder.path().join("mirrors")).expect("removed");
    let config = std::fs::read_to_string(folder.join(".git/config")).expect("there");
    assert!(config.contains(remote.url()), "{config}");
    let log = Command::new("git").arg("-C").arg(&folder).args(["log", "--format=%H"]).output().expect("git");
    assert_eq!(String::from_utf8_lossy(&log.stdout).trim(), first.as_str());
}

#[tokio::test]
async fn a_commit_that_its_ref_left_behind_is_fetched_by_name() {
    let world = World::new();
    let first = world.commit("a.txt", "one");
    world.run(&["checkout", "--quiet", "-b", "topic"]);
    let gone = world.commit("b.txt", "two");
    world.run(&["reset", "--quiet", "--hard", first.as_str()]);
    world.run(&["config", "uploadpack.allowAnySHA1InWant", "true"]);
    let fetched = world.git.fetch(&world.remote, "refs/heads/topic", Some(&gone)).await;
    assert_eq!(fetched.as_ref(), Ok(&gone));
    let absent = Sha::parse(&"1".repeat(40)).expect("a name");
    let error = world.git.fetch(&world.remote, MAIN, Some(&absent)).await.expect_err("no such commit");
    assert!(error.message.contains(absent.as_str()), "{error}");
}

#[tokio::test]
async fn a_pull_request_is_compared_with_where_it_left_its_base() {
    let world = World::new();
    world.commit("a.txt", "one");
    world.run(&["checkout", "--quiet", "-b", "topic"]);
    let head = world.commit("topic.txt", "x");
    world.run(&["checkout", "--quiet", "main"]);
    let base = world.commit("elsewhere.txt", "y");
    let (git, remote) = (&world.git, &world.remote);
    git.fetch(remote, "refs/heads/topic", Some(&head)).await.expect("fetched");
    git.fetch(remote, MAIN, Some(&base)).await.expect("fetched");
    let paths = git.changed(remote, &base, &head, true).await;
    assert_eq!(paths, Ok(Changed::Paths(vec!["topic.txt".to_owned()])));
}

#[tokio::test]
async fn nothing_of_the_outside_becomes_an_option_or_a_command() {
    let world = World::new();
    let first = world.commit("a.txt", "one");
    for bad in ["--upload-pack=touch /tmp/x", "-u", "main", "refs/heads/x:refs/heads/y", "refs/heads/../x"] {
        assert!(world.git.fetch(&world.remote, bad, None).await.is_err_and(|error| error.message.contains("no ref")));
    }
    for bad in ["--upload-pack=x", "", "a\nb"] {
        assert!(Remote::new(bad, None).is_err(), "{bad}");
    }
    let helper = Remote::new("ext::sh -c touch% x", None).expect("read as a text");
    let error = world.git.fetch(&helper, MAIN, Some(&first)).await.expect_err("not allowed");
    assert!(error.message.contains("not allowed"), "{error}");
}

#[tokio::test]
async fn a_link_is_not_followed_out_of_the_repository() {
    let world = World::new();
    std::os::unix::fs::symlink("/etc/passwd", world.origin().join("link")).expect("made");
    let sha = world.commit("a.txt", "one");
    world.git.fetch(&world.remote, MAIN, Some(&sha)).await.expect("fetched");
    let kept = world.git.file(&world.remote, &sha, "link", 100_000).await.expect("git can look");
    assert!(matches!(&kept, Kept::Odd(why) if why.contains("is a link")), "{kept:?}");
}

#[tokio::test]
async fn hooks_and_settings_of_the_user_are_not_used() {
    let world = World::new();
    let sha = world.commit("a.txt", "one");
    world.git.fetch(&world.remote, MAIN, Some(&sha)).await.expect("fetched");
    let mirrors = world.folder.path().join("mirrors");
    let mirror = std::fs::read_dir(&mirrors).expect("there").map(|entry| entry.expect("an entry").path());
    let mirror = mirror.into_iter().find(|path| path.extension().is_some_and(|ext| ext == "git")).expect("a mirror");
    assert!(!mirror.join("hooks").exists());
    let folder = world.folder.path().join("checkout");
    world.git.checkout(&world.remote, &sha, &folder).await.expect("checked out");
    assert!(!folder.join(".git/hooks").exists());
}

#[tokio::test]
async fn no_secret_is_told() {
    let login = Some(("bot", "hunter2hunter2"));
    let remote = Remote::new("http://127.0.0.1:9/a/b.git", login).expect("a URL");
    assert!(!format!("{remote:?}").contains("hunter2"));
    let folder = tempfile::tempdir().expect("a folder");
    let git = Git::new(folder.path().join("mirrors"));
    let error = git.fetch(&remote, MAIN, None).await.expect_err("nobody listens there");
    assert!(error.message.contains("127.0.0.1:9") && !error.message.contains("hunter2"), "{error}");
    assert_eq!(all_files_with(folder.path(), b"hunter2"), Vec::<PathBuf>::new());
}

fn all_files_with(folder: &Path, needle: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("there").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            found.extend(all_files_with(&entry, needle));
        } else if std::fs::read(&entry).expect("readable").windows(needle.len()).any(|window| window == needle) {
            found.push(entry);
        }
    }
    found
}
