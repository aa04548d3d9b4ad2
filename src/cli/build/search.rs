//! `build search`: lines of all builds' logs.

use clap::Args;

use crate::cli::broker::{Broker, path_with};
use crate::cli::{Failure, exit_code, output};
use crate::clock::wall_now_ms;
use crate::protocol::builds::{SearchHit, SearchPage};
use crate::units::parse_duration_ms;

/// Find lines in the logs of all builds, newest first
///
/// A line is found when it has all the words; "a phrase" stands as it is, begin* is how a word begins. Case does not
/// matter.
#[derive(Debug, Args)]
pub struct SearchOptions {
    /// What to look for
    #[arg(required = true)]
    query: Vec<String>,
    /// In builds of this repository
    #[arg(long, value_name = "OWNER/NAME")]
    repository: Option<String>,
    /// Of this pipeline
    #[arg(long)]
    pipeline: Option<String>,
    /// In these states, with commas between them: failed,timed_out
    #[arg(long)]
    state: Option<String>,
    /// Made not longer ago than this: 7d
    #[arg(long, value_name = "DURATION")]
    since: Option<String>,
    /// At most so many lines
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
}

impl SearchOptions {
    /// Searches; JSON is one hit a line.
    pub fn search(&self, broker: &Broker, json: bool) -> Result<u8, Failure> {
        let since = self.since.as_deref().map(|text| {
            let ms = parse_duration_ms(text).map_err(|said| Failure::usage(format!("--since: {said}")))?;
            Ok::<_, Failure>(wall_now_ms().saturating_sub_unsigned(ms).to_string())
        });
        let since = since.transpose()?;
        let (mut shown, mut cursor) = (0, None::<String>);
        loop {
            let path = path_with(
                "/v1/builds/search",
                &[
                    ("q", Some(self.query.join(" "))),
                    ("repository", self.repository.clone()),
                    ("pipeline", self.pipeline.clone()),
                    ("state", self.state.clone()),
                    ("since", since.clone()),
                    ("limit", Some((self.limit - shown).to_string())),
                    ("cursor", cursor.take()),
                ],
            );
            let page: SearchPage = broker.get(&path)?;
            let lines = page.items.iter().map(|hit| line(hit, json)).collect::<Result<Vec<_>, _>>()?;
            output::print(&lines.concat())?;
            shown += page.items.len();
            cursor = page.next;
            if cursor.is_none() || shown >= self.limit {
                tell(cursor.is_some(), shown, page.to_index, page.trouble.as_deref());
                return Ok(exit_code::DONE);
            }
        }
    }
}

/// Says on stderr what the lines do not show.
fn tell(more: bool, shown: usize, to_index: u64, trouble: Option<&str>) {
    if let Some(trouble) = trouble {
        output::say(trouble);
    }
    if to_index > 0 {
        output::say(&format!("{to_index} logs are still to be indexed"));
    }
    if shown == 0 {
        output::say("nothing found");
    } else if more {
        output::say("there is more: see --limit");
    }
}

fn line(hit: &SearchHit, json: bool) -> Result<String, Failure> {
    if json {
        return output::json(hit);
    }
    let SearchHit { build, attempt, line, repository, pipeline, state, text, .. } = hit;
    let attempt = if *attempt > 1 { format!(" attempt {attempt}") } else { String::new() };
    Ok(format!("#{build}{attempt} {repository} {pipeline} {state}, line {line}: {}\n", output::escape(text)))
}
