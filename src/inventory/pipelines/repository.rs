//! Reads a `[[repository]]`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use toml::de::DeTable;

use super::read::{http_url, secret};
use super::{REPOSITORY, REPOSITORY_BYTES_MAX, Repository, SECRETS_MAX, beside, pipeline_file};
use crate::builds::happening::Forge;
use crate::builds::plan::EXECUTOR_POOL;
use crate::core::inventory::SecretRef;
use crate::core::types::Key;
use crate::inventory::document::{InventoryError, Placed, Section, Source, Span, shown};

/// Pools of one repository, at most.
const POOLS_MAX: usize = 256;
/// Folders that its containers may mount, at most.
const MOUNTS_MAX: usize = 64;
/// Bytes of a variable's name, at most.
const VARIABLE_BYTES_MAX: usize = 128;

/// The repository, and where its name stands.
pub(super) fn read<'i>(
    source: Source<'i>,
    table: &Placed<&DeTable<'i>>,
    folder: &Path,
) -> Result<(Repository, Span), InventoryError> {
    let section = Section::open(source, "[[repository]]", REPOSITORY, table.value, table.span.clone())?;
    let name = section.text("name")?.ok_or_else(|| section.missing("name", "\"owner/name\""))?;
    check_name(source, &name)?;
    let forge = forge(source, &section)?;
    let url = section.text("url")?.ok_or_else(|| section.missing("url", "what git clones"))?;
    let (url, host) = git_url(source, &url, folder)?;
    let api = match section.text("api")? {
        Some(api) => Some(http_url(source, "api of [[repository]]", &api)?),
        None => host.as_deref().map(|host| api_of(forge, &url, host).into()),
    };
    let token = section.field("token").map(|(_, value)| secret(source, "token of [[repository]]", value, folder));
    let token = token.transpose()?;
    let user = user(source, &section, forge, &url, token.is_some())?;
    let mut repository = Repository {
        name: name.value.into(),
        forge,
        url: url.into(),
        statuses: statuses(source, &section, api.is_some(), token.is_some())?,
        api,
        user,
        token,
        pools: pools(source, &section)?,
        secrets: secrets(source, &section, folder)?,
        mounts: mounts(source, &section)?,
        pipelines: None,
    };
    let tables = section.tables("pipeline")?;
    if !tables.is_empty() {
        repository.pipelines = Some(pipeline_file::pipelines(source, &tables, &repository)?.into());
    }
    Ok((repository, name.span))
}

/// A forge's full name of a repository: two or more parts with slashes between them.
fn check_name(source: Source<'_>, name: &Placed<&str>) -> Result<(), InventoryError> {
    let sound = |part: &str| {
        let mut bytes = part.bytes();
        bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
            && !part.is_empty()
            && !matches!(part, "." | "..")
    };
    let parts = name.value.split('/').count();
    if parts >= 2 && name.value.len() <= REPOSITORY_BYTES_MAX && name.value.split('/').all(sound) {
        return Ok(());
    }
    let message = format!(
        "{} is no repository's name: expected the forge's full name of it, \"owner/name\", of letters, digits, '.', \
         '_' and '-'",
        shown(name.value)
    );
    Err(source.refuse(&name.span, message))
}

fn forge(source: Source<'_>, section: &Section<'_, '_>) -> Result<Forge, InventoryError> {
    let expected = "\"github\", \"gitlab\" or \"gitea\" (also for Forgejo)";
    let text = section.text("forge")?.ok_or_else(|| section.missing("forge", expected))?;
    Forge::parse(text.value).ok_or_else(|| {
        let message = format!("forge of [[repository]] is {}: expected {expected}", shown(text.value));
        source.refuse(&text.span, message)
    })
}

/// What git fetches, and its host where it has one. A relative path starts from the file's folder.
fn git_url(source: Source<'_>, text: &Placed<&str>, folder: &Path) -> Result<(String, Option<String>), InventoryError> {
    // It is not repeated: it may have a password in it.
    let refuse = |message: &str| source.refuse(&text.span, format!("url of [[repository]] {message}"));
    let url = text.value;
    // What git would give to a helper program: `ext::sh -c ...`.
    let helper = url.split_once("::").is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_alphanumeric()));
    if url.is_empty() || url.starts_with('-') || url.contains(|c: char| c.is_control()) || helper {
        return Err(refuse("is nothing that git may fetch: expected a URL or a path"));
    }
    if let Some((scheme, rest)) = url.split_once("://") {
        let authority = rest.split('/').next().unwrap_or_default();
        let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
        if scheme == "file" {
            return Ok((url.to_owned(), None));
        }
        if !matches!(scheme, "https" | "http" | "ssh" | "git") {
            return Err(refuse("has an unknown scheme: expected https, http, ssh, git, file, or a path"));
        }
        if host.is_empty() || host.starts_with('-') || rest.contains(char::is_whitespace) {
            return Err(refuse("has no host"));
        }
        if user.is_some_and(|user| scheme != "ssh" || user.contains(':')) {
            return Err(refuse("has a user or password in it: put them under user and token"));
        }
        let name = if scheme == "ssh" { bare_host(host) } else { host };
        return Ok((url.to_owned(), Some(name.to_owned())));
    }
    // As ssh has it: user@host:path.
    if let Some((before, _)) = url.split_once(':')
        && !before.contains('/')
    {
        let host = before.rsplit_once('@').map_or(before, |(_, host)| host);
        if host.is_empty() || host.starts_with('-') || host.contains(char::is_whitespace) {
            return Err(refuse("has no host"));
        }
        return Ok((url.to_owned(), Some(host.to_owned())));
    }
    let path = beside(folder, url);
    let path =
        std::path::absolute(&path).map_err(|error| refuse(&format!("is a path that cannot be read: {error}")))?;
    Ok((path.display().to_string(), None))
}

/// A host without its port; the port of ssh is none of the API's.
fn bare_host(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((bare, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => bare,
        _ => host,
    }
}

/// Where a forge has its API. Git over plain HTTP is for labs, and their forges speak no other.
fn api_of(forge: Forge, url: &str, host: &str) -> String {
    let scheme = if url.starts_with("http://") { "http" } else { "https" };
    match forge {
        Forge::Github if host.eq_ignore_ascii_case("github.com") => "https://api.github.com".to_owned(),
        Forge::Github => format!("{scheme}://{host}/api/v3"),
        Forge::Gitlab => format!("{scheme}://{host}/api/v4"),
        Forge::Gitea => format!("{scheme}://{host}/api/v1"),
    }
}

fn user(
    source: Source<'_>,
    section: &Section<'_, '_>,
    forge: Forge,
    url: &str,
    has_token: bool,
) -> Result<Arc<str>, InventoryError> {
    let Some(user) = section.text("user")? else {
        return Ok(match forge {
            Forge::Github => "x-access-token",
            Forge::Gitlab => "oauth2",
            // Any goes with a token.
            Forge::Gitea => "leasehold",
        }
        .into());
    };
    if !has_token || !url.starts_with("http") {
        let message = "user goes with a token, for git over http or https: give the token too, or remove user";
        return Err(source.refuse(&user.span, message));
    }
    if user.value.is_empty() || user.value.contains(|c: char| c.is_control() || c == ':') {
        return Err(source.refuse(&user.span, "user is no user's name: expected text without ':'"));
    }
    Ok(user.value.into())
}

fn statuses(
    source: Source<'_>,
    section: &Section<'_, '_>,
    has_api: bool,
    has_token: bool,
) -> Result<bool, InventoryError> {
    let Some(statuses) = section.truth("statuses")? else { return Ok(has_api && has_token) };
    if statuses.value && !has_token {
        let message = "statuses = true needs a token: expected token = { env = \"VARIABLE\" } or { file = \"path\" }";
        return Err(source.refuse(&statuses.span, message));
    }
    if statuses.value && !has_api {
        let message = "statuses = true needs to know where the forge's API is: expected api = \"https://...\"";
        return Err(source.refuse(&statuses.span, message));
    }
    Ok(statuses.value)
}

fn pools(source: Source<'_>, section: &Section<'_, '_>) -> Result<BTreeSet<Key>, InventoryError> {
    let mut pools = BTreeSet::new();
    for text in section.texts("pools", POOLS_MAX)? {
        let pool = Key::parse(text.value, "pool name").map_err(|error| source.refuse(&text.span, error.to_string()))?;
        if pool.as_str() == EXECUTOR_POOL {
            let message = "every pipeline has its executor by itself: leave that pool out";
            return Err(source.refuse(&text.span, message));
        }
        pools.insert(pool);
    }
    Ok(pools)
}

fn secrets(
    source: Source<'_>,
    section: &Section<'_, '_>,
    folder: &Path,
) -> Result<BTreeMap<Arc<str>, SecretRef>, InventoryError> {
    let mut secrets = BTreeMap::new();
    for entry in section.entries("secrets", "a table such as { DEPLOY_KEY = { env = \"APP_DEPLOY_KEY\" } }")? {
        check_variable(entry.key.value).map_err(|wrong| source.refuse(&entry.key.span, wrong))?;
        if secrets.len() >= SECRETS_MAX {
            return Err(source.refuse(&entry.key.span, format!("a repository has at most {SECRETS_MAX} secrets")));
        }
        let what = format!("secret {}", entry.key.value);
        secrets.insert(entry.key.value.into(), secret(source, &what, entry.value, folder)?);
    }
    Ok(secrets)
}

/// Whether a build may have a variable of that name.
pub(super) fn check_variable(name: &str) -> Result<(), String> {
    let mut bytes = name.bytes();
    let sound = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name.len() <= VARIABLE_BYTES_MAX;
    if !sound {
        return Err(format!("{} is no variable's name: expected letters, digits and '_', no digit first", shown(name)));
    }
    if name.get(..10).is_some_and(|start| start.eq_ignore_ascii_case("LEASEHOLD_")) {
        return Err(format!("{name} begins as leasehold's own variables do: choose another name"));
    }
    Ok(())
}

fn mounts(source: Source<'_>, section: &Section<'_, '_>) -> Result<Vec<Arc<str>>, InventoryError> {
    let mut mounts = Vec::new();
    for text in section.texts("mounts", MOUNTS_MAX)? {
        if !is_plain_path(text.value) {
            let message = format!(
                "{} is no folder that can be mounted: expected an absolute path without '..' and ':'",
                shown(text.value)
            );
            return Err(source.refuse(&text.span, message));
        }
        let trimmed = text.value.trim_end_matches('/');
        mounts.push(if trimmed.is_empty() { "/" } else { trimmed }.into());
    }
    Ok(mounts)
}

/// An absolute path that means what it says.
pub(super) fn is_plain_path(path: &str) -> bool {
    path.starts_with('/')
        && !path.contains(|c: char| c.is_control() || c == ':')
        && path.split('/').all(|part| !matches!(part, "." | ".."))
}
