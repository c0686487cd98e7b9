//! Files on their way out: opened by the owner of the project, read part by part through one handle, so
//! that what takes a file's name meanwhile changes nothing about what is sent.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use iris_auth::AccessClaims;
use iris_protocol::{ApiError, ErrorCode, File, FileType, Operation, ProjectId, UserId};
use iris_workspace::{ContentHash, OpenFile, Seen, WorkspaceError};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{FileAsk, FileBytes, Grant, read_version};
use crate::Node;
use crate::dispatch::bodies::{ANSWER_BYTES, Held, PART_BYTES};
use crate::dispatch::{internal, stored};
use crate::files::{is_same, refused};
use crate::owner::{OwnerAnswer, OwnerAsk, mismatch};
use crate::supervision::detached;

/// How long a file may be open of which nobody reads: a node that went away closes nothing.
const IDLE_MAX: Duration = Duration::from_mins(5);
/// Hashes of files that are remembered.
const HASHES_MAX: usize = 4_096;

/// The files that are open at the owner of their project.
#[derive(Default)]
pub(crate) struct OpenFiles {
    open: Mutex<HashMap<String, Open>>,
    /// Those of contents of which no version is recorded, by project and inode.
    hashes: Mutex<HashMap<(ProjectId, i64), (Seen, String)>>,
}

struct Open {
    user_id: UserId,
    content: Arc<Content>,
    used_at: Instant,
}

enum Content {
    OnDisk(OpenFile),
    /// Of a version, all of it.
    Version(Vec<u8>),
}

impl OpenFiles {
    fn open(&self, handle: String, user_id: UserId, content: Arc<Content>) {
        let (mut open, used_at) = (self.open.lock(), Instant::now());
        open.retain(|_, open| used_at.duration_since(open.used_at) < IDLE_MAX);
        open.insert(handle, Open { user_id, content, used_at });
    }

    fn content(&self, user_id: &UserId, handle: &str) -> Option<Arc<Content>> {
        let mut open = self.open.lock();
        let open = open.get_mut(handle).filter(|open| open.user_id == *user_id)?;
        open.used_at = Instant::now();
        Some(Arc::clone(&open.content))
    }

    /// Closes a file, unless it was closed.
    pub(crate) fn close(&self, user_id: &UserId, handle: &str) {
        let mut open = self.open.lock();
        if open.get(handle).is_some_and(|open| open.user_id == *user_id) {
            open.remove(handle);
        }
    }

    fn hash(&self, project_id: &ProjectId, seen: &Seen) -> Option<String> {
        let hashes = self.hashes.lock();
        let (known, hash) = hashes.get(&(project_id.clone(), seen.inode))?;
        (known == seen).then(|| hash.clone())
    }

    fn remember(&self, project_id: ProjectId, seen: Seen, hash: String) {
        if seen.is_fresh {
            return;
        }
        let mut hashes = self.hashes.lock();
        if hashes.len() >= HASHES_MAX {
            hashes.clear();
        }
        hashes.insert((project_id, seen.inode), (seen, hash));
    }
}

/// A file that the owner of its project has opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedFile {
    /// The file.
    pub file: File,
    /// Its first bytes.
    #[serde(with = "crate::owner::base64_bytes")]
    pub bytes: Vec<u8>,
    /// Names it where there are more of them.
    pub handle: Option<String>,
    /// Whether all of it is in memory as long as it is open.
    pub is_held: bool,
}

/// A part of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePart {
    /// Some bytes from the offset on; none at the end.
    #[serde(with = "crate::owner::base64_bytes")]
    pub bytes: Vec<u8>,
}

/// Opens a file as the owner of the project.
pub(crate) async fn open_file_for(
    node: &Node,
    user_id: UserId,
    project_id: ProjectId,
    path: String,
    version: Option<u64>,
) -> Result<OpenedFile, ApiError> {
    let grant = Grant::of(user_id.clone(), project_id.clone());
    let (file, content) = if let Some(version) = version {
        let FileBytes { file, bytes } =
            read_version(&grant.project(node).await?, path, version).await?;
        (file, Content::Version(bytes))
    } else {
        let (file, open) = open_on_disk(node, &grant, project_id, path).await?;
        (file, Content::OnDisk(open))
    };
    let is_held = match &content {
        Content::OnDisk(open) => open.is_held(),
        Content::Version(_) => true,
    };
    let content = Arc::new(content);
    let bytes = content_part(&content, 0, PART_BYTES).await?;
    let is_all = bytes.len() as u64 >= file.size;
    let handle = (!is_all).then(|| format!("{:032x}", node.services.ids.next_bits()));
    if let Some(handle) = handle.clone() {
        node.open_files.open(handle, user_id, content);
    }
    Ok(OpenedFile { file, bytes, handle, is_held })
}

async fn open_on_disk(
    node: &Node,
    grant: &Grant,
    project_id: ProjectId,
    path: String,
) -> Result<(File, OpenFile), ApiError> {
    let project = grant.project(node).await?;
    let (workspace, size_max) =
        (project.workspace.clone(), node.services.settings.files.transfer_bytes_max);
    let open = move || workspace.open_file(&path, size_max);
    let open = tokio::task::spawn_blocking(open).await.map_err(internal)?.map_err(refused)?;
    let (seen, real) = (*open.seen(), open.real_path().to_owned());
    let known = if let Some(hash) = open.known_hash() {
        Some(hash.to_owned())
    } else {
        let known = project.reader.known_file(real.clone()).await.map_err(stored)?;
        known.filter(|known| is_same(known, &seen)).map(|known| known.hash)
    };
    let known = known.filter(|hash| !hash.is_empty());
    let known = known.or_else(|| node.open_files.hash(&project_id, &seen));
    let (hash, open) = if let Some(hash) = known {
        (hash, open)
    } else {
        let hashed = tokio::task::spawn_blocking(move || Ok((open.hash()?, open)));
        let (hash, open) = hashed.await.map_err(internal)?.map_err(failed)?;
        node.open_files.remember(project_id, seen, hash.clone());
        (hash, open)
    };
    // What stands in the file now counts; who wrote it is known only if nobody changed it since.
    let recorded = project.reader.file(real).await.map_err(stored)?;
    let recorded = recorded.filter(|file| file.hash == hash);
    let file = recorded.unwrap_or_else(|| {
        File::unrecorded(open.path().to_owned(), FileType::File, seen.size, hash)
    });
    Ok((file, open))
}

/// Reads a part of a file that is open, as the owner of the project.
pub(crate) async fn read_file_for(
    node: &Node,
    user_id: &UserId,
    handle: &str,
    offset: u64,
    bytes_max: u64,
) -> Result<FilePart, ApiError> {
    let content = node.open_files.content(user_id, handle).ok_or_else(|| {
        let message = "the file is not open any more: read it again";
        ApiError::new(ErrorCode::Conflict, message).reason("not_open")
    })?;
    let bytes = content_part(&content, offset, bytes_max.min(PART_BYTES)).await?;
    Ok(FilePart { bytes })
}

async fn content_part(
    content: &Arc<Content>,
    offset: u64,
    bytes_max: u64,
) -> Result<Vec<u8>, ApiError> {
    let content = Arc::clone(content);
    let read = move || match &*content {
        Content::OnDisk(file) => file.read_at(offset, bytes_max).map_err(failed),
        Content::Version(bytes) => {
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            let length = usize::try_from(bytes_max).unwrap_or(usize::MAX);
            Ok(bytes.iter().skip(from).take(length).copied().collect())
        }
    };
    tokio::task::spawn_blocking(read).await.map_err(internal)?
}

fn failed(error: WorkspaceError) -> ApiError {
    if matches!(error, WorkspaceError::Changed { .. }) { changed() } else { refused(error) }
}

fn changed() -> ApiError {
    ApiError::new(ErrorCode::Conflict, "the file changed while it was read").reason("changed")
}

/// A file that may be read. Its bytes come part by part.
pub struct FileDownload {
    /// What it is.
    pub file: File,
    source: Source,
    /// The first bytes, until they are taken.
    first: Option<Vec<u8>>,
    /// Where the next byte stands in the file.
    offset: u64,
    /// Where the last one does, and one more.
    end: u64,
    /// That of the bytes that were taken; none where these are not all of the file.
    hash: Option<ContentHash>,
    /// For whom it is; none where another gate stands before it.
    claims: Option<AccessClaims>,
    _held: (Held, Option<Held>),
}

/// Where the bytes come from. Dropping it closes the file.
struct Source {
    node: Node,
    project_id: ProjectId,
    user_id: UserId,
    /// None where all came with the answer.
    handle: Option<String>,
}

/// Begins to read a file, for a caller who may `file.read`.
///
/// # Errors
/// Those of the gate; `INVALID_REQUEST`, `FORBIDDEN`, `NOT_FOUND`, `PAYLOAD_TOO_LARGE` for the path;
/// `OVERLOADED` when too much is being sent and read.
pub async fn download_file(node: &Node, ask: FileAsk) -> Result<FileDownload, ApiError> {
    let FileAsk { claims, project_id, path, version, request_id, .. } = ask;
    let begin = async {
        let grant = node.gate(claims.as_ref(), Operation::FileRead, Some(&project_id)).await?;
        let user_id = grant.user_id()?.clone();
        let mut download = open(node, user_id, project_id.clone(), path, version).await?;
        // A token that ends while the file is on its way cannot be renewed, and was good when it was asked
        // for; what it stands for has to be good to the end.
        download.claims = claims
            .as_ref()
            .map(|claims| AccessClaims { expires_at_ms: i64::MAX, ..claims.clone() });
        Ok(download)
    };
    node.request(request_id, Operation::FileRead, Some(&project_id), begin).await
}

pub(super) async fn open(
    node: &Node,
    user_id: UserId,
    project_id: ProjectId,
    path: String,
    version: Option<u64>,
) -> Result<FileDownload, ApiError> {
    let held = node.bodies.hold(&user_id, ANSWER_BYTES)?;
    let ask = OwnerAsk::OpenFile { path, version };
    let answer = node.ask_owner(&project_id, &user_id, ask, None).await?;
    let OwnerAnswer::Opened(OpenedFile { file, bytes, handle, is_held }) = answer else {
        return Err(mismatch());
    };
    let (node, end) = (node.clone(), file.size);
    let source = Source { node, project_id, user_id, handle };
    let is_held = is_held && source.handle.is_some();
    let whole = is_held.then(|| source.node.bodies.hold(&source.user_id, end)).transpose()?;
    let (first, hash) = (Some(bytes), Some(ContentHash::default()));
    let held = (held, whole);
    Ok(FileDownload { file, source, first, offset: 0, end, hash, claims: None, _held: held })
}

impl FileDownload {
    /// Goes on with this part of the file alone, from its first byte to before `end`.
    pub fn narrow(&mut self, offset: u64, end: u64) {
        (self.offset, self.end) = (offset.min(self.file.size), end.min(self.file.size));
        if (self.offset, self.end) != (0, self.file.size) {
            self.hash = None;
        }
    }

    /// Where the next byte stands in the file.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// How many bytes are to come.
    pub fn bytes_left(&self) -> u64 {
        self.end.saturating_sub(self.offset)
    }

    /// The next bytes; none at the end. The last ones of a whole file come only when all of them
    /// together are the content that was begun with.
    ///
    /// # Errors
    /// Those of the gate, which is asked each time: a right that has ended ends the answer. `CONFLICT` when the
    /// file changed meanwhile; those of reading it.
    pub async fn part(&mut self) -> Result<Option<Vec<u8>>, ApiError> {
        let Source { node, project_id, .. } = &self.source;
        node.gate(self.claims.as_ref(), Operation::FileRead, Some(project_id)).await?;
        self.part_of(PART_BYTES).await
    }

    /// As [`FileDownload::part`], at most so many bytes.
    ///
    /// # Errors
    /// As [`FileDownload::part`].
    pub(crate) async fn part_of(&mut self, bytes_max: u64) -> Result<Option<Vec<u8>>, ApiError> {
        let bytes_max = self.bytes_left().min(bytes_max);
        if bytes_max == 0 {
            return Ok(None);
        }
        let bytes = match self.at_hand(bytes_max) {
            Some(bytes) => bytes,
            None => self.source.read(self.offset, bytes_max).await?,
        };
        if bytes.is_empty() {
            return Err(changed());
        }
        self.offset += bytes.len() as u64;
        if let Some(hash) = &mut self.hash {
            hash.update(&bytes);
            if self.offset == self.end && hash.clone().finish() != self.file.hash {
                return Err(changed());
            }
        }
        Ok(Some(bytes))
    }

    /// Bytes that came when the file was opened.
    fn at_hand(&mut self, bytes_max: u64) -> Option<Vec<u8>> {
        let from = usize::try_from(self.offset).ok()?;
        let rest = self.first.as_ref()?.get(from..).filter(|rest| !rest.is_empty());
        let Some(rest) = rest else {
            self.first = None;
            return None;
        };
        Some(rest.iter().take(usize::try_from(bytes_max).ok()?).copied().collect())
    }
}

impl Source {
    async fn read(&self, offset: u64, bytes_max: u64) -> Result<Vec<u8>, ApiError> {
        let Some(handle) = self.handle.clone() else { return Err(changed()) };
        let ask = OwnerAsk::ReadFile { handle, offset, bytes_max };
        let asked = self.node.ask_owner(&self.project_id, &self.user_id, ask, None);
        let OwnerAnswer::FilePart(part) = asked.await? else { return Err(mismatch()) };
        Ok(part.bytes)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let Some(handle) = self.handle.take() else { return };
        let (node, project_id) = (self.node.clone(), self.project_id.clone());
        let user_id = self.user_id.clone();
        detached(async move {
            let ask = OwnerAsk::CloseFile { handle };
            if let Err(error) = node.ask_owner(&project_id, &user_id, ask, None).await {
                tracing::debug!(%error, "a file stays open until its time is over");
            }
        });
    }
}
