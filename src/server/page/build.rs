//! A build's page: what it is, where it stands, what happened, and a window of its log.
//!
//! All of it is there without the script: the last lines, links to older ones, a list of errors, a search. The
//! script takes the same rows over and shows any part of the log in their place.

use axum::response::Html;
use maud::{Markup, PreEscaped, html};

use super::find::{Found, QUERY_CHARS_MAX};
use super::layout::{self, shown, state, trail, word};
use super::outline::Told;
use super::window::{LINES_MAX, Look, Window};
use super::{assets, humans};
use crate::builds::build::{Build, Cause, Line, Phase};
use crate::builds::change::Note;
use crate::builds::log::LogId;
use crate::protocol::http::encode;

/// Seconds between two looks of a reader without the script, while the build goes on.
const REFRESH_SECONDS: u32 = 5;
/// Lines with a text that are listed for a reader without the script.
const HITS_LISTED: usize = 100;

/// All that a page is made of.
pub struct View<'a> {
    /// The build.
    pub build: &'a Build,
    /// Its history.
    pub notes: &'a [Note],
    /// Which log is shown.
    pub log: LogId,
    /// How far that is; `None` where there is none.
    pub look: Option<&'a Look>,
    /// Its rows.
    pub window: &'a Window,
    /// Whether those are the last ones.
    pub is_tail: bool,
    /// Groups and marks, where they were ready in time.
    pub outline: Option<&'a Told>,
    /// What was looked for.
    pub q: &'a str,
    /// What was found of it.
    pub found: Option<&'a Found>,
    /// Now, Unix milliseconds.
    pub now_ms: i64,
}

impl View<'_> {
    /// The page.
    pub fn page(&self) -> Html<String> {
        let id = self.build.id;
        let head = html! {
            script src=(assets::SCRIPT.path()) defer {}
            @if self.is_tail && self.q.is_empty() && self.goes_on() {
                noscript { meta http-equiv="refresh" content=(REFRESH_SECONDS); }
            }
        };
        let body = html! {
            body class="build" {
                header {
                    (trail(&[("builds", "/builds")], &id.to_string()))
                    div id="head" { (self.head()) }
                }
                (self.viewer())
            }
        };
        let title = format!("{} {} {}", word(self.build.phase), self.build.repository, id);
        layout::page(&shown(&title), &head, &body)
    }

    fn goes_on(&self) -> bool {
        !self.build.phase.is_final() || self.look.is_some_and(|look| look.status.more())
    }

    /// What the script brings up to date while the build goes on.
    fn head(&self) -> Markup {
        let build = self.build;
        let subject = &build.subject;
        let title = subject.title.as_deref().map_or_else(|| subject.line.to_string(), str::to_owned);
        html! {
            div class="title" data-phase=(build.phase) data-attempt=(build.attempt) {
                (state(build))
                h1 { (shown(&title)) }
                (actions(build))
            }
            p class="facts" {
                a href={ "/builds?repository=" (encode(&build.repository)) } { (shown(&build.repository)) }
                span { (shown(&build.plan.name)) }
                span { (shown(&subject.line.to_string())) }
                code title=(subject.sha) { (subject.sha.short()) }
                @if subject.fork { span class="fork" { "from a fork" } }
                span { "by " (shown(&build.by)) }
                (self.took())
            }
            (self.picks())
            // What is over says why by its ending.
            @if let Some(reason) = build.reason.as_ref().filter(|_| build.ending.is_none()) {
                p class="reason" { (shown(reason)) }
            }
            @if let Some(ending) = &build.ending {
                p class="reason" {
                    (shown(&ending.reason)) " (" (shown(&ending.by)) ", "
                    (humans::ago(ending.since_ms, self.now_ms)) ")"
                    @if let Some(by) = ending.superseded_by { ", " a href={ "/builds/" (by.0) } { "build " (by) } }
                }
            }
            details class="more" {
                summary { "Details and history" }
                div class="columns" { (self.details()) (self.history()) }
            }
        }
    }

    /// What it runs on, or ran: the first question after a failure that nobody understands.
    fn picks(&self) -> Markup {
        let build = self.build;
        let verb = match (build.times.prepared_ms.is_some(), build.phase.is_final()) {
            (true, true) => "Ran on",
            (true, false) => "On",
            (false, true) => "Was granted",
            (false, false) => "Granted",
        };
        html! {
            @if let Some(agent) = &build.agent {
                p class="picks" {
                    (verb) " " span class="pick" title="The agent" { (shown(agent)) }
                    @if !build.picks.is_empty() { " with" }
                    @for pick in &build.picks {
                        " " span class="pick" {
                            span class="of" { (shown(&pick.pool)) } " " (shown(&pick.name))
                            @if pick.slots > 1 { " " span class="of" { "\u{d7}" (pick.slots) } }
                            @if pick.alias != pick.pool { " " span class="of" { "as " (shown(&pick.alias)) } }
                        }
                    }
                }
            }
        }
    }

    fn took(&self) -> Markup {
        let times = &self.build.times;
        let began = times.begun_ms.or(times.prepared_ms);
        html! {
            @match (began, times.ended_ms) {
                (Some(began), Some(ended)) => { span { "took " (humans::span(began, ended)) } }
                (Some(began), None) => { span { "running for " (humans::span(began, self.now_ms)) } }
                (None, _) => {}
            }
            time title=(humans::moment(times.created_ms)) { (humans::ago(times.created_ms, self.now_ms)) }
        }
    }

    fn details(&self) -> Markup {
        let build = self.build;
        let moments = [
            ("Made", Some(build.times.created_ms)),
            ("Waited from", build.times.queued_ms),
            ("Granted", build.times.prepared_ms),
            ("Began", build.times.begun_ms),
            ("Over", build.times.ended_ms),
        ];
        html! {
            dl {
                dt { "Cause" } dd { (cause(&build.cause)) }
                dt { "Ref" } dd { code { (shown(&build.subject.git_ref)) } }
                dt { "Commit" } dd { code { (build.subject.sha) } }
                @if let Some((base, sha)) = &build.subject.base {
                    dt { "Base" } dd { (shown(base)) @if let Some(sha) = sha { " " code { (sha.short()) } } }
                }
                @if let Some(agent) = &build.agent { dt { "Agent" } dd { (shown(agent)) } }
                dt { "Lease" }
                dd {
                    @match build.lease {
                        Some(lease) => { (lease) @if build.phase.is_final() { " (over)" } ": an executor" }
                        None => { "none" @if !build.phase.is_final() { " yet; asks for an executor" } }
                    }
                    @for need in &build.plan.needs { " " code { (shown(need)) } }
                }
                @if let Some(code) = build.exit_code { dt { "Exit code" } dd { (code) } }
                @if let Some(by) = &build.approved_by { dt { "Approved by" } dd { (shown(by)) } }
                @for (name, moment) in moments {
                    @if let Some(moment) = moment { dt { (name) } dd { (humans::moment(moment)) } }
                }
                @if let Some(end) = &build.log {
                    dt { "Log" }
                    dd {
                        (humans::counted(end.lines, "line", "lines")) ", " (humans::bytes(end.bytes))
                        ", SHA-256 " code { (end.sha256) }
                    }
                }
            }
        }
    }

    fn history(&self) -> Markup {
        html! {
            ol class="history" {
                @for note in self.notes {
                    li {
                        time title=(humans::moment(note.at_ms)) { (humans::ago(note.at_ms, self.now_ms)) }
                        " " b class={ "state " (note.phase) } { (word(note.phase)) }
                        " " (shown(&note.what)) " "
                        span class="by" { (shown(&note.by)) @if note.attempt > 1 { ", attempt " (note.attempt) } }
                    }
                }
            }
        }
    }

    fn viewer(&self) -> Markup {
        let Some(look) = self.look else {
            return html! {
                main {
                    p class="nothing" id="nothing" { "There is no log: it was deleted when its time was over." }
                }
            };
        };
        let status = &look.status;
        let digits = status.lines.max(999).to_string().len();
        html! {
            main id="log" data-build=(self.build.id.0) data-attempt=(self.log.attempt) data-lines=(status.lines)
                data-bytes=(status.bytes) data-more=(status.more()) data-from=(self.window.from) {
                (self.bar(look))
                (self.summary())
                (self.hits())
                (self.older())
                div id="view" class={ "rows d" (digits.min(12)) } tabindex="0" role="log" aria-live="off"
                    aria-label="The log" {
                    @for row in &self.window.rows { (PreEscaped(row)) }
                }
                (self.newer(look))
            }
        }
    }

    /// What there is to do with the log.
    fn bar(&self, look: &Look) -> Markup {
        let (status, attempt) = (&look.status, self.log.attempt);
        let id = self.build.id.0;
        html! {
            div class="bar" {
                form class="find" role="search" action={ "/builds/" (id) } {
                    input type="hidden" name="attempt" value=(attempt);
                    input type="search" id="q" name="q" value=(self.q) maxlength=(QUERY_CHARS_MAX)
                        placeholder="Find in log" aria-label="Find in log" autocomplete="off" spellcheck="false";
                }
                span id="tools" {}
                span class="size" id="size" {
                    (humans::counted(status.lines, "line", "lines"))
                    @if status.never { ", nothing came" }
                }
                @if self.build.attempt > 1 {
                    span class="attempts" {
                        "attempt"
                        @for number in 1..=self.build.attempt {
                            " "
                            @if number == attempt { b { (number) } }
                            @else { a href={ "/builds/" (id) "?attempt=" (number) } { (number) } }
                        }
                    }
                }
                a href={ "/builds/" (id) "/log?attempt=" (attempt) } { "Raw" }
            }
        }
    }

    /// The first errors; the script makes the same list when the page came without.
    fn summary(&self) -> Markup {
        let Some(told) = self.outline else { return html! { details id="marks" hidden {} } };
        if !told.marked {
            return html! {
                details id="marks" hidden {}
                p class="note" { "The log is longer than 10 MiB: errors and warnings are not marked." }
            };
        }
        html! {
            details id="marks" hidden[told.summary.is_empty()] {
                summary {
                    (humans::counted(told.errors, "error", "errors")) ", "
                    (humans::counted(told.warnings, "warning", "warnings"))
                }
                ol {
                    @for (line, letter, text) in &told.summary {
                        li class=(letter) { (self.link_to(*line)) " " (text) }
                    }
                }
            }
        }
    }

    /// Where the words are, for a reader without the script.
    fn hits(&self) -> Markup {
        let Some(found) = self.found else { return html! {} };
        html! {
            section class="hits" {
                p {
                    @if found.hits.is_empty() && found.next.is_none() { "Nothing has " q { (shown(self.q)) } "." }
                    @else {
                        "Lines with " q { (shown(self.q)) }
                        @if found.next.is_some() || found.hits.len() > HITS_LISTED { ", the first of them" } ":"
                    }
                    @for line in found.hits.iter().take(HITS_LISTED) { " " (self.link_to(*line)) }
                }
            }
        }
    }

    /// A line, in the window that is here or in one around it.
    fn link_to(&self, line: u64) -> Markup {
        let here = self.window.from <= line && line < self.window.end();
        let from = line.saturating_sub(20).max(1);
        let page = if here { String::new() } else { format!("?attempt={}&from={from}", self.log.attempt) };
        html! { a href={ (page) "#L" (line) } { (line) } }
    }

    fn older(&self) -> Markup {
        let from = self.window.from;
        html! {
            @if from > 1 {
                p class="window" {
                    a href={ "?attempt=" (self.log.attempt) "&from=1" } { "First lines" }
                    a rel="prev" href={
                        "?attempt=" (self.log.attempt) "&from=" (from.saturating_sub(LINES_MAX).max(1))
                    } { "Older lines" }
                }
            }
        }
    }

    fn newer(&self, look: &Look) -> Markup {
        let end = self.window.end();
        html! {
            p class="window" {
                @if end <= look.status.lines {
                    a rel="next" href={ "?attempt=" (self.log.attempt) "&from=" (end) } { "Newer lines" }
                    a href={ "?attempt=" (self.log.attempt) } { "Last lines" }
                } @else if look.status.more() {
                    a href={ "?attempt=" (self.log.attempt) } { "More may come: look again" }
                }
            }
        }
    }
}

/// What may be done to a build, as forms.
fn actions(build: &Build) -> Markup {
    let id = build.id.0;
    html! {
        div class="actions" {
            @if build.phase == Phase::Blocked {
                form method="post" action={ "/builds/" (id) "/approve" } {
                    button class="main" title={ "Lets " (build.subject.sha) " run" } {
                        "Allow " (build.subject.sha.short())
                    }
                }
            }
            @if build.phase.is_final() {
                form method="post" action={ "/builds/" (id) "/retry" } { button { "Run again" } }
            } @else if build.ending.is_none() {
                a class="button" href={ "/builds/" (id) "/cancel" } { "Cancel" }
            }
        }
    }
}

fn cause(cause: &Cause) -> Markup {
    html! {
        @match cause {
            Cause::Delivery { delivery } => {
                a href={ "/deliveries/" (delivery.0) } { "delivery " (delivery.0) } " of the forge"
            }
            Cause::Asked => { "somebody asked for it" }
            Cause::Retry { of } => { "once more " a href={ "/builds/" (of.0) } { "build " (of) } }
        }
    }
}

/// Asks whether a build is meant to be cancelled.
pub fn confirm_cancel(build: &Build) -> Html<String> {
    let id = build.id.0;
    let what = match &build.subject.line {
        Line::Branch(name) | Line::Tag(name) => name.to_string(),
        Line::Pull(number) => format!("pull request {number}"),
    };
    let body = html! {
        body class="plain" {
            header { (trail(&[("builds", "/builds"), (&build.id.to_string(), &format!("/builds/{id}"))], "cancel")) }
            main {
                h1 { "Cancel build " (build.id) "?" }
                p {
                    (shown(&build.repository)) ", " (shown(&what)) ", " code { (build.subject.sha.short()) } ". "
                    "Its processes are asked to end, and what it holds is given back when they are gone."
                }
                form method="post" action={ "/builds/" (id) "/cancel" } class="choice" {
                    button class="danger" { "Cancel the build" }
                    a class="button" href={ "/builds/" (id) } { "Let it run" }
                }
            }
        }
    };
    layout::page(&format!("Cancel build {}?", build.id), &html! {}, &body)
}
