//! `iris project`: one project as a file, and back.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use iris_actors::Reach;
use iris_backup::{
    ArchiveInfo, ArchivedMember, BackupError, Bounds, Identity, Manifest, Unpacked, adopt,
    backups_of, make_private_directories, new_backup_path, new_kept_path, random_epoch,
    read_manifest, replace, replace_kept, unpack, unpacking_path, verify, write_project,
};
use iris_egress::{Config as EgressConfig, Egress};
use iris_protocol::{ProjectId, Role, UserId};
use iris_store::maintenance::{ListedProject, check_project};
use iris_store::root::{
    DeleteProject, ForgetDirectory, ImportProject, IntendDirectory, MarkUnfinished,
};
use serde_json::{Value, json};

use super::data::{DataDir, Root, new_project_id, now};
use super::output::{Output, bytes_text};
use super::{MaintenanceError, Place, ProjectVerb};
use crate::remote::text::utc;

/// What `iris project import` brings, and as what.
#[derive(Clone, clap::Args)]
pub struct ImportOptions {
    /// An export or a backup of a project
    #[arg(value_name = "FILE")]
    archive: PathBuf,
    /// Under a new id, or under the one that it had
    #[arg(long, value_enum, default_value_t = IdChoice::New)]
    id: IdChoice,
    /// Who owns it here; without it, the user with the email address of its owner
    #[arg(long, value_name = "EMAIL")]
    owner: Option<String>,
    /// Make those members again who have an account here, by their email address, or none
    #[arg(long, value_enum, default_value_t = MembersChoice::Map)]
    members: MembersChoice,
}

/// Which id an imported project has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum IdChoice {
    /// One that no project has.
    New,
    /// That of the archive, which no project here may have.
    Same,
}

/// What becomes of the members of an imported project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MembersChoice {
    /// Those with an account here, by their email address, are members again.
    Map,
    /// The owner is its only member.
    Drop,
}

pub(super) fn run(verb: ProjectVerb, place: &Place) -> Result<(), MaintenanceError> {
    let mut output = Output::new(place.manner);
    if let ProjectVerb::Verify { archives, .. } = &verb
        && !archives.is_empty()
    {
        // Needs no data directory.
        for archive in archives {
            verify_archive(archive, &mut output)?;
        }
        return output.end();
    }
    let data = DataDir::find(place)?;
    match verb {
        ProjectVerb::List => list(&data, &mut output)?,
        ProjectVerb::Backup { ids, .. } => back_up(&data, &ids, &mut output)?,
        ProjectVerb::Restore { id, from } => restore(&data, &id, &from, &mut output)?,
        ProjectVerb::Export { id, to } => export(&data, &id, &to, &mut output)?,
        ProjectVerb::Import(options) => import(&data, &options, &mut output)?,
        ProjectVerb::Verify { ids, .. } => verify_projects(&data, &ids, &mut output)?,
        ProjectVerb::Delete { id, yes, keep_backups } => {
            delete(&data, &id, yes, keep_backups, &mut output)?;
        }
    }
    output.end()
}

fn list(data: &DataDir, output: &mut Output) -> Result<(), MaintenanceError> {
    for project in data.list()? {
        let source = data.source(&project);
        let bytes = fs::metadata(&source.database).map_or(0, |database| database.len());
        let owner = project.members.iter().find(|member| member.user_id == project.owner_id);
        let owner = owner.map_or("", |owner| owner.email.as_str());
        let text = format!(
            "{}  {:>10}  {:>3} members  {owner}  {}",
            project.id,
            bytes_text(bytes),
            project.members.len(),
            project.name
        );
        let value = json!({
            "project": project.id,
            "name": project.name,
            "owner": owner,
            "members": project.members.len(),
            "databaseBytes": bytes,
            "files": source.files,
            "createdAt": project.created_at,
            "archivedAt": project.archived_at,
        });
        output.done(&text, &value)?;
    }
    Ok(())
}

fn back_up(data: &DataDir, ids: &[ProjectId], output: &mut Output) -> Result<(), MaintenanceError> {
    let projects = data.listed(ids)?;
    for (done, project) in projects.iter().enumerate() {
        output.project(done, projects.len());
        match output.watch(|| write_backup(data, project)) {
            Ok((path, info)) => tell_archive(&path, &info, output)?,
            // It would be the same for all that follow.
            Err(BackupError::StorageFull) => return Err(BackupError::StorageFull.into()),
            Err(error) => tell_failure(&project.id, &error.to_string(), output)?,
        }
    }
    Ok(())
}

/// Makes a backup where the server makes its own.
fn write_backup(
    data: &DataDir,
    project: &ListedProject,
) -> Result<(PathBuf, ArchiveInfo), BackupError> {
    let at = now();
    let path = new_backup_path(&data.path, &project.id, at)?;
    let info = write_project(&data.source(project), &path, at)?;
    Ok((path, info))
}

fn export(
    data: &DataDir,
    id: &ProjectId,
    to: &Path,
    output: &mut Output,
) -> Result<(), MaintenanceError> {
    let project = one(data, id)?;
    let source = data.source(&project);
    let info = output.watch(|| write_project(&source, to, now()))?;
    tell_archive(to, &info, output)
}

/// The project of an id, which must be there.
fn one(data: &DataDir, id: &ProjectId) -> Result<ListedProject, MaintenanceError> {
    let found = data.listed(std::slice::from_ref(id))?.into_iter().next();
    found.ok_or_else(|| MaintenanceError::Refused(format!("there is no project `{id}`")))
}

fn restore(
    data: &DataDir,
    id: &ProjectId,
    from: &Path,
    output: &mut Output,
) -> Result<(), MaintenanceError> {
    let _lock = data.lock()?;
    let project = one(data, id)?;
    let manifest = read_manifest(from)?;
    if manifest.project_id != *id {
        let other = &manifest.project_id;
        let text = format!("the archive is of the project `{other}`: import it instead");
        return Err(MaintenanceError::Refused(text));
    }
    let unpacked = output.watch(|| unpack_beside(data, from))?;
    let restored = put_back(data, &project, &unpacked, output);
    if restored.is_err() {
        discard(&unpacked);
    }
    restored?;
    let (seq, taken) = (unpacked.manifest.seq, unpacked.manifest.taken_at);
    let text = format!("restored {id} to event {seq} of {}", utc(taken));
    output.done(&text, &json!({ "restored": id, "seq": seq, "takenAt": taken }))
}

fn put_back(
    data: &DataDir,
    project: &ListedProject,
    unpacked: &Unpacked,
    output: &mut Output,
) -> Result<(), MaintenanceError> {
    let (id, epoch) = (project.id.clone(), random_epoch()?);
    adopt(unpacked, &Identity { id, epoch, users: BTreeMap::new(), importer: None })?;
    let failure = back_up_what_is_there(data, project, output)?;
    // Runs that were alive when the archive was made are recovered by the next start of the server.
    let root = Root::open(data)?;
    let marked = root.write(MarkUnfinished { project_id: project.id.clone(), at: now() });
    root.close();
    marked?;
    let (place, files) = (data.project(&project.id), data.source(project).files);
    let Some(failure) = failure else { return Ok(replace(unpacked, &place, &files)?) };
    let kept = new_kept_path(&data.path, &project.id, now())?;
    let kept = replace_kept(unpacked, &place, &files, &kept)?;
    let places: Vec<String> = [&kept.directory, &kept.files]
        .into_iter()
        .flatten()
        .map(|path| path.display().to_string())
        .collect();
    let text = format!(
        "no backup of what was there ({failure}); it is kept as it was in {}",
        if places.is_empty() {
            "no place: nothing was there".to_owned()
        } else {
            places.join(", ")
        }
    );
    let value = json!({
        "keptDamaged": kept.directory,
        "keptFiles": kept.files,
        "reason": failure.to_string(),
    });
    output.line(&text, &value)
}

/// A backup of what is to be replaced. Answers why there is none of what cannot be archived any more,
/// which is why one restores.
fn back_up_what_is_there(
    data: &DataDir,
    project: &ListedProject,
    output: &mut Output,
) -> Result<Option<BackupError>, MaintenanceError> {
    match output.watch(|| write_backup(data, project)) {
        Ok((path, info)) => tell_archive(&path, &info, output).map(|()| None),
        Err(BackupError::StorageFull) => Err(BackupError::StorageFull.into()),
        Err(error) => Ok(Some(error)),
    }
}

fn import(
    data: &DataDir,
    options: &ImportOptions,
    output: &mut Output,
) -> Result<(), MaintenanceError> {
    let _lock = data.lock()?;
    let manifest = read_manifest(&options.archive)?;
    let root = Root::open(data)?;
    let imported = import_into(data, &root, &manifest, options, output);
    root.close();
    imported
}

fn import_into(
    data: &DataDir,
    root: &Root,
    manifest: &Manifest,
    options: &ImportOptions,
    output: &mut Output,
) -> Result<(), MaintenanceError> {
    iris_actors::check_about(&manifest.about)
        .map_err(|error| MaintenanceError::Refused(format!("the archive: {}", error.message)))?;
    let owner_id = owner(root, manifest, options.owner.as_deref())?;
    let id = match options.id {
        IdChoice::New => new_project_id(),
        IdChoice::Same => manifest.project_id.clone(),
    };
    let place = data.project(&id);
    let is_listed = data.list()?.iter().any(|project| project.id == id);
    if is_listed || place.try_exists().map_err(io(&place))? {
        return Err(MaintenanceError::Refused(format!("the project `{id}` is here already")));
    }
    let users = match options.members {
        MembersChoice::Map => users_by_email(root, &manifest.about.members)?,
        MembersChoice::Drop => BTreeMap::new(),
    };
    let identity = Identity {
        id: id.clone(),
        epoch: random_epoch()?,
        users,
        importer: Some(owner_id.clone()),
    };
    let mut command = identity.import(&manifest.about, owner_id, now());
    keep_git(data, root, &mut command);
    let git = command.git.as_ref().map(|git| git.url.clone());
    let unpacked = output.watch(|| unpack_beside(data, &options.archive))?;
    // What a crash or a failure leaves from here on is found by the next start of the server.
    root.write(IntendDirectory { project_id: id.clone(), at: now() })?;
    let placed =
        adopt(&unpacked, &identity).and_then(|()| replace(&unpacked, &place, &place.join("files")));
    if placed.is_err() {
        discard(&unpacked);
    }
    placed?;
    let (members, dropped) = count(manifest, &identity);
    if let Err(error) = root.write(command) {
        fs::remove_dir_all(&place).map_err(io(&place))?;
        return Err(error);
    }
    let all = members + dropped;
    let mut text = format!("imported {id}; {members} of its {all} members are members here");
    if git.is_none() && manifest.about.git.is_some() {
        text += "; git may not go from here to where it was cloned from, so that is forgotten";
    }
    let value = json!({ "imported": id, "members": members, "dropped": dropped, "git": git });
    output.done(&text, &value)
}

/// Keeps where the project was cloned from, if a server with this configuration may go there.
fn keep_git(data: &DataDir, root: &Root, import: &mut ImportProject) {
    let allow = data.config.egress_allow.clone();
    let egress = Egress::new(EgressConfig { allow, ..EgressConfig::default() }).ok();
    let (project_roots, data_dir) = (&data.config.project_roots, &data.path);
    root.wait(Reach { project_roots, data_dir, egress: egress.as_ref() }.settle(import));
}

/// Who owns the imported project.
fn owner(
    root: &Root,
    manifest: &Manifest,
    email: Option<&str>,
) -> Result<UserId, MaintenanceError> {
    let members = &manifest.about.members;
    let before = members.iter().find(|member| member.role == Role::Owner);
    let email = email.or(before.map(|owner| owner.email.as_str())).unwrap_or_default();
    let user = root.user(email)?;
    user.map(|user| user.id).ok_or_else(|| {
        let text = format!("nobody here has the email address `{email}`: give `--owner`");
        MaintenanceError::Refused(text)
    })
}

/// Who the members of an archive are here.
fn users_by_email(
    root: &Root,
    members: &[ArchivedMember],
) -> Result<BTreeMap<UserId, Option<UserId>>, MaintenanceError> {
    let mut users = BTreeMap::new();
    for member in members {
        let user = root.user(&member.email)?;
        users.insert(member.user_id.clone(), user.map(|user| user.id));
    }
    Ok(users)
}

/// How many members of the archive are members again, and how many are not.
fn count(manifest: &Manifest, identity: &Identity) -> (usize, usize) {
    let known = identity.users.values().flatten().count();
    (known, manifest.about.members.len().saturating_sub(known))
}

/// Unpacks an archive in the data directory, where the result only has to be renamed.
fn unpack_beside(data: &DataDir, archive: &Path) -> Result<Unpacked, MaintenanceError> {
    let projects = data.projects();
    make_private_directories(&projects).map_err(io(&projects))?;
    Ok(unpack(archive, &unpacking_path(&projects)?, Bounds::default())?)
}

/// Removes what was unpacked for nothing. The next command under the lock removes what is left.
fn discard(unpacked: &Unpacked) {
    fs::remove_dir_all(unpacked.directory()).ok();
}

fn verify_projects(
    data: &DataDir,
    ids: &[ProjectId],
    output: &mut Output,
) -> Result<(), MaintenanceError> {
    let projects = data.listed(ids)?;
    for (done, project) in projects.iter().enumerate() {
        output.at(done, projects.len(), "reading databases");
        let id = &project.id;
        match check_project(&data.source(project).database, Some(id)) {
            Ok(facts) => {
                let (seq, version) = (facts.seq, facts.schema_version);
                let value =
                    json!({ "project": id, "status": "ok", "seq": seq, "schemaVersion": version });
                output.done(&format!("ok      {id} at event {seq}"), &value)?;
            }
            Err(error) => tell_failure(id, &error.to_string(), output)?,
        }
    }
    Ok(())
}

fn verify_archive(archive: &Path, output: &mut Output) -> Result<(), MaintenanceError> {
    match output.watch(|| verify(archive)) {
        Ok(info) => tell_archive(archive, &info, output),
        Err(error) => {
            let (path, reason) = (archive.display(), error.to_string());
            let value = json!({ "archive": archive, "status": "failed", "reason": reason });
            output.failed(&format!("failed  {path}: {reason}"), &value)
        }
    }
}

fn delete(
    data: &DataDir,
    id: &ProjectId,
    yes: bool,
    keep_backups: bool,
    output: &mut Output,
) -> Result<(), MaintenanceError> {
    if !yes {
        let text = format!("`{id}` would be gone for good: say `--yes` if that is meant");
        return Err(MaintenanceError::Usage(text));
    }
    let _lock = data.lock()?;
    let project = one(data, id)?;
    let root = Root::open(data)?;
    let deleted =
        root.write(DeleteProject { id: id.clone(), keep_backups, at: now() }).and_then(|()| {
            remove_directory(&data.project(id))?;
            if !keep_backups {
                remove_directory(&backups_of(&data.path, id))?;
            }
            root.write(ForgetDirectory { project_id: id.clone() })
        });
    root.close();
    deleted?;
    output.done(&format!("deleted {id}"), &json!({ "deleted": id }))?;
    if let Some(path) = &project.path {
        let text = format!("left    {path} is yours: its files are not deleted");
        output.line(&text, &json!({ "left": path }))?;
    }
    Ok(())
}

/// Out of sight in one step, then gone: what a crash leaves is removed by the next command.
fn remove_directory(path: &Path) -> Result<(), MaintenanceError> {
    if !path.try_exists().map_err(io(path))? {
        return Ok(());
    }
    let aside = unpacking_path(path.parent().unwrap_or(path))?;
    fs::rename(path, &aside).map_err(io(path))?;
    fs::remove_dir_all(&aside).map_err(io(&aside))
}

fn tell_archive(
    path: &Path,
    info: &ArchiveInfo,
    output: &mut Output,
) -> Result<(), MaintenanceError> {
    let manifest = &info.manifest;
    for skipped in &manifest.skipped {
        let text = format!("skipped {} ({:?})", skipped.path, skipped.reason).to_lowercase();
        output.line(&text, &json!({ "skipped": skipped }))?;
    }
    let files = manifest.entries.len().saturating_sub(1);
    let text = format!(
        "ok      {} of {} at event {}, {files} files, {}",
        path.display(),
        manifest.project_id,
        manifest.seq,
        bytes_text(info.bytes)
    );
    output.done(&text, &archive_value(path, info))
}

fn archive_value(path: &Path, info: &ArchiveInfo) -> Value {
    let manifest = &info.manifest;
    json!({
        "archive": path,
        "status": "ok",
        "project": manifest.project_id,
        "seq": manifest.seq,
        "schemaVersion": manifest.schema_version,
        "takenAt": manifest.taken_at,
        "files": manifest.entries.len().saturating_sub(1),
        "skipped": manifest.skipped.len(),
        "bytes": info.bytes,
        "sha256": info.sha256,
    })
}

fn tell_failure(id: &ProjectId, reason: &str, output: &mut Output) -> Result<(), MaintenanceError> {
    let value = json!({ "project": id, "status": "failed", "reason": reason });
    output.failed(&format!("failed  {id}: {reason}"), &value)
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> MaintenanceError {
    let path = path.to_owned();
    move |source| MaintenanceError::Io { path: path.clone(), source }
}
