//! Files over a socket: the owner of the project writes what comes to the disk before it is acknowledged, so
//! that a client that was cut, also by the end of the process, goes on where it was.

use std::sync::Arc;

use iris_auth::AccessClaims;
use iris_protocol::limits::{CHUNK_BYTES_MAX, CHUNKS_UNACKNOWLEDGED_MAX, UPLOAD_KEPT_MS};
use iris_protocol::{
    ApiError, DownloadBegin, ErrorCode, FilePayload, Operation, ProjectId, UploadBegin, UserId,
};
use iris_store::WriteContext;
use iris_store::project::{BeginUpload, BegunUpload, EndUpload, StoredUpload};
use iris_workspace::{StagedFile, Workspace, WorkspaceError};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::receiving::{Receiving, given_up, noticed};
use super::sending::{FileDownload, open};
use crate::dispatch::bodies::Held;
use crate::dispatch::patience;
use crate::dispatch::{Done, done, internal, stored};
use crate::files::{Arrived, Place, check_room, check_upload, place_all, refused};
use crate::owner::{OwnerAnswer, OwnerAsk, mismatch};
use crate::project::ProjectHandle;
use crate::supervision::detached;
use crate::{Node, record, write};

/// What is in memory of one stream.
const STREAM_BYTES: u64 = (2 * CHUNK_BYTES_MAX * CHUNKS_UNACKNOWLEDGED_MAX) as u64;
/// Digits of a SHA-256.
const SHA256_DIGITS: usize = 64;

/// Who a connection acts for now: a new token takes the place of one that ends.
pub(crate) type CurrentClaims = Arc<Mutex<Option<AccessClaims>>>;

/// A file that the owner of a project receives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadOpen {
    /// Names it for this connection.
    pub handle: String,
    /// Bytes that are on the disk.
    pub received: u64,
}

// As the owner of the project.

/// Begins to receive a file, or goes on with it.
pub(crate) async fn begin_upload_for(
    node: &Node,
    user_id: UserId,
    project_id: &ProjectId,
    begin: UploadBegin,
) -> Result<UploadOpen, ApiError> {
    let UploadBegin { path, size, sha256, version } = begin;
    let is_digit = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    if sha256.len() != SHA256_DIGITS || !sha256.bytes().all(is_digit) {
        let message = format!("`sha256` must have {SHA256_DIGITS} hex digits in lower case");
        return Err(ApiError::invalid(message).reason("invalid_hash"));
    }
    let size_max = node.services.settings.files.transfer_bytes_max;
    if size > size_max {
        let message = format!("a file may have at most {size_max} bytes");
        return Err(ApiError::new(ErrorCode::PayloadTooLarge, message));
    }
    let project = node.project(project_id).await?;
    let place = Place { project: &project, services: &node.services };
    let path = check_upload(place, &user_id, path, size, version).await?;
    let _lane = node.receivings.lane(project_id, &user_id, &path).await;
    let (id, at) =
        (format!("{:032x}", node.services.ids.next_bits()), node.services.clock.now_ms());
    let expires_at = at.saturating_add(i64::try_from(UPLOAD_KEPT_MS).unwrap_or(i64::MAX));
    let user = user_id.clone();
    let upload = StoredUpload { id, user_id: user, path, size, sha256, version, expires_at };
    let quotas = node.services.settings.quotas;
    let command = BeginUpload { upload, quotas, at };
    let noted = write(&project.address, command, WriteContext::default()).await;
    let BegunUpload { upload, replaced } = noted.map_err(stored)?.output;
    // Whoever else sends it, over a connection that is perhaps cut already, does so no more.
    for id in replaced.iter().chain([&upload.id]) {
        if let Some(before) = node.receivings.take_upload(id) {
            before.file.lock().await.take();
        }
    }
    let (workspace, name) = (project.workspace.clone(), upload.id.clone());
    let resume = move || {
        replaced.iter().try_for_each(|id| workspace.discard_staged(id))?;
        resume(&workspace, &name, size)
    };
    let staged = spawn_blocking(resume).await;
    let staged = staged.map_err(internal)?.map_err(refused)?;
    let received = staged.size();
    let handle = format!("{:032x}", node.services.ids.next_bits());
    node.receivings.add(handle.clone(), Receiving::of_upload(user_id, project, staged, upload))?;
    Ok(UploadOpen { handle, received })
}

fn resume(workspace: &Workspace, name: &str, size: u64) -> Result<StagedFile, WorkspaceError> {
    match workspace.resume_staged(name)? {
        Some(staged) if staged.size() <= size => Ok(staged),
        // Also what is there and is no file of ours goes.
        Some(_) | None => {
            workspace.discard_staged(name)?;
            workspace.stage(name)
        }
    }
}

/// Writes what came of a file to the disk; answers how much is there.
pub(crate) async fn write_upload_for(
    node: &Node,
    user_id: &UserId,
    handle: &str,
    offset: u64,
    bytes: Vec<u8>,
) -> Result<u64, ApiError> {
    let receiving = node.receivings.get(user_id, handle)?;
    let upload = receiving.upload.as_ref().ok_or_else(given_up)?;
    let size = upload.size;
    let place = Place { project: &receiving.project, services: &node.services };
    check_room(place, &upload.path, size).await?;
    let mut file = Arc::clone(&receiving.file).lock_owned().await;
    let write = move || {
        let staged = file.as_mut().ok_or_else(given_up)?;
        let expected = staged.size();
        if offset != expected {
            let error = ApiError::invalid(format!("the next byte is {expected}, not {offset}"));
            return Err(error.reason("chunk_offset").detail("received", expected));
        }
        if expected + bytes.len() as u64 > size {
            let error = ApiError::invalid(format!("the file has {size} bytes and no more"));
            return Err(error.reason("chunk_offset").detail("received", expected));
        }
        staged.write(&bytes).and_then(|()| staged.sync()).map_err(refused)?;
        Ok(staged.size())
    };
    spawn_blocking(write).await.map_err(internal)?.map_err(|error| noticed(node, error))
}

/// Makes a version of a file that has come whole.
pub(crate) async fn commit_upload_for(
    node: &Node,
    user_id: UserId,
    handle: &str,
) -> Result<Done, ApiError> {
    let receiving = node.receivings.get(&user_id, handle)?;
    let upload = receiving.upload.clone().ok_or_else(given_up)?;
    // Until all of it is over nobody else begins to write into it.
    let _lane = node.receivings.lane(&receiving.project.id, &user_id, &upload.path).await;
    node.receivings.take(&user_id, handle).ok_or_else(given_up)?;
    let staged = receiving.file.lock().await.take().ok_or_else(given_up)?;
    let StoredUpload { id, path, size, sha256, version, .. } = upload;
    let received = staged.size();
    if received != size {
        let error = ApiError::invalid(format!("{received} of {size} bytes have come"));
        return Err(error.reason("upload_incomplete").detail("received", received));
    }
    let project = &receiving.project;
    if staged.hash() != sha256 {
        end(project, id).await?;
        let message = "what came is not the content with this `sha256`: begin again";
        return Err(ApiError::invalid(message).reason("hash_mismatch"));
    }
    let place = Place { project, services: &node.services };
    let arrived = vec![Arrived { path, staged, version }];
    let outcome = place_all(place, &user_id, arrived, None).await?.pop().ok_or_else(mismatch)?;
    // One whose version has passed can never be: it is not kept.
    let is_over = |error: &ApiError| error.code == ErrorCode::VersionConflict;
    if outcome.as_ref().err().is_none_or(is_over) {
        end(project, id).await?;
    }
    let placed = outcome?;
    Ok(done(FilePayload { file: placed.file })?.at(placed.seq, placed.replayed))
}

/// Gives up a file and what came of it.
pub(crate) async fn cancel_upload_for(
    node: &Node,
    user_id: &UserId,
    handle: &str,
) -> Result<(), ApiError> {
    let receiving = node.receivings.get(user_id, handle)?;
    let upload = receiving.upload.clone().ok_or_else(given_up)?;
    let _lane = node.receivings.lane(&receiving.project.id, user_id, &upload.path).await;
    node.receivings.take(user_id, handle).ok_or_else(given_up)?;
    receiving.file.lock().await.take();
    end(&receiving.project, upload.id).await
}

/// Ends the uploads of somebody who may not send any more, which the store forgot already.
pub(crate) async fn give_up_uploads(node: &Node, project: &ProjectHandle, ids: Vec<String>) {
    for id in ids {
        if let Some(receiving) = node.receivings.take_upload(&id) {
            receiving.file.lock().await.take();
        }
        let workspace = project.workspace.clone();
        match spawn_blocking(move || workspace.discard_staged(&id)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "what came of an upload is left"),
            Err(error) => tracing::warn!(%error, "what came of an upload may be left"),
        }
    }
}

/// Forgets an upload, and then what came of it: what is left over a crash nobody asks for.
async fn end(project: &ProjectHandle, id: String) -> Result<(), ApiError> {
    let forget = EndUpload { id: id.clone() };
    record(&project.address, forget, WriteContext::default()).await.map_err(stored)?;
    let workspace = project.workspace.clone();
    let discard = move || workspace.discard_staged(&id);
    spawn_blocking(discard).await.map_err(internal)?.map_err(refused)
}

// For a connection.

/// A file that a client sends over a connection. Dropping it leaves what came.
pub(crate) struct UploadStream {
    node: Node,
    claims: CurrentClaims,
    project_id: ProjectId,
    user_id: UserId,
    handle: Option<String>,
    received: u64,
    _held: Held,
}

/// Begins an upload, for whom a connection acts.
pub(crate) async fn begin_upload_stream(
    node: &Node,
    claims: CurrentClaims,
    project_id: Option<ProjectId>,
    begin: UploadBegin,
) -> Result<UploadStream, ApiError> {
    let operation = Operation::UploadBegin;
    let (project, caller) = (project_id.clone(), claims.lock().clone());
    let work = async {
        let grant = node.gate(caller.as_ref(), operation, project_id.as_ref()).await?;
        let (user_id, project_id) = (grant.user_id()?.clone(), grant.project_id()?.clone());
        node.rates.of_uploads(&user_id)?;
        let held = node.bodies.hold(&user_id, STREAM_BYTES)?;
        let ask = OwnerAsk::BeginUpload { begin };
        let answer = node.ask_owner(&project_id, &user_id, ask, None).await?;
        let OwnerAnswer::UploadOpen(UploadOpen { handle, received }) = answer else {
            return Err(mismatch());
        };
        let (node, handle) = (node.clone(), Some(handle));
        Ok(UploadStream { node, claims, project_id, user_id, handle, received, _held: held })
    };
    node.request(None, operation, project.as_ref(), work).await
}

impl UploadStream {
    /// The project that it is in.
    pub(crate) fn project_id(&self) -> &ProjectId {
        &self.project_id
    }

    /// Bytes that are on the disk.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Takes the next bytes; they are on the disk when it returns.
    ///
    /// # Errors
    /// Those of the gate, which is asked each time: a right that has ended ends the stream.
    pub(crate) async fn write(&mut self, bytes: Vec<u8>) -> Result<(), ApiError> {
        self.check(Operation::UploadBegin).await?;
        let (handle, offset) = (self.handle()?, self.received);
        let answer = self.ask(OwnerAsk::WriteUpload { handle, offset, bytes }).await?;
        let OwnerAnswer::Received(received) = answer else { return Err(mismatch()) };
        self.received = received;
        Ok(())
    }

    /// Makes a version of it.
    pub(crate) async fn commit(mut self) -> Result<Done, ApiError> {
        let (node, project_id) = (self.node.clone(), self.project_id.clone());
        let work = async move {
            self.check(Operation::UploadCommit).await?;
            patience::begin(Operation::UploadCommit)?;
            let handle = self.handle.take().ok_or_else(given_up)?;
            let answer = self.ask(OwnerAsk::CommitUpload { handle }).await?;
            let OwnerAnswer::Done(done) = answer else { return Err(mismatch()) };
            Ok(done)
        };
        node.request(None, Operation::UploadCommit, Some(&project_id), work).await
    }

    /// Gives it up.
    pub(crate) async fn cancel(mut self) -> Result<Done, ApiError> {
        let handle = self.handle.take().ok_or_else(given_up)?;
        let answer = self.ask(OwnerAsk::CancelUpload { handle }).await?;
        if answer != OwnerAnswer::GivenUp {
            return Err(mismatch());
        }
        done(iris_protocol::Done { done: true })
    }

    async fn check(&self, operation: Operation) -> Result<(), ApiError> {
        let claims = self.claims.lock().clone();
        self.node.gate(claims.as_ref(), operation, Some(&self.project_id)).await.map(drop)
    }

    fn handle(&self) -> Result<String, ApiError> {
        self.handle.clone().ok_or_else(given_up)
    }

    async fn ask(&self, ask: OwnerAsk) -> Result<OwnerAnswer, ApiError> {
        self.node.ask_owner(&self.project_id, &self.user_id, ask, None).await
    }
}

impl Drop for UploadStream {
    fn drop(&mut self) {
        let Some(handle) = self.handle.take() else { return };
        let (node, project_id) = (self.node.clone(), self.project_id.clone());
        let user_id = self.user_id.clone();
        detached(async move {
            let ask = OwnerAsk::GiveUpFiles { ids: vec![handle] };
            if let Err(error) = node.ask_owner(&project_id, &user_id, ask, None).await {
                tracing::debug!(%error, "a file stays open until its time is over");
            }
        });
    }
}

/// A file that a client receives over a connection.
pub(crate) struct DownloadStream {
    pub(crate) file: FileDownload,
    node: Node,
    claims: CurrentClaims,
    project_id: ProjectId,
}

/// Begins a download, for whom a connection acts.
pub(crate) async fn begin_download_stream(
    node: &Node,
    claims: CurrentClaims,
    project_id: Option<ProjectId>,
    begin: DownloadBegin,
) -> Result<DownloadStream, ApiError> {
    let operation = Operation::DownloadBegin;
    let (project, caller) = (project_id.clone(), claims.lock().clone());
    let work = async {
        let grant = node.gate(caller.as_ref(), operation, project_id.as_ref()).await?;
        let (user_id, project_id) = (grant.user_id()?.clone(), grant.project_id()?.clone());
        let DownloadBegin { path, offset, version } = begin;
        let mut file = open(node, user_id, project_id.clone(), path, version).await?;
        let (offset, size) = (offset.unwrap_or(0), file.file.size);
        if offset > size {
            let error = ApiError::invalid(format!("the file has {size} bytes"));
            return Err(error.reason("range_not_satisfiable"));
        }
        file.narrow(offset, size);
        Ok(DownloadStream { file, node: node.clone(), claims, project_id })
    };
    node.request(None, operation, project.as_ref(), work).await
}

impl DownloadStream {
    /// The project that it is in.
    pub(crate) fn project_id(&self) -> &ProjectId {
        &self.project_id
    }

    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// Those of the gate, which is asked each time: a right that has ended ends the stream. `CONFLICT` when
    /// the file was written into.
    pub(crate) async fn part(&mut self) -> Result<Option<Vec<u8>>, ApiError> {
        let claims = self.claims.lock().clone();
        let operation = Operation::DownloadBegin;
        self.node.gate(claims.as_ref(), operation, Some(&self.project_id)).await?;
        self.file.part_of(CHUNK_BYTES_MAX as u64).await
    }
}
