//! The node: starts the actors that are always there, and is what transports hold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::prelude::*;
use iris_llm::FactsOverride;
use iris_protocol::{
    ApiError, ConnectionFrame, Draining, ErrorCode, Maintenance, MaintenanceNotice, Position,
    ProjectId,
};
use iris_store::StoreError;
use iris_store::root::{RootDatabase, RootReader, StoredFacts};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::Services;
use crate::backups::{Backups, Desk};
use crate::choices::Choices;
use crate::connection::{CloseReason, Connections};
use crate::directory::{CloseAll, Directory, OpenProject, OpenUnfinished};
use crate::dispatch::{Bodies, OpenFiles, Receivings, Uploads};
use crate::git::Clones;
use crate::logins::Logins;
use crate::owner::Hop;
use crate::permissions::ServerRules;
use crate::project::{Listen, Listener, ProjectHandle};
use crate::rates::Rates;
use crate::recorder::{Recorder, StoreNow};
use crate::root::{OpenRoot, Root, RootAccess, TakeDatabase};
use crate::rotation::Rotation;
use crate::supervision::{
    Address, AskError, ChildSpec, Intensity, Panicked, RestartPolicy, Vitals, guarded, spawn,
};
use crate::tickets::Tickets;

/// When clients are told to try again during maintenance, in milliseconds.
const MAINTENANCE_RETRY_MS: u64 = 60_000;
/// How often a draining node looks whether runs are alive.
const DRAIN_TICK: Duration = Duration::from_millis(50);
/// How long after its last run a server that is started again takes clients, with time to spare.
const TIME_TO_START: Duration = Duration::from_secs(1);
/// Messages that may wait for the root or the directory before callers are refused.
const MAILBOX_LIMIT: u32 = 8192;
/// How long a message to the directory may take: closing every project is one.
const DIRECTORY_BUDGET: Duration = Duration::from_mins(1);

/// The running actors of one server. Clones share them.
#[derive(Clone)]
pub struct Node {
    /// What every actor may use.
    pub services: Arc<Services>,
    /// The parent of the actors that have none; requests are its work.
    pub(crate) top: Arc<Vitals>,
    pub(crate) root: Address<Root>,
    pub(crate) root_reader: RootReader,
    /// The permission rules for all projects.
    pub(crate) server_rules: Arc<ServerRules>,
    /// The settings of the server that can change.
    pub(crate) choices: Arc<Choices>,
    pub(crate) directory: Address<Directory>,
    recorder: Address<Recorder>,
    pub(crate) backups: Address<Backups>,
    /// Who is sending archives.
    pub(crate) uploads: Arc<Uploads>,
    /// Whose files and archives are in memory.
    pub(crate) bodies: Arc<Bodies>,
    /// The files that are being sent.
    pub(crate) open_files: Arc<OpenFiles>,
    /// The files that are being received.
    pub(crate) receivings: Arc<Receivings>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) tickets: Arc<Tickets>,
    pub(crate) logins: Arc<Logins>,
    pub(crate) rates: Arc<Rates>,
    /// Held by whoever has the catalogue know what administrators set.
    model_facts: Arc<tokio::sync::Mutex<()>>,
    /// The clones under way.
    pub(crate) clones: Arc<Clones>,
    /// How far the change of the master key is.
    pub(crate) rotation: Arc<Rotation>,
    /// The way to projects that other nodes own; none while this one owns them all.
    pub(crate) hop: Option<Arc<dyn Hop>>,
}

/// Why a node did not start or stop cleanly.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The root database.
    #[error("root database: {0}")]
    Store(#[from] StoreError),
    /// An arbiter or an actor was gone.
    #[error("an actor of the node is gone")]
    Gone,
}

impl Node {
    /// Runs work of the server itself, which belongs to no actor: a panic ends it alone and is in the
    /// supervision log.
    ///
    /// # Errors
    /// When it panicked.
    pub async fn guarded<T>(
        &self,
        name: &'static str,
        work: impl Future<Output = T>,
    ) -> Result<T, Panicked> {
        guarded(&self.top, name, work).await
    }

    /// Starts the actors that are always there on the current arbiter; projects go to `arbiters`.
    /// `open_root` opens the root database again should its writer die.
    pub fn start(
        services: Arc<Services>,
        root: RootDatabase,
        open_root: OpenRoot,
        arbiters: Vec<ArbiterHandle>,
    ) -> Self {
        let top = services.supervision.node();
        let permanent = |kind| ChildSpec {
            policy: RestartPolicy::Permanent(Intensity::DEFAULT),
            mailbox_limit: MAILBOX_LIMIT,
            ..ChildSpec::new(kind, "")
        };
        let root_reader = root.reader();
        let server_rules = Arc::new(ServerRules::new(root_reader.clone()));
        let create = |_: &mut Context<Root>, vitals: &Arc<Vitals>| {
            Root::new(Arc::clone(vitals), root, open_root)
        };
        let root = spawn(&top, permanent("root"), create, |_| {});
        let directory = {
            let services = Arc::clone(&services);
            let root = RootAccess {
                address: root.clone(),
                reader: root_reader.clone(),
                rules: Arc::clone(&server_rules),
            };
            let create = move |_: &mut Context<Directory>, vitals: &Arc<Vitals>| {
                Directory::new(Arc::clone(vitals), services, root, arbiters)
            };
            let spec = ChildSpec {
                keeps_children: true,
                message_budget: DIRECTORY_BUDGET,
                ..permanent("directory")
            };
            spawn(&top, spec, create, |_| {})
        };
        let recorder = {
            let (services, root) = (Arc::clone(&services), root.clone());
            let create = move |_: &mut Context<Recorder>, vitals: &Arc<Vitals>| {
                Recorder::new(Arc::clone(vitals), services, root)
            };
            spawn(&top, permanent("recorder"), create, |_| {})
        };
        let backups = {
            let (services, reader) = (Arc::clone(&services), root_reader.clone());
            let desk = Desk::new(services, root.clone(), reader, directory.clone());
            let create = move |_: &mut Context<Backups>, vitals: &Arc<Vitals>| {
                Backups::new(Arc::clone(vitals), desk)
            };
            let spec = ChildSpec { keeps_children: true, ..permanent("backups") };
            spawn(&top, spec, create, |_| {})
        };
        let connections = Arc::<Connections>::default();
        let rates = Arc::new(Rates::new(services.settings.rates));
        let choices = Arc::new(Choices::new(services.settings.registration.mode()));
        connections.watch(services.settings.sockets, &top);
        services.runs.inform();
        services.commands.inform();
        let rotation = Arc::new(Rotation::new(services.settings.master_key.clone()));
        Self {
            services,
            top,
            root,
            root_reader,
            server_rules,
            choices,
            directory,
            recorder,
            backups,
            uploads: Arc::default(),
            bodies: Arc::default(),
            open_files: Arc::default(),
            receivings: Arc::default(),
            tickets: Arc::default(),
            logins: Arc::default(),
            connections,
            rates,
            model_facts: Arc::default(),
            clones: Arc::default(),
            rotation,
            hop: None,
        }
    }

    /// Reads which settings administrators chose. To be called once, before anybody asks for anything.
    ///
    /// # Errors
    /// When the root database cannot be read.
    pub async fn load_choices(&self) -> Result<(), NodeError> {
        self.choose(self.root_reader.chosen_settings().await?);
        Ok(())
    }

    /// The same node, reaching projects through `hop`.
    #[must_use]
    pub fn through(self, hop: Arc<dyn Hop>) -> Self {
        Self { hop: Some(hop), ..self }
    }

    /// Has the catalogue know what administrators set of models.
    ///
    /// # Errors
    /// When the root database cannot be read.
    pub async fn read_model_facts(&self) -> Result<(), StoreError> {
        // Else one that read earlier could set what it read after one that read later.
        let _alone = self.model_facts.lock().await;
        let stored = self.root_reader.model_facts().await?;
        let overrides = stored.into_iter().map(|StoredFacts { model, facts, revision }| {
            (model, FactsOverride { facts, revision })
        });
        self.services.catalog.set_overrides(overrides.collect());
        Ok(())
    }

    /// Opens the projects with unfinished work, a few at a time, so that it goes on although nobody asks
    /// for them. Returns at once.
    pub fn open_unfinished(&self) {
        self.directory.tell(OpenUnfinished);
    }

    pub(crate) fn root_access(&self) -> RootAccess {
        RootAccess {
            address: self.root.clone(),
            reader: self.root_reader.clone(),
            rules: Arc::clone(&self.server_rules),
        }
    }

    /// The registry of a project, which is opened if need be. It stays open while the handle is held.
    ///
    /// # Errors
    /// `NOT_FOUND`, `PROJECT_CORRUPT`, `OVERLOADED` when too many are open or too much waits.
    pub async fn project(&self, id: &ProjectId) -> Result<ProjectHandle, ApiError> {
        let (answer, opened) = oneshot::channel();
        self.directory.admit().map_err(AskError::to_api)?;
        self.directory.tell(OpenProject { id: id.clone(), answer });
        opened.await.map_err(|_| {
            let message = "the project could not be opened; try again";
            ApiError::new(iris_protocol::ErrorCode::Overloaded, message).retry_after(1_000)
        })?
    }

    /// Lets a part of the server hear each durable event of a project that this node owns, after the
    /// position that is answered. It keeps the project no longer open than it would be: when its
    /// registry closes or starts again the listener is told, and listens again if it wants to hear on.
    ///
    /// # Errors
    /// Those of [`Node::project`], and `OVERLOADED` when too many listen.
    pub async fn listen(
        &self,
        project_id: &ProjectId,
        listener: Listener,
    ) -> Result<Position, ApiError> {
        let project = self.project(project_id).await?;
        project.address.ask(Listen(listener)).await.map_err(AskError::to_api)?
    }

    /// Whether somebody is an administrator.
    ///
    /// # Errors
    /// When the root database cannot be read.
    pub async fn has_admin(&self) -> Result<bool, NodeError> {
        Ok(self.root_reader.has_admin().await?)
    }

    /// Why the node takes no work; nothing while its threads and its root database answer.
    pub async fn unready(&self) -> Option<&'static str> {
        if self.is_draining() {
            Some("draining")
        } else if self.services.supervision.is_blocked() {
            Some("thread_blocked")
        } else if !self.root.connected() || !self.directory.connected() {
            Some("restarting")
        } else {
            self.root_reader.has_admin().await.is_err().then_some("root_database")
        }
    }

    /// Whether the node is stopping: runs may end, none may start.
    pub fn is_draining(&self) -> bool {
        self.services.is_draining()
    }

    /// Whether runs may begin.
    ///
    /// # Errors
    /// `SHUTTING_DOWN`, and `OVERLOADED` with reason `maintenance`.
    pub(crate) fn takes_runs(&self) -> Result<(), ApiError> {
        self.takes_messages()?;
        let Some(maintenance) = self.choices.now().maintenance else { return Ok(()) };
        let message = maintenance.message.map_or_else(
            || "the server is in maintenance and begins no runs".to_owned(),
            |message| format!("the server is in maintenance and begins no runs: {message}"),
        );
        let error = ApiError::new(ErrorCode::Overloaded, message).reason("maintenance");
        Err(error.retry_after(MAINTENANCE_RETRY_MS))
    }

    /// Whether messages are taken that are to join runs.
    ///
    /// # Errors
    /// `SHUTTING_DOWN`.
    pub(crate) fn takes_messages(&self) -> Result<(), ApiError> {
        if self.is_draining() {
            return Err(ApiError::from(ErrorCode::ShuttingDown).retry_after(5_000));
        }
        Ok(())
    }

    /// Whether the server is in maintenance.
    pub fn maintenance(&self) -> Option<Maintenance> {
        self.choices.now().maintenance
    }

    /// Has what administrators chose count.
    pub(crate) fn choose(&self, chosen: BTreeMap<String, Value>) {
        let before = self.choices.now().maintenance;
        self.choices.set(chosen);
        let now = self.choices.now().maintenance;
        self.services.runs.open(now.is_none());
        if now == before {
            return;
        }
        let active = now.is_some();
        tracing::warn!(active, "maintenance changed");
        let payload = MaintenanceNotice { active, message: now.and_then(|it| it.message) };
        self.connections.tell_all(&ConnectionFrame::Maintenance { payload });
    }

    /// Takes no messages any more, tells every client, and waits for the runs that are alive, at most
    /// `patience` or until `hurry`.
    pub async fn drain(&self, patience: Duration, hurry: impl Future<Output = ()>) {
        self.services.draining.store(true, Ordering::Relaxed);
        let back_after = patience + TIME_TO_START;
        let retry_after_ms = u64::try_from(back_after.as_millis()).unwrap_or(u64::MAX);
        let payload = Draining { retry_after_ms };
        self.connections.tell_all(&ConnectionFrame::Draining { payload });
        let runs_end = async {
            while self.services.supervision.count("orchestrator") > 0 {
                tokio::time::sleep(DRAIN_TICK).await;
            }
        };
        tokio::select! {
            () = runs_end => {}
            () = tokio::time::sleep(patience) => {
                tracing::warn!("runs did not end in time and are interrupted");
            }
            () = hurry => tracing::warn!("told again to stop: runs are interrupted"),
        }
    }

    /// Sends every client away, stops runs and records them as `interrupted`, closes every project and
    /// the root database, their write-ahead logs emptied into the files.
    ///
    /// # Errors
    /// When an actor was gone before it could close what it owned.
    pub async fn close(&self) -> Result<(), NodeError> {
        self.connections.close_all(|| CloseReason::back_after(1012, TIME_TO_START));
        let projects = self.directory.insist(|| CloseAll).await;
        let recorded = self.recorder.insist(|| StoreNow).await;
        let database = self.root.insist(|| TakeDatabase).await.map_err(|_| NodeError::Gone)?;
        let closed = tokio::task::spawn_blocking(move || drop(database)).await;
        projects.and(recorded).map_err(|_| NodeError::Gone)?;
        closed.map_err(|_| NodeError::Gone)
    }
}
