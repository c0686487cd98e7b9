//! A backup of the whole server, in a directory of its own.

use std::path::{Path, PathBuf};

use iris_backup::server::{
    Outcome, ServerManifest, ServerSource, read_server_manifest, write_server,
};
use iris_protocol::{ApiError, ServerBackup, UserId};
use serde_json::json;

use super::archiver::Task;
use super::desk::{Desk, on_disk};
use super::files::{backups_dir, make_dir, names};
use super::writing::failed;

/// Backs up the whole server. The key that signs access tokens is not in it.
pub(crate) struct BackUpServer {
    pub(crate) by: UserId,
}

impl Task for BackUpServer {
    const NAME: &'static str = "back up the server";

    type Output = ServerBackup;

    fn lane(&self) -> String {
        "server".to_owned()
    }

    async fn run(self, desk: Desk) -> Result<ServerBackup, ApiError> {
        let (to, at) = (directory(desk.data_dir()), desk.now_ms());
        let source = ServerSource { data_dir: desk.data_dir().to_owned(), key: None };
        let written = on_disk(move || {
            make_dir(&to).map_err(failed(&to))?;
            write_server(&source, &to, at)
        });
        let written = written.await?;
        for (project, reason) in written.manifest.failed() {
            tracing::error!(project.id = %project.id, reason, "a project is not in the backup");
        }
        let backup = described(&written.directory, &written.manifest);
        let details = json!({ "name": backup.name, "failed": backup.failed });
        let audit = desk.audit(&self.by, "admin.backup.create", "server", details);
        desk.record_audit(audit).await?;
        Ok(backup)
    }
}

/// Where backups of the whole server are.
pub(super) fn directory(data_dir: &Path) -> PathBuf {
    backups_dir(data_dir).join("server")
}

/// Those of the data directory, newest first. Waits for the disk.
pub(crate) fn server_backups(data_dir: &Path) -> Vec<ServerBackup> {
    let found = names(&directory(data_dir)).into_iter().filter_map(|(_, path)| {
        let manifest = read_server_manifest(&path).ok()?;
        Some(described(&path, &manifest))
    });
    let mut found: Vec<ServerBackup> = found.collect();
    found.sort_by(|one, other| (other.at, &other.name).cmp(&(one.at, &one.name)));
    found
}

fn described(directory: &Path, manifest: &ServerManifest) -> ServerBackup {
    let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let archived = manifest.projects.iter().filter(|project| match project.outcome {
        Outcome::Archived { .. } => true,
        Outcome::Absent | Outcome::Failed { .. } => false,
    });
    ServerBackup {
        name,
        at: manifest.taken_at,
        bytes: manifest.files.iter().map(|file| file.size).sum(),
        projects: archived.count() as u64,
        failed: manifest.failed().map(|(project, _)| project.id.clone()).collect(),
    }
}
