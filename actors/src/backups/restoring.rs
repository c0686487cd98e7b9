//! Putting a project back to a backup.
//!
//! The new state is made whole beside the project; then the project is closed, what it is now is backed
//! up, and both change places in one step. So whatever happens there is the old state or the new one,
//! and everything that was acknowledged before is in one of them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use iris_backup::{BackupError, Bounds, Identity, Unpacked, make_directories};
use iris_protocol::{
    ApiError, Backup, BackupId, BackupKind, ErrorCode, Event, ProjectId, RestorePayload, Room,
    UserId,
};
use iris_store::project::ProjectDatabase;
use iris_store::root::{MarkUnfinished, RecordRestore, StoredBackup};
use iris_store::{Committed, StoreError, WriteContext, WriteTx};
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::archiver::Task;
use super::desk::{Desk, on_disk, stored, undisturbed};
use super::files::{self, NewFile, archive_path, make_dir, project_dir, stamp};
use super::schedule::retain;
use super::writing::{WriteBackup, failed};
use crate::directory::{FilesLease, OpenProject, TakeProject};
use crate::record;
use crate::supervision::AskError;

/// Puts a project back to a backup.
pub(crate) struct RestoreBackup {
    pub(crate) project_id: ProjectId,
    pub(crate) backup_id: BackupId,
    pub(crate) by: UserId,
    pub(crate) context: WriteContext,
}

impl Task for RestoreBackup {
    const NAME: &'static str = "restore a project";

    type Output = Committed<RestorePayload>;

    fn lane(&self) -> String {
        self.project_id.to_string()
    }

    fn by(&self) -> Option<&UserId> {
        Some(&self.by)
    }

    async fn run(self, desk: Desk) -> Result<Committed<RestorePayload>, ApiError> {
        if let Some(key) = self.context.idempotency.clone() {
            let first = desk.root_reader.recall::<RecordRestore>(key).await;
            if let Some(first) = first.map_err(|e| stored(&e))? {
                return Ok(first);
            }
        }
        desk.check_space()?;
        let found = desk.root_reader.backup(&self.project_id, &self.backup_id).await;
        let found = found.map_err(|e| stored(&e))?;
        let found = found.ok_or_else(|| ApiError::not_found("backup"))?;
        let location = desk.root_reader.project_location(&self.project_id).await;
        let location = location.map_err(|e| stored(&e))?;
        let location = location.ok_or_else(|| ApiError::not_found("project"))?;
        let has_files = location.path.is_none();
        let prepared = self.prepare(&desk, &found, has_files).await?;

        let taken = desk.directory.insist(|| TakeProject(self.project_id.clone())).await;
        let lease = taken.map_err(AskError::to_api)??;
        let safety = self.safety(&desk).await?;
        let details =
            json!({ "backupId": self.backup_id, "safety": safety.as_ref().map(|b| &b.id) });
        let audit = desk.audit(&self.by, "project.restore", self.project_id.as_str(), details);
        desk.record_audit(audit).await?;
        let outcome = RestorePayload {
            restored: found.backup,
            safety,
            epoch: prepared.epoch.clone(),
            seq: prepared.seq,
            files: has_files,
        };
        undisturbed(self.exchange(&desk, prepared, lease, outcome)).await
    }
}

/// The state that the project is to have, whole, beside it.
struct Prepared {
    unpacked: Unpacked,
    directory: NewFile,
    epoch: String,
    /// The event that says what happened.
    seq: u64,
}

impl RestoreBackup {
    async fn prepare(
        &self,
        desk: &Desk,
        found: &StoredBackup,
        has_files: bool,
    ) -> Result<Prepared, ApiError> {
        let archive = archive_path(desk.data_dir(), &self.project_id, &found.file);
        let projects = desk.data_dir().join("projects");
        let bits = desk.services.ids.next_bits();
        let into = projects.join(format!("{}{bits:032x}", iris_backup::TEMP_PREFIX));
        let epoch = format!("{:032x}", desk.services.ids.next_bits());
        let (id, users) = (self.project_id.clone(), BTreeMap::new());
        let identity = Identity { id, epoch, users, importer: None };
        let event = TellRestored {
            project_id: self.project_id.clone(),
            backup_id: self.backup_id.clone(),
            taken_at: found.backup.at,
            by: self.by.clone(),
            at: desk.now_ms(),
        };
        on_disk(move || {
            make_directories(&projects)?;
            let directory = NewFile::new(into.clone());
            let unpacked = iris_backup::unpack(&archive, &into, Bounds::default())?;
            if unpacked.manifest.project_id != identity.id {
                let reason = "it is of another project".to_owned();
                return Err(BackupError::Corrupt { reason });
            }
            iris_backup::adopt(&unpacked, &identity)?;
            let seq = publish(&unpacked, &identity.id, event)?;
            if !has_files {
                empty(&unpacked.files).map_err(failed(&unpacked.files))?;
            }
            Ok(Prepared { unpacked, directory, epoch: identity.epoch, seq })
        })
        .await
    }

    /// A backup of what the project is now; none when that cannot be read any more: its database is
    /// damaged, its files are gone, or the disk fails below them. It is kept as it is then, beside the
    /// backups.
    async fn safety(&self, desk: &Desk) -> Result<Option<Backup>, ApiError> {
        let backup = WriteBackup {
            project_id: self.project_id.clone(),
            kind: BackupKind::Safety,
            by: Some(self.by.clone()),
            context: WriteContext::default(),
        };
        match backup.write(desk).await {
            Ok(committed) => Ok(Some(committed.output)),
            Err(error) if matches!(error.code, ErrorCode::ProjectCorrupt | ErrorCode::Internal) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Changes the places, records it and opens the project. Once it began it goes on to its end,
    /// whatever becomes of the task.
    fn exchange(
        self,
        desk: &Desk,
        prepared: Prepared,
        lease: FilesLease,
        outcome: RestorePayload,
    ) -> impl Future<Output = Result<Committed<RestorePayload>, ApiError>> + 'static {
        let desk = desk.clone();
        async move {
            let place = desk.places(&self.project_id).directory;
            let aside = outcome.safety.is_none().then(|| self.place_aside(&desk));
            let Prepared { unpacked, directory, .. } = prepared;
            // Runs that were alive when the backup was made are recovered also if nobody opens it.
            let mark = MarkUnfinished { project_id: self.project_id.clone(), at: desk.now_ms() };
            let marked = record(&desk.root, mark, WriteContext::default()).await;
            marked.map_err(|e| stored(&e))?;
            on_disk(move || {
                put(&unpacked, &place, aside.as_deref())?;
                // It is the project now.
                directory.keep();
                Ok(())
            })
            .await?;
            let recorded =
                record(&desk.root, RecordRestore { outcome }, self.context.clone()).await;
            self.remove_if_deleted(&desk).await?;
            drop(lease);
            let (answer, opened) = oneshot::channel();
            desk.directory.tell(OpenProject { id: self.project_id.clone(), answer });
            match opened.await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::error!(?error, "a restored project does not open"),
                Err(_) => tracing::warn!("nobody opened a restored project"),
            }
            retain(&desk, &self.project_id).await;
            recorded.map_err(|e| stored(&e))
        }
    }

    /// Whoever deleted the project meanwhile may have looked for its directory in vain.
    async fn remove_if_deleted(&self, desk: &Desk) -> Result<(), ApiError> {
        let found = desk.root_reader.project_location(&self.project_id).await;
        if found.map_err(|e| stored(&e))?.is_some() {
            return Ok(());
        }
        let place = desk.places(&self.project_id).directory;
        let (data_dir, id) = (desk.data_dir().to_owned(), self.project_id.clone());
        on_disk(move || {
            files::remove(&place).map_err(failed(&place))?;
            files::remove_backups(&data_dir, &id).map_err(failed(&place))
        })
        .await?;
        Err(ApiError::not_found("project"))
    }

    fn place_aside(&self, desk: &Desk) -> PathBuf {
        let name = format!("{}-{}-damaged", stamp(desk.now_ms()), self.backup_id);
        project_dir(desk.data_dir(), &self.project_id).join(name)
    }
}

/// The first event of a state that was put back. Written to a database that nobody has open yet.
struct TellRestored {
    project_id: ProjectId,
    backup_id: BackupId,
    taken_at: i64,
    by: UserId,
    at: i64,
}

impl iris_store::Command for TellRestored {
    type Output = ();

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let Self { project_id, backup_id, taken_at, by, at } = self;
        let room = Room::Project(project_id.clone());
        let event = Event::ProjectRestored { project_id, backup_id, taken_at };
        tx.publish(room, at, Some(&by), &event).map(drop)
    }
}

/// Says in the log of the new state what happened. Answers the number of the event.
fn publish(unpacked: &Unpacked, id: &ProjectId, event: TellRestored) -> Result<u64, BackupError> {
    let database = ProjectDatabase::open(&unpacked.database, id, |_| {});
    let database = database.map_err(BackupError::Database)?;
    let published = database.writer().submit(event, WriteContext::default());
    // This is a thread that may wait.
    let published = Handle::current().block_on(published).map_err(BackupError::Database)?;
    database.close();
    Ok(published.seq.unwrap_or(0))
}

/// Leaves an empty directory. A project with a directory of its own keeps what is in it: Iris neither
/// made nor owns it.
fn empty(files: &Path) -> io::Result<()> {
    files::remove(files)?;
    make_dir(files)
}

/// Gives the new state the place of the old one. What no backup has is not thrown away, but put aside.
fn put(unpacked: &Unpacked, place: &Path, aside: Option<&Path>) -> Result<(), BackupError> {
    let files = place.join("files");
    let Some(aside) = aside else { return iris_backup::replace(unpacked, place, &files) };
    let backups = aside.parent().unwrap_or(aside);
    make_dir(backups).map_err(failed(backups))?;
    iris_backup::replace_kept(unpacked, place, &files, aside).map(drop)
}
