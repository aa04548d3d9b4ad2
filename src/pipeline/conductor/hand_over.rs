//! What an agent gets: the session, and all that a build needs to run.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::builds::build::Build;
use crate::builds::plan::Plan;
use crate::core::inventory::SecretRef;
use crate::inventory::pipelines::Repository;
use crate::inventory::secrets::resolve;
use crate::protocol::builds::{Checkout, HandedSession, Job, JobContainer, JobStep};

/// The values that go with a build, read for this one hand-over.
pub(super) struct Secrets {
    token: Option<String>,
    values: BTreeMap<String, String>,
}

/// Reads the secrets that a plan names, and the repository's token.
///
/// # Errors
/// In words, without a value, where one cannot be read.
pub(super) async fn read_secrets(repository: &Arc<Repository>, plan: &Arc<Plan>) -> Result<Secrets, String> {
    let (repository, plan) = (repository.clone(), plan.clone());
    let read = tokio::task::spawn_blocking(move || read(&repository, &plan)).await;
    read.unwrap_or_else(|_| Err("reading the secrets failed inside the broker".to_owned()))
}

fn read(repository: &Repository, plan: &Plan) -> Result<Secrets, String> {
    let token = repository.token.as_ref().map(resolve).transpose();
    let token = token.map_err(|problem| format!("the token of {}: {problem}", repository.name))?;
    let value = |name: &String| {
        let missing = || format!("{} has no secret {name} in the broker's configuration", repository.name);
        let reference: &SecretRef = repository.secrets.get(name.as_str()).ok_or_else(missing)?;
        let value = resolve(reference).map_err(|problem| format!("secret {name}: {problem}"))?;
        Ok((name.clone(), value))
    };
    Ok(Secrets { token, values: plan.secrets.iter().map(value).collect::<Result<_, String>>()? })
}

/// A job.
pub(super) fn job(build: &Build, repository: &Repository, session: HandedSession, secrets: Secrets) -> Job {
    let plan = &build.plan;
    let user = secrets.token.as_ref().map(|_| repository.user.to_string());
    Job {
        build: build.id.0,
        attempt: build.attempt,
        repository: build.repository.to_string(),
        pipeline: plan.name.to_string(),
        line: build.subject.line.to_string(),
        session,
        checkout: Checkout {
            url: repository.url.to_string(),
            git_ref: build.subject.git_ref.to_string(),
            sha: build.subject.sha.to_string(),
            user,
            token: secrets.token,
        },
        steps: plan.steps.iter().map(|step| JobStep { name: step.name.clone(), run: step.run.clone() }).collect(),
        container: plan.container.as_ref().map(|container| JobContainer {
            image: container.image.clone(),
            network: container.network.clone(),
            mounts: container.mounts.clone(),
            memory_bytes: container.memory_bytes,
            cpu_milli: container.cpu_milli,
            pids: container.pids,
        }),
        env: plan.env.clone(),
        secrets: secrets.values,
        timeout_ms: plan.timeout_ms,
        grace_ms: plan.grace_ms,
    }
}
