//! What was found in the logs of all builds.

use axum::response::Html;
use maud::{Markup, html};

use super::layout::{self, shown, state, trail};
use super::{humans, list};
use crate::pipeline::search::{Found, Hit};
use crate::protocol::http::encode;
use crate::server::http::search::link;

/// The page; without anything to look for there is only the box.
pub fn page(q: &str, found: Option<&Found>) -> Html<String> {
    let body = html! {
        body class="search" {
            header { (trail(&[("builds", "/builds")], "search")) (list::search(q)) }
            main {
                @match found {
                    None => { p class="nothing" { "Words that the lines are to have; \"with quotes\" as they stand." } }
                    Some(found) => { (hits(q, found)) }
                }
            }
        }
    };
    layout::page(&format!("Search {}", shown(q)), &html! {}, &body)
}

fn hits(q: &str, found: &Found) -> Markup {
    html! {
        @if let Some(trouble) = &found.trouble { p class="reason" { (shown(trouble)) } }
        @if found.to_index > 0 {
            p class="soft" {
                (humans::counted(found.to_index, "log that has ended is", "logs that have ended are"))
                " not searched yet."
            }
        }
        @if found.hits.is_empty() && found.next.is_none() { p class="nothing" { "No log has it." } }
        @for of_build in found.hits.chunk_by(|a, b| (a.build.id, a.attempt) == (b.build.id, b.attempt)) {
            (log(of_build))
        }
        p class="window" {
            @if let Some(next) = &found.next {
                a rel="next" href={ "/builds/search?q=" (encode(q)) "&cursor=" (encode(&next.to_string())) } {
                    @if found.unfinished { "Look on: this took its time" } @else { "More" }
                }
            }
        }
    }
}

/// The hits in one log, which are not none.
fn log(hits: &[Hit]) -> Markup {
    let [first, ..] = hits else { return html! {} };
    let build = &first.build;
    let title = build.subject.title.as_deref().map_or_else(|| build.subject.line.to_string(), str::to_owned);
    html! {
        h2 {
            (state(build)) " " a href={ "/builds/" (build.id.0) } { (shown(&title)) } " "
            span class="facts" {
                span { (build.id) @if first.attempt > 1 { ", attempt " (first.attempt) } }
                span { (shown(&build.repository)) } span { (shown(&build.plan.name)) }
            }
        }
        div class="found rows d7" {
            @for hit in hits {
                div class="l" {
                    a class="n" href=(link(hit)) { (hit.line) }
                    span class="t" { (shown(&hit.text)) }
                }
            }
            @if hits.last().is_some_and(|hit| hit.more_in_log) {
                div class="l" {
                    a class="n" href={ "/builds/" (build.id.0) "?attempt=" (first.attempt) } { "\u{2026}" }
                    span class="t soft" { "more in this log" }
                }
            }
        }
    }
}
