//! A `.leasehold.toml` with a mistake: whoever pushed it reads so at the forge, and again when it is mended.

use serde_json::Value;

use super::common::broker::Broker;
use super::common::forge::delivery::{Delivery, SECRET};
use super::common::forge::{Forge, Kind, Shown, TOKEN};
use super::common::http;
use super::common::wait::eventually;
use super::fake::{APP, PHONE, Repo};

const CONTEXT: &str = "leasehold";
const FILE: &str = "[[pipeline]]\nname = \"unit\"\non = [\"push\"]\nneeds = [\"phone\"]\nrun = \"make test\"\n";

fn config(repo: &Repo, forge: &Forge, pools: &str) -> String {
    format!(
        "public_url = \"https://lab.example\"\n[[repository]]\nname = \"{APP}\"\nforge = \"github\"\nurl = \"{}\"\n\
         api = \"{}\"\ntoken = {{ env = \"FORGE_TOKEN\" }}\npools = [{pools}]\n",
        repo.path().display(),
        forge.api()
    )
}

fn broker(repo: &Repo, forge: &Forge) -> Broker {
    let hooked = Broker::with(PHONE).config(config(repo, forge, "\"port\"")).env("FORGE_TOKEN", TOKEN);
    hooked.env("LEASEHOLD_GITHUB_WEBHOOK_SECRET", SECRET).start()
}

/// Pushes a `.leasehold.toml` of this text, and delivers that.
#[track_caller]
fn push(repo: &Repo, forge: &Forge, text: &str) -> (String, Delivery) {
    let before = repo.git(&["rev-parse", "HEAD"]);
    std::fs::write(repo.path().join(".leasehold.toml"), text).expect("a file can be written");
    let after = repo.commit("pipelines");
    forge.know(APP, &after);
    let delivery = Delivery::push(Kind::Github, APP, "main", &before, &after);
    (after, delivery)
}

/// Delivers, and waits until that was worked on.
#[track_caller]
fn work(broker: &Broker, delivery: &Delivery) -> Value {
    let answer = delivery.send(broker.port());
    assert_eq!(answer.status, 202, "{answer:?}");
    worked_on(broker, &answer.json()["delivery"])
}

#[track_caller]
fn worked_on(broker: &Broker, id: &Value) -> Value {
    eventually(&format!("delivery {id} is worked on"), || {
        let shown = broker.http("GET", &format!("/v1/deliveries/{id}"), None).ok();
        (shown["outcome"] != "accepted").then_some(shown)
    })
}

fn page(broker: &Broker, shown: &Shown) -> String {
    let path = shown.target_url.strip_prefix("https://lab.example").expect("the broker's own");
    let answer = http::request(broker.port(), "GET", path, &[], None);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

#[test]
fn a_mistake_is_shown_at_the_forge_and_taken_back_when_the_broker_is_mended() {
    let repo = Repo::new();
    let forge = Forge::start(Kind::Github);
    let mut broker = broker(&repo, &forge);
    let (sha, delivery) = push(&repo, &forge, FILE);
    let failed = work(&broker, &delivery);
    assert_eq!(failed["outcome"], "failed", "{failed}");
    let shown = forge.comes_to_show(APP, &sha, CONTEXT, "error");
    assert!(shown.description.starts_with(".leasehold.toml:4:10: acme/app may not use the pool phone"), "{shown:?}");
    assert_eq!(shown.target_url, format!("https://lab.example/deliveries/{}", failed["delivery"]));
    let page = page(&broker, &shown);
    assert!(page.contains("it may use: port (pools of its [[repository]]"), "{page}");
    // Redelivered by the forge once the configuration allows it, to a broker that was started anew.
    std::fs::write(broker.dir().join("leasehold.toml"), config(&repo, &forge, "\"phone\", \"port\"")).expect("written");
    broker.term();
    broker.start();
    let done = work(&broker, &delivery);
    assert_eq!((&done["outcome"], &done["started"][0]), (&"done".into(), &1.into()), "{done}");
    let shown = forge.comes_to_show(APP, &sha, CONTEXT, "success");
    assert_eq!(shown.target_url, format!("https://lab.example/deliveries/{}", done["delivery"]));
    forge.comes_to_show(APP, &sha, "leasehold/unit", "pending");
    assert_eq!(forge.history(APP, &sha, CONTEXT).len(), 2);
}

#[test]
fn a_file_that_cannot_be_read_is_a_mistake_and_one_without_is_not_told_of() {
    let repo = Repo::new();
    let forge = Forge::start(Kind::Github);
    let broker = broker(&repo, &forge);
    let (first, delivery) = push(&repo, &forge, "[[pipeline]]\nname = unit\n");
    work(&broker, &delivery);
    let shown = forge.comes_to_show(APP, &first, CONTEXT, "error");
    assert!(shown.description.starts_with(".leasehold.toml:2:"), "{shown:?}");
    let (second, delivery) = push(&repo, &forge, &"# long\n".repeat(40_000));
    work(&broker, &delivery);
    let shown = forge.comes_to_show(APP, &second, CONTEXT, "error");
    assert!(shown.description.contains("larger than"), "{shown:?}");
    let (third, delivery) = push(&repo, &forge, &FILE.replace("needs = [\"phone\"]\n", ""));
    work(&broker, &delivery);
    forge.comes_to_show(APP, &third, "leasehold/unit", "pending");
    assert!(forge.shown(APP, &third, CONTEXT).is_none(), "nothing was wrong with it");
    assert_eq!(forge.history(APP, &first, CONTEXT).len(), 1, "the older commit has its mistake still");
}

#[test]
fn what_the_forge_refuses_is_shown_with_the_delivery() {
    let repo = Repo::new();
    let forge = Forge::start(Kind::Github);
    let broker = broker(&repo, &forge);
    let before = repo.git(&["rev-parse", "HEAD"]);
    std::fs::write(repo.path().join(".leasehold.toml"), FILE).expect("a file can be written");
    // The forge knows the repository, and not this commit.
    forge.know(APP, &before);
    let after = repo.commit("pipelines");
    let failed = work(&broker, &Delivery::push(Kind::Github, APP, "main", &before, &after));
    let path = format!("/v1/deliveries/{}", failed["delivery"]);
    let trouble = eventually("the trouble is shown", || {
        broker.http("GET", &path, None).ok()["status_trouble"].as_str().map(str::to_owned)
    });
    assert!(trouble.contains("No commit found"), "{trouble}");
    let shown = broker.sh(&format!("hook show {}", failed["delivery"])).exits(0).stdout;
    assert!(shown.contains("not told") && shown.contains("No commit found"), "{shown}");
}

#[test]
fn a_delivery_is_worked_on_again_from_its_page_and_from_nowhere_else() {
    let repo = Repo::new();
    let forge = Forge::start(Kind::Github);
    let broker = broker(&repo, &forge);
    let failed = work(&broker, &push(&repo, &forge, FILE).1);
    let path = format!("/deliveries/{}/redeliver", failed["delivery"]);
    let press = |origin: &[(&str, &str)]| http::request(broker.port(), "POST", &path, origin, None);
    assert_eq!((press(&[]).status, press(&[("origin", "https://evil.example")]).status), (403, 403));
    let own = format!("http://127.0.0.1:{}", broker.port());
    let again = press(&[("origin", &own)]);
    assert_eq!(again.status, 303, "{again:?}");
    let shown = worked_on(&broker, &2.into());
    assert_eq!((&shown["repeats"], &shown["outcome"]), (&failed["delivery"], &"failed".into()), "{shown}");
    let missing = http::request(broker.port(), "GET", "/deliveries/99", &[], None);
    assert_eq!(missing.status, 404, "{missing:?}");
}
