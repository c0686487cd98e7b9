//! Key files: the secrets of the server, made on the first start and kept for the next ones.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

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

    /// Whether it is the same secret.
    pub fn is_same(&self, other: &Self) -> bool {
        self.0 == other.0
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
    match create(path, bytes.as_slice()) {
        // Another server was faster: its key is the key.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        created => created.map_err(failed)?,
    }
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

/// A key file that can be changed while both keys are needed: the key before stands beside it, in a file of the
/// same name with `.previous` behind it, until whoever needs it says that nobody does.
#[derive(Debug, Clone)]
pub struct ChangingKey {
    path: PathBuf,
}

impl ChangingKey {
    /// The key at this path.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where the key stands.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the key before stands while it is needed.
    pub fn previous_path(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".previous");
        name.into()
    }

    /// The key, which is made when there is none, and the one before where that is still needed.
    ///
    /// # Errors
    /// As [`load_or_create_key`].
    pub fn load(&self) -> Result<(Key, Option<Key>), AuthError> {
        Ok((load_or_create_key(&self.path)?, load(&self.previous_path())?))
    }

    /// The same, where there has to be a key.
    ///
    /// # Errors
    /// As [`load_key`].
    pub fn read(&self) -> Result<(Key, Option<Key>), AuthError> {
        Ok((load_key(&self.path)?, load(&self.previous_path())?))
    }

    /// Makes a new key in the place of this one, which becomes the one before. At each moment, whatever
    /// stops the process or the machine, the files hold the key of everything that was sealed: first the
    /// key of now is written beside itself, then the new one takes its place in one step. A change that was
    /// cut off between the two left the same key twice: it is no change, and this one goes on from there.
    ///
    /// # Errors
    /// [`AuthError::KeyChanging`] while there is one before, [`AuthError::KeyIsLink`] for a file that something else
    /// keeps, [`AuthError::KeyFile`] when the directory cannot be written; otherwise as [`load_or_create_key`].
    pub fn change(&self) -> Result<Key, AuthError> {
        let path = &self.path;
        let failed = |source| AuthError::KeyFile { path: path.clone(), source };
        let previous = self.previous_path();
        if fs::symlink_metadata(path).map_err(failed)?.is_symlink() {
            return Err(AuthError::KeyIsLink { path: path.clone() });
        }
        let current = load_key(path)?;
        let before = load(&previous)?;
        if before.as_ref().is_some_and(|before| !before.is_same(&current)) {
            return Err(AuthError::KeyChanging { path: previous });
        }
        let bytes = Zeroizing::new(random_bytes::<KEY_BYTES_MIN>()?);
        let new = written(path, bytes.as_slice()).map_err(failed)?;
        if before.is_none() {
            create(&previous, current.as_bytes()).map_err(failed)?;
        }
        if let Err(error) = new.persist(path) {
            // Nothing was changed: the key stands where it stood.
            if load_key(path)?.is_same(&current) {
                self.forget_previous()?;
            }
            return Err(failed(error.error));
        }
        synced(path).map_err(failed)?;
        Ok(Key(Zeroizing::new(bytes.to_vec())))
    }

    /// Removes the key before: nothing needs it any more.
    ///
    /// # Errors
    /// [`AuthError::KeyFile`].
    pub fn forget_previous(&self) -> Result<(), AuthError> {
        let path = self.previous_path();
        let removed = match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| synced(&path)),
        };
        removed.map_err(|source| AuthError::KeyFile { path, source })
    }
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

/// Writes a file beside `path`, then gives it that name; fails with `AlreadyExists` where another file has it.
fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    written(path, bytes)?.persist_noclobber(path).map_err(|error| error.error)?;
    synced(path)
}

/// A new file beside `path`, created exclusively with mode 0600, on the disk.
fn written(path: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
    let mut file = NamedTempFile::new_in(directory_of(path))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// Brings the names of the directory that holds `path` to the disk.
fn synced(path: &Path) -> io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
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
        let refused = create(&path, &[2; 32]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(load_or_create_key(&path).unwrap().as_bytes(), [1; 32]);
    }

    #[cfg(unix)]
    #[test]
    fn a_key_is_changed_beside_the_one_before() {
        use std::os::unix::fs::{PermissionsExt, symlink};

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master.key");
        let key = ChangingKey::new(path.clone());
        assert!(matches!(key.change(), Err(AuthError::KeyFile { .. })), "there is none yet");
        let (first, previous) = key.load().unwrap();
        assert!(previous.is_none());
        let second = key.change().unwrap();
        assert_ne!(first.as_bytes(), second.as_bytes());
        let loaded = key.load().unwrap();
        assert_eq!(loaded.0.as_bytes(), second.as_bytes());
        assert_eq!(loaded.1.unwrap().as_bytes(), first.as_bytes());
        for path in [&path, &key.previous_path()] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let refused = key.change().unwrap_err();
        assert!(refused.to_string().contains("master.key.previous"), "{refused}");
        assert_eq!(key.load().unwrap().0.as_bytes(), second.as_bytes());
        key.forget_previous().unwrap();
        key.forget_previous().unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);

        let link = directory.path().join("link.key");
        symlink(&path, &link).unwrap();
        let refused = ChangingKey::new(link).change().unwrap_err();
        assert!(matches!(refused, AuthError::KeyIsLink { .. }), "{refused}");
        assert_eq!(key.load().unwrap().0.as_bytes(), second.as_bytes());
    }

    #[test]
    fn a_change_that_was_cut_off_before_the_new_key_was_there_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let key = ChangingKey::new(directory.path().join("master.key"));
        let (first, _) = key.load().unwrap();
        fs::copy(key.path(), key.previous_path()).unwrap();
        let second = key.change().unwrap();
        assert!(!second.is_same(&first));
        let (current, previous) = key.load().unwrap();
        assert!(current.is_same(&second) && previous.unwrap().is_same(&first));
        assert!(matches!(key.change(), Err(AuthError::KeyChanging { .. })));
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
