//! Making a backup of one project, while it is used.

use std::io;
use std::path::{Path, PathBuf};

use iris_backup::BackupError;
use iris_protocol::{ApiError, Backup, BackupId, BackupKind, ErrorCode, ProjectId, UserId};
use iris_store::root::RecordBackup;
use iris_store::{Committed, StoreError, WriteContext};
use serde_json::json;

use super::archiver::Task;
use super::desk::{Desk, on_disk, stored, undisturbed};
use super::files::{
    NewFile, archive_name, make_dir, make_private, project_dir, rename, unrecorded,
};
use crate::record;

/// How long an export can be downloaded, in milliseconds.
const EXPORT_KEPT_MS: i64 = 24 * 60 * 60 * 1000;

/// Backs up a project.
pub(crate) struct WriteBackup {
    pub(crate) project_id: ProjectId,
    pub(crate) kind: BackupKind,
    /// None: the server does it by itself.
    pub(crate) by: Option<UserId>,
    pub(crate) context: WriteContext,
}

impl Task for WriteBackup {
    const NAME: &'static str = "back up a project";

    type Output = Committed<Backup>;

    fn lane(&self) -> String {
        self.project_id.to_string()
    }

    fn by(&self) -> Option<&UserId> {
        self.by.as_ref()
    }

    async fn run(self, desk: Desk) -> Result<Committed<Backup>, ApiError> {
        // The first one with this key may have been in the lane before.
        if let Some(key) = self.context.idempotency.clone()
            && let Some(first) =
                desk.root_reader.recall::<RecordBackup>(key).await.map_err(|e| stored(&e))?
        {
            return Ok(first);
        }
        desk.check_space()?;
        self.write(&desk).await
    }
}

impl WriteBackup {
    /// As a step of a task that has the lane already.
    pub(super) async fn write(self, desk: &Desk) -> Result<Committed<Backup>, ApiError> {
        let source = desk.source(&self.project_id).await?;
        let (id, at) = (BackupId::from_bits(desk.services.ids.next_bits()), desk.now_ms());
        let directory = project_dir(desk.data_dir(), &self.project_id);
        let file = archive_name(at, &id);
        let archive = directory.join(&file);
        let new = unrecorded(&archive);
        let (info, new) = on_disk(move || {
            make_dir(&directory).map_err(failed(&directory))?;
            let info = iris_backup::write_project(&source, &new, at)?;
            let new = NewFile::new(new);
            make_private(new.path()).map_err(failed(new.path()))?;
            Ok((info, new))
        })
        .await?;
        let backup = Backup {
            id,
            project_id: self.project_id,
            kind: self.kind,
            at,
            bytes: info.bytes,
            sha256: info.sha256,
            seq: info.manifest.seq,
            epoch: info.manifest.epoch,
            by: self.by.clone(),
            verified_at: desk.now_ms(),
            expires_at: (self.kind == BackupKind::Export).then(|| at + EXPORT_KEPT_MS),
        };
        let audit = match (self.kind, &self.by) {
            (BackupKind::Export, Some(by)) => {
                let details = json!({ "backupId": backup.id });
                Some(desk.audit(by, "project.export", backup.project_id.as_str(), details))
            }
            (BackupKind::Manual | BackupKind::Scheduled | BackupKind::Safety, _)
            | (BackupKind::Export, None) => None,
        };
        let command = RecordBackup { backup, file, audit };
        finish(desk, command, self.context, new, archive).await
    }
}

/// Records a backup and gives its archive its name. Once it began it goes on to its end, whatever
/// becomes of the task.
async fn finish(
    desk: &Desk,
    command: RecordBackup,
    context: WriteContext,
    new: NewFile,
    archive: PathBuf,
) -> Result<Committed<Backup>, ApiError> {
    let (desk, id) = (desk.clone(), command.backup.id.clone());
    let project_id = command.backup.project_id.clone();
    undisturbed(async move {
        let recorded = record(&desk.root, command, context).await;
        let has_row = match &recorded {
            Ok(recorded) => !recorded.replayed,
            // Perhaps it is committed. If that cannot be found out now, the next start does.
            Err(StoreError::Closed) => match desk.root_reader.backup(&project_id, &id).await {
                Ok(found) => found.is_some(),
                Err(error) => {
                    new.keep();
                    return Err(stored(&error));
                }
            },
            Err(_) => false,
        };
        on_disk(move || {
            if !has_row {
                drop(new);
                // That of a project which was deleted meanwhile is empty now; others are not removed.
                drop(archive.parent().map(std::fs::remove_dir));
                return Ok(());
            }
            rename(&new.keep(), &archive).map_err(failed(&archive))
        })
        .await?;
        recorded.map_err(|error| refusal(&error))
    })
    .await
}

fn refusal(error: &StoreError) -> ApiError {
    if matches!(error, StoreError::Conflict { reason: "too_many_backups", .. }) {
        let wire = ApiError::new(ErrorCode::QuotaExceeded, error.to_string());
        return wire.reason("too_many_backups");
    }
    stored(error)
}

/// A failure of the disk while `path` was worked on.
pub(super) fn failed(path: &Path) -> impl Fn(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| {
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return BackupError::StorageFull;
        }
        BackupError::Io { path: path.clone(), source }
    }
}
