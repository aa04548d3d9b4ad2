//! The machine-readable descriptions under `schema/`, made from the types.
//!
//! `tests/schema.rs` compares them with what is committed, so that neither can lag behind.
//! Names and summaries of methods and routes stand here once, for both descriptions of each.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use super::builds::{
    BuildApprove, BuildCancel, BuildInfo, BuildPage, BuildReport, BuildStart, BuildTake, BuildsStarted, DeliveryInfo,
    DeliveryPage, DeliveryShown, Job, LogLines, LogStored, SearchPage, WorkInfo,
};
use super::call::{
    ClaimRequest, Done, Empty, LeaseCancel, LeaseEndingNotice, LeaseExtend, LeaseExtended, LeaseReach, LeaseRelease,
    LeaseReleased, ProviderProvide, ProviderSuperseded, RenewNow, SessionClose, SessionOpen, SessionOpened,
    SessionRenew, SessionRenewed, SessionResume, SessionState, StoreNotice, method, notice,
};
use super::error::{Problem, RpcError};
use super::http::{
    ApplyRequest, ExtendRequest, LeaseRequest, MarkRequest, MatchRequest, ReleaseRequest, ResourceRequest,
    RevokeRequest,
};
use super::info::{
    ApplyInfo, ClaimInfo, EventInfo, LeaseInfo, MatchInfo, Page, ResourceInfo, SessionInfo, StatusInfo, WaitingInfo,
    WhyInfo,
};

type Make = fn(&mut SchemaGenerator) -> Schema;

const fn of<T: JsonSchema>() -> Make {
    SchemaGenerator::subschema_for::<T>
}

struct Method {
    name: &'static str,
    summary: &'static str,
    params: Make,
    /// None in a notification.
    result: Option<Make>,
}

const fn call(name: &'static str, summary: &'static str, params: Make, result: Make) -> Method {
    Method { name, summary, params, result: Some(result) }
}

const fn told(name: &'static str, summary: &'static str, params: Make) -> Method {
    Method { name, summary, params, result: None }
}

/// What a client calls.
const CALLS: &[Method] = &[
    call(method::SESSION_OPEN, "Open a session on this socket", of::<SessionOpen>(), of::<SessionOpened>()),
    call(method::SESSION_RESUME, "Resume a session on this socket", of::<SessionResume>(), of::<SessionOpened>()),
    call(method::SESSION_RENEW, "Renew the promise", of::<SessionRenew>(), of::<SessionRenewed>()),
    call(method::SESSION_CLOSE, "Close the session: everything of it is free", of::<SessionClose>(), of::<Done>()),
    call(method::LEASE_ACQUIRE, "Claim resources, all together or not at all", of::<ClaimRequest>(), of::<ClaimInfo>()),
    call(method::LEASE_CANCEL, "Cancel a request that waits", of::<LeaseCancel>(), of::<ClaimInfo>()),
    call(method::LEASE_RELEASE, "Release a lease", of::<LeaseRelease>(), of::<LeaseReleased>()),
    call(method::LEASE_EXTEND, "Move the end of a hold", of::<LeaseExtend>(), of::<LeaseExtended>()),
    call(method::LEASE_LIST, "Everything of the session that is open", of::<Empty>(), of::<SessionState>()),
    call(method::PROVIDER_PROVIDE, "Bring resources along", of::<ProviderProvide>(), of::<ApplyInfo>()),
];

/// What a broker tells unasked.
const NOTICES: &[Method] = &[
    told(notice::LEASE_GRANTED, "A waiting claim is granted", of::<ClaimInfo>()),
    told(notice::LEASE_ENDING, "Stop using the lease's resources and release it", of::<LeaseEndingNotice>()),
    told(notice::LEASE_ENDED, "A lease is over, by someone else's doing", of::<LeaseReleased>()),
    told(notice::LEASE_EXTENDED, "A hold has another end, by someone else's doing", of::<LeaseExtended>()),
    told(notice::LEASE_OFFLINE, "Resources of a lease are offline: their provider is gone", of::<LeaseReach>()),
    told(notice::LEASE_ONLINE, "Resources of a lease are online again", of::<LeaseReach>()),
    told(notice::PROVIDER_SUPERSEDED, "Another session provides under the name", of::<ProviderSuperseded>()),
    told(notice::CLAIM_WAITING, "A claim's place changed, or what keeps it waiting", of::<ClaimInfo>()),
    told(notice::CLAIM_ENDED, "A claim ended without a lease", of::<ClaimInfo>()),
    told(notice::SESSION_RENEW_NOW, "Renew at once: the broker is about to stop", of::<RenewNow>()),
    told(notice::STORE_STATE, "The store fails, or works again", of::<StoreNotice>()),
];

/// What a route answers.
enum Answers {
    /// This, which carries the lab's now itself.
    Json(Make),
    /// This, with the lab's now beside it.
    Timed(Make),
    /// Text of this kind.
    Text(&'static str),
}

struct Route {
    verb: &'static str,
    path: &'static str,
    summary: &'static str,
    query: &'static [&'static str],
    body: Option<Make>,
    /// A body that is no JSON is of this kind.
    plain: Option<&'static str>,
    answers: Answers,
}

const fn route(verb: &'static str, path: &'static str, summary: &'static str, answers: Answers) -> Route {
    Route { verb, path, summary, query: &[], body: None, plain: None, answers }
}

impl Route {
    const fn query(self, query: &'static [&'static str]) -> Self {
        Self { query, ..self }
    }

    const fn body(self, body: Make) -> Self {
        Self { body: Some(body), ..self }
    }

    const fn plain(self, kind: &'static str) -> Self {
        Self { plain: Some(kind), ..self }
    }
}

const PAGING: &[&str] = &["cursor", "limit"];
const EVENTS: &[&str] = &["after", "lease", "claim", "session", "resource"];

fn routes() -> Vec<Route> {
    of_leases().into_iter().chain(of_builds()).collect()
}

fn of_builds() -> Vec<Route> {
    use Answers::{Json, Text};
    vec![
        route("get", "/v1/builds", "Builds, newest first", Json(of::<BuildPage>())).query(&[
            "repository",
            "pipeline",
            "state",
            "before",
            "limit",
        ]),
        route("post", "/v1/builds", "Start builds", Json(of::<BuildsStarted>())).body(of::<BuildStart>()),
        route("get", "/v1/builds/{id}", "One build, with its history", Json(of::<BuildInfo>())),
        route("post", "/v1/builds/{id}/cancel", "End it", Json(of::<BuildInfo>())).body(of::<BuildCancel>()),
        route("post", "/v1/builds/{id}/retry", "Start it once more", Json(of::<BuildsStarted>())),
        route("post", "/v1/builds/{id}/approve", "Allow a fork's commit", Json(of::<BuildInfo>()))
            .body(of::<BuildApprove>()),
        route("post", "/v1/builds/{id}/take", "Take it over, as its agent", Json(of::<Job>())).body(of::<BuildTake>()),
        route("post", "/v1/builds/{id}/report", "Say how it goes, as its agent", Json(of::<BuildInfo>()))
            .body(of::<BuildReport>()),
        route("get", "/v1/agents/{name}/work", "Builds that wait for an agent", Json(of::<WorkInfo>()))
            .query(&["wait_ms"]),
        route("get", "/v1/deliveries", "Deliveries of forges, newest first", Json(of::<DeliveryPage>()))
            .query(&["before", "limit"]),
        route("get", "/v1/deliveries/{id}", "One delivery, with its payload", Json(of::<DeliveryShown>())),
        route("post", "/v1/deliveries/{id}/redeliver", "Work on it again", Json(of::<DeliveryInfo>())),
        route("patch", "/v1/builds/{id}/log", "Append to a build's log", Json(of::<LogStored>()))
            .query(&["attempt", "offset"])
            .plain("application/octet-stream"),
        route("get", "/v1/builds/{id}/lines", "Lines of a build's log", Json(of::<LogLines>()))
            .query(&["attempt", "from", "count"]),
        route("get", "/v1/builds/search", "Lines of all builds' logs", Json(of::<SearchPage>())).query(&[
            "q",
            "repository",
            "pipeline",
            "state",
            "since",
            "limit",
            "cursor",
        ]),
        route("get", "/builds/{id}/log", "A build's log as text, also while it grows", Text("text/plain"))
            .query(&["attempt", "offset", "follow"]),
    ]
}

fn of_leases() -> Vec<Route> {
    use Answers::{Json, Text, Timed};
    let mark = |act: &'static str, summary| route("post", act, summary, Json(of::<Done>())).body(of::<MarkRequest>());
    vec![
        route("get", "/v1/status", "The broker at a glance", Json(of::<StatusInfo>())),
        route("get", "/v1/resources", "Resources by name", Json(of::<Page<ResourceInfo>>()))
            .query(&["pool", "need", "cursor", "limit"]),
        route("get", "/v1/resources/{name}", "One resource", Timed(of::<ResourceInfo>())),
        route("put", "/v1/resources/{name}", "Declare one resource", Json(of::<ApplyInfo>()))
            .body(of::<ResourceRequest>()),
        route("delete", "/v1/resources/{name}", "Remove one resource", Json(of::<ApplyInfo>())),
        route("get", "/v1/resources/{name}/history", "The leases that had it", Json(of::<Page<LeaseInfo>>()))
            .query(PAGING),
        mark("/v1/resources/{name}/drain", "Take it out"),
        mark("/v1/resources/{name}/undrain", "Put it back"),
        mark("/v1/resources/{name}/quarantine", "It is unfit"),
        mark("/v1/resources/{name}/restore", "It is fit again"),
        route("post", "/v1/inventory/apply", "Apply an inventory file", Json(of::<ApplyInfo>()))
            .body(of::<ApplyRequest>()),
        route("post", "/v1/match", "Which resources match a need", Json(of::<Page<MatchInfo>>()))
            .body(of::<MatchRequest>()),
        route("get", "/v1/leases", "Leases that are held, or all", Json(of::<Page<LeaseInfo>>()))
            .query(&["all", "cursor", "limit"]),
        route("post", "/v1/leases", "Claim resources without a socket", Timed(of::<LeaseInfo>()))
            .query(&["wait_ms"])
            .body(of::<LeaseRequest>()),
        route("get", "/v1/leases/{id}", "One lease, held or ended", Timed(of::<LeaseInfo>())),
        route("post", "/v1/leases/{id}/renew", "Renew it under its key", Json(of::<SessionRenewed>())),
        route("post", "/v1/leases/{id}/extend", "Move the end of its hold", Json(of::<LeaseExtended>()))
            .body(of::<ExtendRequest>()),
        route("post", "/v1/leases/{id}/release", "Release it", Json(of::<LeaseReleased>()))
            .body(of::<ReleaseRequest>()),
        route("post", "/v1/leases/{id}/revoke", "Take it back", Json(of::<Done>())).body(of::<RevokeRequest>()),
        route("get", "/v1/queue", "The queue, most senior first", Json(of::<Page<WaitingInfo>>())).query(PAGING),
        route("get", "/v1/claims/{id}", "How a claim stands", Json(of::<ClaimInfo>())).query(&["wait_ms"]),
        route("post", "/v1/claims/{id}/cancel", "Cancel a claim that waits", Json(of::<Done>())),
        route("get", "/v1/sessions", "Open sessions", Json(of::<Page<SessionInfo>>())).query(PAGING),
        route("post", "/v1/sessions/{id}/kick", "End a session", Json(of::<Done>())),
        route("get", "/v1/why/{kind}/{id}", "Why a claim, lease or resource is as it is", Timed(of::<WhyInfo>())),
        route("get", "/v1/journal", "What happened", Json(of::<Page<EventInfo>>()))
            .query(&["after", "lease", "claim", "session", "resource", "cursor", "limit"]),
        route("get", "/v1/events", "The journal as it grows", Text("text/event-stream")).query(EVENTS),
        route("get", "/healthz", "Whether the process answers", Text("text/plain")),
        route("get", "/readyz", "Whether anything can be granted", Text("text/plain")),
        route("get", "/metrics", "Counters", Text("application/openmetrics-text")),
    ]
}

/// Every file that is made from the types, by its name under `schema/`.
#[must_use]
pub fn documents() -> Vec<(&'static str, Value)> {
    vec![("protocol.v1.json", protocol()), ("openrpc.json", openrpc()), ("openapi.json", openapi())]
}

fn generator(definitions: &'static str) -> SchemaGenerator {
    SchemaSettings::draft2020_12().with(|settings| settings.definitions_path = definitions.into()).into_generator()
}

/// JSON Schemas of every message, those of the WebSocket by method.
fn protocol() -> Value {
    let mut generator = generator("/$defs");
    let mut calls = Map::new();
    for Method { name, summary, params, result } in CALLS {
        let (params, result) = (params(&mut generator), result.map(|result| result(&mut generator)));
        calls.insert((*name).to_owned(), json!({ "summary": summary, "params": params, "result": result }));
    }
    let mut notices = Map::new();
    for Method { name, summary, params, .. } in NOTICES {
        notices.insert((*name).to_owned(), json!({ "summary": summary, "params": params(&mut generator) }));
    }
    let error = generator.subschema_for::<RpcError>();
    for route in routes() {
        route.body.map(|body| body(&mut generator));
        if let Answers::Json(make) | Answers::Timed(make) = route.answers {
            make(&mut generator);
        }
    }
    generator.subschema_for::<Problem>();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:leasehold:protocol:v1",
        "title": "Messages of leasehold.v1",
        "x-calls": calls,
        "x-notifications": notices,
        "x-error": error,
        "$defs": generator.take_definitions(true),
    })
}

fn info(title: &str) -> Value {
    json!({
        "title": title,
        "version": "1",
        "description": concat!(
            "Every moment is lab time in milliseconds with an RFC 3339 twin whose name ends in `_time`; ",
            "every duration is milliseconds and its name ends in `_ms`.",
        ),
        "license": { "name": "MIT OR Apache-2.0" },
    })
}

fn openrpc() -> Value {
    let mut generator = generator("/components/schemas");
    let methods: Vec<Value> =
        CALLS.iter().chain(NOTICES).map(|method| openrpc_method(&mut generator, method)).collect();
    json!({
        "openrpc": "1.3.2",
        "info": info("leasehold.v1 over WebSocket"),
        "methods": methods,
        "components": { "schemas": generator.take_definitions(true) },
    })
}

fn openrpc_method(generator: &mut SchemaGenerator, method: &Method) -> Value {
    let reference = (method.params)(generator);
    let schema = resolve(generator, &reference);
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let params: Vec<Value> = schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, schema)| json!({ "name": name, "required": required.contains(&name.as_str()), "schema": schema }))
        .collect();
    let mut described = json!({
        "name": method.name,
        "summary": method.summary,
        "paramStructure": "by-name",
        "params": params,
    });
    match method.result {
        Some(result) => {
            described["result"] = json!({ "name": "result", "schema": result(generator) });
            described["errors"] = json!([{ "code": -32000, "message": "see data.code" }]);
        }
        None => described["x-direction"] = json!("broker to client, without an answer"),
    }
    described
}

/// The schema that a reference stands for.
fn resolve(generator: &SchemaGenerator, reference: &Schema) -> Value {
    let name = reference.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
    name.and_then(|name| generator.definitions().get(name)).cloned().unwrap_or_else(|| reference.clone().into())
}

fn openapi() -> Value {
    let mut generator = generator("/components/schemas");
    let problem = generator.subschema_for::<Problem>();
    let mut paths: Map<String, Value> = Map::new();
    for route in routes() {
        let described = openapi_route(&mut generator, &route, &problem);
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.verb] = described;
    }
    json!({
        "openapi": "3.1.0",
        "info": info("leasehold over HTTP"),
        "paths": paths,
        "components": { "schemas": generator.take_definitions(true) },
    })
}

fn openapi_route(generator: &mut SchemaGenerator, route: &Route, problem: &Schema) -> Value {
    let in_path = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = in_path
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    parameters
        .extend(route.query.iter().map(|name| json!({ "name": name, "in": "query", "schema": { "type": "string" } })));
    let headers = [super::http::OWNER_HEADER, super::LEASE_KEY_HEADER];
    parameters
        .extend(headers.iter().map(|name| json!({ "name": name, "in": "header", "schema": { "type": "string" } })));
    let content = match route.answers {
        Answers::Json(make) => json!({ "application/json": { "schema": make(generator) } }),
        Answers::Timed(make) => {
            let now = generator.subschema_for::<Done>();
            json!({ "application/json": { "schema": { "allOf": [make(generator), now] } } })
        }
        Answers::Text(kind) => json!({ kind: { "schema": { "type": "string" } } }),
    };
    let refused = json!({ "description": "Refused", "content": { "application/problem+json": { "schema": problem } } });
    let mut responses = json!({ "200": { "description": "Done", "content": content }, "default": refused });
    if (route.verb, route.path) == ("post", "/v1/leases") {
        let granted = responses["200"].take();
        let claim = generator.subschema_for::<ClaimInfo>();
        responses = json!({
            "201": granted,
            "202": {
                "description": "Waiting: ask again where Location says",
                "headers": { "Location": { "schema": { "type": "string" } } },
                "content": { "application/json": { "schema": claim } },
            },
            "default": refused,
        });
    }
    let mut described = json!({ "summary": route.summary, "parameters": parameters, "responses": responses });
    if let Some(body) = route.body {
        described["requestBody"] = json!({ "content": { "application/json": { "schema": body(generator) } } });
    }
    if let Some(kind) = route.plain {
        described["requestBody"] = json!({ "content": { kind: {} } });
    }
    described
}
