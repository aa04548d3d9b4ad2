//! A delivery's page: what a forge said, and what came of it. Where its pipelines have a mistake, the commit's
//! status at the forge leads here. Not what the forge sent: that is for whoever asks by `hook show`.

use axum::response::Html;
use maud::{Markup, html};

use super::humans;
use super::layout::{self, shown, shown_whole, trail};
use crate::builds::build::{BuildId, Subject};
use crate::builds::delivery::{Delivery, Outcome};
use crate::protocol::http::encode;
use crate::server::http::deliveries::words;

/// Seconds between two looks while it is not worked on.
const REFRESH_SECONDS: u32 = 2;

/// The page. `trouble` is what is in the way of telling its forge of a mistake.
pub fn page(delivery: &Delivery, trouble: Option<&str>, now_ms: i64) -> Html<String> {
    let id = delivery.id.0;
    let head = html! {
        @if delivery.outcome == Outcome::Accepted { meta http-equiv="refresh" content=(REFRESH_SECONDS); }
    };
    let what = delivery.said.as_ref().map_or_else(|why| why.to_string(), |happening| words(&happening.what));
    let (class, word) = match &delivery.outcome {
        Outcome::Accepted => ("running", "being worked on"),
        Outcome::Done { .. } => ("passed", "done"),
        Outcome::Failed { .. } => ("failed", "failed"),
        Outcome::Ignored { .. } => ("cancelled", "ignored"),
    };
    let body = html! {
        body class="delivery" {
            header {
                (trail(&[("builds", "/builds")], &format!("delivery {id}")))
                div class="title" {
                    span class={ "state " (class) } { (word) }
                    h1 { (shown(&what)) }
                    @if delivery.outcome != Outcome::Accepted {
                        div class="actions" {
                            form method="post" action={ "/deliveries/" (id) "/redeliver" } {
                                button { "Work on it again" }
                            }
                        }
                    }
                }
                (facts(delivery, now_ms))
            }
            main { (came_of(&delivery.outcome)) (details(delivery, trouble)) }
        }
    };
    layout::page(&shown(&format!("{word}: delivery {id}")), &head, &body)
}

fn facts(delivery: &Delivery, now_ms: i64) -> Markup {
    let subject = delivery.said.as_ref().ok().and_then(|happening| Subject::of(delivery.forge, happening));
    html! {
        p class="facts" {
            @if let Ok(happening) = &delivery.said {
                a href={ "/builds?repository=" (encode(&happening.repository)) } { (shown(&happening.repository)) }
            }
            @if let Some(subject) = &subject { code title=(subject.sha) { (subject.sha.short()) } }
            @if let Ok(happening) = &delivery.said { span { "by " (shown(&happening.by)) } }
            time title=(humans::moment(delivery.received_ms)) { (humans::ago(delivery.received_ms, now_ms)) }
        }
    }
}

fn came_of(outcome: &Outcome) -> Markup {
    html! {
        @match outcome {
            Outcome::Accepted => { p { "It is kept, and will be worked on." } }
            Outcome::Failed { reason } => {
                p { "Nothing was built, because of this:" }
                pre class="mistake" { (shown_whole(reason)) }
                p class="soft" {
                    "If that is in the repository, push what mends it. If it is the broker's, mend it there, and then \
                     have this worked on again."
                }
            }
            Outcome::Ignored { reason } => { p { "Nothing was to be done: " (shown(reason)) } }
            Outcome::Done { started, ended } => {
                @if !started.is_empty() { p { "It started " (builds(started)) "." } }
                @if !ended.is_empty() { p { "It ended " (builds(ended)) "." } }
            }
        }
    }
}

fn builds(ids: &[BuildId]) -> Markup {
    html! {
        @for (at, id) in ids.iter().enumerate() {
            @if at > 0 { ", " }
            a href={ "/builds/" (id.0) } { "build " (id) }
        }
    }
}

fn details(delivery: &Delivery, trouble: Option<&str>) -> Markup {
    html! {
        dl {
            dt { "Forge" } dd { (delivery.forge) ", which calls it " code { (shown(&delivery.forge_id)) } }
            dt { "Event" } dd { (shown(&delivery.event)) }
            dt { "Came" } dd { (humans::moment(delivery.received_ms)) }
            @if let Some(first) = delivery.repeats {
                dt { "Repeats" } dd { a href={ "/deliveries/" (first.0) } { "delivery " (first.0) } ", on purpose" }
            }
            @if let Some(trouble) = trouble { dt { "Not told" } dd { "the forge: " (shown(trouble)) } }
        }
    }
}
