//! Reads the tables of the configuration that are about builds.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::DeValue;

use super::hooks::HookFiles;
use super::{
    BUILD_RETENTION_MS_DEFAULT, BUILDS_KEPT_DEFAULT, HOOK, HOOKS, LOG_BYTES, LOG_BYTES_DEFAULT, LOGS, LogSettings,
    PipelineConfig, REPOSITORIES_MAX, SEARCH, SearchSettings, TABLES, beside, repository,
};
use crate::builds::happening::Forge;
use crate::core::inventory::SecretRef;
use crate::inventory::document::{InventoryError, Placed, Section, Source, shown};

const DAY_MS: u64 = 86_400_000;
/// The longest that builds are kept, milliseconds (ten years).
const RETENTION_MS_MAX: u64 = 3_653 * DAY_MS;
/// Builds of a repository that are kept however old, at most.
const KEEP_MAX: u64 = 100_000;
/// Files of secrets of one forge, at most.
const SECRET_FILES_MAX: usize = 16;

/// Reads them; `None` where there is no repository.
pub(in crate::inventory) fn read(
    source: Source<'_>,
    top: &Section<'_, '_>,
    folder: &Path,
) -> Result<Option<PipelineConfig>, InventoryError> {
    let tables = top.tables("repository")?;
    if tables.is_empty() {
        // A setting that nobody reads is never taken for one that works.
        if let Some((key, (span, _))) = TABLES.iter().find_map(|key| Some((key, top.field(key)?))) {
            let message =
                format!("{key} is for builds, and there is no [[repository]] to build: add one, or remove {key}");
            return Err(source.refuse(&span, message));
        }
        return Ok(None);
    }
    if tables.len() > REPOSITORIES_MAX {
        let span = tables[REPOSITORIES_MAX].span.clone();
        return Err(source.refuse(&span, format!("a broker has at most {REPOSITORIES_MAX} repositories")));
    }
    let mut repositories = BTreeMap::new();
    let mut lines = BTreeMap::new();
    for table in &tables {
        let (repository, span) = repository::read(source, table, folder)?;
        // By name alone: it is what people and the books know a repository by.
        if let Some(line) = lines.insert(repository.name.to_ascii_lowercase(), source.line(span.start)) {
            let message = format!(
                "repository {} is already in line {line}: names are unique, also over forges and whatever their case",
                shown(&repository.name)
            );
            return Err(source.refuse(&span, message));
        }
        repositories.insert(repository.name.clone(), Arc::new(repository));
    }
    Ok(Some(PipelineConfig {
        public_url: top.text("public_url")?.map(|text| http_url(source, "public_url", &text)).transpose()?,
        hooks: hooks(source, top, folder)?,
        repositories,
        logs: logs(source, top)?,
        search: search(source, top, folder)?,
    }))
}

fn hooks(source: Source<'_>, top: &Section<'_, '_>, folder: &Path) -> Result<HookFiles, InventoryError> {
    let mut files = HookFiles::new();
    let Some(hooks) = top.section("hooks", "[hooks]", HOOKS)? else { return Ok(files) };
    for forge in [Forge::Gitea, Forge::Github, Forge::Gitlab] {
        let Some(hook) = hooks.section(forge.as_str(), "a forge under [hooks]", HOOK)? else { continue };
        let mut paths = Vec::new();
        for path in hook.texts("secret_files", SECRET_FILES_MAX)? {
            if path.value.is_empty() {
                return Err(source.refuse(&path.span, "a secret file without a name: expected its path"));
            }
            paths.push(beside(folder, path.value));
        }
        files.insert(forge, paths);
    }
    Ok(files)
}

fn logs(source: Source<'_>, top: &Section<'_, '_>) -> Result<LogSettings, InventoryError> {
    let Some(logs) = top.section("logs", "[logs]", LOGS)? else { return Ok(LogSettings::default()) };
    let url = match logs.text("url")? {
        None => None,
        Some(url) => {
            let sound = url.value.strip_prefix("file:///").or_else(|| url.value.strip_prefix("s3://"));
            if sound.is_none_or(|rest| rest.trim_matches('/').is_empty()) {
                let message = format!(
                    "url of [logs] is {}: expected \"file:///folder\" or \"s3://bucket/prefix\"",
                    shown(url.value)
                );
                return Err(source.refuse(&url.span, message));
            }
            Some(url.value.trim_end_matches('/').into())
        }
    };
    let keep = logs.whole("keep", 0, KEEP_MAX)?;
    Ok(LogSettings {
        url,
        limit_bytes: logs.bytes("limit", LOG_BYTES.0, LOG_BYTES.1)?.unwrap_or(LOG_BYTES_DEFAULT),
        retention_ms: logs
            .duration_ms("retention", DAY_MS, RETENTION_MS_MAX)?
            .map_or(BUILD_RETENTION_MS_DEFAULT, |placed| placed.value),
        keep: keep.map_or(BUILDS_KEPT_DEFAULT, |keep| u32::try_from(keep).expect("KEEP_MAX fits")),
    })
}

fn search(source: Source<'_>, top: &Section<'_, '_>, folder: &Path) -> Result<SearchSettings, InventoryError> {
    let Some(search) = top.section("search", "[search]", SEARCH)? else { return Ok(SearchSettings::default()) };
    let url = search.text("url")?.ok_or_else(|| search.missing("url", "\"http://127.0.0.1:9200\""))?;
    let user = search.text("user")?;
    let password = search.field("password").map(|(_, value)| secret(source, "password of [search]", value, folder));
    let password = password.transpose()?;
    if user.is_some() != password.is_some() {
        return Err(source.refuse(&search.span(), "[search] has one of user and password: expected both or neither"));
    }
    Ok(SearchSettings {
        url: Some(http_url(source, "url of [search]", &url)?),
        user: user.map(|user| user.value.into()),
        password,
    })
}

/// A URL of HTTP, without user, query or fragment; slashes at its end go.
pub(super) fn http_url(source: Source<'_>, what: &str, text: &Placed<&str>) -> Result<Arc<str>, InventoryError> {
    let url = text.value.trim_end_matches('/');
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '@' | '?' | '#' | '"' | '<' | '>' | '\\');
    match rest {
        Some(rest) if !rest.is_empty() && !rest.starts_with('/') && !rest.contains(odd) => Ok(url.into()),
        // Not repeated: something close to a URL may have a password in it.
        _ => Err(source.refuse(
            &text.span,
            format!("{what} is no URL: expected http:// or https:// and a host, without a user, `?` or `#`"),
        )),
    }
}

/// Where a secret is.
pub(super) fn secret(
    source: Source<'_>,
    what: &str,
    value: &Spanned<DeValue<'_>>,
    folder: &Path,
) -> Result<SecretRef, InventoryError> {
    // The value is not shown: it may be the secret itself, put where its whereabouts belong.
    let refuse = || {
        let message = format!(
            "{what}: expected where the broker finds it, {{ env = \"VARIABLE\" }} or {{ file = \"path\" }}, never the \
             value itself"
        );
        source.refuse(&value.span(), message)
    };
    let DeValue::Table(table) = value.get_ref() else { return Err(refuse()) };
    let from = Section::open(source, "a secret", &["env", "file"], table, value.span())?;
    match (from.text("env")?, from.text("file")?) {
        (Some(env), None) if !env.value.is_empty() && !env.value.contains(['=', '\0']) => {
            Ok(SecretRef::Env(env.value.into()))
        }
        (None, Some(file)) if !file.value.is_empty() => {
            Ok(SecretRef::File(beside(folder, file.value).display().to_string().into()))
        }
        _ => Err(refuse()),
    }
}
