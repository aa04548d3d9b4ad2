//! The list of builds, newest first.

use std::sync::Arc;

use axum::response::Html;
use maud::{Markup, html};

use super::humans;
use super::layout::{self, shown, state, word};
use super::routes::ListAsked;
use crate::builds::build::{Build, Phase};
use crate::pipeline::search::QUERY_BYTES_MAX;
use crate::protocol::http::encode;

/// The page.
pub fn page(asked: &ListAsked, repositories: &[Arc<str>], builds: &[Build], more: bool, now_ms: i64) -> Html<String> {
    let body = html! {
        body class="list" {
            header {
                nav class="trail" aria-label="You are here" { span aria-current="page" { "Builds" } }
                (search(""))
            }
            main {
                (filters(asked, repositories))
                @if builds.is_empty() {
                    p class="nothing" { "No builds" @if is_narrowed(asked) { " like that" } "." }
                } @else {
                    ol class="builds" { @for build in builds { li { (row(build, now_ms)) } } }
                }
                p class="window" {
                    @if asked.before.is_some() { a href=(link(asked, None)) { "Newest" } }
                    @if more && let Some(last) = builds.last() {
                        a rel="next" href=(link(asked, Some(last.id.0))) { "Older builds" }
                    }
                }
            }
        }
    };
    layout::page("Builds", &html! {}, &body)
}

/// The box to search all logs.
pub fn search(q: &str) -> Markup {
    html! {
        form class="find" role="search" action="/builds/search" {
            input type="search" name="q" value=(q) maxlength=(QUERY_BYTES_MAX) placeholder="Search all logs"
                aria-label="Search all logs";
        }
    }
}

fn is_narrowed(asked: &ListAsked) -> bool {
    !asked.repository.is_empty() || !asked.state.is_empty() || asked.before.is_some()
}

fn filters(asked: &ListAsked, repositories: &[Arc<str>]) -> Markup {
    html! {
        form class="filters" action="/builds" {
            label {
                span { "Repository" }
                select name="repository" {
                    option value="" { "all" }
                    @for name in repositories {
                        option value=(name) selected[**name == *asked.repository] { (shown(name)) }
                    }
                    @if !asked.repository.is_empty() && !repositories.iter().any(|name| **name == *asked.repository) {
                        option value=(asked.repository) selected { (shown(&asked.repository)) }
                    }
                }
            }
            label {
                span { "State" }
                select name="state" {
                    option value="" { "any" }
                    option value="open" selected[asked.state == "open"] { "not over" }
                    @for phase in Phase::ALL {
                        option value=(phase) selected[asked.state == phase.as_str()] { (word(phase)) }
                    }
                }
            }
            button { "Show" }
        }
    }
}

fn link(asked: &ListAsked, before: Option<u64>) -> String {
    let mut link = format!("/builds?repository={}&state={}", encode(&asked.repository), encode(&asked.state));
    if let Some(before) = before {
        link.push_str(&format!("&before={before}"));
    }
    link
}

/// One build.
pub fn row(build: &Build, now_ms: i64) -> Markup {
    let subject = &build.subject;
    let line = subject.line.to_string();
    let began = build.times.begun_ms.or(build.times.prepared_ms);
    html! {
        (state(build))
        a class="name" href={ "/builds/" (build.id.0) } {
            (shown(subject.title.as_deref().unwrap_or(&line)))
        }
        span class="facts" {
            span class="id" { (build.id) }
            span { (shown(&build.repository)) }
            span { (shown(&build.plan.name)) }
            span { (shown(&line)) }
            code { (subject.sha.short()) }
            span { (shown(&build.by)) }
        }
        span class="when" {
            @if let Some(began) = began {
                span { (humans::span(began, build.times.ended_ms.unwrap_or(now_ms))) }
            }
            time title=(humans::moment(build.times.created_ms)) { (humans::ago(build.times.created_ms, now_ms)) }
        }
    }
}
