//! Key files: the secrets of the server, made on the first start and kept for the next ones.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use crate::random::random_bytes;
use crate::{AuthError, KEY_BYTES_MIN};

/// Largest key file, in bytes; a larger one is something else.
pub(crate) const KEY_FILE_BYTES_MAX: usize = 4096;

/// The bytes of a key file, at least [`KEY_BYTES_MIN`], wiped from memory when dropped.
#[derive(Clone)]
pub struct Key(Zeroizing<Vec<u8>>);

impl Key {
    /// The secret.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Reads the key at `path`, or writes a new random one there when there is no file.
///
/// All bytes of the file are the key, whatever they are. A new file appears whole or not at all,
/// readable by its owner only; when two servers make it at once, both get the one that came first.
///
/// # Errors
/// [`AuthError::KeyFileSize`] for a file that is empty, too short or too long, [`AuthError::KeyFile`]
/// when it cannot be read or created, [`AuthError::Internal`] without random bytes.
pub fn load_or_create_key(path: &Path) -> Result<Key, AuthError> {
    let failed = |source| AuthError::KeyFile { path: path.to_owned(), source };
    if let Some(key) = load(path)? {
        return Ok(key);
    }
    let bytes = Zeroizing::new(random_bytes::<KEY_BYTES_MIN>()?);
    create(path, bytes.as_slice()).map_err(failed)?;
    load(path)?.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
}

/// Reads the key at `path`.
///
/// # Errors
/// As [`load_or_create_key`]; [`AuthError::KeyFile`] also when there is no file.
pub fn load_key(path: &Path) -> Result<Key, AuthError> {
    let missing = || io::ErrorKind::NotFound.into();
    load(path)?.ok_or_else(|| AuthError::KeyFile { path: path.to_owned(), source: missing() })
}

fn load(path: &Path) -> Result<Option<Key>, AuthError> {
    let failed = |source| AuthError::KeyFile { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_FILE_BYTES_MAX + 1));
    file.take(KEY_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if !(KEY_BYTES_MIN..=KEY_FILE_BYTES_MAX).contains(&bytes.len()) {
        return Err(AuthError::KeyFileSize { path: path.to_owned(), found: bytes.len() });
    }
    Ok(Some(Key(bytes)))
}

/// Writes a file beside `path` (created exclusively, mode 0600), then gives it that name unless
/// another file has it by now.
fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    let mut file = NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => File::open(directory)?.sync_all(),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_new_key_is_kept_for_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jwt.key");
        let key = load_or_create_key(&path).unwrap();
        assert_eq!(key.as_bytes().len(), KEY_BYTES_MIN);
        assert_eq!(load_or_create_key(&path).unwrap().as_bytes(), key.as_bytes());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "a temporary file is left");

        let other = load_or_create_key(&directory.path().join("other.key")).unwrap();
        assert_ne!(other.as_bytes(), key.as_bytes());
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_may_read_a_new_key() {
        use std::os::unix::fs::PermissionsExt;

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jwt.key");
        load_or_create_key(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_of_the_wrong_size_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jwt.key");
        for size in [0, KEY_BYTES_MIN - 1, KEY_FILE_BYTES_MAX + 1] {
            fs::write(&path, vec![b'x'; size]).unwrap();
            let error = load_or_create_key(&path).unwrap_err();
            let expected = format!("`{}` holds {size} bytes, it needs 32 to 4096", path.display());
            assert!(error.to_string().contains(&expected), "{error}");
            assert_eq!(fs::metadata(&path).unwrap().len(), size as u64);
        }
        for size in [KEY_BYTES_MIN, KEY_FILE_BYTES_MAX] {
            fs::write(&path, vec![b'x'; size]).unwrap();
            assert_eq!(load_or_create_key(&path).unwrap().as_bytes().len(), size);
        }
    }

    #[test]
    fn a_key_that_appears_meanwhile_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jwt.key");
        create(&path, &[1; 32]).unwrap();
        create(&path, &[2; 32]).unwrap();
        assert_eq!(load_or_create_key(&path).unwrap().as_bytes(), [1; 32]);
    }

    #[test]
    fn a_place_that_cannot_hold_a_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing").join("jwt.key");
        for path in [missing.as_path(), directory.path()] {
            let error = load_or_create_key(path).unwrap_err();
            assert!(matches!(error, AuthError::KeyFile { .. }), "{error}");
            assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
        }
        let missing = load_key(&directory.path().join("none.key")).unwrap_err();
        assert!(matches!(missing, AuthError::KeyFile { .. }), "{missing}");
    }

    #[test]
    fn a_key_does_not_show_itself() {
        let directory = tempfile::tempdir().unwrap();
        let key = load_or_create_key(&directory.path().join("jwt.key")).unwrap();
        assert_eq!(format!("{key:?}"), "Key(..)");
    }
}
