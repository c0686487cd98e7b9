//! Files of a project: their versions, the differences between these, and locks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ApiError, File, FileType, MessageId, RunId, SessionId, SnapshotId, UserId};

/// Where a version came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum FileSource {
    /// A tool of an agent, also a command that it ran.
    Tool,
    /// Somebody who wrote through an operation.
    Api,
    /// An upload.
    Upload,
    /// Something that was put back: a version, a snapshot, a turn that was undone.
    Restore,
    /// Whatever changes the project's directory besides Iris: it was found on the disk.
    External,
}

/// What became of a file with a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum FileChange {
    /// It came into being.
    Created,
    /// Its content is another one.
    Updated,
    /// It came here from another path.
    Moved,
    /// It is gone.
    Deleted,
}

/// One version of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileVersion {
    /// Relative to the project's directory, with `/`.
    pub path: String,
    /// 1, 2, 3 for this path, also across a deletion.
    pub version: u64,
    /// What became of it.
    pub change: FileChange,
    /// Bytes; 0 where it was deleted.
    pub size: u64,
    /// SHA-256 of the content, 64 hex digits; empty where it was deleted, and for a content of more than
    /// 16 MiB, which is not kept.
    pub hash: String,
    /// Whether its content can be read and put back.
    pub kept: bool,
    /// The user who caused it, by themselves or through an agent; absent where nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<UserId>,
    /// The session whose agent did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// The run that did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<RunId>,
    /// The answer that did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<MessageId>,
    /// Where it came from.
    pub source: FileSource,
    /// The path that it had before, where it was moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The user who had a lock on it then, where a command of somebody else changed it all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub despite_lock_of: Option<UserId>,
    /// Milliseconds since 1970 UTC.
    pub at: i64,
}

/// A file that stays as it is while others are put back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SkippedFile {
    /// Relative to the project's directory, with `/`.
    pub path: String,
    /// Why.
    pub reason: SkipReason,
}

/// Why a file stays as it is while others are put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SkipReason {
    /// What it is to hold is not kept, or what it holds: that would be lost.
    ContentNotKept,
    /// Nobody writes there through Iris: it is below `.iris`.
    ProtectedPath,
    /// It has a second name (hard link), and is not written for that.
    HardLinked,
}

/// What a lock is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum LockScope {
    /// One path.
    #[default]
    File,
    /// A directory and all that is below it.
    Subtree,
}

/// The right of one user to write a file, or all that is below a directory: others are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileLock {
    /// Relative to the project's directory, with `/`; `.` is the directory itself.
    pub path: String,
    /// What it is on.
    pub scope: LockScope,
    /// Who may write. Agents that act for them may too.
    pub owner_id: UserId,
    /// Whether it ends 30 s after the owner has no connection any more.
    pub while_connected: bool,
    /// Milliseconds since 1970 UTC.
    pub created_at: i64,
    /// Milliseconds since 1970 UTC; it is over then unless it is taken again.
    pub expires_at: i64,
}

/// Why a lock is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum UnlockReason {
    /// Its owner gave it back, or an administrator did.
    Released,
    /// Its time is over.
    Expired,
    /// Its owner has no connection any more.
    Disconnected,
    /// An administrator took it.
    TakenOver,
}

/// How the content of a file stands in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum FileEncoding {
    /// As text.
    #[default]
    Utf8,
    /// As base64 (RFC 4648), for bytes of any kind.
    Base64,
}

/// A moment of the files of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Its id; later ones sort behind it.
    pub id: SnapshotId,
    /// The session whose run it was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// The run before whose first change it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<RunId>,
    /// The answer of that run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<MessageId>,
    /// How many files it holds.
    pub file_count: u64,
    /// Whether all files were looked at; one of a project with too many of them may lack some.
    pub complete: bool,
    /// The user who asked for it, or whose run it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<UserId>,
    /// Milliseconds since 1970 UTC.
    pub at: i64,
}

/// How a file differs between two states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangedFile {
    /// Relative to the project's directory, with `/`.
    pub path: String,
    /// What became of it between the two.
    pub change: FileChange,
    /// The version of the earlier one, for `file.diff`; 0 where there was no file. Absent in what was told before
    /// Iris told it, as `to`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// The version of the later one; 0, or one that says that the file is deleted, where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// Lines that the later one has and the earlier one has not; absent for bytes that are no text, for what
    /// is not kept, and where there are too many files or too large ones to compare lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insertions: Option<u64>,
    /// Lines that the earlier one has and the later one has not; absent as `insertions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletions: Option<u64>,
}

/// A piece of a difference: lines that belong together, with some that are equal around them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiffHunk {
    /// The first line of the earlier text, from 1; 0 where it has none here.
    pub old_start: u64,
    /// How many lines of the earlier text.
    pub old_lines: u64,
    /// The first line of the later text, from 1; 0 where it has none here.
    pub new_start: u64,
    /// How many lines of the later text.
    pub new_lines: u64,
    /// In order.
    pub lines: Vec<DiffLine>,
}

/// One line of a difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiffLine {
    /// In which text it is.
    pub kind: DiffLineKind,
    /// Without its end.
    pub text: String,
}

/// In which text a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum DiffLineKind {
    /// In both.
    Equal,
    /// In the later one.
    Inserted,
    /// In the earlier one.
    Deleted,
}

/// What a search looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum FileSearchKind {
    /// What stands in files: a regular expression.
    #[default]
    Content,
    /// What files are called: a glob.
    Name,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileMatch {
    /// Relative to the project's directory, with `/`.
    pub path: String,
    /// From 1; absent where the name matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The line, cut where it is long; absent where the name matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileEntry {
    /// Relative to the project's directory, with `/`.
    pub path: String,
    /// What it is.
    pub r#type: FileEntryType,
    /// Bytes; 0 for anything but a file.
    pub size: u64,
    /// When its content was changed last, in milliseconds since 1970 UTC.
    pub modified_at: i64,
    /// The path with what does not print, or turns the direction of text, written as `\u{..}`; absent where
    /// that is the path itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<String>,
    /// Whether no operation reaches it, because its name is not UTF-8: `path` has the bytes that are none as
    /// `\x{..}`, `size` and `modifiedAt` are 0, and what is in it is not listed. Absent when it is reached.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unreachable: bool,
}

/// What an entry of a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum FileEntryType {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; it is not followed.
    Link,
    /// A pipe, a socket or a device.
    Other,
}

macro_rules! payloads {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* })*) => {$(
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase")]
        $(#[$meta])*
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)* }
    )*};
}

payloads! {
    /// Lists what is below a directory, sorted by name, a directory before what is in it.
    #[derive(Default)]
    FileList {
        /// The directory; the project's own when absent.
        #[serde(default)]
        path: Option<String>,
        /// How many levels deep; 1, its own entries, when absent.
        #[serde(default)]
        depth: Option<u32>,
        /// Whether to list what `.gitignore` files leave out; not when absent.
        #[serde(default)]
        ignored: Option<bool>,
        /// At most 1000; 200 when absent.
        #[serde(default)]
        limit: Option<u32>,
        /// The `nextCursor` of the page before.
        #[serde(default)]
        cursor: Option<String>,
    }
    /// A page of entries.
    FilePage {
        /// In order.
        entries: Vec<FileEntry>,
        /// For the next page; absent at the end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_cursor: Option<String>,
        /// Whether there are more.
        has_more: bool,
        /// Whether a limit ended the walk, so that there may be more that no page shows.
        cut: bool,
    }
    /// Reads facts about a file or a directory.
    FileStat {
        /// Relative to the project's directory, with `/`.
        path: String,
    }
    /// Replaces a text in a file.
    FileEdit {
        /// Relative to the project's directory, with `/`.
        path: String,
        /// As it stands in the file; exactly once, unless `replaceAll`.
        old_string: String,
        /// What is to stand there.
        new_string: String,
        /// Whether to replace it wherever it stands; not when absent.
        #[serde(default)]
        replace_all: Option<bool>,
        /// The version that the caller knows; another one is refused.
        #[serde(default)]
        version: Option<u64>,
    }
    /// Moves a file, or a directory with all that is below it.
    FileMove {
        /// Relative to the project's directory, with `/`.
        from: String,
        /// Where it is to be; nothing may be there, unless `overwrite`.
        to: String,
        /// Whether a file at `to` may be replaced by the file; not when absent.
        #[serde(default)]
        overwrite: Option<bool>,
        /// The version of the file that the caller knows; another one is refused.
        #[serde(default)]
        version: Option<u64>,
    }
    /// Deletes a file, or a directory.
    FileDelete {
        /// Relative to the project's directory, with `/`.
        path: String,
        /// Whether to delete a directory with all that is below it; not when absent.
        #[serde(default)]
        recursive: Option<bool>,
        /// Whether files below the directory that have no version, because `.gitignore` files leave them out,
        /// go with it for good; when absent or `false`, one such file has it refused.
        #[serde(default)]
        unversioned: Option<bool>,
        /// The version of the file that the caller knows; another one is refused.
        #[serde(default)]
        version: Option<u64>,
    }
    /// What was changed.
    FilesChanged {
        /// The new versions, at most 100 of them.
        versions: Vec<FileVersion>,
        /// How many there are.
        count: u64,
    }
    /// What was put back.
    FilesRestored {
        /// The new versions, at most 100 of them.
        versions: Vec<FileVersion>,
        /// How many there are.
        count: u64,
        /// By path, the first 500: files that stay as they are.
        #[serde(default)]
        skipped: Vec<SkippedFile>,
    }
    /// Looks for files by what they are called or by what stands in them.
    FileSearch {
        /// A regular expression, or a glob for names.
        query: String,
        /// What it is looked for in; content when absent.
        #[serde(default)]
        kind: Option<FileSearchKind>,
        /// The directory below which to look; the project's own when absent.
        #[serde(default)]
        path: Option<String>,
        /// A glob that the names of the files match; for content alone.
        #[serde(default)]
        include: Option<String>,
        /// Whether case does not count; it does when absent.
        #[serde(default)]
        ignore_case: Option<bool>,
        /// At most 1000; 100 when absent.
        #[serde(default)]
        limit: Option<u32>,
    }
    /// What was found.
    FileMatches {
        /// By path and line.
        matches: Vec<FileMatch>,
        /// Whether a limit ended the search, so that there may be more.
        cut: bool,
    }
    /// Lists the versions of a file, newest first.
    FileVersions {
        /// Relative to the project's directory, with `/`.
        path: String,
        /// At most 200; 50 when absent.
        #[serde(default)]
        limit: Option<u32>,
        /// The `nextCursor` of the page before.
        #[serde(default)]
        cursor: Option<String>,
    }
    /// A page of versions.
    FileVersionPage {
        /// Newest first.
        versions: Vec<FileVersion>,
        /// For the next page; absent at the end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_cursor: Option<String>,
        /// Whether there are more.
        has_more: bool,
    }
    /// Compares two versions of a file, or one with what stands on the disk.
    FileDiff {
        /// Relative to the project's directory, with `/`.
        path: String,
        /// The earlier version; 0 is no file. The one before `to` when absent.
        #[serde(default)]
        from: Option<u64>,
        /// The later version; what stands on the disk when absent.
        #[serde(default)]
        to: Option<u64>,
    }
    /// How two states of a file differ.
    FileDifference {
        /// Relative to the project's directory, with `/`.
        path: String,
        /// The earlier version; 0 is no file.
        from: u64,
        /// The later version; absent for what stands on the disk.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<u64>,
        /// Whether one of them is no text: then there are no lines.
        binary: bool,
        /// Whether the texts were too large, or too different, to find the smallest difference: what stands
        /// here is true and longer than it need be, or left out.
        coarse: bool,
        /// Lines that were added; absent where there are no lines to count.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        insertions: Option<u64>,
        /// Lines that were taken out; absent where there are no lines to count.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deletions: Option<u64>,
        /// The difference line by line.
        hunks: Vec<DiffHunk>,
        /// The same as a unified diff.
        unified: String,
    }
    /// Puts a file back to an earlier version, which becomes a new one.
    FileRestore {
        /// Relative to the project's directory, with `/`.
        path: String,
        /// The version to put back. One that was deleted deletes the file.
        to: u64,
        /// The version that the caller knows; another one is refused.
        #[serde(default)]
        version: Option<u64>,
    }
    /// Takes a lock, or takes it again so that it lasts longer.
    FileLockTake {
        /// Relative to the project's directory, with `/`; `.` is the directory itself, as a subtree.
        path: String,
        /// The file alone when absent.
        #[serde(default)]
        scope: Option<LockScope>,
        /// How long it lasts, in milliseconds: at most a day; five minutes when absent.
        #[serde(default)]
        ttl_ms: Option<u64>,
        /// Whether to take it from somebody else, as an administrator of the project; not when absent.
        #[serde(default)]
        take_over: Option<bool>,
    }
    /// A lock.
    FileLockPayload {
        /// The lock.
        lock: FileLock,
    }
    /// Gives a lock back; an administrator of the project may give back that of somebody else.
    FileUnlock {
        /// The path that it was taken for.
        path: String,
    }
    /// Lists the locks of a project.
    FileLocks {}
    /// Locks.
    FileLockPage {
        /// By path; those that have not ended.
        locks: Vec<FileLock>,
    }
    /// Keeps the files as they are now.
    SnapshotCreate {}
    /// A snapshot.
    SnapshotPayload {
        /// The snapshot.
        snapshot: Snapshot,
    }
    /// Lists snapshots, newest first.
    SnapshotList {
        /// At most 200; 50 when absent.
        #[serde(default)]
        limit: Option<u32>,
        /// The `nextCursor` of the page before.
        #[serde(default)]
        cursor: Option<String>,
    }
    /// A page of snapshots.
    SnapshotPage {
        /// Newest first.
        snapshots: Vec<Snapshot>,
        /// For the next page; absent at the end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_cursor: Option<String>,
        /// Whether there are more.
        has_more: bool,
    }
    /// Compares a snapshot with another one, or with the files as they are now.
    SnapshotDiff {
        /// The earlier one.
        snapshot_id: SnapshotId,
        /// The later one; the files as they are now when absent.
        #[serde(default)]
        to: Option<SnapshotId>,
    }
    /// Which files differ.
    SnapshotDifference {
        /// By path.
        files: Vec<ChangedFile>,
        /// Whether there are more than are named here.
        cut: bool,
    }
    /// Puts all files back to what they were: all of them, or none.
    SnapshotRestore {
        /// The snapshot.
        snapshot_id: SnapshotId,
        /// Whether files stay as they are of which the content is not kept, then or now; when absent or
        /// `false`, one such file has all of it refused.
        #[serde(default)]
        skip_unkept: Option<bool>,
    }
    /// Compares the files before a run with what it made of them.
    RunDiff {
        /// The session.
        session_id: SessionId,
        /// The run.
        run_id: RunId,
    }
    /// What a run made of the files.
    RunDifference {
        /// The session.
        session_id: SessionId,
        /// The run.
        run_id: RunId,
        /// By path.
        files: Vec<ChangedFile>,
        /// Whether there are more than are named here.
        cut: bool,
        /// All of it as one unified diff, of at most 256 KiB.
        unified: String,
        /// Whether `unified` does not have all of it: files that are no text or not kept, very large ones, what is
        /// beyond its size, and any where more than 100 files differ.
        coarse: bool,
    }
}

impl FileEntryType {
    /// The type of a [`File`] that is an entry of this kind, if there can be one.
    pub fn file_type(self) -> Option<FileType> {
        match self {
            Self::File => Some(FileType::File),
            Self::Directory => Some(FileType::Directory),
            Self::Link | Self::Other => None,
        }
    }
}

impl File {
    /// A file that nobody recorded a version of.
    pub fn unrecorded(path: String, r#type: FileType, size: u64, hash: String) -> Self {
        Self {
            path,
            r#type,
            size,
            mime_type: None,
            version: 0,
            hash,
            updated_at: None,
            updated_by: None,
            lock: None,
        }
    }
}

/// Asks for the files of a form to be written: they are its body.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileUpload {}

/// What became of one file of a form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UploadedFile {
    /// Relative to the project's directory, with `/`.
    pub path: String,
    /// The file, with its new version; absent where it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<File>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ApiError>,
}

/// What became of the files of a form, in the order in which they stood there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UploadedFiles {
    /// Each of them.
    pub files: Vec<UploadedFile>,
}
