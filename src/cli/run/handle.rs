//! `run`'s end of its guard: starting it, talking to it, and standing in for it.
//!
//! `run` never touches the command's processes while the guard lives and answers. Should the
//! guard die or be stopped, `run` is the subreaper above it and ends the tree itself.

use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

/// A guard that was started.
#[derive(Debug)]
pub struct GuardHandle {
    /// Its number, for knowing it among the children that ended.
    pub pid: i32,
    /// The way to it. Closing it without [`super::guard::talk::Order::Done`] is how `run` dies.
    pub socket: UnixStream,
}

impl GuardHandle {
    /// Starts this very binary as a guard; see [`Self::spawn`].
    pub fn spawn_self() -> std::io::Result<Self> {
        Self::spawn(&this_binary()?)
    }

    /// Starts `program`, which is this binary, as a guard, and hands it this process's stdin for
    /// the command. To be called before there are threads, with the signals of `run` held back:
    /// the guard begins with them held back too.
    pub fn spawn(program: &Path) -> std::io::Result<Self> {
        Self::spawn_with(program, &std::io::stdin(), None)
    }

    /// The same for a command that reads `stdin` and writes both its outputs to `output`, where given.
    pub fn spawn_with(program: &Path, stdin: &impl AsFd, output: Option<&OwnedFd>) -> std::io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        let mut command = Command::new(program);
        command.arg0("leasehold").arg("__guard").stdin(Stdio::from(OwnedFd::from(theirs))).process_group(0);
        if let Some(output) = output {
            command.stdout(output.try_clone()?).stderr(output.try_clone()?);
        }
        let child = command.spawn()?;
        let carried = [stdin.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&carried));
        // An empty line: descriptors travel with at least one byte.
        rustix::net::sendmsg(&socket, &[IoSlice::new(b"\n")], &mut control, SendFlags::empty())?;
        Ok(Self { pid: i32::try_from(child.id()).unwrap_or(i32::MAX), socket })
    }

    /// Tells it something, waiting while it does not listen.
    pub fn tell(&mut self, order: &super::guard::talk::Order) -> std::io::Result<()> {
        self.socket.write_all(&super::guard::talk::line(order))
    }
}

/// Where to start this very binary from: by the link, as the file may have been replaced since by
/// a newer version.
pub fn this_binary() -> std::io::Result<PathBuf> {
    #[cfg(target_os = "linux")]
    return Ok(PathBuf::from("/proc/self/exe"));
    #[cfg(not(target_os = "linux"))]
    return std::env::current_exe();
}
