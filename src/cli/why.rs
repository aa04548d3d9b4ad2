//! `why`: the reason something is as it is, in sentences.

use clap::Args;

use super::broker::{Broker, encode};
use super::{Failure, Globals, exit_code, output};
use crate::protocol::info::WhyInfo;

/// Say why a claim waits or ended, why a lease ends or ended, why a resource is not to be had
#[derive(Debug, Args)]
pub struct WhyCommand {
    /// A claim (c7), a lease (12), or else a resource's name; claim:7, lease:12 and resource:c7 say which
    #[arg(value_name = "CLAIM|LEASE|RESOURCE")]
    subject: String,
    /// Print JSON instead of sentences
    #[arg(long)]
    json: bool,
}

impl WhyCommand {
    /// Does it.
    pub fn execute(self, globals: &Globals) -> Result<u8, Failure> {
        let (kind, id) = subject(&self.subject);
        let why: WhyInfo = Broker::new(globals)?.get(&format!("/v1/why/{kind}/{}", encode(id)))?;
        if self.json {
            output::print(&output::json(&why)?)?;
            return Ok(exit_code::DONE);
        }
        let mut text = format!("{}: {}\n", output::escape(&why.subject), output::escape(&why.summary));
        for reason in &why.reasons {
            text.push_str(&format!("- {}\n", output::escape(reason)));
        }
        output::print(&text)?;
        Ok(exit_code::DONE)
    }
}

/// What is asked about. A name cannot have a colon, so the long forms are never names; the short
/// ones are as every command prints them.
fn subject(text: &str) -> (&'static str, &str) {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    for (prefix, kind, letter) in [("claim:", "claim", "c"), ("lease:", "lease", ""), ("resource:", "resource", "")] {
        if let Some(id) = text.strip_prefix(prefix) {
            return (kind, id.strip_prefix(letter).unwrap_or(id));
        }
    }
    match text.strip_prefix('c') {
        Some(number) if digits(number) => ("claim", number),
        _ if digits(text) => ("lease", text),
        _ => ("resource", text),
    }
}

#[cfg(test)]
mod tests {
    use super::subject;

    #[test]
    fn what_is_asked_about_is_told_by_its_form() {
        for (text, expected) in [
            ("c7", ("claim", "7")),
            ("claim:7", ("claim", "7")),
            ("claim:c7", ("claim", "7")),
            ("12", ("lease", "12")),
            ("lease:12", ("lease", "12")),
            ("pixel-8-01", ("resource", "pixel-8-01")),
            ("c7x", ("resource", "c7x")),
            ("c", ("resource", "c")),
            ("resource:c7", ("resource", "c7")),
            ("resource:12", ("resource", "12")),
        ] {
            assert_eq!(subject(text), expected, "{text}");
        }
    }
}
