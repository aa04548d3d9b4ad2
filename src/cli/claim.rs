//! The options with which `run` and `acquire` say what they want and for how long.

use clap::Args;

use super::{Failure, Globals, run::environment, tags};
use crate::client::{BaseUrl, ClientError, Options};
use crate::protocol::call::ClaimRequest;
use crate::units::parse_duration_ms;

/// What is wanted, how long it may take, and what is said of it.
#[derive(Clone, Debug, Default, Args)]
pub struct ClaimOptions {
    /// What is needed: [ALIAS=][COUNT:]POOL[/SLOTS][,label=value ...][ where CEL]; several are granted together
    #[arg(short = 'n', long = "need", value_name = "NEED", required = true)]
    pub needs: Vec<String>,
    /// Give up when no lease came this long after queueing; without it for ever, 0 asks once
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    pub wait: Option<u64>,
    /// Hold at most this long; without it what the pools allow
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    pub hold: Option<u64>,
    /// How long the broker waits for a sign of life, 2s to 10m; without it what the pools say
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    pub ttl: Option<u64>,
    /// From -10 to 10: each step is worth five minutes of waiting
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub priority: Option<i8>,
    /// For whoever looks why it is taken
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    /// Said of the claim, beside what CI tells by itself
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = parse_tag)]
    pub tags: Vec<(String, String)>,
    /// All that is picked has this label alike
    #[arg(long, value_name = "LABEL")]
    pub same: Option<String>,
    /// No two that are picked have this label alike
    #[arg(long, value_name = "LABEL")]
    pub distinct: Option<String>,
    /// Do not wait for what is drained, offline, quarantined or held
    #[arg(long)]
    pub fail_fast: bool,
    /// Wait for what is not in the inventory yet
    #[arg(long)]
    pub wait_for_inventory: bool,
    /// Give up when no broker is there for this long before the grant
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms, default_value = "2m")]
    pub connect_timeout: u64,
}

fn parse_tag(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is no tag: expected key=value, such as suite=smoke")),
    }
}

impl ClaimOptions {
    /// The claim, made for `command`.
    #[must_use]
    pub fn request(&self, command: &[String]) -> ClaimRequest {
        ClaimRequest {
            request_id: None,
            needs: self.needs.clone(),
            same: self.same.clone(),
            distinct: self.distinct.clone(),
            priority: self.priority,
            wait_ms: self.wait,
            hold_ms: self.hold,
            note: self.note.clone(),
            tags: tags::tags(command, &self.tags),
            fail_fast: self.fail_fast,
            wait_for_inventory: self.wait_for_inventory,
            outer: std::env::var(environment::LEASE).ok().and_then(|lease| lease.parse().ok()),
            retry: tags::retry(),
        }
    }

    /// How to open the session for it.
    pub fn session(&self, globals: &Globals) -> Result<Options, Failure> {
        let config = |error: ClientError| Failure::own(error.to_string());
        let urls = BaseUrl::parse_list(&globals.url).map_err(config)?;
        Ok(Options {
            network: crate::client::Network::from_env().map_err(config)?,
            ttl_ms: self.ttl,
            needs: self.needs.clone(),
            connect_timeout_ms: self.connect_timeout,
            ..Options::new(urls)
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::ClaimOptions;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        claim: ClaimOptions,
    }

    fn parse(line: &[&str]) -> Result<ClaimOptions, String> {
        let words = std::iter::once("x").chain(line.iter().copied());
        Line::try_parse_from(words).map(|line| line.claim).map_err(|error| error.to_string())
    }

    #[test]
    fn everything_reaches_the_claim() {
        let claim = parse(&[
            "-n",
            "a=phone,os=android",
            "-n",
            "net",
            "--wait",
            "0",
            "--hold",
            "1h30m",
            "--ttl",
            "5s",
            "--priority",
            "-3",
            "--note",
            "n",
            "--tag",
            "suite=a=b",
            "--same",
            "site",
            "--distinct",
            "rack",
            "--fail-fast",
        ])
        .unwrap();
        let request = claim.request(&["make".to_owned(), "test".to_owned()]);
        assert_eq!(request.needs, ["a=phone,os=android", "net"]);
        assert_eq!((request.wait_ms, request.hold_ms, request.priority), (Some(0), Some(5_400_000), Some(-3)));
        assert_eq!((request.tags["suite"].as_str(), request.tags["command"].as_str()), ("a=b", "make test"));
        assert_eq!((request.same.as_deref(), request.distinct.as_deref()), (Some("site"), Some("rack")));
        assert!(request.fail_fast && !request.wait_for_inventory);
        assert_eq!((claim.ttl, claim.connect_timeout), (Some(5_000), 120_000));
    }

    #[test]
    fn mistakes_are_told_with_what_was_expected() {
        for (line, told) in [
            (&["--wait", "1s"][..], "--need"),
            (&["-n", "a", "--wait", "10"], "a number with a unit"),
            (&["-n", "a", "--tag", "x"], "expected key=value"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }
}
