//! The processes of builds: started, heard, stopped, and put away when they died.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::container::Killing;
use super::folders::BuildFolder;
use super::handover::{FromBuild, Handover, ToBuild};
use super::leftovers;
use crate::cli::run::guard::talk::{Lines, line};
use crate::cli::run::handle::this_binary;
use crate::cli::terminal::Messages;
use crate::client::http::Http;

/// Sees a build through in a process of its own; returns when nothing of it is left. `stop` asks it to end.
pub async fn see_through(handover: Handover, http: Http, messages: Messages, stop: watch::Receiver<bool>) {
    let job = &handover.job;
    let what = format!("build #{} ({} {})", job.build, job.repository, job.pipeline);
    messages.line(format!("{what}: begun, {} at {}", job.line, job.checkout.sha.get(..10).unwrap_or_default()));
    let (folder, in_container) = (BuildFolder::at(handover.folder.clone()), job.container.is_some());
    let killing = Killing::of_build(&handover.containers, &handover.agent, job.build, job.attempt);
    let (child, socket) = match start() {
        Ok(started) => started,
        Err(error) => return messages.line(format!("{what}: its process cannot be started: {error}")),
    };
    let said = hear(socket, handover, stop).await;
    let status = tokio::task::spawn_blocking(move || wait(child)).await.unwrap_or_default();
    match said {
        Ok(Some(FromBuild::Ended { what: how })) => {
            messages.line(format!("{what}: {}", how.strip_prefix("--- ").unwrap_or(&how)));
        }
        Ok(None) | Err(_) => {
            messages.line(format!("{what}: its process died ({status}); its guard ends the rest"));
            put_away(&folder, in_container.then_some(&killing), &http, &messages).await;
        }
    }
}

fn start() -> std::io::Result<(Child, StdStream)> {
    let (socket, theirs) = StdStream::pair()?;
    let child = Command::new(this_binary()?)
        .arg0("leasehold")
        .arg("__build")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        // What a terminal sends the agent is the agent's to judge.
        .process_group(0)
        .spawn()?;
    Ok((child, socket))
}

fn wait(mut child: Child) -> String {
    child.wait().map_or_else(|error| error.to_string(), |status| status.to_string())
}

/// Hands the job over and hears what is said until the process is gone.
async fn hear(
    socket: StdStream,
    handover: Handover,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<Option<FromBuild>> {
    socket.set_nonblocking(true)?;
    let mut socket = UnixStream::from_std(socket)?;
    socket.write_all(&line(&ToBuild::Begin(Box::new(handover)))).await?;
    let (mut lines, mut bytes, mut said) = (Lines::default(), [0; 4096], None);
    let mut told = false;
    loop {
        tokio::select! {
            read = socket.read(&mut bytes) => match read {
                Ok(count @ 1..) => said = lines.push(&bytes[..count]).pop().or(said),
                // A process that was killed with unread words resets the socket.
                Ok(0) | Err(_) => return Ok(said),
            },
            () = asked(&mut stop), if !told => {
                told = true;
                socket.write_all(&line(&ToBuild::Stop)).await?;
            }
        }
    }
}

/// Comes when builds are asked to end.
async fn asked(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// After a build's process died: its guard has killed its tree or does so now; the folder and the container
/// are nobody's.
async fn put_away(folder: &BuildFolder, killing: Option<&Killing>, http: &Http, messages: &Messages) {
    if let Some(killing) = killing
        && let Err(why) = killing.kill().await
    {
        messages.line(format!("a container of it may be left: {why}"));
    }
    leftovers::deliver(folder, http, messages).await;
    for pause_ms in [0, 100, 500, 2_000, 5_000] {
        tokio::time::sleep(std::time::Duration::from_millis(pause_ms)).await;
        if folder.remove().is_ok() {
            return;
        }
    }
    messages.line(format!("{} cannot be removed", folder.path().display()));
}
