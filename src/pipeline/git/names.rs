//! Names of refs that come from outside: none becomes an option, a pattern or a path.

/// Bytes of a ref's name, at most.
const REF_BYTES_MAX: usize = 1024;

/// Whether a text is a ref's full name, `refs/heads/main`, as git itself would have it.
///
/// # Errors
/// In words.
pub fn check_ref(name: &str) -> Result<(), String> {
    let odd = |c: char| c.is_control() || matches!(c, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\');
    let sound = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    let is_ref = name.starts_with("refs/")
        && name.split('/').count() >= 3
        && name.len() <= REF_BYTES_MAX
        && name.split('/').all(sound)
        && !name.contains(odd)
        && !name.contains("..")
        && !name.contains("@{")
        && !name.ends_with('.');
    if is_ref {
        return Ok(());
    }
    let shown: String = name.chars().take(80).collect();
    Err(format!("{shown:?} is no ref: expected a full name such as refs/heads/main"))
}

/// The full name that people mean: a bare one is a branch.
#[must_use]
pub fn full_ref(name: &str) -> String {
    if name.starts_with("refs/") { name.to_owned() } else { format!("refs/heads/{name}") }
}

#[cfg(test)]
mod tests {
    use super::{check_ref, full_ref};

    #[test]
    fn only_full_names_as_git_has_them_are_refs() {
        for name in
            ["refs/heads/main", "refs/heads/feature/a-b_c.d", "refs/pull/7/head", "refs/tags/v1.0", "refs/heads/ü"]
        {
            assert_eq!(check_ref(name), Ok(()), "{name}");
        }
        for name in [
            "main",
            "refs/heads",
            "refs/heads/",
            "refs//x",
            "-refs/heads/x",
            "refs/heads/a..b",
            "refs/heads/.a",
            "refs/heads/a.lock",
            "refs/heads/a.lock/b",
            "refs/heads/a b",
            "refs/heads/a:refs/heads/b",
            "refs/heads/*",
            "refs/heads/a^",
            "refs/heads/a~1",
            "refs/heads/a@{1}",
            "refs/heads/a\n",
            "refs/heads/a.",
            "+refs/heads/a",
        ] {
            assert!(check_ref(name).is_err(), "{name}");
        }
        assert!(check_ref(&format!("refs/heads/{}", "a".repeat(1024))).is_err());
        assert_eq!((full_ref("main"), full_ref("refs/tags/v1")), ("refs/heads/main".into(), "refs/tags/v1".into()));
    }
}
