//! The server, put together: from a configuration to an address that answers, and back to nothing.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::available_parallelism;
use std::time::Duration;

use actix_rt::{Arbiter, ArbiterHandle};
use actix_web::App as WebApp;
use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::web::Data;
use futures_util::future::LocalBoxFuture;
use iris_actors::dispatch::ANSWER_STALL;
use iris_actors::owner::Hop;
use iris_actors::supervision::{Supervision, Watchdog, WatchdogSettings, detached};
use iris_actors::{
    BackupSettings, FileSettings, KEY_SETTLES, Line, LogControl, MailError, Mailer, McpHost,
    Metrics, Node, NodeError, PresenceSettings, Services, Settings, SystemClock, SystemIds,
    Threads, settle,
};
use iris_agent::{Clock, IdSource, TurnLimits};
use iris_auth::{
    AccessTokens, AuthError, ChangingKey, Fingerprints, Passwords, RefreshTokens, SealingKeys,
    SetupToken, load_key, load_or_create_key,
};
use iris_egress::{Config as EgressConfig, Egress, Exception};
use iris_identity::{Provider, ProviderSettings, exceptions};
use iris_llm::{
    Catalog, CatalogFileError, ConfigError as ModelConfigError, Detected, LocalServer, Model,
    Models, ProviderConfig,
};
use iris_protocol::{Deprecations, LogSettings};
use iris_sandbox::{Config as SandboxConfig, Sandbox};
use iris_store::root::RootDatabase;
use iris_store::{Storage, StoreError};
use iris_tools::{Tool, ToolError, ToolRegistry, Workshop, webfetch};
use parking_lot::{Mutex, RwLock};
use rustls::ServerConfig;

use crate::config::{Config, Flags};
use crate::http::{BODY_TIMEOUT, Gatekeeper, TrustedProxies, end_unread, guard, identify, routes};
use crate::lock::DataDirLock;
use crate::lodging::Lodging;
use crate::logging::LogOfAnother;
use crate::notify::{self, Notifier};
use crate::reload::{Reloaded, Reloading};
use crate::server;
use crate::sse::Streams;
use crate::tls::{Tls, TlsError, Watching};

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Another process uses the data directory.
    #[error("another server is running on the data directory `{}`", .0.display())]
    Locked(PathBuf),
    /// The data directory cannot be used.
    #[error("the data directory `{}` cannot be used: {source}", .path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The data directory is on another machine.
    #[error(
        "the data directory `{}` is on {kind}, a file system over a network, which databases do not survive: choose \
         a directory of this machine",
        .path.display()
    )]
    Network {
        /// The directory.
        path: PathBuf,
        /// The kind of file system.
        kind: &'static str,
    },
    /// The root database cannot be used; its file is untouched.
    #[error(
        "the root database `{}` cannot be used: {source}; {}",
        .path.display(),
        what_to_do(.source)
    )]
    Root {
        /// The file.
        path: PathBuf,
        /// Why.
        source: StoreError,
    },
    /// The disk of the data directory cannot be written.
    #[error("the data directory `{}` cannot be written: {}", .path.display(), cause(.source))]
    Storage {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: StoreError,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on `{address}`: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A key cannot be used.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The mail server cannot be used.
    #[error(transparent)]
    Mail(#[from] MailError),
    /// A provider cannot be set up.
    #[error(transparent)]
    Models(#[from] ModelConfigError),
    /// The list of models cannot be used.
    #[error(transparent)]
    Catalog(CatalogFileError),
    /// A built-in tool is wrong.
    #[error(transparent)]
    Tools(#[from] ToolError),
    /// An actor of the node is gone.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The HTTP server.
    #[error("http server: {0}")]
    Http(#[from] io::Error),
}

/// What an operator does about a root database that cannot be used. Never: delete it.
fn what_to_do(error: &StoreError) -> &'static str {
    match error {
        StoreError::Corrupt { .. } => {
            "nothing was changed: keep the file, and restore the last backup with `iris restore` (docs/backup.md)"
        }
        StoreError::Newer { .. } => {
            "nothing was changed: start the newer server again, or restore a backup of this version"
        }
        StoreError::StorageFull => "free space on its disk and start again",
        StoreError::NotFound { .. }
        | StoreError::Conflict { .. }
        | StoreError::VersionConflict
        | StoreError::Locked { .. }
        | StoreError::IdempotencyConflict
        | StoreError::Gone { .. }
        | StoreError::InvalidCursor { .. }
        | StoreError::InvalidQuery { .. }
        | StoreError::QuotaExceeded { .. }
        | StoreError::BlobCorrupt { .. }
        | StoreError::Overloaded
        | StoreError::Closed
        | StoreError::Internal { .. } => "is it readable and writable for the user of the server?",
    }
}

/// What happened, where the error itself only says that something did.
fn cause(error: &StoreError) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string);
    source.unwrap_or_else(|| error.to_string())
}

/// What a server takes from outside, so that tests and embedding programs can bring their own.
pub struct Dependencies {
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// New ids.
    pub ids: Arc<dyn IdSource>,
    /// Bounds of one run.
    pub turn: TurnLimits,
    /// How long a tool call waits for a person.
    pub approval_timeout: Duration,
    /// How long a tool may run.
    pub tool_timeout: Duration,
    /// How long a socket may stay without authentication.
    pub hello_timeout: Duration,
    /// How long a client may take nothing of an answer that comes part by part.
    pub answer_stall: Duration,
    /// How long a client may take to send the body of a request that is read whole.
    pub body_timeout: Duration,
    /// How presence is counted.
    pub presence: PresenceSettings,
    /// How the history of files is kept, and how locks end.
    pub files: FileSettings,
    /// How often a comment is written to each event stream; never zero.
    pub stream_comments: Duration,
    /// How long an access token is good.
    pub access_token_lifetime: Option<Duration>,
    /// Hashes what people type.
    pub passwords: Passwords,
    /// How long what was sealed with the old master key may be on its way to a database.
    pub key_settles: Duration,
    /// How often the watchdog looks, and how long a thread may be silent.
    pub watchdog: WatchdogSettings,
    /// How often projects that changed are backed up, in place of what the configuration says.
    pub backup_interval: Option<Duration>,
    /// Tools besides those that every server has, behind them in the order in which models are told.
    pub tools: Vec<Arc<dyn Tool>>,
    /// Providers of models besides those that are configured, by their names: what stands before the `/` of a
    /// model. A name that is configured already is refused.
    pub models: Vec<(String, Arc<dyn Model>)>,
    /// Changes the log lines of this process; none where another program writes them.
    pub log: Option<Arc<dyn LogControl>>,
    /// Where servers of models on this machine are looked for when no provider is configured, and none is
    /// among `models`.
    pub local_servers: Vec<LocalServer>,
    /// Makes the way from connections to the owners of projects, given the node that owns them all;
    /// none for the direct one.
    pub hop: Option<MakeHop>,
    /// The operations that are on their way out.
    pub deprecations: Deprecations,
}

/// Makes a way to the owners of projects (docs/decisions/0008).
pub type MakeHop = Arc<dyn Fn(Node) -> Arc<dyn Hop> + Send + Sync>;

impl Default for Dependencies {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            ids: Arc::new(SystemIds),
            turn: TurnLimits::default(),
            approval_timeout: Duration::from_mins(10),
            tool_timeout: Duration::from_mins(2),
            hello_timeout: Duration::from_secs(5),
            answer_stall: ANSWER_STALL,
            body_timeout: BODY_TIMEOUT,
            presence: PresenceSettings::default(),
            files: FileSettings::default(),
            stream_comments: Duration::from_secs(15),
            access_token_lifetime: None,
            passwords: Passwords::for_this_machine(),
            key_settles: KEY_SETTLES,
            watchdog: WatchdogSettings::default(),
            backup_interval: None,
            tools: Vec::new(),
            models: Vec::new(),
            log: None,
            local_servers: LocalServer::usual(),
            hop: None,
            deprecations: Deprecations::CURRENT,
        }
    }
}

/// A server that answers.
pub struct App {
    address: SocketAddr,
    /// Watches the certificate; none where TLS is left to others.
    tls: Option<Watching>,
    /// There while nobody is an administrator.
    setup_token: Option<SetupToken>,
    node: Node,
    http: ServerHandle,
    drain: Duration,
    /// What a running server takes of a changed configuration.
    reloading: Arc<Reloading>,
    notifier: Arc<Notifier>,
    _watchdog: Watchdog,
    _lock: DataDirLock,
}

impl App {
    /// Starts a server in the current actix system: opens the data directory, starts the actors,
    /// listens. Nothing is left running when it fails.
    ///
    /// # Errors
    /// See [`AppError`].
    pub fn start(
        config: Config,
        dependencies: Dependencies,
    ) -> LocalBoxFuture<'static, Result<Self, AppError>> {
        Box::pin(async move {
            iris_llm::install_tls_provider();
            refuse_network(&config.data_dir)?;
            make_private(&config.data_dir)?;
            let lock = take_lock(&config.data_dir)?;
            let clock = Arc::clone(&dependencies.clock);
            let tls =
                config.tls.as_ref().map(|files| Tls::load(files, clock.as_ref())).transpose()?;
            let listener = listen(config.bind)?;
            let address = listener.local_addr()?;
            let root_path = config.data_dir.join("root.db");
            let storage = Storage::open(&config.data_dir)
                .map_err(|source| AppError::Storage { path: config.data_dir.clone(), source })?;
            let root = RootDatabase::open_or_create(&root_path, clock.now_ms())
                .map_err(|source| AppError::Root { path: root_path.clone(), source })?;
            root.use_storage(&storage);
            let disk = storage.clone();
            settle(&config.data_dir, &root)
                .await
                .map_err(|source| AppError::Root { path: root_path.clone(), source })?;
            let open_root = move || {
                // One that is gone is not replaced by an empty one.
                if !root_path.exists() {
                    return Err(StoreError::internal("the root database is gone"));
                }
                let root = RootDatabase::open_or_create(&root_path, clock.now_ms())?;
                root.use_storage(&disk);
                Ok(root)
            };
            let config = Config { public_url: public_url(&config, address), ..config };
            let hosts = hosts(&config);
            let gatekeeper = Gatekeeper::new(address.ip(), &hosts, &config.allowed_origins);
            let proxies = TrustedProxies::new(config.trusted_proxies.clone());
            let (gates, configured) = ((gatekeeper.clone(), proxies.clone()), config.clone());
            let (drain, setup) = (config.drain, config.setup_token.clone());
            let watchdog = WatchdogSettings {
                abort_after: config.watchdog_abort.or(dependencies.watchdog.abort_after),
                ..dependencies.watchdog
            };
            let (hop, stream_comments) = (dependencies.hop.clone(), dependencies.stream_comments);
            let sandbox = match config.sandbox.clone() {
                Some(config) => Some(sandbox(config).await),
                None => None,
            };
            let config = if dependencies.models.is_empty() {
                with_local_models(config, &dependencies.local_servers).await
            } else {
                config
            };
            let services = Arc::new(services(config, storage, sandbox, dependencies)?);
            let supervision = services.supervision.clone();
            services.storage.on_change(move |is_full| supervision.log().disk(is_full));
            let owner = Node::start(Arc::clone(&services), root, Arc::new(open_root), arbiters());
            let node = match hop {
                Some(make) => owner.clone().through(make(owner)),
                None => owner,
            };
            let watchdog = Watchdog::start(&services.supervision, watchdog)?;
            node.read_model_facts().await.map_err(NodeError::from)?;
            if let Err(error) = node.seal_credentials_again().await {
                // They open with the previous key still: no reason not to start.
                tracing::warn!(%error, "keys for model providers are not sealed with the new master key yet");
            }
            node.finish_rotation();
            let setup_token = if node.has_admin().await? {
                None
            } else {
                Some(setup.map_or_else(SetupToken::random, Ok)?)
            };
            services.setup_token.lock().clone_from(&setup_token);
            node.remove_leftovers().await?;
            node.load_choices().await?;
            node.audit_sandbox().await?;
            let streams = Streams::start(stream_comments);
            let secured = tls.as_ref().map(Tls::server_config).transpose()?;
            let http = serve(listener, &node, secured, gatekeeper, proxies, streams)?;
            let tls = tls.map(|tls| tls.watch(Arc::clone(&node.services.clock))).transpose()?;
            node.open_unfinished();
            node.resume_clones().await?;
            node.settle_git().await?;
            let reloading = Arc::new(Reloading::new(configured, address, gates, node.clone()));
            let notifier = Arc::new(Notifier::default());
            Ok(Self {
                address,
                tls,
                setup_token,
                node,
                http,
                drain,
                reloading,
                notifier,
                _watchdog: watchdog,
                _lock: lock,
            })
        })
    }

    /// Tells the service manager that the server is ready, and from then on that it is alive; and reads the
    /// configuration again on SIGHUP, which was read with these flags before.
    ///
    /// # Errors
    /// When the signal cannot be waited for.
    pub fn serve_system(&mut self, flags: Flags, notifier: Notifier) -> io::Result<()> {
        self.notifier = Arc::new(notifier);
        Arc::clone(&self.reloading).on_hang_up(flags, Arc::clone(&self.notifier))?;
        self.notifier.ready(&format!("Listening on {}", self.url()));
        notify::watch(Arc::clone(&self.notifier), self.node.clone());
        Ok(())
    }

    /// Takes what can be taken of a changed configuration.
    ///
    /// # Errors
    /// When the list of models or the filter of log lines is wrong; then nothing has changed.
    pub fn reload(&self, config: Config) -> impl Future<Output = Result<Reloaded, AppError>> {
        let reloading = Arc::clone(&self.reloading);
        async move { reloading.take(config).await }
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the server listens, as clients write it.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The token that creates the first administrator, while there is none.
    pub fn setup_token(&self) -> Option<&SetupToken> {
        self.setup_token.as_ref()
    }

    /// The actors that are alive, and what became of the others.
    pub fn supervision(&self) -> &Supervision {
        &self.node.services.supervision
    }

    /// The disk of the data directory.
    pub fn storage(&self) -> &Storage {
        &self.node.services.storage
    }

    /// The actors themselves, for measurements from inside.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Stops: no new runs, those that are alive get the configured time, then everything is closed.
    ///
    /// # Errors
    /// When an actor was gone before it could close what it owned.
    pub async fn stop(self) -> Result<(), AppError> {
        self.stop_or_hurry(std::future::pending()).await
    }

    /// Stops, and waits no longer for runs once `hurry` is ready.
    ///
    /// # Errors
    /// As [`App::stop`].
    pub async fn stop_or_hurry(self, hurry: impl Future<Output = ()>) -> Result<(), AppError> {
        self.notifier.stopping();
        self.node.drain(self.drain, hurry).await;
        let closed = self.node.close().await;
        self.http.stop(true).await;
        Ok(closed?)
    }
}

/// Where browsers reach the server; none where it listens for others and nobody said how they reach it.
pub(crate) fn public_url(config: &Config, address: SocketAddr) -> Option<String> {
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let own = || address.ip().is_loopback().then(|| format!("{scheme}://{address}"));
    config.public_url.clone().or_else(own)
}

/// The names that the server is, besides its address.
pub(crate) fn hosts(config: &Config) -> Vec<String> {
    let own = config.public_url.as_deref().and_then(host_of);
    config.allowed_hosts.iter().cloned().chain(own).collect()
}

/// The `Host` of requests to an origin.
fn host_of(origin: &str) -> Option<String> {
    origin.split_once("://").map(|(_, host)| host.to_owned())
}

fn refuse_network(path: &Path) -> Result<(), AppError> {
    match Lodging::of(path) {
        Lodging::Elsewhere(kind) => Err(AppError::Network { path: path.to_owned(), kind }),
        Lodging::Perhaps(kind) => {
            tracing::warn!(
                kind,
                "the data directory may be on another machine, which databases do not survive"
            );
            Ok(())
        }
        Lodging::Here => Ok(()),
    }
}

/// Makes the data directory, for its owner alone. One that is there already may be shared on
/// purpose, or not be ours: it is left as it is, with a word of warning.
fn make_private(path: &Path) -> Result<(), AppError> {
    let make = || {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path)?;
        #[cfg(unix)]
        warn_of_others(path)?;
        Ok(())
    };
    make().map_err(|source| AppError::DataDir { path: path.to_owned(), source })
}

#[cfg(unix)]
fn warn_of_others(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        let (path, mode) = (path.display(), format_args!("{mode:04o}"));
        tracing::warn!(%path, %mode, "other users of this machine may enter the data directory");
    }
    Ok(())
}

fn take_lock(path: &Path) -> Result<DataDirLock, AppError> {
    match DataDirLock::take(path) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(AppError::Locked(path.to_owned())),
        Err(source) => Err(AppError::DataDir { path: path.to_owned(), source }),
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, AppError> {
    let listener = TcpListener::bind(address);
    let listener = listener.and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    listener.map_err(|source| AppError::Bind { address, source })
}

fn services(
    config: Config,
    storage: Storage,
    sandbox: Option<Sandbox>,
    dependencies: Dependencies,
) -> Result<Services, AppError> {
    let key = load_or_create_key(&config.jwt_secret_file)?;
    let mut access_tokens = AccessTokens::new(key.as_bytes(), Arc::clone(&dependencies.clock))?;
    let mut refresh_tokens = RefreshTokens::new(key.as_bytes())?;
    if let Some(previous) = &config.jwt_secret_previous_file {
        let previous = load_key(previous)?;
        access_tokens = access_tokens.previous_key(previous.as_bytes())?;
        refresh_tokens = refresh_tokens.previous_key(previous.as_bytes())?;
    }
    let mailer = config.smtp.as_ref().map(Mailer::start).transpose()?;
    if let Some(lifetime) = dependencies.access_token_lifetime {
        access_tokens = access_tokens.lifetime(lifetime);
    }
    let master_key = ChangingKey::new(config.master_key_file);
    let sealing = sealing(&master_key, config.master_key_previous_file.as_deref())?;
    let egress = egress(config.egress_allow.clone());
    let identity_providers = identity_providers(config.oauth, &config.egress_allow);
    let settings = LogSettings { filter: config.log, format: config.log_format };
    let log = dependencies.log.unwrap_or_else(|| Arc::new(LogOfAnother(settings)));
    let mcp = McpHost::new(config.egress_allow).unwrap_or_else(|error| {
        tracing::warn!(?error, "no MCP servers on the web: has the system certificates?");
        McpHost::without_web()
    });
    let metrics = Arc::<Metrics>::default();
    Ok(Services {
        provider_threads: Threads::for_providers(),
        supervision: Supervision::new(Arc::clone(&dependencies.clock)),
        clock: dependencies.clock,
        ids: dependencies.ids,
        catalog: catalog(config.model_catalog.as_deref())?.of_providers(&config.providers),
        models: models(config.providers, dependencies.models)?,
        tools: Arc::new(tools(egress.as_ref(), sandbox.as_ref(), dependencies.tools)?),
        workshop: Workshop::new(egress.clone(), sandbox.clone()),
        egress,
        sandbox,
        mcp,
        access_tokens,
        sealing,
        fingerprints: Fingerprints::new(key.as_bytes())?,
        refresh_tokens,
        identity_providers,
        mailer,
        origins: Arc::default(),
        passwords: dependencies.passwords,
        setup_token: Mutex::new(None),
        draining: AtomicBool::new(false),
        log,
        budgets: RwLock::new(config.budgets),
        runs: Line::new(config.shares.runs, {
            let metrics = Arc::clone(&metrics);
            move |time| metrics.run_waited(time)
        }),
        commands: Line::new(config.shares.commands, {
            let metrics = Arc::clone(&metrics);
            move |time| metrics.command_waited(time)
        }),
        metrics,
        storage,
        settings: Settings {
            data_dir: config.data_dir,
            master_key,
            key_settles: dependencies.key_settles,
            project_roots: config.project_roots,
            public_url: config.public_url,
            oauth_redirects: config.oauth_redirects,
            registration: config.registration,
            default_model: config.default_model,
            fallback_model: config.fallback_model,
            context: config.context,
            turn: dependencies.turn,
            approval_timeout: dependencies.approval_timeout,
            resume: config.resume,
            tool_timeout: dependencies.tool_timeout,
            hello_timeout: dependencies.hello_timeout,
            answer_stall: dependencies.answer_stall,
            body_timeout: dependencies.body_timeout,
            presence: dependencies.presence,
            files: FileSettings {
                kept: config.files_kept,
                transfer_bytes_max: config.transfer_bytes_max,
                ..dependencies.files
            },
            project_idle: config.project_idle,
            projects_open_max: config.projects_open_max,
            session_idle: config.session_idle,
            events_kept: config.events_kept,
            events_kept_bytes_max: config.events_kept_bytes_max,
            quotas: config.quotas,
            audit: config.audit,
            git: config.git,
            sockets: config.sockets,
            rates: config.rates,
            shares: config.shares,
            backups: BackupSettings {
                interval: dependencies.backup_interval.or(config.backups.interval),
                ..config.backups
            },
            deprecations: dependencies.deprecations,
        },
    })
}

/// Takes the models of a server on this machine where nothing at all is configured.
async fn with_local_models(mut config: Config, servers: &[LocalServer]) -> Config {
    if !config.detect_models || !config.providers.is_empty() {
        return config;
    }
    let Some(Detected { provider, config: found, model }) = iris_llm::detect(servers).await else {
        return config;
    };
    tracing::info!(
        %provider, model = %model.model_id, "no provider is configured: the server of models on this machine is used"
    );
    config.providers.insert(provider, found);
    config.default_model.get_or_insert(model);
    config
}

/// The list of models: the one of the operator, or the one that the server brings along.
pub(crate) fn catalog(path: Option<&Path>) -> Result<Catalog, AppError> {
    let Some(path) = path else {
        let builtin = Catalog::builtin();
        let path = PathBuf::from("(built in)");
        return builtin.map_err(|source| AppError::Catalog(CatalogFileError { path, source }));
    };
    let read = Catalog::from_file(path);
    read.map_err(|source| AppError::Catalog(CatalogFileError { path: path.to_owned(), source }))
}

/// Tries the sandbox out. A server without one works, but runs no commands.
async fn sandbox(config: SandboxConfig) -> Sandbox {
    let sandbox = Sandbox::start(config).await;
    let tier = sandbox.tier();
    match sandbox.check() {
        Ok(()) => tracing::info!(%tier, "commands run in the sandbox"),
        Err(error) => tracing::warn!(%tier, %error, "no commands can run"),
    }
    sandbox
}

/// The keys that secrets at rest are sealed with and opened by.
fn sealing(file: &ChangingKey, previous: Option<&Path>) -> Result<SealingKeys, AuthError> {
    let own = file.previous_path();
    let given = previous.filter(|path| !is_same_place(path, &own));
    if given != previous {
        // It goes with the end of the change: that is not to keep the next start from being one.
        tracing::warn!(
            "`IRIS_MASTER_KEY_PREVIOUS_FILE` names the file that the server writes and removes by \
             itself: the setting is left out"
        );
    }
    let configured = given.map(load_key).transpose()?;
    let (current, changing) = file.load()?;
    let keys = SealingKeys::new(&current, configured.as_ref())?;
    changing.map_or(Ok(()), |key| keys.open_with(&key))?;
    Ok(keys)
}

fn is_same_place(a: &Path, b: &Path) -> bool {
    let same = |one: io::Result<PathBuf>, other: io::Result<PathBuf>| matches!((one, other), (Ok(one), Ok(other)) if one == other);
    same(std::path::absolute(a), std::path::absolute(b)) || same(a.canonicalize(), b.canonicalize())
}

/// The way out for tools. A server without certificates to verify others with, as in a bare container, works
/// but fetches nothing.
fn egress(allow: Vec<Exception>) -> Option<Arc<Egress>> {
    let egress = Egress::new(EgressConfig { allow, ..EgressConfig::default() });
    let egress = egress.inspect_err(|error| {
        tracing::warn!(?error, "there is no tool `webfetch`: has the system certificates?");
    });
    egress.ok().map(Arc::new)
}

/// The providers at which people log in. They have a way out of their own: that they are where only this machine
/// gets lets no tool go there.
fn identity_providers(
    all: BTreeMap<String, ProviderSettings>,
    allow: &[Exception],
) -> BTreeMap<String, Provider> {
    if all.is_empty() {
        return BTreeMap::new();
    }
    let allow = [allow.to_vec(), exceptions(all.values())].concat();
    let egress = Egress::new(EgressConfig { allow, ..EgressConfig::default() });
    let egress = egress.inspect_err(|error| {
        tracing::warn!(?error, "nobody can log in at a provider: has the system certificates?");
    });
    let Ok(egress) = egress.map(Arc::new) else { return BTreeMap::new() };
    let provider = |settings: ProviderSettings| {
        if let Some(secret) = &settings.client_secret {
            iris_redact::shared().learn(secret.expose());
        }
        Provider::new(settings, Arc::clone(&egress))
    };
    all.into_iter().map(|(name, settings)| (name, provider(settings))).collect()
}

/// The models that are configured, then those that the embedding program brings.
fn models(
    configured: BTreeMap<String, ProviderConfig>,
    others: Vec<(String, Arc<dyn Model>)>,
) -> Result<Models, ModelConfigError> {
    let mut models = Models::new(configured)?;
    for (name, model) in others {
        models.bring(&name, model)?;
    }
    Ok(models)
}

/// The tools of the server.
fn tools(
    egress: Option<&Arc<Egress>>,
    sandbox: Option<&Sandbox>,
    others: Vec<Arc<dyn Tool>>,
) -> Result<ToolRegistry, ToolError> {
    let mut tools = ToolRegistry::builtin()?;
    if let Some(sandbox) = sandbox {
        tools = tools.with_bash(sandbox.clone())?;
    }
    if let Some(egress) = egress {
        tools = tools.with(webfetch(Arc::clone(egress)))?;
    }
    others.into_iter().try_fold(tools, ToolRegistry::with)
}

/// The threads that projects live on. They end with the actix system.
fn arbiters() -> Vec<ArbiterHandle> {
    let count = available_parallelism().map_or(1, usize::from);
    (0..count).map(|_| Arbiter::new().handle()).collect()
}

fn serve(
    listener: TcpListener,
    node: &Node,
    tls: Option<Arc<ServerConfig>>,
    gatekeeper: Gatekeeper,
    proxies: TrustedProxies,
    streams: Arc<Streams>,
) -> Result<ServerHandle, AppError> {
    let (data, gatekeeper) = (Data::new(node.clone()), Data::new(gatekeeper));
    let (streams, proxies) = (Data::from(streams), Data::new(proxies));
    let app = move || {
        WebApp::new()
            .app_data(data.clone())
            .app_data(gatekeeper.clone())
            .app_data(streams.clone())
            .app_data(proxies.clone())
            .wrap(gatekeeper.cors())
            .wrap(from_fn(guard))
            .wrap(from_fn(identify))
            .wrap(from_fn(end_unread))
            .configure(routes)
    };
    let server = server::serve(listener, node, tls, app)?;
    let handle = server.handle();
    detached(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "the http server ended");
        }
    });
    Ok(handle)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_new_data_directory_is_private_and_an_old_one_is_left_as_it_is() {
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        let dir = tempfile::tempdir().unwrap();
        let new = dir.path().join("a/b");
        make_private(&new).unwrap();
        assert_eq!(mode(&new), 0o700);

        let old = dir.path().join("old");
        std::fs::create_dir(&old).unwrap();
        std::fs::set_permissions(&old, std::fs::Permissions::from_mode(0o755)).unwrap();
        make_private(&old).unwrap();
        assert_eq!(mode(&old), 0o755);
        make_private(&new).unwrap();
        assert_eq!(mode(&new), 0o700);

        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(make_private(&file), Err(AppError::DataDir { .. })));
    }
}
