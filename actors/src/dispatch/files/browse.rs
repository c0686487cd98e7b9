//! Looking around in the files of a project.

use iris_protocol::limits::{FILE_ENTRIES_DEFAULT, FILE_ENTRIES_MAX, FILE_MATCHES_DEFAULT};
use iris_protocol::{
    ApiError, File, FileEntry, FileEntryType, FileList, FileMatch, FileMatches, FilePage,
    FilePayload, FileSearch, FileSearchKind, FileStat, FileType, LockScope,
};
use iris_workspace::{Cancel, Entry, EntryKind, GrepQuery, SearchLimits, Workspace, shown_path};

use super::{Done, Grant, done, internal, refused, stored};
use crate::Node;
use crate::project::ProjectHandle;

/// Sets the flag when nobody waits for the search any more.
struct Waiting(Cancel);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Runs what looks at the disk off the arbiter, for as long as somebody waits for it.
async fn looking<T: Send + 'static>(
    project: &ProjectHandle,
    work: impl FnOnce(&Workspace, &Cancel) -> Result<T, iris_workspace::WorkspaceError> + Send + 'static,
) -> Result<T, ApiError> {
    let (workspace, waiting) = (project.workspace.clone(), Waiting(Cancel::new()));
    let cancel = waiting.0.clone();
    let done = tokio::task::spawn_blocking(move || work(&workspace, &cancel)).await;
    drop(waiting);
    done.map_err(internal)?.map_err(refused)
}

fn limit(limit: Option<u32>, default: u32) -> Result<usize, ApiError> {
    match limit.unwrap_or(default) {
        size @ 1..=FILE_ENTRIES_MAX => Ok(size as usize),
        _ => Err(ApiError::invalid(format!("`limit` must be 1 to {FILE_ENTRIES_MAX}"))),
    }
}

pub(in crate::dispatch) async fn list(
    node: &Node,
    grant: &Grant,
    request: FileList,
) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let limit = limit(request.limit, FILE_ENTRIES_DEFAULT)?;
    let FileList { path, depth, ignored, cursor, .. } = request;
    let depth = depth.unwrap_or(1);
    if depth == 0 {
        return Err(ApiError::invalid("`depth` must be at least 1"));
    }
    let page = looking(&project, move |workspace, cancel| {
        let path = path.as_deref().unwrap_or(".");
        let (depth, ignored) = (depth as usize, ignored.unwrap_or(false));
        workspace.list_page(path, depth, ignored, cursor.as_deref(), limit, cancel)
    });
    let page = page.await?;
    let next_cursor = page.entries.last().filter(|_| page.has_more).map(|last| last.path.clone());
    done(FilePage {
        entries: page.entries.into_iter().map(entry).collect(),
        next_cursor,
        has_more: page.has_more,
        cut: page.cut.is_some(),
    })
}

fn entry(entry: Entry) -> FileEntry {
    let Entry { path, kind, size, modified_ms, is_unreachable: unreachable } = entry;
    let r#type = match kind {
        EntryKind::File => FileEntryType::File,
        EntryKind::Directory => FileEntryType::Directory,
        EntryKind::Link => FileEntryType::Link,
        EntryKind::Other => FileEntryType::Other,
    };
    let (shown, modified_at) = (shown_path(&path), modified_ms);
    FileEntry { path, r#type, size, modified_at, shown, unreachable }
}

pub(in crate::dispatch) async fn stat(
    node: &Node,
    grant: &Grant,
    request: FileStat,
) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let path = request.path;
    let (info, path) = looking(&project, move |workspace, _| {
        let info = workspace.stat(&path)?;
        Ok((info, workspace.real_path(&path)?))
    })
    .await?;
    let r#type = match info.kind {
        EntryKind::File => FileType::File,
        EntryKind::Directory => FileType::Directory,
        EntryKind::Link | EntryKind::Other => {
            let error = iris_workspace::WorkspaceError::NotAFile { path: info.path };
            return Err(refused(error));
        }
    };
    let hash = info.hash.unwrap_or_default();
    let known = project.reader.file(path.clone()).await.map_err(stored)?;
    let known = known.filter(|known| r#type == FileType::File && known.hash == hash);
    let file = known.unwrap_or_else(|| File::unrecorded(path.clone(), r#type, info.size, hash));
    let locks = project.reader.file_locks().await.map_err(stored)?;
    let now = node.services.clock.now_ms();
    let lock = locks.into_iter().find(|lock| {
        let covers = lock.scope == LockScope::Subtree
            && (lock.path == "." || path.starts_with(&format!("{}/", lock.path)));
        lock.expires_at > now && (lock.path == path || covers)
    });
    done(FilePayload { file: File { lock, ..file } })
}

pub(in crate::dispatch) async fn search(
    node: &Node,
    grant: &Grant,
    request: FileSearch,
) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let limit = limit(request.limit, FILE_MATCHES_DEFAULT)?;
    let limits = SearchLimits { results_max: limit, ..SearchLimits::default() };
    let FileSearch { query, kind, path, include, ignore_case, .. } = request;
    let path = path.unwrap_or_else(|| ".".to_owned());
    let matches = looking(&project, move |workspace, cancel| match kind.unwrap_or_default() {
        FileSearchKind::Name => {
            let found = workspace.glob(&query, &path, &limits, cancel)?;
            let matches = found.entries.into_iter();
            let matches = matches.map(|it| FileMatch { path: it.path, line: None, text: None });
            Ok(FileMatches { matches: matches.collect(), cut: found.cut.is_some() })
        }
        FileSearchKind::Content => {
            let ignore_case = ignore_case.unwrap_or(false);
            let query = GrepQuery { pattern: query, path, include, context: 0, ignore_case };
            let found = workspace.grep(&query, &|_| true, &limits, cancel)?;
            let mut matches = Vec::new();
            for file in found.files {
                for line in file.lines {
                    let (number, text) = (Some(line.number), Some(line.text));
                    matches.push(FileMatch { path: file.path.clone(), line: number, text });
                }
            }
            Ok(FileMatches { matches, cut: found.cut.is_some() })
        }
    });
    done(matches.await?)
}
