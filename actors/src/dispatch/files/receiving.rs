//! Files on their way in: received part by part by the owner of the project into files that nobody sees, and
//! put where they belong once all have come.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use iris_auth::AccessClaims;
use iris_protocol::limits::{FILE_NAME_BYTES_MAX, UPLOAD_FILES_MAX};
use iris_protocol::{ApiError, ErrorCode, Operation, ProjectId, UploadedFile, UserId};
use iris_store::WriteContext;
use iris_store::project::StoredUpload;
use iris_workspace::{RelPath, StagedFile, Workspace};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedMutexGuard;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;

use super::Grant;
use crate::Node;
use crate::dispatch::bodies::{Held, PART_BYTES};
use crate::dispatch::{check_space, internal};
use crate::files::{Arrived, Place, check_held, check_room, place_all, refused};
use crate::owner::{OwnerAnswer, OwnerAsk, mismatch};
use crate::project::ProjectHandle;
use crate::supervision::detached;

/// How long nothing may come of a file before it is given up: a node that went away says nothing.
const IDLE_MAX: Duration = Duration::from_mins(5);
/// Most files of forms that one user has on the way at one node: each is open.
const FORM_FILES_PER_USER_MAX: usize = 2 * UPLOAD_FILES_MAX;
/// What is in memory of one upload: a part that is being written, the next one, and what the parser holds.
const UPLOAD_BYTES: u64 = 4 * PART_BYTES;

/// The files that are being received at the owner of their project.
#[derive(Default)]
pub(crate) struct Receivings {
    all: Mutex<HashMap<String, Arc<Receiving>>>,
    /// Those who begin or end a stored upload of one file, one after the other.
    lanes: Mutex<HashMap<LaneKey, Weak<tokio::sync::Mutex<()>>>>,
}

/// The project, the user and the path of an upload.
type LaneKey = (ProjectId, UserId, String);

/// One of them. What was not put where it belongs goes when this is dropped, unless its sender may come back.
pub(super) struct Receiving {
    user_id: UserId,
    /// Keeps it open: what nobody receives is removed when it is opened.
    pub(super) project: ProjectHandle,
    pub(super) file: Arc<tokio::sync::Mutex<Option<StagedFile>>>,
    /// What the sender may go on with.
    pub(super) upload: Option<StoredUpload>,
    /// The form that it is in.
    form: Option<String>,
    /// Shared by the files of a form: those that have come wait for the others.
    used_at: Arc<Mutex<Instant>>,
}

impl Receiving {
    fn new(user_id: UserId, project: ProjectHandle, staged: StagedFile) -> Self {
        let file = Arc::new(tokio::sync::Mutex::new(Some(staged)));
        let used_at = Arc::new(Mutex::new(Instant::now()));
        Self { user_id, project, file, upload: None, form: None, used_at }
    }

    fn of_form(user_id: UserId, project: ProjectHandle, staged: StagedFile, form: String) -> Self {
        let mut receiving = Self::new(user_id, project, staged);
        receiving.form = Some(form);
        receiving
    }

    pub(super) fn of_upload(
        user_id: UserId,
        project: ProjectHandle,
        staged: StagedFile,
        upload: StoredUpload,
    ) -> Self {
        let mut receiving = Self::new(user_id, project, staged);
        receiving.upload = Some(upload);
        receiving
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        if self.upload.is_some() {
            return;
        }
        let Some(staged) = self.file.try_lock().ok().and_then(|mut file| file.take()) else {
            return;
        };
        let names = vec![staged.name().to_owned()];
        drop(Leftovers { workspace: self.project.workspace.clone(), names });
    }
}

/// Files that have no place, which are removed at the latest when this is dropped.
struct Leftovers {
    workspace: Workspace,
    names: Vec<String>,
}

impl Leftovers {
    /// Returns when they are gone.
    async fn discard(mut self) {
        let (workspace, names) = (self.workspace.clone(), std::mem::take(&mut self.names));
        if let Err(error) = spawn_blocking(move || discard(&workspace, &names)).await {
            tracing::warn!(%error, "files that have no place may be left");
        }
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        let names = std::mem::take(&mut self.names);
        if names.is_empty() {
            return;
        }
        let workspace = self.workspace.clone();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || discard(&workspace, &names))),
            Err(_) => discard(&workspace, &names),
        }
    }
}

fn discard(workspace: &Workspace, names: &[String]) {
    for name in names {
        if let Err(error) = workspace.discard_staged(name) {
            tracing::warn!(%error, "a file that has no place could not be removed");
        }
    }
}

impl Receivings {
    /// Fails with `OVERLOADED` for a file of a form when its sender has too many of them on the way.
    pub(super) fn add(&self, id: String, mut receiving: Receiving) -> Result<(), ApiError> {
        let mut all = self.all.lock();
        let now = Instant::now();
        all.retain(|_, other| now.duration_since(*other.used_at.lock()) < IDLE_MAX);
        if receiving.form.is_some() {
            let is_own = |other: &&Arc<Receiving>| {
                other.form.is_some() && other.user_id == receiving.user_id
            };
            if all.values().filter(is_own).count() >= FORM_FILES_PER_USER_MAX {
                let message = "too many files are on the way: finish another upload first";
                return Err(ApiError::new(ErrorCode::Overloaded, message));
            }
            let mut others = all.values().filter(is_own);
            if let Some(other) = others.find(|other| other.form == receiving.form) {
                let used_at = Arc::clone(&other.used_at);
                *used_at.lock() = now;
                receiving.used_at = used_at;
            }
        }
        all.insert(id, Arc::new(receiving));
        Ok(())
    }

    /// Waits until nobody else begins or ends an upload of this file.
    pub(super) async fn lane(
        &self,
        project_id: &ProjectId,
        user_id: &UserId,
        path: &str,
    ) -> OwnedMutexGuard<()> {
        let lane = {
            let mut lanes = self.lanes.lock();
            let key = (project_id.clone(), user_id.clone(), path.to_owned());
            lanes.get(&key).and_then(Weak::upgrade).unwrap_or_else(|| {
                lanes.retain(|_, lane| lane.strong_count() > 0);
                let lane = Arc::default();
                lanes.insert(key, Arc::downgrade(&lane));
                lane
            })
        };
        lane.lock_owned().await
    }

    pub(super) fn get(&self, user_id: &UserId, id: &str) -> Result<Arc<Receiving>, ApiError> {
        let all = self.all.lock();
        let found = all.get(id).filter(|receiving| receiving.user_id == *user_id);
        let found = found.ok_or_else(given_up)?;
        *found.used_at.lock() = Instant::now();
        Ok(Arc::clone(found))
    }

    /// The one that receives what a stored upload is about.
    pub(super) fn take_upload(&self, upload_id: &str) -> Option<Arc<Receiving>> {
        let mut all = self.all.lock();
        let is_it = |receiving: &Receiving| {
            receiving.upload.as_ref().is_some_and(|upload| upload.id == upload_id)
        };
        let handle = all.iter().find(|(_, receiving)| is_it(receiving))?.0.clone();
        all.remove(&handle)
    }

    pub(super) fn take(&self, user_id: &UserId, id: &str) -> Option<Arc<Receiving>> {
        let mut all = self.all.lock();
        all.get(id).filter(|receiving| receiving.user_id == *user_id)?;
        all.remove(id)
    }

    /// Gives files up, unless they are where they belong.
    pub(crate) fn give_up(&self, user_id: &UserId, ids: &[String]) {
        for id in ids {
            drop(self.take(user_id, id));
        }
    }
}

pub(super) fn given_up() -> ApiError {
    let message = "the upload was given up: begin again";
    ApiError::new(ErrorCode::Conflict, message).reason("upload_given_up")
}

/// A part of a file that is being received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadPart {
    /// Which file.
    pub id: String,
    /// Where it will belong.
    pub path: String,
    /// Bytes of all files of the upload that are not refused, with these.
    pub total: u64,
    /// The next bytes.
    #[serde(with = "crate::owner::base64_bytes")]
    pub bytes: Vec<u8>,
}

/// A file that was received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedFile {
    /// Which.
    pub id: String,
    /// Where it belongs.
    pub path: String,
}

/// Begins to receive a file as the owner of the project.
pub(crate) async fn stage_for(
    node: &Node,
    user_id: UserId,
    project_id: &ProjectId,
    path: String,
    form: String,
) -> Result<String, ApiError> {
    let project = node.project(project_id).await?;
    let place = Place { project: &project, services: &node.services };
    check_room(place, &path, 0).await?;
    let id = format!("{:032x}", node.services.ids.next_bits());
    let (workspace, name) = (project.workspace.clone(), id.clone());
    let staged = spawn_blocking(move || workspace.stage(&name)).await;
    let staged = staged.map_err(internal)?.map_err(refused)?;
    node.receivings.add(id.clone(), Receiving::of_form(user_id, project, staged, form))?;
    Ok(id)
}

/// Receives a part of a file as the owner of the project.
pub(crate) async fn stage_part_for(
    node: &Node,
    user_id: &UserId,
    part: UploadPart,
) -> Result<(), ApiError> {
    let UploadPart { id, path, total, bytes } = part;
    let receiving = node.receivings.get(user_id, &id)?;
    let place = Place { project: &receiving.project, services: &node.services };
    check_room(place, &path, total).await?;
    let mut file = Arc::clone(&receiving.file).lock_owned().await;
    let size = file.as_ref().map_or(0, StagedFile::size);
    check_held(place, size + bytes.len() as u64)?;
    let write = move || match file.as_mut() {
        Some(staged) => staged.write(&bytes).map_err(refused),
        None => Err(given_up()),
    };
    spawn_blocking(write).await.map_err(internal)?.map_err(|error| noticed(node, error))
}

/// A failure of the disk, of which no writer of a database knows perhaps.
pub(super) fn noticed(node: &Node, error: ApiError) -> ApiError {
    if error.code == ErrorCode::StorageFull {
        node.services.storage.suspect_full();
    }
    error
}

/// Puts files that were received where they belong, as the owner of the project. Says too whether all are
/// answers to an earlier upload with the same key.
pub(crate) async fn place_for(
    node: &Node,
    user_id: UserId,
    project_id: ProjectId,
    files: Vec<ReceivedFile>,
    idempotency_key: Option<String>,
) -> Result<(Vec<UploadedFile>, bool), ApiError> {
    let project = node.project(&project_id).await?;
    let mut leftovers = Leftovers { workspace: project.workspace.clone(), names: Vec::new() };
    let (mut arrived, mut is_there) = (Vec::with_capacity(files.len()), Vec::new());
    for file in &files {
        let staged = take_synced(node, &user_id, &file.id, &mut leftovers).await;
        is_there.push(staged.map(|staged| {
            arrived.push(Arrived { path: file.path.clone(), staged, version: None });
        }));
    }
    let grant = Grant::of(user_id.clone(), project_id);
    let context_of = idempotency_key.map(|key| {
        move |file: &Arrived| -> WriteContext {
            let Arrived { path, staged, .. } = file;
            let (key, body) = (format!("{path} {key}"), format!("{}\n{path}", staged.hash()));
            grant.repeatable(node, Operation::FileUpload, &key, body.as_bytes())
        }
    });
    let place = Place { project: &project, services: &node.services };
    let context_of = context_of.as_ref().map(|of| of as &dyn Fn(&Arrived) -> WriteContext);
    let placed = place_all(place, &user_id, arrived, context_of).await;
    // Those that were refused; the others are there no more.
    leftovers.discard().await;
    let mut placed = placed?.into_iter();
    let outcomes = is_there.into_iter();
    let outcomes = outcomes.map(|file| file.and_then(|()| placed.next().ok_or_else(mismatch)?));
    let outcomes: Vec<_> = outcomes.collect();
    let replayed = outcomes.iter().all(|file| file.as_ref().is_ok_and(|file| file.replayed));
    let told =
        files.into_iter().zip(outcomes).map(|(ReceivedFile { path, .. }, outcome)| match outcome {
            Ok(placed) => UploadedFile { path, file: Some(placed.file), error: None },
            Err(error) => UploadedFile { path, file: None, error: Some(error) },
        });
    Ok((told.collect(), replayed))
}

/// Takes a file that has come; it is on the disk then, so that nobody waits for that in the turn.
async fn take_synced(
    node: &Node,
    user_id: &UserId,
    id: &str,
    leftovers: &mut Leftovers,
) -> Result<StagedFile, ApiError> {
    let receiving = node.receivings.take(user_id, id).ok_or_else(given_up)?;
    let staged = receiving.file.lock().await.take().ok_or_else(given_up)?;
    leftovers.names.push(staged.name().to_owned());
    let synced = spawn_blocking(move || staged.sync().map(|()| staged)).await;
    synced.map_err(internal)?.map_err(refused).map_err(|error| noticed(node, error))
}

/// Who uploads, and where to.
#[derive(Debug, Clone)]
pub struct UploadAsk {
    /// Who; none without credentials.
    pub claims: Option<AccessClaims>,
    /// The project.
    pub project_id: ProjectId,
    /// Names the request in logs and errors, when the caller or the transport gave it a name.
    pub request_id: Option<String>,
}

/// Files that are being received. Dropping it gives up what is not where it belongs.
pub struct FileUpload {
    node: Node,
    ask: UploadAsk,
    user_id: UserId,
    /// Names it at the owner of the project.
    form: String,
    files: Vec<Sent>,
    total: u64,
    /// A part that is being written.
    writing: Option<JoinHandle<Result<(), ApiError>>>,
    _held: Held,
}

/// A file of an upload, as far as it has come.
struct Sent {
    path: String,
    /// None once it is refused.
    id: Option<String>,
    size: u64,
    error: Option<ApiError>,
}

/// Begins to receive files, from a caller who may `file.upload`.
///
/// # Errors
/// Those of the gate; `RATE_LIMITED`; `OVERLOADED` when too much is being sent and read; `STORAGE_FULL`.
pub async fn begin_file_upload(node: &Node, ask: UploadAsk) -> Result<FileUpload, ApiError> {
    let claims = ask.claims.as_ref();
    let grant = node.gate(claims, Operation::FileUpload, Some(&ask.project_id)).await?;
    let user_id = grant.user_id()?.clone();
    node.rates.of_uploads(&user_id)?;
    let held = node.bodies.hold(&user_id, UPLOAD_BYTES)?;
    check_space(node)?;
    let (node, files, writing) = (node.clone(), Vec::new(), None);
    let form = format!("{:032x}", node.services.ids.next_bits());
    Ok(FileUpload { node, ask, user_id, form, files, total: 0, writing, _held: held })
}

impl FileUpload {
    /// Most bytes of all its files together.
    pub fn bytes_max(&self) -> u64 {
        self.node.services.settings.files.transfer_bytes_max
    }

    /// How many bytes of a file are to be passed on at a time.
    pub fn part_bytes(&self) -> usize {
        usize::try_from(PART_BYTES).unwrap_or(usize::MAX)
    }

    /// Begins the next file.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for a path that is none, or one of an earlier file, and for too many files: then all
    /// are refused. What is wrong with this file alone is said in the end.
    pub async fn begin(&mut self, path: &str) -> Result<(), ApiError> {
        let path = RelPath::file(path).map_err(refused)?.as_str().to_owned();
        if path.split('/').any(|name| name.len() > FILE_NAME_BYTES_MAX) {
            let message = format!("a name in the path has more than {FILE_NAME_BYTES_MAX} bytes");
            return Err(ApiError::invalid(message).reason("invalid_path"));
        }
        if self.files.iter().any(|file| file.path == path) {
            let error = ApiError::invalid("the upload holds a path twice").reason("duplicate_path");
            return Err(error.detail("path", path));
        }
        if self.files.len() >= UPLOAD_FILES_MAX {
            let message = format!("an upload has at most {UPLOAD_FILES_MAX} files");
            return Err(ApiError::invalid(message).reason("too_many_files"));
        }
        let ask = OwnerAsk::StageFile { path: path.clone(), form: self.form.clone() };
        let (id, error) = match self.ask_owner(ask).await {
            Ok(OwnerAnswer::Staged(id)) => (Some(id), None),
            Ok(_) => return Err(mismatch()),
            Err(error) => (None, Some(error)),
        };
        self.files.push(Sent { path, id, size: 0, error });
        Ok(())
    }

    /// Takes more bytes of the file that was begun last. Returns while they are written.
    ///
    /// # Errors
    /// `PAYLOAD_TOO_LARGE` when all files together are: then all are refused.
    pub async fn part(&mut self, bytes: Vec<u8>) -> Result<(), ApiError> {
        self.written().await;
        self.total += bytes.len() as u64;
        let bytes_max = self.bytes_max();
        if self.total > bytes_max {
            let message = format!("the files have more than {bytes_max} bytes");
            return Err(ApiError::new(ErrorCode::PayloadTooLarge, message));
        }
        if let Some(file) = self.files.last_mut() {
            file.size += bytes.len() as u64;
        }
        // What is refused takes no room.
        let kept = self.files.iter().filter(|file| file.id.is_some());
        let total = kept.map(|file| file.size).sum();
        // While one comes that is refused, a part without bytes says that those before it are wanted.
        let is_refused = self.files.last().is_none_or(|file| file.id.is_none());
        let bytes = if is_refused { Vec::new() } else { bytes };
        let last = self.files.iter().rev().find(|file| file.id.is_some());
        let Some(Sent { path, id: Some(id), .. }) = last else { return Ok(()) };
        let part = UploadPart { id: id.clone(), path: path.clone(), total, bytes };
        let (node, user_id) = (self.node.clone(), self.user_id.clone());
        let project_id = self.ask.project_id.clone();
        self.writing = Some(detached(async move {
            let ask = OwnerAsk::StagePart { part };
            let answer = node.ask_owner(&project_id, &user_id, ask, None).await?;
            if answer == OwnerAnswer::StagedPart { Ok(()) } else { Err(mismatch()) }
        }));
        Ok(())
    }

    /// Waits until all that came of the file that was begun last is written.
    pub async fn written(&mut self) {
        let Some(writing) = self.writing.take() else { return };
        let written = writing.await.unwrap_or_else(|error| Err(internal(error)));
        if let (Err(error), Some(file)) = (written, self.files.last_mut()) {
            let id = file.id.take();
            file.error.get_or_insert(error);
            self.give_up(id.into_iter().collect());
        }
    }

    /// Puts the files where they belong. Says too whether this is the answer to an earlier upload with the
    /// same idempotency key.
    ///
    /// # Errors
    /// Those of the gate, which counts anew.
    pub async fn commit(
        mut self,
        idempotency_key: Option<String>,
    ) -> Result<(Vec<UploadedFile>, bool), ApiError> {
        self.written().await;
        if self.files.is_empty() {
            return Err(ApiError::invalid("the form has no files").reason("no_files"));
        }
        let (node, ask) = (self.node.clone(), self.ask.clone());
        let commit = async {
            let operation = Operation::FileUpload;
            node.gate(ask.claims.as_ref(), operation, Some(&ask.project_id)).await?;
            let files = self.files.iter().filter_map(|file| {
                Some(ReceivedFile { id: file.id.clone()?, path: file.path.clone() })
            });
            let ask = OwnerAsk::PlaceFiles { files: files.collect(), idempotency_key };
            let OwnerAnswer::Placed(mut placed, replayed) = self.ask_owner(ask).await? else {
                return Err(mismatch());
            };
            // In the order in which they came.
            let files = std::mem::take(&mut self.files).into_iter().map(|file| match file.error {
                Some(error) => UploadedFile { path: file.path, file: None, error: Some(error) },
                None => match placed.iter().position(|placed| placed.path == file.path) {
                    Some(nth) => placed.swap_remove(nth),
                    None => UploadedFile { path: file.path, file: None, error: Some(mismatch()) },
                },
            });
            let files: Vec<UploadedFile> = files.collect();
            let replayed = replayed && files.iter().all(|file| file.file.is_some());
            Ok((files, replayed))
        };
        node.request(ask.request_id.clone(), Operation::FileUpload, Some(&ask.project_id), commit)
            .await
    }

    async fn ask_owner(&self, ask: OwnerAsk) -> Result<OwnerAnswer, ApiError> {
        self.node.ask_owner(&self.ask.project_id, &self.user_id, ask, None).await
    }

    fn give_up(&self, ids: Vec<String>) {
        if ids.is_empty() {
            return;
        }
        let (node, user_id) = (self.node.clone(), self.user_id.clone());
        let project_id = self.ask.project_id.clone();
        detached(async move {
            let ask = OwnerAsk::GiveUpFiles { ids };
            if let Err(error) = node.ask_owner(&project_id, &user_id, ask, None).await {
                tracing::debug!(%error, "files of an upload stay until their time is over");
            }
        });
    }
}

impl Drop for FileUpload {
    fn drop(&mut self) {
        let ids = self.files.iter_mut().filter_map(|file| file.id.take()).collect();
        self.give_up(ids);
    }
}
