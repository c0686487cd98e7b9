//! What an archive says of itself.

use iris_protocol::{ProjectId, ProjectType, Role, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::name::ArchivedPath;

/// Tells an archive of a project from other JSON.
pub const FORMAT: &str = "iris-project";
/// The version of the format that this server writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// The first entry of an archive: what it is of, and every other entry with its hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: String,
    /// At most [`FORMAT_VERSION`] in an archive that can be read.
    pub format_version: u32,
    /// The version of the server that made it.
    pub server_version: String,
    /// The project.
    pub project_id: ProjectId,
    /// The epoch that the project had.
    pub epoch: String,
    /// The number of the last event in it.
    pub seq: u64,
    /// The schema version of its database.
    pub schema_version: u32,
    /// When it was begun, in milliseconds since 1970 UTC.
    pub taken_at: i64,
    /// What the root database knew of the project.
    pub about: ProjectAbout,
    /// Every file in it besides the manifest, in the order in which they follow.
    pub entries: Vec<MemberFile>,
    /// The directories below `files/`, each after the one that holds it.
    pub directories: Vec<ArchivedDirectory>,
    /// What lay among the files and is not in it.
    pub skipped: Vec<Skipped>,
}

impl Manifest {
    /// The sum of the sizes of all files in it.
    pub fn contents_bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.size).fold(0, u64::saturating_add)
    }
}

/// What the root database knows of a project and an archive carries along. No secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProjectAbout {
    /// Never empty.
    pub name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Free-form.
    pub settings: Map<String, Value>,
    /// Where its files lived.
    pub project_type: ProjectType,
    /// Where a project of the type `git` was cloned from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<ArchivedGit>,
    /// Milliseconds since 1970 UTC.
    pub created_at: i64,
    /// In the order in which they joined.
    pub members: Vec<ArchivedMember>,
}

/// The repository that a project was cloned from, without credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchivedGit {
    /// Where it is.
    pub url: String,
    /// The branch that was asked for, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
}

/// Who was a member of the project, as another server may know them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchivedMember {
    /// The user's id where the archive was made.
    pub user_id: UserId,
    /// Lower case.
    pub email: String,
    /// The name that others saw.
    pub username: String,
    /// What they might do.
    pub role: Role,
}

/// One file of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberFile {
    /// `project.db`, or a path below `files/`.
    pub path: ArchivedPath,
    /// Permission bits, at most 0777.
    pub mode: u32,
    /// In bytes.
    pub size: u64,
    /// Of its content; 64 digits, lower case.
    pub sha256: String,
}

/// One directory of an archive, which may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchivedDirectory {
    /// A path below `files/`.
    pub path: ArchivedPath,
    /// Permission bits, at most 0777.
    pub mode: u32,
}

/// Something that lay among the files and is not in the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Skipped {
    /// Below `files/`; with `?` for what no archive can name.
    pub path: String,
    /// Why.
    pub reason: SkippedReason,
}

/// Why something is not in an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SkippedReason {
    /// It is a symbolic link.
    Link,
    /// It is a device, a pipe or a socket.
    Special,
    /// The server may not read it.
    Unreadable,
    /// Its path is longer or deeper than an archive can hold.
    Name,
}

/// An archive that was read from its first byte to its last, with nothing wrong in it.
#[derive(Debug, Clone, PartialEq)]
pub struct ArchiveInfo {
    /// What it says of itself, which is true.
    pub manifest: Manifest,
    /// The size of the whole file.
    pub bytes: u64,
    /// Of the whole file; 64 digits, lower case.
    pub sha256: String,
}
