//! A project out of an archive that somebody brought.

use std::collections::BTreeMap;
use std::path::PathBuf;

use iris_backup::{
    BackupError, Bounds, Identity, Manifest, ProjectAbout, Unpacked, make_directories,
};
use iris_protocol::{
    ApiError, ErrorCode, ImportId, ImportMembers, Project, ProjectId, UserId,
    limits::SETTINGS_BYTES_MAX,
};
use iris_store::maintenance;
use iris_store::project::{ProjectUsage, Quotas};
use iris_store::root::AcceptImport;
use iris_store::{Committed, StoreError, WriteContext};
use serde_json::json;

use super::archiver::Task;
use super::desk::{Desk, on_disk, refused, stored, undisturbed};
use super::files::{NewFile, incoming, project_dir, rename};
use super::writing::failed;
use crate::directory::{ProjectPlaces, TakeProject};
use crate::git::Reach;
use crate::record;
use crate::supervision::AskError;

/// Bytes that an archive may unpack to for each byte that it may have: anybody may send one, and a
/// small one can be of a size that no disk has.
const UNPACKED_PER_BYTE_MAX: u64 = 16;

/// Most members of an archive that are looked for on this server.
const MEMBERS_MAX: usize = 1_000;

/// Creates a project from an archive.
pub(crate) struct ImportArchive {
    pub(crate) archive: NewFile,
    pub(crate) id: ImportId,
    pub(crate) members: ImportMembers,
    pub(crate) by: UserId,
    pub(crate) context: WriteContext,
}

impl Task for ImportArchive {
    const NAME: &'static str = "import a project";

    type Output = Committed<Project>;

    /// One import of each user at a time.
    fn lane(&self) -> String {
        format!("import {}", self.by)
    }

    fn by(&self) -> Option<&UserId> {
        Some(&self.by)
    }

    async fn run(self, desk: Desk) -> Result<Committed<Project>, ApiError> {
        if let Some(key) = self.context.idempotency.clone() {
            let first = desk.root_reader.recall::<AcceptImport>(key).await;
            if let Some(first) = first.map_err(|e| stored(&e))? {
                return Ok(first);
            }
        }
        desk.check_space()?;
        let path = self.archive.path().to_owned();
        let manifest = on_disk(move || iris_backup::read_manifest(&path)).await?;
        check_about(&manifest.about)?;
        check_announced(&desk.services.settings.quotas, &manifest)
            .map_err(|error| refused(&error))?;
        let id = match self.id {
            ImportId::New => ProjectId::from_bits(desk.services.ids.next_bits()),
            ImportId::Same => manifest.project_id.clone(),
        };
        refuse_existing(&desk, &id).await?;
        if self.id == ImportId::Same {
            refuse_backups(&desk, &id).await?;
        }
        let users = match self.members {
            ImportMembers::Map => {
                check_members(&manifest.about)?;
                desk.users_of(&manifest.about.members).await?
            }
            ImportMembers::Drop => BTreeMap::new(),
        };
        let epoch = format!("{:032x}", desk.services.ids.next_bits());
        let identity = Identity { id: id.clone(), epoch, users, importer: Some(self.by.clone()) };
        let mut import = identity.import(&manifest.about, self.by.clone(), desk.now_ms());
        Reach::of(&desk.services).settle(&mut import).await;
        let added: Vec<&UserId> = import.members.iter().map(|(user_id, _)| user_id).collect();
        let details = json!({
            "from": manifest.project_id,
            "takenAt": manifest.taken_at,
            "members": added,
        });
        let audit = desk.audit(&self.by, "project.import", id.as_str(), details);
        let command = AcceptImport { import, audit };
        let places = desk.places(&id);
        let new = self.unpack(&desk, &places, identity).await?;
        finish(&desk, command, self.context, new, places).await
    }
}

impl ImportArchive {
    /// The project beside where it will be, as it will be.
    async fn unpack(
        &self,
        desk: &Desk,
        places: &ProjectPlaces,
        identity: Identity,
    ) -> Result<NewFile, ApiError> {
        let (archive, into) = (self.archive.path().to_owned(), incoming(&places.directory));
        let archive_bytes_max = desk.services.settings.backups.import_bytes_max;
        let bytes_max = archive_bytes_max.saturating_mul(UNPACKED_PER_BYTE_MAX);
        let bounds = Bounds { bytes_max, ..Bounds::default() };
        let projects = desk.data_dir().join("projects");
        let quotas = desk.services.settings.quotas;
        on_disk(move || {
            make_directories(&projects)?;
            let unpacked = match iris_backup::unpack(&archive, &into, bounds) {
                // The place is that of another import of the same project.
                Err(BackupError::Exists { .. }) => return Ok(None),
                unpacked => unpacked?,
            };
            let new = NewFile::new(into);
            iris_backup::adopt(&unpacked, &identity)?;
            check_quotas(&quotas, &unpacked)?;
            Ok(Some(new))
        })
        .await?
        .ok_or_else(|| exists("a project with this id is being imported"))
    }
}

/// Creates the project and gives its directory its name. Nobody opens it in between; once it began it
/// goes on to its end, whatever becomes of the task.
async fn finish(
    desk: &Desk,
    command: AcceptImport,
    context: WriteContext,
    new: NewFile,
    places: ProjectPlaces,
) -> Result<Committed<Project>, ApiError> {
    let taken = desk.directory.insist(|| TakeProject(command.import.id.clone())).await;
    let lease = taken.map_err(AskError::to_api)??;
    let (desk, id) = (desk.clone(), command.import.id.clone());
    undisturbed(async move {
        let created = record(&desk.root, command, context).await;
        let has_row = match &created {
            Ok(created) => !created.replayed,
            // Perhaps it is committed. If that cannot be found out now, the next start does.
            Err(StoreError::Closed) => match desk.root_reader.project_location(&id).await {
                Ok(found) => found.is_some(),
                Err(error) => {
                    new.keep();
                    return Err(stored(&error));
                }
            },
            Err(_) => false,
        };
        on_disk(move || {
            let _lease = lease;
            if !has_row {
                drop(new);
                return Ok(());
            }
            rename(&new.keep(), &places.directory).map_err(failed(&places.directory))
        })
        .await?;
        created.map_err(|e| stored(&e))
    })
    .await
}

async fn refuse_existing(desk: &Desk, id: &ProjectId) -> Result<(), ApiError> {
    let found = desk.root_reader.project_location(id).await.map_err(|e| stored(&e))?;
    let directory = desk.places(id).directory;
    // A directory without a project is one that is being deleted, or an operator's.
    if found.is_some() || is_there(directory).await? {
        return Err(exists("there is a project with this id already"));
    }
    Ok(())
}

/// Backups of a project that is not here any more were kept on purpose. They would become those of the
/// new one, and go when it is deleted.
async fn refuse_backups(desk: &Desk, id: &ProjectId) -> Result<(), ApiError> {
    if is_there(project_dir(desk.data_dir(), id)).await? {
        return Err(exists(
            "this server keeps backups of a project with this id; import it as a new one",
        ));
    }
    Ok(())
}

async fn is_there(path: PathBuf) -> Result<bool, ApiError> {
    on_disk(move || path.try_exists().map_err(failed(&path))).await
}

fn exists(message: &str) -> ApiError {
    ApiError::new(ErrorCode::Conflict, message).reason("project_exists")
}

/// Refuses an archive by what it says is in it, before any of it is written. A database may be free pages
/// for a half.
fn check_announced(quotas: &Quotas, manifest: &Manifest) -> Result<(), BackupError> {
    let sizes = || manifest.entries.iter().map(|entry| entry.size);
    let used = ProjectUsage {
        rows: 0,
        bytes: sizes().next().unwrap_or_default() / 2,
        files: sizes().skip(1).count() as u64,
        file_bytes: sizes().skip(1).fold(0, u64::saturating_add),
    };
    quotas.check_whole(&used).map_err(BackupError::Database)
}

/// Refuses a project that holds more than a project of this server may. Its files were counted before.
fn check_quotas(quotas: &Quotas, unpacked: &Unpacked) -> Result<(), BackupError> {
    let used = maintenance::project_usage(&unpacked.database).map_err(BackupError::Database)?;
    quotas.check_whole(&used).map_err(BackupError::Database)
}

/// Each is looked up, and becomes a member without being asked.
fn check_members(about: &ProjectAbout) -> Result<(), ApiError> {
    if about.members.len() > MEMBERS_MAX {
        let message = format!("the archive has more than {MEMBERS_MAX} members; import it without");
        return Err(ApiError::invalid(message).reason("too_many_members"));
    }
    Ok(())
}

/// What an archive says of a project has to be what a project may be.
///
/// # Errors
/// `INVALID_REQUEST`; `PAYLOAD_TOO_LARGE`.
pub fn check_about(about: &ProjectAbout) -> Result<(), ApiError> {
    crate::dispatch::check_name("name", &about.name)?;
    crate::dispatch::check_description("description", about.description.as_deref())?;
    let settings = serde_json::to_string(&about.settings).unwrap_or_default();
    crate::dispatch::check_length("settings", &settings, SETTINGS_BYTES_MAX)?;
    if !about.settings.values().all(iris_tools::is_shallow) {
        return Err(ApiError::invalid("`settings` is nested too deeply").reason("too_deep"));
    }
    Ok(())
}
