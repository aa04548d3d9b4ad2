//! A registry of the tests' own on loopback, with its storage in a temporary folder.
//!
//! `scripts/test` installs it. Without it the tests that want it say so and pass, unless
//! `LEASEHOLD_TEST_REQUIRE_REGISTRY` says that it must be there.

use std::net::{TcpListener, TcpStream};
use std::process::Command;

use super::podman::is_there;
use crate::common::process::Process;
use crate::common::wait::until;

const PROGRAM: &str = "docker-registry";
/// Whom a closed one knows; what engines read the password in has letters that are others in URLs.
pub const LOGIN: &str = "ann:hush>>>???~~~";
/// The same for the registry, by bcrypt.
const KNOWN: &str = "ann:$2y$05$EGaf6jJF33XE32f8A5wSzefJ9naTx0duGZqMiZOVmIPlANYx0Xene\n";

/// One that answers.
pub struct Registry {
    port: u16,
    _dir: tempfile::TempDir,
    _process: Process,
}

impl Registry {
    /// Starts one, for anybody or for who has the [`LOGIN`]; `None`, said loudly, where there is nothing to start.
    pub fn start(closed: bool) -> Option<Self> {
        if is_there(PROGRAM) {
            return Some(Self::with(closed));
        }
        assert!(
            std::env::var_os("LEASEHOLD_TEST_REQUIRE_REGISTRY").is_none(),
            "LEASEHOLD_TEST_REQUIRE_REGISTRY is set, and there is no {PROGRAM}"
        );
        eprintln!("skipped: there is no {PROGRAM}; scripts/test installs it");
        None
    }

    fn with(closed: bool) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let place = dir.path().display();
        let port = free_port();
        let mut config = format!(
            "version: 0.1\nstorage: {{ filesystem: {{ rootdirectory: {place}/data }} }}\n\
             http: {{ addr: \"127.0.0.1:{port}\" }}\n"
        );
        if closed {
            std::fs::write(dir.path().join("known"), KNOWN).expect("a temporary file can be written");
            config.push_str(&format!("auth: {{ htpasswd: {{ realm: lab, path: {place}/known }} }}\n"));
        }
        let file = dir.path().join("config.yml");
        std::fs::write(&file, config).expect("a temporary file can be written");
        let process = Process::start(Command::new(PROGRAM).arg("serve").arg(file));
        until("the registry answers", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { port, _dir: dir, _process: process }
    }

    /// An image in it.
    pub fn image(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }
}

/// A port that nobody listens on at present.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    listener.local_addr().expect("it is bound").port()
}
