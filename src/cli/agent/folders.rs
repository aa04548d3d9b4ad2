//! An agent's folder: one for each build under way, the mirrors of repositories, and what was kept.
//!
//! ```text
//!   lock                    held while the agent runs
//!   mirrors/                one for each repository
//!   builds/17-1/            build 17, attempt 1: its own, 0700
//!     workspace/            the commit, checked out
//!     home/  tmp/           HOME and TMPDIR of its steps
//!     spool/                what it printed and the broker does not have yet
//!     private/              what its helpers are told, 0600
//!     lock                  held while the build's process lives
//!   kept/17-1/              failed builds' (`--cleanup passed`), the newest ten
//! ```

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How many failed builds' folders are kept.
const KEPT_MAX: usize = 10;

/// An agent's folder.
#[derive(Clone, Debug)]
pub struct Folders {
    root: PathBuf,
}

impl Folders {
    /// Below `root`, made where it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make(root: &Path) -> io::Result<Self> {
        make(root)?;
        // Where a build's processes are started in it, whatever this process changes to.
        let folders = Self { root: root.canonicalize()? };
        for folder in [folders.builds(), folders.mirrors(), folders.kept()] {
            make(&folder)?;
        }
        Ok(folders)
    }

    /// Keeps other agents out while what is answered lives.
    ///
    /// # Errors
    /// When another has it (`WouldBlock`), or the file cannot be made.
    pub fn lock(&self) -> io::Result<File> {
        lock(&self.root.join("lock"))
    }

    /// Where repositories are mirrored.
    #[must_use]
    pub fn mirrors(&self) -> PathBuf {
        self.root.join("mirrors")
    }

    fn builds(&self) -> PathBuf {
        self.root.join("builds")
    }

    fn kept(&self) -> PathBuf {
        self.root.join("kept")
    }

    /// The folder of a build's attempt; not made.
    #[must_use]
    pub fn build(&self, build: u64, attempt: u32) -> BuildFolder {
        BuildFolder { root: self.builds().join(format!("{build}-{attempt}")) }
    }

    /// Folders of builds that are there.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn present(&self) -> io::Result<Vec<BuildFolder>> {
        let entries = std::fs::read_dir(self.builds())?;
        Ok(entries.filter_map(|entry| Some(BuildFolder { root: entry.ok()?.path() })).collect())
    }

    /// Puts a failed build's folder aside, and removes the oldest of those.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn keep(&self, folder: &BuildFolder) -> io::Result<PathBuf> {
        let Some(name) = folder.root.file_name() else { return Ok(folder.root.clone()) };
        for gone in [folder.private(), folder.spool()] {
            remove(&gone)?;
        }
        let kept = self.kept().join(name);
        remove(&kept)?;
        std::fs::rename(&folder.root, &kept)?;
        let age = |path: &PathBuf| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
        let mut all: Vec<PathBuf> =
            std::fs::read_dir(self.kept())?.filter_map(|entry| Some(entry.ok()?.path())).collect();
        all.sort_by_key(age);
        let surplus = all.len().saturating_sub(KEPT_MAX);
        for path in all.iter().filter(|path| **path != kept).take(surplus) {
            remove(path)?;
        }
        Ok(kept)
    }
}

/// The folder of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildFolder {
    root: PathBuf,
}

impl BuildFolder {
    /// The one at this path.
    #[must_use]
    pub const fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// Makes it anew, empty, and locks it for as long as what is answered lives.
    ///
    /// # Errors
    /// When it cannot be made, or is another process's.
    pub fn make(&self) -> io::Result<File> {
        make(&self.root)?;
        let locked = self.try_lock()?;
        for folder in [self.workspace(), self.home(), self.tmp(), self.private(), self.spool()] {
            remove(&folder)?;
            make(&folder)?;
        }
        Ok(locked)
    }

    /// Takes its lock.
    ///
    /// # Errors
    /// `WouldBlock` while the build's process lives.
    pub fn try_lock(&self) -> io::Result<File> {
        lock(&self.root.join("lock"))
    }

    /// The build and its attempt, as its name has them.
    #[must_use]
    pub fn number(&self) -> Option<(u64, u32)> {
        let (build, attempt) = self.root.file_name()?.to_str()?.split_once('-')?;
        Some((build.parse().ok()?, attempt.parse().ok()?))
    }

    /// Itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Where the commit is checked out.
    #[must_use]
    pub fn workspace(&self) -> PathBuf {
        self.root.join("workspace")
    }

    /// Its steps' HOME.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    /// Its steps' TMPDIR.
    #[must_use]
    pub fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// What its helpers are told.
    #[must_use]
    pub fn private(&self) -> PathBuf {
        self.root.join("private")
    }

    /// What it printed.
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        self.root.join("spool")
    }

    /// The file with the key that it was taken under: what it printed is sent under it.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.private().join("key")
    }

    /// Keeps its key.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn keep_key(&self, key: &str) -> io::Result<()> {
        write_private(&self.key(), key.as_bytes())
    }

    /// Writes what a helper is told, for this user alone.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn tell(&self, name: &str, message: &impl serde::Serialize) -> io::Result<PathBuf> {
        let path = self.private().join(name);
        write_private(&path, &serde_json::to_vec(message)?)?;
        Ok(path)
    }

    /// Removes it with all that is in it.
    ///
    /// # Errors
    /// When something of it cannot be removed.
    pub fn remove(&self) -> io::Result<()> {
        remove(&self.root)
    }
}

/// Writes a file anew that is for this user alone.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    remove(path)?;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(bytes)
}

fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn lock(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Removes a file or a folder, also where a build took its own permissions away.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            permit(path);
            std::fs::remove_dir_all(path).or_else(|error| remove_subordinates(path, error))
        }
        other => other,
    }
}

/// Removes what root in a container of a rootless engine gave to others in there. They are this user's subordinates,
/// and what is theirs is this user's to remove only as root among them; a program with rights of its own sees to that,
/// and is there where such an engine is.
fn remove_subordinates(path: &Path, why: io::Error) -> io::Result<()> {
    let as_root: [&[&str]; 2] = [&["unshare", "--map-root-user", "--map-auto"], &["podman", "unshare"]];
    for words in as_root {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(["rm", "-rf", "--"]).arg(path);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if command.status().is_ok_and(|status| status.success()) {
            return Ok(());
        }
    }
    Err(why)
}

/// Gives this user back what it may do with the folders below.
fn permit(folder: &Path) {
    if !std::fs::symlink_metadata(folder).is_ok_and(|meta| meta.is_dir()) {
        return;
    }
    // What cannot be changed makes the removal fail, which is told.
    let _ = std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700));
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        permit(&entry.path());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::Folders;

    #[test]
    fn a_build_s_folder_is_its_own_and_empty() {
        let root = tempfile::tempdir().unwrap();
        let folders = Folders::make(&root.path().join("agent")).unwrap();
        let folder = folders.build(17, 2);
        assert_eq!(folder.number(), Some((17, 2)));
        let locked = folder.make().unwrap();
        assert_eq!(folder.make().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        std::fs::write(folder.workspace().join("left"), "x").unwrap();
        drop(locked);
        let _locked = folder.make().unwrap();
        assert_eq!(std::fs::read_dir(folder.workspace()).unwrap().count(), 0);
        let mode = std::fs::metadata(folder.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(folders.present().unwrap(), [folder]);
    }

    #[test]
    fn what_took_its_own_permissions_away_is_removed_all_the_same() {
        let root = tempfile::tempdir().unwrap();
        let folders = Folders::make(root.path()).unwrap();
        let folder = folders.build(1, 1);
        let _locked = folder.make().unwrap();
        let inner = folder.workspace().join("cache/module");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(inner.join("file"), "x").unwrap();
        for path in [&inner, &folder.workspace().join("cache")] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o500)).unwrap();
        }
        folder.remove().unwrap();
        assert!(!folder.path().exists());
    }

    #[test]
    fn of_failed_builds_the_newest_are_kept() {
        let root = tempfile::tempdir().unwrap();
        let folders = Folders::make(root.path()).unwrap();
        for build in 1..=12 {
            let folder = folders.build(build, 1);
            drop(folder.make().unwrap());
            let kept = folders.keep(&folder).unwrap();
            assert!(kept.join("workspace").is_dir() && !kept.join("private").exists());
        }
        assert_eq!(std::fs::read_dir(root.path().join("kept")).unwrap().count(), 10);
        assert!(root.path().join("kept/12-1").is_dir());
    }
}
