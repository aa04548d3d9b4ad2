//! Which pipelines something that happened asks for.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::glob::Globs;
use super::happening::{PullAction, What};
use super::plan::{On, Pipeline, Plan};

/// What a change touches, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// These paths.
    Paths(Vec<String>),
    /// Nobody knows, or too many to look at: every path.
    Any,
}

/// The event that something is, where it can ask for builds: nothing that is deleted or closed does.
#[must_use]
pub fn event(what: &What) -> Option<On> {
    match what {
        What::Push { after: Some(_), .. } => Some(On::Push),
        What::Tag { sha: Some(_), .. } => Some(On::Tag),
        What::Pull { action: PullAction::Closed, .. }
        | What::Push { after: None, .. }
        | What::Tag { sha: None, .. } => None,
        // Of one that became a draft: what is asked for is what may go on.
        What::Pull { .. } => Some(On::PullRequest),
    }
}

/// Whether something that happened asks for builds; the rest only ends what there is.
#[must_use]
pub fn starts(what: &What) -> bool {
    match what {
        What::Push { after, .. } => after.is_some(),
        What::Tag { sha, .. } => sha.is_some(),
        What::Pull { action, .. } => action.starts(),
    }
}

/// Whether which pipelines are wanted depends on the paths that changed.
#[must_use]
pub fn needs_paths(pipelines: &[Pipeline], what: &What) -> bool {
    let wanted = |pipeline: &Pipeline| !pipeline.paths.is_empty() && refusal(pipeline, what, &Touched::Any).is_none();
    pipelines.iter().any(wanted)
}

/// The plans that are wanted, each with what becomes of older builds decided by the event.
///
/// # Errors
/// None is, and why not, in words.
pub fn wanted(pipelines: &[Pipeline], what: &What, touched: &Touched) -> Result<Vec<Arc<Plan>>, Arc<str>> {
    let Some(on) = event(what) else { return Err("nothing is built of what is closed or deleted".into()) };
    let mut plans = Vec::new();
    let mut reasons = BTreeSet::new();
    for pipeline in pipelines {
        match refusal(pipeline, what, touched) {
            None => plans.push(plan(pipeline, on)),
            Some(reason) => {
                reasons.insert(format!("{}: {reason}", pipeline.plan.name));
            }
        }
    }
    if !plans.is_empty() {
        return Ok(plans);
    }
    let reasons: Vec<String> = reasons.into_iter().collect();
    Err(format!("no pipeline asks for it ({})", reasons.join("; ")).into())
}

/// A pipeline's plan for a build of this event.
#[must_use]
pub fn plan(pipeline: &Pipeline, on: On) -> Arc<Plan> {
    let concurrency = pipeline.concurrency.unwrap_or_else(|| on.concurrency());
    if pipeline.plan.concurrency == concurrency {
        return pipeline.plan.clone();
    }
    Arc::new(Plan { concurrency, ..Plan::clone(&pipeline.plan) })
}

/// Why a pipeline is not wanted.
fn refusal(pipeline: &Pipeline, what: &What, touched: &Touched) -> Option<&'static str> {
    let Some(on) = event(what).filter(|on| pipeline.on.contains(on)) else { return Some("the event is not in on") };
    let means = |globs: &[String], name: &str| Globs::new(globs).is_ok_and(|globs| globs.mean(name));
    match what {
        What::Push { branch, .. } if !means(&pipeline.branches, branch) => return Some("not this branch"),
        What::Tag { tag, .. } if !means(&pipeline.tags, tag) => return Some("not this tag"),
        What::Pull { pull, .. } if !means(&pipeline.branches, &pull.base_branch) => return Some("not this base"),
        What::Pull { pull, .. } if pull.draft && !pipeline.drafts => return Some("no drafts"),
        _ => {}
    }
    if on == On::Tag || pipeline.paths.is_empty() {
        return None;
    }
    let Touched::Paths(paths) = touched else { return None };
    let touches = Globs::new(&pipeline.paths).is_ok_and(|globs| paths.iter().any(|path| globs.mean(path)));
    (!touches).then_some("no path of it changed")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Touched, needs_paths, wanted};
    use crate::builds::happening::{Pull, PullAction, Sha, What};
    use crate::builds::plan::{Concurrency, Pipeline};
    use crate::inventory::config;

    /// Pipelines as they are written.
    fn pipelines(text: &str) -> Arc<[Pipeline]> {
        let head = "[[repository]]\nname = \"a/b\"\nforge = \"gitea\"\nurl = \"/b\"\n";
        let body = text.replace("[[pipeline]]", "[[repository.pipeline]]\nrun = \"x\"");
        let config = config::read(&format!("{head}{body}"), "leasehold.toml").unwrap_or_else(|error| panic!("{error}"));
        let settings = config.pipelines.expect("a repository").resolve().expect("no secrets");
        settings.repositories["a/b"].pipelines.clone().expect("pipelines")
    }

    fn sha(digit: char) -> Sha {
        Sha::parse(&digit.to_string().repeat(40)).expect("a name")
    }

    fn push(branch: &str) -> What {
        What::Push { branch: branch.into(), before: Some(sha('1')), after: Some(sha('2')), title: None }
    }

    fn pull(action: PullAction, base: &str, draft: bool) -> What {
        let pull = Pull {
            number: 7,
            title: "t".into(),
            head: sha('3'),
            head_branch: "topic".into(),
            base_branch: base.into(),
            base: None,
            fork: false,
            draft,
        };
        What::Pull { action, pull }
    }

    fn names(pipelines: &[Pipeline], what: &What, touched: &Touched) -> Vec<String> {
        let plans = wanted(pipelines, what, touched).unwrap_or_default();
        plans.iter().map(|plan| plan.name.to_string()).collect()
    }

    #[test]
    fn events_branches_tags_and_drafts_choose() {
        let all = pipelines(
            r#"
            [[pipeline]]
            name = "test"
            on = ["pull_request"]
            branches = ["main"]
            [[pipeline]]
            name = "drafts"
            on = ["pull_request"]
            drafts = true
            [[pipeline]]
            name = "deploy"
            on = ["push"]
            branches = ["main", "release/*"]
            [[pipeline]]
            name = "publish"
            on = ["tag"]
            tags = ["v*", "!*-rc"]
            [[pipeline]]
            name = "by-hand"
            on = ["manual"]
            "#,
        );
        let tag = |tag: &str, sha| What::Tag { tag: tag.into(), sha };
        let gone = What::Push { branch: "main".into(), before: Some(sha('1')), after: None, title: None };
        for (what, expected) in [
            (push("main"), &["deploy"][..]),
            (push("release/1"), &["deploy"]),
            (push("topic"), &[]),
            (gone, &[]),
            (tag("v1", Some(sha('1'))), &["publish"]),
            (tag("v1-rc", Some(sha('1'))), &[]),
            (tag("v1", None), &[]),
            (pull(PullAction::Opened, "main", false), &["test", "drafts"]),
            (pull(PullAction::Pushed, "other", false), &["drafts"]),
            (pull(PullAction::Opened, "main", true), &["drafts"]),
            (pull(PullAction::Ready, "main", false), &["test", "drafts"]),
            // What may go on.
            (pull(PullAction::Drafted, "main", true), &["drafts"]),
            (pull(PullAction::Closed, "main", false), &[]),
        ] {
            assert_eq!(names(&all, &what, &Touched::Any), expected, "{what:?}");
        }
    }

    #[test]
    fn a_path_must_have_changed_where_the_change_is_known() {
        let all = pipelines(
            "[[pipeline]]\nname = \"docs\"\non = [\"push\"]\npaths = [\"docs/**\", \"!docs/old/**\"]\n\
             [[pipeline]]\nname = \"all\"\non = [\"push\"]\n",
        );
        let paths = |paths: &[&str]| Touched::Paths(paths.iter().map(|path| (*path).to_owned()).collect());
        for (touched, expected) in [
            (paths(&["src/a.rs", "docs/a.md"]), &["docs", "all"][..]),
            (paths(&["src/a.rs"]), &["all"]),
            (paths(&["docs/old/a.md"]), &["all"]),
            (paths(&[]), &["all"]),
            (Touched::Any, &["docs", "all"]),
        ] {
            assert_eq!(names(&all, &push("main"), &touched), expected, "{touched:?}");
        }
        assert!(needs_paths(&all, &push("main")));
        assert!(!needs_paths(&all, &pull(PullAction::Opened, "main", false)), "none of them is for pull requests");
    }

    #[test]
    fn the_event_decides_of_older_builds_unless_the_pipeline_says() {
        let all = pipelines(
            "[[pipeline]]\nname = \"open\"\non = [\"push\", \"pull_request\"]\n\
             [[pipeline]]\nname = \"said\"\non = [\"push\", \"pull_request\"]\nconcurrency = \"parallel\"\n",
        );
        let of = |what| -> Vec<Concurrency> {
            wanted(&all, &what, &Touched::Any).expect("plans").iter().map(|plan| plan.concurrency).collect()
        };
        assert_eq!(of(push("main")), [Concurrency::Queue, Concurrency::Parallel]);
        assert_eq!(of(pull(PullAction::Opened, "main", false)), [Concurrency::Supersede, Concurrency::Parallel]);
    }

    #[test]
    fn why_nothing_is_wanted_is_told() {
        let all = pipelines("[[pipeline]]\nname = \"test\"\non = [\"push\"]\nbranches = [\"main\"]\n");
        let reason = wanted(&all, &push("topic"), &Touched::Any).expect_err("not wanted");
        assert_eq!(&*reason, "no pipeline asks for it (test: not this branch)");
    }
}
