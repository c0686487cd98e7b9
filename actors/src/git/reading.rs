//! Looking at a repository: nothing of it changes.

use iris_protocol::limits::{GIT_DIFF_BYTES_MAX, GIT_ENTRIES_MAX};
use iris_protocol::{
    ApiError, GitBranchPage, GitCommitInfo, GitCommitPage, GitDiff, GitDifference, GitHead, GitLog,
    GitStatusInfo,
};
use iris_workspace::RelPath;

use super::source::check_commit;
use super::{NOTHING_UNFINISHED, Repository, WITH_MAGIC, broken, parse};

/// What nothing differs from (gitglossary(7), "empty tree"), in the two formats of hashes.
const NOTHING: [&str; 2] = [
    "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
];
/// Most bytes of a list that are read.
const LIST_BYTES_MAX: usize = 4 * 1024 * 1024;

impl Repository<'_> {
    /// How the files differ from the last commit.
    pub(crate) async fn status(&self) -> Result<GitStatusInfo, ApiError> {
        let arguments = [
            WITH_MAGIC,
            "status",
            "--porcelain=v2",
            "-z",
            "--branch",
            "--untracked-files=all",
            "--no-renames",
            "--ignore-submodules=all",
            "--",
            ".",
        ];
        let arguments = [&arguments[..], &NOTHING_UNFINISHED].concat();
        let ran = self.look(&arguments, LIST_BYTES_MAX).await?.worked()?;
        let mut status = parse::status(&ran.output, ran.is_cut);
        if let (Some(branch), Some(_)) = (&status.branch, &status.commit)
            && let Some((ahead, behind)) = self.distance(branch).await?
        {
            (status.ahead, status.behind) = (Some(ahead), Some(behind));
        }
        Ok(status)
    }

    /// How many commits each side has of its own.
    async fn distance(&self, branch: &str) -> Result<Option<(u64, u64)>, ApiError> {
        let both = format!("HEAD...refs/remotes/origin/{branch}");
        let arguments = ["rev-list", "--left-right", "--count", &both, "--"];
        let ran = self.look(&arguments, super::SHORT).await?;
        let text = String::from_utf8_lossy(&ran.output).into_owned();
        let mut counts = text.split_whitespace().map(str::parse);
        Ok(match (ran.code, counts.next(), counts.next()) {
            (0, Some(Ok(ahead)), Some(Ok(behind))) => Some((ahead, behind)),
            _ => None,
        })
    }

    /// What differs between two commits, or one and the files.
    pub(crate) async fn diff(&self, request: GitDiff) -> Result<GitDifference, ApiError> {
        let GitDiff { path, from, to } = request;
        let from = match from {
            Some(from) => self.named("from", &from).await?,
            None => match self.commit_of("HEAD").await? {
                Some(commit) => commit,
                None => self.nothing().await?,
            },
        };
        let to = match to {
            Some(to) => Some(self.named("to", &to).await?),
            None => None,
        };
        let path = path.map(plain).transpose()?;
        let between = async |format: &[&str], output_max| {
            let fixed = [
                "diff",
                "--no-ext-diff",
                "--no-textconv",
                "--no-renames",
                "--ignore-submodules=all",
            ];
            let mut arguments = [&fixed[..], format, &[from.as_str()]].concat();
            arguments.extend(to.as_deref());
            arguments.push("--");
            arguments.extend(path.as_deref());
            self.look(&arguments, output_max).await?.worked()
        };
        let counted = between(&["--numstat", "-z"], LIST_BYTES_MAX).await?;
        let (files, is_cut) = parse::stats(&counted.output, counted.is_cut);
        let shown = between(&["--no-color", "--patch"], GIT_DIFF_BYTES_MAX).await?;
        let text = if shown.is_cut {
            String::new()
        } else {
            String::from_utf8_lossy(&shown.output).into_owned()
        };
        Ok(GitDifference { files, text, truncated: is_cut || shown.is_cut })
    }

    /// The tree without files, in the format of this repository.
    pub(super) async fn nothing(&self) -> Result<String, ApiError> {
        let format = self.ask(&["rev-parse", "--show-object-format"]).await?;
        let [short, long] = NOTHING;
        Ok(if format == "sha256" { long } else { short }.to_owned())
    }

    /// The commit of a name that a caller wrote.
    pub(super) async fn named(&self, field: &str, name: &str) -> Result<String, ApiError> {
        check_commit(field, name)?;
        if let Some(commit) = self.commit_of(name).await? {
            return Ok(commit);
        }
        let other = self.commit_of(&format!("refs/remotes/origin/{name}")).await?;
        other.ok_or_else(|| ApiError::not_found("commit"))
    }

    /// Commits, newest first.
    pub(crate) async fn log(&self, request: GitLog, limit: u32) -> Result<GitCommitPage, ApiError> {
        let GitLog { from, path, cursor, .. } = request;
        let none = GitCommitPage { commits: Vec::new(), next_cursor: None, has_more: false };
        let (start, skip) = match (cursor, from) {
            (Some(cursor), _) => place_of(&cursor)?,
            (None, Some(from)) => (self.named("from", &from).await?, 0),
            (None, None) => match self.commit_of("HEAD").await? {
                Some(commit) => (commit, 0),
                None => return Ok(none),
            },
        };
        let path = path.map(plain).transpose()?;
        let (count, skipped) = (format!("--max-count={}", limit + 1), format!("--skip={skip}"));
        let mut arguments =
            vec!["log", "-z", "--no-color", parse::COMMIT_FORMAT, &count, &skipped, &start, "--"];
        arguments.extend(path.as_deref());
        let ran = self.look(&arguments, LIST_BYTES_MAX).await?;
        if ran.code != 0 {
            return Err(ApiError::not_found("commit"));
        }
        let mut commits = parse::commits(&ran.output, ran.is_cut);
        let has_more = ran.is_cut || commits.len() > limit as usize;
        commits.truncate(limit as usize);
        // From the same commit on: what is committed meanwhile moves nothing.
        let next_cursor = has_more.then(|| format!("{start}.{}", skip + commits.len() as u64));
        Ok(GitCommitPage { commits, next_cursor, has_more })
    }

    /// One commit.
    pub(super) async fn commit_info(&self, commit: &str) -> Result<GitCommitInfo, ApiError> {
        let arguments =
            ["log", "-z", "--no-color", parse::COMMIT_FORMAT, "--max-count=1", commit, "--"];
        let ran = self.look(&arguments, LIST_BYTES_MAX).await?.worked()?;
        let found = parse::commits(&ran.output, ran.is_cut).into_iter().next();
        found.ok_or_else(|| broken("a commit of git could not be read"))
    }

    /// The branches of both sides.
    pub(crate) async fn branches(&self) -> Result<GitBranchPage, ApiError> {
        let count = format!("--count={}", GIT_ENTRIES_MAX + 2);
        let places = ["refs/heads", "refs/remotes/origin"];
        let arguments = [&["for-each-ref", &count, parse::BRANCH_FORMAT][..], &places].concat();
        let ran = self.look(&arguments, LIST_BYTES_MAX).await?.worked()?;
        let (branches, truncated) = parse::branches(&ran.output, ran.is_cut);
        Ok(GitBranchPage { branches, truncated })
    }

    /// What is checked out.
    pub(super) async fn head(&self) -> Result<GitHead, ApiError> {
        let (branch, commit) = (self.current_branch().await?, self.commit_of("HEAD").await?);
        Ok(GitHead { branch, commit })
    }
}

/// A path as git is given it.
#[expect(clippy::needless_pass_by_value, reason = "it stands in `map`")]
pub(super) fn plain(path: String) -> Result<String, ApiError> {
    Ok(RelPath::dir(&path).map_err(crate::files::refused)?.as_str().to_owned())
}

fn place_of(cursor: &str) -> Result<(String, u64), ApiError> {
    let parts = cursor.split_once('.').filter(|(commit, _)| parse::is_hash(commit));
    let place = parts.and_then(|(commit, skip)| Some((commit.to_owned(), skip.parse().ok()?)));
    place.ok_or_else(|| ApiError::invalid("`cursor` is none of this list").reason("invalid_cursor"))
}
