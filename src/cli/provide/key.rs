//! A provider's key: the secret by which a broker knows a successor from a stranger.
//!
//! It is made once and kept in the state folder, for this user alone, and its file is locked for as
//! long as the provider runs. So whoever has the key is the only one of that name there, and the
//! session that a broker still has of it is its dead predecessor's.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::cli::Failure;
use crate::clock::random_secret;
use crate::core::types::ProviderName;

/// Bytes of a key file that are looked at: more is no key of ours.
const KEY_BYTES_MAX: u64 = 256;
/// Bytes that a key has at least; a shorter one was cut off as it was written, and told to nobody.
const KEY_BYTES_MIN: usize = 32;

/// The key, for as long as this lives.
#[derive(Debug)]
pub(in crate::cli) struct Key {
    /// What the broker is told.
    pub(in crate::cli) secret: String,
    _locked: File,
}

/// Takes the key of a name, made where there is none yet.
///
/// # Errors
/// When another process has it, or the file cannot be read or written.
pub(in crate::cli) fn take(folder: &Path, name: &ProviderName) -> Result<Key, Failure> {
    let path = folder.join(format!("provider-{name}.key"));
    let failed = |error: std::io::Error| {
        Failure::refused(format!("{}, where the provider's key is kept, cannot be used: {error}", path.display()))
    };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(Failure::refused(format!(
                "provider {name} runs on this machine already ({} is locked): stop it, or give this one another --name",
                path.display()
            )));
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    let mut text = String::new();
    (&file).take(KEY_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    let mut secret = text.trim().to_owned();
    if secret.len() < KEY_BYTES_MIN {
        secret = random_secret();
        // Durable before a broker has it: a key that is lost makes a stranger of the successor.
        let written = file.set_len(0).and_then(|()| file.rewind());
        let written = written.and_then(|()| writeln!(file, "{secret}")).and_then(|()| file.sync_all());
        written.map_err(failed)?;
    }
    Ok(Key { secret, _locked: file })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::take;
    use crate::core::types::ProviderName;

    #[test]
    fn a_key_is_kept_and_is_one_process_s_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("state");
        let name = |text| ProviderName::parse(text).unwrap();
        let first = take(&folder, &name("rack")).unwrap();
        let refused = take(&folder, &name("rack")).unwrap_err();
        assert!(refused.message.contains("runs on this machine already"), "{refused}");
        assert_ne!(take(&folder, &name("bench")).unwrap().secret, first.secret);
        let (secret, path) = (first.secret.clone(), folder.join("provider-rack.key"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(first);
        assert_eq!(take(&folder, &name("rack")).unwrap().secret, secret);
        // One that a crash cut short was never told to a broker.
        std::fs::write(&path, "abc").unwrap();
        let anew = take(&folder, &name("rack")).unwrap().secret;
        assert_ne!(anew, secret);
        assert_eq!(take(&folder, &name("rack")).unwrap().secret, anew);
    }
}
