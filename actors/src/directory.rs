//! Project id to project registry: starts registries on demand, each on one of a few arbiters, and
//! closes idle ones. The node starts it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use iris_protocol::{ApiError, ErrorCode, ProjectId};
use iris_store::root::RootReader;
use tokio::sync::oneshot;

use crate::Services;
use crate::project::{CloseIfIdle, CloseProject, OpenedProject, ProjectHandle};
use crate::supervision::ActorPath;

/// How often projects are asked whether anybody needs them.
const LOOK_FOR_IDLE: Duration = Duration::from_mins(1);
/// Most projects that may be open at once.
const PROJECTS_OPEN_MAX: usize = 512;

/// What a caller who waits for a project gets.
type Opening = oneshot::Sender<Result<ProjectHandle, ApiError>>;

/// The directory actor.
pub struct Directory {
    path: ActorPath,
    services: Arc<Services>,
    root: RootReader,
    arbiters: Vec<ArbiterHandle>,
    /// Which arbiter the next project goes to.
    next_arbiter: usize,
    projects: HashMap<ProjectId, Entry>,
    is_closing: bool,
}

enum Entry {
    /// On its way; these wait for it.
    Opening(Vec<Opening>),
    Open {
        handle: ProjectHandle,
        /// Whether somebody asked for it since the last look for idleness.
        was_used: bool,
    },
    /// On its way out; these want it back.
    Closing { handle: ProjectHandle, waiting: Vec<Opening> },
}

impl Entry {
    fn opened(handle: ProjectHandle) -> Self {
        Self::Open { handle, was_used: true }
    }
}

impl Directory {
    pub(crate) fn new(
        path: ActorPath,
        services: Arc<Services>,
        root: RootReader,
        arbiters: Vec<ArbiterHandle>,
    ) -> Self {
        let projects = HashMap::new();
        Self { path, services, root, arbiters, next_arbiter: 0, projects, is_closing: false }
    }
}

impl Actor for Directory {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(LOOK_FOR_IDLE, Self::look_for_idle);
    }
}

impl Supervised for Directory {
    /// Registries that run are kept: their addresses are valid and they know their own state. Those
    /// that were on their way in are forgotten together with who waited for them, and end by themselves.
    fn restarting(&mut self, _: &mut Context<Self>) {
        for (id, entry) in std::mem::take(&mut self.projects) {
            match entry {
                Entry::Open { handle, .. } | Entry::Closing { handle, .. } => {
                    self.projects.insert(id, Entry::opened(handle));
                }
                Entry::Opening(_) => {}
            }
        }
    }
}

/// Ask: opens a project, or answers the one that is open.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct OpenProject {
    pub(crate) id: ProjectId,
    pub(crate) answer: Opening,
}

impl Handler<OpenProject> for Directory {
    type Result = ();

    fn handle(&mut self, open: OpenProject, ctx: &mut Context<Self>) {
        let OpenProject { id, answer } = open;
        if self.is_closing {
            return reply(answer, Err(ApiError::from(ErrorCode::ShuttingDown)));
        }
        let is_full = self.projects.len() >= PROJECTS_OPEN_MAX;
        match self.projects.get_mut(&id) {
            Some(Entry::Open { handle, was_used }) if handle.address.connected() => {
                *was_used = true;
                reply(answer, Ok(handle.clone()));
            }
            Some(Entry::Opening(waiting) | Entry::Closing { waiting, .. }) => waiting.push(answer),
            None if is_full => {
                let error = ApiError::new(ErrorCode::Overloaded, "too many projects are open");
                reply(answer, Err(error.retry_after(1_000)));
                self.look_for_idle(ctx);
            }
            Some(Entry::Open { .. }) | None => self.open(id, vec![answer], ctx),
        }
    }
}

fn reply(answer: Opening, result: Result<ProjectHandle, ApiError>) {
    // Whoever went away does not need the project any more; it closes when it is idle.
    drop(answer.send(result));
}

impl Directory {
    fn open(&mut self, id: ProjectId, waiting: Vec<Opening>, ctx: &mut Context<Self>) {
        self.projects.insert(id.clone(), Entry::Opening(waiting));
        let index = self.next_arbiter;
        self.next_arbiter = (index + 1) % self.arbiters.len().max(1);
        let arbiter = self.arbiters.get(index).cloned();
        let start = Start {
            id: id.clone(),
            services: Arc::clone(&self.services),
            root: self.root.clone(),
            arbiter,
            path: self.path.clone(),
            directory: ctx.address(),
        };
        let opened = start.run().into_actor(self);
        ctx.spawn(opened.map(move |opened, directory, _| {
            let Some(Entry::Opening(waiting)) = directory.projects.remove(&id) else { return };
            if let Ok(handle) = &opened {
                directory.projects.insert(id, Entry::opened(handle.clone()));
            }
            for answer in waiting {
                reply(answer, opened.clone());
            }
        }));
    }

    /// Asks every project that was not used lately to close if nobody needs it. Who asks for one
    /// meanwhile waits.
    fn look_for_idle(&mut self, ctx: &mut Context<Self>) {
        let unused = self.projects.iter_mut().filter_map(|(id, entry)| match entry {
            Entry::Open { handle, was_used } => {
                (!std::mem::take(was_used)).then(|| (id.clone(), handle.clone()))
            }
            Entry::Opening(_) | Entry::Closing { .. } => None,
        });
        for (id, handle) in unused.collect::<Vec<_>>() {
            let closing = Entry::Closing { handle: handle.clone(), waiting: Vec::new() };
            self.projects.insert(id.clone(), closing);
            let asked = handle.address.send(CloseIfIdle).into_actor(self);
            ctx.spawn(asked.map(move |closed, directory, ctx| match closed {
                Ok(false) => directory.stays_open(id, &handle),
                // One that panicked over the question starts again under the same address.
                Err(_) if handle.address.connected() => directory.stays_open(id, &handle),
                Ok(true) | Err(_) => directory.closed(id, ctx),
            }));
        }
    }

    fn stays_open(&mut self, id: ProjectId, handle: &ProjectHandle) {
        let Some(Entry::Closing { waiting, .. }) = self.projects.remove(&id) else { return };
        self.projects.insert(id, Entry::opened(handle.clone()));
        for answer in waiting {
            reply(answer, Ok(handle.clone()));
        }
    }

    /// Forgets a project that is closed, or opens it again for those who came meanwhile.
    fn closed(&mut self, id: ProjectId, ctx: &mut Context<Self>) {
        let Some(Entry::Closing { waiting, .. }) = self.projects.remove(&id) else { return };
        if !waiting.is_empty() {
            self.open(id, waiting, ctx);
        }
    }
}

/// All that is needed to open one project away from the directory's own thread.
struct Start {
    id: ProjectId,
    services: Arc<Services>,
    root: RootReader,
    arbiter: Option<ArbiterHandle>,
    path: ActorPath,
    directory: Addr<Directory>,
}

impl Start {
    async fn run(self) -> Result<ProjectHandle, ApiError> {
        let location = self.root.project_location(&self.id).await;
        let location = location.map_err(|e| e.to_api())?;
        let location = location.ok_or_else(|| ApiError::not_found("project"))?;
        let places = ProjectPlaces::new(&self.services.settings.data_dir, &self.id);
        let files = location.path.map_or(places.files, PathBuf::from);
        let id = self.id.clone();
        let open = move || OpenedProject::open(id, &places.database, &files);
        let opened = tokio::task::spawn_blocking(open).await.map_err(|_| lost())??;
        let (started, handle) = oneshot::channel();
        let (services, path, directory) = (self.services, self.path, self.directory);
        let exited = Exited(self.id);
        let start = move || {
            let handle = opened.start(&services, &path, move || directory.do_send(exited));
            drop(started.send(handle));
        };
        match self.arbiter {
            Some(arbiter) => drop(arbiter.spawn_fn(start)),
            None => start(),
        }
        handle.await.map_err(|_| lost())
    }
}

fn lost() -> ApiError {
    ApiError::new(ErrorCode::Internal, "the project could not be started")
}

/// Tell: a registry left the tree.
#[derive(Message)]
#[rtype(result = "()")]
struct Exited(ProjectId);

impl Handler<Exited> for Directory {
    type Result = ();

    fn handle(&mut self, Exited(id): Exited, _: &mut Context<Self>) {
        if let Some(Entry::Open { handle, .. }) = self.projects.get(&id)
            && !handle.address.connected()
        {
            self.projects.remove(&id);
        }
    }
}

/// Ask: closes a project, where it is open, so that its files can be deleted.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CloseOne(pub(crate) ProjectId);

impl Handler<CloseOne> for Directory {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, CloseOne(id): CloseOne, _: &mut Context<Self>) -> Self::Result {
        let open = self.projects.remove(&id);
        Box::pin(async move {
            if let Some(Entry::Open { handle, .. }) = open {
                close(handle).await;
            }
        })
    }
}

/// Ask: closes every project and opens none any more.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CloseAll;

impl Handler<CloseAll> for Directory {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: CloseAll, _: &mut Context<Self>) -> Self::Result {
        self.is_closing = true;
        let open: Vec<Entry> = self.projects.drain().map(|(_, entry)| entry).collect();
        Box::pin(async move {
            for entry in open {
                match entry {
                    Entry::Open { handle, .. } => close(handle).await,
                    Entry::Opening(waiting) | Entry::Closing { waiting, .. } => {
                        for answer in waiting {
                            reply(answer, Err(ApiError::from(ErrorCode::ShuttingDown)));
                        }
                    }
                }
            }
        })
    }
}

async fn close(handle: ProjectHandle) {
    if let Err(error) = handle.address.send(CloseProject).await {
        tracing::warn!(project.id = %handle.id, %error, "a project was gone before it closed");
    }
}

/// Where a project's things are in the data directory.
pub(crate) struct ProjectPlaces {
    /// Holds the others; deleted with the project.
    pub(crate) directory: PathBuf,
    pub(crate) database: PathBuf,
    /// The files, where the project did not name a directory of its own.
    pub(crate) files: PathBuf,
}

impl ProjectPlaces {
    pub(crate) fn new(data_dir: &Path, id: &ProjectId) -> Self {
        let directory = data_dir.join("projects").join(id.as_str());
        let (database, files) = (directory.join("project.db"), directory.join("files"));
        Self { directory, database, files }
    }
}
