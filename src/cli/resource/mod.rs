//! `resource`: what the lab has, who has it, and what an admin does to it.
//!
//! This file owns the command line of the family and the acts that change something; what only
//! looks is in `look.rs`, `apply` in `apply.rs`.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::broker::{Broker, encode};
use super::{Failure, Globals, exit_code, output};
use crate::protocol::http::{MarkRequest, ResourceRequest};
use crate::protocol::info::{ApplyInfo, ResourceInfo};

mod apply;
mod look;

/// Look at resources and change them
#[derive(Debug, Args)]
pub struct ResourceCommand {
    /// Print JSON instead of a table
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// List resources: all, those of a pool, those that match a need
    Ls {
        /// Only of this pool
        #[arg(long)]
        pool: Option<String>,
        /// Only what matches: POOL[,label=value ...][ where CEL]
        need: Option<String>,
    },
    /// Show a resource: who has it and how to get it back, what it is, what is wrong with it
    Show {
        /// Its name
        name: String,
    },
    /// Show which resources match a need, which of them are free, and why the others are not
    Match {
        /// [ALIAS=][COUNT:]POOL[/SLOTS][,label=value ...][ where CEL]
        need: String,
    },
    /// Make the file's part of the inventory what a file says
    Apply(apply::Apply),
    /// Add a resource, or change one that was added so
    Set(Set),
    /// Remove resources that were added with `set`; held ones go when their last lease ends
    Rm {
        /// Their names
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Take resources out: who has one keeps it, nobody gets it after
    Drain(Mark),
    /// Put drained resources back
    Undrain(Mark),
    /// Say that resources are unfit: nobody gets them until they are restored
    Quarantine(Mark),
    /// Say that quarantined resources are fit again
    Restore(Mark),
    /// Show who held a resource, when, and how it ended
    History {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Args)]
struct Set {
    /// Its name
    name: String,
    /// The pool it is in; one that does not exist is made
    #[arg(long)]
    pool: String,
    /// What needs can ask for; a number or true/false is one unless quoted: api='"34"'
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, Value)>,
    /// Handed to the holder
    #[arg(long = "property", value_name = "KEY=VALUE", value_parser = pair)]
    properties: Vec<(String, Value)>,
    /// How many holders may share it
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    slots: u32,
}

#[derive(Debug, Args)]
struct Mark {
    /// Their names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Why, for whoever meets it
    #[arg(long)]
    reason: Option<String>,
}

impl ResourceCommand {
    /// Does it.
    pub fn execute(self, globals: &Globals) -> Result<u8, Failure> {
        let broker = Broker::new(globals)?;
        let json = self.json;
        match self.act {
            Act::Ls { pool, need } => look::list(&broker, json, pool, need),
            Act::Show { name } => look::show(&broker, json, &name),
            Act::Match { need } => look::matching(&broker, json, &need),
            Act::History { name } => look::history(&broker, json, &name),
            Act::Apply(apply) => apply.execute(&broker, json),
            Act::Set(set) => set.execute(&broker, json),
            Act::Rm { names } => each(&names, |name| remove(&broker, json, name)),
            Act::Drain(mark) => mark.execute(&broker, json, "drain"),
            Act::Undrain(mark) => mark.execute(&broker, json, "undrain"),
            Act::Quarantine(mark) => mark.execute(&broker, json, "quarantine"),
            Act::Restore(mark) => mark.execute(&broker, json, "restore"),
        }
    }
}

/// The path of a resource in the HTTP interface.
fn path_of(name: &str) -> String {
    format!("/v1/resources/{}", encode(name))
}

/// Does something for every name; one that fails does not stop the others, but no broker does.
fn each(names: &[String], mut act: impl FnMut(&str) -> Result<(), Failure>) -> Result<u8, Failure> {
    let mut code = exit_code::DONE;
    for name in names {
        match act(name) {
            Ok(()) => {}
            Err(failure) if failure.code == exit_code::REFUSED => {
                output::say(&format!("leasehold: {failure}"));
                code = failure.code;
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(code)
}

impl Set {
    fn execute(self, broker: &Broker, json: bool) -> Result<u8, Failure> {
        let body = ResourceRequest {
            pool: self.pool,
            labels: unique(self.labels, "label")?,
            properties: unique(self.properties, "property")?,
            slots: self.slots,
            secrets: None,
        };
        let applied: ApplyInfo = broker.put(&path_of(&self.name), &body)?;
        apply::report(&applied, json, apply::Said::Done)
    }
}

fn remove(broker: &Broker, json: bool, name: &str) -> Result<(), Failure> {
    let applied: ApplyInfo = broker.delete(&path_of(name))?;
    apply::report(&applied, json, apply::Said::Done).map(drop)
}

impl Mark {
    fn execute(self, broker: &Broker, json: bool, act: &str) -> Result<u8, Failure> {
        each(&self.names, |name| {
            let path = path_of(name);
            let _: Value = broker.post(&format!("{path}/{act}"), &MarkRequest { reason: self.reason.clone() })?;
            let resource: ResourceInfo = broker.get(&path)?;
            if json {
                return output::print(&output::json(&resource)?);
            }
            output::say(&said(&resource, act));
            Ok(())
        })
    }
}

/// What became of a resource, and what that means for those who hold it or wait.
fn said(resource: &ResourceInfo, act: &str) -> String {
    let name = &resource.name;
    let done = match act {
        "drain" => format!("{name} is drained: nobody gets it until `leasehold resource undrain {name}`"),
        "quarantine" => format!("{name} is quarantined: nobody gets it until `leasehold resource restore {name}`"),
        "undrain" => format!("{name} is no longer drained"),
        _ => format!("{name} is no longer quarantined"),
    };
    let keeps = resource.holders.iter().map(|holder| format!("lease {} of {} keeps it", holder.lease, holder.owner));
    let still = match act {
        "undrain" if resource.quarantined.is_some() => Some("it is still quarantined".to_owned()),
        "restore" if resource.drained.is_some() => Some("it is still drained".to_owned()),
        "drain" | "quarantine" if !resource.holders.is_empty() => Some(keeps.collect::<Vec<_>>().join(", ")),
        _ => None,
    };
    still.map_or_else(|| done.clone(), |still| format!("{done}; {still}"))
}

fn unique(pairs: Vec<(String, Value)>, what: &str) -> Result<BTreeMap<String, Value>, Failure> {
    let mut map = BTreeMap::new();
    for (key, value) in pairs {
        if map.insert(key.clone(), value).is_some() {
            return Err(Failure::usage(format!("the {what} {key:?} is given twice: give each once")));
        }
    }
    Ok(map)
}

/// `KEY=VALUE`; numbers, `true` and `false` are such unless in double quotes.
fn pair(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, such as os=android")?;
    let scalar = serde_json::from_str::<Value>(value)
        .ok()
        .filter(|read| read.is_number() || read.is_boolean() || read.is_string());
    Ok((key.trim().to_owned(), scalar.unwrap_or_else(|| Value::String(value.to_owned()))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{each, pair};
    use crate::cli::{Failure, exit_code};

    #[test]
    fn values_are_what_they_look_like() {
        for (text, value) in [
            ("a=34", json!(34)),
            ("a=3.5", json!(3.5)),
            ("a=true", json!(true)),
            ("a=\"34\"", json!("34")),
            ("a=x=y", json!("x=y")),
            ("a=", json!("")),
            ("a=null", json!("null")),
            ("a=[1]", json!("[1]")),
        ] {
            assert_eq!(pair(text), Ok(("a".to_owned(), value)), "{text}");
        }
        assert!(pair("a").is_err());
    }

    #[test]
    fn one_refusal_does_not_stop_the_others_but_no_broker_does() {
        let names: Vec<String> = ["a", "b", "c"].map(str::to_owned).into();
        let mut seen = Vec::new();
        let code = each(&names, |name| {
            seen.push(name.to_owned());
            if name == "b" { Err(Failure::refused("no")) } else { Ok(()) }
        });
        assert_eq!((code, seen.len()), (Ok(exit_code::REFUSED), 3));
        let code = each(&names, |_| Err(Failure::no_broker("none")));
        assert_eq!(code.map_err(|failure| failure.code), Err(exit_code::OWN));
    }
}
