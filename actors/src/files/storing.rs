//! The files of a project without a directory, as its database has them.

use iris_protocol::ApiError;
use iris_store::project::{ProjectReader, TreeEntry, TreeFile};
use iris_workspace::{FileStore, StoredEntry, StoredFile};

use super::stored;

/// Reads them.
pub(crate) struct ProjectFiles {
    reader: ProjectReader,
}

impl ProjectFiles {
    pub(crate) fn new(reader: ProjectReader) -> Self {
        Self { reader }
    }
}

fn file_of(file: TreeFile) -> StoredFile {
    let TreeFile { size, hash, mode, updated_at } = file;
    StoredFile { size, hash, mode, modified_ms: updated_at }
}

impl FileStore for ProjectFiles {
    fn file(&self, path: &str) -> Result<Option<StoredFile>, ApiError> {
        Ok(self.reader.tree_file(path).map_err(stored)?.map(file_of))
    }

    fn read(&self, path: &str) -> Result<Option<(StoredFile, Vec<u8>)>, ApiError> {
        let read = self.reader.tree_read(path).map_err(stored)?;
        Ok(read.map(|(file, bytes)| (file_of(file), bytes)))
    }

    fn entries(&self, directory: &str, entries_max: usize) -> Result<Vec<StoredEntry>, ApiError> {
        let entries = self.reader.tree_entries(directory, entries_max).map_err(stored)?;
        let entries = entries
            .into_iter()
            .map(|TreeEntry { name, file }| StoredEntry { name, file: file.map(file_of) });
        Ok(entries.collect())
    }
}
