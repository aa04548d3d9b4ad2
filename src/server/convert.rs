//! From the words of the wire to those of the engine: parse, never merely validate.
//!
//! What comes out of here has a checked form: texts are needs, names are keys, numbers are in
//! their ranges. Whether it fits the books is the core's to say. Errors name the field, what was
//! expected and what to do.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value as Wire;
use serde_json::value::RawValue;

use crate::core::apply::{Declared, DeclaredResource, check_spec};
use crate::core::claim::{ClaimSpec, Retry};
use crate::core::command::TtlAsk;
use crate::core::inventory::ResourceSpec;
use crate::core::lease::Outcome;
use crate::core::limits::{
    FENCE_MAX, NEEDS_PER_CLAIM_MAX, NOTE_BYTES_MAX, OWNER_BYTES_MAX, PRIORITY_MAX, RETRY_WORK_BYTES_MAX, SPAN_MS_MAX,
    TAG_BYTES_MAX, TAGS_MAX, TTL_MS_MAX, TTL_MS_MIN,
};
use crate::core::need::{Need, check_needs};
use crate::core::refusal::Refusal;
use crate::core::session::{Provider, SecretHash};
use crate::core::types::{Key, LabTime, LeaseId, Owner, ProviderName, ResourceName, SessionId, Value};
use crate::engine::input::{Call, secret_hash};
use crate::engine::query::refusal_error;
use crate::protocol::call::{
    ClaimRequest, Empty, LeaseCancel, LeaseExtend, LeaseRelease, ProvidedResource, ProviderProvide, RetryRequest,
    SessionClose, SessionOpen, SessionRenew, SessionResume, method,
};
use crate::protocol::error::{RpcError, code};
use crate::protocol::rpc::Id;

/// Bytes of an instance, and of a request id over HTTP.
pub const TEXT_ID_BYTES_MAX: usize = 128;
/// Bytes of the key of a lease without a socket, and fewest: 256 bits in hex or base64.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 32..=256;
/// What an error shows of a problem that may quote the request.
const PROBLEM_CHARS_MAX: usize = 200;
/// Pools a session may name for its ttl.
const TTL_POOLS_MAX: usize = 64;

/// Reads the parameters of a call. None at all is the same as none given.
///
/// # Errors
/// `invalid_params`, naming the field that is wrong.
pub fn read_params<T: DeserializeOwned>(params: Option<&RawValue>) -> Result<T, RpcError> {
    let text = params.map_or("{}", RawValue::get);
    match text.as_bytes().first() {
        Some(b'{') => {}
        Some(b'n') => return read_object("{}"),
        _ => return Err(invalid("`params` must be an object with named fields, such as {\"lease\": 7}")),
    }
    read_object(text)
}

/// Reads a JSON object.
///
/// # Errors
/// `invalid_params`, naming the field that is wrong.
pub fn read_object<T: DeserializeOwned>(text: &str) -> Result<T, RpcError> {
    serde_json::from_str(text).map_err(|error| {
        let problem = without_place(&error);
        match wrong_field::<T>(text) {
            Some(field) => invalid(format!("`{field}` is wrong: {problem}")),
            None => invalid(problem),
        }
    })
}

/// The first field that cannot be read whatever the others are. Reading one at a time costs
/// nothing that matters: only refusals pay.
fn wrong_field<T: DeserializeOwned>(text: &str) -> Option<String> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    object.into_iter().find_map(|(name, value)| {
        let alone = serde_json::Value::Object(serde_json::Map::from_iter([(name.clone(), value)]));
        let error = T::deserialize(alone).err()?;
        (!error.to_string().starts_with("missing field")).then_some(name)
    })
}

/// What serde says without its line and column, which mean nothing to whoever built an object.
pub(super) fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let problem = text.rsplit_once(" at line ").map_or(text.as_str(), |(problem, _)| problem);
    // It quotes what it found, which may be all of a message.
    problem.chars().take(PROBLEM_CHARS_MAX).collect()
}

/// Turns a method with its parameters into a call. `peer` is whom a session acts for that names
/// nobody.
///
/// # Errors
/// `unknown_method`, `invalid_params`, and what [`claim_spec`] refuses.
pub fn call(name: &str, params: Option<&RawValue>, peer: IpAddr) -> Result<Call, RpcError> {
    match name {
        method::LEASE_ACQUIRE => acquire(&read_params(params)?),
        method::LEASE_RELEASE => {
            let asked: LeaseRelease = read_params(params)?;
            Ok(Call::Release { lease: LeaseId(asked.lease), outcome: outcome(asked.outcome.as_deref())? })
        }
        method::SESSION_RENEW => {
            let asked: SessionRenew = read_params(params)?;
            Ok(Call::Renew { renewal: asked.renewal })
        }
        method::LEASE_EXTEND => {
            let asked: LeaseExtend = read_params(params)?;
            Ok(Call::Extend { lease: LeaseId(asked.lease), until: moment("until", asked.until)? })
        }
        method::LEASE_CANCEL => {
            let asked: LeaseCancel = read_params(params)?;
            Ok(Call::Cancel { request: request_number(asked.request_id)? })
        }
        method::LEASE_LIST => read_params(params).map(|Empty {}| Call::List),
        method::SESSION_OPEN => open(read_params(params)?, peer),
        method::SESSION_RESUME => resume(read_params(params)?),
        method::SESSION_CLOSE => close(read_params(params)?),
        method::PROVIDER_PROVIDE => provide(read_params(params)?, peer),
        _ => Err(RpcError::new(
            code::UNKNOWN_METHOD,
            format!(
                "there is no method `{}`: expected one of {}",
                cut(name),
                [
                    method::SESSION_OPEN,
                    method::SESSION_RESUME,
                    method::SESSION_RENEW,
                    method::SESSION_CLOSE,
                    method::LEASE_ACQUIRE,
                    method::LEASE_CANCEL,
                    method::LEASE_RELEASE,
                    method::LEASE_EXTEND,
                    method::LEASE_LIST,
                    method::PROVIDER_PROVIDE,
                ]
                .join(", ")
            ),
        )),
    }
}

fn open(asked: SessionOpen, peer: IpAddr) -> Result<Call, RpcError> {
    let ttl = match asked.ttl_ms {
        Some(ttl_ms) => TtlAsk::Exactly(self::ttl_ms(ttl_ms)?),
        None => TtlAsk::Pools(ttl_pools(&asked)?),
    };
    let secret: Arc<str> = crate::clock::random_secret().into();
    Ok(Call::Open {
        instance: text_id("instance", &asked.instance)?,
        owner: owner(asked.owner.as_deref(), peer)?,
        ttl,
        hash: secret_hash(&secret),
        secret,
    })
}

fn ttl_pools(asked: &SessionOpen) -> Result<Vec<Key>, RpcError> {
    if asked.pools.len() > TTL_POOLS_MAX || asked.needs.len() > NEEDS_PER_CLAIM_MAX {
        return Err(invalid(format!(
            "a session may name {TTL_POOLS_MAX} pools or {NEEDS_PER_CLAIM_MAX} needs: give `ttl_ms` instead"
        )));
    }
    let named =
        asked.pools.iter().map(|pool| Key::parse(pool, "pool name").map_err(|error| invalid(error.to_string())));
    let needed = asked.needs.iter().map(|text| need(text).map(|need| need.pool));
    named.chain(needed).collect()
}

fn resume(asked: SessionResume) -> Result<Call, RpcError> {
    Ok(Call::Resume {
        session: SessionId(asked.session),
        hash: secret_hash(&asked.secret),
        instance: text_id("instance", &asked.instance)?,
        renewal: asked.renewal,
    })
}

fn close(asked: SessionClose) -> Result<Call, RpcError> {
    match (asked.session, asked.secret) {
        (None, None) => Ok(Call::Close { other: None }),
        (Some(session), Some(secret)) => Ok(Call::Close { other: Some((SessionId(session), secret_hash(&secret))) }),
        _ => Err(invalid("`session` and `secret` belong together: give both to close another session, or neither")),
    }
}

fn acquire(asked: &ClaimRequest) -> Result<Call, RpcError> {
    let request = match asked.request_id {
        Some(Id::Number(number)) => request_number(number)?,
        Some(Id::Text(_)) => return Err(invalid("`request_id` must be a whole number on a WebSocket: count from 1")),
        None => return Err(invalid("`request_id` is missing: number the session's requests from 1, growing")),
    };
    Ok(Call::Acquire { request, spec: Arc::new(claim_spec(asked)?) })
}

fn provide(asked: ProviderProvide, peer: IpAddr) -> Result<Call, RpcError> {
    let name = ProviderName::parse(&asked.name).map_err(|error| invalid(error.to_string()))?;
    if !KEY_BYTES.contains(&asked.key.len()) {
        return Err(invalid(format!(
            "`key` has {} bytes: expected {} to {} random ones, the same after a restart",
            asked.key.len(),
            KEY_BYTES.start(),
            KEY_BYTES.end()
        )));
    }
    let host = asked.host.as_deref().map(cut).filter(|host| !host.is_empty());
    let address = host.map_or_else(|| peer.to_string(), |host| format!("{host} ({peer})")).into();
    let resources: Result<_, RpcError> = asked.resources.into_iter().map(provided).collect();
    Ok(Call::Provide {
        provider: Provider { name, key: secret_hash(&asked.key), address },
        declared: Arc::new(Declared { pools: Vec::new(), resources: resources? }),
        confirmed: asked.confirmed,
    })
}

fn provided(asked: ProvidedResource) -> Result<DeclaredResource, RpcError> {
    let spec = ResourceSpec {
        name: resource_name(&asked.name)?,
        pool: Key::parse(&asked.pool, "pool name").map_err(|error| invalid(error.to_string()))?,
        labels: values("label", asked.labels)?,
        properties: values("property", asked.properties)?,
        secrets: BTreeMap::new(),
        slots: asked.slots.unwrap_or(1),
    };
    check_spec(&spec).map_err(|refusal| refusal_error(&refusal))?;
    Ok(DeclaredResource { spec, was: asked.was.as_deref().map(resource_name).transpose()? })
}

/// Labels or properties (`what` says which), as the wire has them.
///
/// # Errors
/// `invalid_params`, with the one that is wrong.
pub fn values(what: &'static str, from: BTreeMap<String, Wire>) -> Result<BTreeMap<Key, Value>, RpcError> {
    let one = |(key, value): (String, Wire)| {
        let key = Key::parse(&key, what).map_err(|error| invalid(error.to_string()))?;
        let value = match value {
            Wire::Bool(truth) => Value::Bool(truth),
            Wire::String(text) => Value::Text(text.into()),
            Wire::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => Value::Int(whole),
                (None, Some(real)) if real.is_finite() => Value::Float(real),
                _ => return Err(invalid(format!("the {what} `{key}` is too large a number"))),
            },
            Wire::Null | Wire::Array(_) | Wire::Object(_) => {
                return Err(invalid(format!("the {what} `{key}` must be a text, a number or a bool")));
            }
        };
        Ok((key, value))
    };
    from.into_iter().map(one).collect()
}

fn request_number(number: u64) -> Result<u64, RpcError> {
    if (1..=FENCE_MAX).contains(&number) {
        return Ok(number);
    }
    Err(invalid(format!("`request_id` is {number}: expected a whole number from 1 to {FENCE_MAX}")))
}

/// Turns a request into a claim's specification: needs parsed and checked together, everything
/// within its bounds.
///
/// # Errors
/// `invalid_need`, `too_many_needs`, `too_many_picks`, `alias_collision`, `invalid_params`.
pub fn claim_spec(asked: &ClaimRequest) -> Result<ClaimSpec, RpcError> {
    if asked.needs.len() > NEEDS_PER_CLAIM_MAX {
        return Err(RpcError::new(
            "too_many_needs",
            format!(
                "a claim may have {NEEDS_PER_CLAIM_MAX} needs, this one has {}: ask for several resources of one pool \
                 with a count (`2:phone`), or split the claim",
                asked.needs.len()
            ),
        ));
    }
    let needs: Vec<Need> = asked.needs.iter().map(|text| need(text)).collect::<Result<_, _>>()?;
    let same = label("same", asked.same.as_deref())?;
    let distinct = label("distinct", asked.distinct.as_deref())?;
    check_needs(&needs, same.as_ref(), distinct.as_ref()).map_err(|refusal| refusal_error(&refusal))?;
    let priority = asked.priority.unwrap_or(0);
    if !(-PRIORITY_MAX..=PRIORITY_MAX).contains(&priority) {
        return Err(invalid(format!("`priority` is {priority}: expected -{PRIORITY_MAX} to {PRIORITY_MAX}")));
    }
    Ok(ClaimSpec {
        needs,
        same,
        distinct,
        priority,
        wait_ms: asked.wait_ms.map(|ms| span("wait_ms", ms, 0)).transpose()?,
        hold_ms: asked.hold_ms.map(|ms| span("hold_ms", ms, 1)).transpose()?,
        note: asked.note.as_deref().map(note).transpose()?,
        tags: tags(asked)?,
        fail_fast: asked.fail_fast,
        wait_for_inventory: asked.wait_for_inventory,
        outer: asked.outer.map(LeaseId),
        retry: asked.retry.as_ref().map(retry).transpose()?,
    })
}

/// Parses one NEED.
///
/// # Errors
/// `invalid_need`, with what was expected and where.
pub fn need(text: &str) -> Result<Need, RpcError> {
    Need::parse(text).map_err(|error| refusal_error(&Refusal::from(error)))
}

fn label(field: &str, text: Option<&str>) -> Result<Option<Key>, RpcError> {
    text.map(|text| Key::parse(text, "label").map_err(|error| invalid(format!("`{field}`: {error}")))).transpose()
}

fn span(field: &str, ms: u64, least: u64) -> Result<u64, RpcError> {
    if (least..=SPAN_MS_MAX).contains(&ms) {
        return Ok(ms);
    }
    Err(invalid(format!("`{field}` is {ms}: expected {least} to {SPAN_MS_MAX} milliseconds (a year)")))
}

fn retry(asked: &RetryRequest) -> Result<Retry, RpcError> {
    if asked.work.is_empty() || asked.work.len() > RETRY_WORK_BYTES_MAX {
        return Err(invalid(format!(
            "`retry.work` has {} bytes: expected 1 to {RETRY_WORK_BYTES_MAX}",
            asked.work.len()
        )));
    }
    Ok(Retry { work: asked.work.as_str().into(), attempt: asked.attempt.min(FENCE_MAX) })
}

fn note(text: &str) -> Result<Arc<str>, RpcError> {
    if text.len() <= NOTE_BYTES_MAX {
        return Ok(text.into());
    }
    Err(invalid(format!("`note` has {} bytes: expected at most {NOTE_BYTES_MAX}", text.len())))
}

fn tags(asked: &ClaimRequest) -> Result<BTreeMap<Arc<str>, Arc<str>>, RpcError> {
    if asked.tags.len() > TAGS_MAX {
        return Err(invalid(format!("`tags` has {} entries: expected at most {TAGS_MAX}", asked.tags.len())));
    }
    let too_long = |(key, value): &(&String, &String)| key.len() > TAG_BYTES_MAX || value.len() > TAG_BYTES_MAX;
    if let Some((key, _)) = asked.tags.iter().find(too_long) {
        return Err(invalid(format!(
            "`tags`: `{}` is too long: expected at most {TAG_BYTES_MAX} bytes each",
            cut(key)
        )));
    }
    Ok(asked.tags.iter().map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect())
}

/// A ttl in its range.
///
/// # Errors
/// `invalid_params`.
pub fn ttl_ms(ms: u64) -> Result<u64, RpcError> {
    if (TTL_MS_MIN..=TTL_MS_MAX).contains(&ms) {
        return Ok(ms);
    }
    Err(invalid(format!("`ttl_ms` is {ms}: expected {TTL_MS_MIN} to {TTL_MS_MAX} (2 s to 10 min)")))
}

/// A lab moment in its range.
///
/// # Errors
/// `invalid_params`.
pub fn moment(field: &str, ms: u64) -> Result<LabTime, RpcError> {
    if ms <= FENCE_MAX {
        return Ok(LabTime(ms));
    }
    Err(invalid(format!("`{field}` is {ms}: expected lab time in milliseconds, as in `now`")))
}

/// Whom something acts for: the name given, else `anonymous@` and where it came from. Unverified
/// either way, as there are no tokens.
///
/// # Errors
/// `invalid_params`.
pub fn owner(name: Option<&str>, peer: IpAddr) -> Result<Owner, RpcError> {
    let Some(name) = name else { return Ok(Owner { name: format!("anonymous@{peer}").into(), verified: false }) };
    if name.is_empty() || name.len() > OWNER_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(invalid(format!(
            "`owner` is `{}`: expected 1 to {OWNER_BYTES_MAX} bytes without control characters, such as user@host",
            cut(name)
        )));
    }
    Ok(Owner { name: name.into(), verified: false })
}

/// An outcome.
///
/// # Errors
/// `invalid_params`.
pub fn outcome(word: Option<&str>) -> Result<Option<Outcome>, RpcError> {
    match word {
        None => Ok(None),
        Some("passed") => Ok(Some(Outcome::Passed)),
        Some("failed") => Ok(Some(Outcome::Failed)),
        Some("infra") => Ok(Some(Outcome::Infra)),
        Some(word) => Err(invalid(format!("`outcome` is `{}`: expected passed, failed or infra", cut(word)))),
    }
}

/// A client's random text or name for a request.
///
/// # Errors
/// `invalid_params`.
pub fn text_id(field: &str, text: &str) -> Result<Arc<str>, RpcError> {
    if (1..=TEXT_ID_BYTES_MAX).contains(&text.len()) {
        return Ok(text.into());
    }
    Err(invalid(format!("`{field}` has {} bytes: expected a text of 1 to {TEXT_ID_BYTES_MAX}", text.len())))
}

/// The hash of the key of a lease without a socket.
///
/// # Errors
/// `invalid_params` where it is too short to be a secret.
pub fn key_hash(key: &str) -> Result<SecretHash, RpcError> {
    if KEY_BYTES.contains(&key.len()) {
        return Ok(secret_hash(key));
    }
    Err(invalid(format!(
        "the header `{}` has {} bytes: expected 256 random bits, as 64 hex digits or in base64",
        crate::protocol::LEASE_KEY_HEADER,
        key.len()
    )))
}

/// A resource's name.
///
/// # Errors
/// `invalid_params`.
pub fn resource_name(text: &str) -> Result<ResourceName, RpcError> {
    ResourceName::parse(text).map_err(|error| invalid(error.to_string()))
}

/// A refusal of the form of a request.
pub fn invalid(message: impl Into<String>) -> RpcError {
    RpcError::new(code::INVALID_PARAMS, message)
}

/// What of a hostile text an error shows: its beginning, and nothing that could steer a terminal.
#[must_use]
pub fn cut(text: &str) -> String {
    text.chars().take(80).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
