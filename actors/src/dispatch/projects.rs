//! Projects and their members. What they are stands in the root database; that they changed is an
//! event of the project.

use std::path::{Path, PathBuf};

use iris_protocol::{
    ApiError, ErrorCode, Event, Member, MemberAdd, MemberPage, MemberPayload, MemberRemove,
    MemberUpdate, Project, ProjectCreate, ProjectCreation, ProjectId, ProjectList, ProjectPayload,
    ProjectStorage, ProjectType, ProjectUpdate, Role, UserId,
    limits::{PAGE_DEFAULT, PAGE_MAX},
};
use iris_store::project::{ProjectDatabase, ProjectUsage, Quotas};
use iris_store::root::{
    AddMember, CreateProject, DeleteProject, IntendDirectory, Leftover, RemoveMember,
    SetProjectArchived, UpdateMember, UpdateProject,
};
use iris_store::{Committed, StoreError, WriteContext};

use super::departing::left;
use super::invitations::event_of;
use super::settings::check_project_settings;
use super::{Done, Grant, check_description, check_name, check_space, done, internal, stored};
use crate::directory::{CloseOne, ProjectPlaces};
use crate::git::{begin_clone, check_source, stop_all};
use crate::supervision::AskError;
use crate::{Node, ResumePolicy, budgets, leftovers, outbox, write};

/// The directories whose entries a new project changes: its own, `projects` and the data directory.
const DIRECTORIES_MADE: usize = 3;

/// The page size that a request asks for.
pub(super) fn page_size(limit: Option<u32>) -> Result<u32, ApiError> {
    match limit.unwrap_or(PAGE_DEFAULT) {
        size @ 1..=PAGE_MAX => Ok(size),
        _ => Err(ApiError::invalid(format!("`limit` must be 1 to {PAGE_MAX}"))),
    }
}

pub(super) async fn create(
    node: &Node,
    grant: &Grant,
    request: ProjectCreate,
    context: WriteContext,
) -> Result<Done, ApiError> {
    check_space(node)?;
    may_create(node, grant).await?;
    check_name("name", &request.name)?;
    check_description("description", request.description.as_deref())?;
    check_type(&request)?;
    let services = &node.services;
    // A repeat must not make a directory that nobody needs.
    if let Some(key) = context.idempotency.clone()
        && let Some(first) = node.root_reader.recall::<CreateProject>(key).await.map_err(stored)?
    {
        return Ok(done(ProjectPayload { project: first.output })?.at(None, true));
    }
    let path = match request.path {
        Some(path) => {
            let settings = &services.settings;
            let (roots, data_dir) = (settings.project_roots.clone(), settings.data_dir.clone());
            Some(allowed_directory(path, roots, data_dir).await?)
        }
        None => None,
    };
    let id = ProjectId::from_bits(services.ids.next_bits());
    let git = match request.git {
        Some(source) => Some(check_source(services, &id, source).await?),
        None => None,
    };
    let epoch = format!("{:032x}", services.ids.next_bits());
    let at = services.clock.now_ms();
    // The database first: a project in the root database always has one. What a crash leaves between
    // the two is a directory that the intent names.
    let intent = IntendDirectory { project_id: id.clone(), at };
    write(&node.root, intent, WriteContext::default()).await.map_err(stored)?;
    let made = {
        let (id, places) = (id.clone(), ProjectPlaces::new(&services.settings.data_dir, &id));
        move || {
            std::fs::create_dir_all(&places.files)?;
            ProjectDatabase::create(&places.database, &id, &epoch, at)?;
            // A loss of power must not take the directory of a project that was acknowledged.
            for directory in places.directory.ancestors().take(DIRECTORIES_MADE) {
                std::fs::File::open(directory)?.sync_all()?;
            }
            Ok(())
        }
    };
    let made = tokio::task::spawn_blocking(made)
        .await
        .map_err(internal)
        .and_then(|made| made.map_err(stored));
    if let Err(error) = made {
        leftovers::remove(node, Leftover { project_id: id, with_backups: false }).await;
        return Err(error);
    }
    let command = CreateProject {
        id: id.clone(),
        owner_id: grant.user_id()?.clone(),
        name: request.name,
        description: request.description,
        r#type: request.r#type,
        path,
        git,
        at,
    };
    let created = write(&node.root, command, context).await;
    let is_unused = match &created {
        Ok(created) => created.output.id != id,
        // Perhaps it is committed: the next start finds out.
        Err(error) => !matches!(error, StoreError::Closed),
    };
    if is_unused {
        leftovers::remove(node, Leftover { project_id: id, with_backups: false }).await;
    }
    let Committed { output: project, replayed, .. } = created.map_err(stored)?;
    if project.git.is_some() && !is_unused {
        begin_clone(node, &project.id);
    }
    Ok(done(ProjectPayload { project })?.at(None, replayed))
}

/// Refuses what does not go together.
fn check_type(request: &ProjectCreate) -> Result<(), ApiError> {
    let message = match (request.r#type, &request.git, &request.path) {
        (ProjectType::Local, None, _)
        | (ProjectType::Git, Some(_), None)
        | (ProjectType::Remote, None, None) => return Ok(()),
        (ProjectType::Git, None, _) => "a project of the type `git` needs `git.url`",
        (ProjectType::Git, Some(_), Some(_)) => {
            "a project of the type `git` has no `path`: it lies in the data directory"
        }
        (ProjectType::Local | ProjectType::Remote, Some(_), _) => {
            "`git` is for projects of the type `git`"
        }
        (ProjectType::Remote, None, Some(_)) => {
            "a project of the type `remote` has no `path`: its files are in its database"
        }
    };
    Err(ApiError::invalid(message).reason("project_type"))
}

/// Whether the caller may create projects, as administrators of the server chose.
pub(super) async fn may_create(node: &Node, grant: &Grant) -> Result<(), ApiError> {
    if node.choices.now().project_creation == ProjectCreation::Everybody {
        return Ok(());
    }
    let user = node.root_reader.user(grant.user_id()?).await.map_err(stored)?;
    if user.is_some_and(|user| user.is_admin) {
        return Ok(());
    }
    let message = "administrators of the server alone create projects";
    Err(ApiError::new(ErrorCode::Forbidden, message).reason("project_creation"))
}

/// The real path of an existing directory under one of the operator's project roots, apart from the
/// server's own data and from what tools may not touch.
async fn allowed_directory(
    path: String,
    roots: Vec<PathBuf>,
    data_dir: PathBuf,
) -> Result<String, ApiError> {
    let checked = tokio::task::spawn_blocking(move || {
        let real = Path::new(&path).canonicalize().ok().filter(|real| real.is_dir())?;
        let data_dir = data_dir.canonicalize().ok()?;
        let is_ours = real.starts_with(&data_dir) || data_dir.starts_with(&real);
        let is_protected = real.iter().any(|name| name == ".git" || name == ".iris");
        if is_ours || is_protected {
            return None;
        }
        let mut roots = roots.iter().filter_map(|root| root.canonicalize().ok());
        if roots.any(|root| real.starts_with(root)) {
            real.to_str().map(str::to_owned)
        } else {
            None
        }
    });
    checked.await.map_err(internal)?.ok_or_else(|| {
        let message =
            "`path` must be an existing directory under one of the server's project roots";
        ApiError::new(ErrorCode::Forbidden, message).reason("outside_project_roots")
    })
}

pub(super) async fn list(
    node: &Node,
    grant: &Grant,
    request: ProjectList,
) -> Result<Done, ApiError> {
    let limit = page_size(request.limit)?;
    let archived = request.include_archived.unwrap_or(false);
    let cursor = request.cursor.as_deref();
    let page = node.root_reader.projects(grant.user_id()?, limit, cursor, archived).await;
    done(page.map_err(stored)?)
}

pub(super) async fn get(node: &Node, grant: &Grant) -> Result<Done, ApiError> {
    let mut project = project(node, grant).await?;
    // What stands in the root database is told also of one that is damaged.
    if let Ok(opened) = grant.project(node).await {
        let used = opened.reader.usage().await.map_err(stored)?;
        project.storage = Some(storage(used, node.services.settings.quotas));
    }
    done(ProjectPayload { project })
}

fn storage(used: ProjectUsage, quotas: Quotas) -> ProjectStorage {
    ProjectStorage {
        rows: used.rows,
        rows_max: quotas.rows_max,
        bytes: used.bytes,
        bytes_max: quotas.bytes_max,
        files: used.files,
        files_max: quotas.files_max,
        file_bytes: used.file_bytes,
        file_bytes_max: quotas.file_bytes_max,
    }
}

async fn project(node: &Node, grant: &Grant) -> Result<Project, ApiError> {
    project_of(node, grant.user_id()?, grant.project_id()?).await
}

/// A project as one of its members sees it.
pub(super) async fn project_of(
    node: &Node,
    user_id: &UserId,
    id: &ProjectId,
) -> Result<Project, ApiError> {
    let found = node.root_reader.project(user_id, id).await;
    found.map_err(stored)?.ok_or_else(|| ApiError::not_found("project"))
}

pub(super) async fn update(
    node: &Node,
    grant: &Grant,
    request: ProjectUpdate,
    context: WriteContext,
) -> Result<Done, ApiError> {
    if let Some(name) = &request.name {
        check_name("name", name)?;
    }
    check_description("description", request.description.as_deref())?;
    if let Some(settings) = &request.settings {
        check_project_settings(settings)?;
        ResumePolicy::check(settings)?;
        budgets::check(settings)?;
    }
    let command = UpdateProject {
        id: grant.project_id()?.clone(),
        name: request.name,
        description: request.description,
        settings: request.settings,
        by: grant.user_id()?.clone(),
        at: node.services.clock.now_ms(),
    };
    let updated = write(&node.root, command, context).await.map_err(stored)?;
    let seq = publish(node, grant, updated.replayed).await;
    Ok(done(ProjectPayload { project: updated.output })?.at(seq, updated.replayed))
}

/// Publishes in the project what was committed to the root database with its event. Answers the number
/// of the event. The change stands whatever becomes of this: an event that cannot be published now is
/// when the project is opened the next time.
pub(super) async fn publish(node: &Node, grant: &Grant, replayed: bool) -> Option<u64> {
    if replayed {
        return None;
    }
    let published = async {
        let project = grant.project(node).await?;
        outbox::deliver(&project, &node.root_access()).await.map_err(stored)
    };
    let published = published.await;
    published.inspect_err(|error| tracing::warn!(%error, "an event is published later")).ok()
}

pub(super) async fn archive(
    node: &Node,
    grant: &Grant,
    archived: bool,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let command = SetProjectArchived {
        id: grant.project_id()?.clone(),
        archived,
        by: grant.user_id()?.clone(),
        at: node.services.clock.now_ms(),
    };
    let set = write(&node.root, command, context).await.map_err(stored)?;
    let seq = publish(node, grant, set.replayed).await;
    Ok(done(ProjectPayload { project: set.output })?.at(seq, set.replayed))
}

pub(super) async fn delete(
    node: &Node,
    grant: &Grant,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let id = grant.project_id()?.clone();
    let project = node.root_reader.project(grant.user_id()?, &id).await.map_err(stored)?;
    let members = node.root_reader.members(&id).await.map_err(stored)?;
    let command =
        DeleteProject { id: id.clone(), keep_backups: false, at: node.services.clock.now_ms() };
    let deleted = write(&node.root, command, context).await;
    if deleted.map_err(stored)?.replayed {
        return Ok(done(iris_protocol::Done { done: true })?.at(None, true));
    }
    let (by, name) = (grant.user_id()?, project.map(|project| project.name).unwrap_or_default());
    for Member { user_id, .. } in members {
        let (project_id, name, by) = (id.clone(), name.clone(), by.clone());
        let event = Event::ProjectDeleted { project_id, name, by };
        node.connections.tell_user(&user_id, &event_of(&user_id, event));
    }
    let _alone = stop_all(node, &id).await;
    // Nobody can open it any more; what is open closes before its files go.
    node.directory.insist(|| CloseOne(id.clone())).await.map_err(AskError::to_api)?;
    let leftover = Leftover { project_id: id, with_backups: true };
    leftovers::remove(node, leftover).await;
    done(iris_protocol::Done { done: true })
}

pub(super) async fn members(node: &Node, grant: &Grant) -> Result<Done, ApiError> {
    let members = node.root_reader.members(grant.project_id()?).await.map_err(stored)?;
    done(MemberPage { members })
}

pub(super) fn check_role(role: Role) -> Result<(), ApiError> {
    match role {
        Role::Viewer | Role::Member | Role::Admin => Ok(()),
        Role::Owner => {
            let message = "a project has one owner; ownership cannot be given as a role";
            Err(ApiError::invalid(message).reason("owner_role"))
        }
    }
}

pub(super) async fn add_member(
    node: &Node,
    grant: &Grant,
    request: MemberAdd,
    context: WriteContext,
) -> Result<Done, ApiError> {
    check_role(request.role)?;
    let user_id = match (request.user_id, request.email) {
        (Some(user_id), None) => {
            let user = node.root_reader.user(&user_id).await.map_err(stored)?;
            user.map(|user| user.id)
        }
        (None, Some(email)) => {
            let email = email.trim().to_lowercase();
            let found = node.root_reader.user_by_email(&email).await.map_err(stored)?;
            found.map(|found| found.user.id)
        }
        (Some(_), Some(_)) | (None, None) => {
            return Err(ApiError::invalid("name the user by either `userId` or `email`"));
        }
    };
    let command = AddMember {
        project_id: grant.project_id()?.clone(),
        user_id: user_id.ok_or_else(|| ApiError::not_found("user"))?,
        role: request.role,
        by: grant.user_id()?.clone(),
        at: node.services.clock.now_ms(),
    };
    let added = write(&node.root, command, context).await.map_err(stored)?;
    answer_member(node, grant, added).await
}

pub(super) async fn update_member(
    node: &Node,
    grant: &Grant,
    request: MemberUpdate,
    context: WriteContext,
) -> Result<Done, ApiError> {
    check_role(request.role)?;
    let command = UpdateMember {
        project_id: grant.project_id()?.clone(),
        user_id: request.user_id,
        role: request.role,
        by: grant.user_id()?.clone(),
        at: node.services.clock.now_ms(),
    };
    let updated = write(&node.root, command, context).await.map_err(stored)?;
    answer_member(node, grant, updated).await
}

async fn answer_member(
    node: &Node,
    grant: &Grant,
    changed: Committed<Member>,
) -> Result<Done, ApiError> {
    let seq = publish(node, grant, changed.replayed).await;
    Ok(done(MemberPayload { member: changed.output })?.at(seq, changed.replayed))
}

pub(super) async fn remove_member(
    node: &Node,
    grant: &Grant,
    request: MemberRemove,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let command = RemoveMember {
        project_id: grant.project_id()?.clone(),
        user_id: request.user_id.clone(),
        by: grant.user_id()?.clone(),
        at: node.services.clock.now_ms(),
    };
    let removed = write(&node.root, command, context).await.map_err(stored)?;
    // They hear nothing more, also where the event cannot be published now. Who opens the project does
    // that before anything else.
    if !removed.replayed {
        left(node, grant.project_id()?, &request.user_id).await;
    }
    let seq = publish(node, grant, removed.replayed).await;
    Ok(done(iris_protocol::Done { done: true })?.at(seq, removed.replayed))
}
