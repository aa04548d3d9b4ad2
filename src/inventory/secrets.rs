//! The values of secrets, read at hand-out and never before.
//!
//! Owns the reading of an environment variable or a file into a value for one holder. It keeps
//! nothing, and no error of it has the value, or a part of it, in its text: errors are logged.

use std::fs::File;
use std::io::Read;

use crate::core::inventory::SecretRef;

/// Bytes of a secret's value. A larger one cannot be handed out.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;

/// Reads a secret's value. A file's last line break is not part of it, as editors add one. Blocks
/// for as long as the file system does.
///
/// # Errors
/// In words: which reference, and why. Never the value.
pub fn resolve(reference: &SecretRef) -> Result<String, String> {
    match reference {
        SecretRef::Env(name) => from_env(name),
        SecretRef::File(path) => from_file(path),
    }
}

fn from_env(name: &str) -> Result<String, String> {
    // The standard library panics on such names.
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err("the secret's environment variable has a name that no variable can have".to_owned());
    }
    let value = std::env::var_os(name)
        .ok_or_else(|| format!("the broker has no environment variable {name}: set it and restart the broker"))?;
    let value = value.into_string().map_err(|_| format!("the environment variable {name} is not UTF-8"))?;
    if value.len() > SECRET_BYTES_MAX {
        return Err(format!("the environment variable {name} is larger than {SECRET_BYTES_MAX} bytes"));
    }
    Ok(value)
}

fn from_file(path: &str) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("the file {path} cannot be read by the broker: {error}");
    // Asked before opening: opening a pipe that nobody writes to would wait for ever.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(format!("{path} is not a file"));
    }
    let mut bytes = Vec::new();
    // Two more than a value may have: room for the line break, and for telling that there is too much.
    let room = u64::try_from(SECRET_BYTES_MAX + 3).expect("64 KiB fit");
    File::open(path).map_err(failed)?.take(room).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    if bytes.len() > SECRET_BYTES_MAX {
        return Err(format!("the file {path} is larger than {SECRET_BYTES_MAX} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| format!("the file {path} is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::{SECRET_BYTES_MAX, resolve};
    use crate::core::inventory::SecretRef;

    fn file(bytes: &[u8]) -> (tempfile::TempDir, SecretRef) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        std::fs::write(&path, bytes).expect("written");
        let reference = SecretRef::File(path.to_str().expect("UTF-8").into());
        (folder, reference)
    }

    #[test]
    fn a_file_loses_one_line_break_at_its_end() {
        for (bytes, value) in
            [("1234\n", "1234"), ("1234", "1234"), ("12\n34\r\n", "12\n34"), ("1234\n\n", "1234\n"), ("", "")]
        {
            let (_folder, reference) = file(bytes.as_bytes());
            assert_eq!(resolve(&reference).as_deref(), Ok(value), "{bytes:?}");
        }
    }

    #[test]
    fn the_largest_value_fits_and_one_byte_more_does_not() {
        let mut bytes = vec![b'x'; SECRET_BYTES_MAX];
        bytes.push(b'\n');
        let (_folder, reference) = file(&bytes);
        assert_eq!(resolve(&reference).map(|value| value.len()), Ok(SECRET_BYTES_MAX));
        let (_folder, reference) = file(&vec![b'x'; SECRET_BYTES_MAX + 1]);
        let error = resolve(&reference).expect_err("too large");
        assert!(error.contains("larger than"), "{error}");
    }

    #[test]
    fn errors_name_the_reference_and_never_the_value() {
        let (_folder, reference) = file(b"hunter2\xff");
        let error = resolve(&reference).expect_err("not UTF-8");
        assert!(error.contains("not UTF-8") && !error.contains("hunter2"), "{error}");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_str().expect("UTF-8");
        for (reference, wrong) in [
            (SecretRef::File(path.into()), "is not a file"),
            (SecretRef::File(format!("{path}/absent").into()), "cannot be read"),
            (SecretRef::Env("LEASEHOLD_TEST_ABSENT".into()), "LEASEHOLD_TEST_ABSENT"),
            (SecretRef::Env("A=B".into()), "no variable can have"),
            (SecretRef::Env("".into()), "no variable can have"),
        ] {
            let error = resolve(&reference).expect_err(wrong);
            assert!(error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn the_environment_is_read() {
        let path = std::env::var("PATH").expect("tests run with a PATH");
        assert_eq!(resolve(&SecretRef::Env("PATH".into())), Ok(path));
    }
}
