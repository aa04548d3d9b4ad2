//! The container engine: where it is, and what it is.
//!
//! What it is is asked here and not through the library: Podman says that it is rootless where only Podman
//! does, and a container under the wrong user cannot read its own workspace.

use std::path::Path;
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, Docker};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// How long an engine may take to answer, seconds.
const ANSWER_S: u64 = 120;
/// Bytes of what it says of itself.
const INFO_BYTES_MAX: usize = 4 * 1024 * 1024;

/// An engine that answers.
pub struct Engine {
    /// To ask it.
    pub docker: Docker,
    place: String,
}

/// What an engine says of itself.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Info {
    /// Podman's.
    rootless: Option<bool>,
    /// Docker's.
    security_options: Option<Vec<String>>,
    cgroup_version: Option<String>,
}

impl Info {
    /// Whether root in its containers is the user that it runs as.
    #[must_use]
    pub fn is_rootless(&self) -> bool {
        let options = self.security_options.iter().flatten();
        self.rootless == Some(true) || options.into_iter().any(|option| option.contains("rootless"))
    }

    /// Whether bounds of memory, processors and processes are in force. Where they are not, engines take them and say
    /// nothing.
    #[must_use]
    pub fn has_limits(&self) -> bool {
        !self.is_rootless() || self.cgroup_version.as_deref() != Some("1")
    }
}

/// A connection to an engine.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

impl Engine {
    /// What it is.
    ///
    /// # Errors
    /// In words, where it does not say.
    pub async fn info(&self) -> Result<Info, String> {
        let asked = tokio::time::timeout(Duration::from_secs(ANSWER_S), self.asked());
        let told = asked.await.unwrap_or_else(|_| Err("no answer".into()));
        told.map_err(|error| format!("the engine at {} does not say what it is: {error}", self.place))
    }

    async fn asked(&self) -> Result<Info, Box<dyn std::error::Error + Send + Sync>> {
        let wire: Box<dyn Wire> = match self.place.strip_prefix("tcp://") {
            Some(address) => Box::new(TcpStream::connect(address.trim_end_matches('/')).await?),
            None => Box::new(UnixStream::connect(self.place.strip_prefix("unix://").unwrap_or(&self.place)).await?),
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(wire)).await?;
        // Its error is the request's too.
        tokio::spawn(connection);
        let request = Request::get("/info").header(HOST, "engine").body(Empty::<Bytes>::new())?;
        let answer = sender.send_request(request).await?;
        if !answer.status().is_success() {
            return Err(answer.status().to_string().into());
        }
        let body = Limited::new(answer.into_body(), INFO_BYTES_MAX).collect().await?.to_bytes();
        Ok(serde_json::from_slice(&body)?)
    }
}

/// Connects to the engine that was named, or to one that is found where they usually are.
///
/// # Errors
/// In words, where none answers.
pub async fn connect(socket: Option<&str>) -> Result<Engine, String> {
    let named = socket.map(str::to_owned).or_else(|| std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()));
    let runtime = std::env::var("XDG_RUNTIME_DIR").ok();
    let usual = ["/var/run/docker.sock".to_owned(), "/run/podman/podman.sock".to_owned()];
    let own =
        runtime.iter().flat_map(|folder| [format!("{folder}/podman/podman.sock"), format!("{folder}/docker.sock")]);
    let places: Vec<String> = match named {
        Some(named) => vec![named],
        None => own.chain(usual).filter(|path| Path::new(path).exists()).collect(),
    };
    let mut why = "there is no container engine: none of the usual sockets is there, and neither DOCKER_HOST nor \
                   --container-socket names another"
        .to_owned();
    for place in places {
        let docker = match place.strip_prefix("tcp://") {
            Some(_) => Docker::connect_with_http(&place, ANSWER_S, API_DEFAULT_VERSION),
            None => Docker::connect_with_unix(&place, ANSWER_S, API_DEFAULT_VERSION),
        };
        let docker = match docker {
            Ok(docker) => docker.negotiate_version().await,
            Err(error) => Err(error),
        };
        match docker {
            Ok(docker) => return Ok(Engine { docker, place }),
            Err(error) => why = format!("no container engine answers at {place}: {error}"),
        }
    }
    Err(why)
}

#[cfg(test)]
mod tests {
    use super::Info;

    #[test]
    fn docker_and_podman_say_it_differently() {
        let told = |text: &str| {
            let info: Info = serde_json::from_str(text).unwrap();
            (info.is_rootless(), info.has_limits())
        };
        let podman = r#"{"SecurityOptions":["name=seccomp,profile=default"],"CgroupVersion":"1","Rootless":true}"#;
        assert_eq!(told(podman), (true, false));
        assert_eq!(told(&podman.replace("\"1\"", "\"2\"")), (true, true));
        assert_eq!(told(&podman.replace("true", "false")), (false, true));
        let docker = r#"{"SecurityOptions":["name=seccomp,profile=default","name=rootless"],"CgroupVersion":"2"}"#;
        assert_eq!(told(docker), (true, true));
        assert_eq!(told(r#"{"SecurityOptions":null,"CgroupVersion":"1"}"#), (false, true));
        assert_eq!(told("{}"), (false, true));
    }
}
