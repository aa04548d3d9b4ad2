//! Ending containers: found by their labels, killed and removed, by whoever comes last.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder};
use serde::{Deserialize, Serialize};

use super::engine::connect;
use super::{LABEL_AGENT, LABEL_BUILD, label_of};
use crate::cli::agent::handover::ContainerPolicy;
use crate::clock::boot_now;

/// How often removing is tried: an engine may be busy with the very container.
const REMOVE_TRIES: u32 = 5;
/// For how long a build holds its lease on for a container that cannot be removed; about, as a try takes time too.
const REMOVE_TIME_MS: u64 = 30_000;
/// How long one of its tries may take, where the engine does not answer.
const REMOVE_TRY: Duration = Duration::from_secs(10);
const REMOVE_PAUSE_MS: u64 = 500;

/// How to find the containers of one build, or of all of an agent's, and end them.
#[derive(Clone, Serialize, Deserialize)]
pub struct Killing {
    pub(super) socket: Option<String>,
    /// `name=value`.
    label: String,
}

impl Killing {
    /// The containers of a build.
    #[must_use]
    pub fn of_build(policy: &ContainerPolicy, agent: &str, build: u64, attempt: u32) -> Self {
        let label = format!("{LABEL_BUILD}={}", label_of(agent, build, attempt));
        Self { socket: policy.socket.clone(), label }
    }

    /// All of an agent's.
    #[must_use]
    pub fn of_agent(policy: &ContainerPolicy, agent: &str) -> Self {
        Self { socket: policy.socket.clone(), label: format!("{LABEL_AGENT}={agent}") }
    }

    /// Kills and removes them; answers how many there were.
    ///
    /// # Errors
    /// With what the engine says where one of them is left.
    pub async fn kill(&self) -> Result<usize, String> {
        let docker = connect(self.socket.as_deref()).await?.docker;
        let mut last = "it is there whatever is removed".to_owned();
        let mut gone = 0;
        let mut tries = 0..REMOVE_TRIES;
        loop {
            let filters = HashMap::from([("label", vec![self.label.as_str()])]);
            let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
            let found = docker.list_containers(Some(options)).await.map_err(|error| error.to_string())?;
            if found.is_empty() {
                return Ok(gone);
            }
            // Looked at once more after the last: it may have removed everything.
            if tries.next().is_none() {
                return Err(last);
            }
            for id in found.into_iter().filter_map(|container| container.id) {
                let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
                match docker.remove_container(&id, Some(options)).await {
                    Ok(()) => gone += 1,
                    Err(error) => last = error.to_string(),
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Tries to [`kill`](Self::kill) until that is done, at most for [`REMOVE_TIME_MS`]; `trouble` is told once where
    /// it does not work at first.
    ///
    /// # Errors
    /// With why it did not work last.
    pub async fn persist(&self, trouble: impl FnOnce(String)) -> Result<(), String> {
        let until = boot_now().plus(REMOVE_TIME_MS);
        let mut trouble = Some(trouble);
        loop {
            let tried = tokio::time::timeout(REMOVE_TRY, self.kill()).await;
            let Err(why) = tried.unwrap_or_else(|_| Err("the engine does not answer".to_owned())) else {
                return Ok(());
            };
            if let Some(trouble) = trouble.take() {
                trouble(why.clone());
            }
            if boot_now().plus(REMOVE_PAUSE_MS) >= until {
                return Err(why);
            }
            tokio::time::sleep(Duration::from_millis(REMOVE_PAUSE_MS)).await;
        }
    }
}

/// A line for the guard's shell that ends them: the guard is its parent, and is this binary.
#[must_use]
pub fn kill_line(told: &Path) -> String {
    let quoted = told.to_string_lossy().replace('\'', r"'\''");
    let binary = if cfg!(target_os = "linux") {
        r#""/proc/$PPID/exe""#.to_owned()
    } else {
        let own = std::env::current_exe().unwrap_or_else(|_| "leasehold".into());
        format!("'{}'", own.to_string_lossy().replace('\'', r"'\''"))
    };
    format!("exec {binary} __container-kill '{quoted}'")
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    use super::{Killing, REMOVE_TRIES, kill_line};

    /// An engine with one container, which goes at the last of so many tries.
    fn engine(socket: &Path, tries: u32) {
        let listener = UnixListener::bind(socket).unwrap();
        std::thread::spawn(move || {
            let mut left = tries;
            for stream in listener.incoming().map_while(Result::ok) {
                let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let asked = lines.next().unwrap_or_default();
                // Read whole, or closing would break what is answered.
                lines.find(String::is_empty);
                let list = if left > 0 { r#"[{"Id":"one"}]"# } else { "[]" };
                let (status, body) = match asked.split(' ').next() {
                    Some("DELETE") => {
                        left = left.saturating_sub(1);
                        if left == 0 { (204, "") } else { (409, r#"{"message":"it is being looked at"}"#) }
                    }
                    _ if asked.contains("/version") => (200, r#"{"ApiVersion":"1.41"}"#),
                    _ => (200, list),
                };
                let length = if status == 204 { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
                let head = format!("HTTP/1.1 {status} So\r\nContent-Type: application/json\r\n{length}");
                let _ = (&stream).write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes());
            }
        });
    }

    async fn kill(tries: u32) -> Result<usize, String> {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        engine(&socket, tries);
        Killing { socket: Some(format!("unix://{}", socket.display())), label: "a=b".to_owned() }.kill().await
    }

    #[tokio::test]
    async fn what_the_last_try_removed_is_not_taken_for_left() {
        assert_eq!(kill(1).await, Ok(1));
        assert_eq!(kill(REMOVE_TRIES).await, Ok(1));
        let left = kill(REMOVE_TRIES + 1).await.unwrap_err();
        assert!(left.contains("it is being looked at"), "{left}");
    }

    #[test]
    fn the_hook_s_line_is_one_whatever_the_folder_is_called() {
        let line = kill_line(Path::new("/srv/o'neill/kill.json"));
        assert!(line.ends_with(r"__container-kill '/srv/o'\''neill/kill.json'"), "{line}");
    }
}
