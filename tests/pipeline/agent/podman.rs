//! A container engine of the tests' own: Podman with its storage in a temporary folder and one small image.
//!
//! `scripts/test` installs what it needs. Without that the tests that want it say so and pass, unless
//! `LEASEHOLD_TEST_REQUIRE_PODMAN` says that it must be there.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::process::{Process, run};
use crate::common::wait::until;

/// The image, as pipelines name it.
pub const IMAGE: &str = "localhost/busy";
/// What the image has beside its shell.
const PROGRAMS: &[&str] =
    &["sh", "cat", "echo", "env", "head", "id", "ls", "printf", "seq", "setsid", "sleep", "touch", "tr", "yes"];
/// For machines without systemd, and without the rights that an ordinary one gives root.
const CONFIG: &str = "[containers]\ndefault_ulimits = [\"nofile=4096:4096\", \"nproc=4096:4096\"]\n\
                      [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n";

/// Registries on this machine have no certificates.
const REGISTRIES: &str = "[[registry]]\nlocation = \"127.0.0.1\"\ninsecure = true\n";

/// An engine that answers on a socket.
pub struct Podman {
    dir: tempfile::TempDir,
    service: Option<Process>,
}

impl Podman {
    /// Starts one; `None`, said loudly, where there is nothing to start.
    pub fn start() -> Option<Self> {
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        let missing = match busybox {
            _ if !nix::unistd::getuid().is_root() => "right to make namespaces: run as root",
            _ if !is_there("podman") => "podman",
            _ if !is_there("runc") => "runc",
            None => "busybox",
            Some(busybox) => return Some(Self::with(busybox)),
        };
        assert!(
            std::env::var_os("LEASEHOLD_TEST_REQUIRE_PODMAN").is_none(),
            "LEASEHOLD_TEST_REQUIRE_PODMAN is set, and there is no {missing}"
        );
        eprintln!("skipped: there is no {missing}; scripts/test installs it");
        None
    }

    fn with(busybox: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        std::fs::write(dir.path().join("containers.conf"), CONFIG).expect("a temporary file can be written");
        std::fs::write(dir.path().join("registries.conf"), REGISTRIES).expect("a temporary file can be written");
        let bin = dir.path().join("rootfs/bin");
        std::fs::create_dir_all(&bin).expect("a folder can be made");
        std::fs::create_dir_all(dir.path().join("rootfs/tmp")).expect("a folder can be made");
        std::fs::copy(busybox, bin.join("busybox")).expect("the image's program is there");
        for program in PROGRAMS {
            std::os::unix::fs::symlink("busybox", bin.join(program)).expect("a link can be made");
        }
        let mut podman = Self { dir, service: None };
        let tar = podman.path("image.tar");
        run(Command::new("tar").arg("-C").arg(podman.path("rootfs")).arg("-cf").arg(&tar).arg(".")).exits(0);
        run(podman.command().arg("import").arg(&tar).arg(format!("{IMAGE}:latest"))).exits(0);
        podman.serve();
        podman
    }

    /// Answers from now on.
    pub fn serve(&mut self) {
        let mut service = self.command();
        service.args(["system", "service", "--time=0", &self.socket()]);
        self.service = Some(Process::start(&mut service));
        until("the engine answers", || std::os::unix::net::UnixStream::connect(self.path("socket")).is_ok());
    }

    /// Answers no more, while its containers run on.
    pub fn leave(&mut self) {
        if let Some(mut service) = self.service.take() {
            service.signal(nix::sys::signal::Signal::SIGKILL);
            service.wait();
        }
        std::fs::remove_file(self.path("socket")).expect("the socket can be removed");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Its socket, for an agent.
    pub fn socket(&self) -> String {
        format!("unix://{}", self.path("socket").display())
    }

    /// Its command line, with its storage.
    pub fn command(&self) -> Command {
        let mut command = Command::new("podman");
        // What watches containers notes there that memory ran out.
        command.current_dir(self.dir.path());
        command.env("CONTAINERS_CONF", self.path("containers.conf"));
        command.env("CONTAINERS_REGISTRIES_CONF", self.path("registries.conf"));
        command.arg("--root").arg(self.path("storage")).arg("--runroot").arg(self.path("run"));
        command.args(["--storage-driver", "vfs"]);
        command
    }

    /// Puts the image into a registry as `name`, under a login where it wants one; answers its digest.
    pub fn push(&self, name: &str, login: Option<&str>) -> String {
        let digest = self.path("digest");
        let mut push = self.command();
        push.args(["push", "--quiet", "--digestfile"]).arg(&digest);
        push.args(login.iter().flat_map(|login| ["--creds", *login])).args([IMAGE, name]);
        run(&mut push).exits(0);
        std::fs::read_to_string(digest).expect("it is written")
    }

    /// The containers that there are, running or not.
    pub fn containers(&self) -> Vec<String> {
        let listed = run(self.command().args(["ps", "--all", "--quiet"])).exits(0).stdout;
        listed.lines().map(str::to_owned).collect()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // What a failed test has left must not run on.
        let _ = self.command().args(["rm", "--all", "--force", "--time", "0"]).output();
    }
}

/// Whether a program is installed.
pub fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(["/usr/sbin".into()]).any(|folder| folder.join(program).exists())
}
