//! Logins for registries: those that the agent's user has, as `docker login` and `podman login` keep them.
//!
//! An engine is not the one who knows them. Docker's has none at all: each pull brings its own. Podman's looks
//! into the files of the user that it runs as, who need not be the agent's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The registry of images that name none.
const HUB: &str = "docker.io";
/// What files of logins, and helpers, call it.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// What a helper says in the place of a user where its secret is a token.
const TOKEN_USER: &str = "<token>";
/// How long a helper may take.
const HELPER: Duration = Duration::from_secs(60);

/// A login, and where it is from.
pub struct Login {
    /// For the engine.
    pub credentials: DockerCredentials,
    /// The file.
    pub from: PathBuf,
}

/// A file of logins: Docker's `config.json`, or `auth.json` of Podman and others.
#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    auths: BTreeMap<String, Entry>,
    /// Programs by registry.
    #[serde(rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    /// The program for all others.
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    /// `user:password` in base64.
    auth: String,
    identitytoken: String,
}

/// What a helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// The registry of an image.
#[must_use]
pub fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => HUB,
    }
}

/// The login for an image's registry, of the first of these files that has one.
///
/// # Errors
/// In words, where one may be there and cannot be read.
pub async fn find(image: &str, files: &[PathBuf]) -> Result<Option<Login>, String> {
    for path in files {
        let wrong = |why: String| format!("the logins in {}: {why}", path.display());
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(wrong(error.to_string())),
        };
        let file: File = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        if let Some(credentials) = file.login(image).await.map_err(wrong)? {
            return Ok(Some(Login { credentials, from: path.clone() }));
        }
    }
    Ok(None)
}

/// The files that the programs of this user keep logins in.
#[must_use]
pub fn files() -> Vec<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(file) = variable("REGISTRY_AUTH_FILE") {
        return vec![file];
    }
    let docker = variable("DOCKER_CONFIG").or_else(|| Some(variable("HOME")?.join(".docker")));
    let podman = match variable("XDG_RUNTIME_DIR") {
        Some(folder) => folder.join("containers"),
        None => Path::new("/run/containers").join(nix::unistd::getuid().to_string()),
    };
    // Where there is none, its folder may be closed to this user.
    let podman = Some(podman.join("auth.json")).filter(|file| file.exists());
    docker.map(|folder| folder.join("config.json")).into_iter().chain(podman).collect()
}

/// A registry, or a part of one, from what a file calls it.
fn plain(key: &str) -> &str {
    let key = key.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let key = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key);
    if key == "index.docker.io" { HUB } else { key }
}

/// What an image's login may be under, the closest first: `registry/team/app`, `registry/team`, `registry`.
fn scopes(image: &str) -> Vec<String> {
    let registry = registry(image);
    let path = image.strip_prefix(registry).map_or(image, |rest| rest.trim_start_matches('/'));
    let path = path.split('@').next().unwrap_or_default();
    let path = match path.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => path,
        _ => path,
    };
    let mut scope = format!("{registry}/{path}");
    let mut scopes = Vec::new();
    loop {
        scopes.push(scope.clone());
        match scope.rfind('/') {
            Some(end) => scope.truncate(end),
            None => return scopes,
        }
    }
}

impl File {
    async fn login(&self, image: &str) -> Result<Option<DockerCredentials>, String> {
        let registry = registry(image);
        let server = if registry == HUB { HUB_KEY } else { registry };
        if let Some((key, helper)) = self.helpers.iter().find(|(key, _)| plain(key) == registry) {
            return asked(helper, key).await;
        }
        for scope in scopes(image) {
            let entry = self.auths.iter().find(|(key, entry)| plain(key) == scope && !entry.is_empty());
            if let Some((key, entry)) = entry {
                let credentials = entry.credentials().ok_or_else(|| format!("that for {key} is not one"))?;
                return Ok(Some(DockerCredentials { serveraddress: Some(server.to_owned()), ..credentials }));
            }
        }
        match &self.store {
            Some(helper) if !helper.is_empty() => asked(helper, server).await,
            _ => Ok(None),
        }
    }
}

impl Entry {
    /// Where a helper keeps logins the file has their registries alone.
    const fn is_empty(&self) -> bool {
        self.auth.is_empty() && self.identitytoken.is_empty()
    }

    fn credentials(&self) -> Option<DockerCredentials> {
        if !self.identitytoken.is_empty() {
            let identitytoken = Some(self.identitytoken.clone());
            return Some(DockerCredentials { identitytoken, ..DockerCredentials::default() });
        }
        let text = String::from_utf8(STANDARD.decode(&self.auth).ok()?).ok()?;
        let (user, password) = text.split_once(':')?;
        Some(DockerCredentials {
            username: Some(user.to_owned()),
            password: Some(password.trim_end_matches('\0').to_owned()),
            ..DockerCredentials::default()
        })
    }
}

/// What `docker-credential-HELPER` has for a server.
async fn asked(helper: &str, server: &str) -> Result<Option<DockerCredentials>, String> {
    let program = format!("docker-credential-{helper}");
    asked_of(&mut Command::new(&program), &program, server).await
}

async fn asked_of(command: &mut Command, program: &str, server: &str) -> Result<Option<DockerCredentials>, String> {
    let asking = async {
        command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(server.as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    let wrong = |why: &dyn std::fmt::Display| format!("{program}: {why}");
    let done = tokio::time::timeout(HELPER, asking).await.map_err(|_| wrong(&"no answer"))?;
    let done = done.map_err(|error| wrong(&error))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stdout);
        if said.contains("credentials not found") {
            return Ok(None);
        }
        return Err(wrong(&format!("{}: {}", done.status, said.trim())));
    }
    // What is wrong with the answer is not said: it has the secret.
    let answer: Answer = serde_json::from_slice(&done.stdout).map_err(|_| wrong(&"what it answers is no login"))?;
    let mut credentials = DockerCredentials { serveraddress: Some(server.to_owned()), ..DockerCredentials::default() };
    if answer.username == TOKEN_USER {
        credentials.identitytoken = Some(answer.secret);
    } else {
        (credentials.username, credentials.password) = (Some(answer.username), Some(answer.secret));
    }
    Ok(Some(credentials))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use bollard::auth::DockerCredentials;
    use serde_json::json;
    use tokio::process::Command;

    use super::{find, registry, scopes};

    #[test]
    fn an_image_s_registry_is_before_the_first_slash_or_the_hub() {
        for (image, of) in [
            ("debian", "docker.io"),
            ("debian:bookworm", "docker.io"),
            ("acme/app:1", "docker.io"),
            ("docker.io/acme/app", "docker.io"),
            ("localhost/busy", "localhost"),
            ("127.0.0.1:5000/team/app@sha256:00", "127.0.0.1:5000"),
            ("ghcr.io/acme/app", "ghcr.io"),
        ] {
            assert_eq!(registry(image), of, "{image}");
        }
        let all = ["lab.example:5000/team/app", "lab.example:5000/team", "lab.example:5000"];
        assert_eq!(scopes("lab.example:5000/team/app:1@sha256:00"), all);
        assert_eq!(scopes("lab.example:5000/team/app"), all);
        assert_eq!(scopes("debian:bookworm"), ["docker.io/debian", "docker.io"]);
    }

    /// `user:password`, or the token, that is found in a file with this content.
    async fn found(content: &serde_json::Value, image: &str) -> Result<Option<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        std::fs::write(&file, content.to_string()).unwrap();
        let found = find(image, &[folder.path().join("none.json"), file.clone()]).await?;
        Ok(found.map(|login| {
            assert_eq!(login.from, file);
            match login.credentials {
                DockerCredentials { identitytoken: Some(token), .. } => token,
                DockerCredentials { username, password, .. } => format!("{}:{}", username.unwrap(), password.unwrap()),
            }
        }))
    }

    #[tokio::test]
    async fn the_closest_login_counts() {
        let file = json!({ "auths": {
            "https://index.docker.io/v1/": { "auth": "aHVibzpzYW0=" },
            "lab.example:5000": { "auth": "YW5uOmE6Yg==" },
            "lab.example:5000/team": { "auth": "Ym9iOmI=" },
            "http://old.example/v2/": { "identitytoken": "token" },
            "empty.example": {},
            "bad.example": { "auth": "!" },
        }});
        for (image, login) in [
            ("debian:bookworm", Some("hubo:sam")),
            ("docker.io/acme/app", Some("hubo:sam")),
            ("lab.example:5000/app:1", Some("ann:a:b")),
            ("lab.example:5000/team/app@sha256:00", Some("bob:b")),
            ("lab.example:5000/teams/app", Some("ann:a:b")),
            ("lab.example/app", None),
            ("old.example/app", Some("token")),
            ("empty.example/app", None),
        ] {
            assert_eq!(found(&file, image).await.unwrap().as_deref(), login, "{image}");
        }
        let why = found(&file, "bad.example/app").await.unwrap_err();
        assert!(why.contains("config.json: that for bad.example is not one"), "{why}");
        assert!(find("debian", &[PathBuf::from("/dev/null")]).await.is_err(), "a file that is none");
    }

    #[tokio::test]
    async fn a_helper_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let script = "#!/bin/sh\nread -r server || true\ncase $server in\n\
                      https://index.docker.io/v1/) echo '{\"Username\":\"<token>\",\"Secret\":\"of the hub\"}' ;;\n\
                      lab.example) echo '{\"Username\":\"ann\",\"Secret\":\"hush\"}' ;;\n\
                      none.example) echo 'credentials not found in native keychain'; exit 1 ;;\n\
                      odd.example) echo '{\"Secret\":\"hush\"}' ;;\n\
                      *) echo 'it is locked'; exit 1 ;;\nesac\n";
        let helper = folder.path().join("helper");
        std::fs::write(&helper, script).unwrap();
        let asked = async |server: &str| super::asked_of(Command::new("sh").arg(&helper), "helper", server).await;
        let of_hub = asked("https://index.docker.io/v1/").await.unwrap().unwrap();
        assert_eq!((of_hub.identitytoken.as_deref(), of_hub.username), (Some("of the hub"), None));
        let ann = asked("lab.example").await.unwrap().unwrap();
        assert_eq!((ann.username.as_deref(), ann.password.as_deref()), (Some("ann"), Some("hush")));
        assert_eq!(asked("none.example").await, Ok(None));
        let odd = asked("odd.example").await.unwrap_err();
        assert!(odd.contains("no login") && !odd.contains("hush"), "{odd}");
        let locked = asked("locked.example").await.unwrap_err();
        assert!(locked.contains("it is locked"), "{locked}");
        let file = json!({ "credHelpers": { "lab.example": "of-the-test-and-not-there" }, "auths": {
            "lab.example": { "auth": "YW5uOmE6Yg==" },
        }});
        let why = found(&file, "lab.example/app").await.unwrap_err();
        assert!(why.contains("docker-credential-of-the-test-and-not-there: "), "{why}");
        let store = json!({ "credsStore": "of-the-test-and-not-there", "auths": { "lab.example": {} } });
        assert!(found(&store, "lab.example/app").await.is_err());
        assert_eq!(found(&json!({ "credsStore": "" }), "lab.example/app").await, Ok(None));
    }
}
