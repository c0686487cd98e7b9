//! What is left of projects that do not exist: removed with a deleted project, and found again when a
//! crash came in between.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;

use iris_store::WriteContext;
use iris_store::root::{ForgetDirectory, Leftover};

use crate::backups::remove_backups;
use crate::directory::ProjectPlaces;
use crate::supervision::detached;
use crate::{Node, NodeError, record};

impl Node {
    /// Removes what a crash left of projects that were being created or deleted; in the background,
    /// and nothing else. Call it before anybody can create or delete one.
    ///
    /// # Errors
    /// When the root database cannot be read.
    pub async fn remove_leftovers(&self) -> Result<(), NodeError> {
        let leftovers = self.root_reader.leftovers().await?;
        let node = self.clone();
        if !leftovers.is_empty() {
            detached(async move {
                for leftover in leftovers {
                    tracing::warn!(project.id = %leftover.project_id, "what a crash left of a project is removed");
                    remove(&node, leftover).await;
                }
            });
        }
        Ok(())
    }
}

/// Removes everything that the server keeps of a project that does not exist. What cannot be removed
/// now is tried again at the next start.
pub(crate) async fn remove(node: &Node, leftover: Leftover) {
    let (data_dir, project_id) =
        (node.services.settings.data_dir.clone(), leftover.project_id.clone());
    let removed = tokio::task::spawn_blocking(move || remove_files(&data_dir, &leftover)).await;
    match removed.map_err(io::Error::other).flatten() {
        Ok(()) => {
            let forget = ForgetDirectory { project_id: project_id.clone() };
            if let Err(error) = record(&node.root, forget, WriteContext::default()).await {
                tracing::warn!(project.id = %project_id, %error, "a removed project is removed again at the next start");
            }
        }
        Err(error) => {
            tracing::error!(project.id = %project_id, %error, "a project's files could not be removed");
        }
    }
}

/// Removes all files of a project: its directory with the database, the logs beside it and the files
/// that were not given a directory of their own, and its backups where they are to go.
fn remove_files(data_dir: &Path, leftover: &Leftover) -> io::Result<()> {
    let directory = ProjectPlaces::new(data_dir, &leftover.project_id).directory;
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    if leftover.with_backups {
        remove_backups(data_dir, &leftover.project_id)?;
    }
    // A loss of power must not bring it back once nobody knows of it any more.
    match directory.parent().map(File::open) {
        Some(Ok(parent)) => parent.sync_all(),
        Some(Err(error)) if error.kind() != ErrorKind::NotFound => Err(error),
        Some(Err(_)) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use iris_protocol::ProjectId;

    use super::*;

    #[test]
    fn all_files_of_one_project_go_and_no_others() {
        let data_dir = tempfile::tempdir().unwrap();
        let (gone, kept) = (ProjectId::from_bits(1), ProjectId::from_bits(2));
        let [gone_dir, kept_dir] =
            [&gone, &kept].map(|id| ProjectPlaces::new(data_dir.path(), id).directory);
        for directory in [&gone_dir, &kept_dir] {
            fs::create_dir_all(directory.join("files/deep")).unwrap();
            for name in ["project.db", "project.db-wal", "project.db.new", "files/deep/a"] {
                fs::write(directory.join(name), "x").unwrap();
            }
        }
        let backups = data_dir.path().join("backups").join(gone.as_str());
        fs::create_dir_all(&backups).unwrap();
        let mut gone = Leftover { project_id: gone, with_backups: false };
        remove_files(data_dir.path(), &gone).unwrap();
        assert!(!gone_dir.exists() && backups.exists());
        gone.with_backups = true;
        remove_files(data_dir.path(), &gone).unwrap();
        assert!(!backups.exists());
        assert!(kept_dir.join("files/deep/a").exists());
        // As often as it takes, and where nothing ever was.
        remove_files(data_dir.path(), &gone).unwrap();
        remove_files(&data_dir.path().join("nowhere"), &gone).unwrap();
    }
}
