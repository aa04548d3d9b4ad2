//! What forges deliver, or whoever has a secret in their place.

use crate::builds::happening::{Forge, What};
use crate::builds::hook::secret::Secret;
use crate::builds::hook::{Headers, said};

/// A line of headers, `name: value` with tabs between them, and a body: what it says can be kept and read
/// again, its names are bounded and of one line, and no signature made up by chance is right.
pub fn deliveries(input: &[u8]) -> bool {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let line = String::from_utf8_lossy(&input[..end]);
    let body = input.get(end + 1..).unwrap_or_default();
    let header = |name: &str| line.split('\t').find_map(|field| field.strip_prefix(name)?.strip_prefix(": "));
    let mut was_read = false;
    for forge in [Forge::Gitea, Forge::Github, Forge::Gitlab] {
        if let Ok(headers) = Headers::read(forge, header) {
            let secrets = [Secret::parse("a secret of a fuzzer").expect("a secret")];
            assert!(headers.verify(&secrets, body, 0).is_err(), "{headers:?}");
        }
        match said(forge, header("event").unwrap_or("push"), body) {
            Ok(happening) => {
                was_read = true;
                let kept = serde_json::to_string(&happening).expect("it can be kept");
                assert_eq!(serde_json::from_str(&kept).ok().as_ref(), Some(&happening), "{kept}");
                let name = match &happening.what {
                    What::Push { branch, .. } => branch,
                    What::Tag { tag, .. } => tag,
                    What::Pull { pull, .. } => &pull.base_branch,
                };
                for name in [name, &happening.repository, &happening.by] {
                    assert!(!name.is_empty() && name.len() <= 400 && !name.contains(char::is_control), "{name:?}");
                }
            }
            Err(reason) => assert!(!reason.is_empty() && reason.chars().count() <= 300, "{reason}"),
        }
    }
    was_read
}
