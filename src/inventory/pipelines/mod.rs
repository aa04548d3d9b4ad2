//! What the broker's configuration says of builds: repositories, hooks, logs, search.
//!
//! Owns the plain types that the pipeline layer goes by, and the reading of the tables. Secrets stay
//! references until they are used; only those of the hooks are read when the broker starts, as a route is
//! there or not by whether they are.

mod hooks;
pub mod pipeline_file;
mod read;
mod repository;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use self::hooks::HookFiles;
pub use self::hooks::{HookSecrets, secret_variable};
pub(super) use self::read::read;
use crate::builds::happening::Forge;
use crate::builds::plan::Pipeline;
use crate::core::inventory::SecretRef;
use crate::core::types::Key;

/// Repositories, at most.
pub const REPOSITORIES_MAX: usize = 1_000;
/// Bytes of a repository's name, at most.
pub const REPOSITORY_BYTES_MAX: usize = 255;
/// Secrets of one repository, at most.
pub const SECRETS_MAX: usize = 64;
/// Bytes of a log that are kept, unless told otherwise.
pub const LOG_BYTES_DEFAULT: u64 = 100_000_000;
/// The bounds of that setting.
pub const LOG_BYTES: (u64, u64) = (1_000_000, 1_000_000_000);
/// How long a build and its log are kept, unless told otherwise, milliseconds.
pub const BUILD_RETENTION_MS_DEFAULT: u64 = 30 * 86_400_000;
/// How many builds of each repository are kept however old they are, unless told otherwise.
pub const BUILDS_KEPT_DEFAULT: u32 = 50;

pub(super) const TABLES: &[&str] = &["public_url", "hooks", "repository", "logs", "search"];
pub(super) const HOOKS: &[&str] = &["gitea", "github", "gitlab"];
pub(super) const HOOK: &[&str] = &["secret_files"];
pub(super) const LOGS: &[&str] = &["url", "limit", "retention", "keep"];
pub(super) const SEARCH: &[&str] = &["url", "user", "password"];
pub(super) const REPOSITORY: &[&str] =
    &["name", "forge", "url", "api", "user", "token", "statuses", "pools", "secrets", "mounts", "pipeline"];

/// What the file says of builds; there only where it has a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineConfig {
    public_url: Option<Arc<str>>,
    hooks: HookFiles,
    repositories: BTreeMap<Arc<str>, Arc<Repository>>,
    logs: LogSettings,
    search: SearchSettings,
}

/// What builds go by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineSettings {
    /// Where people and forges reach the broker, `http://` or `https://`, without a slash at its end.
    pub public_url: Arc<str>,
    /// Whether that is what the file says.
    said_public_url: bool,
    /// The secrets of the hooks.
    pub hooks: HookSecrets,
    /// The repositories by name.
    pub repositories: BTreeMap<Arc<str>, Arc<Repository>>,
    /// Logs.
    pub logs: LogSettings,
    /// Search.
    pub search: SearchSettings,
}

/// A repository that builds are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// Its full name at the forge, `owner/name`.
    pub name: Arc<str>,
    /// Who has it.
    pub forge: Forge,
    /// What git fetches: a URL, or an absolute path. Never with a password in it.
    pub url: Arc<str>,
    /// Where the forge's API is, without a slash at its end; `None` where it is neither said nor known.
    pub api: Option<Arc<str>>,
    /// The user that goes with the token, for git over HTTP.
    pub user: Arc<str>,
    /// The token, for git over HTTP and for commit statuses.
    pub token: Option<SecretRef>,
    /// Whether commit statuses are told; then there are a token and an API.
    pub statuses: bool,
    /// The pools that its pipelines may use, beside executors.
    pub pools: BTreeSet<Key>,
    /// Secrets that its pipelines may name, by the variable they become.
    pub secrets: BTreeMap<Arc<str>, SecretRef>,
    /// Folders of an agent's machine, absolute, that its containers may mount, or folders within.
    pub mounts: Vec<Arc<str>>,
    /// Its pipelines, where they stand in the configuration; `None` reads `.leasehold.toml` at the commit.
    pub pipelines: Option<Arc<[Pipeline]>>,
}

impl Repository {
    /// Whether its containers may mount this folder: one that is named, or one within, part by part.
    #[must_use]
    pub fn may_mount(&self, host: &str) -> bool {
        let parts = |text: &str| text.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        let host = parts(host);
        self.mounts.iter().any(|allowed| host.starts_with(&parts(allowed)))
    }
}

/// Where logs are kept, and how much of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// `file:///folder` or `s3://bucket/prefix`; `None` is a folder beside the store.
    pub url: Option<Arc<str>>,
    /// Bytes of one log that are kept, of its head and its tail.
    pub limit_bytes: u64,
    /// How long builds and their logs are kept, milliseconds ...
    pub retention_ms: u64,
    /// ... and how many of each repository, however old.
    pub keep: u32,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            url: None,
            limit_bytes: LOG_BYTES_DEFAULT,
            retention_ms: BUILD_RETENTION_MS_DEFAULT,
            keep: BUILDS_KEPT_DEFAULT,
        }
    }
}

/// What searches across builds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SearchSettings {
    /// A cluster of OpenSearch or Elasticsearch, without a slash at the end; `None` is the embedded index.
    pub url: Option<Arc<str>>,
    /// Its user, for HTTP's basic authentication.
    pub user: Option<Arc<str>>,
    /// The user's password. There exactly when a user is.
    pub password: Option<SecretRef>,
}

impl PipelineConfig {
    /// Reads the hooks' secrets from the environment and their files. Blocks for as long as the file system
    /// does.
    ///
    /// # Errors
    /// In words, for whoever starts the broker, without a secret.
    pub fn resolve(self) -> Result<PipelineSettings, String> {
        Ok(PipelineSettings {
            said_public_url: self.public_url.is_some(),
            public_url: self.public_url.unwrap_or_else(|| "http://127.0.0.1".into()),
            hooks: HookSecrets::read(&self.hooks)?,
            repositories: self.repositories,
            logs: self.logs,
            search: self.search,
        })
    }

    /// Whether the file says where people reach the broker.
    #[must_use]
    pub const fn has_public_url(&self) -> bool {
        self.public_url.is_some()
    }
}

impl PipelineSettings {
    /// Says where the broker is reached, which holds unless the file says it.
    pub fn reached_at(&mut self, url: &str) {
        if !self.said_public_url {
            self.public_url = url.trim_end_matches('/').into();
        }
    }

    /// The repository of that name at that forge. Forges do not tell names apart by their case.
    #[must_use]
    pub fn repository(&self, forge: Forge, name: &str) -> Option<&Arc<Repository>> {
        let exact = self.repositories.get(name);
        let found =
            exact.or_else(|| self.repositories.values().find(|repository| repository.name.eq_ignore_ascii_case(name)));
        found.filter(|repository| repository.forge == forge)
    }
}

/// A path of the file's, from its own folder.
fn beside(folder: &std::path::Path, path: &str) -> PathBuf {
    folder.join(path)
}

#[cfg(test)]
mod tests;
