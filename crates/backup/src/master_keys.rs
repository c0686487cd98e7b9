//! The master keys that a server has while it is copied: it may change its key meanwhile.

use std::fs;
use std::io;
use std::path::Path;

use crate::error::BackupError;

/// The key that secrets are sealed with.
pub(crate) const MASTER_KEY: &str = "master.key";
/// There while the master key is being changed: what is not sealed anew yet needs it.
pub(crate) const MASTER_KEY_BEFORE: &str = "master.key.previous";

/// The keys that were seen, each once; the one that was current last at the end.
#[derive(Default)]
pub(crate) struct MasterKeys(Vec<Vec<u8>>);

impl MasterKeys {
    /// Notes the keys of now. A change between two of the looks hides none of them.
    pub(crate) fn look(&mut self, master: &Path) -> Result<(), BackupError> {
        let mut before = master.as_os_str().to_owned();
        before.push(".previous");
        for path in [master, Path::new(&before), master] {
            match fs::read(path) {
                Ok(key) => {
                    self.0.retain(|seen| *seen != key);
                    self.0.push(key);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(BackupError::io(path)(error)),
            }
        }
        Ok(())
    }

    /// The files that open all that was copied.
    pub(crate) fn kept(mut self) -> Result<Vec<(&'static str, Vec<u8>)>, BackupError> {
        let current = self.0.pop().map(|key| (MASTER_KEY, key));
        let before = self.0.pop().map(|key| (MASTER_KEY_BEFORE, key));
        if !self.0.is_empty() {
            return Err(BackupError::KeysChanged);
        }
        Ok(current.into_iter().chain(before).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_the_beginning_is_kept_and_a_third_one_refused() {
        let directory = tempfile::tempdir().unwrap();
        let master = directory.path().join(MASTER_KEY);
        let mut keys = MasterKeys::default();
        keys.look(&master).unwrap();
        assert!(MasterKeys::default().kept().unwrap().is_empty(), "there is none yet");
        fs::write(&master, "one").unwrap();
        keys.look(&master).unwrap();
        keys.look(&master).unwrap();
        // A whole change: nothing is left of the first key.
        fs::write(&master, "two").unwrap();
        keys.look(&master).unwrap();
        let seen = keys.0.clone();
        let kept = keys.kept().unwrap();
        assert_eq!(kept, [(MASTER_KEY, b"two".to_vec()), (MASTER_KEY_BEFORE, b"one".to_vec())]);

        let mut keys = MasterKeys(seen);
        fs::rename(&master, directory.path().join(MASTER_KEY_BEFORE)).unwrap();
        fs::write(&master, "three").unwrap();
        keys.look(&master).unwrap();
        assert!(matches!(keys.kept(), Err(BackupError::KeysChanged)));
    }
}
