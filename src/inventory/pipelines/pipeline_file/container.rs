//! The container that a pipeline runs in, as far as it may say.

use toml::de::DeValue;

use super::super::repository::is_plain_path;
use super::Reader;
use crate::builds::plan::Container;
use crate::inventory::document::{InventoryError, Placed, Section, shown};

pub(in crate::inventory) const CONTAINER: &[&str] = &["image", "network", "mounts", "memory", "cpus", "pids"];
/// Bytes of an image's name, at most.
const IMAGE_BYTES_MAX: usize = 255;
/// Folders that a container mounts, at most.
const MOUNTS_MAX: usize = 16;
/// Bytes of memory that a container may be given.
const MEMORY_BYTES: (u64, u64) = (16 * 1024 * 1024, 1 << 42);
/// Processes that a container may be given.
const PIDS: (u64, u64) = (16, 1_000_000);
/// Processors that a container may be given, in thousandths.
const CPU_MILLI: (u64, u64) = (10, 1_024_000);

impl Reader<'_, '_, '_> {
    /// An image, or a table of it and its bounds.
    pub(super) fn container(&self) -> Result<Option<Container>, InventoryError> {
        let Some((_, value)) = self.section.field("container") else { return Ok(None) };
        if let DeValue::String(text) = value.get_ref() {
            let image = self.image(&Placed { value: &**text, span: value.span() })?;
            return Ok(Some(Container { image, ..Container::default() }));
        }
        let DeValue::Table(table) = value.get_ref() else {
            let expected = "an image such as \"debian:bookworm\", or a table such as { image = \"debian:bookworm\" }";
            return Err(self.section.unexpected("container", value, expected));
        };
        let section = Section::open(self.source, "container", CONTAINER, table, value.span())?;
        let image = section.text("image")?.ok_or_else(|| section.missing("image", "\"debian:bookworm\""))?;
        let pids = section.whole("pids", PIDS.0, PIDS.1)?;
        Ok(Some(Container {
            image: self.image(&image)?,
            network: self.network(&section)?,
            mounts: self.mounts(&section)?,
            memory_bytes: section.bytes("memory", MEMORY_BYTES.0, MEMORY_BYTES.1)?,
            cpu_milli: cpu_milli(&section)?,
            pids: pids.map(|pids| u32::try_from(pids).expect("the bound is a u32")),
        }))
    }

    fn image(&self, text: &Placed<&str>) -> Result<String, InventoryError> {
        let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':' | '@');
        let image = text.value;
        if image.starts_with(|c: char| c.is_ascii_alphanumeric())
            && image.len() <= IMAGE_BYTES_MAX
            && image.chars().all(sound)
        {
            return Ok(image.to_owned());
        }
        let message = format!("{} is no image: expected a name such as \"debian:bookworm\"", shown(image));
        Err(self.source.refuse(&text.span, message))
    }

    fn network(&self, section: &Section<'_, '_>) -> Result<Option<String>, InventoryError> {
        let Some(text) = section.text("network")? else { return Ok(None) };
        if matches!(text.value, "bridge" | "none" | "host") {
            return Ok(Some(text.value.to_owned()));
        }
        let message =
            format!("network of container is {}: expected \"bridge\", \"none\" or \"host\"", shown(text.value));
        Err(self.source.refuse(&text.span, message))
    }

    /// `HOST:CONTAINER[:ro]`, of folders that the repository may mount.
    fn mounts(&self, section: &Section<'_, '_>) -> Result<Vec<String>, InventoryError> {
        let mut mounts = Vec::new();
        for text in section.texts("mounts", MOUNTS_MAX)? {
            let parts: Vec<_> = text.value.split(':').collect();
            let (host, inside) = match parts.as_slice() {
                [host, inside] | [host, inside, "ro" | "rw"] => (*host, *inside),
                _ => ("", ""),
            };
            if !is_plain_path(host) || !is_plain_path(inside) || inside.trim_matches('/').is_empty() {
                let message = format!(
                    "{} is no mount: expected HOST:CONTAINER or HOST:CONTAINER:ro, both absolute, without '..'",
                    shown(text.value)
                );
                return Err(self.source.refuse(&text.span, message));
            }
            if !self.repository.may_mount(host) {
                return Err(self.source.refuse(&text.span, self.foreign_folder(host)));
            }
            mounts.push(text.value.to_owned());
        }
        Ok(mounts)
    }

    fn foreign_folder(&self, host: &str) -> String {
        let allowed = self.repository.mounts.join(", ");
        let allowed = if allowed.is_empty() { "none".to_owned() } else { allowed };
        format!(
            "{} may not mount {}; it may mount: {allowed} (mounts of its [[repository]] in the broker's configuration)",
            self.repository.name,
            shown(host)
        )
    }
}

/// `cpus`, whole or with a fraction, in thousandths.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "only numbers within CPU_MILLI are cast")]
fn cpu_milli(section: &Section<'_, '_>) -> Result<Option<u64>, InventoryError> {
    let Some((_, value)) = section.field("cpus") else { return Ok(None) };
    let number = match value.get_ref() {
        DeValue::Integer(digits) => u32::from_str_radix(digits.as_str(), digits.radix()).ok().map(f64::from),
        DeValue::Float(digits) => digits.as_str().parse::<f64>().ok(),
        _ => None,
    };
    let milli = number.filter(|cpus| cpus.is_finite() && (0.0..1e6).contains(cpus));
    let milli = milli.map(|cpus| (cpus * 1_000.0).round() as u64);
    milli
        .filter(|milli| (CPU_MILLI.0..=CPU_MILLI.1).contains(milli))
        .map(Some)
        .ok_or_else(|| section.unexpected("cpus", value, "a number from 0.01 to 1024"))
}
