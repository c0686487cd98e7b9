//! A backup of the whole server, in a directory of its own.

use std::path::{Path, PathBuf};

use iris_backup::server::{
    Outcome, ServerManifest, ServerSource, read_server_manifest, write_server,
};
use iris_protocol::{ApiError, ServerBackup, UserId};
use iris_store::root::RecordAudit;
use iris_store::{Committed, WriteContext};
use serde_json::{Value, json};

use super::archiver::Task;
use super::desk::{Desk, on_disk, stored};
use super::files::{backups_dir, make_dir, names};
use super::writing::failed;
use crate::write;

/// Backs up the whole server. The key that signs access tokens is not in it.
pub(crate) struct BackUpServer {
    pub(crate) by: UserId,
    pub(crate) context: WriteContext,
}

impl Task for BackUpServer {
    const NAME: &'static str = "back up the server";

    type Output = Committed<ServerBackup>;

    fn lane(&self) -> String {
        "server".to_owned()
    }

    fn by(&self) -> Option<&UserId> {
        Some(&self.by)
    }

    /// What the audit says of it is the backup: so a repeat finds it there.
    async fn run(self, desk: Desk) -> Result<Committed<ServerBackup>, ApiError> {
        if let Some(key) = self.context.idempotency.clone() {
            let first = desk.root_reader.recall::<RecordAudit>(key).await;
            if let Some(first) = first.map_err(|e| stored(&e))? {
                return audited(first);
            }
        }
        desk.check_space()?;
        let (to, at) = (directory(desk.data_dir()), desk.now_ms());
        let source = ServerSource { data_dir: desk.data_dir().to_owned(), keys: None };
        let written = on_disk(move || {
            make_dir(&to).map_err(failed(&to))?;
            write_server(&source, &to, at)
        });
        let written = written.await?;
        for (project, reason) in written.manifest.failed() {
            tracing::error!(project.id = %project.id, reason, "a project is not in the backup");
        }
        let backup = described(&written.directory, &written.manifest);
        let audit = desk.audit(&self.by, "admin.backup.create", "server", json!(backup));
        let recorded = write(&desk.root, audit, self.context).await;
        audited(recorded.map_err(|e| stored(&e))?)
    }
}

fn audited(recorded: Committed<Value>) -> Result<Committed<ServerBackup>, ApiError> {
    let Committed { output, seq, replayed } = recorded;
    let output = serde_json::from_value(output).map_err(|error| stored(&error.into()))?;
    Ok(Committed { output, seq, replayed })
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
