//! What git is about to change is written down before it begins, and noted when it is done. What a crash or the end
//! of its time cut off is found by that: it is finished, or taken back, and the locks that git left go.

use std::future::Future;

use iris_protocol::{
    ApiError, Event, FileSource, GitAction, GitCommitInfo, GitCommitPayload, GitHead, ProjectId,
    User,
};
use iris_store::project::Author;
use iris_store::root::{
    BeginGitWork, EndGitWork, GitPart, GitWork, GitWorkKind, NoteGit, TryGitWork,
};
use iris_store::{IdempotencyKey, WriteContext};
use serde::Serialize;
use tokio::sync::OwnedMutexGuard;

use super::command::Run;
use super::home::{ENTRIES_MAX, locks};
use super::{Repository, broken, conflict, parse};
use crate::files::{Turn, look_at_all, take_turn};
use crate::supervision::detached;
use crate::{Node, NodeError, outbox, record};

/// Most bytes of the lists of what differs between two commits.
const LISTS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Locks that are removed at a time.
const LOCKS_AT_ONCE: usize = 100;
/// How often it is tried to settle what was cut off, where the server itself cannot.
const TRIES_MAX: u64 = 5;
/// Most locks of others beside which git begins.
const LOCKS_MAX: usize = 1_000;

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
    /// Nobody else works on the same before it is noted: they would take it for what a crash left.
    _turn: Option<Turn>,
    _alone: Option<OwnedMutexGuard<()>>,
}

impl<T> Worked<T> {
    pub(super) fn new(answer: T) -> Self {
        Self { answer, branch: None, commit: None, _turn: None, _alone: None }
    }

    /// Keeps others from the other side until it is noted.
    pub(super) fn alone(self, alone: OwnedMutexGuard<()>) -> Self {
        Self { _alone: Some(alone), ..self }
    }
}

impl Worked<GitHead> {
    pub(super) fn of_head(head: GitHead, turn: Option<Turn>) -> Self {
        let (branch, commit) = (head.branch.clone(), head.commit.clone());
        Self { branch, commit, _turn: turn, ..Self::new(head) }
    }
}

impl Worked<GitCommitPayload> {
    pub(super) fn of_commit(
        commit: GitCommitInfo,
        branch: Option<String>,
        turn: Option<Turn>,
    ) -> Self {
        let id = Some(commit.id.clone());
        Self { branch, commit: id, _turn: turn, ..Self::new(GitCommitPayload { commit }) }
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
                    let settled = node.guarded("git", Box::pin(settle_project(&node, &id))).await;
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
    // Whatever became of the repository meanwhile.
    let repository = Repository::prepare(node, &project).await?;
    repository.settle(&[GitPart::Branches, GitPart::Files]).await
}

impl Repository<'_> {
    /// Does what changes the repository, written down for who finds it half done. The caller has the turn of its
    /// part, from [`Self::turn`] or [`Self::alone`]. What worked has to be noted, or ended.
    pub(super) async fn working<T>(
        &self,
        doing: &Doing,
        kind: GitWorkKind,
        work: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        self.check_undone(doing).await?;
        let mut work_of = GitWork {
            project_id: self.project.id.clone(),
            kind,
            locks: Vec::new(),
            key: doing.key.clone(),
            by: doing.by.id.clone(),
            at: self.place().now(),
        };
        let part = work_of.part();
        work_of.locks = self.locks(part).await?;
        if work_of.locks.len() > LOCKS_MAX {
            let message = format!("the repository has more than {LOCKS_MAX} locks of others");
            return Err(conflict("git_busy", message));
        }
        let begun = record(&self.node.root, BeginGitWork(work_of), WriteContext::default()).await;
        begun.map_err(|error| error.to_api())?;
        let worked = work.await;
        match &worked {
            // Git may have been cut off. Later a lock of somebody else could be taken for one that it left.
            Err(error) if is_cut_off(error) => {
                if let Err(error) = self.settle_part(part).await {
                    let id = &self.project.id;
                    tracing::warn!(project.id = %id, %error, "what git left is looked at later");
                }
            }
            Err(_) => self.end_work(part).await?,
            Ok(_) => {}
        }
        worked
    }

    /// Refuses what was done under the same key while this one waited for its turn: the caller is answered with
    /// that.
    async fn check_undone(&self, doing: &Doing) -> Result<(), ApiError> {
        let Some(key) = doing.key.clone() else { return Ok(()) };
        let first = self.node.root_reader.recall::<NoteGit>(key).await;
        match first.map_err(|error| error.to_api())? {
            Some(_) => Err(conflict("git_busy", "this was done meanwhile: ask again")),
            None => Ok(()),
        }
    }

    /// Forgets what git was about to do.
    pub(super) async fn end_work(&self, part: GitPart) -> Result<(), ApiError> {
        let end = EndGitWork { project_id: self.project.id.clone(), part };
        let ended = record(&self.node.root, end, WriteContext::default()).await;
        ended.map(drop).map_err(|error| error.to_api())
    }

    /// The locks in a part of the repository.
    async fn locks(&self, part: GitPart) -> Result<Vec<String>, ApiError> {
        let files = self.places.project.clone();
        let found = tokio::task::spawn_blocking(move || locks(&files)).await.map_err(broken)?;
        let mut locks = found.ok_or_else(|| {
            let message = format!(
                "more than {ENTRIES_MAX} files stand where git has its locks: `git pack-refs --all` helps"
            );
            conflict("git_failed", message)
        })?;
        locks.retain(|lock| part_of(lock) == part);
        Ok(locks)
    }

    /// Finishes or takes back what was cut off in these parts of the repository.
    ///
    /// # Errors
    /// `CONFLICT` with reason `git_busy` while a command works among the files that may be git.
    pub(crate) async fn settle(&self, parts: &[GitPart]) -> Result<(), ApiError> {
        for work in self.works().await? {
            let part = work.part();
            // Whoever has the turn works on it, and ends it.
            match part {
                _ if !parts.contains(&part) => {}
                GitPart::Branches => drop(self.alone().await?),
                GitPart::Files => drop(self.turn().await?),
            }
        }
        Ok(())
    }

    /// Waits for the turn to change the files. Nothing is left then that was cut off among them.
    pub(super) async fn turn(&self) -> Result<Turn, ApiError> {
        let turn = take_turn(self.place()).await?;
        self.settle_part(GitPart::Files).await?;
        Ok(turn)
    }

    /// Waits until nobody else talks with the other side. Nothing is left then that was cut off of that.
    pub(super) async fn alone(&self) -> Result<OwnedMutexGuard<()>, ApiError> {
        let alone = self.node.clones.alone(&self.project.id).await;
        self.settle_part(GitPart::Branches).await?;
        Ok(alone)
    }

    /// Finishes or takes back what was cut off in a part, whose turn the caller has. What cannot be taken back, or
    /// could not be several times, stays as it is, and holds nobody up.
    async fn settle_part(&self, part: GitPart) -> Result<(), ApiError> {
        let works = self.works().await?;
        let Some(work) = works.into_iter().find(|work| work.part() == part) else { return Ok(()) };
        // Commands begin in the turn to change the files, and none is to do so now.
        let _turn = match part {
            GitPart::Branches => Some(take_turn(self.place()).await?),
            GitPart::Files => None,
        };
        if self.project.kept.files.has_commands() {
            let message = "a command works among the files, where git was cut off: try again";
            return Err(conflict("git_busy", message));
        }
        let id = &self.project.id;
        let count = TryGitWork { project_id: id.clone(), part };
        let counted = record(&self.node.root, count, WriteContext::default()).await;
        let tries = counted.map_err(|error| error.to_api())?.output;
        tracing::warn!(project.id = %id, ?part, tries, "git was cut off among the files");
        let settled = if tries > TRIES_MAX {
            Err(conflict("git_failed", "the server ended each time that it was tried"))
        } else {
            self.settle_one(&work).await
        };
        match settled {
            Err(error) if tries >= TRIES_MAX || !is_cut_off(&error) => {
                tracing::warn!(project.id = %id, ?part, %error, "what git left stays as it is");
                self.end_work(part).await
            }
            settled => settled,
        }
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
            (GitWorkKind::Switch { branch, from, before, to, is_new }, Some(by)) => {
                let head = self.head().await?;
                if head.branch.as_ref() == Some(branch) {
                    let worked = Worked::of_head(head, None);
                    return self.note_late(work, GitAction::Switched, &by, worked).await;
                }
                // Whoever went elsewhere meanwhile did so with what was there.
                if head.branch == *from && head.commit == *before {
                    self.take_back(&by, before.as_deref(), to.as_deref()).await?;
                    let made = format!("refs/heads/{branch}");
                    if let (true, Some(to)) = (is_new, to)
                        && self.commit_of(&made).await?.as_ref() == Some(to)
                    {
                        self.ask(&["update-ref", "-d", &made, to]).await?;
                    }
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
        if self.commit_of("HEAD").await?.as_deref() != before {
            // Whoever went on from there did so with what was there.
        } else if is_under_way {
            self.change(by, self.run(&["merge", "--abort"])).await?;
        } else if before.is_none() {
            self.take_back(by, None, Some(other)).await?;
        } else {
            // As the merge did: what it writes of a conflict has these names.
            let merged = ["merge-tree", "--write-tree", "HEAD", other];
            let ran = self.look(&merged, LISTS_BYTES_MAX).await?;
            // With conflicts there is more behind it.
            let text = String::from_utf8_lossy(&ran.output);
            let tree = text.split(['\n', '\0']).next().filter(|tree| parse::is_hash(tree));
            self.take_back(by, before, tree).await?;
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
        look_at_all(place, Some(&Author::user(by.id.clone(), FileSource::Api))).await?;
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
        let mut left = self.locks(work.part()).await?;
        left.retain(|lock| !work.locks.contains(lock));
        for locks in left.chunks(LOCKS_AT_ONCE) {
            tracing::warn!(project.id = %self.project.id, ?locks, "locks that git left are removed");
            let locks: Vec<&str> = locks.iter().map(String::as_str).collect();
            self.rm(&[&["-f", "--"][..], &locks].concat()).await?;
        }
        Ok(())
    }

    async fn rm(&self, arguments: &[&str]) -> Result<(), ApiError> {
        let run = Run { program: "rm", ..self.run(arguments) };
        run.within(self.sandbox).await?.worked().map(drop)
    }

    /// Has index and files go back to what is checked out, from where git was on its way to. What somebody changed
    /// besides stays: only what is as it was to become is changed.
    async fn take_back(
        &self,
        by: &User,
        old: Option<&str>,
        new: Option<&str>,
    ) -> Result<(), ApiError> {
        let Some(new) = new.filter(|_| old != new) else { return Ok(()) };
        let nothing = self.nothing().await?;
        let old = old.unwrap_or(&nothing);
        let place = self.place();
        look_at_all(place, None).await?;
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
        let (index, lock) = (index.display().to_string(), index.with_extension("lock"));
        let lock = lock.display().to_string();
        // Commands may have made anything of them, and a crash may have left them.
        let removed_whole = ["-rf", "--", &index, &lock];
        self.rm(&removed_whole).await?;
        let beside = |arguments: &[&str]| {
            let mut run = Run { output_max: LISTS_BYTES_MAX, ..self.run(arguments) };
            run.env.push(("GIT_INDEX_FILE".to_owned(), index.clone()));
            run
        };
        beside(&["read-tree", "--reset", new]).within(self.sandbox).await?.worked()?;
        // Its code says whether anything differs.
        beside(&["update-index", "-q", "--refresh"]).within(self.sandbox).await?;
        let differing = beside(&["diff-files", "--name-only", "-z"]).within(self.sandbox).await?;
        let differing = parse::paths(&differing.worked()?.output);
        self.rm(&removed_whole).await?;
        changed.retain(|path| {
            if removed.contains(path) { gone.contains(path) } else { !differing.contains(path) }
        });
        // Before the others: a file may stand where a directory was.
        let (without, with): (Vec<_>, Vec<_>) =
            changed.into_iter().partition(|path| removed.contains(path));
        let how = [(&["--force-remove"][..], without), (&["--add", "--remove"], with)];
        for (options, paths) in how {
            let arguments = [&["update-index", "-z"], options, &["--stdin"]].concat();
            let input = paths.into_iter().flat_map(|path| [path, vec![0]].concat()).collect();
            let run = Run { input, ..self.run(&arguments) };
            run.within(self.sandbox).await?.worked()?;
        }
        self.ask(&["read-tree", "-m", "-u", new, old]).await?;
        look_at_all(place, Some(&Author::user(by.id.clone(), FileSource::Api))).await.map(drop)
    }
}

/// Whether git may have been ended in the middle, by something else than what it met: what it left has to be settled.
fn is_cut_off(error: &ApiError) -> bool {
    error.code.http_status() >= 500
}

/// Who holds a lock: what is known of the other side is written by one, everything else by another.
fn part_of(lock: &str) -> GitPart {
    let is_of_branches = lock.starts_with(".git/refs/remotes/")
        || lock.starts_with(".git/refs/tags/")
        || lock == ".git/packed-refs.lock";
    if is_of_branches { GitPart::Branches } else { GitPart::Files }
}
