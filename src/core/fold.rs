//! Names as parts of environment variables: folding, the words that are our own, and what may
//! not be called alike.
//!
//! A holder finds its resources in variables such as `LEASEHOLD_<ALIAS>_<i>_<PROPERTY>`. Folding
//! loses letters, so two names can meet in one variable; this file finds those before anybody is
//! given one. Each check is made where the name is made: the inventory's here and by its reader,
//! aliases with the claim.

use std::collections::BTreeMap;

use super::types::Key;

/// First words of an alias that would meet a variable of our own, as written.
pub const OWN_WORDS: &[&str] =
    &["admin", "ca", "connect", "fence", "gitea", "github", "gitlab", "lease", "resources", "secrets", "token", "url"];

/// Names CEL keeps for itself: no label of this name could be asked for as a variable.
pub const CEL_WORDS: &[&str] = &[
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
    "while",
];

/// A name as it stands in a variable: upper-case, everything not alphanumeric becomes `_`.
#[must_use]
pub fn fold(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// The word of our own that `alias` begins with once folded, if it does.
#[must_use]
pub fn own_word(alias: &str) -> Option<&'static str> {
    let folded = fold(alias);
    let first = folded.split('_').next().unwrap_or_default();
    OWN_WORDS.iter().copied().find(|word| word.eq_ignore_ascii_case(first))
}

/// Whether the variables of two aliases could meet: they fold alike, or one is the other's
/// followed by `_` and more.
#[must_use]
pub fn aliases_meet(a: &str, b: &str) -> bool {
    let (a, b) = (fold(a), fold(b));
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    long.strip_prefix(short.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

/// Checks the names of a resource's properties: none that a variable of the resource itself has
/// (`name`, `slots`, `count`, anything starting `label_` or `secret_`), no two that fold alike.
pub fn check_properties<'a>(names: impl IntoIterator<Item = &'a Key>) -> Result<(), String> {
    let mut seen = BTreeMap::new();
    for name in names {
        let folded = fold(name.as_str());
        let taken = matches!(folded.as_str(), "NAME" | "SLOTS" | "COUNT")
            || folded.starts_with("LABEL_")
            || folded.starts_with("SECRET_");
        if taken {
            return Err(format!(
                "a property cannot be called `{name}`: its variable LEASEHOLD_<ALIAS>_{folded} is taken by another \
                 fact of the resource; expected a name other than `name`, `slots` and `count` that does not start \
                 with `label_` or `secret_`"
            ));
        }
        refuse_twin(&mut seen, "properties", name, folded)?;
    }
    Ok(())
}

/// Checks the names of a resource's secrets: no two that fold alike.
pub fn check_secrets<'a>(names: impl IntoIterator<Item = &'a Key>) -> Result<(), String> {
    let mut seen = BTreeMap::new();
    names.into_iter().try_for_each(|name| refuse_twin(&mut seen, "secrets", name, fold(name.as_str())))
}

/// Checks the keys of a resource's labels: not `name`, `pool` or `labels`, which mean something
/// else to a need, no word that CEL keeps for itself, no two that fold alike.
pub fn check_labels<'a>(keys: impl IntoIterator<Item = &'a Key>) -> Result<(), String> {
    let mut seen = BTreeMap::new();
    for key in keys {
        match key.as_str() {
            "name" | "pool" | "labels" => {
                return Err(format!(
                    "a label cannot be called `{key}`: `name`, `pool` and `labels` mean the resource's own in a need; \
                     choose another key"
                ));
            }
            word if CEL_WORDS.contains(&word) => {
                return Err(format!(
                    "a label cannot be called `{key}`: it is a reserved word of CEL, so no expression could ask for \
                     it; choose another key"
                ));
            }
            _ => refuse_twin(&mut seen, "labels", key, fold(key.as_str()))?,
        }
    }
    Ok(())
}

fn refuse_twin<'a>(
    seen: &mut BTreeMap<String, &'a Key>,
    what: &str,
    name: &'a Key,
    folded: String,
) -> Result<(), String> {
    match seen.get(&folded) {
        Some(twin) => Err(format!(
            "the {what} `{twin}` and `{name}` would be one environment variable (…_{folded}); rename one of them"
        )),
        None => {
            seen.insert(folded, name);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{aliases_meet, check_labels, check_properties, check_secrets, fold, own_word};
    use crate::core::types::Key;

    fn keys(names: &[&str]) -> Vec<Key> {
        names.iter().map(|name| Key::parse(name, "key").unwrap()).collect()
    }

    #[test]
    fn folding_upper_cases_and_replaces_the_rest() {
        assert_eq!(fold("phone"), "PHONE");
        assert_eq!(fold("a-b_c9"), "A_B_C9");
        assert_eq!(fold("ü.x"), "__X");
    }

    #[test]
    fn own_words_count_only_as_whole_first_words() {
        for (alias, word) in [
            ("lease", Some("lease")),
            ("lease-x", Some("lease")),
            ("ca_cert", Some("ca")),
            ("leases", None),
            ("my-lease", None),
            ("cab", None),
        ] {
            assert_eq!(own_word(alias), word, "{alias}");
        }
    }

    #[test]
    fn aliases_meet_when_alike_or_continued() {
        for (a, b, meet) in [
            ("net", "net", true),
            ("a-b", "a_b", true),
            ("net", "net-2", true),
            ("net_2", "net", true),
            ("net", "net2", false),
            ("net", "phone", false),
        ] {
            assert_eq!(aliases_meet(a, b), meet, "{a} {b}");
        }
    }

    #[test]
    fn properties_that_would_meet_another_variable_are_refused() {
        for name in ["name", "slots", "count", "label_os", "label-os", "secret_pin", "secret-"] {
            let error = check_properties(&keys(&[name])).unwrap_err();
            assert!(error.contains(&format!("`{name}`")), "{error}");
        }
        let error = check_properties(&keys(&["a-b", "x", "a_b"])).unwrap_err();
        assert!(error.contains("`a-b` and `a_b`"), "{error}");
        assert_eq!(check_properties(&keys(&["serial", "names", "label", "secret", "counts"])), Ok(()));
    }

    #[test]
    fn secrets_may_be_called_anything_once() {
        assert_eq!(check_secrets(&keys(&["name", "label_x", "pin"])), Ok(()));
        assert!(check_secrets(&keys(&["pin-1", "pin_1"])).unwrap_err().contains("PIN_1"));
    }

    #[test]
    fn labels_keep_clear_of_names_with_a_meaning() {
        for key in ["name", "pool", "labels", "in", "true", "namespace", "void"] {
            let error = check_labels(&keys(&[key])).unwrap_err();
            assert!(error.contains(&format!("`{key}`")), "{error}");
        }
        assert!(check_labels(&keys(&["x-y", "x_y"])).is_err());
        assert_eq!(check_labels(&keys(&["os", "api", "x-y", "names"])), Ok(()));
    }
}
