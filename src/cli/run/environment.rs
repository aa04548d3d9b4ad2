//! The variables that a lease gives its command.
//!
//! For each alias `LEASEHOLD_<ALIAS>_COUNT` and, per resource and for the first one without its
//! number, the name, slots, properties and labels; beside them the lease as a whole. A `run`
//! inside another keeps what the outer one gave under other aliases. Which names could meet is
//! refused where they are made (the inventory and the claim), so nothing is decided about it here.
//! This file reads no environment and writes no file; it says what both should hold.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::protocol::info::{LeaseInfo, PickInfo};

/// Every variable of ours begins so.
pub const PREFIX: &str = "LEASEHOLD_";
/// Names the lease; what `release`, `extend` and `renew` take without an argument.
pub const LEASE: &str = "LEASEHOLD_LEASE";
/// The key of a lease without a socket, and of a keeper's.
pub const LEASE_KEY: &str = "LEASEHOLD_LEASE_KEY";
/// The resources as JSON, by alias.
pub const RESOURCES: &str = "LEASEHOLD_RESOURCES";
/// The file with the secrets.
pub const SECRETS_FILE: &str = "LEASEHOLD_SECRETS_FILE";

/// What changes between this process's environment and the command's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Set, with these values.
    pub set: BTreeMap<String, String>,
    /// Not there any more: of an outer lease under an alias that is ours now.
    pub removed: Vec<String>,
}

/// The secrets of one resource, as the secrets file has them under its alias.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PickSecrets {
    /// The resource.
    pub name: String,
    /// By name.
    pub secrets: BTreeMap<String, String>,
}

/// What the secrets file holds: per alias one entry for each resource.
pub type SecretsFile = BTreeMap<String, Vec<PickSecrets>>;

/// An alias, property or label as it stands in a variable's name: capitals, and `_` for all that
/// is neither letter nor digit.
#[must_use]
pub fn fold(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// The environment of a command under `lease`, beside `outer`: the variables of this process
/// (those that begin with [`PREFIX`] are enough). Secrets are in it only where `secrets` says so.
#[must_use]
pub fn environment(lease: &LeaseInfo, url: &str, outer: &BTreeMap<String, String>, secrets: bool) -> Environment {
    let mut resources = outer_resources(outer);
    let removed = stale(lease, outer, &resources);
    let mut set = BTreeMap::from([
        (LEASE.to_owned(), lease.lease.to_string()),
        ("LEASEHOLD_FENCE".to_owned(), lease.fence.to_string()),
        ("LEASEHOLD_URL".to_owned(), url.to_owned()),
    ]);
    for (alias, picks) in &lease.resources {
        let shown = picks.iter().map(|pick| PickInfo { secrets: BTreeMap::new(), ..pick.clone() });
        resources.insert(alias.clone(), serde_json::to_value(shown.collect::<Vec<_>>()).unwrap_or_default());
        let prefix = format!("{PREFIX}{}_", fold(alias));
        set.insert(format!("{prefix}COUNT"), picks.len().to_string());
        for (index, pick) in picks.iter().enumerate() {
            set_pick(&mut set, &format!("{prefix}{index}_"), pick, secrets);
        }
        if let Some(first) = picks.first() {
            set_pick(&mut set, &prefix, first, secrets);
        }
    }
    set.insert(RESOURCES.to_owned(), Value::Object(resources).to_string());
    let removed = removed.into_iter().filter(|name| !set.contains_key(name)).collect();
    Environment { set, removed }
}

fn set_pick(set: &mut BTreeMap<String, String>, prefix: &str, pick: &PickInfo, secrets: bool) {
    set.insert(format!("{prefix}NAME"), pick.name.clone());
    set.insert(format!("{prefix}SLOTS"), pick.slots.to_string());
    for (key, value) in &pick.properties {
        set.insert(format!("{prefix}{}", fold(key)), text(value));
    }
    for (key, value) in &pick.labels {
        set.insert(format!("{prefix}LABEL_{}", fold(key)), text(value));
    }
    if secrets {
        for (name, value) in &pick.secrets {
            set.insert(format!("{prefix}SECRET_{}", fold(name)), value.clone());
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn outer_resources(outer: &BTreeMap<String, String>) -> serde_json::Map<String, Value> {
    outer.get(RESOURCES).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// Variables of an outer lease that would be read as ours: an outer alias that was larger, or had
/// other properties. Those of another outer alias that only begins alike stay.
fn stale(
    lease: &LeaseInfo,
    outer: &BTreeMap<String, String>,
    outer_resources: &serde_json::Map<String, Value>,
) -> Vec<String> {
    let prefix_of = |alias: &String| format!("{PREFIX}{}_", fold(alias));
    let ours: Vec<String> = lease.resources.keys().map(prefix_of).collect();
    let kept: Vec<String> =
        outer_resources.keys().filter(|alias| !lease.resources.contains_key(*alias)).map(prefix_of).collect();
    let longest = |prefixes: &[String], name: &str| {
        prefixes.iter().filter(|prefix| name.starts_with(prefix.as_str())).map(String::len).max()
    };
    let stale = outer.keys().filter(|name| longest(&ours, name) > longest(&kept, name)).cloned();
    // An outer lease's key opens nothing of this one.
    stale.chain([LEASE_KEY.to_owned()]).collect()
}

/// What the secrets file is to hold: the lease's secrets, and those of an outer file under other
/// aliases. Empty where there are none.
#[must_use]
pub fn secrets_file(lease: &LeaseInfo, outer: SecretsFile) -> SecretsFile {
    let mut file = outer;
    for (alias, picks) in &lease.resources {
        file.remove(alias);
        if picks.iter().any(|pick| !pick.secrets.is_empty()) {
            let entry = |pick: &PickInfo| PickSecrets { name: pick.name.clone(), secrets: pick.secrets.clone() };
            file.insert(alias.clone(), picks.iter().map(entry).collect());
        }
    }
    file
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::{Environment, environment, fold, secrets_file};
    use crate::protocol::info::LeaseInfo;

    fn lease(resources: &serde_json::Value) -> LeaseInfo {
        serde_json::from_value(json!({
            "lease": 41, "fence": 41, "state": "active", "claim": 7, "session": 3, "request_id": 1,
            "owner": "ann@desk", "owner_verified": false, "needs": [], "resources": resources,
            "queued_at": 0, "queued_at_time": "", "granted_at": 0, "granted_at_time": "",
        }))
        .unwrap()
    }

    fn phone(name: &str, secrets: &serde_json::Value) -> serde_json::Value {
        json!({"name": name, "pool": "phone", "labels": {"os": "android", "api": 34, "5g-ready": true},
            "properties": {"serial": "s-1", "usb.port": 4}, "slots": 1, "secrets": secrets})
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn names_fold_to_capitals_and_underscores() {
        for (name, folded) in [("phone", "PHONE"), ("usb-port", "USB_PORT"), ("a.b_c9", "A_B_C9"), ("é", "_")] {
            assert_eq!(fold(name), folded);
        }
    }

    #[test]
    fn every_resource_is_there_and_the_first_without_its_number_too() {
        let lease = lease(&json!({"dut": [phone("p1", &json!({"pin": "1"})), phone("p2", &json!({}))]}));
        let Environment { set, .. } = environment(&lease, "ws://b", &BTreeMap::new(), false);
        let of_one = |prefix: &str, name: &str| {
            [
                ("NAME", name),
                ("SLOTS", "1"),
                ("SERIAL", "s-1"),
                ("USB_PORT", "4"),
                ("LABEL_OS", "android"),
                ("LABEL_API", "34"),
                ("LABEL_5G_READY", "true"),
            ]
            .map(|(key, value)| (format!("{prefix}{key}"), value.to_owned()))
        };
        let resources = set["LEASEHOLD_RESOURCES"].clone();
        let mut expected = map(&[
            ("LEASEHOLD_LEASE", "41"),
            ("LEASEHOLD_FENCE", "41"),
            ("LEASEHOLD_URL", "ws://b"),
            ("LEASEHOLD_DUT_COUNT", "2"),
            ("LEASEHOLD_RESOURCES", &resources),
        ]);
        expected.extend(of_one("LEASEHOLD_DUT_", "p1"));
        expected.extend(of_one("LEASEHOLD_DUT_0_", "p1"));
        expected.extend(of_one("LEASEHOLD_DUT_1_", "p2"));
        assert_eq!(set, expected);
        assert!(!resources.contains("pin"), "secrets are no resources' business: {resources}");
        let read: serde_json::Value = serde_json::from_str(&resources).unwrap();
        assert_eq!(read["dut"][1]["name"], "p2");
        assert_eq!(read["dut"][0]["labels"]["api"], 34);
    }

    #[test]
    fn secrets_are_variables_only_when_asked_for() {
        let lease = lease(&json!({"dut": [phone("p1", &json!({"sim-pin": "1234"}))]}));
        let asked = environment(&lease, "", &BTreeMap::new(), true).set;
        assert_eq!(asked["LEASEHOLD_DUT_SECRET_SIM_PIN"], "1234");
        assert_eq!(asked["LEASEHOLD_DUT_0_SECRET_SIM_PIN"], "1234");
        let not = environment(&lease, "", &BTreeMap::new(), false).set;
        assert!(not.iter().all(|(name, value)| !name.contains("SECRET") && !value.contains("1234")));
    }

    #[test]
    fn outer_variables_of_other_aliases_stay_and_of_the_same_go() {
        let outer = map(&[
            ("LEASEHOLD_RESOURCES", r#"{"phone":[{"name":"old"}],"phone_lab":[{"name":"l"}],"net":[{"name":"n"}]}"#),
            ("LEASEHOLD_PHONE_COUNT", "3"),
            ("LEASEHOLD_PHONE_2_NAME", "old"),
            ("LEASEHOLD_PHONE_LAB_NAME", "l"),
            ("LEASEHOLD_NET_NAME", "n"),
            ("LEASEHOLD_LEASE", "9"),
            ("LEASEHOLD_TOKEN", "t"),
        ]);
        let inner = environment(&lease(&json!({"phone": [phone("p1", &json!({}))]})), "", &outer, false);
        assert_eq!(inner.removed, ["LEASEHOLD_PHONE_2_NAME", "LEASEHOLD_LEASE_KEY"]);
        assert_eq!(inner.set["LEASEHOLD_PHONE_COUNT"], "1");
        assert_eq!(inner.set["LEASEHOLD_LEASE"], "41");
        let read: serde_json::Value = serde_json::from_str(&inner.set["LEASEHOLD_RESOURCES"]).unwrap();
        let names: Vec<&serde_json::Value> = ["phone", "phone_lab", "net"].map(|alias| &read[alias][0]["name"]).into();
        assert_eq!(names, ["p1", "l", "n"]);
    }

    #[test]
    fn the_secrets_file_has_ours_and_the_outer_ones_of_other_aliases() {
        let outer = serde_json::from_value(json!({
            "dut": [{"name": "old", "secrets": {"pin": "0"}}], "db": [{"name": "d", "secrets": {"password": "x"}}],
        }))
        .unwrap();
        let ours = lease(&json!({"dut": [phone("p1", &json!({"pin": "1"}))], "net": [phone("n", &json!({}))]}));
        let file = serde_json::to_value(secrets_file(&ours, outer)).unwrap();
        assert_eq!(
            file,
            json!({
                "dut": [{"name": "p1", "secrets": {"pin": "1"}}], "db": [{"name": "d", "secrets": {"password": "x"}}],
            })
        );
    }
}
