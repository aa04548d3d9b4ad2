//! Payloads as the forges document them, signatures as others published them, and bodies of strangers.

use std::collections::BTreeMap;
use std::path::Path;

use super::secret::Secret;
use super::{Fault, Headers, Refused, said};
use crate::builds::happening::{Forge, Happening, PullAction, What};

const BEFORE: &str = "1b7e0d4c52a9f6380c4d7e19a2b35f6c8d90e1f2";
const AFTER: &str = "8c3f5a1e7d92b4068f1a3c5e7092b4d6f8a0c2e4";

fn payload(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hooks").join(format!("{name}.json"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What a kept payload says; the event is told by its name.
fn of(name: &str) -> Result<Happening, String> {
    let (forge, rest) = name.split_once('_').expect("FORGE_WHAT");
    let forge = match forge {
        "gitea" => Forge::Gitea,
        "github" => Forge::Github,
        _ => Forge::Gitlab,
    };
    let event = match rest.split('_').next() {
        Some("pull") => "pull_request",
        Some("ping") => "ping",
        _ => "push",
    };
    said(forge, event, &payload(name)).map_err(|reason| reason.to_string())
}

/// In a line, for tables.
fn told(happening: &Happening) -> String {
    let short = |sha: Option<&crate::builds::happening::Sha>| {
        sha.map_or_else(|| "none".to_owned(), |sha| sha.short().to_owned())
    };
    let what = match &happening.what {
        What::Push { branch, before, after, title } => {
            let title = title.as_deref().unwrap_or("-");
            format!("push {branch} {} {} {title:?}", short(before.as_ref()), short(after.as_ref()))
        }
        What::Tag { tag, sha } => format!("tag {tag} {}", short(sha.as_ref())),
        What::Pull { action, pull } => {
            let fork = if pull.fork { " fork" } else { "" };
            let draft = if pull.draft { " draft" } else { "" };
            let branches = format!("{}->{}", pull.head_branch, pull.base_branch);
            format!(
                "{action:?} {} {branches} {} {}{fork}{draft}",
                pull.number,
                short(Some(&pull.head)),
                short(pull.base.as_ref())
            )
        }
    };
    format!("{} {} {what}", happening.repository, happening.by)
}

#[test]
fn payloads_say_what_happened() {
    let (a, b) = (&BEFORE[..10], &AFTER[..10]);
    let pull = |who: &str, action: &str, rest: &str| format!("{who} {action} 7 login->main {b} {rest}");
    let github = "acme/app octo-dev";
    let gitea = "acme/app gitea-dev";
    let gitlab = "acme/tools/app lab-dev";
    for (name, expected) in [
        ("github_push", format!("{github} push main {a} {b} \"Fix the login\"")),
        ("github_push_new_branch", format!("{github} push feature/login none {b} \"Fix the login\"")),
        ("github_push_deleted", format!("{github} push main {b} none \"-\"")),
        ("github_tag", format!("{github} tag v1.2.0 {b}")),
        ("github_tag_deleted", format!("{github} tag v1.2.0 none")),
        ("github_pull_opened", pull(github, "Opened", a)),
        ("github_pull_pushed", pull(github, "Pushed", a)),
        ("github_pull_reopened", pull(github, "Reopened", a)),
        ("github_pull_merged", pull(github, "Closed", a)),
        ("github_pull_drafted", pull(github, "Drafted", &format!("{a} draft"))),
        ("github_pull_ready", pull(github, "Ready", a)),
        ("github_pull_retargeted", pull(github, "Retargeted", a)),
        ("github_pull_fork", pull(github, "Opened", &format!("{a} fork"))),
        ("github_pull_fork_gone", pull(github, "Opened", &format!("{a} fork"))),
        ("gitea_push", format!("{gitea} push main {a} {b} \"Fix the login\"")),
        ("gitea_tag", format!("{gitea} tag v1.2.0 {b}")),
        ("gitea_pull_opened", pull(gitea, "Opened", a)),
        ("gitea_pull_pushed", pull(gitea, "Pushed", a)),
        ("gitea_pull_closed", pull(gitea, "Closed", a)),
        ("gitea_pull_drafted", pull(gitea, "Drafted", &format!("{a} draft"))),
        ("gitea_pull_ready", pull(gitea, "Ready", a)),
        ("gitea_pull_retargeted", pull(gitea, "Retargeted", a)),
        ("gitea_pull_fork", pull(gitea, "Opened", &format!("{a} fork"))),
        ("gitea_pull_fork_gone", pull(gitea, "Opened", &format!("{a} fork"))),
        ("gitlab_push", format!("{gitlab} push main {a} {b} \"Fix the login\"")),
        ("gitlab_push_deleted", format!("{gitlab} push main {b} none \"-\"")),
        ("gitlab_tag", format!("{gitlab} tag v1.2.0 {b}")),
        ("gitlab_merge_opened", pull(gitlab, "Opened", "none")),
        ("gitlab_merge_pushed", pull(gitlab, "Pushed", "none")),
        ("gitlab_merge_merged", pull(gitlab, "Closed", "none")),
        ("gitlab_merge_reopened", pull(gitlab, "Reopened", "none")),
        ("gitlab_merge_drafted", pull(gitlab, "Drafted", "none draft")),
        ("gitlab_merge_ready", pull(gitlab, "Ready", "none")),
        ("gitlab_merge_retargeted", pull(gitlab, "Retargeted", "none")),
        ("gitlab_merge_fork", pull(gitlab, "Opened", "none fork")),
        ("gitlab_merge_fork_gone", pull(gitlab, "Opened", "none fork")),
    ] {
        assert_eq!(of(name).as_ref().map(told), Ok(expected), "{name}");
    }
}

#[test]
fn what_is_not_acted_on_says_why() {
    for (name, why) in [
        ("github_ping", "a ping: the hook is set up"),
        ("github_pull_labeled", "a pull request that is \"labeled\""),
        ("github_pull_retitled", "only the words"),
        ("gitlab_merge_labeled", "neither the commits, the target branch nor the draft mark changed"),
        ("gitlab_merge_approved", "a merge request's \"approved\""),
    ] {
        let reason = of(name).expect_err(name);
        assert!(reason.contains(why), "{name}: {reason}");
    }
    let reason = said(Forge::Github, "issues", b"{}").expect_err("not built");
    assert!(reason.contains("\"issues\": push and pull_request are"), "{reason}");
}

#[test]
fn a_form_around_the_payload_is_read_too() {
    let json = payload("github_pull_opened");
    let escaped: String = json
        .iter()
        .map(|byte| match byte {
            b' ' => "+".to_owned(),
            byte if byte.is_ascii_alphanumeric() => char::from(*byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect();
    for form in [format!("payload={escaped}"), format!("x=1&payload={escaped}&y=%2")] {
        let happening = said(Forge::Github, "pull_request", form.as_bytes()).expect("reads");
        assert!(matches!(happening.what, What::Pull { action: PullAction::Opened, .. }));
    }
}

#[test]
fn bodies_of_strangers_are_refused_in_words() {
    let push = String::from_utf8(payload("github_push")).expect("UTF-8");
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    for body in [
        "",
        "null",
        "[]",
        "{}",
        "{\"ref\":3}",
        "payload=",
        "payload=%",
        &deep,
        &push.replace(AFTER, "--upload-pack=x"),
        &push.replace("refs/heads/main", "refs/heads/"),
        &push.replace("refs/heads/main", "refs/notes/x"),
        &push.replace("refs/heads/main", &format!("refs/heads/{}", "x".repeat(256))),
        &push.replace("refs/heads/main", "refs/heads/a\\nb"),
        &push.replace("acme/app", ""),
    ] {
        for forge in [Forge::Gitea, Forge::Github, Forge::Gitlab] {
            let reason = said(forge, "push", body.as_bytes()).expect_err(body);
            assert!(!reason.is_empty() && reason.len() < 300, "{reason}");
        }
    }
    let long = push.replace("Fix the login", &"\\u001b[31mx".repeat(1_000));
    let What::Push { title: Some(title), .. } = said(Forge::Github, "push", long.as_bytes()).expect("reads").what
    else {
        panic!("a push")
    };
    assert!(title.chars().count() <= 200 && !title.contains('\u{1b}'));
}

fn headers(forge: Forge, lines: &[(&str, &str)]) -> Result<Headers, Refused> {
    let lines: BTreeMap<&str, &str> = lines.iter().copied().collect();
    Headers::read(forge, |name| lines.get(name).copied())
}

fn secrets(list: &str) -> Vec<Secret> {
    Secret::parse_list(list).expect("secrets")
}

/// From GitHub's page on validating deliveries.
const HUB: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
const HUB_SECRET: &str = "It's a Secret to Everybody";
const HUB_BODY: &[u8] = b"Hello, World!";

#[test]
fn the_signature_that_github_published_is_right() {
    let read = headers(
        Forge::Github,
        &[
            ("x-github-event", "push"),
            ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
            ("x-hub-signature-256", HUB),
        ],
    )
    .expect("headers");
    assert_eq!((&*read.event, &*read.forge_id(HUB_BODY)), ("push", "72d3162e-cc78-11e3-81ab-4c9367dc0958"));
    assert_eq!(read.verify(&secrets(HUB_SECRET), HUB_BODY, 0), Ok(()));
    // While a secret changes, both count.
    assert_eq!(read.verify(&secrets(&format!("another-secret,{HUB_SECRET}")), HUB_BODY, 0), Ok(()));
    for (secrets, body) in
        [(secrets("another-secret"), HUB_BODY), (secrets(HUB_SECRET), b"Hello, World"), (Vec::new(), HUB_BODY)]
    {
        let refused = read.verify(&secrets, body, 0).expect_err("not signed so");
        assert_eq!(refused.fault, Fault::Signature, "{refused}");
    }
}

#[test]
fn gitea_signs_in_its_own_header_or_in_githubs() {
    let bare = HUB.trim_start_matches("sha256=");
    for (event, delivery, header, value) in [
        ("x-gitea-event", "x-gitea-delivery", "x-gitea-signature", bare),
        ("x-forgejo-event", "x-forgejo-delivery", "x-forgejo-signature", bare),
        ("x-gitea-event", "x-gitea-delivery", "x-hub-signature-256", HUB),
    ] {
        let read = headers(Forge::Gitea, &[(event, "push"), (delivery, "1"), (header, value)]).expect("headers");
        assert_eq!(read.verify(&secrets(HUB_SECRET), HUB_BODY, 0), Ok(()), "{header}");
        assert!(read.verify(&secrets("another-secret"), HUB_BODY, 0).is_err(), "{header}");
    }
}

/// From the libraries of Standard Webhooks.
const STANDARD_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const STANDARD_BODY: &[u8] = br#"{"test": 2432232314}"#;
const STANDARD_AT_S: i64 = 1_614_265_330;
const STANDARD: [(&str, &str); 4] = [
    ("x-gitlab-event", "Push Hook"),
    ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
    ("webhook-timestamp", "1614265330"),
    ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
];

#[test]
fn the_standard_webhook_that_its_libraries_test_with_is_right_within_its_time() {
    let read = headers(Forge::Gitlab, &STANDARD).expect("headers");
    assert_eq!(&*read.forge_id(STANDARD_BODY), "msg_p5jXN8AQM9LWM0D4loKWxJek");
    for (now_s, right) in [(0, true), (300, true), (-300, true), (301, false), (-301, false)] {
        let verified = read.verify(&secrets(STANDARD_SECRET), STANDARD_BODY, STANDARD_AT_S + now_s);
        assert_eq!(verified.is_ok(), right, "{now_s}: {verified:?}");
    }
    let refused = read.verify(&secrets(STANDARD_SECRET), STANDARD_BODY, STANDARD_AT_S + 400).expect_err("old");
    assert!(refused.message.contains("400 s before now"), "{refused}");
    assert!(read.verify(&secrets(STANDARD_SECRET), b"{}", STANDARD_AT_S).is_err());
    let plain = read.verify(&secrets("a-plain-secret"), STANDARD_BODY, STANDARD_AT_S).expect_err("no key");
    assert!(plain.message.contains("whsec_"), "{plain}");
    // Two signatures while the secret changes.
    let both = format!("v1,{} {}", "A".repeat(43) + "=", STANDARD[3].1);
    let rotated = headers(Forge::Gitlab, &[STANDARD[0], STANDARD[1], STANDARD[2], ("webhook-signature", &both)]);
    assert_eq!(rotated.expect("headers").verify(&secrets(STANDARD_SECRET), STANDARD_BODY, STANDARD_AT_S), Ok(()));
}

#[test]
fn gitlabs_token_is_compared_with_every_secret() {
    let lines = [("x-gitlab-event", "Push Hook"), ("x-gitlab-event-uuid", "u1"), ("x-gitlab-token", "gitlab-secret")];
    let read = headers(Forge::Gitlab, &lines).expect("headers");
    assert_eq!(read.verify(&secrets("old-secret,gitlab-secret"), b"{}", 0), Ok(()));
    assert!(read.verify(&secrets("gitlab-secret-2"), b"{}", 0).is_err());
    // An event's name may be shared by what a hook sets off.
    assert_ne!(read.forge_id(b"{}"), read.forge_id(b"{ }"));
    // Signed and with a token: where there is a signing token, the signature counts.
    let both = [STANDARD[0], STANDARD[1], STANDARD[2], STANDARD[3], ("x-gitlab-token", "gitlab-secret")];
    let read = headers(Forge::Gitlab, &both).expect("headers");
    assert_eq!(read.verify(&secrets("gitlab-secret"), b"{}", 0), Ok(()));
    assert!(read.verify(&secrets(&format!("gitlab-secret,{STANDARD_SECRET}")), b"{}", STANDARD_AT_S).is_err());
}

#[test]
fn a_missing_header_is_a_refusal() {
    let long = "x".repeat(129);
    for (forge, lines, fault, named) in [
        (Forge::Github, vec![], Fault::Headers, "x-github-event"),
        (Forge::Github, vec![("x-github-event", "push")], Fault::Headers, "x-github-delivery"),
        (Forge::Github, vec![("x-github-event", long.as_str())], Fault::Headers, "is no name"),
        (
            Forge::Github,
            vec![("x-github-event", "push"), ("x-github-delivery", "1")],
            Fault::Unsigned,
            "X-Hub-Signature-256",
        ),
        (
            Forge::Github,
            vec![("x-github-event", "push"), ("x-github-delivery", "1"), ("x-hub-signature-256", "sha1=x")],
            Fault::Unsigned,
            "sha256=",
        ),
        (
            Forge::Github,
            vec![("x-github-event", "push"), ("x-github-delivery", "1"), ("x-hub-signature-256", "sha256=zz")],
            Fault::Unsigned,
            "64 hexadecimal",
        ),
        (
            Forge::Gitea,
            vec![("x-gitea-event", "push"), ("x-gitea-delivery", "1"), ("x-gitea-signature", "")],
            Fault::Unsigned,
            "X-Gitea-Signature",
        ),
        (
            Forge::Gitlab,
            vec![("x-gitlab-event", "push"), ("x-gitlab-event-uuid", "1"), ("x-gitlab-token", "")],
            Fault::Unsigned,
            "X-Gitlab-Token",
        ),
        (
            Forge::Gitlab,
            vec![("x-gitlab-event", "push"), ("webhook-id", "1"), ("webhook-signature", "v1,AA==")],
            Fault::Unsigned,
            "webhook-timestamp",
        ),
        (
            Forge::Gitlab,
            vec![STANDARD[0], STANDARD[1], STANDARD[2], ("webhook-signature", "v1a,AA==")],
            Fault::Unsigned,
            "`v1`",
        ),
    ] {
        let refused = headers(forge, &lines).expect_err(named);
        assert_eq!(refused.fault, fault, "{refused}");
        assert!(refused.message.contains(named), "{refused}");
    }
}

#[test]
fn a_body_that_was_altered_on_the_way_is_told_from_noise() {
    let lines = [("x-github-event", "push"), ("x-github-delivery", "1"), ("x-hub-signature-256", HUB)];
    let read = headers(Forge::Github, &lines).expect("headers");
    let altered = read.verify(&secrets(HUB_SECRET), b"{\"zen\": \"x\"}", 0).expect_err("another body");
    assert!(altered.message.contains("altered on the way, by a proxy or tunnel"), "{altered}");
    let noise = read.verify(&secrets(HUB_SECRET), b"{\"zen", 0).expect_err("another body");
    assert!(noise.message.contains("was cut"), "{noise}");
}
