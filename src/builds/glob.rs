//! Globs of branches, tags and paths, as pipelines have them.
//!
//! `*` and `?` stop at a slash, `**` does not; `[..]` and `{a,b}` are known. Texts that begin with `!`
//! exclude. The order does not matter: a name is meant when no text excludes it, and one includes it or none
//! is there to include.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Globs of one kind in a pipeline, at most.
pub const GLOBS_MAX: usize = 64;
/// Bytes of a glob, at most.
pub const GLOB_BYTES_MAX: usize = 256;

/// Compiled globs.
#[derive(Clone, Debug)]
pub struct Globs {
    included: Option<GlobSet>,
    excluded: GlobSet,
}

impl Globs {
    /// Compiles the texts.
    ///
    /// # Errors
    /// In words, naming the text.
    pub fn new(texts: &[String]) -> Result<Self, String> {
        let (mut included, mut excluded) = (Vec::new(), Vec::new());
        for text in texts {
            match text.strip_prefix('!') {
                Some(rest) => excluded.push(rest),
                None => included.push(text.as_str()),
            }
        }
        let included = if included.is_empty() { None } else { Some(set(&included)?) };
        Ok(Self { included, excluded: set(&excluded)? })
    }

    /// Whether a name is meant.
    #[must_use]
    pub fn mean(&self, name: &str) -> bool {
        !self.excluded.is_match(name) && self.included.as_ref().is_none_or(|included| included.is_match(name))
    }
}

fn set(texts: &[&str]) -> Result<GlobSet, String> {
    let mut builder = GlobSetBuilder::new();
    for text in texts {
        if text.is_empty() || text.len() > GLOB_BYTES_MAX {
            return Err(format!("a glob has 1 to {GLOB_BYTES_MAX} bytes, this one has {}", text.len()));
        }
        let glob = GlobBuilder::new(text).literal_separator(true).backslash_escape(true).build();
        builder.add(glob.map_err(|error| format!("{text:?} is no glob: {}", error.kind()))?);
    }
    builder.build().map_err(|error| format!("these globs are too much together: {}", error.kind()))
}

#[cfg(test)]
mod tests {
    use super::{GLOB_BYTES_MAX, Globs};

    fn globs(texts: &[&str]) -> Globs {
        Globs::new(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).expect("globs")
    }

    #[test]
    fn a_name_is_meant_unless_it_is_excluded_or_others_are_included() {
        for (texts, name, meant) in [
            (&[][..], "main", true),
            (&["main"], "main", true),
            (&["main"], "maintenance", false),
            (&["release/*"], "release/1.0", true),
            (&["release/*"], "release/1.0/rc", false),
            (&["release/**"], "release/1.0/rc", true),
            (&["**/*.rs"], "src/a/b.rs", true),
            (&["**/*.rs"], "b.rs", true),
            (&["*.rs"], "src/b.rs", false),
            (&["docs/**", "!docs/old/**"], "docs/a.md", true),
            (&["docs/**", "!docs/old/**"], "docs/old/a.md", false),
            (&["!docs/old/**", "docs/**"], "docs/old/a.md", false),
            (&["!dependabot/**"], "main", true),
            (&["!dependabot/**"], "dependabot/cargo/x", false),
            (&["v{1,2}.*"], "v2.0", true),
            (&["v[0-9]*"], "vx", false),
        ] {
            assert_eq!(globs(texts).mean(name), meant, "{texts:?} {name}");
        }
    }

    #[test]
    fn what_is_no_glob_is_told() {
        let long = "a".repeat(GLOB_BYTES_MAX + 1);
        for (text, wrong) in [("a[", "no glob"), ("{a", "no glob"), ("", "1 to 256 bytes"), (long.as_str(), "1 to 256")]
        {
            let error = Globs::new(&[text.to_owned()]).expect_err(text);
            assert!(error.contains(wrong), "{error}");
        }
        assert!(Globs::new(&["!".to_owned()]).is_err());
    }
}
