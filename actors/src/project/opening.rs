//! Opening and closing a project: its database and files, checked, and the right to have them.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use actix::prelude::*;
use iris_agent::Clock;
use iris_protocol::{ApiError, ErrorCode, ProjectId};
use iris_store::project::{ProjectDatabase, RecoverRuns};
use iris_store::root::{ClearUnfinished, OutboxEntry};
use iris_store::{Storage, StoreError, WriteContext, WriteTx};
use iris_tools::Places;
use iris_workspace::{Workspace, WorkspaceError};
use tokio::runtime::Handle;
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;

use super::children::RunEnds;
use super::joining::UnderWay;
use super::kept::Kept;
use super::listeners::Listeners;
use super::locks::Locks;
use super::metering::Metering;
use super::presence::Presences;
use super::queued::QueuedRuns;
use super::ring::Ring;
use super::rooms::Rooms;
use super::upkeep::Upkeep;
use super::usage::{UsageNews, UsageTeller};
use super::{Committed, Damaged, MAILBOX_LIMIT, Project, ProjectHandle, Recovery, Registry};
use crate::files::ProjectFiles;
use crate::root::RootAccess;
use crate::supervision::{ChildSpec, Intensity, RestartPolicy, Vitals, WeakAddress, spawn};
use crate::{Pace, ResumePolicy, Services, record};

/// How long the root database is waited for when a project closes.
const TELL_TIMEOUT: Duration = Duration::from_secs(5);

/// The write handle of a project's database, together with the right to have it. However its owner
/// ends, what worked is recorded as interrupted, unless whoever opens it next resumes it by itself;
/// what is queued is committed and the file closed; only then may the project be opened again. Where
/// nothing is left unfinished, the mark of it goes before that, so that it cannot take away one of the
/// next life.
pub(super) struct OpenDatabase {
    /// There until it is closed.
    open: Option<(ProjectDatabase, OwnedMutexGuard<()>)>,
    clock: Arc<dyn Clock>,
    project_id: ProjectId,
    root: RootAccess,
    /// Whether the project may stand in the index of unfinished work.
    may_be_marked: bool,
    resume: ResumePolicy,
}

impl OpenDatabase {
    /// Whether runs that were interrupted go on by themselves.
    pub(super) fn resumes(&self) -> bool {
        match self.resume {
            ResumePolicy::Manual => false,
            ResumePolicy::Auto => true,
        }
    }

    pub(super) fn get(&self) -> Option<&ProjectDatabase> {
        self.open.as_ref().map(|(database, _)| database)
    }

    /// Moves it out of an actor that starts again.
    pub(super) fn take(&mut self) -> Self {
        Self {
            open: self.open.take(),
            clock: Arc::clone(&self.clock),
            project_id: self.project_id.clone(),
            root: self.root.clone(),
            may_be_marked: self.may_be_marked,
            resume: self.resume,
        }
    }

    /// A mark of unfinished work is about to be made.
    pub(super) fn expect_mark(&mut self) {
        self.may_be_marked = true;
    }
}

impl Drop for OpenDatabase {
    fn drop(&mut self) {
        let Some((database, lease)) = self.open.take() else { return };
        let (at, resumes) = (self.clock.now_ms(), self.resumes());
        let (root, project_id) = (self.root.address.clone(), self.project_id.clone());
        let may_be_marked = self.may_be_marked;
        let teller = UsageTeller {
            project_id: project_id.clone(),
            epoch: database.epoch().to_owned(),
            reader: database.reader(),
            root: self.root.clone(),
        };
        let close = move || {
            let cut_off = if resumes {
                database.writer().submit(LastWord, WriteContext::default()).wait().map(|_| 0)
            } else {
                let recover = RecoverRuns { resume: false, at };
                let recovered = database.writer().submit(recover, WriteContext::default()).wait();
                recovered.map(|recovered| recovered.output.interrupted)
            };
            let is_told = tell_usage(&database, &teller);
            let is_finished = may_be_marked && is_finished(&database, cut_off) && is_told;
            database.close();
            if is_finished {
                // On its way when this returns; nobody needs to know when it is done.
                drop(record(&root, ClearUnfinished { project_id }, WriteContext::default()));
            }
            drop(lease);
        };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(close)),
            Err(_) => close(),
        }
    }
}

/// Tells the root database what was used, so that it is not first told when the project is opened again.
/// Answers whether all is told; who is in the way of that keeps the mark of the project.
fn tell_usage(database: &ProjectDatabase, teller: &UsageTeller) -> bool {
    let Ok(runtime) = Handle::try_current() else { return false };
    let told = async { timeout(TELL_TIMEOUT, teller.tell()).await };
    database.damage().is_none() && matches!(runtime.block_on(told), Ok(Ok(())))
}

/// Whether nothing is open in a database that nobody writes any more, and nothing was cut off just now.
/// Where that cannot be told, something is: the next start finds out.
fn is_finished(database: &ProjectDatabase, cut_off: Result<u32, StoreError>) -> bool {
    cut_off.is_ok_and(|count| count == 0) && database.has_open_work().is_ok_and(|is_open| !is_open)
}

/// Does nothing: once it is committed, so is all that was submitted before it.
struct LastWord;

impl iris_store::Command for LastWord {
    type Output = ();

    fn run(self, _: &mut WriteTx<'_>) -> Result<(), StoreError> {
        Ok(())
    }
}

/// What the root database says of a project that is opened.
pub(crate) struct FromRoot {
    /// The root database.
    pub(crate) root: RootAccess,
    /// Whether the project stands among those with unfinished work.
    pub(crate) is_unfinished: bool,
    /// The oldest events that are on their way to it.
    pub(crate) outbox: Vec<OutboxEntry>,
}

/// Why a project could not be opened.
#[derive(Debug, Clone)]
pub(crate) struct NotOpened {
    /// What callers are told.
    pub(crate) error: ApiError,
    /// What is wrong with the database, where that is why: it need not be tried again soon.
    pub(crate) damage: Option<String>,
}

impl From<ApiError> for NotOpened {
    fn from(error: ApiError) -> Self {
        Self { error, damage: None }
    }
}

impl From<StoreError> for NotOpened {
    fn from(error: StoreError) -> Self {
        let is_damage = matches!(error, StoreError::Corrupt { .. } | StoreError::Newer { .. });
        Self { error: error.to_api(), damage: is_damage.then(|| error.to_string()) }
    }
}

/// Where the files of a project are.
pub(crate) enum FilesAt {
    Directory(Places),
    /// What is received for them grows below this directory.
    Database {
        staging: PathBuf,
    },
}

/// Says what is wrong with the database of a project, if anybody noticed anything.
pub(crate) type Damage = Arc<OnceLock<String>>;

/// A project's database and files, opened and checked, on their way to its registry.
pub(crate) struct OpenedProject {
    id: ProjectId,
    database: ProjectDatabase,
    lease: OwnedMutexGuard<()>,
    kept: Arc<Kept>,
    workspace: Workspace,
    places: Option<Arc<Places>>,
    head: u64,
    committed: Registry,
    resume: ResumePolicy,
    damage: Damage,
}

impl OpenedProject {
    /// Opens the database and the files of a project. Blocks: not for an arbiter.
    pub(crate) fn open(
        id: ProjectId,
        database: &Path,
        files: FilesAt,
        storage: &Storage,
        lease: OwnedMutexGuard<()>,
        resume: ResumePolicy,
    ) -> Result<Self, NotOpened> {
        let committed: Registry = Arc::default();
        let registry = Arc::clone(&committed);
        let kept: Arc<Kept> = Arc::default();
        let outdated = Arc::clone(&kept);
        let database = ProjectDatabase::open(database, &id, move |events| {
            // Before who changed a rule or a tool hears that it is changed.
            outdated.outdate(&events);
            if let Some(registry) = registry.get().and_then(WeakAddress::upgrade) {
                registry.tell(Committed(events));
            }
        })
        .inspect_err(|error| {
            tracing::error!(project.id = %id, %error, "project could not be opened");
        })?;
        let damage = watch(&database, &committed);
        database.use_storage(storage);
        let head = database.committed_head();
        #[cfg(feature = "faults")]
        iris_workspace::when_half_written(|| {
            iris_store::crash_point(iris_store::CrashPoint::FileHalf);
        });
        let (workspace, places) = match files {
            FilesAt::Directory(places) => (Workspace::open(&places.project), Some(places)),
            FilesAt::Database { staging } => {
                let made = std::fs::create_dir_all(&staging);
                let files = Arc::new(ProjectFiles::new(database.reader()));
                let made = made.map_err(|source| WorkspaceError::RootUnavailable { source });
                (made.and_then(|()| Workspace::stored(files, &staging)), None)
            }
        };
        let workspace = workspace.map_err(|error| {
            tracing::error!(project.id = %id, %error, "the project's directory could not be opened");
            ApiError::new(ErrorCode::ReadOnly, "the project's directory cannot be opened")
        })?;
        let uploads = database.uploads()?;
        // But for what a client may come back to, nobody receives them any more.
        let is_kept = |name: &str| uploads.iter().any(|upload| upload.id == name);
        match workspace.sweep_staged(&is_kept) {
            Ok(0) => {}
            Ok(count) => tracing::info!(project.id = %id, count, "files of uploads were left over"),
            Err(error) => {
                tracing::warn!(project.id = %id, %error, "files of uploads are left over");
            }
        }
        Ok(Self {
            id,
            database,
            lease,
            kept,
            workspace,
            places: places.map(Arc::new),
            head,
            committed,
            resume,
            damage,
        })
    }

    /// What is wrong with the database, from the moment on that somebody notices.
    pub(crate) fn damage(&self) -> Damage {
        Arc::clone(&self.damage)
    }

    /// Starts the registry on the current arbiter.
    pub(crate) fn start(
        self,
        services: &Arc<Services>,
        news: FromRoot,
        parent: &Arc<Vitals>,
        on_exit: impl FnOnce() + 'static,
    ) -> ProjectHandle {
        let spec = ChildSpec {
            policy: RestartPolicy::Transient(Intensity::DEFAULT),
            mailbox_limit: MAILBOX_LIMIT,
            ..ChildSpec::new("project", self.id.to_string())
        };
        let is_marked: Arc<AtomicBool> = Arc::default();
        let (id, workspace) = (self.id.clone(), self.workspace.clone());
        let places = self.places.clone();
        let (reader, epoch) = (self.database.reader(), Arc::from(self.database.epoch()));
        let (root, server_rules) = (news.root.reader.clone(), Arc::clone(&news.root.rules));
        let kept = Arc::clone(&self.kept);
        let usage = UsageTeller {
            project_id: self.id.clone(),
            epoch: self.database.epoch().to_owned(),
            reader: self.database.reader(),
            root: news.root.clone(),
        };
        let create = {
            let (services, reader, epoch) =
                (Arc::clone(services), reader.clone(), Arc::clone(&epoch));
            let is_marked = Arc::clone(&is_marked);
            move |_: &mut Context<Project>, vitals: &Arc<Vitals>| Project {
                heads: super::heads::Heads::default(),
                rooms: Rooms::new(self.id.clone(), &services.metrics),
                listeners: Listeners::new(self.id.clone()),
                presences: Presences::default(),
                locks: Locks::default(),
                ring: Ring::new(self.id.clone(), self.head),
                joinable: HashSet::new(),
                deletions: 0,
                upkeep: Upkeep::default(),
                usage_news: UsageNews::default(),
                queued: QueuedRuns::default(),
                capture_timer: None,
                metering: Metering::new(&services.metrics),
                vitals: Arc::clone(vitals),
                reader,
                kept: self.kept,
                workspace: self.workspace,
                places: self.places,
                epoch,
                database: OpenDatabase {
                    open: Some((self.database, self.lease)),
                    clock: Arc::clone(&services.clock),
                    project_id: self.id.clone(),
                    root: news.root.clone(),
                    may_be_marked: news.is_unfinished,
                    resume: self.resume,
                },
                id: self.id,
                root: news.root,
                services,
                committed: self.committed,
                sessions: HashMap::new(),
                run_ends: RunEnds::default(),
                mcp: HashMap::new(),
                shared: Weak::new(),
                head: self.head,
                joins: 0,
                under_way: UnderWay::default(),
                joining: Pace::default(),
                handed_on: 0,
                is_marked,
                marking: None,
                outbox: news.outbox,
                recovery: Recovery::default(),
                looks_for_agents: false,
            }
        };
        let address = spawn(parent, spec, create, move |_| on_exit());
        let holders = Arc::default();
        ProjectHandle {
            id,
            address,
            reader,
            root,
            server_rules,
            kept,
            workspace,
            places,
            epoch,
            life: 0,
            is_marked,
            usage,
            holders,
        }
    }
}

/// Tells the registry when the database turns out to be damaged.
fn watch(database: &ProjectDatabase, registry: &Registry) -> Damage {
    let damage = Damage::default();
    let (noticed, registry) = (Arc::clone(&damage), Arc::clone(registry));
    database.on_damage(move |reason| {
        // Told once.
        drop(noticed.set(reason.to_owned()));
        if let Some(registry) = registry.get().and_then(WeakAddress::upgrade) {
            registry.tell(Damaged { reason: reason.to_owned() });
        }
    });
    damage
}
