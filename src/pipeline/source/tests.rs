//! Pipelines of repositories made here, for what may happen to them.

use std::process::Command;
use std::sync::Arc;

use super::{PipelineSource, Sought};
use crate::builds::build::Line;
use crate::builds::happening::{Pull, PullAction, Sha, What};
use crate::inventory::config;
use crate::inventory::pipelines::Repository;
use crate::pipeline::git::Git;

const FILE: &str = "[[pipeline]]\nname = \"NAME\"\non = [\"push\", \"pull_request\"]\nrun = \"make\"\n";

struct World {
    folder: tempfile::TempDir,
    source: PipelineSource,
    repository: Arc<Repository>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let text = "[[repository]]\nname = \"a/b\"\nforge = \"gitea\"\nurl = \"origin\"";
        let file = folder.path().join("leasehold.toml");
        let config = config::read(text, file.to_str().expect("UTF-8")).expect("reads");
        let settings = config.pipelines.expect("a repository").resolve().expect("no secrets");
        std::fs::create_dir(folder.path().join("origin")).expect("made");
        let source = PipelineSource::new(Git::new(folder.path().join("mirrors")));
        let world = Self { folder, source, repository: settings.repositories["a/b"].clone() };
        world.run(&["init", "--quiet", "-b", "main"]);
        world
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .arg("-C")
            .arg(self.folder.path().join("origin"))
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
        std::fs::write(self.folder.path().join("origin").join(path), text).expect("written");
        self.run(&["add", "-A"]);
        self.run(&["commit", "--quiet", "-m", path]);
        Sha::parse(&self.run(&["rev-parse", "HEAD"])).expect("a commit")
    }

    /// The names of the plans, or why there are none.
    async fn seek(&self, what: &What) -> Result<Vec<String>, Arc<str>> {
        match self.source.seek(&self.repository, what).await {
            Sought::Wanted(plans) => Ok(plans.iter().map(|plan| plan.name.to_string()).collect()),
            Sought::Nothing(reason) | Sought::Mistaken(reason) | Sought::Failed(reason) => Err(reason),
        }
    }
}

fn push(before: Option<&Sha>, after: &Sha) -> What {
    What::Push { branch: "main".into(), before: before.cloned(), after: Some(after.clone()), title: None }
}

fn pull(head: &Sha, fork: bool) -> What {
    let pull = Pull {
        number: 7,
        title: "t".into(),
        head: head.clone(),
        head_branch: "topic".into(),
        base_branch: "main".into(),
        base: None,
        fork,
        draft: false,
    };
    What::Pull { action: PullAction::Opened, pull }
}

#[tokio::test]
async fn the_commit_decides_but_for_forks_where_the_base_does() {
    let world = World::new();
    let empty = world.commit("a.txt", "one");
    let reason = world.seek(&push(None, &empty)).await.expect_err("no file");
    assert!(reason.contains("there is no .leasehold.toml at"), "{reason}");
    let first = world.commit(".leasehold.toml", &FILE.replace("NAME", "base"));
    assert_eq!(world.seek(&push(None, &first)).await, Ok(vec!["base".to_owned()]));
    world.run(&["checkout", "--quiet", "-b", "topic"]);
    let head = world.commit(".leasehold.toml", &FILE.replace("NAME", "theirs"));
    world.run(&["update-ref", "refs/pull/7/head", "HEAD"]);
    assert_eq!(world.seek(&pull(&head, false)).await, Ok(vec!["theirs".to_owned()]));
    assert_eq!(world.seek(&pull(&head, true)).await, Ok(vec!["base".to_owned()]));
    // At the commit of the event, also when the branch has moved on.
    world.run(&["checkout", "--quiet", "main"]);
    world.commit(".leasehold.toml", &FILE.replace("NAME", "newer"));
    assert_eq!(world.seek(&push(None, &first)).await, Ok(vec!["base".to_owned()]));
}

#[tokio::test]
async fn mistakes_are_told_with_their_place_and_commit() {
    let world = World::new();
    let sha = world.commit(".leasehold.toml", &FILE.replace("NAME", "Wrong"));
    let Sought::Mistaken(reason) = world.source.seek(&world.repository, &push(None, &sha)).await else {
        panic!("it is wrong")
    };
    assert!(reason.contains(".leasehold.toml:2:8:") && reason.contains(sha.short()), "{reason}");
}

#[tokio::test]
async fn paths_count_since_the_commit_before() {
    let world = World::new();
    let file = format!("{}paths = [\"docs*\"]\n", FILE.replace("NAME", "docs"));
    let first = world.commit(".leasehold.toml", &file);
    let second = world.commit("docs.txt", "x");
    let third = world.commit("src.txt", "x");
    assert_eq!(world.seek(&push(Some(&first), &second)).await, Ok(vec!["docs".to_owned()]));
    assert!(world.seek(&push(Some(&second), &third)).await.is_err_and(|reason| reason.contains("no path of it")));
    // A new branch: nobody knows what changed.
    assert_eq!(world.seek(&push(None, &third)).await, Ok(vec!["docs".to_owned()]));
}

#[tokio::test]
async fn who_asks_gets_what_the_ref_has_and_a_pull_request_is_a_strangers() {
    let world = World::new();
    let first = world.commit(".leasehold.toml", &FILE.replace("NAME", "base"));
    world.run(&["checkout", "--quiet", "-b", "topic"]);
    let head = world.commit(".leasehold.toml", &FILE.replace("NAME", "theirs"));
    world.run(&["update-ref", "refs/pull/7/head", "HEAD"]);
    world.run(&["checkout", "--quiet", "main"]);
    let ask = |git_ref, pipeline| world.source.ask(&world.repository, git_ref, pipeline);
    let asked = ask(None, None).await.expect("the default branch");
    assert_eq!((&asked.subject.sha, &asked.subject.line), (&first, &Line::Branch("main".into())));
    assert_eq!(asked.subject.title.as_deref(), Some(".leasehold.toml"));
    let asked = ask(Some("refs/pull/7/head"), None).await.expect("there");
    assert_eq!((&asked.subject.sha, &asked.subject.line, asked.subject.fork), (&head, &Line::Pull(7), true));
    assert_eq!(&*asked.plans[0].name, "base");
    let asked = ask(Some("topic"), Some("theirs")).await.expect("there");
    assert_eq!((asked.subject.fork, &*asked.plans[0].name), (false, "theirs"));
    assert!(ask(Some("topic"), Some("x")).await.is_err_and(|error| error.contains("it has: theirs")));
    assert!(ask(Some("absent"), None).await.is_err_and(|error| error.contains("git fetch")));
    assert!(ask(Some("--upload-pack=x"), None).await.is_err_and(|error| error.contains("git fetch")));
}
