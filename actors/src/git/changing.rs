//! Changing what stands among the files, with the turn of the project held: what git made of them is recorded as
//! versions before anybody else changes one.

use iris_protocol::limits::{GIT_COMMIT_PATHS_MAX, GIT_COMMIT_TEXT_BYTES_MAX};
use iris_protocol::{
    ApiError, ErrorCode, FileSource, GitCommit, GitCommitInfo, GitCommitPayload, GitHead,
    GitSwitch, User,
};
use iris_store::project::Author;
use iris_store::root::GitWorkKind;
use iris_store::{CrashPoint, StoreError, crash_point};

use super::command::Run;
use super::reading::plain;
use super::settling::{Doing, Worked};
use super::{
    NOTHING_UNFINISHED, Repository, WITH_MAGIC, check_branch, conflict, identity, literal, parse,
};
use crate::files::look_at_all;

/// Most bytes of the list of a tree that are read.
const TREE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most bytes of what git says while it changes files.
const SAID_BYTES_MAX: usize = 16 * 1024 * 1024;

impl Repository<'_> {
    /// Checks another branch out.
    pub(crate) async fn switch(
        &self,
        doing: &Doing,
        request: GitSwitch,
    ) -> Result<Worked<GitHead>, ApiError> {
        let by = &doing.by;
        let GitSwitch { branch, create, from } = request;
        check_branch("branch", &branch)?;
        let turn = self.turn().await?;
        self.check_locks(by).await?;
        let local = self.commit_of(&format!("refs/heads/{branch}")).await?;
        let start = match (create, &from) {
            (true, _) if local.is_some() => {
                return Err(conflict("branch_exists", "there is a branch of that name"));
            }
            (true, Some(from)) => Some(self.named("from", from).await?),
            (true, None) => None,
            (false, Some(_)) => {
                let message = "`from` is for a new branch: set `create`";
                return Err(ApiError::invalid(message).reason("from_without_create"));
            }
            (false, None) if local.is_some() => None,
            (false, None) => {
                let other = self.commit_of(&format!("refs/remotes/origin/{branch}")).await?;
                Some(other.ok_or_else(|| ApiError::not_found("branch"))?)
            }
        };
        if let Some(commit) = start.as_ref().or(local.as_ref()) {
            self.check_tree(commit).await?;
        }
        let mut arguments = vec!["switch", "--quiet", "--no-guess"];
        if create || local.is_none() {
            // A command cannot write to the repository's configuration, nor need it: the names are the same.
            arguments.extend(["--no-track", "--create"]);
        }
        arguments.push(&branch);
        arguments.extend(start.as_deref());
        let GitHead { branch: from, commit: before } = self.head().await?;
        // A new one begins where nobody said another place.
        let to = start.clone().or_else(|| local.clone()).or_else(|| before.clone());
        let is_new = local.is_none();
        let kind = GitWorkKind::Switch { branch: branch.clone(), from, before, to, is_new };
        self.working(doing, kind, self.change(by, self.run(&arguments))).await?;
        Ok(Worked::of_head(self.head().await?, Some(turn)))
    }

    /// Commits what differs.
    pub(crate) async fn commit(
        &self,
        doing: &Doing,
        request: GitCommit,
    ) -> Result<Worked<GitCommitPayload>, ApiError> {
        let GitCommit { message, paths } = request;
        if message.trim().is_empty() || message.contains('\0') {
            let message = "`message` must not be empty";
            return Err(ApiError::invalid(message).reason("invalid_message"));
        }
        if message.len() > GIT_COMMIT_TEXT_BYTES_MAX {
            let message = format!("`message` is longer than {GIT_COMMIT_TEXT_BYTES_MAX} bytes");
            return Err(ApiError::new(ErrorCode::PayloadTooLarge, message));
        }
        let paths = paths.unwrap_or_else(|| vec![".".to_owned()]);
        if paths.is_empty() || paths.len() > GIT_COMMIT_PATHS_MAX {
            let message = format!("`paths` must name 1 to {GIT_COMMIT_PATHS_MAX} files");
            return Err(ApiError::invalid(message).reason("invalid_paths"));
        }
        let paths = paths.into_iter().map(plain).collect::<Result<Vec<_>, _>>()?;
        let is_all = paths == ["."];
        let paths: Vec<String> = paths.iter().map(|path| literal(path)).collect();
        let paths = paths.iter().map(String::as_str).chain(NOTHING_UNFINISHED);
        let paths: Vec<&str> = paths.collect();
        let turn = self.turn().await?;
        // To add them would say that they are resolved, with the marks of the conflict in them.
        let unmerged = self.unmerged().await?;
        if !unmerged.is_empty() {
            let message = "a merge is under way that is not resolved";
            return Err(conflict("merge_conflict", message).detail("paths", unmerged));
        }
        let kind = GitWorkKind::Commit {
            before: self.commit_of("HEAD").await?,
            email: doing.by.email.clone(),
            at: self.place().now() / 1_000,
        };
        let commit = self.working(doing, kind.clone(), async {
            self.ask(&[&[WITH_MAGIC, "add", "--all", "--"][..], &paths].concat()).await?;
            let fixed = [
                WITH_MAGIC,
                "diff",
                "--cached",
                "--quiet",
                "--no-ext-diff",
                "--ignore-submodules=all",
                "--",
            ];
            let compared = self.look(&[&fixed[..], &paths].concat(), super::SHORT).await?;
            if compared.code == 0 {
                return Err(conflict("nothing_to_commit", "nothing differs from the last commit"));
            }
            let mut arguments = vec![WITH_MAGIC, "commit", "--quiet", "--no-verify", "--file=-"];
            if !is_all {
                arguments.push("--only");
                arguments.push("--");
                arguments.extend(&paths);
            }
            let mut run = self.run(&arguments);
            run.env.extend(identity(&doing.by));
            if let GitWorkKind::Commit { at, .. } = &kind {
                let dates = ["GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"];
                run.env.extend(dates.map(|name| (name.to_owned(), format!("@{at} +0000"))));
            }
            run.input = message.into_bytes();
            run.within(self.sandbox).await?.worked()?;
            crash_point(CrashPoint::GitWorked);
            self.committed().await
        });
        Ok(Worked::of_commit(commit.await?, self.current_branch().await?, Some(turn)))
    }

    /// The newest commit, after one was made.
    pub(super) async fn committed(&self) -> Result<GitCommitInfo, ApiError> {
        let commit = self.commit_of("HEAD").await?;
        let commit = commit.ok_or_else(|| super::broken("a commit was made and is not there"))?;
        self.commit_info(&commit).await
    }

    /// Brings a branch of the other side into the current one. The caller has what it has by now.
    pub(super) async fn merge(
        &self,
        doing: &Doing,
        is_merge: bool,
    ) -> Result<Worked<GitHead>, ApiError> {
        let by = &doing.by;
        let turn = self.turn().await?;
        self.check_locks(by).await?;
        // Only what begins here is taken back here.
        if self.commit_of("MERGE_HEAD").await?.is_some() {
            let message = "a merge is under way: end it, or have an agent run `git merge --abort`";
            return Err(conflict("merge_under_way", message));
        }
        let branch = self.current_branch().await?;
        let branch = branch.ok_or_else(|| conflict("no_branch", "no branch is checked out"))?;
        let other = self.commit_of(&format!("refs/remotes/origin/{branch}")).await?;
        let message = "the other side has no branch of that name";
        let other = other.ok_or_else(|| conflict("git_branch", message))?;
        self.check_tree(&other).await?;
        let title = format!("Merge branch '{branch}' of the other side");
        let kind = if is_merge { "--ff" } else { "--ff-only" };
        let arguments =
            ["merge", "--quiet", "--no-verify", "--no-stat", "-m", &title, kind, &other];
        let mut run = self.run(&arguments);
        run.env.extend(identity(by));
        let kind =
            GitWorkKind::Merge { before: self.commit_of("HEAD").await?, other: other.clone() };
        let merging = async {
            match self.change(by, run).await {
                Ok(()) => Ok(()),
                Err(error) => Err(self.unmerge(by, error).await?),
            }
        };
        self.working(doing, kind, merging).await?;
        Ok(Worked::of_head(self.head().await?, Some(turn)))
    }

    /// The files in which both sides of a merge changed the same lines.
    async fn unmerged(&self) -> Result<Vec<String>, ApiError> {
        let arguments = ["diff", "--name-only", "--diff-filter=U", "-z", "--no-ext-diff"];
        let ran = self.look(&arguments, super::SHORT).await?;
        let paths = String::from_utf8_lossy(&ran.output).into_owned();
        Ok(paths.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect())
    }

    /// Takes a merge back that did not work, and says why it did not.
    async fn unmerge(&self, by: &User, error: ApiError) -> Result<ApiError, ApiError> {
        let paths = self.unmerged().await?;
        if !paths.is_empty() {
            self.change(by, self.run(&["merge", "--abort"])).await?;
            let message = "both sides changed the same lines: nothing was merged";
            return Ok(conflict("merge_conflict", message).detail("paths", paths));
        }
        if error.message.contains("fast-forward") || error.message.contains("iverging branches") {
            let message =
                "both sides have commits of their own: set `merge` to bring them together";
            return Ok(conflict("diverged", message));
        }
        Ok(error)
    }

    /// Runs what changes files, between two looks at them. The caller has the turn.
    pub(super) async fn change(&self, by: &User, run: Run) -> Result<(), ApiError> {
        let place = self.place();
        look_at_all(place, None).await?;
        // A merge names each file that both sides changed; to read no further would end it in the middle.
        let ran = Run { output_max: SAID_BYTES_MAX, ..run }.within(self.sandbox).await;
        crash_point(CrashPoint::GitWorked);
        // Whatever came of it.
        look_at_all(place, Some(&Author::user(by.id.clone(), FileSource::Api))).await?;
        let ran = ran?.worked()?;
        if ran.is_cut { Err(super::broken("git said more than is read")) } else { Ok(()) }
    }

    /// Refuses to change all files while somebody else has locked one.
    async fn check_locks(&self, by: &User) -> Result<(), ApiError> {
        let locks = self.project.reader.file_locks().await.map_err(|error| error.to_api())?;
        let now = self.node.services.clock.now_ms();
        let others = locks.into_iter().find(|it| it.owner_id != by.id && it.expires_at > now);
        match others {
            Some(lock) => Err(StoreError::Locked { lock: Box::new(lock) }.to_api()),
            None => Ok(()),
        }
    }

    /// Refuses a commit with more files than the project may have.
    pub(super) async fn check_tree(&self, commit: &str) -> Result<(), ApiError> {
        let quotas = self.node.services.settings.quotas;
        if quotas.files_max == 0 && quotas.file_bytes_max == 0 {
            return Ok(());
        }
        let arguments = ["ls-tree", "-r", "-l", "-z", "--full-tree", commit];
        let ran = self.look(&arguments, TREE_BYTES_MAX).await?.worked()?;
        let (count, bytes) = parse::tree(&ran.output);
        let is_over = |max: u64, found: u64| max > 0 && found > max;
        if ran.is_cut || is_over(quotas.files_max, count) || is_over(quotas.file_bytes_max, bytes) {
            let message = format!(
                "the commit has {count} files with {bytes} bytes, more than a project may have"
            );
            return Err(ApiError::new(ErrorCode::QuotaExceeded, message).reason("files"));
        }
        Ok(())
    }
}
