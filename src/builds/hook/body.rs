//! What the payloads of all forges have in common: JSON or a form around it, names, commits, texts.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::builds::happening::Sha;

/// Bytes of a name of a repository, branch, tag or person, at most.
const NAME_BYTES_MAX: usize = 255;
/// Characters of a title that are kept.
const TITLE_CHARS_MAX: usize = 200;

/// Reads the payload, which GitHub and Gitea also send as a form's field.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    let form = body.strip_prefix(b"payload=").or_else(|| find_field(body));
    let decoded = form.map(decode);
    let json = decoded.as_deref().unwrap_or(body);
    serde_json::from_slice(json).map_err(|error| format!("the payload is not what the forge's documents say: {error}"))
}

/// The field `payload` where it is not the first one of a form.
fn find_field(body: &[u8]) -> Option<&[u8]> {
    if body.first().is_none_or(|byte| !byte.is_ascii_alphabetic()) {
        return None;
    }
    body.split(|byte| *byte == b'&').find_map(|field| field.strip_prefix(b"payload="))
}

/// A form's value, up to the next field.
fn decode(value: &[u8]) -> Vec<u8> {
    let value = value.split(|byte| *byte == b'&').next().unwrap_or_default();
    let mut decoded = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((byte, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.filter(|_| *byte == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped {
            Some(escaped) => {
                decoded.push(escaped);
                rest = &after[2..];
            }
            None => {
                decoded.push(if *byte == b'+' { b' ' } else { *byte });
                rest = after;
            }
        }
    }
    decoded
}

/// A name that can stand in the books, a page and a git command.
pub(super) fn name(text: &str, what: &str) -> Result<Arc<str>, String> {
    if text.is_empty() || text.len() > NAME_BYTES_MAX || text.contains(char::is_control) {
        return Err(format!("the payload's {what} is no name, or longer than {NAME_BYTES_MAX} bytes"));
    }
    Ok(text.into())
}

/// A commit that must be there.
pub(super) fn sha(text: &str, what: &str) -> Result<Sha, String> {
    Sha::parse(text).ok_or_else(|| format!("the payload's {what} is no commit"))
}

/// A commit, where the name is not the one for "none".
pub(super) fn maybe_sha(text: &str, what: &str) -> Result<Option<Sha>, String> {
    if text.is_empty() || text.bytes().all(|byte| byte == b'0') { Ok(None) } else { sha(text, what).map(Some) }
}

/// The first line of a text, cut, on one line.
pub(super) fn title(text: &str) -> Arc<str> {
    let line = text.trim().lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(TITLE_CHARS_MAX).collect::<String>().into()
}

/// Somebody at a forge.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Person {
    #[serde(default)]
    pub login: Option<String>,
    #[serde(default)]
    pub username: Option<String>,
    #[serde(default)]
    pub name: Option<String>,
}

impl Person {
    fn known_as(&self) -> Option<&str> {
        let names = [&self.login, &self.username, &self.name];
        names.into_iter().flatten().map(String::as_str).find(|name| !name.is_empty())
    }
}

/// Who did it: the first that is known.
pub(super) fn by(people: &[Option<&Person>]) -> Arc<str> {
    let name = people.iter().flatten().find_map(|person| person.known_as()).unwrap_or("somebody");
    name.chars().filter(|c| !c.is_control()).take(100).collect::<String>().into()
}
