//! What the configuration may say of builds, and how it is told what it may not.

use super::{LogSettings, PipelineSettings, Repository, SearchSettings};
use crate::builds::happening::Forge;
use crate::core::inventory::SecretRef;
use crate::inventory::config;

const REPOSITORY: &str =
    "[[repository]]\nname = \"acme/app\"\nforge = \"github\"\nurl = \"https://github.com/acme/app\"\n";

fn settings(text: &str) -> PipelineSettings {
    let config = config::read(text, "/etc/leasehold/leasehold.toml").unwrap_or_else(|error| panic!("{error}"));
    config.pipelines.expect("a repository").resolve().expect("no secrets")
}

fn repository(text: &str) -> Repository {
    Repository::clone(settings(text).repositories.values().next().expect("one"))
}

#[test]
fn everything_that_can_be_said_is_read() {
    let settings = settings(
        r#"
        public_url = "https://lab.example/"
        [hooks]
        gitea = { secret_files = [] }
        [[repository]]
        name = "acme/app"
        forge = "github"
        url = "https://github.com/acme/app.git"
        api = "https://github.example/api/v3/"
        user = "bot"
        token = { env = "GITHUB_TOKEN" }
        statuses = true
        pools = ["phone", "port"]
        secrets = { DEPLOY_KEY = { file = "deploy.key" } }
        mounts = ["/cache/"]
        [[repository.pipeline]]
        name = "test"
        on = ["push"]
        run = "make"
        needs = ["phone"]
        [[repository]]
        name = "group/sub/tool"
        forge = "gitlab"
        url = "ssh://git@gitlab.example:2222/group/sub/tool.git"
        [logs]
        url = "s3://bucket/prefix/"
        limit = "50MB"
        retention = "7d"
        keep = 10
        [search]
        url = "http://127.0.0.1:9200/"
        user = "admin"
        password = { env = "SEARCH_PASSWORD" }
        "#,
    );
    assert_eq!(&*settings.public_url, "https://lab.example");
    let app = settings.repository(Forge::Github, "Acme/App").expect("whatever its case");
    assert_eq!(
        (&*app.url, app.api.as_deref()),
        ("https://github.com/acme/app.git", Some("https://github.example/api/v3"))
    );
    assert_eq!((&*app.user, &app.token, app.statuses), ("bot", &Some(SecretRef::Env("GITHUB_TOKEN".into())), true));
    assert_eq!(app.pools.iter().map(|pool| pool.as_str()).collect::<Vec<_>>(), ["phone", "port"]);
    assert_eq!(app.secrets["DEPLOY_KEY"], SecretRef::File("/etc/leasehold/deploy.key".into()));
    assert_eq!(app.mounts, ["/cache".into()]);
    assert_eq!(app.pipelines.as_ref().map(|pipelines| pipelines.len()), Some(1));
    assert!(settings.repository(Forge::Gitea, "acme/app").is_none(), "another forge's is another repository");
    let tool = settings.repository(Forge::Gitlab, "group/sub/tool").expect("there");
    assert_eq!((tool.api.as_deref(), tool.statuses), (Some("https://gitlab.example/api/v4"), false));
    let logs = LogSettings {
        url: Some("s3://bucket/prefix".into()),
        limit_bytes: 50_000_000,
        retention_ms: 7 * 86_400_000,
        keep: 10,
    };
    assert_eq!(settings.logs, logs);
    let search = SearchSettings {
        url: Some("http://127.0.0.1:9200".into()),
        user: Some("admin".into()),
        password: Some(SecretRef::Env("SEARCH_PASSWORD".into())),
    };
    assert_eq!(settings.search, search);
}

#[test]
fn little_is_enough() {
    let mut settings = settings(REPOSITORY);
    settings.reached_at("http://127.0.0.1:5327/");
    assert_eq!((&*settings.public_url, &settings.logs), ("http://127.0.0.1:5327", &LogSettings::default()));
    assert_eq!(settings.search, SearchSettings::default());
    let app = &settings.repositories["acme/app"];
    assert_eq!((app.api.as_deref(), &*app.user), (Some("https://api.github.com"), "x-access-token"));
    assert_eq!((app.statuses, app.pools.len(), app.pipelines.is_none()), (false, 0, true));
    let none = config::read("listen = \"127.0.0.1:0\"", "leasehold.toml").expect("reads");
    assert_eq!(none.pipelines, None);
}

#[test]
fn a_forge_is_known_by_the_url() {
    let of = |forge: &str, url: &str| {
        let text = format!("[[repository]]\nname = \"a/b\"\nforge = \"{forge}\"\nurl = \"{url}\"");
        let repository = repository(&text);
        (repository.url.to_string(), repository.api.map(|api| api.to_string()))
    };
    let api = |url: &str| Some(url.to_owned());
    assert_eq!(of("github", "git@github.com:a/b.git").1, api("https://api.github.com"));
    assert_eq!(of("github", "https://ghe.example/a/b").1, api("https://ghe.example/api/v3"));
    assert_eq!(of("forgejo", "http://127.0.0.1:3000/a/b").1, api("http://127.0.0.1:3000/api/v1"));
    assert_eq!(of("gitlab", "ssh://git@[::1]:22/a/b").1, api("https://[::1]/api/v4"));
    assert_eq!(of("gitea", "repos/b.git"), ("/etc/leasehold/repos/b.git".to_owned(), None));
    assert_eq!(of("gitea", "file:///srv/b.git"), ("file:///srv/b.git".to_owned(), None));
}

#[test]
fn every_mistake_is_named_with_its_place() {
    for (line, wrong, column) in [
        ("nme = \"x\"", "did you mean \"name\"?", 1),
        ("api = \"api.github.com\"", "api of [[repository]] is no URL", 7),
        ("api = \"https://u:hunter2@x\"", "without a user", 7),
        ("token = \"hunter2\"", "never the value itself", 9),
        ("token = { env = \"A\", file = \"b\" }", "never the value itself", 9),
        ("user = \"bot\"", "user goes with a token", 8),
        ("statuses = true", "statuses = true needs a token", 12),
        ("pools = [\"Phone\"]", "is not a valid pool name", 10),
        ("pools = [\"executor\"]", "has its executor by itself", 10),
        ("pools = \"phone\"", "expected a list of texts", 9),
        ("secrets = { \"A-B\" = { env = \"X\" } }", "is no variable's name", 13),
        ("secrets = { LEASEHOLD_X = { env = \"X\" } }", "leasehold's own variables", 13),
        ("secrets = { A = \"hunter2\" }", "secret A: expected where the broker finds it", 17),
        ("mounts = [\"cache\"]", "expected an absolute path", 11),
        ("mounts = [\"/a/../b\"]", "expected an absolute path", 11),
        ("[[repository.pipeline]]\nname = \"t\"\non = []\nrun = \"x\"\nneeds = [\"phone\"]", "it may use: none", 10),
        ("[[repository]]\nname = \"acme/App\"\nforge = \"gitlab\"\nurl = \"x\"", "is already in line 2", 8),
        ("[[repository]]\nname = \"app\"", "is no repository's name", 8),
        ("[[repository]]\nname = \"a/../b\"", "is no repository's name", 8),
        ("[[repository]]\nname = \"a/b\"\nforge = \"svn\"", "expected \"github\", \"gitlab\" or \"gitea\"", 9),
        ("[[repository]]\nname = \"a/b\"\nforge = \"gitea\"\nurl = \"https://bot:hunter2@x/y\"", "user or password", 7),
        ("[[repository]]\nname = \"a/b\"\nforge = \"gitea\"\nurl = \"ext::sh -c x\"", "nothing that git may fetch", 7),
        ("[[repository]]\nname = \"a/b\"\nforge = \"gitea\"\nurl = \"--upload-pack=x\"", "nothing that git may", 7),
        ("[[repository]]\nname = \"a/b\"\nforge = \"gitea\"\nurl = \"svn://x/y\"", "unknown scheme", 7),
        ("[logs]\nurl = \"s3://\"", "expected \"file:///folder\" or", 7),
        ("[logs]\nlimit = \"1kB\"", "from 1MB to 1GB", 9),
        ("[logs]\nretention = \"1h\"", "from 1d to", 13),
        ("[search]\nurl = \"x\"", "url of [search] is no URL", 7),
        ("[search]\nurl = \"http://x\"\nuser = \"y\"", "expected both or neither", 1),
        ("[hooks]\ngithub = { secret_files = [\"\"] }", "expected its path", 28),
        ("[hooks]\ngitlb = {}", "did you mean \"gitlab\"?", 1),
    ] {
        let text = format!("{REPOSITORY}{line}\n");
        let error = config::read(&text, "leasehold.toml").expect_err(line);
        assert!(error.message.contains(wrong) && !error.message.contains("hunter2"), "{line}: {error}");
        assert_eq!(error.column, column, "{line}: {error}");
    }
}

#[test]
fn what_is_for_builds_needs_a_repository() {
    for line in ["public_url = \"http://x\"", "[hooks]", "[logs]", "[search]\nurl = \"http://x\""] {
        let error = config::read(line, "leasehold.toml").expect_err(line);
        assert!(error.message.contains("there is no [[repository]]"), "{error}");
    }
}
