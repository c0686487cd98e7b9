//! Project id to project registry: starts registries on demand, each on one of a few arbiters, and
//! closes those that nobody needs, the least recently used first. The node starts it.

mod quarantine;
mod unfinished;

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix::prelude::*;
use futures_util::future::join_all;
use iris_protocol::{ApiError, ErrorCode, ProjectId, ProjectType};
use iris_sandbox::Space;
use iris_tools::Places;
use serde_json::{Value, json};
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};
use tokio::time::{Instant, timeout};

use crate::project::{
    CloseIfIdle, CloseProject, CloseToReturn, Damage, FilesAt, FromRoot, NotOpened, OpenedProject,
    ProjectHandle,
};
use crate::root::RootAccess;
use crate::supervision::{Address, Supervise, Vitals};
use crate::{ResumePolicy, Services};
use quarantine::{LOOK_EVERY, Quarantine};
use unfinished::{Taken, Unfinished};

pub(crate) use unfinished::OpenUnfinished;

/// How many of the least recently used projects are asked to close when one more is wanted than may
/// be open.
const ASKED_FOR_ROOM: usize = 8;
/// How soon a caller may try again who found every open project in use, in milliseconds.
const NO_ROOM_RETRY_AFTER_MS: u64 = 1_000;

/// How long a project has to close before it is ended, and again before it is given up; and how long
/// whoever wants it back waits for that.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a project has to say whether it may close; one that cannot stays open.
const CLOSE_ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// What a caller who waits for a project gets.
type Opening = oneshot::Sender<Result<ProjectHandle, ApiError>>;

/// The right to a project's files. Whoever opens a project waits until its earlier life has let go.
type Lease = Mutex<()>;

/// The directory actor.
pub struct Directory {
    vitals: Arc<Vitals>,
    services: Arc<Services>,
    root: RootAccess,
    arbiters: Vec<ArbiterHandle>,
    /// Which arbiter the next project goes to.
    next_arbiter: usize,
    projects: HashMap<ProjectId, Entry>,
    /// Of the projects that are open or not closed to the end.
    leases: HashMap<ProjectId, Weak<Lease>>,
    /// Counts openings.
    openings: u64,
    /// Who wants a project that there is no room for yet.
    waiting_for_room: VecDeque<(ProjectId, Opening)>,
    unfinished: Unfinished,
    /// Those whose databases are damaged: they are not opened over and over.
    quarantine: Quarantine,
    is_closing: bool,
}

enum Entry {
    /// On its way; these wait for it. The number tells one opening from a later one.
    Opening(u64, Vec<Opening>),
    Open {
        handle: ProjectHandle,
        used_at: Instant,
    },
    /// Asked whether it may close; these want it.
    Closing {
        handle: ProjectHandle,
        waiting: Vec<Opening>,
    },
}

impl Entry {
    fn opened(handle: ProjectHandle) -> Self {
        Self::Open { handle, used_at: Instant::now() }
    }
}

impl Directory {
    pub(crate) fn new(
        vitals: Arc<Vitals>,
        services: Arc<Services>,
        root: RootAccess,
        arbiters: Vec<ArbiterHandle>,
    ) -> Self {
        Self {
            vitals,
            services,
            root,
            arbiters,
            next_arbiter: 0,
            projects: HashMap::new(),
            leases: HashMap::new(),
            openings: 0,
            waiting_for_room: VecDeque::new(),
            unfinished: Unfinished::default(),
            quarantine: Quarantine::default(),
            is_closing: false,
        }
    }
}

impl Actor for Directory {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Half the time, so that an idle project is closed at most half as late again.
        let idle = self.services.settings.project_idle;
        ctx.run_interval((idle / 2).max(Duration::from_millis(1)), Self::close_idle);
        if self.unfinished.wants_index() {
            self.read_index(ctx);
        }
        ctx.run_interval(LOOK_EVERY, Self::look_at_quarantine);
    }
}

crate::supervised!(Directory);

impl Supervise for Directory {
    /// Registries that run are kept: they know their own state, and their addresses are all that is
    /// known of them here. Who waited for one that was on its way is told to try again.
    fn rebuild(&mut self, _: &mut Context<Self>) -> Result<Self, String> {
        let fresh = Self::new(
            Arc::clone(&self.vitals),
            Arc::clone(&self.services),
            self.root.clone(),
            self.arbiters.clone(),
        );
        let mut projects = HashMap::new();
        for (id, entry) in std::mem::take(&mut self.projects) {
            match entry {
                Entry::Open { handle, .. } | Entry::Closing { handle, .. } => {
                    projects.insert(id, Entry::opened(handle));
                }
                Entry::Opening(..) => {}
            }
        }
        let leases = std::mem::take(&mut self.leases);
        let quarantine = std::mem::take(&mut self.quarantine);
        let unfinished = self.unfinished.rebuild();
        let (openings, is_closing) = (self.openings, self.is_closing);
        Ok(Self { projects, leases, openings, unfinished, quarantine, is_closing, ..fresh })
    }

    fn observe(&self) -> Value {
        let (mut open, mut opening, mut closing) = (0, 0, 0);
        for entry in self.projects.values() {
            match entry {
                Entry::Opening(..) => opening += 1,
                Entry::Open { .. } => open += 1,
                Entry::Closing { .. } => closing += 1,
            }
        }
        json!({
            "open": open,
            "opening": opening,
            "closing": closing,
            "openMax": self.services.settings.projects_open_max,
            "waitingForRoom": self.waiting_for_room.len(),
            "readsIndex": self.unfinished.wants_index(),
            "unfinishedToOpen": self.unfinished.to_open(),
            "unfinishedToLookAt": self.unfinished.to_look_at(),
            "leases": self.leases.len(),
            "quarantined": self.quarantine.observe(),
            "storage": storage(&self.services),
            "isClosing": self.is_closing,
        })
    }
}

fn storage(services: &Services) -> Value {
    let status = services.storage.status();
    json!({
        "isFull": status.is_full,
        "reserveBytes": status.reserve_bytes,
        "availableBytes": status.available_bytes,
    })
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
        if let Some(error) = self.quarantine.refusal(&id) {
            return reply(answer, Err(error));
        }
        let is_full = self.projects.len() >= self.services.settings.projects_open_max;
        match self.projects.get_mut(&id) {
            Some(Entry::Open { handle, used_at }) if handle.address.connected() => {
                *used_at = Instant::now();
                reply(answer, Ok(handle.clone()));
            }
            Some(Entry::Opening(_, waiting) | Entry::Closing { waiting, .. }) => {
                waiting.push(answer);
            }
            None if is_full => {
                self.waiting_for_room.push_back((id, answer));
                self.make_room(ctx);
            }
            Some(Entry::Open { .. }) | None => self.open(id, vec![answer], ctx),
        }
    }
}

fn reply(answer: Opening, result: Result<ProjectHandle, ApiError>) {
    // Whoever went away does not need the project any more; it closes when it is idle.
    drop(answer.send(result));
}

/// Ask: the project, if it is open.
#[derive(Message)]
#[rtype(result = "Option<ProjectHandle>")]
pub(crate) struct FindProject(pub(crate) ProjectId);

impl Handler<FindProject> for Directory {
    type Result = Option<ProjectHandle>;

    fn handle(&mut self, FindProject(id): FindProject, _: &mut Context<Self>) -> Self::Result {
        match self.projects.get(&id)? {
            Entry::Open { handle, .. } | Entry::Closing { handle, .. } => Some(handle.clone()),
            Entry::Opening(..) => None,
        }
    }
}

impl Directory {
    fn open(&mut self, id: ProjectId, waiting: Vec<Opening>, ctx: &mut Context<Self>) {
        self.openings += 1;
        let number = self.openings;
        self.projects.insert(id.clone(), Entry::Opening(number, waiting));
        let index = self.next_arbiter;
        self.next_arbiter = (index + 1) % self.arbiters.len().max(1);
        let start = Start {
            id: id.clone(),
            services: Arc::clone(&self.services),
            root: self.root.clone(),
            arbiter: self.arbiters.get(index).cloned(),
            vitals: Arc::clone(&self.vitals),
            directory: Address::of(ctx, &self.vitals),
            lease: self.lease(&id),
        };
        let opened = start.run().into_actor(self);
        ctx.spawn(opened.map(move |opened, directory, ctx| {
            let Some(waiting) = directory.opening(&id, number) else {
                // It was to be closed meanwhile, and may be on its way again.
                if let Ok(handle) = opened {
                    handle.address.tell(CloseProject);
                }
                return;
            };
            let opened = match opened {
                Ok(handle) => {
                    directory.quarantine.release(&id);
                    directory.projects.insert(id, Entry::opened(handle.clone()));
                    Ok(handle)
                }
                Err(NotOpened { error, damage }) => {
                    if waiting.is_empty() {
                        tracing::error!(project.id = %id, %error, "unfinished work could not be taken up");
                    }
                    match damage {
                        Some(damage) => directory.keep_out(id, &damage, &error, ctx),
                        None if error.code == ErrorCode::NotFound => {}
                        None => directory.take_up_later(id, ctx),
                    }
                    Err(error)
                }
            };
            for answer in waiting {
                reply(answer, opened.clone());
            }
            drop(opened);
            // It may close again, or failed to open: news for those who wait for room.
            directory.make_room(ctx);
            directory.open_unfinished(ctx);
        }));
    }

    /// Takes out who waits for an opening, if it is still that one.
    fn opening(&mut self, id: &ProjectId, number: u64) -> Option<Vec<Opening>> {
        match self.projects.get(id) {
            Some(Entry::Opening(current, _)) if *current == number => {}
            Some(_) | None => return None,
        }
        match self.projects.remove(id)? {
            Entry::Opening(_, waiting) => Some(waiting),
            Entry::Open { .. } | Entry::Closing { .. } => None,
        }
    }

    /// The lease of a project: that of its earlier life as long as it is not closed to the end.
    fn lease(&mut self, id: &ProjectId) -> Arc<Lease> {
        if let Some(lease) = self.leases.get(id).and_then(Weak::upgrade) {
            return lease;
        }
        self.leases.retain(|_, lease| lease.strong_count() > 0);
        let lease = Arc::default();
        self.leases.insert(id.clone(), Arc::downgrade(&lease));
        lease
    }
}

// Closing what nobody needs.
impl Directory {
    fn close_idle(&mut self, ctx: &mut Context<Self>) {
        // Others have work to go on with: whoever has none makes room at once.
        let is_wanted = self.unfinished.to_open() > 0;
        let idle = if is_wanted { Duration::ZERO } else { self.services.settings.project_idle };
        let unused = self.unheld_ones().into_iter();
        let idle = unused.filter(|(used_at, _)| used_at.elapsed() >= idle);
        for (_, handle) in idle.collect::<Vec<_>>() {
            self.ask_to_close(handle, ctx);
        }
    }

    /// Asks the least recently used projects to close, unless some are asked already. Who waits for room
    /// is answered as soon as one did, or when none can.
    fn make_room(&mut self, ctx: &mut Context<Self>) {
        if self.waiting_for_room.is_empty() {
            return;
        }
        if !self.projects.values().any(|entry| matches!(entry, Entry::Closing { .. })) {
            let mut unheld = self.unheld_ones();
            unheld.sort_unstable_by_key(|(used_at, _)| *used_at);
            for (_, handle) in unheld.into_iter().take(ASKED_FOR_ROOM) {
                self.ask_to_close(handle, ctx);
            }
        }
        self.use_room(ctx);
    }

    /// The open projects in which no request acts, and when they were last asked for.
    fn unheld_ones(&self) -> Vec<(Instant, ProjectHandle)> {
        let unheld = self.projects.values().filter_map(|entry| match entry {
            Entry::Open { handle, used_at } if !handle.is_held() => {
                Some((*used_at, handle.clone()))
            }
            Entry::Open { .. } | Entry::Opening(..) | Entry::Closing { .. } => None,
        });
        unheld.collect()
    }

    /// Asks a project to close if nobody needs it. Who asks for it meanwhile waits.
    fn ask_to_close(&mut self, handle: ProjectHandle, ctx: &mut Context<Self>) {
        let id = handle.id.clone();
        let closing = Entry::Closing { handle: handle.clone(), waiting: Vec::new() };
        self.projects.insert(id.clone(), closing);
        let asked = timeout(CLOSE_ANSWER_TIMEOUT, handle.address.urge(CloseIfIdle));
        ctx.spawn(asked.into_actor(self).map(move |closed, directory, ctx| match closed {
            // Should it close later all the same, it says so when it leaves the tree.
            Ok(Ok(false)) | Err(_) => directory.stays_open(id, &handle, ctx),
            // One that panicked over the question starts again under the same address.
            Ok(Err(_)) if handle.address.connected() => directory.stays_open(id, &handle, ctx),
            Ok(Ok(true) | Err(_)) => directory.closed(id, ctx),
        }));
    }

    fn stays_open(&mut self, id: ProjectId, handle: &ProjectHandle, ctx: &mut Context<Self>) {
        let Some(Entry::Closing { waiting, .. }) = self.projects.remove(&id) else { return };
        self.projects.insert(id, Entry::opened(handle.clone()));
        for answer in waiting {
            reply(answer, Ok(handle.clone()));
        }
        self.use_room(ctx);
    }

    /// Forgets a project that is closed, or opens it again for those who came meanwhile.
    fn closed(&mut self, id: ProjectId, ctx: &mut Context<Self>) {
        let Some(Entry::Closing { handle, waiting }) = self.projects.remove(&id) else { return };
        if !waiting.is_empty() {
            self.open(id, waiting, ctx);
        } else if handle.had_work() {
            // Perhaps a queue is left whose session has ended.
            self.unfinished.forgive(&id);
            self.take_up_later(id, ctx);
        }
        self.use_room(ctx);
    }

    /// Opens what waits for room as far as there is some; refuses the rest once no project is left
    /// that may still close.
    fn use_room(&mut self, ctx: &mut Context<Self>) {
        while self.projects.len() < self.services.settings.projects_open_max
            && let Some((id, answer)) = self.waiting_for_room.pop_front()
        {
            match self.projects.get_mut(&id) {
                Some(Entry::Opening(_, waiting) | Entry::Closing { waiting, .. }) => {
                    waiting.push(answer);
                }
                Some(Entry::Open { handle, .. }) => reply(answer, Ok(handle.clone())),
                None => self.open(id, vec![answer], ctx),
            }
        }
        if self.projects.values().all(|entry| matches!(entry, Entry::Open { .. })) {
            for (_, answer) in self.waiting_for_room.drain(..) {
                let error = ApiError::new(ErrorCode::Overloaded, "too many projects are in use");
                reply(answer, Err(error.retry_after(NO_ROOM_RETRY_AFTER_MS)));
            }
        }
        self.open_unfinished(ctx);
    }
}

/// All that is needed to open one project away from the directory's own thread.
struct Start {
    id: ProjectId,
    services: Arc<Services>,
    root: RootAccess,
    arbiter: Option<ArbiterHandle>,
    vitals: Arc<Vitals>,
    directory: Address<Directory>,
    lease: Arc<Lease>,
}

impl Start {
    async fn run(self) -> Result<ProjectHandle, NotOpened> {
        let location = self.root.reader.project_location(&self.id).await;
        let location = location.map_err(|e| e.to_api())?;
        let location = location.ok_or_else(|| ApiError::not_found("project"))?;
        let settings = self.root.reader.project_settings(&self.id).await.map_err(|e| e.to_api())?;
        let resume = ResumePolicy::of_project(&settings).unwrap_or(self.services.settings.resume);
        let places = ProjectPlaces::new(&self.services.settings.data_dir, &self.id);
        let settings = &self.services.settings;
        let space = Space {
            free_bytes_min: settings.shares.disk_free_bytes_min,
            // What was there before, and is not ours, is not bounded.
            bytes_max: if location.path.is_none() { settings.quotas.file_bytes_max } else { 0 },
        };
        let files = location.path.map_or(places.files, PathBuf::from);
        let outbox = self.root.reader.outbox(&self.id).await.unwrap_or_else(|error| {
            tracing::error!(project.id = %self.id, %error, "events on their way could not be read");
            Vec::new()
        });
        let news = FromRoot { is_unfinished: location.is_unfinished, outbox, root: self.root };
        let lease = timeout(CLOSE_TIMEOUT, self.lease.lock_owned()).await;
        let lease: OwnedMutexGuard<()> = lease.map_err(|_| {
            let error = ApiError::new(ErrorCode::Overloaded, "the project is still closing");
            error.retry_after(NO_ROOM_RETRY_AFTER_MS)
        })?;
        let id = self.id.clone();
        let storage = self.services.storage.clone();
        let open = move || {
            let database = places.database;
            let files = match location.r#type {
                ProjectType::Local | ProjectType::Git => {
                    let (files, scratch) = (absolute(&files)?, absolute(&places.scratch)?);
                    FilesAt::Directory(Places::new(files, scratch, space))
                }
                ProjectType::Remote => FilesAt::Database { staging: files },
            };
            OpenedProject::open(id, &database, files, &storage, lease, resume)
        };
        let opened = tokio::task::spawn_blocking(open).await.map_err(|_| lost())??;
        let (started, handle) = oneshot::channel();
        let (services, vitals, directory) = (self.services, self.vitals, self.directory);
        let exited = Exited { id: self.id, damage: opened.damage() };
        let start = move || {
            let handle = opened.start(&services, news, &vitals, move || directory.tell(exited));
            // Nobody waits for it any more: the directory failed meanwhile and does not know it.
            if let Err(unknown) = started.send(handle) {
                unknown.address.tell(CloseProject);
            }
        };
        match self.arbiter {
            Some(arbiter) => drop(arbiter.spawn_fn(start)),
            None => start(),
        }
        Ok(handle.await.map_err(|_| lost())?)
    }
}

fn lost() -> ApiError {
    ApiError::new(ErrorCode::Internal, "the project could not be started")
}

/// Tell: a registry left the tree.
#[derive(Message)]
#[rtype(result = "()")]
struct Exited {
    id: ProjectId,
    damage: Damage,
}

impl Handler<Exited> for Directory {
    type Result = ();

    fn handle(&mut self, Exited { id, damage }: Exited, ctx: &mut Context<Self>) {
        if let Some(damage) = damage.get() {
            self.quarantine_open(id.clone(), damage, ctx);
        }
        if let Some(Entry::Open { handle, .. }) = self.projects.get(&id)
            && !handle.address.connected()
        {
            self.projects.remove(&id);
            self.take_up_later(id, ctx);
            self.use_room(ctx);
        }
    }
}

/// Ask: closes a project, where it is open, so that its files can be deleted.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CloseOne(pub(crate) ProjectId);

impl Handler<CloseOne> for Directory {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, CloseOne(id): CloseOne, ctx: &mut Context<Self>) -> Self::Result {
        let lease = self.lease(&id);
        self.quarantine.release(&id);
        let registry =
            self.projects.remove(&id).and_then(|entry| close(entry, ErrorCode::NotFound));
        self.use_room(ctx);
        Box::pin(closed(id, lease, registry))
    }
}

/// The right to the files of a project that is closed. Whoever opens it waits until this is dropped;
/// then its unfinished work goes on, whatever became of the files.
pub(crate) struct FilesLease {
    _lease: OwnedMutexGuard<()>,
    _taken: Taken,
}

/// Ask: closes a project, where it is open, so that its files can be replaced. Who hears it comes back.
#[derive(Message)]
#[rtype(result = "Result<FilesLease, ApiError>")]
pub(crate) struct TakeProject(pub(crate) ProjectId);

impl Handler<TakeProject> for Directory {
    type Result = ResponseFuture<Result<FilesLease, ApiError>>;

    fn handle(&mut self, TakeProject(id): TakeProject, ctx: &mut Context<Self>) -> Self::Result {
        let lease = self.lease(&id);
        self.quarantine.release(&id);
        let (handle, waiting) = match self.projects.remove(&id) {
            Some(Entry::Opening(_, waiting)) => (None, waiting),
            Some(Entry::Open { handle, .. }) => (Some(handle), Vec::new()),
            Some(Entry::Closing { handle, waiting }) => (Some(handle), waiting),
            None => (None, Vec::new()),
        };
        for answer in waiting {
            reply(answer, Err(is_replaced()));
        }
        let registry = handle.map(|handle| {
            handle.address.tell(CloseToReturn);
            Arc::clone(handle.address.vitals())
        });
        self.use_room(ctx);
        let is_taken = Taken { id: id.clone(), directory: Address::of(ctx, &self.vitals) };
        Box::pin(async move {
            let lease = taken(id, lease, registry).await.ok_or_else(is_replaced)?;
            Ok(FilesLease { _lease: lease, _taken: is_taken })
        })
    }
}

fn is_replaced() -> ApiError {
    let error = ApiError::new(ErrorCode::Overloaded, "the project is being put back to a backup");
    error.retry_after(NO_ROOM_RETRY_AFTER_MS)
}

/// Ask: closes every project and opens none any more.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CloseAll;

impl Handler<CloseAll> for Directory {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: CloseAll, _: &mut Context<Self>) -> Self::Result {
        self.is_closing = true;
        self.unfinished = Unfinished::default();
        for (_, answer) in self.waiting_for_room.drain(..) {
            reply(answer, Err(ApiError::from(ErrorCode::ShuttingDown)));
        }
        let mut registries: HashMap<ProjectId, Arc<Vitals>> = HashMap::new();
        for (id, entry) in self.projects.drain() {
            registries.extend(close(entry, ErrorCode::ShuttingDown).map(|registry| (id, registry)));
        }
        let leases = self.leases.iter().filter_map(|(id, lease)| {
            let registry = registries.remove(id);
            Some(closed(id.clone(), lease.upgrade()?, registry))
        });
        let all_closed = join_all(leases.collect::<Vec<_>>());
        Box::pin(async move { drop(all_closed.await) })
    }
}

/// Tells a project to close; whoever waits for it is refused. Answers its registry, if there is one.
fn close(entry: Entry, code: ErrorCode) -> Option<Arc<Vitals>> {
    let (handle, waiting) = match entry {
        Entry::Opening(_, waiting) => (None, waiting),
        Entry::Open { handle, .. } => (Some(handle), Vec::new()),
        Entry::Closing { handle, waiting } => (Some(handle), waiting),
    };
    for answer in waiting {
        reply(answer, Err(ApiError::from(code)));
    }
    handle.map(|handle| {
        handle.address.tell(CloseProject);
        Arc::clone(handle.address.vitals())
    })
}

/// Waits until a project is closed to the end: its lease is free then. A registry that does not close
/// in time is ended, and one that cannot even be ended is given up: the next start recovers it.
async fn closed(id: ProjectId, lease: Arc<Lease>, registry: Option<Arc<Vitals>>) {
    drop(taken(id, lease, registry).await);
}

/// The lease of a project that was told to close; `None` when it was given up.
async fn taken(
    id: ProjectId,
    lease: Arc<Lease>,
    registry: Option<Arc<Vitals>>,
) -> Option<OwnedMutexGuard<()>> {
    if let Ok(lease) = timeout(CLOSE_TIMEOUT, Arc::clone(&lease).lock_owned()).await {
        return Some(lease);
    }
    tracing::error!(project.id = %id, "the project does not close; it is ended");
    if let Some(registry) = registry {
        registry.stop();
    }
    let lease = timeout(CLOSE_TIMEOUT, lease.lock_owned()).await.ok();
    if lease.is_none() {
        tracing::error!(project.id = %id, "the project could not be closed");
    }
    lease
}

/// A path that means the same wherever somebody stands.
fn absolute(path: &Path) -> Result<PathBuf, ApiError> {
    std::path::absolute(path).map_err(|error| {
        tracing::error!(path = %path.display(), %error, "a path has no absolute form");
        ApiError::new(ErrorCode::Internal, "the project's directory has no path")
    })
}

/// Where a project's things are in the data directory.
pub(crate) struct ProjectPlaces {
    /// Holds the others; deleted with the project.
    pub(crate) directory: PathBuf,
    pub(crate) database: PathBuf,
    /// The files, where the project did not name a directory of its own.
    pub(crate) files: PathBuf,
    /// For temporary files of its commands.
    pub(crate) scratch: PathBuf,
}

impl ProjectPlaces {
    pub(crate) fn new(data_dir: &Path, id: &ProjectId) -> Self {
        let directory = data_dir.join("projects").join(id.as_str());
        let (database, files) = (directory.join("project.db"), directory.join("files"));
        let scratch = directory.join("scratch");
        Self { directory, database, files, scratch }
    }
}
