//! Secrets that forges and the broker share, by which a delivery is known to be theirs.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Bytes of a secret, at least: a shorter one is a mistake, such as a comma inside of one.
pub const SECRET_BYTES_MIN: usize = 8;
/// What begins the secrets of Standard Webhooks, whose key follows as base64.
const SIGNING: &str = "whsec_";

/// A secret. Its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    text: Arc<str>,
    key: Option<Arc<[u8]>>,
}

impl Secret {
    /// Reads a secret; space around it is not part of it.
    ///
    /// # Errors
    /// In words, without the secret.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("the secret is empty".to_owned());
        }
        if text.len() < SECRET_BYTES_MIN {
            return Err(format!("the secret is shorter than {SECRET_BYTES_MIN} characters"));
        }
        let key = match text.strip_prefix(SIGNING) {
            None => None,
            Some(key) => Some(STANDARD.decode(key).map_err(|_| {
                format!("the secret begins with {SIGNING}, but what follows is no base64: was it cut?")
            })?),
        };
        if key.as_ref().is_some_and(|key| key.len() < SECRET_BYTES_MIN) {
            return Err(format!("the secret's key is shorter than {SECRET_BYTES_MIN} bytes"));
        }
        Ok(Self { text: text.into(), key: key.map(Into::into) })
    }

    /// Reads secrets with commas between them.
    ///
    /// # Errors
    /// As for one, naming which.
    pub fn parse_list(list: &str) -> Result<Vec<Self>, String> {
        let parts = list.split(',').enumerate();
        let one =
            |(index, text)| Self::parse(text).map_err(|error| format!("{error} (number {} of the list)", index + 1));
        parts.map(one).collect()
    }

    /// As the forge's form takes it: the key of `X-Hub-Signature-256` and its likes, and GitLab's token.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// The key that it is for Standard Webhooks, where it is written as one (`whsec_` and base64).
    #[must_use]
    pub fn signing_key(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn a_list_is_read_or_refused_as_a_whole() {
        let secrets = Secret::parse_list(" hunter2hunter2 , whsec_aGVsbG8gd29ybGQ= ").expect("two");
        assert_eq!(secrets[0].as_bytes(), b"hunter2hunter2");
        assert_eq!((secrets[0].signing_key(), secrets[1].signing_key()), (None, Some(&b"hello world"[..])));
        for (list, wrong) in [
            ("", "the secret is empty (number 1 of the list)"),
            ("hunter2hunter2,", "the secret is empty (number 2 of the list)"),
            ("hunter2hunter2,,hunter3hunter3", "empty (number 2"),
            ("hunter2", "shorter than 8"),
            ("whsec_***", "no base64"),
            ("whsec_AAAA", "shorter than 8 bytes"),
        ] {
            let error = Secret::parse_list(list).expect_err(list);
            assert!(error.contains(wrong) && !error.contains("hunter"), "{error}");
        }
    }

    #[test]
    fn a_secret_is_never_shown() {
        let secret = Secret::parse("hunter2hunter2").expect("a secret");
        assert!(!format!("{secret:?}").contains("hunter"));
    }
}
