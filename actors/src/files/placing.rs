//! Files that were received and take their places: each becomes a version, or is refused by itself.

use std::sync::Arc;

use iris_protocol::limits::FILE_BYTES_MAX;
use iris_protocol::{ApiError, File, FileSource, LockScope, UserId};
use iris_store::WriteContext;
use iris_store::project::{Author, FoundContent, FoundFile, Quotas, file_of};
use iris_store::{CrashPoint, crash_point};
use iris_workspace::{StagedFile, Workspace, WorkspaceError};

use super::changing::{check_held, check_room, first_outcome, real};
use super::guarding::{check_locks, check_version};
use super::looking::{SETTLE, facts};
use super::{By, Place, look_at, stored, take_turn};

/// Files, and bytes of their contents, that are recorded in one transaction.
const GROUP_FILES: usize = 100;
const GROUP_BYTES: u64 = 4 * 1024 * 1024;

/// A file that was received whole.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) path: String,
    pub(crate) staged: StagedFile,
    /// The version that the sender knows.
    pub(crate) version: Option<u64>,
}

/// What became of a file that was received.
pub(crate) type Outcome = Result<Placed, ApiError>;

/// A file that has its place.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) file: File,
    pub(crate) seq: Option<u64>,
    pub(crate) replayed: bool,
}

/// How a repeat of one of several files is known: by its path and its hash.
pub(crate) type ContextOf<'a> = &'a dyn Fn(&Arrived) -> WriteContext;

/// Refuses a file before it is sent that could have no place now, and says where its path leads. All of it is
/// looked at again once it has come.
pub(crate) async fn check_upload(
    place: Place<'_>,
    user: &UserId,
    path: String,
    size: u64,
    version: Option<u64>,
) -> Result<String, ApiError> {
    let path = {
        let check = move |workspace: &Workspace| {
            workspace.check_write(&path)?;
            workspace.real_path(&path)
        };
        place.blocking(check).await?
    };
    check_held(place, size)?;
    check_locks(place, &[(path.clone(), LockScope::File)], user).await?;
    check_room(place, &path, size).await?;
    check_version(place, &path, version).await?;
    Ok(path)
}

/// Has files take their places, in one turn. Those of one transaction are told of together, unless each has
/// a key of its own.
pub(crate) async fn place_all(
    place: Place<'_>,
    user: &UserId,
    arrived: Vec<Arrived>,
    context_of: Option<ContextOf<'_>>,
) -> Result<Vec<Outcome>, ApiError> {
    let _turn = take_turn(place).await?;
    let mut outcomes: Vec<Option<Outcome>> = arrived.iter().map(|_| None).collect();
    let mut group = Group::default();
    for (index, file) in arrived.into_iter().enumerate() {
        let context = context_of.map(|of| of(&file)).unwrap_or_default();
        let by = By { user: user.clone(), context };
        // A file cannot be where a directory is; only what is recorded is known of.
        if place.is_stored() && group.is_around(&file.path) {
            let by = By { user: user.clone(), context: WriteContext::default() };
            record(place, by, &mut group, &mut outcomes).await;
        }
        let outcome = match first_outcome(place, &by).await {
            Ok(Some(first)) => Some(placed(&first.files.versions, 0, first.seq, true)),
            Ok(None) => match prepare(place, user, file, &group).await {
                Ok(found) => {
                    group.add(index, found);
                    None
                }
                Err(error) => Some(Err(error)),
            },
            Err(error) => Some(Err(error)),
        };
        if let Some(outcome) = outcome {
            set(&mut outcomes, index, outcome);
        }
        if context_of.is_some() || group.is_full() {
            record(place, by, &mut group, &mut outcomes).await;
        }
    }
    let by = By { user: user.clone(), context: WriteContext::default() };
    record(place, by, &mut group, &mut outcomes).await;
    Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| Err(missing()))).collect())
}

fn set(outcomes: &mut [Option<Outcome>], index: usize, outcome: Outcome) {
    if let Some(place) = outcomes.get_mut(index) {
        *place = Some(outcome);
    }
}

fn missing() -> ApiError {
    super::broken("a file was recorded and is not in the answer")
}

/// Files that have their places and are to be recorded together.
#[derive(Default)]
struct Group {
    indexes: Vec<usize>,
    found: Vec<FoundFile>,
    /// Of contents that are held for the record.
    held_bytes: u64,
    bytes: u64,
}

impl Group {
    fn add(&mut self, index: usize, found: FoundFile) {
        let content = found.content.as_ref();
        let size = content.map_or(0, |content| content.size);
        self.bytes += size;
        if content.is_some_and(|content| content.bytes.is_some()) {
            self.held_bytes += size;
        }
        self.indexes.push(index);
        self.found.push(found);
    }

    /// Whether one of them is above or below a path.
    fn is_around(&self, path: &str) -> bool {
        let is_above = |above: &str, below: &str| {
            below.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'))
        };
        self.found.iter().any(|it| is_above(&it.path, path) || is_above(path, &it.path))
    }

    fn is_full(&self) -> bool {
        self.found.len() >= GROUP_FILES || self.held_bytes >= GROUP_BYTES
    }

    /// What is left of the quotas: those of the group are not counted yet.
    fn left_of(&self, quotas: Quotas) -> Quotas {
        let less =
            |max: u64, taken: u64| if max == 0 { 0 } else { max.saturating_sub(taken).max(1) };
        Quotas {
            files_max: less(quotas.files_max, self.found.len() as u64),
            file_bytes_max: less(quotas.file_bytes_max, self.bytes),
            ..quotas
        }
    }
}

/// Checks one file and puts it where it belongs.
async fn prepare(
    place: Place<'_>,
    user: &UserId,
    arrived: Arrived,
    group: &Group,
) -> Result<FoundFile, ApiError> {
    let Arrived { path, staged, version } = arrived;
    let path = real(place, path).await?;
    let size = staged.size();
    check_held(place, size)?;
    check_locks(place, &[(path.clone(), LockScope::File)], user).await?;
    let quotas = group.left_of(place.services.settings.quotas);
    let checked = place.project.reader.check_file(quotas, path.clone(), Some(size)).await;
    checked.map_err(stored)?;
    if place.services.storage.is_full() {
        return Err(iris_store::StoreError::StorageFull.to_api());
    }
    let hash = staged.hash();
    // One that was cut off before it was recorded is no change of somebody else.
    let is_there = place.is_stored() || {
        let (path, hash) = (path.clone(), hash.clone());
        place.blocking(move |workspace| has_hash(workspace, &path, size, &hash)).await?
    };
    if !is_there {
        look_at(place, std::slice::from_ref(&path), None).await?;
    }
    check_version(place, &path, version).await?;
    let bytes = {
        let path = path.clone();
        let put = move |workspace: &Workspace| {
            let bytes = workspace.read_staged(&staged, FILE_BYTES_MAX as u64)?;
            workspace.place_staged(&staged, &path)?;
            Ok(bytes)
        };
        place.blocking(put).await?
    };
    crash_point(CrashPoint::FileWritten);
    if bytes.is_none() {
        tokio::time::sleep(SETTLE).await;
    }
    let seen = {
        let path = path.clone();
        place.blocking(move |workspace| workspace.look(&path)).await?
    };
    let content = FoundContent {
        size,
        hash,
        bytes: bytes.map(Arc::from),
        mode: seen.as_ref().map_or(0o644, |seen| seen.mode),
        // Whoever changed it since is found by the next look.
        facts: seen.filter(|seen| seen.size == size).as_ref().and_then(facts),
    };
    Ok(FoundFile { path, content: Some(content), from: None, is_written: true })
}

/// Whether a file has exactly this content.
fn has_hash(
    workspace: &Workspace,
    path: &str,
    size: u64,
    hash: &str,
) -> Result<bool, WorkspaceError> {
    if workspace.look(path)?.is_none_or(|seen| seen.size != size) {
        return Ok(false);
    }
    match workspace.open_file(path, size).and_then(|file| file.hash()) {
        Ok(found) => Ok(found == hash),
        Err(WorkspaceError::Changed { .. } | WorkspaceError::TooLarge { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Records a group and says what became of its files.
async fn record(place: Place<'_>, by: By, group: &mut Group, outcomes: &mut [Option<Outcome>]) {
    let Group { indexes, found, .. } = std::mem::take(group);
    if found.is_empty() {
        return;
    }
    let author = Author::user(by.user, FileSource::Upload);
    match place.commit(place.change(found, author), by.context).await {
        Ok(recorded) => {
            for (nth, index) in indexes.into_iter().enumerate() {
                let versions = &recorded.files.versions;
                set(outcomes, index, placed(versions, nth, recorded.seq, recorded.replayed));
            }
        }
        Err(error) => {
            for index in indexes {
                set(outcomes, index, Err(error.clone()));
            }
        }
    }
}

fn placed(
    versions: &[iris_protocol::FileVersion],
    nth: usize,
    seq: Option<u64>,
    replayed: bool,
) -> Outcome {
    let version = versions.get(nth).ok_or_else(missing)?;
    Ok(Placed { file: file_of(version), seq, replayed })
}
