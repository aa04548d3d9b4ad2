//! How `acquire` tells what it got: JSON, shell, GitHub Actions.
//!
//! Values come from an inventory and are hostile until quoted: the shell reads them between single
//! quotes only, and GitHub's files between lines that no value has.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;

use clap::ValueEnum;

use crate::cli::Failure;
use crate::cli::run::environment::{Environment, LEASE_KEY, PREFIX};
use crate::clock;

/// How it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A line of JSON.
    Json,
    /// `export` lines for `eval`; on failure a line that fails.
    Env,
    /// Into the files of GitHub Actions.
    Github,
}

/// A value between single quotes, as every shell reads it back.
#[must_use]
pub fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

/// Lines for `eval`.
#[must_use]
pub fn shell(environment: &Environment) -> String {
    let unset = environment.removed.iter().map(|name| format!("unset {name}\n"));
    let export = environment.set.iter().map(|(name, value)| format!("export {name}={}\n", quoted(value)));
    unset.chain(export).collect()
}

/// The line that makes `eval` fail.
#[must_use]
pub fn shell_failure(code: u8) -> String {
    format!("(exit {code})\n")
}

/// What hides `values` in the logs of GitHub Actions, line by line, as logs are.
#[must_use]
pub fn masks<'a>(values: impl Iterator<Item = &'a str>) -> String {
    let lines = values.flat_map(str::lines).filter(|line| !line.trim().is_empty());
    lines.map(|line| format!("::add-mask::{}\n", line.replace('%', "%25").replace('\r', "%0D"))).collect()
}

/// Pairs as GitHub's files have them; `delimiter` stands alone on a line, so it is drawn anew.
fn github_lines(pairs: &BTreeMap<String, String>, delimiter: &str) -> String {
    pairs.iter().map(|(name, value)| format!("{name}<<{delimiter}\n{value}\n{delimiter}\n")).collect()
}

/// The files that GitHub Actions names in the environment: for variables, and for outputs.
pub fn github_files() -> Result<(OsString, OsString), Failure> {
    let path = |name: &str| {
        std::env::var_os(name)
            .ok_or_else(|| Failure::own(format!("{name} is not set: --format github works in GitHub Actions only")))
    };
    Ok((path("GITHUB_ENV")?, path("GITHUB_OUTPUT")?))
}

/// Writes to the files of GitHub Actions: the variables, and as outputs the same in small letters
/// without our prefix.
pub fn github(environment: &Environment) -> Result<(), Failure> {
    let (variables, outputs) = github_files()?;
    let delimiter = format!("leasehold_{}", &clock::random_secret()[..32]);
    let short = |name: &String| name.strip_prefix(PREFIX).unwrap_or(name).to_ascii_lowercase();
    let small = environment.set.iter().filter(|(name, _)| *name != LEASE_KEY);
    let small = small.map(|(name, value)| (short(name), value.clone())).collect();
    for (path, text) in
        [(variables, github_lines(&environment.set, &delimiter)), (outputs, github_lines(&small, &delimiter))]
    {
        let appended = OpenOptions::new().append(true).create(true).open(&path);
        appended
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| Failure::own(format!("{} cannot be written: {error}", path.to_string_lossy())))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::process::Command;

    use super::{github_lines, masks, quoted, shell, shell_failure};
    use crate::cli::run::environment::Environment;

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for value in ["", "plain", "two words", "it's", "''", "$(touch x) `y` \"z\" \\", "a\nb", "-n", "é*?"] {
            let script = format!("printf %s {}", quoted(value));
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), value, "{script}");
        }
    }

    #[test]
    fn eval_sets_unsets_and_fails() {
        let set = BTreeMap::from([("LEASEHOLD_A_NAME".to_owned(), "it's".to_owned())]);
        let lines = shell(&Environment { set, removed: vec!["LEASEHOLD_OLD".to_owned()] });
        assert_eq!(lines, "unset LEASEHOLD_OLD\nexport LEASEHOLD_A_NAME='it'\\''s'\n");
        let script = format!("eval \"{}\" ; echo $?", shell_failure(124));
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(output.stdout, b"124\n");
    }

    #[test]
    fn every_line_of_a_secret_is_hidden() {
        let hidden = masks(["one\ntwo\n\n", "100%"].into_iter());
        assert_eq!(hidden, "::add-mask::one\n::add-mask::two\n::add-mask::100%25\n");
    }

    #[test]
    fn a_value_cannot_end_itself_in_githubs_files() {
        let pairs = BTreeMap::from([("A".to_owned(), "x\nB=y".to_owned())]);
        assert_eq!(github_lines(&pairs, "end"), "A<<end\nx\nB=y\nend\n");
    }
}
