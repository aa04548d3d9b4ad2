//! The variables of a build's steps: a clean, small set, and nothing of the agent's own.
//!
//! In order, the later winning: the base, what the agent passes on, the pipeline's, its secrets, what the
//! lease gives a command ([`run::environment`](crate::cli::run::environment)), and what the build is.

use std::collections::BTreeMap;

use crate::cli::agent::folders::BuildFolder;
use crate::cli::agent::handover::Handover;
use crate::cli::run::environment::{self, SECRETS_FILE};
use crate::protocol::info::LeaseInfo;

/// Where programs are looked for, where the agent itself was not told.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const LANG_DEFAULT: &str = "C.UTF-8";

/// The variables of steps that run on the agent itself.
#[must_use]
pub fn on_the_agent(
    handover: &Handover,
    lease: &LeaseInfo,
    folder: &BuildFolder,
    secrets_file: Option<&str>,
) -> BTreeMap<String, String> {
    let own = |name: &str, default: &str| {
        (name.to_owned(), std::env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| default.into()))
    };
    let path = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
    let mut variables = BTreeMap::from([own("PATH", PATH_DEFAULT), own("LANG", LANG_DEFAULT)]);
    variables.insert("HOME".to_owned(), path(folder.home()));
    variables.insert("TMPDIR".to_owned(), path(folder.tmp()));
    add(&mut variables, handover, lease, secrets_file);
    variables
}

/// The variables of a container, whose image has its own PATH and HOME.
#[must_use]
pub fn in_a_container(handover: &Handover, lease: &LeaseInfo, secrets_file: Option<&str>) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    add(&mut variables, handover, lease, secrets_file);
    variables
}

fn add(variables: &mut BTreeMap<String, String>, handover: &Handover, lease: &LeaseInfo, secrets_file: Option<&str>) {
    let job = &handover.job;
    let of = |map: &BTreeMap<String, String>| map.clone();
    variables.extend(of(&handover.passed_on));
    variables.extend(of(&job.env));
    variables.extend(of(&job.secrets));
    variables.extend(environment::environment(lease, &handover.url, &BTreeMap::new(), false).set);
    variables.extend(
        [
            ("CI", "true".to_owned()),
            ("LEASEHOLD_BUILD", job.build.to_string()),
            ("LEASEHOLD_ATTEMPT", job.attempt.to_string()),
            ("LEASEHOLD_REPOSITORY", job.repository.clone()),
            ("LEASEHOLD_PIPELINE", job.pipeline.clone()),
            ("LEASEHOLD_COMMIT", job.checkout.sha.clone()),
            ("LEASEHOLD_REF", job.checkout.git_ref.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    if let Some(file) = secrets_file {
        variables.insert(SECRETS_FILE.to_owned(), file.to_owned());
    }
}

/// All that must not be seen in the log.
pub fn secrets<'a>(handover: &'a Handover, lease: Option<&'a LeaseInfo>) -> impl Iterator<Item = &'a str> {
    let job = &handover.job;
    let own = [job.session.secret.as_str(), handover.key.as_str()];
    let picks = lease.into_iter().flat_map(|lease| lease.resources.values()).flatten();
    let of_picks = picks.flat_map(|pick| pick.secrets.values());
    own.into_iter().chain(job.checkout.token.as_deref()).chain(job.secrets.values().chain(of_picks).map(String::as_str))
}
