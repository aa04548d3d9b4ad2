//! The file with a lease's secrets: readable by this user only, gone when the command is.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::environment::SecretsFile;
use crate::clock;

/// A file in a directory of its own; both are removed when this is dropped. Should `run` be
/// killed, its guard removes them.
#[derive(Debug)]
pub struct SecretsDirectory {
    directory: PathBuf,
}

impl SecretsDirectory {
    /// Writes `secrets` as JSON. In memory where the system has a place for that.
    pub fn write(secrets: &SecretsFile) -> std::io::Result<Self> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_dir());
        Self::write_below(&runtime.unwrap_or_else(std::env::temp_dir), secrets)
    }

    fn write_below(base: &Path, secrets: &SecretsFile) -> std::io::Result<Self> {
        let name = clock::random_secret();
        let directory = base.join(format!("leasehold-{}", &name[..16]));
        std::fs::DirBuilder::new().mode(0o700).create(&directory)?;
        let made = Self { directory };
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(made.file())?;
        file.write_all(&serde_json::to_vec(secrets)?)?;
        Ok(made)
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.directory.join("secrets.json")
    }

    /// The directory, which nobody else has anything in.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Leaves the file to somebody else, who removes it.
    pub fn leave(mut self) -> PathBuf {
        std::mem::take(&mut self.directory)
    }
}

impl Drop for SecretsDirectory {
    fn drop(&mut self) {
        if !self.directory.as_os_str().is_empty() {
            // Gone already is as good.
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

/// The secrets of an outer lease, as far as they can be read.
#[must_use]
pub fn outer() -> SecretsFile {
    let path = std::env::var_os(super::environment::SECRETS_FILE);
    let bytes = path.and_then(|path| std::fs::read(path).ok());
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::{SecretsDirectory, SecretsFile};

    #[test]
    fn only_its_owner_can_read_it_and_it_goes_with_its_handle() {
        let base = tempfile::tempdir().unwrap();
        let made = SecretsDirectory::write_below(base.path(), &SecretsFile::new()).unwrap();
        let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(made.directory()), mode(&made.file())), (0o700, 0o600));
        drop(made);
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
    }
}
