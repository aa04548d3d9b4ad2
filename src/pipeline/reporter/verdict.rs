//! What a forge's answer means: taken, worth another try soon, or not before somebody mends something.
//!
//! Pure: the answer and the time are given.

use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use serde_json::Value;

use crate::builds::happening::Forge;
use crate::builds::status::{Answer, Status};
use crate::clock::jitter;

/// Characters of a trouble, at most.
const TROUBLE_CHARS_MAX: usize = 300;
/// How long a rate limit holds where the forge does not say, milliseconds.
const PAUSE_MS_DEFAULT: i64 = 60_000;
/// The longest pause that a forge's word is taken for, milliseconds: limits are by the hour.
const PAUSE_MS_MAX: i64 = 2 * 3_600_000;
/// Between tries of what may pass by itself, milliseconds: doubled from the first to the second.
const SOON_MS: (u64, u64) = (2_000, 15 * 60_000);
/// Such tries, at most: a week.
const SOON_TRIES_MAX: u32 = 700;
/// Between tries of what was refused, milliseconds: four times as long each time, from the first to the second.
const RARELY_MS: (u64, u64) = (5 * 60_000, 86_400_000);
/// Such tries, at most: about a week.
const RARELY_TRIES_MAX: u32 = 12;

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The forge shows it.
    Taken,
    /// Something is in the way that may pass by itself.
    Busy {
        /// Not before, Unix milliseconds, where the forge says.
        until_ms: Option<i64>,
        /// What it said.
        trouble: String,
    },
    /// Too many requests: nobody with this token should ask before.
    Limited {
        /// Unix milliseconds.
        until_ms: i64,
        /// What it said.
        trouble: String,
    },
    /// Nobody is to be told.
    Unwanted,
    /// No, and it will be no again until somebody mends the token, the repository or the configuration.
    Refused {
        /// What it said.
        trouble: String,
    },
}

impl Verdict {
    /// What the outbox is told.
    pub(super) fn answer(self, status: &Status, now_ms: i64) -> Answer {
        let tries = status.tries.saturating_add(1);
        match self {
            Self::Taken => Answer::Taken,
            Self::Unwanted => {
                Answer::GivenUp { trouble: "the configuration has no forge to tell of this repository".into() }
            }
            Self::Busy { trouble, .. } | Self::Limited { trouble, .. } if tries >= SOON_TRIES_MAX => {
                Answer::GivenUp { trouble: format!("given up after {tries} tries: {trouble}").into() }
            }
            Self::Busy { until_ms, trouble } => {
                let due_ms = now_ms + spread(SOON_MS, 2, status.tries);
                Answer::Later {
                    due_ms: until_ms.map_or(due_ms, |until_ms| until_ms.max(due_ms)),
                    trouble: trouble.into(),
                }
            }
            Self::Limited { until_ms, trouble } => Answer::Later { due_ms: until_ms, trouble: trouble.into() },
            Self::Refused { trouble } if tries >= RARELY_TRIES_MAX => {
                Answer::GivenUp { trouble: format!("given up after {tries} tries: {trouble}").into() }
            }
            Self::Refused { trouble } => {
                Answer::Later { due_ms: now_ms + spread(RARELY_MS, 4, status.tries), trouble: trouble.into() }
            }
        }
    }
}

/// A wait that grows with the tries, between half of it and all of it, so that rows do not come in step.
fn spread((first, longest): (u64, u64), factor: u64, tries: u32) -> i64 {
    let whole =
        factor.checked_pow(tries).and_then(|times| first.checked_mul(times)).map_or(longest, |ms| ms.min(longest));
    i64::try_from(whole / 2 + jitter(whole / 2 + 1)).unwrap_or(i64::MAX)
}

/// Judges an answer. `body` is its beginning.
pub(super) fn judge(forge: Forge, code: StatusCode, headers: &HeaderMap, body: &[u8], now_ms: i64) -> Verdict {
    let said = said(body);
    let trouble = shown(forge, code, &said);
    let after_ms = retry_after_ms(headers, now_ms);
    match code.as_u16() {
        200 | 201 if is_json(headers) => Verdict::Taken,
        200..=299 => {
            Verdict::Refused { trouble: format!("{forge} answered {code}, but not as an API does: is `api` right?") }
        }
        // It shows this state already, or one that comes after it.
        400 if forge == Forge::Gitlab && said.starts_with("Cannot transition status") => Verdict::Taken,
        429 => Verdict::Limited { until_ms: limit_until_ms(headers, now_ms), trouble },
        403 if after_ms.is_some() || used_up(headers) || said.to_ascii_lowercase().contains("rate limit") => {
            Verdict::Limited { until_ms: limit_until_ms(headers, now_ms), trouble }
        }
        // Another change of this commit is under way (GitLab), or it is too early.
        408 | 409 | 425 | 500..=599 => Verdict::Busy { until_ms: after_ms, trouble },
        _ => Verdict::Refused { trouble },
    }
}

/// Until when a limit holds that this answer tells of without having refused, Unix milliseconds.
pub(super) fn spent_until_ms(headers: &HeaderMap, now_ms: i64) -> Option<i64> {
    used_up(headers).then(|| limit_until_ms(headers, now_ms))
}

fn used_up(headers: &HeaderMap) -> bool {
    ["x-ratelimit-remaining", "ratelimit-remaining"].iter().any(|name| number(headers, name) == Some(0))
}

fn limit_until_ms(headers: &HeaderMap, now_ms: i64) -> i64 {
    let reset_ms = || {
        let seconds = number(headers, "x-ratelimit-reset").or_else(|| number(headers, "ratelimit-reset"))?;
        Some(seconds.saturating_mul(1_000).clamp(now_ms, now_ms + PAUSE_MS_MAX))
    };
    let until_ms = retry_after_ms(headers, now_ms).or_else(|| used_up(headers).then(reset_ms).flatten());
    // A second more: clocks differ, and limits are kept in whole seconds.
    until_ms.unwrap_or(now_ms + PAUSE_MS_DEFAULT) + 1_000
}

/// `Retry-After`, in seconds or as a date, as Unix milliseconds.
fn retry_after_ms(headers: &HeaderMap, now_ms: i64) -> Option<i64> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let at_ms = match text.parse::<i64>() {
        Ok(seconds) => now_ms.saturating_add(seconds.saturating_mul(1_000)),
        Err(_) => jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_millisecond(),
    };
    Some(at_ms.clamp(now_ms, now_ms + PAUSE_MS_MAX))
}

fn number(headers: &HeaderMap, name: &str) -> Option<i64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

fn is_json(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).is_some_and(|kind| kind.contains("json"))
}

/// The message of a forge's error, with what it says of single fields.
fn said(body: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return String::new() };
    let message = value.get("message").or_else(|| value.get("error"));
    let mut said = message.map(plain).unwrap_or_default();
    let fields = value.get("errors").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for field in fields {
        let words = field.get("message").unwrap_or(field);
        said.push_str(&format!("{}{}", if said.is_empty() { "" } else { ": " }, plain(words)));
    }
    said
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn shown(forge: Forge, code: StatusCode, said: &str) -> String {
    let said: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TROUBLE_CHARS_MAX).collect();
    let hint = match code.as_u16() {
        401 => "; its token is not valid there",
        403 => "; its token may not set statuses there",
        404 => "; it does not know the repository or the commit, or its token may not see them",
        300..=399 => "; it is to be asked elsewhere: set `api`, and the repository's name",
        _ => "",
    };
    let colon = if said.is_empty() { "" } else { ": " };
    format!("{forge} answered {code}{colon}{said}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    fn ask(forge: Forge, code: u16, headers: &[(&'static str, &str)], body: &str) -> Verdict {
        let named =
            |(name, value): &(&'static str, &str)| (name.parse().expect("a name"), value.parse().expect("a value"));
        let headers: HeaderMap = headers.iter().map(named).collect();
        judge(forge, StatusCode::from_u16(code).expect("a code"), &headers, body.as_bytes(), NOW)
    }

    const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");

    #[test]
    fn only_an_api_takes_a_status() {
        assert_eq!(ask(Forge::Github, 201, &[JSON], "{}"), Verdict::Taken);
        assert!(matches!(ask(Forge::Gitea, 200, &[("content-type", "text/html")], "<html>"), Verdict::Refused { .. }));
    }

    #[test]
    fn gitlab_showing_it_already_is_no_trouble() {
        let again = r#"{"message":"Cannot transition status via :run from :running (Reason(s): ...)"}"#;
        assert_eq!(ask(Forge::Gitlab, 400, &[JSON], again), Verdict::Taken);
        assert!(matches!(ask(Forge::Gitlab, 400, &[JSON], r#"{"error":"state is missing"}"#), Verdict::Refused { .. }));
    }

    #[test]
    fn limits_are_waited_out_as_the_forge_says() {
        let until = |verdict| match verdict {
            Verdict::Limited { until_ms, .. } => until_ms - NOW,
            other => panic!("no limit: {other:?}"),
        };
        assert_eq!(until(ask(Forge::Github, 429, &[("retry-after", "30")], "")), 31_000);
        let primary = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1800000120")];
        assert_eq!(until(ask(Forge::Github, 403, &primary, "")), 121_000);
        let secondary = r#"{"message":"You have exceeded a secondary rate limit."}"#;
        assert_eq!(until(ask(Forge::Github, 403, &[("x-ratelimit-remaining", "17")], secondary)), 61_000);
        assert_eq!(until(ask(Forge::Gitlab, 429, &[("retry-after", "999999999")], "")), PAUSE_MS_MAX + 1_000);
        let date = [("retry-after", "Fri, 15 Jan 2027 08:00:45 GMT")];
        assert_eq!(until(ask(Forge::Gitea, 429, &date, "")), 46_000);
        assert!(matches!(ask(Forge::Github, 403, &[JSON], r#"{"message":"Forbidden"}"#), Verdict::Refused { .. }));
    }

    #[test]
    fn refusals_say_what_the_forge_said() {
        let body = r#"{"message":"Validation Failed","errors":[{"resource":"Status","message":"too many statuses"}]}"#;
        let Verdict::Refused { trouble } = ask(Forge::Github, 422, &[JSON], body) else { panic!("refused") };
        assert_eq!(trouble, "github answered 422 Unprocessable Entity: Validation Failed: too many statuses");
        let Verdict::Busy { until_ms, .. } = ask(Forge::Gitea, 503, &[("retry-after", "7")], "<b>") else {
            panic!("busy")
        };
        assert_eq!(until_ms, Some(NOW + 7_000));
    }

    #[test]
    fn waits_grow_to_a_bound_and_end() {
        let waits = |bounds, factor| (0..40).map(move |tries| spread(bounds, factor, tries));
        for (wait, tries) in waits(SOON_MS, 2).zip(0_u32..) {
            let whole = i64::try_from(SOON_MS.0 << tries.min(20)).expect("small").min(900_000);
            assert!((whole / 2..=whole).contains(&wait), "{tries}: {wait}");
        }
        assert!(waits(RARELY_MS, 4).all(|wait| (150_000..=86_400_000).contains(&wait)));
    }
}
