//! `.leasehold.toml`: the pipelines of a repository, also as `[[repository.pipeline]]` of the broker's own
//! configuration.
//!
//! Whoever may push writes this file, so nothing of it is trusted: everything is bounded, and what the
//! broker's configuration does not allow the repository is refused, with what it does allow.

pub(in crate::inventory) mod container;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::Repository;
use crate::builds::glob::{GLOBS_MAX, Globs};
use crate::builds::plan::{
    Concurrency, GRACE_MS_DEFAULT, On, Pipeline, Plan, RETRIES_MAX, TIMEOUT_MS_DEFAULT, TIMEOUT_MS_MAX,
};
use crate::core::limits::{PRIORITY_MAX, SPAN_MS_MAX};
use crate::core::types::Key;
use crate::inventory::document::{InventoryError, Placed, Section, Source, shown};

/// The file's name, in the repository's own folder.
pub const FILE_NAME: &str = ".leasehold.toml";
/// Bytes of the file, at most.
pub const FILE_BYTES_MAX: usize = 256 * 1024;
/// Pipelines of one repository, at most.
pub const PIPELINES_MAX: usize = 32;
/// The longest between TERM and KILL, milliseconds.
pub const GRACE_MS_MAX: u64 = 10 * 60_000;

pub(in crate::inventory) const PIPELINE: &[&str] = &[
    "name",
    "on",
    "branches",
    "tags",
    "paths",
    "drafts",
    "needs",
    "agent",
    "run",
    "steps",
    "container",
    "env",
    "secrets",
    "timeout",
    "wait",
    "grace",
    "priority",
    "concurrency",
    "retries",
];

/// Reads `.leasehold.toml` for a repository. `file_name` is what errors call it.
///
/// # Errors
/// The first mistake, with its place and what was expected.
pub fn read(text: &str, file_name: &str, repository: &Repository) -> Result<Vec<Pipeline>, InventoryError> {
    let source = Source::new(text, file_name);
    if text.len() > FILE_BYTES_MAX {
        let message = format!("the file is larger than {} KiB", FILE_BYTES_MAX / 1024);
        return Err(source.refuse(&(0..0), message));
    }
    let document = source.parse()?;
    let top = Section::open(source, "the file", &["pipeline"], document.get_ref(), document.span())?;
    let tables = top.tables("pipeline")?;
    if tables.is_empty() {
        return Err(source.refuse(&(0..0), "there is no pipeline: expected tables under [[pipeline]]"));
    }
    pipelines(source, &tables, repository)
}

/// Reads the tables of pipelines.
pub(super) fn pipelines<'i>(
    source: Source<'i>,
    tables: &[Placed<&DeTable<'i>>],
    repository: &Repository,
) -> Result<Vec<Pipeline>, InventoryError> {
    let mut pipelines = Vec::new();
    let mut lines = BTreeMap::new();
    for table in tables {
        if pipelines.len() >= PIPELINES_MAX {
            return Err(source.refuse(&table.span, format!("a repository has at most {PIPELINES_MAX} pipelines")));
        }
        let section = Section::open(source, "[[pipeline]]", PIPELINE, table.value, table.span.clone())?;
        let reader = Reader { source, section, repository };
        let name = reader.name()?;
        if let Some(line) = lines.insert(name.value.clone(), source.line(name.span.start)) {
            let message = format!("pipeline \"{}\" is already in line {line}: a name is unique", name.value);
            return Err(source.refuse(&name.span, message));
        }
        pipelines.push(reader.pipeline(&name.value)?);
    }
    Ok(pipelines)
}

/// One pipeline.
struct Reader<'r, 'd, 'i> {
    source: Source<'i>,
    section: Section<'d, 'i>,
    repository: &'r Repository,
}

impl Reader<'_, '_, '_> {
    fn name(&self) -> Result<Placed<Key>, InventoryError> {
        let name = self.section.text("name")?.ok_or_else(|| self.section.missing("name", "\"a-name\""))?;
        let key = Key::parse(name.value, "pipeline name");
        let key = key.map_err(|error| self.source.refuse(&name.span, error.to_string()))?;
        Ok(Placed { value: key, span: name.span })
    }

    fn pipeline(&self, name: &Key) -> Result<Pipeline, InventoryError> {
        let on = self.on()?;
        let concurrency = self.concurrency()?;
        let branches = self.globs("branches", &on, &[On::Push, On::PullRequest])?;
        let tags = self.globs("tags", &on, &[On::Tag])?;
        let paths = self.globs("paths", &on, &[On::Push, On::PullRequest])?;
        let drafts = self.section.truth("drafts")?;
        if drafts.is_some() {
            self.needs_event("drafts", &on, &[On::PullRequest])?;
        }
        let span_ms = |key, min_ms, max_ms| -> Result<Option<u64>, InventoryError> {
            Ok(self.section.duration_ms(key, min_ms, max_ms)?.map(|placed| placed.value))
        };
        let env = self.env()?;
        let plan = Plan {
            name: name.as_str().into(),
            needs: self.needs()?,
            agent: self.agent()?,
            steps: self.steps()?,
            container: self.container()?,
            secrets: self.secrets(&env)?,
            env,
            timeout_ms: span_ms("timeout", 1_000, TIMEOUT_MS_MAX)?.unwrap_or(TIMEOUT_MS_DEFAULT),
            wait_ms: span_ms("wait", 1_000, SPAN_MS_MAX)?,
            grace_ms: span_ms("grace", 0, GRACE_MS_MAX)?.unwrap_or(GRACE_MS_DEFAULT),
            priority: self.priority()?,
            concurrency: concurrency.unwrap_or(Concurrency::Queue),
            retries: self
                .section
                .whole("retries", 0, u64::from(RETRIES_MAX))?
                .map_or(0, |retries| u32::try_from(retries).expect("RETRIES_MAX is a u32")),
        };
        let drafts = drafts.is_some_and(|drafts| drafts.value);
        Ok(Pipeline { on, branches, tags, paths, drafts, concurrency, plan: Arc::new(plan) })
    }

    fn on(&self) -> Result<BTreeSet<On>, InventoryError> {
        const EXPECTED: &str = "some of \"push\", \"pull_request\", \"tag\" and \"manual\"";
        if self.section.field("on").is_none() {
            return Err(self.section.missing("on", "[\"pull_request\"], the events that start it"));
        }
        let mut on = BTreeSet::new();
        for text in self.section.texts("on", 16)? {
            let event = On::ALL.into_iter().find(|event| event.as_str() == text.value).ok_or_else(|| {
                let message = format!("{} in on of [[pipeline]] is no event: expected {EXPECTED}", shown(text.value));
                self.source.refuse(&text.span, message)
            })?;
            on.insert(event);
        }
        Ok(on)
    }

    /// Refuses a key that nothing would read: a setting without effect is never taken for one that works.
    fn needs_event(&self, key: &str, on: &BTreeSet<On>, events: &[On]) -> Result<(), InventoryError> {
        if events.iter().any(|event| on.contains(event)) {
            return Ok(());
        }
        let span = self.section.field(key).map_or_else(|| self.section.span(), |(span, _)| span);
        let events: Vec<_> = events.iter().map(|event| format!("\"{}\"", event.as_str())).collect();
        let message = format!("{key} has no effect here: it goes with {} in on", events.join(" or "));
        Err(self.source.refuse(&span, message))
    }

    fn globs(&self, key: &str, on: &BTreeSet<On>, events: &[On]) -> Result<Vec<String>, InventoryError> {
        let mut globs = Vec::new();
        for text in self.section.texts(key, GLOBS_MAX)? {
            let glob = text.value.to_owned();
            Globs::new(std::slice::from_ref(&glob)).map_err(|wrong| self.source.refuse(&text.span, wrong))?;
            globs.push(glob);
        }
        if let Some((span, _)) = self.section.field(key) {
            self.needs_event(key, on, events)?;
            Globs::new(&globs).map_err(|wrong| self.source.refuse(&span, wrong))?;
        }
        Ok(globs)
    }

    fn concurrency(&self) -> Result<Option<Concurrency>, InventoryError> {
        let Some(text) = self.section.text("concurrency")? else { return Ok(None) };
        match text.value {
            "parallel" => Ok(Some(Concurrency::Parallel)),
            "queue" => Ok(Some(Concurrency::Queue)),
            "supersede" => Ok(Some(Concurrency::Supersede)),
            other => {
                let message = format!(
                    "concurrency of [[pipeline]] is {}: expected \"supersede\", \"queue\" or \"parallel\"",
                    shown(other)
                );
                Err(self.source.refuse(&text.span, message))
            }
        }
    }

    fn priority(&self) -> Result<i8, InventoryError> {
        let Some((_, value)) = self.section.field("priority") else { return Ok(0) };
        let priority = match value.get_ref() {
            DeValue::Integer(digits) => i8::from_str_radix(digits.as_str(), digits.radix()).ok(),
            _ => None,
        };
        priority.filter(|priority| (-PRIORITY_MAX..=PRIORITY_MAX).contains(priority)).ok_or_else(|| {
            let expected = format!("a whole number from -{PRIORITY_MAX} to {PRIORITY_MAX}");
            self.section.unexpected("priority", value, &expected)
        })
    }
}

#[cfg(test)]
mod tests;
