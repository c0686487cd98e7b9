//! The content of files, as text in an operation and as bytes over REST.

use iris_auth::AccessClaims;
use iris_protocol::{
    ApiError, File, FileContent, FilePayload, FileRead, FileType, FileWrite, Operation, ProjectId,
    UserId,
    limits::{FILE_BYTES_MAX, FRAME_BYTES_MAX},
};
use iris_store::WriteContext;
use iris_store::project::RecordFileWrite;
use iris_workspace::{WorkspaceError, content_hash};

use serde::{Deserialize, Serialize};

use super::{Done, Grant, check_space, done, internal, stored};
use crate::owner::{OwnerAnswer, OwnerAsk, mismatch};
use crate::{Node, write as commit};

/// A file and its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileBytes {
    /// The file.
    pub file: File,
    /// All of them.
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

/// Reads a file as bytes, for a caller who may `file.read`.
///
/// # Errors
/// Those of the gate; `INVALID_REQUEST`, `FORBIDDEN`, `NOT_FOUND`, `PAYLOAD_TOO_LARGE` for the path.
pub async fn file_bytes(node: &Node, ask: FileAsk) -> Result<FileBytes, ApiError> {
    let FileAsk { claims, project_id, path, request_id } = ask;
    let read = async {
        let grant = node.gate(claims.as_ref(), Operation::FileRead, Some(&project_id)).await?;
        let ask = OwnerAsk::ReadFile { path };
        let answer = node.ask_owner(&project_id, grant.user_id()?, ask, None).await?;
        let OwnerAnswer::File(file) = answer else { return Err(mismatch()) };
        Ok(file)
    };
    node.request(request_id, Operation::FileRead, Some(&project_id), read).await
}

/// Reads a file as the owner of the project.
pub(crate) async fn read_file_for(
    node: &Node,
    user_id: UserId,
    project_id: ProjectId,
    path: String,
) -> Result<FileBytes, ApiError> {
    read_bytes(node, &Grant::of(user_id, project_id), path, FILE_BYTES_MAX).await
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
    let FileBytes { file, bytes } = read_bytes(node, grant, request.path, FRAME_BYTES_MAX).await?;
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

async fn read_bytes(
    node: &Node,
    grant: &Grant,
    path: String,
    bytes_max: usize,
) -> Result<FileBytes, ApiError> {
    let project = grant.project(node).await?;
    let workspace = project.workspace.clone();
    let read = {
        let path = path.clone();
        move || workspace.read_bytes(&path, bytes_max as u64)
    };
    let content = tokio::task::spawn_blocking(read).await.map_err(internal)?.map_err(refused)?;
    let info = content.info;
    let hash = info.hash.unwrap_or_else(|| content_hash(&content.bytes));
    let known = project.reader.file(info.path.clone()).await.map_err(stored)?;
    // What stands in the file now counts; who wrote it is known only if nobody changed it since.
    let known = known.filter(|file| file.hash == hash);
    let file = known.unwrap_or(File {
        path: info.path,
        r#type: FileType::File,
        size: content.bytes.len() as u64,
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
        return Err(ApiError::new(iris_protocol::ErrorCode::PayloadTooLarge, message));
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
    project.reader.check_file(quotas, path.clone(), size).await.map_err(stored)?;
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
