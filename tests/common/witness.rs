//! Witnesses of the kernel: who lives, and whether anything of a command is left.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait::PATIENCE;

/// A FIFO: what a command holds open, or waits at.
pub struct Fifo {
    path: PathBuf,
}

/// The reading end of one that a command's whole tree holds open.
pub struct Held {
    file: File,
}

impl Fifo {
    /// Makes one.
    pub fn make(path: &Path) -> Self {
        nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO can be made");
        Self { path: path.to_owned() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same, for a script.
    pub fn display(&self) -> std::path::Display<'_> {
        self.path.display()
    }

    /// Waits until as many processes as that hold it have said so by a letter.
    pub fn meet(&self, letters: usize) -> Held {
        let mut file = File::open(&self.path).expect("it is there");
        let mut seen = vec![0; letters];
        file.read_exact(&mut seen).expect("they announce themselves");
        Held { file }
    }

    /// Waits until one has held it, and nobody does any more.
    pub fn wait_gone(&self) {
        self.meet(1).wait();
    }
}

impl Held {
    /// Waits until nobody holds it open: the kernel closes it with the last process that did.
    pub fn wait(mut self) {
        let (tell, gone) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut rest = Vec::new();
            let _ = self.file.read_to_end(&mut rest);
            let _ = tell.send(());
        });
        gone.recv_timeout(PATIENCE).expect("everything that holds it ends");
    }
}

/// A shell with a background child, one that ignores TERM, one in a session of its own, and one
/// that forked twice so that its parent is gone. They announce themselves as a to e on descriptor 9.
pub const FAMILY: &str = "printf a >&9; (printf b >&9; sleep 1000) & \
    (trap '' TERM; printf c >&9; while :; do sleep 1000; done) & \
    setsid sh -c 'printf d >&9; sleep 1000' & \
    (setsid sh -c '(trap \"\" TERM HUP; printf e >&9; while :; do sleep 1000; done) &' &) ; wait";

/// The children of a process, whichever of its threads started them.
pub fn children_of(pid: u32) -> Vec<i32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    children.flat_map(|list| list.split_whitespace().flat_map(str::parse).collect::<Vec<_>>()).collect()
}

/// Kills it with -9.
#[track_caller]
pub fn kill9(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it lives");
}

/// Whether a process is there and not a zombie.
pub fn lives(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
