//! A real node of OpenSearch, from the jars that `scripts/test` has fetched.

use std::io::Write as _;
use std::net::TcpListener;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// Names the folder of the jars. Where it is not set there is no node.
const JARS: &str = "LEASEHOLD_TEST_OPENSEARCH";
/// How long a node may take to start: some seconds on a machine with nothing else to do.
const START_MAX: Duration = Duration::from_secs(180);

/// A node, which ends with this.
pub(super) struct Node {
    url: Arc<str>,
    /// Its input is its life.
    _child: Child,
    _folder: TempDir,
}

impl Node {
    /// Starts one; `None`, said loudly, where there are no jars.
    pub(super) async fn start() -> Option<Self> {
        let Some(jars) = std::env::var_os(JARS) else {
            // Past the capture of test output; fails only where nobody reads.
            let _ = writeln!(std::io::stderr(), "SKIPPED: {JARS} is not set: nothing ran on OpenSearch");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        // Both at once, so that they differ.
        let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [http, transport] = ports.map(|held| held.local_addr().unwrap().port().to_string());
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/opensearch/Node.java");
        let mut class_path = jars;
        class_path.push("/*");
        let mut child = Command::new("java")
            .args(["-Xms256m", "-Xmx512m", "-cp"])
            .arg(class_path)
            .arg(source)
            .arg(folder.path())
            .args([&http, &transport])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("java runs");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // The node logs what its program says, with the time before it.
        let ready =
            async { while !lines.next_line().await.unwrap().expect("a node that starts").ends_with("ready") {} };
        tokio::time::timeout(START_MAX, ready).await.expect("a node starts in time");
        // What it says later is nobody's; it must not stop because nobody reads it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Some(Self { url: format!("http://127.0.0.1:{http}").into(), _child: child, _folder: folder })
    }

    pub(super) fn url(&self) -> Arc<str> {
        Arc::clone(&self.url)
    }

    /// Asks it something by itself.
    pub(super) async fn post(&self, path: &str, body: &str) -> String {
        let request = reqwest::Client::new().post(format!("{}/{path}", self.url));
        let request = request.header("content-type", "application/json").body(body.to_owned());
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer.text().await.unwrap()
    }
}
