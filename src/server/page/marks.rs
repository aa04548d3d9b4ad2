//! Which lines tell of an error or a warning.
//!
//! Few false alarms are worth more than finding all: somebody steps through these one by one. So the
//! patterns are what compilers, test runners and CI systems print on purpose, mostly at the beginning of a
//! line; a mere "error" somewhere is none. Linear, as all that looks at logs.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use regex::RegexSet;

use super::terminal;

/// Bytes of a line that are looked at.
const BYTES_MAX: usize = 10_000;

/// What a line tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Something failed.
    Error,
    /// Something could be wrong.
    Warning,
}

impl Mark {
    /// Its letter: a class of the page, and what the outline says.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::Error => 'e',
            Self::Warning => 'w',
        }
    }
}

/// Without one of these no pattern matches; most lines are through with it.
const HINTS: &[&str] = &[
    "err",
    "warn",
    "fail",
    "panic",
    "traceback",
    "fatal",
    "exception",
    "not ok",
    "segmentation fault",
    "caused by",
    "command not found",
    "*** [",
    "\u{2717}",
    "\u{2716}",
];

const ERRORS: &[&str] = &[
    // What people and tools print for CI systems.
    r"^##\[error\]",
    r"^::error(?: [^:]|::)",
    // Compilers: `error:`, `error[E0308]:`, `src/a.c:1:2: fatal error:`, `a.ts(1,2): error TS2345:`.
    r"(?:^|[:)\]>] |^\w[\w./+-]{0,40}: )(?i:(?:fatal |internal compiler )?error)(?:\[\w+\]| [A-Z]{1,4}\d+)?: ?[^\s]",
    r"^\s{0,8}(?i:fatal): [^\s]",
    // Loggers: `[ERROR] ...`, `ERROR ...`, `2026-01-01T00:00:00Z ERROR ...`.
    r"^(?:\S{8,40} (?:\S{8,20} )?)?\[?\s?(?:ERROR|FATAL|CRITICAL)\]?[ :]",
    r"^(?:npm|pnpm) (?:ERR!|error) ",
    // Test runners: pytest, cargo, Go, TAP, Jest, Gradle, JUnit.
    r"^(?:FAILED|FAIL|ERROR)[ :\t]+\S",
    r"\.\.\. FAILED$",
    r"^test result: FAILED",
    r"^\s*--- FAIL: ",
    r"^\s{0,8}not ok \d",
    r"^> Task \S+ FAILED$",
    r"^(?:BUILD|COMPILATION) (?:FAILED|FAILURE)",
    r"^\s*[\x{2717}\x{2716}] \S",
    r"^E {3}\s*[\w.]*(?:Error|Exception|assert)",
    r"<<< (?:FAILURE|ERROR)!$",
    // What programs die of.
    r"\bpanicked at ",
    r"^panic: ",
    r"^Traceback \(most recent call last\)",
    r"^(?:[\w$]+\.)*[A-Z]\w*(?:Error|Exception)(?:: |$)",
    r#"^Exception in thread ""#,
    r"^Caused by: ",
    r"(?i)\bsegmentation fault\b",
    r": command not found$",
    r"^(?:g?make|ninja)(?:\[\d+\])?: \*\*\* ",
];

const WARNINGS: &[&str] = &[
    r"^##\[warning\]",
    r"^::warning(?: [^:]|::)",
    r"(?:^|[:)\]>] |^\w[\w./+-]{0,40}: )(?i:warning)(?:\[\w+\]| [A-Z]{1,4}\d+)?: ?[^\s]",
    r"^(?:\S{8,40} (?:\S{8,20} )?)?\[?\s?(?:WARN|WARNING)\]?[ :]",
    r"^(?:npm|pnpm) (?:WARN|warn) ",
    r": \w*Warning: ",
];

/// `error: 0` and its likes tell of none.
const NOT_AFTER: &[&str] = &["0", "none", "null", "nil", "(none)", "\"\"", "''"];

static FIND_HINTS: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::builder().ascii_case_insensitive(true).build(HINTS).expect("fixed words make an automaton")
});
static FIND_ERRORS: LazyLock<RegexSet> =
    LazyLock::new(|| RegexSet::new(ERRORS).expect("the patterns are fixed, and a test compiles them"));
static FIND_WARNINGS: LazyLock<RegexSet> =
    LazyLock::new(|| RegexSet::new(WARNINGS).expect("the patterns are fixed, and a test compiles them"));

/// What a line, as its bytes in the log, tells of.
#[must_use]
pub fn mark(line: &[u8]) -> Option<Mark> {
    let line = &line[..line.len().min(BYTES_MAX)];
    if !FIND_HINTS.is_match(line) {
        return None;
    }
    let text = terminal::text(line);
    let told = text.split_once([':', '=']).map_or("", |(_, rest)| rest.trim());
    if NOT_AFTER.iter().any(|nothing| told.eq_ignore_ascii_case(nothing)) {
        return None;
    }
    if FIND_ERRORS.is_match(&text) {
        Some(Mark::Error)
    } else if FIND_WARNINGS.is_match(&text) {
        Some(Mark::Warning)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{Mark, mark};

    #[test]
    fn errors_are_marked() {
        for line in [
            "##[error]Process completed with exit code 1.",
            "::error file=app.js,line=1::Missing semicolon",
            "::error::no",
            "error: could not compile `x`",
            "error[E0308]: mismatched types",
            "\u{1b}[1m\u{1b}[31merror\u{1b}[0m: linking failed",
            "src/main.c:12:5: error: expected ';'",
            "src/main.c:1:10: fatal error: x.h: No such file or directory",
            "src/a.ts(12,5): error TS2345: Argument of type",
            "ld: error: undefined symbol",
            "ERROR: something",
            "[ERROR] Failed to execute goal",
            "2026-11-27T10:00:00Z ERROR app::db: no connection",
            "2026-11-27 10:00:00,123 ERROR no connection",
            "fatal: not a git repository",
            "npm ERR! code ELIFECYCLE",
            "test store::tests::reads ... FAILED",
            "test result: FAILED. 3 passed; 1 failed",
            "FAILED tests/test_a.py::test_b - assert 1 == 2",
            "--- FAIL: TestX (0.00s)",
            "    --- FAIL: TestX/sub (0.00s)",
            "FAIL\texample.com/pkg\t0.01s",
            "not ok 3 - reads",
            "> Task :app:test FAILED",
            "BUILD FAILED in 3s",
            "E       AssertionError: assert 1 == 2",
            "Tests run: 3, Failures: 1 <<< FAILURE!",
            "thread 'main' panicked at src/main.rs:1:2:",
            "panic: runtime error: index out of range",
            "Traceback (most recent call last):",
            "ValueError: no",
            "requests.exceptions.ConnectionError: no",
            "Exception in thread \"main\" java.lang.NullPointerException",
            "Caused by: java.io.IOException",
            "sh: line 1: 12 Segmentation fault (core dumped)",
            "sh: 1: foo: command not found",
            "make: *** [Makefile:2: all] Error 1",
            "  \u{2717} reads the file",
        ] {
            assert_eq!(mark(line.as_bytes()), Some(Mark::Error), "{line}");
        }
    }

    #[test]
    fn warnings_are_marked() {
        for line in [
            "##[warning]old",
            "::warning file=a::old",
            "warning: unused variable: `x`",
            "a.c:1:2: warning: unused",
            "[WARN] old",
            "[WARNING] old",
            "2026-11-27T10:00:00Z  WARN app: slow",
            "npm WARN deprecated x@1",
            "/usr/lib/x.py:3: DeprecationWarning: old",
        ] {
            assert_eq!(mark(line.as_bytes()), Some(Mark::Warning), "{line}");
        }
    }

    #[test]
    fn what_tells_of_none_is_not_marked() {
        for line in [
            "",
            "0 errors, 0 warnings",
            "errors: 0",
            "error: none",
            "Error: 0",
            "test error_handling::reads ... ok",
            "cc -Werror -Wall -c a.c",
            "running 3 tests of failures",
            "   Compiling thiserror v2.0.0",
            "test result: ok. 3 passed; 0 failed",
            "continuing on error",
            "retries on error: yes, it does not mind",
            "see docs/errors.md for error messages",
            "the warning light is on",
            "downloading failed-tests-plugin 1.0",
            "--- PASS: TestError (0.00s)",
            "if err != nil { return err }",
            "ERRORS",
            "ok 3 - reports errors",
            "GET /errors 200",
        ] {
            assert_eq!(mark(line.as_bytes()), None, "{line}");
        }
    }
}
