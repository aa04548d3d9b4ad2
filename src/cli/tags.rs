//! The tags a claim gets by itself: which job, of which commit, by whom, from where.
//!
//! They are for the person who finds a resource taken, so each is what a CI system shows its own
//! users. Nothing here decides anything by them, and a value that holds a password (a repository's
//! URL can) is given without it.

use std::collections::BTreeMap;

use crate::protocol::call::RetryRequest;

/// Bytes of a value; the broker refuses longer ones.
const VALUE_BYTES_MAX: usize = 512;

/// How one CI system says it.
struct System {
    /// Set to anything but nothing where it runs.
    present: &'static str,
    job: fn(&Lookup<'_>) -> Option<String>,
    repo: &'static [&'static str],
    commit: &'static [&'static str],
    actor: &'static [&'static str],
    attempt: fn(&Lookup<'_>) -> Option<String>,
    /// The run and job, the same for every attempt at it.
    work: fn(&Lookup<'_>) -> Option<String>,
    /// A number that grows with every attempt, where `attempt` is not one.
    try_number: fn(&Lookup<'_>) -> Option<String>,
}

/// The environment, asked by name.
type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// First match wins: those that set another's variables too stand before it.
const SYSTEMS: &[System] = &[
    System { present: "GITEA_ACTIONS", ..ACTIONS },
    System { present: "FORGEJO_ACTIONS", ..ACTIONS },
    ACTIONS,
    System {
        present: "GITLAB_CI",
        job: |get| get("CI_JOB_URL"),
        repo: &["CI_PROJECT_PATH"],
        commit: &["CI_COMMIT_SHA"],
        actor: &["GITLAB_USER_LOGIN"],
        attempt: |_| None,
        work: |get| parts("gitlab", [get("CI_PROJECT_PATH"), get("CI_PIPELINE_ID"), get("CI_JOB_NAME")]),
        // A retried job is a new job of the same name in the same pipeline.
        try_number: |get| get("CI_JOB_ID"),
    },
    System {
        present: "BUILDKITE",
        job: |get| match (get("BUILDKITE_BUILD_URL"), get("BUILDKITE_JOB_ID")) {
            (Some(build), Some(job)) => Some(format!("{build}#{job}")),
            (build, _) => build,
        },
        repo: &["BUILDKITE_REPO"],
        commit: &["BUILDKITE_COMMIT"],
        actor: &["BUILDKITE_BUILD_CREATOR", "BUILDKITE_BUILD_AUTHOR"],
        attempt: buildkite_attempt,
        work: |get| {
            let step = format!("{}:{}", get("BUILDKITE_STEP_ID")?, get("BUILDKITE_PARALLEL_JOB").unwrap_or_default());
            parts("buildkite", [get("BUILDKITE_PIPELINE_SLUG"), get("BUILDKITE_BUILD_ID"), Some(step)])
        },
        try_number: buildkite_attempt,
    },
    System {
        present: "TF_BUILD",
        job: |get| {
            let (site, project) = (get("SYSTEM_COLLECTIONURI")?, get("SYSTEM_TEAMPROJECT")?.replace(' ', "%20"));
            Some(format!("{}/{project}/_build/results?buildId={}", site.trim_end_matches('/'), get("BUILD_BUILDID")?))
        },
        repo: &["BUILD_REPOSITORY_NAME"],
        commit: &["BUILD_SOURCEVERSION"],
        actor: &["BUILD_REQUESTEDFOR"],
        attempt: |get| get("SYSTEM_JOBATTEMPT"),
        work: |get| parts("azure", [get("SYSTEM_TEAMPROJECT"), get("BUILD_BUILDID"), get("SYSTEM_JOBNAME")]),
        try_number: |get| get("SYSTEM_JOBATTEMPT"),
    },
    System {
        present: "JENKINS_URL",
        job: |get| get("BUILD_URL"),
        repo: &["GIT_URL"],
        commit: &["GIT_COMMIT"],
        actor: &["CHANGE_AUTHOR", "BUILD_USER_ID"],
        attempt: |_| None,
        // `retry` in a pipeline stays in its build, and counts nowhere: only the lab's failures count.
        work: |get| parts("jenkins", [get("JOB_NAME"), get("BUILD_NUMBER"), get("STAGE_NAME").or(Some(String::new()))]),
        try_number: |_| None,
    },
];

const ACTIONS: System = System {
    present: "GITHUB_ACTIONS",
    job: |get| {
        let (server, repo, run) = (get("GITHUB_SERVER_URL")?, get("GITHUB_REPOSITORY")?, get("GITHUB_RUN_ID")?);
        Some(format!("{server}/{repo}/actions/runs/{run}"))
    },
    repo: &["GITHUB_REPOSITORY"],
    commit: &["GITHUB_SHA"],
    actor: &["GITHUB_ACTOR"],
    attempt: |get| get("GITHUB_RUN_ATTEMPT"),
    work: |get| parts("actions", [get("GITHUB_REPOSITORY"), get("GITHUB_RUN_ID"), get("GITHUB_JOB")]),
    try_number: |get| get("GITHUB_RUN_ATTEMPT"),
};

fn buildkite_attempt(get: &Lookup<'_>) -> Option<String> {
    Some((get("BUILDKITE_RETRY_COUNT")?.parse::<u32>().ok()?.checked_add(1)?).to_string())
}

/// `system:repository/run/job`; nothing where a part is not known or all is too long to be a name.
fn parts(system: &str, parts: [Option<String>; 3]) -> Option<String> {
    let [repo, run, job] = parts;
    Some(format!("{system}:{}/{}/{}", repo?, run?, job?)).filter(|work| work.len() <= VALUE_BYTES_MAX)
}

/// Which work of which CI system this is, so that a retry of it may keep its place in the queue.
#[must_use]
pub fn retry() -> Option<RetryRequest> {
    retry_of(&|name| std::env::var(name).ok())
}

fn retry_of(environment: &Lookup<'_>) -> Option<RetryRequest> {
    let get = |name: &str| environment(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    let system = SYSTEMS.iter().find(|system| get(system.present).is_some())?;
    let attempt = (system.try_number)(&get).and_then(|number| number.parse().ok()).unwrap_or(1);
    Some(RetryRequest { work: (system.work)(&get)?, attempt })
}

/// The tags of a claim made here and now for `command`; `given` win over what is found.
#[must_use]
pub fn tags(command: &[String], given: &[(String, String)]) -> BTreeMap<String, String> {
    let mut tags = of_ci(&|name| std::env::var(name).ok());
    let owner = crate::client::default_owner();
    if let Some((user, host)) = owner.split_once('@') {
        tags.insert("user".to_owned(), user.to_owned());
        tags.insert("host".to_owned(), host.to_owned());
    }
    tags.insert("command".to_owned(), command.join(" "));
    tags.extend(given.iter().cloned());
    tags.retain(|_, value| !value.is_empty());
    for (name, value) in &mut tags {
        if given.iter().all(|(own, _)| own != name) {
            value.truncate(value.floor_char_boundary(VALUE_BYTES_MAX));
        }
    }
    tags
}

fn of_ci(environment: &Lookup<'_>) -> BTreeMap<String, String> {
    let get = |name: &str| environment(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    let Some(system) = SYSTEMS.iter().find(|system| get(system.present).is_some()) else {
        return BTreeMap::new();
    };
    let first = |names: &[&str]| names.iter().find_map(|name| get(name));
    [
        ("job", (system.job)(&get)),
        ("repo", first(system.repo)),
        ("commit", first(system.commit)),
        ("actor", first(system.actor)),
        ("attempt", (system.attempt)(&get)),
    ]
    .into_iter()
    .filter_map(|(tag, value)| Some((tag.to_owned(), without_password(&value?))))
    .collect()
}

/// A URL without `user:password@`; other text as it is.
fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{of_ci, tags, without_password};

    type Pairs<'a> = &'a [(&'a str, &'a str)];

    fn found(environment: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs: BTreeMap<&str, &str> = environment.iter().copied().collect();
        of_ci(&|name| pairs.get(name).map(|value| (*value).to_owned()))
    }

    fn expected(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn each_ci_system_is_understood() {
        let actions = [
            ("GITHUB_ACTIONS", "true"),
            ("GITHUB_SERVER_URL", "https://git.example"),
            ("GITHUB_REPOSITORY", "a/b"),
            ("GITHUB_RUN_ID", "9"),
            ("GITHUB_SHA", "c0ffee"),
            ("GITHUB_ACTOR", "ann"),
            ("GITHUB_RUN_ATTEMPT", "2"),
        ];
        let of_actions = [
            ("job", "https://git.example/a/b/actions/runs/9"),
            ("repo", "a/b"),
            ("commit", "c0ffee"),
            ("actor", "ann"),
            ("attempt", "2"),
        ];
        let gitea: Vec<_> = actions.iter().copied().skip(1).chain([("GITEA_ACTIONS", "true")]).collect();
        let table: &[(Pairs<'_>, Pairs<'_>)] = &[
            (&actions, &of_actions),
            (&gitea, &of_actions),
            (
                &[
                    ("GITLAB_CI", "true"),
                    ("CI_JOB_URL", "https://gl/x/-/jobs/5"),
                    ("CI_PROJECT_PATH", "g/p"),
                    ("CI_COMMIT_SHA", "abc"),
                    ("GITLAB_USER_LOGIN", "bob"),
                ],
                &[("job", "https://gl/x/-/jobs/5"), ("repo", "g/p"), ("commit", "abc"), ("actor", "bob")],
            ),
            (
                &[
                    ("JENKINS_URL", "http://j/"),
                    ("BUILD_URL", "http://j/job/x/7/"),
                    ("GIT_URL", "https://me:pass@git/x.git"),
                    ("GIT_COMMIT", "abc"),
                ],
                &[("job", "http://j/job/x/7/"), ("repo", "https://git/x.git"), ("commit", "abc")],
            ),
            (
                &[
                    ("BUILDKITE", "true"),
                    ("BUILDKITE_BUILD_URL", "https://bk/o/p/builds/3"),
                    ("BUILDKITE_JOB_ID", "0f"),
                    ("BUILDKITE_COMMIT", "abc"),
                    ("BUILDKITE_BUILD_CREATOR", "Eve"),
                    ("BUILDKITE_RETRY_COUNT", "0"),
                ],
                &[("job", "https://bk/o/p/builds/3#0f"), ("commit", "abc"), ("actor", "Eve"), ("attempt", "1")],
            ),
            (
                &[
                    ("TF_BUILD", "True"),
                    ("SYSTEM_COLLECTIONURI", "https://az/org/"),
                    ("SYSTEM_TEAMPROJECT", "My Team"),
                    ("BUILD_BUILDID", "12"),
                    ("SYSTEM_JOBATTEMPT", "3"),
                ],
                &[("job", "https://az/org/My%20Team/_build/results?buildId=12"), ("attempt", "3")],
            ),
            (&[("GITHUB_ACTIONS", ""), ("GITHUB_SHA", "abc")], &[]),
        ];
        for (environment, tags) in table {
            assert_eq!(found(environment), expected(tags), "{environment:?}");
        }
    }

    #[test]
    fn a_retry_is_told_by_run_job_and_attempt() {
        let actions = [
            ("GITHUB_ACTIONS", "true"),
            ("GITHUB_REPOSITORY", "a/b"),
            ("GITHUB_RUN_ID", "9"),
            ("GITHUB_JOB", "test"),
            ("GITHUB_RUN_ATTEMPT", "2"),
        ];
        let gitlab = [
            ("GITLAB_CI", "true"),
            ("CI_PROJECT_PATH", "g/p"),
            ("CI_PIPELINE_ID", "4"),
            ("CI_JOB_NAME", "rspec 1/5"),
            ("CI_JOB_ID", "5000000017"),
        ];
        let jenkins = [("JENKINS_URL", "http://j/"), ("JOB_NAME", "x"), ("BUILD_NUMBER", "7")];
        let table: [(Pairs<'_>, Option<(&str, u64)>); 4] = [
            (&actions, Some(("actions:a/b/9/test", 2))),
            (&gitlab, Some(("gitlab:g/p/4/rspec 1/5", 5_000_000_017))),
            (&jenkins, Some(("jenkins:x/7/", 1))),
            (&actions[..3], None),
        ];
        for (environment, expected) in table {
            let pairs: BTreeMap<&str, &str> = environment.iter().copied().collect();
            let retry = super::retry_of(&|name| pairs.get(name).map(|value| (*value).to_owned()));
            let found = retry.as_ref().map(|retry| (retry.work.as_str(), retry.attempt));
            assert_eq!(found, expected, "{environment:?}");
        }
    }

    #[test]
    fn passwords_in_urls_are_left_out() {
        for (text, shown) in [
            ("https://me:pw@git.example/a.git", "https://git.example/a.git"),
            ("https://me:p@w@git.example?x=a@b", "https://git.example?x=a@b"),
            ("https://git.example/a@b", "https://git.example/a@b"),
            ("git@git.example:a.git", "git@git.example:a.git"),
        ] {
            assert_eq!(without_password(text), shown);
        }
    }

    #[test]
    fn who_where_and_what_are_always_there_and_the_given_win() {
        let long = "é".repeat(400);
        let tags = tags(&["make".to_owned(), long], &[("host".to_owned(), "elsewhere".to_owned())]);
        assert_eq!(tags["host"], "elsewhere");
        assert!(tags.contains_key("user"));
        assert!(tags["command"].starts_with("make é") && tags["command"].len() <= 512);
    }
}
