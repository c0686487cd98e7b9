//! Clones under way. They belong to the server, not to who asked for them: one that a crash cut off is begun anew at
//! the next start.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use iris_protocol::{ApiError, ErrorCode, FileSource, ProjectId, UserId};
use iris_store::WriteContext;
use iris_store::project::Author;
use iris_store::root::{EndClone, StoredGit};
use iris_store::{CrashPoint, crash_point};
use tokio::sync::{Mutex, Notify, OwnedMutexGuard, Semaphore, watch};

use super::command::Run;
use super::{Home, Repository, broken, text_of};
use crate::files::{look_at_all, take_turn};
use crate::supervision::detached;
use crate::{Node, NodeError, outbox, record};

/// Most clones that work at once; the others wait.
const AT_ONCE: usize = 4;

/// Why a clone ended that somebody ended.
pub(crate) const GIVEN_UP: &str = "it was given up";

/// The clones of a node, and whose turn it is with the other side of a project.
pub(crate) struct Clones {
    under_way: parking_lot::Mutex<HashMap<ProjectId, UnderWay>>,
    turns: parking_lot::Mutex<HashMap<ProjectId, Weak<Mutex<()>>>>,
    room: Semaphore,
}

#[derive(Clone)]
struct UnderWay {
    stop: Arc<Notify>,
    /// Closed when nothing of it works any more.
    ended: watch::Receiver<()>,
}

impl Default for Clones {
    fn default() -> Self {
        let room = Semaphore::new(AT_ONCE);
        Self {
            under_way: parking_lot::Mutex::default(),
            turns: parking_lot::Mutex::default(),
            room,
        }
    }
}

impl Clones {
    /// Waits until nobody else talks with the other side of the project.
    pub(super) async fn alone(&self, id: &ProjectId) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock();
            turns.retain(|_, turn| turn.strong_count() > 0);
            let known = turns.get(id).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let turn = Arc::new(Mutex::new(()));
                turns.insert(id.clone(), Arc::downgrade(&turn));
                turn
            })
        };
        turn.lock_owned().await
    }
}

impl Node {
    /// Begins the clones anew that did not end before the last stop or crash.
    ///
    /// # Errors
    /// When the root database cannot be read.
    pub async fn resume_clones(&self) -> Result<(), NodeError> {
        for id in self.root_reader.cloning().await? {
            tracing::info!(project.id = %id, "a clone that was cut off is begun anew");
            begin_clone(self, &id);
        }
        Ok(())
    }
}

/// Clones a project whose row says that it is being cloned. Returns at once.
pub(crate) fn begin_clone(node: &Node, id: &ProjectId) {
    let (ending, ended) = watch::channel(());
    let stop = Arc::new(Notify::new());
    let under_way = UnderWay { stop: Arc::clone(&stop), ended };
    // One that has just ended, and is to be tried again, may still be there.
    node.clones.under_way.lock().insert(id.clone(), under_way);
    let (node, id) = (node.clone(), id.clone());
    detached(async move {
        if node.guarded("clone", clone_and_tell(&node, &id, &stop)).await.is_err() {
            tracing::error!(project.id = %id, "a clone panicked: the next start begins it anew");
        }
        let mut under_way = node.clones.under_way.lock();
        if under_way.get(&id).is_some_and(|it| Arc::ptr_eq(&it.stop, &stop)) {
            under_way.remove(&id);
        }
        drop(under_way);
        drop(ending);
    });
}

/// Waits until nothing works with the other side of a project any more that is deleted, and keeps others from it.
pub(crate) async fn stop_all(node: &Node, id: &ProjectId) -> OwnedMutexGuard<()> {
    stop_clone(node, id).await;
    // Whoever talks with it sees that nobody is a member any more.
    node.clones.alone(id).await
}

/// Gives the clones up that somebody asked for who may not any more, in one project or in all.
pub(crate) async fn stop_clones_of(node: &Node, user_id: &UserId, project_id: Option<&ProjectId>) {
    let mut under_way: Vec<ProjectId> = node.clones.under_way.lock().keys().cloned().collect();
    under_way.retain(|id| project_id.is_none_or(|wanted| wanted == id));
    for id in under_way {
        match node.root_reader.git(&id).await {
            Ok(Some(git)) if git.by == *user_id => stop_clone(node, &id).await,
            Ok(_) => {}
            Err(error) => tracing::warn!(project.id = %id, %error, "a clone was not given up"),
        }
    }
}

/// Gives a clone up, and waits until nothing of it works any more.
pub(crate) async fn stop_clone(node: &Node, id: &ProjectId) {
    let under_way = node.clones.under_way.lock().get(id).cloned();
    let Some(UnderWay { stop, mut ended }) = under_way else { return };
    stop.notify_one();
    while ended.changed().await.is_ok() {}
}

async fn clone_and_tell(node: &Node, id: &ProjectId, stop: &Notify) {
    let cloned = tokio::select! {
        cloned = clone(node, id) => cloned,
        () = stop.notified() => Err(ApiError::new(ErrorCode::Cancelled, GIVEN_UP)),
    };
    // The next start begins it anew.
    if cloned.is_err() && node.is_draining() {
        return;
    }
    let error = cloned.err().map(|error| error.message);
    if let Some(error) = &error {
        tracing::info!(project.id = %id, error, "a project was not cloned");
        let home = Home::of(&node.services.settings.data_dir, id);
        drop(home.clear().await);
    }
    let at = node.services.clock.now_ms();
    let end = EndClone { project_id: id.clone(), error, at };
    if let Err(error) = record(&node.root, end, WriteContext::default()).await {
        // Deleted meanwhile; otherwise the next start begins it anew.
        return tracing::warn!(project.id = %id, %error, "the end of a clone is not noted");
    }
    let told = async {
        let project = node.project(id).await?;
        outbox::deliver(&project, &node.root_access()).await.map_err(|error| error.to_api())
    };
    if let Err(error) = told.await {
        tracing::warn!(project.id = %id, %error, "the end of a clone is told later");
    }
}

async fn clone(node: &Node, id: &ProjectId) -> Result<(), ApiError> {
    let _room = node.clones.room.acquire().await.map_err(broken)?;
    let found = node.root_reader.git(id).await.map_err(|error| error.to_api())?;
    let git = found.ok_or_else(|| ApiError::not_found("project"))?;
    // It may be the end of a server that left it, and that of an account or a membership before.
    check_there(node, id, &git.by).await?;
    let home = Home::of(&node.services.settings.data_dir, id);
    home.clear().await?;
    let project = node.project(id).await?;
    let repository = Repository::prepare(node, &project).await?;
    let _alone = node.clones.alone(id).await;
    repository.mirror(&git, &git.by).await?;
    crash_point(CrashPoint::CloneHalf);
    repository.check_out(&git).await
}

/// Refuses to work for somebody who may not any more: their account is closed, they have left the project, or it
/// is being deleted.
pub(super) async fn check_there(node: &Node, id: &ProjectId, by: &UserId) -> Result<(), ApiError> {
    match node.root_reader.role(by, id).await.map_err(|error| error.to_api())? {
        Some(_) => Ok(()),
        None => Err(ApiError::new(ErrorCode::NotFound, GIVEN_UP)),
    }
}

impl Repository<'_> {
    /// Makes the repository among the files, and the files.
    async fn check_out(&self, git: &StoredGit) -> Result<(), ApiError> {
        self.home.write_template(&git.source.url).await?;
        let branch = match &git.source.branch {
            Some(branch) => Some(branch.clone()),
            None => self.mirrored_branch().await?,
        };
        let _turn = take_turn(self.place()).await?;
        let template = self.home.template();
        let template = format!("--template={}", text_of(&template)?);
        let first = format!("--initial-branch={}", branch.as_deref().unwrap_or("main"));
        self.ask(&["init", "--quiet", &template, &first]).await?;
        self.track().await?;
        if let Some(branch) = branch {
            let other = self.commit_of(&format!("refs/remotes/origin/{branch}")).await?;
            // One without any commit has no branch either.
            if let Some(commit) = other {
                self.check_tree(&commit).await?;
                let arguments = [
                    "switch",
                    "--quiet",
                    "--no-guess",
                    "--no-track",
                    "--force-create",
                    &branch,
                    &commit,
                ];
                let time = self.node.services.settings.git.time;
                let run = Run { time, ..self.run(&arguments) };
                run.within(self.sandbox).await?.worked()?;
            }
        }
        let author = Author::user(git.by.clone(), FileSource::Api);
        look_at_all(self.place(), Some(&author)).await.map(drop)
    }
}
