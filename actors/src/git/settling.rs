//! What git is about to change is written down before it begins, and noted when it is done. What a crash or the end
//! of its time cut off is found by that: it is finished, or taken back, and the locks that git left go.

use std::future::Future;

use iris_protocol::{
    ApiError, ErrorCode, Event, FileSource, GitAction, GitCommitInfo, GitCommitPayload, GitHead,
    ProjectId, User,
};
use iris_store::project::Author;
use iris_store::root::{BeginGitWork, EndGitWork, GitPart, GitWork, GitWorkKind, NoteGit};
use iris_store::{IdempotencyKey, WriteContext};
use serde::Serialize;

use super::command::Run;
use super::home::locks;
use super::{Repository, broken, conflict, parse};
use crate::files::{Turn, look_at_all, take_turn};
use crate::supervision::detached;
use crate::{Node, NodeError, outbox, record};

/// Most bytes of the lists of what differs between two commits.
const LISTS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Locks that are removed at a time.
const LOCKS_AT_ONCE: usize = 100;

/// Who changes a repository, and under which key a repeat of it is known.
pub(crate) struct Doing {
    pub(crate) by: User,
    pub(crate) key: Option<IdempotencyKey>,
}

/// What was done, until it is noted.
pub(crate) struct Worked<T> {
    pub(crate) answer: T,
    pub(crate) branch: Option<String>,
    pub(crate) commit: Option<String>,
    /// Nobody else changes files before it is noted: they would take it for what a crash left.
    _turn: Option<Turn>,
}

impl<T> Worked<T> {
    pub(super) fn new(answer: T) -> Self {
        Self { answer, branch: None, commit: None, _turn: None }
    }
}

impl Worked<GitHead> {
    pub(super) fn of_head(head: GitHead, turn: Option<Turn>) -> Self {
        let (branch, commit) = (head.branch.clone(), head.commit.clone());
        Self { answer: head, branch, commit, _turn: turn }
    }
}

impl Worked<GitCommitPayload> {
    pub(super) fn of_commit(
        commit: GitCommitInfo,
        branch: Option<String>,
        turn: Option<Turn>,
    ) -> Self {
        let id = Some(commit.id.clone());
        Self { answer: GitCommitPayload { commit }, branch, commit: id, _turn: turn }
    }
}

/// What notes that a repository was changed.
///
/// # Errors
/// `INTERNAL` for an answer that is no JSON.
pub(crate) fn note<T: Serialize>(
    project_id: &ProjectId,
    action: GitAction,
    by: &User,
    worked: &Worked<T>,
    at: i64,
) -> Result<NoteGit, ApiError> {
    let part = match action {
        GitAction::Fetched | GitAction::Pushed => GitPart::Branches,
        GitAction::Switched
        | GitAction::Committed
        | GitAction::Pulled
        | GitAction::Cloning
        | GitAction::Cloned
        | GitAction::CloneFailed
        | GitAction::Credentials => GitPart::Files,
    };
    let (project_id, by) = (project_id.clone(), by.id.clone());
    let (branch, commit) = (worked.branch.clone(), worked.commit.clone());
    let answer = serde_json::to_value(&worked.answer).map_err(broken)?;
    let event =
        Event::GitChanged { project_id: project_id.clone(), action, branch, commit, error: None };
    Ok(NoteGit { project_id, event, answer, part, by, at })
}

impl Node {
    /// Finishes or takes back what git was doing among the files of projects when the server ended; in the
    /// background.
    ///
    /// # Errors
    /// When the root database cannot be read.
    pub async fn settle_git(&self) -> Result<(), NodeError> {
        let projects = self.root_reader.git_works().await?;
        let node = self.clone();
        if !projects.is_empty() {
            detached(async move {
                for id in projects {
                    let settled = node.guarded("git", settle_project(&node, &id)).await;
                    if let Ok(Err(error)) = settled {
                        tracing::warn!(project.id = %id, %error, "what git left is looked at later");
                    }
                }
            });
        }
        Ok(())
    }
}

async fn settle_project(node: &Node, id: &ProjectId) -> Result<(), ApiError> {
    let project = node.project(id).await?;
    let repository = Repository::open(node, &project).await?;
    repository.settle(&[GitPart::Branches, GitPart::Files]).await
}

impl Repository<'_> {
    /// Does what changes the repository, written down for who finds it half done. The caller has the turn of its
    /// part. What worked has to be noted, or ended.
    pub(super) async fn working<T>(
        &self,
        doing: &Doing,
        kind: GitWorkKind,
        work: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        let work_of = GitWork {
            project_id: self.project.id.clone(),
            kind,
            locks: self.locks().await?,
            key: doing.key.clone(),
            by: doing.by.id.clone(),
            at: self.place().now(),
        };
        let part = work_of.part();
        let begun = record(&self.node.root, BeginGitWork(work_of), WriteContext::default()).await;
        begun.map_err(|error| error.to_api())?;
        let worked = work.await;
        match &worked {
            // Git may have been cut off: the next one looks at what it left.
            Err(error)
                if matches!(error.code, ErrorCode::DeadlineExceeded | ErrorCode::Internal) => {}
            Err(_) => self.end_work(part).await?,
            Ok(_) => {}
        }
        worked
    }

    /// Forgets what git was about to do.
    pub(super) async fn end_work(&self, part: GitPart) -> Result<(), ApiError> {
        let end = EndGitWork { project_id: self.project.id.clone(), part };
        let ended = record(&self.node.root, end, WriteContext::default()).await;
        ended.map(drop).map_err(|error| error.to_api())
    }

    async fn locks(&self) -> Result<Vec<String>, ApiError> {
        let files = self.places.project.clone();
        tokio::task::spawn_blocking(move || locks(&files)).await.map_err(broken)
    }

    /// Finishes or takes back what was cut off in these parts of the repository.
    ///
    /// # Errors
    /// `CONFLICT` with reason `git_busy` while a command works among the files that may be git.
    pub(crate) async fn settle(&self, parts: &[GitPart]) -> Result<(), ApiError> {
        for work in self.works().await? {
            let part = work.part();
            if !parts.contains(&part) {
                continue;
            }
            // Whoever has the turn works on it, and ends it.
            let (_alone, _turn) = match part {
                GitPart::Branches => (Some(self.node.clones.alone(&self.project.id).await), None),
                GitPart::Files => (None, Some(take_turn(self.place()).await?)),
            };
            if !self.works().await?.contains(&work) {
                continue;
            }
            if self.project.kept.files.has_commands() {
                let message = "a command works among the files, where git was cut off: try again";
                return Err(conflict("git_busy", message));
            }
            tracing::warn!(project.id = %self.project.id, ?part, "git was cut off among the files");
            self.settle_one(&work).await?;
        }
        Ok(())
    }

    async fn works(&self) -> Result<Vec<GitWork>, ApiError> {
        let works = self.node.root_reader.git_work(&self.project.id).await;
        works.map_err(|error| error.to_api())
    }

    async fn settle_one(&self, work: &GitWork) -> Result<(), ApiError> {
        self.remove_locks(work).await?;
        let by = self.node.root_reader.user(&work.by).await.map_err(|error| error.to_api())?;
        match (&work.kind, by) {
            (GitWorkKind::Track, _) | (_, None) => self.end_work(work.part()).await,
            (GitWorkKind::Switch { branch, before, to, is_new }, Some(by)) => {
                if self.current_branch().await?.as_ref() == Some(branch) {
                    let worked = Worked::of_head(self.head().await?, None);
                    return self.note_late(work, GitAction::Switched, &by, worked).await;
                }
                self.take_back(&by, before.as_deref(), to.as_deref()).await?;
                let made = format!("refs/heads/{branch}");
                if *is_new && self.commit_of(&made).await? == *to {
                    self.look(&["update-ref", "-d", &made], super::SHORT).await?;
                }
                self.end_work(work.part()).await
            }
            (GitWorkKind::Commit { before, email, at }, Some(by)) => {
                let commit = match self.commit_of("HEAD").await? {
                    Some(commit) => Some(self.commit_info(&commit).await?),
                    None => None,
                };
                let is_made = |commit: &GitCommitInfo| {
                    commit.parents.first() == before.as_ref()
                        && commit.committer.at == at * 1_000
                        && commit.committer.email == *email
                };
                match commit.filter(is_made) {
                    Some(commit) => {
                        let branch = self.current_branch().await?;
                        let worked = Worked::of_commit(commit, branch, None);
                        self.note_late(work, GitAction::Committed, &by, worked).await
                    }
                    None => self.end_work(work.part()).await,
                }
            }
            (GitWorkKind::Merge { before, other }, Some(by)) => {
                self.settle_merge(work, &by, before.as_deref(), other).await
            }
        }
    }

    async fn settle_merge(
        &self,
        work: &GitWork,
        by: &User,
        before: Option<&str>,
        other: &str,
    ) -> Result<(), ApiError> {
        // Whoever began another one meanwhile ends it.
        let is_under_way = self.commit_of("MERGE_HEAD").await?.as_deref() == Some(other);
        let is_in = ["merge-base", "--is-ancestor", other, "HEAD"];
        if self.look(&is_in, super::SHORT).await?.code == 0 {
            if is_under_way {
                self.ask(&["merge", "--quit"]).await?;
            }
            let worked = Worked::of_head(self.head().await?, None);
            return self.note_late(work, GitAction::Pulled, by, worked).await;
        }
        if is_under_way {
            self.change(by, self.run(&["merge", "--abort"])).await?;
        } else if let Some(before) = before {
            let merged = ["merge-tree", "--write-tree", before, other];
            let ran = self.look(&merged, LISTS_BYTES_MAX).await?;
            // With conflicts there is more behind it.
            let text = String::from_utf8_lossy(&ran.output).into_owned();
            let tree = text.split(['\n', '\0']).next().filter(|tree| parse::is_hash(tree));
            self.take_back(by, Some(before), tree).await?;
        }
        self.end_work(work.part()).await
    }

    /// Notes what was done by somebody who could not: a repeat of theirs is answered with it.
    async fn note_late<T: Serialize>(
        &self,
        work: &GitWork,
        action: GitAction,
        by: &User,
        worked: Worked<T>,
    ) -> Result<(), ApiError> {
        let (place, project) = (self.place(), self.project);
        look_at_all(place, &Author::user(by.id.clone(), FileSource::Api)).await?;
        let command = note(&project.id, action, by, &worked, place.now())?;
        let context = WriteContext { idempotency: work.key.clone(), ..WriteContext::default() };
        let noted = record(&self.node.root, command, context).await;
        noted.map_err(|error| error.to_api())?;
        if let Err(error) = outbox::deliver(project, &self.node.root_access()).await {
            tracing::warn!(project.id = %project.id, %error, "what git did is told later");
        }
        Ok(())
    }

    /// Removes the locks that came while git worked. Whatever stands there by now, it is removed where commands run.
    async fn remove_locks(&self, work: &GitWork) -> Result<(), ApiError> {
        let mut left = self.locks().await?;
        left.retain(|lock| !work.locks.contains(lock) && part_of(lock) == work.part());
        for locks in left.chunks(LOCKS_AT_ONCE) {
            tracing::warn!(project.id = %self.project.id, ?locks, "locks that git left are removed");
            let arguments: Vec<&str> =
                ["-f", "--"].into_iter().chain(locks.iter().map(String::as_str)).collect();
            let run = Run { program: "rm", ..self.run(&arguments) };
            run.within(self.sandbox).await?.worked()?;
        }
        Ok(())
    }

    /// Has index and files go back to what is checked out, from where git was on its way to. What somebody changed
    /// besides stays: only what is as it was to become is changed.
    async fn take_back(
        &self,
        by: &User,
        old: Option<&str>,
        new: Option<&str>,
    ) -> Result<(), ApiError> {
        let (Some(old), Some(new)) = (old, new) else { return Ok(()) };
        let place = self.place();
        look_at_all(place, &Author::OUTSIDE).await?;
        let lists = async |arguments: &[&str]| {
            let ran = self.look(arguments, LISTS_BYTES_MAX).await?.worked()?;
            Ok::<_, ApiError>(parse::paths(&ran.output))
        };
        let gone = lists(&["diff-files", "--name-only", "--diff-filter=D", "-z"]).await?;
        let between = ["diff-tree", "-r", "--no-renames", "--name-only", "-z"];
        let mut changed = lists(&[&between[..], &[old, new]].concat()).await?;
        let removed = lists(&[&between[..], &["--diff-filter=D", old, new]].concat()).await?;
        // What the files would differ by if everything had been done: an index of its own says it.
        let index = self.places.scratch.join("iris-index");
        let beside = |arguments: &[&str]| {
            let mut run = Run { output_max: LISTS_BYTES_MAX, ..self.run(arguments) };
            run.env.push(("GIT_INDEX_FILE".to_owned(), index.display().to_string()));
            run
        };
        beside(&["read-tree", "--reset", new]).within(self.sandbox).await?.worked()?;
        // Its code says whether anything differs.
        beside(&["update-index", "-q", "--refresh"]).within(self.sandbox).await?;
        let differing = beside(&["diff-files", "--name-only", "-z"]).within(self.sandbox).await?;
        let differing = parse::paths(&differing.worked()?.output);
        let run = Run { program: "rm", ..self.run(&["-f", "--", &index.display().to_string()]) };
        run.within(self.sandbox).await?.worked()?;
        changed.retain(|path| {
            if removed.contains(path) { gone.contains(path) } else { !differing.contains(path) }
        });
        let mut input = Vec::new();
        for path in changed {
            input.extend(path);
            input.push(0);
        }
        let arguments = ["update-index", "--add", "--remove", "-z", "--stdin"];
        let run = Run { input, ..self.run(&arguments) };
        run.within(self.sandbox).await?.worked()?;
        self.ask(&["read-tree", "-m", "-u", new, old]).await?;
        look_at_all(place, &Author::user(by.id.clone(), FileSource::Api)).await.map(drop)
    }
}

/// Who holds a lock: what is known of the other side is written by one, everything else by another.
fn part_of(lock: &str) -> GitPart {
    let is_of_branches = lock.starts_with(".git/refs/remotes/")
        || lock.starts_with(".git/refs/tags/")
        || lock == ".git/packed-refs.lock";
    if is_of_branches { GitPart::Branches } else { GitPart::Files }
}
