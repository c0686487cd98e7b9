//! The content of files, as text in an operation and as bytes over REST; in the files beside this one, all
//! else about files.

pub(super) mod browse;
pub(super) mod changes;
pub(super) mod history;
mod receiving;
mod sending;
pub(super) mod snapshots;
mod streams;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use iris_auth::AccessClaims;
use iris_protocol::{
    ApiError, ErrorCode, File, FileContent, FileEncoding, FilePayload, FileRead, FileType,
    FileWrite, Operation, ProjectId, UserId,
    limits::{FILE_BYTES_MAX, FRAME_BYTES_MAX},
};
use iris_store::WriteContext;
use iris_workspace::content_hash;
use serde::{Deserialize, Serialize};

use super::bodies::Held;
use super::{Done, Grant, done, internal, stored};
use crate::Node;
use crate::files::{Before, By, Place, Put, Recorded, put, refused};
use crate::owner::{OwnerAnswer, OwnerAsk, mismatch};
use crate::project::ProjectHandle;

pub use receiving::{FileUpload, ReceivedFile, UploadAsk, UploadPart, begin_file_upload};
pub(crate) use receiving::{Receivings, place_for, stage_for, stage_part_for};
pub use sending::{FileDownload, FilePart, OpenedFile, download_file};
pub(crate) use sending::{OpenFiles, open_file_for, read_file_for};
pub use streams::UploadOpen;
pub(crate) use streams::{
    CurrentClaims, DownloadStream, UploadStream, begin_download_stream, begin_upload_for,
    begin_upload_stream, cancel_upload_for, commit_upload_for, give_up_uploads, write_upload_for,
};

/// A file and its bytes.
pub(crate) struct FileBytes {
    pub(crate) file: File,
    pub(crate) bytes: Vec<u8>,
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
    /// To read: which version, or what is on the disk. To write: the version that the caller knows.
    pub version: Option<u64>,
    /// To write: what has to be there.
    pub before: Before,
    /// Names the request in logs and errors, when the caller or the transport gave it a name.
    pub request_id: Option<String>,
}

/// A file that is to hold these bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePut {
    /// Where.
    pub path: String,
    /// All of them.
    #[serde(with = "crate::owner::base64_bytes")]
    pub bytes: Vec<u8>,
    /// The version that the caller knows.
    pub version: Option<u64>,
    /// What has to be there.
    pub before: Before,
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
    let FileAsk { claims, project_id, path, version, before, request_id } = ask;
    let write = async {
        let grant = node.gate(claims.as_ref(), Operation::FileWrite, Some(&project_id)).await?;
        let put = FilePut { path, bytes, version, before };
        let ask = OwnerAsk::WriteFile { put, idempotency_key };
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
    put: FilePut,
    idempotency_key: Option<String>,
) -> Result<(File, bool), ApiError> {
    let FilePut { path, bytes, version, before } = put;
    let grant = Grant::of(user_id, project_id);
    let context = idempotency_key.map_or_else(WriteContext::default, |key| {
        let body = format!("{}\n{path}\n{version:?}", content_hash(&bytes));
        // As before there were conditions, where there are none.
        let body = if before == Before::Any { body } else { format!("{body}\n{before:?}") };
        grant.repeatable(node, Operation::FileWrite, &key, body.as_bytes())
    });
    let recorded = write_bytes(node, &grant, Put { path, bytes, version, before }, context).await?;
    Ok((changes::one(&recorded)?, recorded.replayed))
}

pub(super) async fn read(node: &Node, grant: &Grant, request: FileRead) -> Result<Done, ApiError> {
    // What does not fit into a frame has its REST route.
    let whole = FRAME_BYTES_MAX as u64;
    let FileRead { path, offset, limit, encoding, version } = request;
    let is_part = offset.is_some() || limit.is_some();
    let (offset, limit) = (offset.unwrap_or(0), limit.unwrap_or(whole).min(whole));
    let project = grant.project(node).await?;
    let FileBytes { file, mut bytes } = match version {
        Some(version) => read_version(&project, path, version).await?,
        None if is_part => read_bytes(&project, path, FILE_BYTES_MAX as u64, u64::MAX).await?,
        None => read_bytes(&project, path, whole, whole).await?,
    };
    let file = File { mime_type: Some(mime_type(&bytes).to_owned()), ..file };
    if is_part {
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        bytes.drain(..from);
        bytes.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    }
    if bytes.len() as u64 > whole {
        let message = format!("more than {whole} bytes: ask for a part, or take the REST route");
        return Err(ApiError::new(ErrorCode::PayloadTooLarge, message));
    }
    let encoding = encoding.unwrap_or_default();
    let content = match encoding {
        FileEncoding::Utf8 => String::from_utf8_lossy(&bytes).into_owned(),
        FileEncoding::Base64 => STANDARD.encode(&bytes),
    };
    done(FileContent { file, encoding, content })
}

/// What bytes are taken for: an image by how they begin, text, or anything.
pub(crate) fn mime_type(bytes: &[u8]) -> &'static str {
    if let Some(image) = iris_tools::image_type(bytes) {
        return image;
    }
    let is_text = !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok();
    if is_text { "text/plain" } else { "application/octet-stream" }
}

pub(super) async fn write(
    node: &Node,
    grant: &Grant,
    request: FileWrite,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let FileWrite { path, content, encoding, version } = request;
    let bytes = match encoding.unwrap_or_default() {
        FileEncoding::Utf8 => content.into_bytes(),
        FileEncoding::Base64 => STANDARD
            .decode(content)
            .map_err(|_| ApiError::invalid("`content` is not base64").reason("invalid_encoding"))?,
    };
    let before = Before::Any;
    let recorded = write_bytes(node, grant, Put { path, bytes, version, before }, context).await?;
    let file = changes::one(&recorded)?;
    Ok(done(FilePayload { file })?.at(recorded.seq, recorded.replayed))
}

/// Reads a version of a file.
pub(crate) async fn read_version(
    project: &ProjectHandle,
    path: String,
    version: u64,
) -> Result<FileBytes, ApiError> {
    let path = iris_workspace::RelPath::file(&path).map_err(refused)?.as_str().to_owned();
    let bytes = history::content_of(project, &path, version).await?;
    let bytes = bytes.ok_or_else(|| ApiError::not_found("version"))?;
    let found = project.reader.file_version(path, version).await.map_err(stored)?;
    let found = found.ok_or_else(|| ApiError::not_found("version"))?;
    Ok(FileBytes { file: iris_store::project::file_of(&found.version), bytes })
}

/// Reads the first bytes of a file that has at most `size_max`.
pub(crate) async fn read_bytes(
    project: &ProjectHandle,
    path: String,
    size_max: u64,
    bytes_max: u64,
) -> Result<FileBytes, ApiError> {
    let workspace = project.workspace.clone();
    let read = {
        let path = path.clone();
        move || workspace.read_beginning(&path, size_max, bytes_max)
    };
    let content = tokio::task::spawn_blocking(read).await.map_err(internal)?.map_err(refused)?;
    let info = content.info;
    let hash = info.hash.unwrap_or_default();
    let led_to = {
        let (workspace, path) = (project.workspace.clone(), info.path.clone());
        let follow = move || workspace.real_path(&path);
        tokio::task::spawn_blocking(follow).await.map_err(internal)?.map_err(refused)?
    };
    let known = project.reader.file(led_to).await.map_err(stored)?;
    // What stands in the file now counts; who wrote it is known only if nobody changed it since.
    let known = known.filter(|file| file.hash == hash);
    let file =
        known.unwrap_or_else(|| File::unrecorded(info.path, FileType::File, info.size, hash));
    Ok(FileBytes { file, bytes: content.bytes })
}

async fn write_bytes(
    node: &Node,
    grant: &Grant,
    request: Put,
    context: WriteContext,
) -> Result<Recorded, ApiError> {
    let project = grant.project(node).await?;
    let place = Place { project: &project, services: &node.services };
    put(place, By { user: grant.user_id()?.clone(), context }, request).await
}
