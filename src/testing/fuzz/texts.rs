//! Texts that are read: frames, needs, expressions, files, the journal.
//!
//! Reading is total: every text gives a value or an error for people, and neither panics, nor
//! takes long, nor grows beyond its input. What can be printed reads the same again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, LazyLock};
use std::thread;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::core::apply::Declared;
use crate::core::broker::Broker;
use crate::core::cel::{Answers, Program};
use crate::core::command::{Command, Reply};
use crate::core::event::Event;
use crate::core::invariants;
use crate::core::inventory::{Marks, Origin, Resource, ResourceSpec};
use crate::core::limits::{CEL_BYTES_MAX, Limits, NEED_BYTES_MAX};
use crate::core::need::{Need, check_needs};
use crate::core::tables::Tables;
use crate::core::types::{Key, LabTime, ResourceId, ResourceName, Value};
use crate::inventory::pipelines::{Repository, pipeline_file};
use crate::inventory::{InventoryError, config as config_file, file};
use crate::protocol::builds::LOG_CHUNK_BYTES_MAX;
use crate::protocol::log_times::{LOG_MOMENT_MS_MAX, LOG_TIMES_BYTES_MAX, LineTimes};
use crate::server::websocket::message::{self, Read};

/// What a message for people may have beside what it quotes of the input, bytes.
const MESSAGE_BYTES_MAX: usize = 4096;
/// Resources that applying is tried with: a range makes many of few bytes, and checking all of
/// the books takes its time.
const APPLIED_MAX: usize = 300;
/// The stack of a runtime's thread, on which expressions are evaluated.
const STACK_BYTES: usize = 2 * 1024 * 1024;

fn as_text(input: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(input)
}

/// A text frame of a stranger: a call, or an answer that is one line of JSON and bounded.
pub fn frames(input: &[u8]) -> bool {
    match message::read(&as_text(input), IpAddr::V4(Ipv4Addr::LOCALHOST)) {
        Read::Call(..) => true,
        Read::Nothing => false,
        Read::Refused(id, error) => {
            let answer = message::failure(id.as_ref(), &error);
            let parsed: Result<serde_json::Value, _> = serde_json::from_str(&answer);
            assert!(parsed.is_ok_and(|json| json["error"]["message"].is_string()), "no answer: {answer}");
            assert!(!answer.contains('\n') && answer.len() <= MESSAGE_BYTES_MAX, "{} bytes: {answer}", answer.len());
            false
        }
    }
}

/// A NEED: what is printed of it is no longer, and reads the same again, as does its JSON.
pub fn need(input: &[u8]) -> bool {
    let text = as_text(input);
    match Need::parse(&text) {
        Ok(need) => {
            let printed = need.to_string();
            assert!(text.len() <= NEED_BYTES_MAX, "a need of {} bytes was taken", text.len());
            assert!(printed.len() <= text.len(), "{text:?} is printed as {printed:?}, which is longer");
            assert_eq!(Need::parse(&printed).as_ref(), Ok(&need), "{text:?} is printed as {printed:?}");
            assert!(need.shown().len() <= MESSAGE_BYTES_MAX, "{}", need.shown());
            same_again(&need);
            if let Err(refusal) = check_needs(&[need.clone(), need], None, None) {
                assert!(refusal.to_string().len() <= MESSAGE_BYTES_MAX, "{refusal}");
            }
            true
        }
        Err(error) => {
            assert!(error.to_string().len() <= MESSAGE_BYTES_MAX, "{error}");
            assert!(error.at <= text.chars().count() + 1, "{text:?}: {error}");
            false
        }
    }
}

/// A CEL expression over labels, on as small a stack as a broker has.
pub fn cel(input: &[u8]) -> bool {
    let text = as_text(input);
    let evaluated = thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, || evaluate(&text));
        thread.expect("a thread can be started").join()
    });
    evaluated.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn evaluate(text: &str) -> bool {
    let program = match Program::parse(text) {
        Ok(program) => program,
        Err(problem) => {
            assert!(problem.len() <= MESSAGE_BYTES_MAX, "{problem}");
            return false;
        }
    };
    assert!(text.len() <= CEL_BYTES_MAX, "an expression of {} bytes was taken", text.len());
    let mut answers = Answers::default();
    for resource in &*RESOURCES {
        let holds = program.holds(resource);
        assert_eq!(program.holds(resource), holds, "{text:?} is once this, once that");
        assert_eq!(
            answers.holds(&program, resource),
            holds,
            "{text:?} is not of {} what it is of its like",
            resource.id
        );
    }
    true
}

/// What expressions are asked of: labels of every type, alike and not, missing, and odd.
static RESOURCES: LazyLock<Vec<Resource>> = LazyLock::new(|| {
    let long = "a".repeat(4096);
    let labels: [&[(&str, Value)]; 6] = [
        &[],
        &[("os", Value::Text("android".into())), ("api", Value::Int(34)), ("ok", Value::Bool(true))],
        &[("os", Value::Text("android".into())), ("api", Value::Float(34.0)), ("ok", Value::Bool(true))],
        &[("os", Value::Text("android".into())), ("api", Value::Int(34)), ("x-y", Value::Text("ß\u{0}".into()))],
        &[("os", Value::Int(i64::MIN)), ("api", Value::Int(i64::MAX)), ("ok", Value::Float(f64::MIN_POSITIVE))],
        &[("os", Value::Text(long.as_str().into())), ("api", Value::Float(f64::MAX)), ("ok", Value::Bool(false))],
    ];
    (1..).zip(labels).map(|(id, labels)| resource(id, labels)).collect()
});

fn resource(id: u64, labels: &[(&str, Value)]) -> Resource {
    let key = |text: &str| Key::parse(text, "label").expect("a key");
    let spec = ResourceSpec {
        name: ResourceName::parse(&format!("p{id}")).expect("a name"),
        pool: key("phone"),
        labels: labels.iter().map(|(label, value)| (key(label), value.clone())).collect(),
        properties: BTreeMap::new(),
        secrets: BTreeMap::new(),
        slots: 1,
    };
    Resource {
        id: ResourceId(id),
        spec: Arc::new(spec),
        origin: Origin::File,
        marks: Marks::default(),
        pending: None,
        last_used: LabTime(0),
        holders: BTreeSet::new(),
        slots_used: 0,
        cooling: Vec::new(),
    }
}

/// An inventory file: it is what it says on every reading, each name is there once, and a broker
/// that takes it has sound books.
pub fn inventory(input: &[u8]) -> bool {
    let text = as_text(input);
    let declared = file::read(&text, "lab.toml");
    match &declared {
        Ok(declared) => {
            let names: BTreeSet<_> = declared.resources.iter().map(|declared| &declared.spec.name).collect();
            assert_eq!(names.len(), declared.resources.len(), "a name is there twice");
            if declared.resources.len() <= APPLIED_MAX {
                assert_eq!(file::read(&text, "lab.toml").as_ref(), Ok(declared));
                apply(declared);
            }
        }
        Err(error) => bounded(&text, error),
    }
    declared.is_ok()
}

fn apply(declared: &Declared) {
    let mut broker = Broker::new(&Tables::default(), Limits::default()).expect("an empty store");
    broker.decide(LabTime(0), Command::Start);
    let again = Command::Apply { declared: Arc::new(declared.clone()), prune: true, confirmed: true, dry_run: false };
    let first = broker.decide(LabTime(1), again.clone());
    if let Err(broken) = invariants::check(&broker) {
        panic!("{broken}\nafter {first:?}");
    }
    // The same again is no change, unless something is renamed: who had that name is gone.
    let was_renamed = declared.resources.iter().any(|declared| declared.was.is_some());
    if matches!(first, Reply::Applied { .. }) && !was_renamed {
        broker.take_batch();
        let second = broker.decide(LabTime(2), again);
        assert!(broker.events().is_empty(), "applied twice: {second:?} makes {:?}", broker.events());
    }
}

/// `leasehold.toml`.
pub fn config(input: &[u8]) -> bool {
    let text = as_text(input);
    let read = config_file::read(&text, "etc/leasehold.toml");
    match &read {
        Ok(config) => {
            let _ = config.limits.of_core(&Limits::default());
            assert_eq!(config_file::read(&text, "etc/leasehold.toml").as_ref(), Ok(config));
        }
        Err(error) => bounded(&text, error),
    }
    read.is_ok()
}

/// `.leasehold.toml`, of whoever may push: nothing comes of it that the broker's configuration does not allow.
pub fn pipelines(input: &[u8]) -> bool {
    let text = as_text(input);
    let read = pipeline_file::read(&text, pipeline_file::FILE_NAME, &REPOSITORY);
    match &read {
        Ok(pipelines) => {
            assert_eq!(pipeline_file::read(&text, pipeline_file::FILE_NAME, &REPOSITORY).as_ref(), Ok(pipelines));
            for pipeline in pipelines {
                same_again(pipeline);
                let executor = pipeline.plan.executor_need();
                let needs = pipeline.plan.needs.iter().chain([&executor]);
                let needs: Vec<Need> = needs.map(|need| Need::parse(need).expect("a need")).collect();
                assert_eq!(check_needs(&needs, None, None), Ok(()));
                let (executor, others) = needs.split_last().expect("there is the executor");
                assert_eq!((executor.pool.as_str(), executor.alias.as_str()), ("executor", "executor"));
                assert!(others.iter().all(|need| need.pool.as_str() == "phone"), "{others:?}");
                assert!(pipeline.plan.secrets.iter().all(|name| name == "KEY"), "{:?}", pipeline.plan.secrets);
                let mounts = pipeline.plan.container.iter().flat_map(|container| &container.mounts);
                assert!(mounts.clone().all(|mount| mount.starts_with("/cache") && !mount.contains("/../")));
            }
        }
        Err(error) => bounded(&text, error),
    }
    read.is_ok()
}

/// A repository that may use few things.
static REPOSITORY: LazyLock<Repository> = LazyLock::new(|| {
    let text = "[[repository]]\nname = \"a/b\"\nforge = \"gitea\"\nurl = \"/b.git\"\npools = [\"phone\"]\n\
                mounts = [\"/cache\"]\nsecrets = { KEY = { env = \"KEY\" } }";
    let config = config_file::read(text, "leasehold.toml").expect("a configuration");
    let settings = config.pipelines.expect("a repository").resolve().expect("no secret that is not there");
    Repository::clone(&settings.repositories["a/b"])
});

/// An error about a file may quote a line of it, with a caret below.
fn bounded(text: &str, error: &InventoryError) {
    let shown = error.to_string();
    assert!(shown.len() <= MESSAGE_BYTES_MAX + 3 * text.len(), "{} bytes: {shown}", shown.len());
}

/// The journal, an event a line: what can be read prints, and reads the same again.
pub fn journal(input: &[u8]) -> bool {
    let mut were_read = false;
    for line in input.split(|byte| *byte == b'\n') {
        if let Ok(event) = serde_json::from_slice::<Event>(line) {
            same_again(&event);
            assert!(!event.kind().is_empty(), "{event:?}");
            were_read = true;
        }
    }
    were_read
}

/// When lines of a log began, as an agent says: what is read is bounded, and prints as the same, no longer.
pub fn log_times(input: &[u8]) -> bool {
    let Ok(times) = LineTimes::parse(input) else { return false };
    let printed = times.to_string();
    assert!(printed.len() <= input.len() && input.len() <= LOG_TIMES_BYTES_MAX, "{} bytes", printed.len());
    assert_eq!(LineTimes::parse(printed.as_bytes()).as_ref(), Ok(&times), "it is printed as {printed:?}");
    let lines: u64 = times.groups().iter().map(|together| u64::from(together.lines)).sum();
    let last_ms = times.groups().iter().fold(times.from_ms(), |at_ms, together| at_ms + together.after_ms);
    assert!(lines == times.lines() && lines <= LOG_CHUNK_BYTES_MAX as u64, "{lines} lines");
    assert!(last_ms <= LOG_MOMENT_MS_MAX, "{last_ms} ms");
    true
}

fn same_again<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let printed = serde_json::to_string(value).expect("what is kept can be printed");
    let again: Result<T, _> = serde_json::from_str(&printed);
    assert_eq!(again.as_ref().ok(), Some(value), "it is printed as {printed}, which reads as {again:?}");
    assert_eq!(again.ok().and_then(|again| serde_json::to_string(&again).ok()), Some(printed));
}
