//! The content of files, as text in an operation and as bytes over REST.

use iris_auth::AccessClaims;
use iris_protocol::{
    ApiError, ErrorCode, File, FileContent, FilePayload, FileRead, FileType, FileWrite, Operation,
    ProjectId, UserId,
    limits::{FILE_BYTES_MAX, FRAME_BYTES_MAX},
};
use iris_store::WriteContext;
use iris_store::project::RecordFileWrite;
use iris_workspace::{ContentHash, WorkspaceError, content_hash};
use serde::{Deserialize, Serialize};

use super::bodies::{ANSWER_BYTES, Held, PART_BYTES};
use super::{Done, Grant, check_space, done, internal, stored};
use crate::owner::{OwnerAnswer, OwnerAsk, mismatch};
use crate::{Node, write as commit};

/// A file and its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileBytes {
    /// The file.
    pub file: File,
    /// All of them, or the first ones.
    #[serde(with = "crate::owner::base64_bytes")]
    pub bytes: Vec<u8>,
}

/// Where the content of a file is asked for, by whom.
#[derive(Debug, Clone)]
pub struct FileAsk {
    /// Who asks; none without credentials.
    pub claims: Option<AccessClaims>,
    /// The project.
    pub project_id: ProjectId,
    /// The file, relative to the project's directory.
    pub path: String,
    /// Names the request in logs and errors, when the caller or the transport gave it a name.
    pub request_id: Option<String>,
}

/// A file that may be read. Its bytes come part by part.
pub struct FileDownload {
    /// What it is.
    pub file: File,
    node: Node,
    project_id: ProjectId,
    user_id: UserId,
    path: String,
    /// The first part, until it is taken.
    first: Option<Vec<u8>>,
    /// Bytes that were taken.
    offset: u64,
    /// Theirs.
    hash: ContentHash,
    _held: Held,
}

/// Begins to read a file, for a caller who may `file.read`.
///
/// # Errors
/// Those of the gate; `INVALID_REQUEST`, `FORBIDDEN`, `NOT_FOUND`, `PAYLOAD_TOO_LARGE` for the path;
/// `OVERLOADED` when too much is being sent and read.
pub async fn download_file(node: &Node, ask: FileAsk) -> Result<FileDownload, ApiError> {
    let FileAsk { claims, project_id, path, request_id } = ask;
    let begin = async {
        let grant = node.gate(claims.as_ref(), Operation::FileRead, Some(&project_id)).await?;
        let user_id = grant.user_id()?.clone();
        let held = node.bodies.hold(&user_id, ANSWER_BYTES)?;
        let ask = OwnerAsk::ReadFile { path: path.clone() };
        let answer = node.ask_owner(&project_id, &user_id, ask, None).await?;
        let OwnerAnswer::File(FileBytes { file, bytes }) = answer else { return Err(mismatch()) };
        Ok(FileDownload {
            file,
            node: node.clone(),
            project_id: project_id.clone(),
            user_id,
            path,
            first: Some(bytes),
            offset: 0,
            hash: ContentHash::default(),
            _held: held,
        })
    };
    node.request(request_id, Operation::FileRead, Some(&project_id), begin).await
}

impl FileDownload {
    /// The next bytes; none at the end. The last ones come only when all of them together are the
    /// content that was begun with.
    ///
    /// # Errors
    /// `CONFLICT` when the file changed meanwhile; those of reading it.
    pub async fn part(&mut self) -> Result<Option<Vec<u8>>, ApiError> {
        if self.offset == self.file.size {
            return Ok(None);
        }
        let bytes = if let Some(first) = self.first.take() {
            first
        } else {
            let ask = OwnerAsk::ReadFilePart { path: self.path.clone(), offset: self.offset };
            let asked = self.node.ask_owner(&self.project_id, &self.user_id, ask, None);
            let OwnerAnswer::FilePart(part) = asked.await? else { return Err(mismatch()) };
            part.bytes
        };
        self.offset += bytes.len() as u64;
        self.hash.update(&bytes);
        let is_too_short = bytes.is_empty();
        let is_too_long = self.offset > self.file.size;
        let is_last = self.offset == self.file.size;
        if is_too_short || is_too_long || (is_last && self.hash.clone().finish() != self.file.hash)
        {
            return Err(ApiError::new(ErrorCode::Conflict, "the file changed while it was read"));
        }
        Ok(Some(bytes))
    }
}

/// Reads the beginning of a file as the owner of the project.
pub(crate) async fn read_file_for(
    node: &Node,
    user_id: UserId,
    project_id: ProjectId,
    path: String,
) -> Result<FileBytes, ApiError> {
    let grant = Grant::of(user_id, project_id);
    read_bytes(node, &grant, path, FILE_BYTES_MAX as u64, PART_BYTES).await
}

/// A part of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePart {
    /// Some bytes from the offset on; none at the end.
    #[serde(with = "crate::owner::base64_bytes")]
    pub bytes: Vec<u8>,
}

/// Reads a part of a file as the owner of the project.
pub(crate) async fn read_file_part_for(
    node: &Node,
    project_id: &ProjectId,
    path: String,
    offset: u64,
) -> Result<FilePart, ApiError> {
    let workspace = node.project(project_id).await?.workspace;
    let read = move || workspace.read_part(&path, offset, PART_BYTES);
    let bytes = tokio::task::spawn_blocking(read).await.map_err(internal)?.map_err(refused)?;
    Ok(FilePart { bytes })
}

/// Makes room for a file of so many bytes that a caller sends, who may `file.write`.
///
/// # Errors
/// Those of the gate; `OVERLOADED` when too much is being sent and read.
pub async fn begin_put(node: &Node, ask: &FileAsk, bytes: u64) -> Result<Held, ApiError> {
    let claims = ask.claims.as_ref();
    let grant = node.gate(claims, Operation::FileWrite, Some(&ask.project_id)).await?;
    node.rates.of_uploads(grant.user_id()?)?;
    node.bodies.hold(grant.user_id()?, bytes)
}

/// Writes a file as bytes, for a caller who may `file.write`. Says too whether this is the answer to
/// an earlier write with the same idempotency key.
///
/// # Errors
/// Those of the gate; `INVALID_REQUEST`, `FORBIDDEN`, `PAYLOAD_TOO_LARGE` for the path;
/// `IDEMPOTENCY_CONFLICT`.
pub async fn put_file_bytes(
    node: &Node,
    ask: FileAsk,
    bytes: Vec<u8>,
    idempotency_key: Option<String>,
) -> Result<(File, bool), ApiError> {
    let FileAsk { claims, project_id, path, request_id } = ask;
    let write = async {
        let grant = node.gate(claims.as_ref(), Operation::FileWrite, Some(&project_id)).await?;
        let ask = OwnerAsk::WriteFile { path, bytes, idempotency_key };
        let answer = node.ask_owner(&project_id, grant.user_id()?, ask, None).await?;
        let OwnerAnswer::Written(file, replayed) = answer else { return Err(mismatch()) };
        Ok((file, replayed))
    };
    node.request(request_id, Operation::FileWrite, Some(&project_id), write).await
}

/// Writes a file as the owner of the project.
pub(crate) async fn write_file_for(
    node: &Node,
    user_id: UserId,
    project_id: ProjectId,
    path: String,
    bytes: Vec<u8>,
    idempotency_key: Option<String>,
) -> Result<(File, bool), ApiError> {
    let grant = Grant::of(user_id, project_id);
    let context = idempotency_key.map_or_else(WriteContext::default, |key| {
        let body = format!("{}\n{path}", content_hash(&bytes));
        grant.repeatable(node, Operation::FileWrite, &key, body.as_bytes())
    });
    let (file, _, replayed) = write_bytes(node, &grant, path, bytes, context).await?;
    Ok((file, replayed))
}

pub(super) async fn read(node: &Node, grant: &Grant, request: FileRead) -> Result<Done, ApiError> {
    // What does not fit into a frame has its REST route.
    let whole = FRAME_BYTES_MAX as u64;
    let FileBytes { file, bytes } = read_bytes(node, grant, request.path, whole, whole).await?;
    done(FileContent { file, content: String::from_utf8_lossy(&bytes).into_owned() })
}

pub(super) async fn write(
    node: &Node,
    grant: &Grant,
    request: FileWrite,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let bytes = request.content.into_bytes();
    let (file, seq, replayed) = write_bytes(node, grant, request.path, bytes, context).await?;
    Ok(done(FilePayload { file })?.at(seq, replayed))
}

/// Reads the first bytes of a file that has at most `size_max`.
async fn read_bytes(
    node: &Node,
    grant: &Grant,
    path: String,
    size_max: u64,
    bytes_max: u64,
) -> Result<FileBytes, ApiError> {
    let project = grant.project(node).await?;
    let workspace = project.workspace.clone();
    let read = {
        let path = path.clone();
        move || workspace.read_beginning(&path, size_max, bytes_max)
    };
    let content = tokio::task::spawn_blocking(read).await.map_err(internal)?.map_err(refused)?;
    let info = content.info;
    let hash = info.hash.unwrap_or_default();
    let known = project.reader.file(info.path.clone()).await.map_err(stored)?;
    // What stands in the file now counts; who wrote it is known only if nobody changed it since.
    let known = known.filter(|file| file.hash == hash);
    let file = known.unwrap_or(File {
        path: info.path,
        r#type: FileType::File,
        size: info.size,
        version: 0,
        hash,
        updated_at: None,
        updated_by: None,
    });
    Ok(FileBytes { file, bytes: content.bytes })
}

async fn write_bytes(
    node: &Node,
    grant: &Grant,
    path: String,
    bytes: Vec<u8>,
    context: WriteContext,
) -> Result<(File, Option<u64>, bool), ApiError> {
    if bytes.len() > FILE_BYTES_MAX {
        let message = format!("a file may have at most {FILE_BYTES_MAX} bytes");
        return Err(ApiError::new(ErrorCode::PayloadTooLarge, message));
    }
    let project = grant.project(node).await?;
    // A repeat must not touch the file again: somebody may have changed it since.
    if let Some(key) = context.idempotency.clone()
        && let Some(first) = project.reader.recall::<RecordFileWrite>(key).await.map_err(stored)?
    {
        return Ok((first.output, first.seq, true));
    }
    let (quotas, size) = (node.services.settings.quotas, bytes.len() as u64);
    // Before the disk is touched; the command looks again.
    project.reader.check_file(quotas, path.clone(), Some(size)).await.map_err(stored)?;
    check_space(node)?;
    let workspace = project.workspace.clone();
    let replace = move || workspace.write(&path, &bytes);
    let written = tokio::task::spawn_blocking(replace).await.map_err(internal)?.map_err(refused)?;
    let command = RecordFileWrite {
        path: written.path,
        size: written.size,
        hash: written.hash,
        quotas,
        by: grant.user_id()?.clone(),
        at: node.services.clock.now_ms(),
    };
    let recorded = commit(&project.address, command, context).await.map_err(stored)?;
    Ok((recorded.output, recorded.seq, recorded.replayed))
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
fn refused(error: WorkspaceError) -> ApiError {
    let wire = ApiError::new(error.code(), error.to_string());
    match error.reason() {
        Some(reason) => wire.reason(reason),
        None => wire,
    }
}
