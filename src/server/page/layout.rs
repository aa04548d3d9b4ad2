//! What all pages have in common: the frame, and the page of a refusal.

use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use super::{assets, terminal};
use crate::builds::build::{Build, Phase};
use crate::protocol::error::Problem;
use crate::server::http::problem::Refusal;

/// Characters of a text from outside that a page shows in one place.
const TEXT_CHARS_MAX: usize = 300;
/// Characters of one that a page is about.
const WHOLE_CHARS_MAX: usize = 4_000;

/// A whole page. `head` is for what belongs to this one only.
pub fn page(title: &str, head: &Markup, body: &Markup) -> Html<String> {
    let whole = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="icon" href="data:,";
                link rel="stylesheet" href=(assets::STYLE.path());
                (head)
            }
            (body)
        }
    };
    Html(whole.into_string())
}

/// The way back up; each step a name and where it is.
pub fn trail(steps: &[(&str, &str)], here: &str) -> Markup {
    html! {
        nav class="trail" aria-label="You are here" {
            @for (name, to) in steps {
                a href=(to) { (name) } span aria-hidden="true" { "/" }
            }
            span aria-current="page" { (here) }
        }
    }
}

/// A text from outside: bounded, and with what nobody would see made visible.
#[must_use]
pub fn shown(text: &str) -> String {
    shown_to(text, TEXT_CHARS_MAX)
}

/// A text from outside that a page is about: more of it, and with its lines.
#[must_use]
pub fn shown_whole(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| shown_to(line, WHOLE_CHARS_MAX)).collect();
    lines.join("\n")
}

fn shown_to(text: &str, chars_max: usize) -> String {
    let mut out = String::new();
    let mut before = ' ';
    for (at, char) in text.chars().enumerate() {
        if at == chars_max {
            out.push('\u{2026}');
            break;
        }
        match terminal::picture(char, before) {
            Some(picture) => out.push_str(&picture),
            None => out.push(char),
        }
        before = char;
    }
    out
}

/// Where a build stands, as a word with a colour.
pub fn state(build: &Build) -> Markup {
    let ending = build.ending.as_ref().filter(|_| !build.phase.is_final());
    let (class, word) = match ending.map(|ending| ending.to) {
        Some(Phase::Superseded) => ("ending", "being superseded"),
        Some(Phase::Cancelled) => ("ending", "being cancelled"),
        Some(_) => ("ending", "ending"),
        None => (build.phase.as_str(), word(build.phase)),
    };
    html! { span class={ "state " (class) } { (word) } }
}

/// A phase as people call it.
#[must_use]
pub const fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::TimedOut => "timed out",
        _ => phase.as_str(),
    }
}

/// A refusal as a page.
pub struct Sorry(pub Refusal);

impl<T: Into<Refusal>> From<T> for Sorry {
    fn from(refusal: T) -> Self {
        Self(refusal.into())
    }
}

impl IntoResponse for Sorry {
    fn into_response(self) -> Response {
        let problem = Problem::from(&self.0.0);
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = html! {
            body class="plain" {
                header { (trail(&[("leasehold", "/builds")], "sorry")) }
                main {
                    h1 { (problem.status) " " (status.canonical_reason().unwrap_or("Error")) }
                    p { (shown(&problem.detail)) }
                    p { a href="/builds" { "All builds" } }
                }
            }
        };
        (status, page("leasehold: sorry", &html! {}, &body)).into_response()
    }
}
