//! `build show`: one build, whole.

use super::{age, lasted, state};
use crate::cli::broker::Broker;
use crate::cli::output::{self, Details, Screen};
use crate::cli::{Failure, exit_code, words};
use crate::clock::wall_now_ms;
use crate::protocol::builds::{BuildInfo, BuildPick};
use crate::units::{rfc3339, show_bytes};

/// Shows it.
pub(super) fn show(broker: &Broker, json: bool, build: u64) -> Result<u8, Failure> {
    let info: BuildInfo = broker.get(&format!("/v1/builds/{build}"))?;
    if json {
        output::print(&output::json(&info)?)?;
    } else {
        output::print(&details(&info, wall_now_ms()).render(Screen::of_stdout()))?;
    }
    Ok(exit_code::DONE)
}

fn details(build: &BuildInfo, now_ms: i64) -> Details {
    let number = build.build;
    let moment = |at_ms: i64| format!("{} ({})", words::to_seconds(&rfc3339(at_ms)), age(at_ms, now_ms));
    let mut details = Details::new();
    details.fact(&format!("build #{number}"), state(build));
    details.fact_if("why", build.reason.as_deref());
    details.fact("what", format!("{} of {}, pipeline {}", build.line, build.repository, build.pipeline));
    let fork = if build.fork { ", from a fork" } else { "" };
    details.fact("commit", format!("{}{fork}", build.sha));
    details.fact_if("title", build.title.as_deref());
    details.fact("cause", format!("{}, by {}", build.cause, build.by));
    details.fact_if("allowed by", build.approved_by.as_deref());
    details.fact_if("superseded by", build.superseded_by.map(|newer| format!("#{newer}")));
    for need in &build.needs {
        details.fact("need", need.as_str());
    }
    details.fact_if("agent", build.agent.as_deref());
    for BuildPick { alias, pool, name, slots } in &build.resources {
        let slots = if *slots > 1 { format!(", {slots} slots") } else { String::new() };
        let alias = if alias == pool { String::new() } else { format!(", as {alias}") };
        details.fact(if build.ended_ms.is_some() { "had" } else { "has" }, format!("{pool} {name}{slots}{alias}"));
    }
    details.fact_if("lease", build.lease.map(|lease| lease.to_string()));
    details.fact_if("claim", build.claim.map(|claim| format!("c{claim}; more by `leasehold why c{claim}`")));
    if build.attempt > 1 {
        details.fact("attempt", build.attempt.to_string());
    }
    details.fact_if("exit code", build.exit_code.map(|code| code.to_string()));
    details.gap();
    details.fact("made", moment(build.created_ms));
    details.fact_if("queued", build.queued_ms.map(moment));
    details.fact_if("on its agent", build.prepared_ms.map(moment));
    details.fact_if("steps began", build.begun_ms.map(moment));
    details.fact_if("over", build.ended_ms.map(moment));
    if let (Some(from), Some(to)) = (build.prepared_ms, build.ended_ms) {
        details.fact("took", lasted(to.saturating_sub(from)));
    }
    details.fact_if("not told", build.status_trouble.as_ref().map(|trouble| format!("the forge: {trouble}")));
    if let Some(log) = &build.log {
        details.fact("log", format!("{} lines, {}", log.lines, show_bytes(log.bytes)));
    }
    details.gap();
    for note in &build.history {
        let attempt = if build.attempt > 1 { format!(" [attempt {}]", note.attempt) } else { String::new() };
        let at = words::to_seconds(&rfc3339(note.at_ms));
        details.fact(&at, format!("{}: {} ({}){attempt}", note.state, note.what, note.by));
    }
    details.gap();
    match build.state.as_str() {
        "blocked" => details.fact("to let it run", format!("leasehold build approve {number} --sha {}", build.sha)),
        "queued" | "preparing" | "running" if build.ending.is_none() => {
            details.fact("to end it", format!("leasehold build cancel {number}"));
        }
        "queued" | "preparing" | "running" => {}
        _ => details.fact("to build it again", format!("leasehold build retry {number}")),
    }
    details.fact("its log", format!("leasehold build log {number}"));
    details
}
