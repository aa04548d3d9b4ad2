//! What each forge asks of a request that sets a status, and how it says no, as their sources and documentation
//! have it.

use serde_json::{Value, json};

use super::{Kind, Request, Shown, State, TOKEN};

/// GitHub's bound for a commit and context.
const STATUSES_MAX: usize = 1_000;

/// The answer to a request; what it asks for is done.
pub(super) fn answer(kind: Kind, state: &mut State, request: &Request) -> (u16, Value) {
    let answer = match kind {
        Kind::Gitea => gitea(state, request),
        Kind::Github => github(state, request),
        Kind::Gitlab => gitlab(state, request),
    };
    answer.unwrap_or_else(|refusal| refusal)
}

type Answer = Result<(u16, Value), (u16, Value)>;

/// Repository, commit, and what is asked for.
struct Asked {
    repository: String,
    sha: String,
    context: String,
    shown: Shown,
}

fn message(code: u16, text: &str) -> (u16, Value) {
    (code, json!({ "message": text }))
}

fn text(body: &Value, field: &str) -> String {
    body.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn asked(request: &Request, repository: &str, sha: &str) -> Asked {
    Asked {
        repository: repository.to_owned(),
        sha: sha.to_owned(),
        context: text(&request.body, "context"),
        shown: Shown {
            state: text(&request.body, "state"),
            description: text(&request.body, "description"),
            target_url: text(&request.body, "target_url"),
        },
    }
}

impl State {
    fn knows_repository(&self, repository: &str) -> bool {
        self.commits.iter().any(|(known, _)| known == repository)
    }

    fn knows(&self, asked: &Asked) -> bool {
        self.commits.contains(&(asked.repository.clone(), asked.sha.clone()))
    }

    fn statuses_of(&mut self, asked: &Asked) -> &mut Vec<Shown> {
        let key = (asked.repository.clone(), asked.sha.clone(), asked.context.clone());
        self.statuses.entry(key).or_default()
    }
}

/// `/api/v3/repos/{owner}/{name}/statuses/{sha}`, and Gitea's likewise.
fn of_repos(request: &Request, api: &str) -> Option<Asked> {
    let rest = request.path.strip_prefix(api)?.strip_prefix("/repos/")?;
    let parts: Vec<&str> = rest.split('/').collect();
    match parts.as_slice() {
        [owner, name, "statuses", sha] if request.method == "POST" => {
            Some(asked(request, &format!("{owner}/{name}"), sha))
        }
        _ => None,
    }
}

fn github(state: &mut State, request: &Request) -> Answer {
    if !request.headers.contains_key("user-agent") {
        return Err((
            403,
            json!("Request forbidden by administrative rules. Please make sure your request has a User-Agent header"),
        ));
    }
    if request.headers.get("accept").map(String::as_str) != Some("application/vnd.github+json")
        || request.headers.get("x-github-api-version").is_none_or(|version| version != "2022-11-28")
    {
        return Err(message(400, "the stand-in is asked as the documentation recommends, or not at all"));
    }
    match request.headers.get("authorization").map(String::as_str) {
        None => return Err(message(401, "Requires authentication")),
        Some(given) if given == format!("Bearer {TOKEN}") => {}
        Some(_) => return Err(message(401, "Bad credentials")),
    }
    let asked = of_repos(request, "/api/v3").ok_or_else(|| message(404, "Not Found"))?;
    if !state.knows_repository(&asked.repository) {
        return Err(message(404, "Not Found"));
    }
    if !state.knows(&asked) {
        return Err(message(422, &format!("No commit found for SHA: {}", asked.sha)));
    }
    let invalid = |field: &str, said: &str| {
        let error = json!({ "resource": "Status", "code": "custom", "field": field, "message": said });
        Err((422, json!({ "message": "Validation Failed", "errors": [error] })))
    };
    if !["pending", "success", "error", "failure"].contains(&asked.shown.state.as_str()) {
        return invalid("state", "state is not included in the list");
    }
    if asked.shown.description.chars().count() > 140 {
        return invalid("description", "description is too long (maximum is 140 characters)");
    }
    if !asked.shown.target_url.starts_with("http") {
        return invalid("target_url", "target_url must use http(s) scheme");
    }
    let all = state.statuses_of(&asked);
    if all.len() >= STATUSES_MAX {
        return invalid("base", "This SHA and context has reached the maximum number of statuses.");
    }
    all.push(asked.shown.clone());
    Ok((201, json!({ "id": all.len(), "state": asked.shown.state, "context": asked.context })))
}

fn gitea(state: &mut State, request: &Request) -> Answer {
    match request.headers.get("authorization").map(String::as_str) {
        None => return Err(message(401, "token is required")),
        Some(given) if given == format!("token {TOKEN}") => {}
        Some(_) => return Err(message(401, "invalid username, password or token")),
    }
    let asked = of_repos(request, "/api/v1").ok_or_else(|| message(404, "not found"))?;
    if !state.knows(&asked) {
        return Err(message(404, "The target couldn't be found."));
    }
    if !["pending", "success", "error", "failure", "warning"].contains(&asked.shown.state.as_str()) {
        return Err(message(422, "[]: State: In"));
    }
    state.statuses_of(&asked).push(asked.shown.clone());
    Ok((201, json!({ "status": asked.shown.state, "context": asked.context })))
}

fn gitlab(state: &mut State, request: &Request) -> Answer {
    if request.headers.get("private-token").is_none_or(|given| given != TOKEN) {
        return Err(message(401, "401 Unauthorized"));
    }
    let rest = request.path.strip_prefix("/api/v4/projects/");
    let parts: Vec<&str> = rest.unwrap_or_default().split('/').collect();
    let [project, "statuses", sha] = parts.as_slice() else { return Err((404, json!({ "error": "404 Not Found" }))) };
    let asked = asked(request, &project.replace("%2F", "/"), sha);
    if !state.knows_repository(&asked.repository) {
        return Err(message(404, "404 Project Not Found"));
    }
    if !state.knows(&asked) {
        return Err(message(404, "404 Commit Not Found"));
    }
    let to = asked.shown.state.as_str();
    if !["pending", "running", "success", "failed", "canceled", "skipped"].contains(&to) {
        return Err((400, json!({ "error": "state does not have a valid value" })));
    }
    let all = state.statuses_of(&asked);
    let from = all.last().map(|shown| shown.state.clone()).filter(|state| state == "pending" || state == "running");
    // Of a status that is over a new one is made; one that is not is changed, as its states may follow.
    let cannot = match (from.as_deref(), to) {
        (Some(from), "pending") => Some(("enqueue", from)),
        (Some("running"), "running") => Some(("run", "running")),
        _ => None,
    };
    if let Some((event, from)) = cannot {
        let said = format!(
            "Cannot transition status via :{event} from :{from} (Reason(s): Status cannot transition via \"{event}\")"
        );
        return Err(message(400, &said));
    }
    all.push(asked.shown.clone());
    Ok((201, json!({ "id": all.len(), "status": to, "name": asked.context })))
}
