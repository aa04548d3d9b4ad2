//! The house rules that a compiler cannot hold: layering, sizes, and what is written where.
//!
//! Reads the tree as text, with nothing but `std`, and needs no broker. Every rule answers with
//! all the places that break it, as `file:line: what`, followed by why the rule is there. The
//! reading of Rust is rough on purpose (comments and strings are blanked, braces are counted):
//! good enough for this code, and a rule that misjudges a line is better refined than worked
//! around.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of one Rust file. A longer one holds two ideas.
const FILE_LINES_MAX: usize = 800;
/// Characters of one line of Rust; rustfmt leaves long strings and comments alone.
const LINE_CHARS_MAX: usize = 120;
/// Lines of one function, from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// Functions that may be longer than [`FUNCTION_LINES_MAX`], with the length each has now. A
/// ratchet: an entry may shrink or go, and none may be added without a reason in the commit.
const LONG_FUNCTIONS: &[(&str, &str, usize)] = &[
    // One arm per event and nothing else: the one place where the state changes.
    ("src/core/state.rs", "apply", 112),
];

/// A layer of the code: what its files may name, beside itself.
struct Layer {
    /// `src/<folder>/` or `src/<folder>.rs`.
    folder: &'static str,
    /// Modules of this crate that it may name.
    modules: &'static [&'static str],
    /// Words it must not contain outside comments, strings and tests.
    never: &'static [&'static str],
    /// External crates it may `use`; `None` leaves that to `never`.
    crates: Option<&'static [&'static str]>,
    /// Why.
    why: &'static str,
}

const LAYERS: &[Layer] = &[
    Layer {
        folder: "core",
        // `units` is pure too: how durations are written, for the core's sentences.
        modules: &["core", "units"],
        never: &[
            "tokio",
            "sqlx",
            "axum",
            "tracing",
            "HashMap",
            "HashSet",
            "SystemTime",
            "Instant",
            "std::net",
            "std::fs",
            "std::env",
            "std::thread",
            "std::process",
            "std::io",
            "async",
            "getrandom",
            "jiff",
        ],
        crates: Some(&["std", "serde", "thiserror", "cel"]),
        why: "the core is a pure function of its inputs, so that a test can drive, replay and check every line of it",
    },
    Layer {
        folder: "builds",
        modules: &["builds", "core", "units"],
        never: &[
            "tokio",
            "sqlx",
            "axum",
            "tracing",
            "HashMap",
            "HashSet",
            "SystemTime",
            "Instant",
            "std::net",
            "std::fs",
            "std::env",
            "std::thread",
            "std::process",
            "std::io",
            "async",
            "getrandom",
        ],
        crates: None,
        why: "what a delivery comes to is a pure function, so that every order of things can be tried",
    },
    Layer {
        folder: "pipeline",
        modules: &["pipeline", "builds", "engine", "core", "store", "protocol", "inventory", "units", "clock"],
        never: &["axum", "tungstenite", "tokio_tungstenite", "sqlx"],
        crates: None,
        why: "builds go on without anybody who asks, over any store",
    },
    Layer {
        folder: "protocol",
        modules: &["protocol", "units"],
        never: &["tokio", "sqlx", "axum", "tungstenite", "tokio_tungstenite"],
        crates: None,
        why: "both ends of the wire use these types, so they know neither end",
    },
    Layer {
        folder: "inventory",
        modules: &["inventory", "builds", "core", "units", "clock"],
        never: &["sqlx", "axum", "tungstenite", "tokio_tungstenite"],
        crates: None,
        why: "reading files into the core's words needs no broker",
    },
    Layer {
        folder: "store",
        modules: &["store", "builds", "core", "units", "clock"],
        never: &["axum", "tungstenite", "tokio_tungstenite"],
        crates: None,
        why: "a store keeps what the core decided; it knows nobody who asks",
    },
    Layer {
        folder: "archive",
        modules: &["archive", "core", "store", "units", "clock"],
        never: &["axum", "tungstenite", "tokio_tungstenite", "sqlx"],
        crates: None,
        why: "a store is proved and copied by what all stores have in common",
    },
    Layer {
        folder: "engine",
        modules: &["engine", "core", "store", "protocol", "inventory", "units", "clock"],
        never: &["axum", "tungstenite", "tokio_tungstenite", "sqlx"],
        crates: None,
        why: "the engine is driven by tests without sockets and over any store",
    },
    Layer {
        folder: "server",
        modules: &[
            "server",
            "pipeline",
            "builds",
            "engine",
            "core",
            "protocol",
            "inventory",
            "store",
            "units",
            "clock",
        ],
        never: &["sqlx", "sqlite", "store::Store"],
        crates: None,
        why: "the engine's handle is the only door to the books, and of the store only what reads what is committed \
              (Reader) is seen: so nothing is told before it is durable",
    },
    Layer {
        folder: "client",
        modules: &["client", "protocol", "units", "clock"],
        never: &["axum", "sqlx", "clap"],
        crates: None,
        why: "a Rust test-suite depends on the client without pulling in the broker",
    },
    Layer {
        folder: "testing",
        modules: &[
            "testing",
            "client",
            "server",
            "engine",
            "store",
            "inventory",
            "builds",
            "core",
            "protocol",
            "clock",
        ],
        never: &["axum", "sqlx", "clap", "HashMap", "HashSet", "boot_now", "wall_now_ms", "random_secret"],
        crates: None,
        why: "a simulated run is a pure function of its script: no clock, no randomness, nothing without an order",
    },
    Layer { folder: "units", modules: &[], never: &["tokio"], crates: None, why: "everybody leans on it" },
    Layer { folder: "clock", modules: &[], never: &["tokio"], crates: None, why: "everybody leans on it" },
];

/// Words that begin SQL, as they stand in a string.
const SQL: &[&str] = &[
    "SELECT ",
    "INSERT INTO ",
    "INSERT OR ",
    "UPDATE ",
    "DELETE FROM ",
    "CREATE TABLE ",
    "CREATE INDEX ",
    "ALTER TABLE ",
    "DROP TABLE ",
    "PRAGMA ",
    "BEGIN IMMEDIATE",
];

/// Starts of paths that exist on one machine only, and hosts that a mirror stands in for. In
/// halves, so that this file keeps its own rule.
const MACHINE_PATHS: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/")];
const REGISTRIES: &[&str] = &[
    concat!("py", "pi.org"),
    concat!("pythonhosted", ".org"),
    concat!("npm", "js.org"),
    concat!("deb.debian", ".org"),
];

#[test]
fn every_file_says_what_it_owns() {
    let mut found = Findings::new("begin with `//!`: what the file owns, what it must not do, why");
    for file in rust_files(&["src", "tests", "examples"]) {
        if !file.text.starts_with("//!") {
            found.add(&file.path, 1, "does not begin with `//!`");
        }
    }
    found.settle();
}

#[test]
fn layers_lean_only_on_those_before_them() {
    for layer in LAYERS {
        let mut found = Findings::new(layer.why);
        let own_folder = format!("src/{}/", layer.folder);
        let own_file = format!("src/{}.rs", layer.folder);
        for file in rust_files(&["src"]).iter().filter(|file| file.is_under(&own_folder) || file.path == own_file) {
            let code = file.code();
            for (line, text) in code.lines().enumerate() {
                for word in layer.never.iter().filter(|word| has_word(text, word)) {
                    found.add(&file.path, line + 1, &format!("{} must not use `{word}`", layer.folder));
                }
            }
            for (at, module) in crate_modules(&code) {
                if !layer.modules.contains(&module.as_str()) {
                    let allowed = layer.modules.join(", ");
                    let what = format!("{} must not use `crate::{module}`, only: {allowed}", layer.folder);
                    found.add(&file.path, line_of(&code, at), &what);
                }
            }
            let Some(crates) = layer.crates else { continue };
            for (line, name) in used_crates(&code, &file.path) {
                if !crates.contains(&name.as_str()) {
                    let what = format!("{} must not use the crate `{name}`, only: {}", layer.folder, crates.join(", "));
                    found.add(&file.path, line, &what);
                }
            }
        }
        found.settle();
    }
}

#[test]
fn sql_is_written_under_the_store() {
    let mut found = Findings::new("nothing else knows which store it talks to; put the statement under src/store");
    for file in rust_files(&["src"]).iter().filter(|file| !file.is_under("src/store/")) {
        let strings = only_strings(&file.text);
        for (line, text) in strings.lines().enumerate() {
            if let Some(word) = SQL.iter().find(|word| text.contains(**word)) {
                found.add(&file.path, line + 1, &format!("`{}` looks like SQL", word.trim()));
            }
        }
    }
    found.settle();
}

#[test]
fn tests_do_not_sleep() {
    let mut found = Findings::new(
        "a test awaits what it waits for, or polls it with a deadline through tests/common, the one home of waiting",
    );
    for file in rust_files(&["tests"]).iter().filter(|file| !file.is_under("tests/common/")) {
        for (line, text) in blank(&file.text).lines().enumerate() {
            if has_word(text, "sleep") {
                found.add(&file.path, line + 1, "sleeps");
            }
        }
    }
    found.settle();
}

#[test]
fn lints_are_expected_with_a_reason_and_never_allowed() {
    let mut found = Findings::new("write `#[expect(lint, reason = \"...\")]`: it goes when its cause goes");
    for file in rust_files(&["src", "tests", "examples"]) {
        let code = blank(&file.text);
        for (line, text) in code.lines().enumerate() {
            if text.contains("#[allow") || text.contains("#![allow") {
                found.add(&file.path, line + 1, "allows a lint");
            }
        }
        for (at, _) in code.match_indices("#[expect(") {
            let until = code[at..].find(")]").map_or(code.len(), |length| at + length);
            if !code[at..until].contains("reason") {
                found.add(&file.path, line_of(&code, at), "expects a lint without a reason");
            }
        }
    }
    found.settle();
}

#[test]
fn files_and_lines_stay_short() {
    let mut found = Findings::new("a longer file holds two ideas, a longer line is read by nobody");
    for file in rust_files(&["src", "tests", "examples"]) {
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX {
            found.add(&file.path, lines, &format!("{lines} lines, at most {FILE_LINES_MAX}: split it by idea"));
        }
        for (line, text) in file.text.lines().enumerate() {
            let chars = text.chars().count();
            if chars > LINE_CHARS_MAX {
                found.add(&file.path, line + 1, &format!("{chars} characters, at most {LINE_CHARS_MAX}"));
            }
        }
    }
    found.settle();
}

#[test]
fn functions_stay_short_but_for_the_ratchet() {
    let mut found =
        Findings::new("split it, or enter it in LONG_FUNCTIONS of tests/tidy.rs with the reason in the commit");
    let mut ratchet = LONG_FUNCTIONS.to_vec();
    for file in rust_files(&["src"]) {
        for Function { name, line, lines } in functions(&file.code()) {
            if lines <= FUNCTION_LINES_MAX {
                continue;
            }
            let entry = ratchet.iter().position(|(path, of, _)| *path == file.path && *of == name);
            let entered = entry.map_or(FUNCTION_LINES_MAX, |at| ratchet.swap_remove(at).2);
            if lines > entered {
                let what =
                    format!("fn {name} has {lines} lines; as an entry: (\"{}\", \"{name}\", {lines}),", file.path);
                found.add(&file.path, line, &what);
            } else if lines < entered {
                found.add(&file.path, line, &format!("fn {name} shrank to {lines} lines: lower its entry"));
            }
        }
    }
    for (path, name, _) in ratchet {
        found.add(path, 1, &format!("fn {name} is no longer long: take its entry out of LONG_FUNCTIONS"));
    }
    found.settle();
}

#[test]
fn nothing_names_one_machine() {
    let mut found = Findings::new("the tree works wherever it is cloned, behind whatever mirror");
    for file in files(&root(), &|path| path.file_name().is_some_and(|name| name != "Cargo.lock")) {
        for (line, text) in file.text.lines().enumerate() {
            for part in MACHINE_PATHS.iter().chain(REGISTRIES).filter(|part| text.contains(**part)) {
                found.add(&file.path, line + 1, &format!("names `{part}`"));
            }
        }
    }
    found.settle();
}

#[test]
fn pages_have_one_title() {
    let mut found = Findings::new("a page is about one thing, and says so once, first");
    for page in pages() {
        let titles: Vec<_> =
            prose(&page.text).into_iter().filter(|(_, text)| text.starts_with("# ")).map(|(line, _)| line).collect();
        match titles.as_slice() {
            [1] => {}
            [] => found.add(&page.path, 1, "has no title"),
            [line] => found.add(&page.path, *line, "does not begin with its title"),
            [_, second, ..] => found.add(&page.path, *second, "has a second title"),
        }
    }
    found.settle();
}

#[test]
fn links_between_pages_resolve() {
    let mut found = Findings::new("a link leads somewhere; headings are matched as their usual anchors");
    let anchors: BTreeMap<String, BTreeSet<String>> =
        pages().iter().map(|page| (page.path.clone(), headings(&page.text))).collect();
    for page in pages() {
        for (line, target) in links(&page.text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').map_or((target.as_str(), None), |(p, a)| (p, Some(a)));
            let there = if path.is_empty() { page.path.clone() } else { beside(&page.path, path) };
            if !root().join(&there).exists() {
                found.add(&page.path, line, &format!("links to {target}, and there is no {there}"));
            } else if let (Some(anchor), Some(known)) = (anchor, anchors.get(&there))
                && !known.contains(anchor)
            {
                found.add(&page.path, line, &format!("links to {target}, and {there} has no such heading"));
            }
        }
    }
    found.settle();
}

#[test]
fn the_protocol_page_names_everything_on_the_wire() {
    let mut found = Findings::new("docs/protocol.md is what client authors go by: add the missing word, in backticks");
    let page = fs::read_to_string(root().join("docs/protocol.md")).expect("docs/protocol.md is there");
    for (path, starts) in [
        ("src/protocol/call.rs", "pub const "),
        ("src/protocol/error.rs", "    pub const "),
        ("src/protocol/error.rs", "            Self::"),
        ("src/core/refusal.rs", "            Self::"),
    ] {
        let text = fs::read_to_string(root().join(path)).expect("a source file of the wire is there");
        for (line, words) in text.lines().enumerate().filter(|(_, text)| text.trim_start().starts_with(starts.trim())) {
            for word in quoted(words).into_iter().filter(|word| is_wire_word(word)) {
                if !page.contains(&format!("`{word}`")) {
                    found.add(path, line + 1, &format!("`{word}` is not in docs/protocol.md"));
                }
            }
        }
    }
    for file in rust_files(&["src/server"]) {
        let code = without_tests(&file.text);
        for (at, _) in code.match_indices(".route(") {
            let argument = &code[at..code.len().min(at + 120)];
            let Some(route) = quoted(argument).into_iter().find(|word| word.starts_with('/')) else { continue };
            if !page.contains(&route) {
                found.add(&file.path, line_of(&code, at), &format!("the route {route} is not in docs/protocol.md"));
            }
        }
    }
    found.settle();
}

#[test]
fn the_rough_reading_of_rust_holds() {
    let text = concat!(
        "use crate::{core::types, store};\n",
        "// fn not_me() { crate::never }\n",
        "fn one<'a>(brace: char) -> &'a str {\n    if brace == '{' { r#\"}\"# } else { \"\\\"}\" }\n}\n",
        "#[cfg(test)]\nmod tests {\n    fn two() { sqlx() }\n}\n",
    );
    let code = without_tests(&blank(text));
    let found: Vec<_> = functions(&code).into_iter().map(|f| (f.name, f.line, f.lines)).collect();
    assert_eq!(found, [("one".to_owned(), 3, 3)]);
    assert_eq!(crate_modules(&code).into_iter().map(|(_, name)| name).collect::<Vec<_>>(), ["core", "store"]);
    assert_eq!(
        used_crates("use serde::Serialize;\nuse super::x;\nuse Code::*;\n", "src/lib.rs"),
        [(1, "serde".into())]
    );
    assert_eq!(links("[`a`](b.md#c) and `[d](e)`\n```\n[f](g)\n```\n"), [(1, "b.md#c".to_owned())]);
    assert_eq!(beside("docs/decisions/1.md", "../../README.md"), "README.md");
    assert!(headings("## What `run` cannot stop\n").contains("what-run-cannot-stop"));
    assert!(!has_word("let tokio_like = 1;", "tokio") && has_word("tokio::spawn", "tokio"));
}

/// What a rule found, told all at once.
struct Findings {
    why: &'static str,
    places: Vec<String>,
}

impl Findings {
    const fn new(why: &'static str) -> Self {
        Self { why, places: Vec::new() }
    }

    fn add(&mut self, path: &str, line: usize, what: &str) {
        self.places.push(format!("{path}:{line}: {what}"));
    }

    /// Fails the test with everything found, or does nothing.
    fn settle(self) {
        if self.places.is_empty() {
            return;
        }
        let mut told = String::new();
        for place in &self.places {
            let _ = writeln!(told, "  {place}");
        }
        panic!("{} found\n{told}  why: {}", self.places.len(), self.why);
    }
}

/// A file of the tree.
struct File {
    /// From the root, with `/`.
    path: String,
    text: String,
}

impl File {
    /// Its code without comments, literals and tests; nothing of a file that is tests only, by the
    /// names that such files have.
    fn code(&self) -> String {
        let is_test = self.path.ends_with("tests.rs") || self.path.contains("/tests/");
        if is_test { String::new() } else { without_tests(&blank(&self.text)) }
    }

    fn is_under(&self, folder: &str) -> bool {
        self.path.starts_with(folder)
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folders: &[&str]) -> Vec<File> {
    let is_rust = |path: &Path| path.extension().is_some_and(|extension| extension == "rs");
    folders.iter().flat_map(|folder| files(&root().join(folder), &is_rust)).collect()
}

fn pages() -> Vec<File> {
    files(&root(), &|path| path.extension().is_some_and(|extension| extension == "md"))
}

/// The text files under `folder` that are wanted, by path; what is built, fetched or found is left out.
fn files(folder: &Path, wanted: &dyn Fn(&Path) -> bool) -> Vec<File> {
    const FETCHED: &[&str] = &["target", ".git", "node_modules", "__pycache__", ".pytest_cache", "corpus", "artifacts"];
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if FETCHED.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path, wanted));
        } else if wanted(&path)
            && let Ok(text) = fs::read_to_string(&path)
        {
            let from_root = path.strip_prefix(root()).unwrap_or(&path);
            found.push(File { path: from_root.to_string_lossy().replace('\\', "/"), text });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// What a stretch of Rust is.
#[derive(Clone, Copy, PartialEq)]
enum Stretch {
    Code,
    Comment,
    Literal,
}

/// The code with comments and literals blanked; lines and offsets of characters stay.
fn blank(text: &str) -> String {
    keep(text, Stretch::Code)
}

/// The literals with everything else blanked.
fn only_strings(text: &str) -> String {
    keep(text, Stretch::Literal)
}

fn keep(text: &str, wanted: Stretch) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut kept = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let (stretch, end) = stretch_at(&chars, at);
        for c in &chars[at..end] {
            kept.push(if *c == '\n' || stretch == wanted { *c } else { ' ' });
        }
        at = end;
    }
    kept
}

/// What begins at `at`, and where it ends.
fn stretch_at(chars: &[char], at: usize) -> (Stretch, usize) {
    let find = |from: usize, wanted: &[char]| {
        (from..chars.len()).find(|i| chars[*i..].starts_with(wanted)).unwrap_or(chars.len())
    };
    let in_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match chars[at] {
        '/' if chars.get(at + 1) == Some(&'/') => (Stretch::Comment, find(at, &['\n'])),
        '/' if chars.get(at + 1) == Some(&'*') => (Stretch::Comment, (find(at + 2, &['*', '/']) + 2).min(chars.len())),
        'r' if !in_word || chars[at - 1] == 'b' => {
            let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
            if chars.get(at + 1 + hashes) != Some(&'"') {
                return (Stretch::Code, at + 1);
            }
            let mut closing = vec!['"'];
            closing.extend(std::iter::repeat_n('#', hashes));
            (Stretch::Literal, (find(at + hashes + 2, &closing) + closing.len()).min(chars.len()))
        }
        '"' => {
            let mut end = at + 1;
            while end < chars.len() && chars[end] != '"' {
                end += if chars[end] == '\\' { 2 } else { 1 };
            }
            (Stretch::Literal, (end + 1).min(chars.len()))
        }
        // A character, or else a lifetime.
        '\'' if chars.get(at + 1) == Some(&'\\') => (Stretch::Literal, (find(at + 3, &['\'']) + 1).min(chars.len())),
        '\'' if chars.get(at + 2) == Some(&'\'') => (Stretch::Literal, at + 3),
        _ => (Stretch::Code, at + 1),
    }
}

/// The code with what stands under `#[cfg(test)]` blanked.
fn without_tests(code: &str) -> String {
    let mut kept = code.to_owned();
    while let Some(at) = kept.find("#[cfg(test)]") {
        let body = kept[at..].find(['{', ';']).map_or(kept.len(), |length| at + length);
        let end = if kept[body..].starts_with('{') { closing_brace(&kept, body) } else { body };
        let end = (end + 1).min(kept.len());
        let blanked: String = kept[at..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        kept.replace_range(at..end, &blanked);
    }
    kept
}

/// Where the brace at `open` closes.
fn closing_brace(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return open + at,
            '}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn word_at(text: &str) -> String {
    text.chars().take_while(|c| is_word_char(*c)).collect()
}

fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(is_word_char) && !text[at + word.len()..].starts_with(is_word_char))
}

/// The modules named after `crate::`, with where; `crate::{a, b}` names both.
fn crate_modules(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, start) in code.match_indices("crate::") {
        let rest = &code[at + start.len()..];
        if !rest.starts_with('{') {
            found.push((at, word_at(rest)));
            continue;
        }
        let mut depth = 0_usize;
        let mut begins = false;
        for (offset, c) in rest.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 1 => break,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 1 && (c == '{' || c == ',') {
                begins = true;
            } else if begins && is_word_char(c) {
                found.push((at, word_at(&rest[offset..])));
                begins = false;
            }
        }
    }
    found.retain(|(_, name)| name.starts_with(char::is_lowercase));
    found
}

/// The crates that `use` lines begin with, with their lines; modules beside the file are none.
fn used_crates(code: &str, path: &str) -> Vec<(usize, String)> {
    let folder = root().join(path).parent().map(Path::to_path_buf).unwrap_or_default();
    let mut found = Vec::new();
    for (line, text) in code.lines().enumerate() {
        let text = text.trim_start();
        let text = text.strip_prefix("pub ").unwrap_or(text);
        let Some(name) = text.strip_prefix("use ").map(|rest| word_at(rest.trim_start_matches("::"))) else { continue };
        let is_beside = folder.join(format!("{name}.rs")).exists() || folder.join(&name).is_dir();
        let is_own = ["crate", "self", "super"].contains(&name.as_str());
        if name.starts_with(char::is_lowercase) && !is_own && !is_beside {
            found.push((line + 1, name));
        }
    }
    found
}

/// A function with a body.
struct Function {
    name: String,
    line: usize,
    lines: usize,
}

fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, start) in code.match_indices("fn ") {
        let name = word_at(&code[at + start.len()..]);
        if code[..at].ends_with(is_word_char) || name.is_empty() {
            continue;
        }
        let Some(body) = code[at..].find(['{', ';']).map(|length| at + length) else { continue };
        if code[body..].starts_with('{') {
            let line = line_of(code, at);
            found.push(Function { name, line, lines: line_of(code, closing_brace(code, body)) - line + 1 });
        }
    }
    found
}

/// The double-quoted texts of a stretch.
fn quoted(text: &str) -> Vec<String> {
    text.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

fn is_wire_word(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c == '.')
}

/// The lines of a page outside fenced blocks, numbered.
fn prose(page: &str) -> Vec<(usize, &str)> {
    let mut fenced = false;
    let mut kept = Vec::new();
    for (line, text) in page.lines().enumerate() {
        if text.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            kept.push((line + 1, text));
        }
    }
    kept
}

/// The anchors of a page's headings, as the usual renderers make them.
fn headings(page: &str) -> BTreeSet<String> {
    let heading = |text: &str| {
        let words = text.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>()
    };
    prose(page).into_iter().filter(|(_, text)| text.starts_with('#')).map(|(_, text)| heading(text)).collect()
}

/// The targets of a page's inline links, with their lines; code spans are none.
fn links(page: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (line, text) in prose(page) {
        let outside_code: String = text.split('`').step_by(2).collect::<Vec<_>>().join("");
        for (at, start) in outside_code.match_indices("](") {
            let rest = &outside_code[at + start.len()..];
            if let Some(target) = rest.split(')').next() {
                found.push((line, target.trim().to_owned()));
            }
        }
    }
    found
}

/// The path `relative` leads to from the page at `page`.
fn beside(page: &str, relative: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in relative.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}
