//! What a pipeline does, and with what: needs, agent, steps, variables, secrets.

use std::collections::{BTreeMap, BTreeSet};

use toml::de::DeValue;

use super::super::repository::check_variable;
use super::Reader;
use crate::builds::plan::{EXECUTOR_POOL, Step, executor_need};
use crate::core::cel::Program;
use crate::core::limits::{NEED_BYTES_MAX, NEEDS_PER_CLAIM_MAX};
use crate::core::need::{Need, check_needs};
use crate::inventory::document::{Entry, InventoryError, Placed, Section, Span, shown};

/// Steps of one pipeline, at most.
pub const STEPS_MAX: usize = 64;
/// Bytes of one step's command, at most.
pub const RUN_BYTES_MAX: usize = 64 * 1024;
/// Characters of a step's name, at most.
pub const STEP_NAME_CHARS_MAX: usize = 80;
/// Variables of one pipeline, at most.
pub const ENV_MAX: usize = 128;
/// Bytes of one variable's value, at most.
pub const ENV_BYTES_MAX: usize = 32 * 1024;

impl Reader<'_, '_, '_> {
    /// The needs beside the executor: of pools that the repository may use, and such that all of them
    /// together are one claim.
    pub(super) fn needs(&self) -> Result<Vec<String>, InventoryError> {
        let texts = self.section.texts("needs", NEEDS_PER_CLAIM_MAX - 1)?;
        let mut needs = vec![self.executor()?];
        for text in &texts {
            let refuse = |message: String| self.source.refuse(&text.span, message);
            let need = Need::parse(text.value).map_err(|error| refuse(error.to_string()))?;
            if let Some(expression) = &need.expression {
                Program::parse(expression).map_err(|problem| refuse(format!("{}: {problem}", shown(text.value))))?;
            }
            if [&need.alias, &need.pool].iter().any(|key| key.as_str() == EXECUTOR_POOL) {
                let message = "every pipeline has its executor by itself: say under agent what it must be, such as \
                               agent = \"os=linux\"";
                return Err(refuse(message.to_owned()));
            }
            if !self.repository.pools.contains(&need.pool) {
                return Err(refuse(self.foreign_pool(&need)));
            }
            needs.push(need);
        }
        if let Err(refusal) = check_needs(&needs, None, None) {
            let span = self.section.field("needs").map_or_else(|| self.section.span(), |(_, value)| value.span());
            return Err(self.source.refuse(&span, refusal.to_string()));
        }
        Ok(texts.iter().map(|text| text.value.to_owned()).collect())
    }

    fn foreign_pool(&self, need: &Need) -> String {
        let pools: Vec<_> = self.repository.pools.iter().map(ToString::to_string).collect();
        let allowed = if pools.is_empty() { "none".to_owned() } else { pools.join(", ") };
        format!(
            "{} may not use the pool {}; it may use: {allowed} (pools of its [[repository]] in the broker's \
             configuration)",
            self.repository.name, need.pool
        )
    }

    pub(super) fn agent(&self) -> Result<String, InventoryError> {
        self.executor()?;
        Ok(self.section.text("agent")?.map_or_else(String::new, |text| text.value.trim().to_owned()))
    }

    fn executor(&self) -> Result<Need, InventoryError> {
        let text = self.section.text("agent")?.unwrap_or_else(|| Placed { value: "", span: self.section.span() });
        let refuse = |message: &str| {
            let message = format!(
                "agent of [[pipeline]] is {}: expected labels such as \"os=linux,arch=x86_64\"; {message}",
                shown(text.value)
            );
            self.source.refuse(&text.span, message)
        };
        if text.value.len() > NEED_BYTES_MAX / 2 {
            return Err(refuse("it is too long"));
        }
        let need = Need::parse(&executor_need(text.value.trim())).map_err(|error| refuse(&error.problem))?;
        if let Some(expression) = &need.expression {
            Program::parse(expression).map_err(|problem| refuse(&problem))?;
        }
        Ok(need)
    }

    /// `run`, or `steps`.
    pub(super) fn steps(&self) -> Result<Vec<Step>, InventoryError> {
        let run = self.section.text("run")?;
        let tables = self.step_tables()?;
        match (run, tables.is_empty()) {
            (Some(run), true) => Ok(vec![self.step(None, &run)?]),
            (None, false) => tables.iter().map(|section| self.one_step(section)).collect(),
            (Some(run), false) => {
                let message = "the pipeline has both run and steps: expected one of them";
                Err(self.source.refuse(&run.span, message))
            }
            (None, true) => Err(self.section.missing("run", "\"a command\", or steps")),
        }
    }

    fn step_tables(&self) -> Result<Vec<Section<'_, '_>>, InventoryError> {
        let tables = self.section.tables("steps")?;
        if tables.len() > STEPS_MAX {
            let message = format!("a pipeline has at most {STEPS_MAX} steps");
            return Err(self.source.refuse(&tables[STEPS_MAX].span, message));
        }
        let open = |table: Placed<_>| Section::open(self.source, "a step", &["name", "run"], table.value, table.span);
        tables.into_iter().map(open).collect()
    }

    fn one_step(&self, section: &Section<'_, '_>) -> Result<Step, InventoryError> {
        let run = section.text("run")?.ok_or_else(|| section.missing("run", "\"a command\""))?;
        self.step(section.text("name")?, &run)
    }

    fn step(&self, name: Option<Placed<&str>>, run: &Placed<&str>) -> Result<Step, InventoryError> {
        if run.value.trim().is_empty() || run.value.len() > RUN_BYTES_MAX || run.value.contains('\0') {
            let message = format!("run is no command: expected 1 to {RUN_BYTES_MAX} bytes of text");
            return Err(self.source.refuse(&run.span, message));
        }
        let Some(name) = name else {
            let line = run.value.trim_start().lines().next().unwrap_or_default();
            let plain = line.chars().filter(|c| !c.is_control());
            return Ok(Step { name: plain.take(STEP_NAME_CHARS_MAX).collect(), run: run.value.to_owned() });
        };
        let chars = name.value.chars().count();
        if chars == 0 || chars > STEP_NAME_CHARS_MAX || name.value.contains(char::is_control) {
            let message = format!("a step's name has 1 to {STEP_NAME_CHARS_MAX} characters, in one line");
            return Err(self.source.refuse(&name.span, message));
        }
        Ok(Step { name: name.value.to_owned(), run: run.value.to_owned() })
    }

    pub(super) fn env(&self) -> Result<BTreeMap<String, String>, InventoryError> {
        let mut env = BTreeMap::new();
        for Entry { key, value } in self.section.entries("env", "a table such as { LANG = \"C\" }")? {
            check_variable(key.value).map_err(|wrong| self.source.refuse(&key.span, wrong))?;
            if env.len() >= ENV_MAX {
                return Err(self.source.refuse(&key.span, format!("a pipeline has at most {ENV_MAX} variables")));
            }
            let DeValue::String(text) = value.get_ref() else {
                return Err(self.section.unexpected(key.value, value, "a text in quotes"));
            };
            if text.len() > ENV_BYTES_MAX || text.contains('\0') {
                let message = format!("{} is too long: expected at most {ENV_BYTES_MAX} bytes of text", key.value);
                return Err(self.source.refuse(&value.span(), message));
            }
            env.insert(key.value.to_owned(), text.clone().into_owned());
        }
        Ok(env)
    }

    pub(super) fn secrets(&self, env: &BTreeMap<String, String>) -> Result<BTreeSet<String>, InventoryError> {
        let mut secrets = BTreeSet::new();
        for text in self.section.texts("secrets", super::super::SECRETS_MAX)? {
            self.check_secret(&text, env)?;
            secrets.insert(text.value.to_owned());
        }
        Ok(secrets)
    }

    fn check_secret(&self, text: &Placed<&str>, env: &BTreeMap<String, String>) -> Result<(), InventoryError> {
        let refuse = |span: &Span, message: String| Err(self.source.refuse(span, message));
        if !self.repository.secrets.contains_key(text.value) {
            let known: Vec<&str> = self.repository.secrets.keys().map(|name| &**name).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let message = format!(
                "{} has no secret {}; it has: {known} (secrets of its [[repository]] in the broker's configuration)",
                self.repository.name,
                shown(text.value)
            );
            return refuse(&text.span, message);
        }
        if env.contains_key(text.value) {
            return refuse(&text.span, format!("{} is in env too: one variable has one value", text.value));
        }
        Ok(())
    }
}
