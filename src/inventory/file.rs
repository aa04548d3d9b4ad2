//! The inventory file, read into what the core applies.
//!
//! Owns the format: keys, expansion, defaults of a pool, and every mistake that can be seen from
//! the file alone, with its place. What applying it does to the books is the core's business.
//! A file is read whole or refused whole.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::braces::Template;
use super::document::{Entry, InventoryError, Placed, Section, Source, Span, described, shown};
use crate::core::apply::{Declared, DeclaredResource, check_spec, check_value};
use crate::core::fold;
use crate::core::inventory::{OnDrop, Pool, ResourceSpec, SecretRef};
use crate::core::limits::{
    LABELS_PER_RESOURCE_MAX, PRIORITY_MAX, RESOURCES_MAX, SLOTS_MAX, SPAN_MS_MAX, TTL_MS_MAX, TTL_MS_MIN,
    WAITING_PER_OWNER_MAX,
};
use crate::core::refusal::{Code, Refusal};
use crate::core::types::{Key, NameError, ResourceName, Value};

/// Bytes of an inventory file, as many as HTTP takes. A longer one is refused before it is parsed.
pub const FILE_BYTES_MAX: usize = 16 * 1024 * 1024;

const POOL_KEYS: &[&str] = &[
    "name",
    "max_hold",
    "ttl",
    "on_drop",
    "clean",
    "cooldown",
    "max_per_owner",
    "max_waiting_per_owner",
    "max_priority",
    "identity",
    "labels",
    "properties",
];
const RESOURCE_KEYS: &[&str] = &["name", "was", "pool", "labels", "properties", "secrets", "slots"];

/// Reads an inventory file. `file_name` is what errors call it.
///
/// # Errors
/// The first mistake, with its place and what was expected.
pub fn read(text: &str, file_name: &str) -> Result<Declared, InventoryError> {
    let source = Source::new(text, file_name);
    if text.len() > FILE_BYTES_MAX {
        let mib = FILE_BYTES_MAX / (1024 * 1024);
        return Err(source.refuse(&(0..0), format!("the file is larger than {mib} MiB: use ranges, or split the lab")));
    }
    let document = source.parse()?;
    let top = Section::open(source, "the inventory file", &["pool", "resource"], document.get_ref(), document.span())?;
    let mut reader = Reader::new(source);
    for table in top.tables("pool")? {
        reader.pool(&table)?;
    }
    for table in top.tables("resource")? {
        reader.resource(&table)?;
    }
    reader.finish()
}

/// A pool, and what it gives its resources.
struct PoolEntry {
    pool: Pool,
    labels: BTreeMap<Key, Value>,
    properties: BTreeMap<Key, Value>,
    span: Span,
}

/// Labels or properties: they are read alike and named differently.
struct Kind {
    /// Its key in the file.
    key: &'static str,
    /// One of them.
    one: &'static str,
    /// The name of one.
    name: &'static str,
    /// Which names can stand together.
    check_names: fn(&[Key]) -> Result<(), String>,
}

const LABELS: Kind =
    Kind { key: "labels", one: "label", name: "label name", check_names: |names| fold::check_labels(names) };
const PROPERTIES: Kind = Kind {
    key: "properties",
    one: "property",
    name: "property name",
    check_names: |names| fold::check_properties(names),
};

/// A value as written, which may be another one for each resource.
enum Field {
    Fixed(Value),
    Expanded(Template),
}

/// A secret as written.
enum SecretField {
    Env(Template),
    File(Template),
}

/// One `[[resource]]` as written, before it expands.
struct Shape {
    span: Span,
    name: Placed<Template>,
    was: Option<Placed<Template>>,
    pool: Key,
    labels: BTreeMap<Key, Placed<Field>>,
    properties: BTreeMap<Key, Placed<Field>>,
    secrets: BTreeMap<Key, Placed<SecretField>>,
    slots: u32,
}

/// What was read so far.
struct Reader<'i> {
    source: Source<'i>,
    pools: BTreeMap<Key, PoolEntry>,
    /// In the order of the file, so that numbers are given in it.
    pool_order: Vec<Key>,
    resources: Vec<DeclaredResource>,
    /// Where each name was given.
    names: BTreeMap<ResourceName, Span>,
    /// Where each former name was given.
    former: BTreeMap<ResourceName, Span>,
    /// Who has each value of a pool's identity.
    identities: BTreeMap<(Key, Value), (ResourceName, Span)>,
}

impl<'i> Reader<'i> {
    const fn new(source: Source<'i>) -> Self {
        Self {
            source,
            pools: BTreeMap::new(),
            pool_order: Vec::new(),
            resources: Vec::new(),
            names: BTreeMap::new(),
            former: BTreeMap::new(),
            identities: BTreeMap::new(),
        }
    }

    fn pool(&mut self, table: &Placed<&DeTable<'i>>) -> Result<(), InventoryError> {
        let section = Section::open(self.source, "[[pool]]", POOL_KEYS, table.value, table.span.clone())?;
        let name = section.text("name")?.ok_or_else(|| section.missing("name", "\"a-name\""))?;
        let key = self.key(&name, "pool name")?;
        if let Some(first) = self.pools.get(&key) {
            let line = self.source.line(first.span.start);
            return Err(self.source.refuse(&name.span, format!("pool \"{key}\" is already defined in line {line}")));
        }
        refuse_what_is_not_there(&section)?;
        let on_drop = match section.text("on_drop")? {
            None => OnDrop::default(),
            Some(text) => match text.value {
                "after-ttl" => OnDrop::AfterTtl,
                "immediate" => OnDrop::Immediate,
                other => {
                    let message =
                        format!("on_drop of [[pool]] is {}: expected \"after-ttl\" or \"immediate\"", shown(other));
                    return Err(self.source.refuse(&text.span, message));
                }
            },
        };
        let identity = match section.text("identity")? {
            Some(text) => Some(self.key(&text, "property name")?),
            None => None,
        };
        let pool = Pool {
            name: key.clone(),
            max_hold_ms: section.duration_ms("max_hold", 1_000, SPAN_MS_MAX)?.map(|placed| placed.value),
            ttl_ms: section.duration_ms("ttl", TTL_MS_MIN, TTL_MS_MAX)?.map(|placed| placed.value),
            on_drop,
            identity,
            cooldown_ms: section.duration_ms("cooldown", 0, SPAN_MS_MAX)?.map_or(0, |placed| placed.value),
            max_per_owner: count(&section, "max_per_owner", RESOURCES_MAX)?,
            max_waiting_per_owner: count(&section, "max_waiting_per_owner", WAITING_PER_OWNER_MAX)?,
            max_priority: priority(&section)?,
        };
        let labels = self.defaults(&section, &LABELS)?;
        let properties = self.defaults(&section, &PROPERTIES)?;
        self.pool_order.push(key.clone());
        self.pools.insert(key, PoolEntry { pool, labels, properties, span: name.span });
        Ok(())
    }

    /// What a pool gives each of its resources. It is the same for all, so nothing expands in it.
    fn defaults(&self, section: &Section<'_, 'i>, kind: &Kind) -> Result<BTreeMap<Key, Value>, InventoryError> {
        let mut defaults = BTreeMap::new();
        for (name, field) in self.values(section, kind)? {
            let value = match field.value {
                Field::Fixed(value) => value,
                Field::Expanded(_) => {
                    let message = format!(
                        "{} of [[pool]] are the same for all its resources, so ranges and lists cannot expand \
                         in \"{name}\": put it into the [[resource]]",
                        kind.key
                    );
                    return Err(self.source.refuse(&field.span, message));
                }
            };
            defaults.insert(name, value);
        }
        Ok(defaults)
    }

    fn resource(&mut self, table: &Placed<&DeTable<'i>>) -> Result<(), InventoryError> {
        let section = Section::open(self.source, "[[resource]]", RESOURCE_KEYS, table.value, table.span.clone())?;
        let shape = self.shape(&section)?;
        let count = self.count(&shape)?;
        for place in 0..count {
            self.expand(&shape, place)?;
        }
        Ok(())
    }

    fn shape(&self, section: &Section<'_, 'i>) -> Result<Shape, InventoryError> {
        let name = section.text("name")?.ok_or_else(|| section.missing("name", "\"a-name\""))?;
        let pool = section.text("pool")?.ok_or_else(|| section.missing("pool", "\"a-pool\""))?;
        let was = section.text("was")?;
        Ok(Shape {
            span: section.span(),
            name: self.template(&name)?,
            was: was.map(|was| self.template(&was)).transpose()?,
            pool: self.key(&pool, "pool name")?,
            labels: self.values(section, &LABELS)?,
            properties: self.values(section, &PROPERTIES)?,
            secrets: self.secrets(section)?,
            slots: section
                .whole("slots", 1, u64::from(SLOTS_MAX))?
                .map_or(1, |slots| u32::try_from(slots).expect("slots are at most SLOTS_MAX, which is a u32")),
        })
    }

    /// Labels or properties as written.
    fn values(&self, section: &Section<'_, 'i>, kind: &Kind) -> Result<BTreeMap<Key, Placed<Field>>, InventoryError> {
        let mut names = Vec::new();
        let mut values = BTreeMap::new();
        for Entry { key: name, value } in section.entries(kind.key, "a table such as { site = \"berlin\" }")? {
            let key = self.key(&name, kind.name)?;
            self.name(&mut names, &key, &name.span, kind.key, kind.check_names)?;
            let span = value.span();
            let field = match value.get_ref() {
                DeValue::String(text) => {
                    let template = self.template(&Placed { value: &**text, span: span.clone() })?.value;
                    if template.lengths().next().is_none() {
                        Field::Fixed(Value::Text(template.at(0).into()))
                    } else {
                        Field::Expanded(template)
                    }
                }
                other => Field::Fixed(plain(other).ok_or_else(|| {
                    let got = described(other);
                    let expected = "a text in quotes, a finite number, true or false";
                    self.source.refuse(&span, format!("{} \"{key}\" is {got}: expected {expected}", kind.one))
                })?),
            };
            if let Field::Fixed(value) = &field {
                check_value(kind.one, &key, value).map_err(|refusal| self.refused(refusal, &span))?;
            }
            values.insert(key, Placed { value: field, span });
        }
        Ok(values)
    }

    /// Adds a name to those before it, where it can stand beside them.
    fn name(
        &self,
        names: &mut Vec<Key>,
        key: &Key,
        span: &Span,
        what: &str,
        check: fn(&[Key]) -> Result<(), String>,
    ) -> Result<(), InventoryError> {
        // Before the check, whose work grows with every name.
        if names.len() >= LABELS_PER_RESOURCE_MAX {
            let message = format!("these are too many {what}: expected at most {LABELS_PER_RESOURCE_MAX}");
            return Err(self.source.refuse(span, message));
        }
        names.push(key.clone());
        check(names).map_err(|wrong| self.source.refuse(span, wrong))
    }

    fn secrets(&self, section: &Section<'_, 'i>) -> Result<BTreeMap<Key, Placed<SecretField>>, InventoryError> {
        let mut names = Vec::new();
        let mut secrets = BTreeMap::new();
        for Entry { key: name, value } in section.entries("secrets", "a table such as { pin = { env = \"PIN\" } }")? {
            let parsed = self.key(&name, "secret name")?;
            self.name(&mut names, &parsed, &name.span, "secrets", |names| fold::check_secrets(names))?;
            let field = self.secret(&parsed, value)?;
            secrets.insert(parsed, Placed { value: field, span: value.span() });
        }
        Ok(secrets)
    }

    fn secret(&self, name: &Key, value: &Spanned<DeValue<'i>>) -> Result<SecretField, InventoryError> {
        // The value is not shown: it may be the secret itself, put where its whereabouts belong.
        let refuse = || {
            let message = format!(
                "secret \"{name}\": expected where the broker finds it, {{ env = \"VARIABLE\" }} or \
                 {{ file = \"/absolute/path\" }}, never the value itself"
            );
            self.source.refuse(&value.span(), message)
        };
        let DeValue::Table(table) = value.get_ref() else { return Err(refuse()) };
        let from = Section::open(self.source, "a secret", &["env", "file"], table, value.span())?;
        match (from.text("env")?, from.text("file")?) {
            (Some(env), None) => Ok(SecretField::Env(self.template(&env)?.value)),
            (None, Some(file)) => Ok(SecretField::File(self.template(&file)?.value)),
            _ => Err(refuse()),
        }
    }

    /// How many resources a shape expands to.
    fn count(&self, shape: &Shape) -> Result<u64, InventoryError> {
        let mut first: Option<(u64, Span)> = None;
        let outcome = shape.templates().try_for_each(|(template, span)| {
            for length in template.lengths() {
                match &first {
                    Some((expected, _)) if *expected != length => return ControlFlow::Break((length, span.clone())),
                    Some(_) => {}
                    None => first = Some((length, span.clone())),
                }
            }
            ControlFlow::Continue(())
        });
        let Some((count, at)) = first else { return Ok(1) };
        if let ControlFlow::Break((length, span)) = outcome {
            let line = self.source.line(at.start);
            let message = format!(
                "this expands to {length}, but what stands in line {line} to {count}: ranges and lists of one \
                 [[resource]] expand side by side and must be equal in length"
            );
            return Err(self.source.refuse(&span, message));
        }
        if shape.name.value.lengths().next().is_none() {
            let message = format!(
                "this expands to {count}, but the name does not: give it a range or list too, such as \
                 \"name-{{1..{count}}}\""
            );
            return Err(self.source.refuse(&at, message));
        }
        let room = RESOURCES_MAX.saturating_sub(self.resources.len());
        if usize::try_from(count).is_ok_and(|count| count <= room) {
            return Ok(count);
        }
        let message = format!("this expands to {count}: a lab has at most {RESOURCES_MAX} resources");
        Err(self.source.refuse(&at, message))
    }

    /// Makes the resource at one place of a shape.
    fn expand(&mut self, shape: &Shape, place: u64) -> Result<(), InventoryError> {
        if self.resources.len() >= RESOURCES_MAX {
            return Err(self.source.refuse(&shape.span, format!("a lab has at most {RESOURCES_MAX} resources")));
        }
        let name = self.resource_name(&shape.name, place)?;
        if let Some(first) = self.names.insert(name.clone(), shape.name.span.clone()) {
            let line = self.source.line(first.start);
            let message = format!("resource \"{name}\" is already defined in line {line}: a name is unique");
            return Err(self.source.refuse(&shape.name.span, message));
        }
        let was = match &shape.was {
            Some(was) => Some(self.former_name(was, &name, place)?),
            None => None,
        };
        let (labels, properties) = match self.pools.get(&shape.pool) {
            Some(entry) => (entry.labels.clone(), entry.properties.clone()),
            None => (BTreeMap::new(), BTreeMap::new()),
        };
        let labels = self.merged(labels, &shape.labels, place, &LABELS)?;
        let properties = self.merged(properties, &shape.properties, place, &PROPERTIES)?;
        let mut secrets = BTreeMap::new();
        for (key, field) in &shape.secrets {
            secrets.insert(key.clone(), self.secret_at(key, field, place)?);
        }
        let spec = ResourceSpec { name, pool: shape.pool.clone(), labels, properties, secrets, slots: shape.slots };
        check_spec(&spec).map_err(|refusal| self.refused(refusal, &shape.span))?;
        self.identity(shape, &spec)?;
        self.resources.push(DeclaredResource { spec, was });
        Ok(())
    }

    fn resource_name(&self, template: &Placed<Template>, place: u64) -> Result<ResourceName, InventoryError> {
        ResourceName::parse(&template.value.at(place)).map_err(|error| self.bad_name(&error, &template.span))
    }

    fn former_name(
        &mut self,
        template: &Placed<Template>,
        name: &ResourceName,
        place: u64,
    ) -> Result<ResourceName, InventoryError> {
        let was = self.resource_name(template, place)?;
        if was == *name {
            let message = format!("resource \"{name}\" was \"{was}\" already: remove `was`, or name the old name");
            return Err(self.source.refuse(&template.span, message));
        }
        if let Some(first) = self.former.insert(was.clone(), template.span.clone()) {
            let line = self.source.line(first.start);
            let message = format!("\"{was}\" is already renamed in line {line}: one resource has one new name");
            return Err(self.source.refuse(&template.span, message));
        }
        Ok(was)
    }

    fn merged(
        &self,
        defaults: BTreeMap<Key, Value>,
        own: &BTreeMap<Key, Placed<Field>>,
        place: u64,
        kind: &Kind,
    ) -> Result<BTreeMap<Key, Value>, InventoryError> {
        let mut merged = defaults;
        for (key, field) in own {
            let value = match &field.value {
                Field::Fixed(value) => value.clone(),
                Field::Expanded(template) => {
                    let value = Value::Text(template.at(place).into());
                    check_value(kind.one, key, &value).map_err(|refusal| self.refused(refusal, &field.span))?;
                    value
                }
            };
            merged.insert(key.clone(), value);
        }
        Ok(merged)
    }

    fn secret_at(&self, key: &Key, field: &Placed<SecretField>, place: u64) -> Result<SecretRef, InventoryError> {
        let (reference, wrong) = match &field.value {
            SecretField::Env(template) => {
                let name: Arc<str> = template.at(place).into();
                let wrong = name.is_empty() || name.contains(['=', '\0']);
                (SecretRef::Env(name), wrong.then_some("the name of an environment variable, without '='"))
            }
            SecretField::File(template) => {
                let path: Arc<str> = template.at(place).into();
                let wrong = !path.starts_with('/') || path.contains('\0');
                (SecretRef::File(path), wrong.then_some("an absolute path on the broker's machine"))
            }
        };
        match wrong {
            None => Ok(reference),
            Some(expected) => Err(self.source.refuse(&field.span, format!("secret \"{key}\": expected {expected}"))),
        }
    }

    /// No two resources of a pool may have its identity alike.
    fn identity(&mut self, shape: &Shape, spec: &ResourceSpec) -> Result<(), InventoryError> {
        let Some(key) = self.pools.get(&spec.pool).and_then(|entry| entry.pool.identity.clone()) else {
            return Ok(());
        };
        let Some(value) = spec.properties.get(&key) else { return Ok(()) };
        let span = shape.properties.get(&key).map_or_else(|| shape.name.span.clone(), |field| field.span.clone());
        let had = self.identities.insert((spec.pool.clone(), value.clone()), (spec.name.clone(), span.clone()));
        let Some((other, first)) = had else { return Ok(()) };
        let message = format!(
            "{key} {} of resource \"{}\" is also that of \"{other}\" in line {}: pool \"{}\" has identity = \"{key}\", \
             so no two resources may have it alike",
            shown(&value.to_string()),
            spec.name,
            self.source.line(first.start),
            spec.pool,
        );
        Err(self.source.refuse(&span, message))
    }

    fn finish(self) -> Result<Declared, InventoryError> {
        for (was, span) in &self.former {
            if let Some(present) = self.names.get(was) {
                let line = self.source.line(present.start);
                let message = format!(
                    "\"{was}\" is renamed here and still defined in line {line}: rename in one step, and use the old \
                     name again in the next"
                );
                return Err(self.source.refuse(span, message));
            }
        }
        let mut pools = self.pools;
        let pools = self.pool_order.iter().filter_map(|key| pools.remove(key)).map(|entry| entry.pool).collect();
        Ok(Declared { pools, resources: self.resources })
    }

    fn key(&self, text: &Placed<&str>, what: &'static str) -> Result<Key, InventoryError> {
        Key::parse(text.value, what).map_err(|error| self.bad_name(&error, &text.span))
    }

    fn bad_name(&self, error: &NameError, span: &Span) -> InventoryError {
        self.source.refuse(span, error.to_string())
    }

    fn template(&self, text: &Placed<&str>) -> Result<Placed<Template>, InventoryError> {
        let value = Template::parse(text.value)
            .map_err(|wrong| self.source.refuse(&text.span, format!("{}: {wrong}", shown(text.value))))?;
        Ok(Placed { value, span: text.span.clone() })
    }

    fn refused(&self, refusal: Refusal, span: &Span) -> InventoryError {
        self.source.refuse_as(refusal.code, span, &*refusal.message)
    }
}

impl Shape {
    /// Everything in it that may expand, the name first.
    fn templates(&self) -> impl Iterator<Item = (&Template, &Span)> {
        let values = self.labels.values().chain(self.properties.values());
        let values = values.filter_map(|placed| match &placed.value {
            Field::Fixed(_) => None,
            Field::Expanded(template) => Some((template, &placed.span)),
        });
        let secrets = self.secrets.values().map(|placed| match &placed.value {
            SecretField::Env(template) | SecretField::File(template) => (template, &placed.span),
        });
        let names = std::iter::once(&self.name).chain(&self.was);
        names.map(|placed| (&placed.value, &placed.span)).chain(values).chain(secrets)
    }
}

/// What the design has and this version has not is refused by name, never ignored.
fn refuse_what_is_not_there(section: &Section<'_, '_>) -> Result<(), InventoryError> {
    if let Some(clean) = section.truth("clean")?
        && clean.value
    {
        let message = "clean = true of [[pool]] is not in this version yet: remove it".to_owned();
        return Err(section.source.refuse_as(Code::NotInThisVersion, &clean.span, message));
    }
    Ok(())
}

/// A number of things, at least one.
fn count(section: &Section<'_, '_>, key: &str, most: usize) -> Result<Option<u32>, InventoryError> {
    let number = section.whole(key, 1, u64::try_from(most).unwrap_or(u64::MAX))?;
    Ok(number.map(|number| u32::try_from(number).unwrap_or(u32::MAX)))
}

fn priority(section: &Section<'_, '_>) -> Result<Option<i8>, InventoryError> {
    let Some((_, value)) = section.field("max_priority") else { return Ok(None) };
    let steps = match value.get_ref() {
        DeValue::Integer(digits) => i8::from_str_radix(digits.as_str(), digits.radix()).ok(),
        _ => None,
    };
    let Some(steps) = steps.filter(|steps| (-PRIORITY_MAX..=PRIORITY_MAX).contains(steps)) else {
        let expected = format!("a whole number from -{PRIORITY_MAX} to {PRIORITY_MAX}");
        return Err(section.unexpected("max_priority", value, &expected));
    };
    Ok(Some(steps))
}

/// A value that is not a text; none for what no label can be.
fn plain(value: &DeValue<'_>) -> Option<Value> {
    match value {
        DeValue::Boolean(truth) => Some(Value::Bool(*truth)),
        DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix()).ok().map(Value::Int),
        DeValue::Float(digits) => digits.as_str().parse::<f64>().ok().and_then(float),
        _ => None,
    }
}

/// A whole number is kept as one, so that `34` and `34.0` are the same label to everybody.
#[expect(clippy::cast_possible_truncation, reason = "only whole numbers that a float holds exactly are cast")]
fn float(number: f64) -> Option<Value> {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if !number.is_finite() {
        return None;
    }
    let whole = number.fract() == 0.0 && number.abs() <= EXACT_MAX;
    Some(if whole { Value::Int(number as i64) } else { Value::Float(number) })
}

#[cfg(test)]
mod tests;
