//! The content of files, as text in an operation and as bytes over REST; in the files beside this one, all
//! else about files.

pub(super) mod browse;
pub(super) mod changes;
pub(super) mod history;
pub(super) mod snapshots;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use iris_auth::AccessClaims;
use iris_protocol::{
    ApiError, ErrorCode, File, FileContent, FileEncoding, FilePayload, FileRead, FileType,
    FileWrite, Operation, ProjectId, UserId,
    limits::{FILE_BYTES_MAX, FRAME_BYTES_MAX},
};
use iris_store::WriteContext;
use iris_workspace::{ContentHash, content_hash};
use serde::{Deserialize, Serialize};

use super::bodies::{ANSWER_BYTES, Held, PART_BYTES};
use super::{Done, Grant, done, internal, stored};
use crate::Node;
use crate::files::{By, Place, Put, Recorded, put, refused};
use crate::owner::{OwnerAnswer, OwnerAsk, mismatch};
use crate::project::ProjectHandle;

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
    /// To read: which version, or what is on the disk. To write: the version that the caller knows.
    pub version: Option<u64>,
    /// To read: from which byte on, and up to which, that one included.
    pub range: Option<(u64, Option<u64>)>,
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
    /// Where the next byte stands in the file.
    offset: u64,
    /// Where the last one does, and one more.
    end: u64,
    /// That of the bytes that were taken; none where these are not all of the file.
    hash: Option<ContentHash>,
    _held: Held,
}

/// Begins to read a file, for a caller who may `file.read`.
///
/// # Errors
/// Those of the gate; `INVALID_REQUEST`, `FORBIDDEN`, `NOT_FOUND`, `PAYLOAD_TOO_LARGE` for the path;
/// `OVERLOADED` when too much is being sent and read.
pub async fn download_file(node: &Node, ask: FileAsk) -> Result<FileDownload, ApiError> {
    let FileAsk { claims, project_id, path, version, range, request_id } = ask;
    let begin = async {
        let grant = node.gate(claims.as_ref(), Operation::FileRead, Some(&project_id)).await?;
        let user_id = grant.user_id()?.clone();
        let held = node.bodies.hold(&user_id, ANSWER_BYTES)?;
        let ask = OwnerAsk::ReadFile { path: path.clone(), version };
        let answer = node.ask_owner(&project_id, &user_id, ask, None).await?;
        let OwnerAnswer::File(FileBytes { file, bytes }) = answer else { return Err(mismatch()) };
        let (offset, end) = part_of(&file, range)?;
        let is_whole = offset == 0 && end == file.size;
        // The first bytes are at hand already; of a version, all of them.
        let at_hand = usize::try_from(offset).ok().and_then(|from| bytes.get(from..));
        let first = at_hand.filter(|bytes| !bytes.is_empty()).map(<[u8]>::to_vec);
        Ok(FileDownload {
            file,
            node: node.clone(),
            project_id: project_id.clone(),
            user_id,
            path,
            first,
            offset,
            end,
            hash: is_whole.then(ContentHash::default),
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
        if self.offset == self.end {
            return Ok(None);
        }
        let mut bytes = if let Some(first) = self.first.take() {
            first
        } else {
            let ask = OwnerAsk::ReadFilePart { path: self.path.clone(), offset: self.offset };
            let asked = self.node.ask_owner(&self.project_id, &self.user_id, ask, None);
            let OwnerAnswer::FilePart(part) = asked.await? else { return Err(mismatch()) };
            part.bytes
        };
        let changed = || ApiError::new(ErrorCode::Conflict, "the file changed while it was read");
        if bytes.is_empty() {
            return Err(changed());
        }
        let Some(hash) = &mut self.hash else {
            // A part of it has no hash to compare with.
            bytes.truncate(usize::try_from(self.end - self.offset).unwrap_or(usize::MAX));
            self.offset += bytes.len() as u64;
            return Ok(Some(bytes));
        };
        self.offset += bytes.len() as u64;
        hash.update(&bytes);
        let is_too_long = self.offset > self.end;
        let is_last = self.offset == self.end;
        if is_too_long || (is_last && hash.clone().finish() != self.file.hash) {
            return Err(changed());
        }
        Ok(Some(bytes))
    }

    /// The part of the file that this is, where it is not all of it: its first byte and the one behind its last.
    pub fn range(&self) -> Option<(u64, u64)> {
        self.hash.is_none().then_some((self.offset, self.end))
    }
}

/// The part of a file that somebody asks for.
fn part_of(file: &File, range: Option<(u64, Option<u64>)>) -> Result<(u64, u64), ApiError> {
    let Some((from, last)) = range else { return Ok((0, file.size)) };
    let end = last.map_or(file.size, |last| last.saturating_add(1).min(file.size));
    if from >= end {
        let message = format!("the file has {} bytes", file.size);
        return Err(ApiError::invalid(message).reason("range_not_satisfiable"));
    }
    Ok((from, end))
}

/// Reads the beginning of a file as the owner of the project.
pub(crate) async fn read_file_for(
    node: &Node,
    user_id: UserId,
    project_id: ProjectId,
    path: String,
    version: Option<u64>,
) -> Result<FileBytes, ApiError> {
    let grant = Grant::of(user_id, project_id);
    if let Some(version) = version {
        return read_version(&grant.project(node).await?, path, version).await;
    }
    read_bytes(&grant.project(node).await?, path, FILE_BYTES_MAX as u64, PART_BYTES).await
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
    let FileAsk { claims, project_id, path, version, request_id, .. } = ask;
    let write = async {
        let grant = node.gate(claims.as_ref(), Operation::FileWrite, Some(&project_id)).await?;
        let ask = OwnerAsk::WriteFile { path, bytes, version, idempotency_key };
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
    put: (String, Vec<u8>, Option<u64>),
    idempotency_key: Option<String>,
) -> Result<(File, bool), ApiError> {
    let (path, bytes, version) = put;
    let grant = Grant::of(user_id, project_id);
    let context = idempotency_key.map_or_else(WriteContext::default, |key| {
        let body = format!("{}\n{path}\n{version:?}", content_hash(&bytes));
        grant.repeatable(node, Operation::FileWrite, &key, body.as_bytes())
    });
    let recorded = write_bytes(node, &grant, Put { path, bytes, version }, context).await?;
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
    let recorded = write_bytes(node, grant, Put { path, bytes, version }, context).await?;
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
