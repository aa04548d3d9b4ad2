//! What a container prints: passed on as it comes, to its end.
//!
//! It is attached to, and not read from the engine's log: see docs/decisions/0013.

use std::os::fd::AsFd;
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::query_parameters::WaitContainerOptionsBuilder;
use futures_util::{Stream, StreamExt};
use tokio::io::AsyncWriteExt;

/// What the driver says on the stream of its own where memory ran out.
const OUT_OF_MEMORY: &[u8] = b"OUT-OF-MEMORY";
/// Bytes of a line of that stream, at most. Nothing else is said there but where it cannot be run.
const OWN_LINE_BYTES_MAX: usize = 64 * 1024;
/// How long after the end of its output a container may take to be over.
const ENDING: Duration = Duration::from_secs(10);

/// What a container prints, in the engine's frames.
pub type Output = std::pin::Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>;

/// Follows a container's output, and waits until it is over. Answers whether it said that memory ran out.
///
/// # Errors
/// With what the engine says where the output breaks off.
pub async fn follow_to_its_end(docker: &Docker, id: &str, output: Output) -> Result<bool, Error> {
    let out_of_memory = follow(output).await?;
    let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
    // How it ended is looked at next, and whether it did.
    let _ = tokio::time::timeout(ENDING, docker.wait_container(id, Some(options)).next()).await;
    Ok(out_of_memory)
}

/// Copies it to stdout, to its end.
async fn follow(mut output: Output) -> Result<bool, Error> {
    // Written on threads that may wait: a build whose log is full waits here, and must still hear TERM.
    let stdout = std::io::stdout().as_fd().try_clone_to_owned()?;
    let mut stdout = tokio::fs::File::from_std(std::fs::File::from(stdout));
    let mut own = Own::default();
    while let Some(frame) = output.next().await {
        match frame? {
            LogOutput::StdOut { message } | LogOutput::Console { message } => write(&mut stdout, &message).await?,
            LogOutput::StdErr { message } => write(&mut stdout, &own.push(&message)).await?,
            LogOutput::StdIn { .. } => {}
        }
    }
    write(&mut stdout, &own.line).await?;
    Ok(own.out_of_memory)
}

/// What the driver says, or the shell that cannot run it.
#[derive(Default)]
struct Own {
    line: Vec<u8>,
    out_of_memory: bool,
}

impl Own {
    /// Takes a frame in; answers what is to be shown.
    fn push(&mut self, frame: &[u8]) -> Vec<u8> {
        let mut shown = Vec::new();
        for piece in frame.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.strip_suffix(b"\n") == Some(OUT_OF_MEMORY) {
                self.out_of_memory = true;
                self.line.clear();
            } else if piece.ends_with(b"\n") || self.line.len() > OWN_LINE_BYTES_MAX {
                shown.append(&mut self.line);
            }
        }
        shown
    }
}

async fn write(stdout: &mut tokio::fs::File, bytes: &[u8]) -> Result<(), Error> {
    stdout.write_all(bytes).await?;
    stdout.flush().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{OWN_LINE_BYTES_MAX, Own};

    #[test]
    fn what_the_driver_says_of_memory_is_not_shown() {
        let mut own = Own::default();
        assert_eq!(own.push(b"sh: odd\nOUT-OF-"), b"sh: odd\n");
        assert!(!own.out_of_memory);
        assert_eq!(own.push(b"MEMORY\nsh: odder"), b"");
        assert!(own.out_of_memory && own.line == b"sh: odder");
        assert_eq!(own.push(&[b'x'; OWN_LINE_BYTES_MAX]).len(), 9 + OWN_LINE_BYTES_MAX);
    }
}
