//! Watching the inventory file.
//!
//! Owns when a file counts as written: once its bytes were the same twice, two seconds apart. A
//! file caught while an editor writes it is half a lab, and half a lab would remove the rest. It
//! polls, as that works on every file system and through every way of replacing a file. What the
//! text means is not its business; it hands each text over once.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;

use super::file::FILE_BYTES_MAX;
use crate::clock::{BootTime, boot_now};

/// How often the file is looked at.
pub const POLL: Duration = Duration::from_secs(1);
/// How long its bytes must have been the same, milliseconds.
pub const SETTLED_MS: u64 = 2_000;

/// What the file has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It says this, and has for two seconds.
    Text(String),
    /// It cannot be read, in words; told once until it can be or fails otherwise.
    Unreadable(String),
}

/// Reads the file as it is now, for the start.
///
/// # Errors
/// In words, naming the file.
pub fn read_now(path: &Path) -> Result<String, String> {
    let bytes = read_bytes(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    text_of(path, bytes)
}

/// Watches the file until nobody listens any more. `known` is the text that was applied already,
/// if any; it is not told again.
pub async fn watch(path: PathBuf, known: Option<String>, told: mpsc::Sender<Seen>) {
    let disk = Disk { glance: Glance::new(path.clone()) };
    follow(&path, known, &told, disk).await;
}

/// What one look at the file found.
enum Look {
    /// Nothing about it has changed since the last look.
    Same,
    /// These bytes.
    Bytes(Vec<u8>),
    /// It cannot be read.
    Failed(String),
}

/// Where the file is looked at, one look after another; a test's own, or the disk.
trait Looks {
    /// Waits for the time of the next look; answers when it was and what it found.
    fn next(&mut self) -> impl Future<Output = (BootTime, Look)> + Send;
}

struct Disk {
    glance: Glance,
}

impl Looks for Disk {
    async fn next(&mut self) -> (BootTime, Look) {
        tokio::time::sleep(POLL).await;
        // On a thread that may wait: a file system can hang, and nobody else shall hang with it.
        let mut aside = self.glance.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let look = aside.look();
            (aside, look)
        });
        let look = match looked.await {
            Ok((aside, look)) => {
                self.glance = aside;
                look
            }
            Err(_) => Look::Failed(format!("{} cannot be read: the broker is stopping", self.glance.path.display())),
        };
        // A timer only wakes: how long bytes were the same is measured on the clock that counts suspension.
        (boot_now(), look)
    }
}

async fn follow(path: &Path, known: Option<String>, told: &mpsc::Sender<Seen>, mut looks: impl Looks) {
    let mut settling = Settling { told: known.map(String::into_bytes), ..Settling::default() };
    loop {
        let (now, look) = tokio::select! {
            () = told.closed() => return,
            next = looks.next() => next,
        };
        let seen = settling.look(now, look).map(|found| match found {
            Ok(bytes) => text_of(path, bytes).map_or_else(Seen::Unreadable, Seen::Text),
            Err(why) => Seen::Unreadable(why),
        });
        if let Some(seen) = seen
            && told.send(seen).await.is_err()
        {
            return;
        }
    }
}

/// When bytes count as written.
#[derive(Default)]
struct Settling {
    /// What was told last.
    told: Option<Vec<u8>>,
    /// What was found since, and when first; unless it is what was told.
    found: Option<(BootTime, Vec<u8>)>,
    /// The failure that was told last, unless the file could be read since.
    failed: Option<String>,
}

impl Settling {
    /// Counts one look; answers what is to be told.
    fn look(&mut self, now: BootTime, look: Look) -> Option<Result<Vec<u8>, String>> {
        let bytes = match look {
            Look::Failed(why) => {
                self.found = None;
                let new = self.failed.as_ref() != Some(&why);
                self.failed = Some(why.clone());
                return new.then_some(Err(why));
            }
            // Only a file that has settled is not read again.
            Look::Same => return None,
            Look::Bytes(bytes) => bytes,
        };
        match &self.found {
            Some((since, found)) if *found == bytes => {
                if now.since(*since) < SETTLED_MS {
                    return None;
                }
                self.found = None;
                // After a failure it is told again, so that whoever listens knows that it is over.
                let again = self.failed.take().is_some();
                let new = again || self.told.as_ref() != Some(&bytes);
                self.told = Some(bytes.clone());
                new.then_some(Ok(bytes))
            }
            _ => {
                self.found = Some((now, bytes));
                None
            }
        }
    }
}

/// What the file system says of a file without reading it: inode, size, times of change. The
/// time of the inode's change is in it for tools that set the other one back.
type Stamp = (u64, u64, i64, i64, i64, i64);

/// Looks at the file, and reads it only where it could have changed.
#[derive(Clone)]
struct Glance {
    path: PathBuf,
    /// The last stamp, and how many looks found it.
    last: Option<(Stamp, u32)>,
}

/// Looks with the same stamp before the file is not read any more: more than settling takes.
const LOOKS_MAX: u32 = 6;

impl Glance {
    const fn new(path: PathBuf) -> Self {
        Self { path, last: None }
    }

    fn look(&mut self) -> Look {
        let failed = |error: io::Error| Look::Failed(format!("{} cannot be read: {error}", self.path.display()));
        let stamp = match std::fs::metadata(&self.path) {
            Ok(metadata) => stamp(&metadata),
            Err(error) => {
                self.last = None;
                return failed(error);
            }
        };
        let looks = match self.last {
            Some((last, looks)) if last == stamp => looks.saturating_add(1),
            _ => 1,
        };
        self.last = Some((stamp, looks));
        if looks > LOOKS_MAX {
            return Look::Same;
        }
        match read_bytes(&self.path) {
            Ok(bytes) => Look::Bytes(bytes),
            Err(error) => {
                self.last = None;
                failed(error)
            }
        }
    }
}

fn stamp(metadata: &std::fs::Metadata) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let (modified, changed) = ((metadata.mtime(), metadata.mtime_nsec()), (metadata.ctime(), metadata.ctime_nsec()));
    (metadata.ino(), metadata.size(), modified.0, modified.1, changed.0, changed.1)
}

fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    // Asked before opening: opening a pipe that nobody writes to would wait for ever.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    // One byte more than is allowed, so that the reader of the text can say that there is too much.
    let room = u64::try_from(FILE_BYTES_MAX).expect("16 MiB fit").saturating_add(1);
    std::fs::File::open(path)?.take(room).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn text_of(path: &Path, bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|error| {
        let line =
            error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("{}:{line}: this is not UTF-8: save the file as UTF-8", path.display())
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::sync::mpsc;

    use super::{Glance, LOOKS_MAX, Look, Looks, Seen, Settling, follow, read_now};
    use crate::clock::BootTime;

    fn bytes(text: &str) -> Look {
        Look::Bytes(text.into())
    }

    /// What is told at each look, one a second; `!` begins a failure.
    fn told(known: Option<&str>, looks: &[&str]) -> Vec<String> {
        let mut settling = Settling { told: known.map(|known| known.into()), ..Settling::default() };
        let look = |(second, text): (usize, &&str)| {
            let look = text.strip_prefix('!').map_or_else(|| bytes(text), |why| Look::Failed(why.into()));
            match settling.look(BootTime(1_000 * second as u64), look) {
                None => "-".to_owned(),
                Some(Ok(bytes)) => String::from_utf8(bytes).expect("UTF-8"),
                Some(Err(why)) => format!("!{why}"),
            }
        };
        looks.iter().enumerate().map(look).collect()
    }

    #[test]
    fn bytes_that_were_the_same_for_two_seconds_are_told_once() {
        assert_eq!(told(None, &["a", "a", "a", "a", "a"]), ["-", "-", "a", "-", "-"]);
        assert_eq!(told(None, &["a", "b", "c", "c", "c"]), ["-", "-", "-", "-", "c"]);
        assert_eq!(told(None, &["a", "b", "a", "b", "a"]), ["-", "-", "-", "-", "-"]);
        assert_eq!(told(Some("a"), &["a", "a", "a", "a"]), ["-", "-", "-", "-"]);
        assert_eq!(told(Some("a"), &["b", "a", "a", "a"]), ["-", "-", "-", "-"]);
    }

    #[test]
    fn a_failure_is_told_once_and_so_is_its_end() {
        assert_eq!(told(Some("a"), &["!x", "!x", "!y", "!x"]), ["!x", "-", "!y", "!x"]);
        assert_eq!(told(Some("a"), &["!x", "a", "a", "a", "a"]), ["!x", "-", "-", "a", "-"]);
        assert_eq!(told(Some("a"), &["b", "b", "!x", "b", "b", "b"]), ["-", "-", "!x", "-", "-", "b"]);
    }

    /// Says `one` for nine seconds, then something that is no text.
    struct Scripted {
        second: u64,
    }

    impl Looks for Scripted {
        async fn next(&mut self) -> (BootTime, Look) {
            self.second += 1;
            tokio::task::yield_now().await;
            let look = if self.second < 10 { bytes("one") } else { Look::Bytes(b"ok\n\xff".to_vec()) };
            (BootTime(self.second * 1_000), look)
        }
    }

    #[tokio::test]
    async fn a_watch_tells_and_ends_with_its_listener() {
        let (sender, mut receiver) = mpsc::channel(1);
        let path = Path::new("lab.toml");
        let listener = async move {
            assert_eq!(receiver.recv().await, Some(Seen::Text("one".into())));
            let Some(Seen::Unreadable(why)) = receiver.recv().await else { panic!("not UTF-8 is not told") };
            assert!(why.starts_with("lab.toml:2: this is not UTF-8"), "{why}");
        };
        tokio::join!(follow(path, None, &sender, Scripted { second: 0 }), listener);
    }

    #[tokio::test]
    async fn a_watch_can_be_spawned_and_ends_when_nobody_listens() {
        let (sender, receiver) = mpsc::channel(1);
        drop(receiver);
        let watching = tokio::spawn(super::watch("lab.toml".into(), None, sender));
        assert!(watching.await.is_ok());
    }

    #[test]
    fn a_file_is_read_again_only_where_it_could_have_changed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lab.toml");
        let mut glance = Glance::new(path.clone());
        assert!(matches!(glance.look(), Look::Failed(why) if why.contains("lab.toml cannot be read")));
        std::fs::write(&path, "one").expect("written");
        for _ in 0..LOOKS_MAX {
            assert!(matches!(glance.look(), Look::Bytes(bytes) if bytes == b"one"));
        }
        assert!(matches!(glance.look(), Look::Same));
        // Replaced, as editors do: another inode, whatever the times say.
        std::fs::write(folder.path().join("new"), "two").expect("written");
        std::fs::rename(folder.path().join("new"), &path).expect("renamed");
        assert!(matches!(glance.look(), Look::Bytes(bytes) if bytes == b"two"));
        assert_eq!(read_now(&path), Ok("two".to_owned()));
        std::fs::remove_file(&path).expect("removed");
        assert!(matches!(glance.look(), Look::Failed(_)));
        std::fs::create_dir(&path).expect("a folder");
        assert!(read_now(&path).expect_err("a folder").contains("it is not a file"));
    }
}
