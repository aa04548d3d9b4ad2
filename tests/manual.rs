//! The page about the commands names every command and option that there is.
//!
//! Asks the definition of the command line itself, so that nothing can be added in silence.

use std::collections::BTreeSet;

use clap::CommandFactory as _;
use leasehold::cli::Cli;

const PAGE: &str = include_str!("../docs/cli.md");

#[test]
fn every_command_and_option_is_on_its_page() {
    let mut root = Cli::command();
    root.build();
    let mut missing = BTreeSet::new();
    collect(&root, "leasehold", &mut missing);
    let missing: Vec<_> = missing.into_iter().collect();
    assert!(missing.is_empty(), "docs/cli.md lacks:\n  {}", missing.join("\n  "));
}

/// Adds what of `command` and those below it the page does not name. A command stands there with
/// its last word, an option with its dashes; `--json` and `--help` are spoken of once for all.
fn collect(command: &clap::Command, path: &str, missing: &mut BTreeSet<String>) {
    for option in command.get_arguments().filter(|option| !option.is_hide_set()) {
        if let Some(long) = option.get_long()
            && !names(&format!("--{long}"))
        {
            missing.insert(format!("{path} --{long}"));
        }
    }
    for below in command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help") {
        let path = format!("{path} {}", below.get_name());
        if !names(below.get_name()) {
            missing.insert(path.clone());
        }
        collect(below, &path, missing);
    }
}

/// Whether the page has the word, not as a part of another.
fn names(word: &str) -> bool {
    let in_word = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    PAGE.match_indices(word)
        .any(|(at, _)| !PAGE[..at].ends_with(in_word) && !PAGE[at + word.len()..].starts_with(in_word))
}
