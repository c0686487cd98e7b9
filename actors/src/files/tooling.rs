//! What tools change: their paths are looked at before and after a call, and all files around a command. Of files
//! in the database a call changes a draft, which is recorded as a whole when it is done.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use iris_agent::permissions::{Access, Target};
use iris_protocol::LockScope;
use iris_store::WriteContext;
use iris_store::project::{Author, FoundContent, FoundFile};
use iris_workspace::{Drafted, Workspace};

use super::guarding::wait_for_locks;
use super::restoring::snapshot_before;
use super::{Place, Turn, look_at, look_at_all, take_turn, tell_difference};
use crate::Services;
use crate::project::ProjectHandle;

/// The files that a call may change, from the look before it to the one after it. When the call is given up
/// in between, the look after it happens all the same; of a draft nothing is left, unless it is being recorded.
pub(crate) struct ToolFiles {
    /// What the call works with.
    workspace: Workspace,
    open: Option<Open>,
}

struct Open {
    project: ProjectHandle,
    services: Arc<Services>,
    author: Author,
    reach: Reach,
}

enum Reach {
    /// These paths; nobody else changes files meanwhile.
    Paths(Vec<String>, Turn),
    /// All of them, by a command that others need not wait for.
    All,
}

impl ToolFiles {
    /// Looks at what a call may change before it does. Waits a while for locks of others on the paths that it
    /// names. Fails with what the model reads.
    pub(crate) async fn begin(
        project: &ProjectHandle,
        services: &Arc<Services>,
        author: Author,
        accesses: &[Access],
        runs_code: bool,
    ) -> Result<Self, String> {
        let place = Place { project, services };
        let paths = changed_paths(place, accesses).await?;
        if paths.is_empty() && !runs_code {
            return Ok(Self { workspace: project.workspace.clone(), open: None });
        }
        let failed = |error: iris_protocol::ApiError| {
            format!("the files could not be looked at: {}", error.message)
        };
        let targets: Vec<_> = paths.iter().map(|path| (path.clone(), LockScope::File)).collect();
        let turn = loop {
            if let Some(user) = &author.by
                && let Some(lock) = wait_for_locks(place, &targets, user).await.map_err(failed)?
            {
                let (path, owner) = (&lock.path, name_of(project, &lock.owner_id).await);
                return Err(format!("nothing was changed: `{path}` is locked by {owner}"));
            }
            let turn = take_turn(place).await.map_err(failed)?;
            // Somebody may have locked it while others had their turn.
            let Some(user) = &author.by else { break turn };
            let lock = super::guarding::lock_of_other(place, &targets, user).await;
            if lock.map_err(failed)?.is_none() {
                break turn;
            }
        };
        snapshot_before(place, &author).await.map_err(failed)?;
        let reach = if runs_code {
            look_at_all(place, &Author::OUTSIDE).await.map_err(failed)?;
            project.kept.files.commands.fetch_add(1, Ordering::AcqRel);
            Reach::All
        } else {
            look_at(place, &paths, &Author::OUTSIDE).await.map_err(failed)?;
            Reach::Paths(paths, turn)
        };
        let (project, services) = (project.clone(), Arc::clone(services));
        let workspace = project.workspace.draft();
        Ok(Self { workspace, open: Some(Open { project, services, author, reach }) })
    }

    /// The files as the call is to see and change them.
    pub(crate) fn workspace(&self) -> &Workspace {
        &self.workspace
    }

    /// Looks at what the call changed, or records its draft if it is done. Where that is not possible nothing
    /// was changed, and the call fails with what the model reads.
    pub(crate) async fn end<T>(mut self, ended: Result<T, String>) -> Result<T, String> {
        let Some(open) = self.open.take() else { return ended };
        if !self.workspace.is_stored() {
            open.close().await;
            return ended;
        }
        let done = ended?;
        let drafted = self.workspace.drafted();
        if !drafted.is_empty() {
            // What is on its way is committed even if the call is given up: nobody has the turn before it is.
            let recorded = tokio::spawn(open.record(drafted)).await;
            recorded.map_err(|_| "whether the files were recorded is not known".to_owned())??;
        }
        Ok(done)
    }
}

impl Drop for ToolFiles {
    fn drop(&mut self) {
        if let Some(open) = self.open.take()
            && !self.workspace.is_stored()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(open.close());
        }
    }
}

impl Open {
    /// Records a draft, all of it or nothing.
    async fn record(self, drafted: Vec<Drafted>) -> Result<(), String> {
        let place = Place { project: &self.project, services: &self.services };
        let found = drafted.into_iter().map(found).collect();
        let recorded =
            place.commit(place.change(found, self.author.clone()), WriteContext::default());
        let recorded = recorded.await.map_err(|error| {
            format!("nothing was changed: the files could not be recorded: {}", error.message)
        })?;
        if recorded.files.count > 0 {
            tell_difference(place, &self.author).await;
        }
        Ok(())
    }

    async fn close(self) {
        let Self { project, services, author, reach } = self;
        let place = Place { project: &project, services: &services };
        let changed = match reach {
            Reach::Paths(paths, turn) => {
                let looked = look_at(place, &paths, &author).await.map(|recorded| recorded.count);
                drop(turn);
                looked
            }
            Reach::All => {
                let turn = take_turn(place).await;
                let looked = look_at_all(place, &author).await.map(|looked| looked.count);
                project.kept.files.command_ended();
                drop(turn);
                looked
            }
        };
        match changed {
            Ok(0) => {}
            Ok(_) => tell_difference(place, &author).await,
            // The next look finds it, as a change from outside.
            Err(error) => tracing::warn!(%error, "what a tool changed could not be recorded"),
        }
    }
}

/// A path of a draft as it is recorded.
fn found(Drafted { path, file, bytes }: Drafted) -> FoundFile {
    let content = file.map(|file| FoundContent {
        size: file.size,
        hash: file.hash,
        bytes,
        mode: file.mode.unwrap_or(0o644),
        facts: None,
    });
    FoundFile { path, content, from: None, is_written: false }
}

/// The paths that a call changes, where links lead to.
async fn changed_paths(place: Place<'_>, accesses: &[Access]) -> Result<Vec<String>, String> {
    let edited = accesses.iter().filter(|access| access.is("edit"));
    let named: Vec<String> = edited
        .filter_map(|access| match &access.target {
            Target::Path(path) => Some(path.clone()),
            Target::Outside(_) | Target::Text(_) | Target::Opaque(_) => None,
        })
        .collect();
    if named.is_empty() {
        return Ok(named);
    }
    let real = place.blocking(move |workspace| {
        Ok(named
            .into_iter()
            // The tool itself says what is wrong with a path that leads nowhere.
            .filter_map(|path| workspace.real_path(&path).ok())
            .filter(|path| path != ".")
            .collect())
    });
    real.await.map_err(|error| error.message)
}

/// What the model reads of who holds it up.
async fn name_of(project: &ProjectHandle, user: &iris_protocol::UserId) -> String {
    match project.root.user(user).await {
        Ok(Some(user)) => format!("`{}`", user.username),
        Ok(None) | Err(_) => "somebody else".to_owned(),
    }
}
