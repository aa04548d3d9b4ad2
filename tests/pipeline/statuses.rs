//! Commit statuses: the reporter against forges that are slow, broken, strict and away.
//!
//! The outbox here is a map under a lock: it takes the reporter's answers as the conductor's does, by the
//! rules of `builds::status`, and gives out again what is due.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use leasehold::builds::build::BuildId;
use leasehold::builds::happening::{Forge as ForgeKind, Sha};
use leasehold::builds::status::{Answer, Status, StatusKey, StatusState, Whose};
use leasehold::core::inventory::SecretRef;
use leasehold::pipeline::reporter::{Place, Reporter, Settings};

use crate::common::forge::{Forge, Kind, TOKEN, Trouble};
use crate::common::wait::{eventually, until};

const APP: &str = "acme/app";
const CONTEXT: &str = "leasehold/unit";
const SHA: &str = "a1b2c3d4a1b2c3d4a1b2c3d4a1b2c3d4a1b2c3d4";

/// An outbox, and the reporter that works on it.
struct Outbox {
    rows: Arc<Mutex<BTreeMap<StatusKey, Status>>>,
    reporter: Reporter,
    _runtime: tokio::runtime::Runtime,
    _token: tempfile::TempDir,
}

impl Outbox {
    fn to(forge: &Forge) -> Self {
        Self::with_token(forge, TOKEN)
    }

    fn with_token(forge: &Forge, token: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("token");
        std::fs::write(&file, format!("{token}\n")).expect("the token can be written");
        let kind = match forge.kind() {
            Kind::Gitea => ForgeKind::Gitea,
            Kind::Github => ForgeKind::Github,
            Kind::Gitlab => ForgeKind::Gitlab,
        };
        let token = SecretRef::File(file.to_str().expect("plain").into());
        let place = Place { forge: kind, api: forge.api().into(), name: APP.into(), token };
        let settings =
            Settings { public_url: "https://lab.example".into(), places: BTreeMap::from([(APP.into(), place)]) };
        let rows: Arc<Mutex<BTreeMap<StatusKey, Status>>> = Arc::default();
        let kept = Arc::clone(&rows);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let entered = runtime.enter();
        let reporter = Reporter::start(
            settings,
            Arc::new(move |key, version, answer| {
                let mut rows = kept.lock().expect("nobody panics with it");
                settled(&mut rows, &key, version, &answer);
                Box::pin(std::future::ready(()))
            }),
        );
        drop(entered);
        Self { rows, reporter, _runtime: runtime, _token: dir }
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<StatusKey, Status>> {
        self.rows.lock().expect("nobody panics with it")
    }

    /// Puts a row and has it told.
    fn put(&self, row: &Status) {
        self.rows().insert(row.key.clone(), row.clone());
        self.reporter.tell([Arc::new(row.clone())]);
    }

    /// Has told what is not told yet, as if it were due: what a conductor does when the time has come.
    fn again(&self) {
        let due: Vec<_> = self.rows().values().filter(|row| !row.told).cloned().map(Arc::new).collect();
        self.reporter.tell(due);
    }

    fn row(&self, key: &StatusKey) -> Status {
        self.rows().get(key).cloned().expect("the row was put")
    }

    /// Waits for trouble with a row, and answers it.
    #[track_caller]
    fn trouble(&self, key: &StatusKey) -> String {
        eventually("there is trouble", || self.row(key).trouble).to_string()
    }

    #[track_caller]
    fn is_told(&self, key: &StatusKey) {
        until("the row is told", || self.row(key).told);
    }
}

fn settled(rows: &mut BTreeMap<StatusKey, Status>, key: &StatusKey, version: u64, answer: &Answer) {
    if let Some(after) = rows.get(key).and_then(|row| row.answered(version, answer)) {
        rows.insert(key.clone(), after);
    }
}

fn row(version: u64, state: StatusState) -> Status {
    let sha = Sha::parse(SHA).expect("a commit");
    Status {
        key: StatusKey { repository: APP.into(), sha, context: CONTEXT.into() },
        whose: Whose::Build(BuildId(7)),
        version,
        state,
        description: format!("version {version}").into(),
        told: false,
        tries: 0,
        due_ms: 0,
        trouble: None,
    }
}

fn forge(kind: Kind) -> Forge {
    let forge = Forge::start(kind);
    forge.know(APP, SHA);
    forge
}

/// What the forge took, in its order.
fn states(forge: &Forge) -> Vec<String> {
    forge.history(APP, SHA, CONTEXT).into_iter().map(|shown| shown.state).collect()
}

#[track_caller]
fn shows_a_whole_life(kind: Kind, words: [&str; 4]) {
    let forge = forge(kind);
    let outbox = Outbox::to(&forge);
    use StatusState::{Cancelled, Pending, Running, Success};
    for (version, state) in (1..).zip([Pending, Running, Success, Cancelled]) {
        let row = row(version, state);
        outbox.put(&row);
        outbox.is_told(&row.key);
    }
    assert_eq!(states(&forge), words);
    let shown = forge.shown(APP, SHA, CONTEXT).expect("shown");
    assert_eq!((shown.description.as_str(), shown.target_url.as_str()), ("version 4", "https://lab.example/builds/7"));
}

#[test]
fn github_shows_a_build_from_waiting_to_over() {
    shows_a_whole_life(Kind::Github, ["pending", "pending", "success", "failure"]);
}

#[test]
fn gitlab_shows_a_build_from_waiting_to_over() {
    shows_a_whole_life(Kind::Gitlab, ["pending", "running", "success", "canceled"]);
}

#[test]
fn gitea_shows_a_build_from_waiting_to_over() {
    shows_a_whole_life(Kind::Gitea, ["pending", "pending", "success", "failure"]);
}

#[test]
fn gitlab_is_not_troubled_by_a_state_that_it_shows_already() {
    let forge = forge(Kind::Gitlab);
    let outbox = Outbox::to(&forge);
    // A second attempt waits and runs, while GitLab still shows the first one running.
    for (version, state) in (1..).zip([StatusState::Running, StatusState::Pending, StatusState::Running]) {
        outbox.put(&row(version, state));
        outbox.is_told(&row(version, state).key);
    }
    outbox.put(&row(4, StatusState::Failure));
    assert_eq!(forge.comes_to_show(APP, SHA, CONTEXT, "failed").description, "version 4");
    assert_eq!(states(&forge), ["running", "failed"]);
}

#[test]
fn only_the_newest_of_what_waits_is_sent_and_only_after_what_is_under_way() {
    let forge = forge(Kind::Github);
    let outbox = Outbox::to(&forge);
    forge.misbehave(Trouble::Sleepy);
    outbox.put(&row(1, StatusState::Pending));
    until("the first request is under way", || forge.requests().len() == 1);
    outbox.put(&row(2, StatusState::Running));
    outbox.put(&row(3, StatusState::Success));
    // Given again out of order, as after a restart of the conductor: the older ones come to nothing.
    outbox.reporter.tell([1, 2].map(|version| Arc::new(row(version, StatusState::Running))));
    assert_eq!(forge.requests().len(), 1, "one request at a time for a place");
    forge.wake();
    forge.comes_to_show(APP, SHA, CONTEXT, "success");
    outbox.is_told(&row(3, StatusState::Success).key);
    assert_eq!(states(&forge), ["pending", "success"], "the version between is not worth a request");
}

#[test]
fn an_answer_to_an_older_version_settles_nothing() {
    let forge = forge(Kind::Gitea);
    let outbox = Outbox::to(&forge);
    forge.misbehave(Trouble::Sleepy);
    outbox.put(&row(1, StatusState::Running));
    until("it is under way", || forge.requests().len() == 1);
    // The next version is in the outbox and nobody has been told of it, as when the broker ends here.
    let next = row(2, StatusState::Success);
    outbox.rows().insert(next.key.clone(), next.clone());
    forge.wake();
    forge.comes_to_show(APP, SHA, CONTEXT, "pending");
    outbox.again();
    forge.comes_to_show(APP, SHA, CONTEXT, "success");
    outbox.is_told(&next.key);
}

#[test]
fn what_may_pass_is_tried_again() {
    let mut forge = forge(Kind::Github);
    let outbox = Outbox::to(&forge);
    let row = row(1, StatusState::Success);
    forge.misbehave(Trouble::code(502));
    outbox.put(&row);
    assert!(outbox.trouble(&row.key).contains("502"));
    assert!(!outbox.row(&row.key).told && outbox.row(&row.key).tries == 1);

    forge.close();
    outbox.again();
    eventually("it is away", || outbox.row(&row.key).trouble.filter(|trouble| trouble.contains("cannot be asked")));
    assert_eq!(outbox.row(&row.key).tries, 2);

    forge.open();
    outbox.again();
    outbox.is_told(&row.key);
    assert_eq!(outbox.row(&row.key).trouble, None);
    assert_eq!(states(&forge), ["success"]);
}

#[test]
fn an_answer_that_is_lost_is_asked_for_again() {
    let forge = forge(Kind::Gitlab);
    let outbox = Outbox::to(&forge);
    let row = row(1, StatusState::Running);
    forge.misbehave(Trouble::Lost);
    outbox.put(&row);
    outbox.trouble(&row.key);
    // The reporter lets the place rest first, as the request might still be on its way.
    until("it is asked again", || {
        outbox.again();
        outbox.row(&row.key).told
    });
    assert_eq!(states(&forge), ["running"], "the second one is refused as shown already");
}

#[test]
fn a_rate_limit_holds_back_everything_with_that_token() {
    let forge = forge(Kind::Github);
    let outbox = Outbox::to(&forge);
    let body = r#"{"message":"You have exceeded a secondary rate limit. Please wait a few minutes."}"#;
    forge.misbehave(Trouble::Answer(403, vec![("Retry-After", "3600".to_owned())], body.to_owned()));
    let first = row(1, StatusState::Pending);
    outbox.put(&first);
    assert!(outbox.trouble(&first.key).contains("secondary rate limit"));
    let mut other = row(1, StatusState::Pending);
    other.key.context = "leasehold/other".into();
    outbox.put(&other);
    outbox.again();
    let due_in_ms = outbox.row(&first.key).due_ms - leasehold::clock::wall_now_ms();
    assert!((3_000_000..3_700_000).contains(&due_in_ms), "as the forge said: {due_in_ms}");
    // A forge of another account is asked, and by the time that it has answered the first would have been.
    let elsewhere = self::forge(Kind::Gitea);
    let calm = Outbox::to(&elsewhere);
    calm.put(&first);
    elsewhere.comes_to_show(APP, SHA, CONTEXT, "pending");
    assert_eq!(forge.requests().len(), 1);
}

#[test]
fn what_is_refused_is_said_and_tried_rarely_and_the_next_version_at_once() {
    let forge = forge(Kind::Github);
    let outbox = Outbox::with_token(&forge, "tok_of_somebody_else");
    let first = row(1, StatusState::Running);
    outbox.put(&first);
    let trouble = outbox.trouble(&first.key);
    assert!(trouble.contains("401") && trouble.contains("Bad credentials"), "{trouble}");
    let due_in_ms = outbox.row(&first.key).due_ms - leasehold::clock::wall_now_ms();
    assert!(due_in_ms > 60_000, "not soon: {due_in_ms}");
    outbox.put(&row(2, StatusState::Success));
    until("the next version is tried", || forge.requests().len() == 2);
}

#[test]
fn unknown_commits_are_refused_in_each_forges_words() {
    for (kind, said) in [(Kind::Github, "No commit found"), (Kind::Gitlab, "Commit Not Found"), (Kind::Gitea, "404")] {
        let forge = Forge::start(kind);
        forge.know(APP, &"f".repeat(40));
        let outbox = Outbox::to(&forge);
        let row = row(1, StatusState::Running);
        outbox.put(&row);
        let trouble = outbox.trouble(&row.key);
        assert!(trouble.contains(said), "{kind:?}: {trouble}");
    }
}

#[test]
fn the_token_goes_to_no_other_host_and_into_no_trouble() {
    let (forge, other) = (forge(Kind::Github), Forge::start(Kind::Github));
    let outbox = Outbox::to(&forge);
    let row = row(1, StatusState::Running);
    let away = format!("{}/repos/{APP}/statuses/{SHA}", other.api());
    let body = format!(r#"{{"message":"Moved; you sent {TOKEN}"}}"#);
    forge.misbehave(Trouble::Answer(307, vec![("Location", away)], body));
    outbox.put(&row);
    let trouble = outbox.trouble(&row.key);
    assert!(trouble.contains("307") && trouble.contains("[token]") && !trouble.contains(TOKEN), "{trouble}");
    assert!(other.requests().is_empty());

    // A repository that was renamed is followed on its own host.
    let there = format!("/api/v3/repos/{APP}/statuses/{SHA}");
    forge.misbehave(Trouble::Answer(307, vec![("Location", there)], String::new()));
    outbox.again();
    outbox.is_told(&row.key);
    assert_eq!(states(&forge), ["pending"]);
}

#[test]
fn a_page_that_answers_instead_of_an_api_takes_nothing() {
    let forge = forge(Kind::Gitlab);
    let outbox = Outbox::to(&forge);
    let row = row(1, StatusState::Running);
    let html = vec![("Content-Type", "text/html".to_owned())];
    forge.misbehave(Trouble::Answer(200, html, "<html>Sign in</html>".to_owned()));
    outbox.put(&row);
    assert!(outbox.trouble(&row.key).contains("is `api` right?"));
    assert!(!outbox.row(&row.key).told);
}

#[test]
fn a_repository_without_statuses_asks_nobody_and_is_settled() {
    let forge = forge(Kind::Github);
    let outbox = Outbox::to(&forge);
    let mut row = row(1, StatusState::Running);
    row.key.repository = "acme/other".into();
    outbox.put(&row);
    outbox.is_told(&row.key);
    assert!(outbox.row(&row.key).trouble.is_some_and(|trouble| trouble.contains("configuration")));
    assert!(forge.requests().is_empty());
}

#[test]
fn no_piece_of_the_token_is_left_where_what_a_forge_says_is_cut() {
    let forge = forge(Kind::Github);
    let outbox = Outbox::to(&forge);
    let row = row(1, StatusState::Running);
    forge.misbehave(Trouble::Answer(422, vec![], format!(r#"{{"message":"{}{TOKEN}"}}"#, "x".repeat(290))));
    outbox.put(&row);
    let trouble = outbox.trouble(&row.key);
    assert!(trouble.contains("422") && !trouble.contains(&TOKEN[..4]), "{trouble}");
}
