//! What needs no broker: help, completions, usage errors, and saying that there is no broker.

use super::common::process::leasehold_alone;

#[test]
fn help_and_completions_need_no_broker() {
    for line in ["--help", "completions bash", "man", "man status"] {
        let output = leasehold_alone(&line.split(' ').collect::<Vec<_>>()).exits(0);
        assert!(output.stdout.contains("leasehold"), "{line}: {}", output.stdout);
        assert_eq!(output.stderr, "", "{line}");
    }
}
