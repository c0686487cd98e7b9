//! A project out of an archive that somebody brought.

use std::collections::BTreeMap;

use iris_backup::{Bounds, Identity, ProjectAbout};
use iris_protocol::{
    ApiError, ErrorCode, ImportId, ImportMembers, Project, ProjectId, UserId,
    limits::SETTINGS_BYTES_MAX,
};
use iris_store::root::{AcceptImport, ImportProject};
use iris_store::{Committed, StoreError, WriteContext};
use serde_json::json;

use super::archiver::Task;
use super::desk::{Desk, on_disk, stored, undisturbed};
use super::files::{NewFile, incoming, make_dir, rename};
use super::writing::failed;
use crate::directory::{ProjectPlaces, TakeProject};
use crate::record;
use crate::supervision::AskError;

/// Bytes that an archive may unpack to for each byte that it may have: anybody may send one, and a
/// small one can be of a size that no disk has.
const UNPACKED_PER_BYTE_MAX: u64 = 16;

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

    async fn run(self, desk: Desk) -> Result<Committed<Project>, ApiError> {
        if let Some(key) = self.context.idempotency.clone() {
            let first = desk.root_reader.recall::<AcceptImport>(key).await;
            if let Some(first) = first.map_err(|e| stored(&e))? {
                return Ok(first);
            }
        }
        let path = self.archive.path().to_owned();
        let manifest = on_disk(move || iris_backup::read_manifest(&path)).await?;
        check_about(&manifest.about)?;
        let id = match self.id {
            ImportId::New => ProjectId::from_bits(desk.services.ids.next_bits()),
            ImportId::Same => manifest.project_id.clone(),
        };
        refuse_existing(&desk, &id).await?;
        let users = match self.members {
            ImportMembers::Map => desk.users_of(&manifest.about.members).await?,
            ImportMembers::Drop => BTreeMap::new(),
        };
        let about = manifest.about;
        let members = about
            .members
            .iter()
            .filter_map(|member| Some((users.get(&member.user_id)?.clone(), member.role)));
        let import = ImportProject {
            id: id.clone(),
            owner_id: self.by.clone(),
            members: members.collect(),
            name: about.name,
            description: about.description,
            settings: about.settings,
            r#type: about.project_type,
            created_at: about.created_at,
            at: desk.now_ms(),
        };
        let details = json!({ "from": manifest.project_id, "takenAt": manifest.taken_at });
        let audit = desk.audit(&self.by, "project.import", id.as_str(), details);
        let command = AcceptImport { import, audit };
        let places = desk.places(&id);
        let new = self.unpack(&desk, &places, &id, users).await?;
        finish(&desk, command, self.context, new, places).await
    }
}

impl ImportArchive {
    /// The project beside where it will be, as it will be.
    async fn unpack(
        &self,
        desk: &Desk,
        places: &ProjectPlaces,
        id: &ProjectId,
        users: BTreeMap<UserId, UserId>,
    ) -> Result<NewFile, ApiError> {
        let epoch = format!("{:032x}", desk.services.ids.next_bits());
        let users = users.into_iter().map(|(from, to)| (from, Some(to))).collect();
        let identity = Identity { id: id.clone(), epoch, users, is_imported: true };
        let (archive, into) = (self.archive.path().to_owned(), incoming(&places.directory));
        let archive_bytes_max = desk.services.settings.backups.import_bytes_max;
        let bytes_max = archive_bytes_max.saturating_mul(UNPACKED_PER_BYTE_MAX);
        let bounds = Bounds { bytes_max, ..Bounds::default() };
        let projects = desk.data_dir().join("projects");
        on_disk(move || {
            make_dir(&projects).map_err(failed(&projects))?;
            let new = NewFile::new(into.clone());
            let unpacked = iris_backup::unpack(&archive, &into, bounds)?;
            iris_backup::adopt(&unpacked, &identity)?;
            Ok(new)
        })
        .await
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
    let is_taken = on_disk(move || Ok(directory.exists())).await?;
    if found.is_some() || is_taken {
        let message = "there is a project with this id already";
        return Err(ApiError::new(ErrorCode::Conflict, message).reason("project_exists"));
    }
    Ok(())
}

/// What an archive says of a project has to be what a project may be.
fn check_about(about: &ProjectAbout) -> Result<(), ApiError> {
    crate::dispatch::check_name("name", &about.name)?;
    crate::dispatch::check_description("description", about.description.as_deref())?;
    let settings = serde_json::to_string(&about.settings).unwrap_or_default();
    crate::dispatch::check_length("settings", &settings, SETTINGS_BYTES_MAX)?;
    if !about.settings.values().all(iris_tools::is_shallow) {
        return Err(ApiError::invalid("`settings` is nested too deeply").reason("too_deep"));
    }
    Ok(())
}
