//! Projects that were cloned with git.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::SecretText;

/// Where a project is cloned from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GitSource {
    /// `https`, without a name and a password, or where the server allows it another one: at most 2048 bytes.
    pub url: String,
    /// The branch to begin with; that of the repository when absent.
    #[serde(default)]
    pub branch: Option<String>,
    /// The name that goes with the token.
    #[serde(default)]
    pub username: Option<String>,
    /// A token or password. No answer has it.
    #[serde(default)]
    pub token: Option<SecretText>,
}

/// How far the clone of a project is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum CloneState {
    /// The server is at it: files cannot be used yet.
    Cloning,
    /// The files are there.
    Ready,
    /// It did not work; it can be tried again.
    Failed,
}

/// What is known of a project's repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProjectGit {
    /// Where it was cloned from, without credentials.
    pub url: String,
    /// The branch that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// How far the clone is.
    pub state: CloneState,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What became of a project's repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum GitAction {
    /// A clone began.
    Cloning,
    /// The clone is there.
    Cloned,
    /// The clone failed, or was given up.
    CloneFailed,
    /// Another branch is checked out.
    Switched,
    /// There is a new commit.
    Committed,
    /// The branches of the other side were looked at.
    Fetched,
    /// What the other side has is in the current branch.
    Pulled,
    /// The other side has a branch as it is here.
    Pushed,
    /// The name and the token for the other side are different ones.
    Credentials,
}

/// How a file differs from the last commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum GitFileState {
    /// Known to git and another one.
    Modified,
    /// New, and to be in the next commit.
    Added,
    /// Gone.
    Deleted,
    /// Git does not know it.
    Untracked,
    /// A merge left it to people.
    Conflicted,
}

/// A file that differs from the last commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GitFile {
    /// Relative to the project's directory, with `/`.
    pub path: String,
    /// How it differs.
    pub state: GitFileState,
    /// Whether some of it was added for the next commit.
    pub staged: bool,
}

/// A branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GitBranch {
    /// Its name, without `refs/heads/` and `origin/`.
    pub name: String,
    /// Whether it is one of the other side, as it was there when it was looked at last.
    pub remote: bool,
    /// Whether it is checked out.
    pub current: bool,
    /// Its newest commit.
    pub commit: String,
}

/// Who made a commit, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GitPerson {
    /// What the commit says.
    pub name: String,
    /// What the commit says; nobody checked it.
    pub email: String,
    /// Milliseconds since 1970 UTC.
    pub at: i64,
}

/// A commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GitCommitInfo {
    /// Its hash.
    pub id: String,
    /// Those before it; none for the first, several for a merge.
    pub parents: Vec<String>,
    /// Who wrote it.
    pub author: GitPerson,
    /// Who committed it.
    pub committer: GitPerson,
    /// At most 4096 bytes of its message.
    pub message: String,
}

/// How much of a file differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GitFileStat {
    /// Relative to the project's directory, with `/`.
    pub path: String,
    /// Lines that are new; absent for a binary file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insertions: Option<u64>,
    /// Lines that are gone; absent for a binary file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletions: Option<u64>,
}

payloads! {
    /// Clones a project again whose clone failed.
    GitClone {}
    /// Gives the clone of a project up.
    GitCancel {}
    /// Sets name and token for the other side, in place of those before; without a token there are none.
    GitCredentialsSet {
        /// The name that goes with the token.
        #[serde(default)]
        username: Option<String>,
        /// A token or password. No answer has it.
        #[serde(default)]
        token: Option<SecretText>,
    }
    /// Compares the files with the last commit.
    GitStatus {}
    /// How the files differ from the last commit.
    GitStatusInfo {
        /// The branch that is checked out; absent where none is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        branch: Option<String>,
        /// The last commit; absent where there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        commit: Option<String>,
        /// Commits of the branch that the other side does not have; absent where it has no such branch.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ahead: Option<u64>,
        /// Commits that the other side has and the branch does not, as far as is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        behind: Option<u64>,
        /// The first 1000 of them.
        files: Vec<GitFile>,
        /// Whether there are more.
        truncated: bool,
    }
    /// Compares two commits, or one with the files.
    GitDiff {
        /// One file, or all below a directory.
        #[serde(default)]
        path: Option<String>,
        /// A branch, a tag or a commit; the last commit when absent.
        #[serde(default)]
        from: Option<String>,
        /// A branch, a tag or a commit; the files as they are when absent.
        #[serde(default)]
        to: Option<String>,
    }
    /// What differs. Files that git does not know are not among it.
    GitDifference {
        /// The first 1000 files.
        files: Vec<GitFileStat>,
        /// Unified, at most 256 KiB; empty where it would be longer: `files` says what differs then.
        text: String,
        /// Whether `text` or `files` do not say everything.
        truncated: bool,
    }
    /// Lists commits, newest first.
    GitLog {
        /// A branch, a tag or a commit; the last commit when absent.
        #[serde(default)]
        from: Option<String>,
        /// Those alone that changed this file, or something below this directory.
        #[serde(default)]
        path: Option<String>,
        /// At most 200; 50 when absent.
        #[serde(default)]
        limit: Option<u32>,
        /// `nextCursor` of the page before.
        #[serde(default)]
        cursor: Option<String>,
    }
    /// A page of commits.
    GitCommitPage {
        /// Newest first.
        commits: Vec<GitCommitInfo>,
        /// For the next page; null on the last.
        next_cursor: Option<String>,
        /// Whether there is a next page.
        has_more: bool,
    }
    /// Lists branches.
    GitBranches {}
    /// Branches.
    GitBranchPage {
        /// The first 1000, by name, those of the other side last.
        branches: Vec<GitBranch>,
        /// Whether there are more.
        truncated: bool,
    }
    /// Checks another branch out.
    GitSwitch {
        /// A branch of this or the other side, or the name of a new one.
        branch: String,
        /// Whether to make it.
        #[serde(default)]
        create: bool,
        /// Where a new one begins: a branch, a tag or a commit; the last commit when absent.
        #[serde(default)]
        from: Option<String>,
    }
    /// Commits what differs.
    GitCommit {
        /// 1 to 65,536 bytes.
        message: String,
        /// Files and directories; everything when absent. At most 1000.
        #[serde(default)]
        paths: Option<Vec<String>>,
    }
    /// A commit.
    GitCommitPayload {
        /// The commit.
        commit: GitCommitInfo,
    }
    /// Looks at the branches of the other side.
    GitFetch {}
    /// Brings what the other side has into the current branch.
    GitPull {
        /// Whether to merge where both sides have commits of their own; refused otherwise.
        #[serde(default)]
        merge: bool,
    }
    /// Sends a branch to the other side.
    GitPush {
        /// The branch; the current one when absent.
        #[serde(default)]
        branch: Option<String>,
    }
    /// Where a branch is now.
    GitHead {
        /// The branch; absent where none is checked out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        branch: Option<String>,
        /// Its newest commit; absent where there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        commit: Option<String>,
    }
}
