//! Backups of projects and of the server, restores, exports and imports: what callers may ask of the
//! backups actor, and the bytes of archives.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use iris_auth::AccessClaims;
use iris_protocol::{
    ApiError, Backup, BackupDelete, BackupId, BackupKind, BackupPage, BackupPayload, ErrorCode,
    ImportId, ImportMembers, Operation, Project, ProjectId, ProjectRestore, ServerBackupPage,
    ServerBackupPayload, UserId,
};
use iris_store::WriteContext;
use iris_store::root::{DeleteBackup, StoredBackup};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;

use super::bodies::{ANSWER_BYTES, Held, PART_BYTES};
use super::projects::may_create;
use super::{Done, Grant, check_space, done, internal, stored};
use crate::backups::{
    BackUpServer, ImportArchive, NewFile, RestoreBackup, WriteBackup, archive_path, server_backups,
};
use crate::owner::{OwnerAnswer, OwnerAsk, mismatch};
use crate::{Node, write};

/// Bytes of an archive that are hashed at a time.
const HASHED_BYTES: usize = 256 * 1024;
/// Archives that may be received at the same time.
const UPLOADS_MAX: usize = 16;
/// How soon a caller may try again when others send archives, in milliseconds.
const UPLOADS_RETRY_AFTER_MS: u64 = 5_000;

pub(super) async fn create(
    node: &Node,
    grant: &Grant,
    kind: BackupKind,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let (project_id, by) = (grant.project_id()?.clone(), Some(grant.user_id()?.clone()));
    let written = node.archive(WriteBackup { project_id, kind, by, context }).await?;
    Ok(done(BackupPayload { backup: written.output })?.at(None, written.replayed))
}

pub(super) async fn list(node: &Node, grant: &Grant) -> Result<Done, ApiError> {
    let now = node.services.clock.now_ms();
    let found = node.root_reader.backups(grant.project_id()?).await.map_err(stored)?;
    let kept = found.into_iter().map(|stored| stored.backup);
    done(BackupPage { backups: kept.filter(|backup| is_kept(backup, now)).collect() })
}

/// Whether its time is not over yet. What is over is removed soon.
fn is_kept(backup: &Backup, now: i64) -> bool {
    backup.expires_at.is_none_or(|at| at > now)
}

async fn existing(
    node: &Node,
    project_id: &ProjectId,
    id: &BackupId,
) -> Result<StoredBackup, ApiError> {
    let found = node.root_reader.backup(project_id, id).await.map_err(stored)?;
    let found = found.ok_or_else(|| ApiError::not_found("backup"))?;
    if is_kept(&found.backup, node.services.clock.now_ms()) {
        Ok(found)
    } else {
        Err(ApiError::new(ErrorCode::Gone, "the export is over"))
    }
}

pub(super) async fn delete(
    node: &Node,
    grant: &Grant,
    request: BackupDelete,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let (project_id, id) = (grant.project_id()?.clone(), request.backup_id);
    let found = node.root_reader.backup(&project_id, &id).await.map_err(stored)?;
    // The archive first: a crash in between leaves a row without, which the next start removes.
    if let Some(found) = found {
        let path = archive_path(&node.services.settings.data_dir, &project_id, &found.file);
        let remove = move || crate::backups::remove_file(&path);
        spawn_blocking(remove).await.map_err(internal)?.map_err(internal)?;
    }
    let deleted = write(&node.root, DeleteBackup { project_id, id }, context).await;
    let deleted = deleted.map_err(stored)?;
    Ok(done(iris_protocol::Done { done: true })?.at(None, deleted.replayed))
}

pub(super) async fn restore(
    node: &Node,
    grant: &Grant,
    request: ProjectRestore,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let (project_id, by) = (grant.project_id()?.clone(), grant.user_id()?.clone());
    let task = RestoreBackup { project_id, backup_id: request.backup_id, by, context };
    let restored = node.archive(task).await?;
    let seq = restored.output.seq;
    Ok(done(restored.output)?.at(Some(seq), restored.replayed))
}

pub(super) async fn back_up_server(
    node: &Node,
    grant: &Grant,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let by = grant.user_id()?.clone();
    let made = node.archive(BackUpServer { by, context }).await?;
    Ok(done(ServerBackupPayload { backup: made.output })?.at(None, made.replayed))
}

pub(super) async fn list_server(node: &Node) -> Result<Done, ApiError> {
    let data_dir = node.services.settings.data_dir.clone();
    let list = spawn_blocking(move || server_backups(&data_dir)).await.map_err(internal)?;
    done(ServerBackupPage { backups: list })
}

// The bytes of an archive, over REST.

/// Which backup is to be downloaded, by whom.
#[derive(Debug, Clone)]
pub struct BackupAsk {
    /// Who asks; none without credentials.
    pub claims: Option<AccessClaims>,
    /// The project.
    pub project_id: ProjectId,
    /// The backup.
    pub backup_id: BackupId,
    /// Names the request in logs and errors, when the caller or the transport gave it a name.
    pub request_id: Option<String>,
}

/// A backup that may be downloaded. Its bytes come part by part.
pub struct Download {
    /// What it is.
    pub backup: Backup,
    node: Node,
    user_id: UserId,
    _held: Held,
}

/// A part of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupPart {
    /// Of which backup.
    pub backup: Backup,
    /// Some bytes from the offset on; none at the end.
    #[serde(with = "crate::owner::base64_bytes")]
    pub bytes: Vec<u8>,
}

/// Begins a download, for a caller who may `project.backup.read`. It is in the audit then.
///
/// # Errors
/// Those of the gate; `NOT_FOUND`; `GONE` for an export whose day is over; `OVERLOADED` when too much is
/// being sent and read.
pub async fn download(node: &Node, ask: BackupAsk) -> Result<Download, ApiError> {
    let BackupAsk { claims, project_id, backup_id, request_id } = ask;
    let begin = async {
        let operation = Operation::BackupRead;
        let grant = node.gate(claims.as_ref(), operation, Some(&project_id)).await?;
        let user_id = grant.user_id()?.clone();
        let held = node.bodies.hold(&user_id, ANSWER_BYTES)?;
        let nothing = ReadPart { backup_id, offset: 0, bytes_max: 0 };
        let BackupPart { backup, .. } = part(node, &project_id, &user_id, nothing).await?;
        let details = json!({ "backupId": backup.id });
        audit(node, &user_id, operation, &project_id, details).await?;
        Ok(Download { backup, node: node.clone(), user_id, _held: held })
    };
    node.request(request_id, Operation::BackupRead, Some(&project_id), begin).await
}

impl Download {
    /// The bytes from `offset` on, as many as come at a time, at most `bytes_max`.
    ///
    /// # Errors
    /// `NOT_FOUND` when the backup was deleted meanwhile; `INTERNAL` as the disk fails.
    pub async fn part(&self, offset: u64, bytes_max: u64) -> Result<Vec<u8>, ApiError> {
        let bytes_max = bytes_max.min(PART_BYTES);
        let read = ReadPart { backup_id: self.backup.id.clone(), offset, bytes_max };
        let part = part(&self.node, &self.backup.project_id, &self.user_id, read).await?;
        if part.bytes.is_empty() {
            tracing::error!(backup.id = %self.backup.id, "an archive ends too early");
            return Err(ApiError::new(ErrorCode::Internal, "internal error"));
        }
        Ok(part.bytes)
    }
}

struct ReadPart {
    backup_id: BackupId,
    offset: u64,
    bytes_max: u64,
}

async fn part(
    node: &Node,
    project_id: &ProjectId,
    user_id: &UserId,
    read: ReadPart,
) -> Result<BackupPart, ApiError> {
    let ReadPart { backup_id, offset, bytes_max } = read;
    let ask = OwnerAsk::ReadBackup { backup_id, offset, bytes_max };
    let answer = node.ask_owner(project_id, user_id, ask, None).await?;
    let OwnerAnswer::BackupPart(part) = answer else { return Err(mismatch()) };
    Ok(part)
}

/// Reads a part of an archive as the owner of the project.
pub(crate) async fn read_part_for(
    node: &Node,
    project_id: ProjectId,
    backup_id: BackupId,
    offset: u64,
    bytes_max: u64,
) -> Result<BackupPart, ApiError> {
    let StoredBackup { backup, file } = existing(node, &project_id, &backup_id).await?;
    let path = archive_path(&node.services.settings.data_dir, &project_id, &file);
    let read = move || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(bytes_max.min(PART_BYTES)).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let read = spawn_blocking(read).await.map_err(internal)?;
    let bytes = read.map_err(|error: std::io::Error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            return ApiError::not_found("backup");
        }
        internal(error)
    })?;
    Ok(BackupPart { backup, bytes })
}

async fn audit(
    node: &Node,
    user_id: &UserId,
    operation: Operation,
    target: &ProjectId,
    details: Value,
) -> Result<(), ApiError> {
    let command = node.services.audit(user_id, operation.name(), target.as_str(), details);
    write(&node.root, command, WriteContext::default()).await.map(drop).map_err(stored)
}

/// Who is sending archives. Each user sends one at a time.
#[derive(Default)]
pub(crate) struct Uploads(Mutex<HashSet<UserId>>);

/// The right to send one; dropping it gives it back.
struct Sender {
    uploads: Arc<Uploads>,
    user_id: UserId,
}

impl Uploads {
    fn begin(self: &Arc<Self>, user_id: &UserId) -> Option<Sender> {
        let mut sending = self.0.lock();
        let may_send = sending.len() < UPLOADS_MAX && sending.insert(user_id.clone());
        may_send.then(|| Sender { uploads: Arc::clone(self), user_id: user_id.clone() })
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.uploads.0.lock().remove(&self.user_id);
    }
}

/// An archive that is being received: a file that is removed when nobody imports it.
pub struct Upload {
    /// Where the bytes go.
    pub archive: NewFile,
    /// Open, and empty.
    pub file: File,
    /// Most bytes that it may have.
    pub bytes_max: u64,
    node: Node,
    _sender: Sender,
}

impl Upload {
    /// Refuses to go on when the disk is full: what space there is belongs to the projects.
    ///
    /// # Errors
    /// `STORAGE_FULL`.
    pub fn check_space(&self) -> Result<(), ApiError> {
        check_space(&self.node)
    }
}

/// Makes a file for an archive that a caller sends, who may `project.import`.
///
/// # Errors
/// Those of the gate; `OVERLOADED` when too many are received, or one of the same user; `STORAGE_FULL`.
pub async fn begin_upload(node: &Node, claims: Option<&AccessClaims>) -> Result<Upload, ApiError> {
    let grant = node.gate(claims, Operation::ProjectImport, None).await?;
    may_create(node, &grant).await?;
    node.rates.of_uploads(grant.user_id()?)?;
    let sender = node.uploads.begin(grant.user_id()?).ok_or_else(|| {
        let message = "too many archives are being received; try again";
        ApiError::new(ErrorCode::Overloaded, message).retry_after(UPLOADS_RETRY_AFTER_MS)
    })?;
    check_space(node)?;
    let settings = &node.services.settings;
    let (data_dir, name) = (settings.data_dir.clone(), node.services.ids.next_bits());
    let made = spawn_blocking(move || NewFile::for_upload(&data_dir, name)).await;
    let (archive, file) = made.map_err(internal)?.map_err(disk_failed)?;
    let bytes_max = settings.backups.import_bytes_max;
    Ok(Upload { archive, file, bytes_max, node: node.clone(), _sender: sender })
}

/// A failure of the disk as clients see it.
pub fn disk_failed(error: std::io::Error) -> ApiError {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    if matches!(error.kind(), StorageFull | QuotaExceeded) {
        return ApiError::new(ErrorCode::StorageFull, "the disk is full");
    }
    internal(error)
}

/// What is to become of an archive that was received.
#[derive(Debug)]
pub struct ImportAsk {
    /// Who asks; none without credentials.
    pub claims: Option<AccessClaims>,
    /// Whether the project gets a new id.
    pub id: ImportId,
    /// What becomes of its members.
    pub members: ImportMembers,
    /// The archive.
    pub archive: NewFile,
    /// Makes a repeat answer what the first one did.
    pub idempotency_key: Option<String>,
    /// Names the request in logs and errors, when the caller or the transport gave it a name.
    pub request_id: Option<String>,
}

/// Creates a project from an archive. Says too whether this is the answer to an earlier import with the
/// same idempotency key.
///
/// # Errors
/// Those of the gate; `INVALID_REQUEST` with `archive_corrupt` or `archive_newer`; `CONFLICT` with
/// `project_exists`; `PAYLOAD_TOO_LARGE`; `STORAGE_FULL`; `IDEMPOTENCY_CONFLICT`.
pub async fn import(node: &Node, ask: ImportAsk) -> Result<(Project, bool), ApiError> {
    let ImportAsk { claims, id, members, archive, idempotency_key, request_id } = ask;
    let run = async {
        let grant = node.gate(claims.as_ref(), Operation::ProjectImport, None).await?;
        let (context, archive) = match idempotency_key {
            None => (WriteContext::default(), archive),
            Some(key) => {
                let hashed = spawn_blocking(move || Ok((hash(&archive)?, archive))).await;
                let (hash, archive) = hashed.map_err(internal)?.map_err(disk_failed)?;
                let body = json!({ "id": id, "members": members, "archive": hash }).to_string();
                let operation = Operation::ProjectImport;
                (grant.repeatable(node, operation, &key, body.as_bytes()), archive)
            }
        };
        let by = grant.user_id()?.clone();
        let imported = node.archive(ImportArchive { archive, id, members, by, context }).await?;
        Ok((imported.output, imported.replayed))
    };
    node.request(request_id, Operation::ProjectImport, None, run).await
}

/// SHA-256 of a file, in base64.
fn hash(archive: &NewFile) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    let mut file = BufReader::with_capacity(HASHED_BYTES, File::open(archive.path())?);
    loop {
        let read = file.fill_buf()?;
        if read.is_empty() {
            break;
        }
        hash.update(read);
        let count = read.len();
        file.consume(count);
    }
    Ok(STANDARD.encode(hash.finalize()))
}
