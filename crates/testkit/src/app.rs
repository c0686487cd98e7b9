//! A server of a test, on a thread of its own.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ipnet::IpNet;
use iris::app::{App, AppError, Dependencies};
use iris::config::{Config, Given};
use iris_actors::connection::SocketSettings;
use iris_actors::owner::Hop;
use iris_actors::supervision::{Supervision, WatchdogSettings};
use iris_actors::{
    AuditSettings, BackupSettings, BudgetSettings, ContextSettings, FileSettings, GitSettings,
    KEY_SETTLES, Node, PresenceSettings, RateSettings, Registration, ResumePolicy, Shares,
    SmtpSettings,
};
use iris_agent::{Clock, RetryLimits, TurnLimits};
use iris_auth::{Passwords, SetupToken};
use iris_client::Client;
use iris_egress::Exception;
use iris_identity::ProviderSettings;
use iris_llm::{LocalServer, ProviderConfig, ProviderKind};
use iris_protocol::{
    ActorInfo, AuthRegister, AuthSetup, Deprecations, LogFormat, ModelRef, limits::IMPORT_BYTES_MAX,
};
use iris_sandbox::Config as SandboxConfig;
use iris_store::Storage;
use iris_store::project::Quotas;
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::hop::TextHop;
use crate::{PASSWORD, Person, moment, patiently};

/// Creates the first administrator of every server here.
pub const SETUP_TOKEN: &str = "the-setup-token-of-every-test";

/// Set to anything in the environment, it puts a remote hop into every server here.
pub const REMOTE: &str = "TESTKIT_REMOTE";

/// What a test may want otherwise. The default is a server with the scripted model and open
/// registration, whose runs are cut off when it stops.
#[derive(Clone)]
pub struct AppOptions {
    /// Where it listens; 0, the default, for a free one.
    pub port: u16,
    /// Who may create an account.
    pub registration: Registration,
    /// Providers at which people may log in, by name; none by default.
    pub oauth: BTreeMap<String, ProviderSettings>,
    /// Where browsers may be sent after such a login; nowhere by default.
    pub oauth_redirects: Vec<String>,
    /// Holds the key that signed access tokens before; none by default.
    pub jwt_secret_previous_file: Option<PathBuf>,
    /// Networks of proxies that are believed; none by default.
    pub trusted_proxies: Vec<IpNet>,
    /// Sends e-mails; none by default.
    pub smtp: Option<SmtpSettings>,
    /// By name; `demo` of kind `scripted` by default.
    pub providers: BTreeMap<String, ProviderConfig>,
    /// `demo/script` by default.
    pub default_model: Option<ModelRef>,
    /// Asked when another model does not answer; none by default.
    pub fallback_model: Option<ModelRef>,
    /// Where servers of models are looked for when no provider is configured; nowhere by default.
    pub local_servers: Vec<LocalServer>,
    /// A list of models in place of the one that the server brings along.
    pub model_catalog: Option<PathBuf>,
    /// How conversations are kept within what models take; sessions get no titles by default.
    pub context: ContextSettings,
    /// Directories under which projects may have their own.
    pub project_roots: Vec<PathBuf>,
    /// Pages that may call.
    pub allowed_origins: Vec<String>,
    /// What tools may fetch besides the public web; nothing by default.
    pub egress_allow: Vec<Exception>,
    /// How commands are run; by default none are, and there is no tool `bash`.
    pub sandbox: Option<SandboxConfig>,
    /// The time of day; none for the machine's.
    pub clock: Option<Arc<dyn Clock>>,
    /// How long a tool call waits for a person.
    pub approval_timeout: Duration,
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
    /// How git works.
    pub git: GitSettings,
    /// How often a comment is written to each event stream.
    pub stream_comments: Duration,
    /// How long an access token is good, in whole seconds.
    pub access_token_lifetime: Option<Duration>,
    /// How long what was sealed with the old master key may be on its way to a database.
    pub key_settles: Duration,
    /// Bounds of one run.
    pub turn: TurnLimits,
    /// How long runs may go on while the server stops.
    pub drain: Duration,
    /// A project that nobody needs for this long is closed.
    pub project_idle: Duration,
    /// Most projects that are open at once.
    pub projects_open_max: usize,
    /// A session that does nothing for this long ends.
    pub session_idle: Duration,
    /// How long a project's log keeps events; none for ever.
    pub events_kept: Option<Duration>,
    /// Most bytes of a project's log; 0 for no limit.
    pub events_kept_bytes_max: u64,
    /// The most that a project may hold; no limit by default.
    pub quotas: Quotas,
    /// How much may be used where nobody says otherwise; no limit by default.
    pub budgets: Box<BudgetSettings>,
    /// What the audit keeps.
    pub audit: AuditSettings,
    /// What becomes of interrupted runs in projects that do not choose.
    pub resume: ResumePolicy,
    /// How often projects that changed are backed up; none for never.
    pub backup_interval: Option<Duration>,
    /// How many of those that the server makes by itself are kept of each project.
    pub backups_kept: usize,
    /// Largest archive that is imported, in bytes.
    pub import_bytes_max: u64,
    /// How connections are watched.
    pub sockets: SocketSettings,
    /// How often callers may ask; no limit by default.
    pub rates: RateSettings,
    /// How many runs and commands work at once; no limit by default.
    pub shares: Shares,
    /// How often the watchdog looks, and how long a thread may be silent.
    pub watchdog: WatchdogSettings,
    /// Whether projects are reached as on another machine: over text, through another thread. By
    /// default when [`REMOTE`] is set.
    pub remote: bool,
    /// The operations that are on their way out; none by default.
    pub deprecations: Deprecations,
}

impl Default for AppOptions {
    fn default() -> Self {
        let Dependencies {
            turn,
            approval_timeout,
            hello_timeout,
            answer_stall,
            body_timeout,
            stream_comments,
            ..
        } = Dependencies::default();
        let scripted = ProviderConfig::new(ProviderKind::Scripted);
        Self {
            port: 0,
            registration: Registration::Open,
            oauth: BTreeMap::new(),
            oauth_redirects: Vec::new(),
            jwt_secret_previous_file: None,
            trusted_proxies: Vec::new(),
            smtp: None,
            providers: BTreeMap::from([("demo".to_owned(), scripted)]),
            default_model: Some(model("demo", "script")),
            fallback_model: None,
            local_servers: Vec::new(),
            model_catalog: None,
            context: ContextSettings { titles: false, ..ContextSettings::default() },
            project_roots: Vec::new(),
            allowed_origins: Vec::new(),
            egress_allow: Vec::new(),
            sandbox: None,
            clock: None,
            approval_timeout,
            hello_timeout,
            answer_stall,
            body_timeout,
            presence: PresenceSettings::default(),
            files: FileSettings::default(),
            git: GitSettings::default(),
            stream_comments,
            access_token_lifetime: None,
            key_settles: KEY_SETTLES,
            turn: TurnLimits { retry: RetryLimits { attempts_max: 1, ..turn.retry }, ..turn },
            drain: Duration::ZERO,
            project_idle: Duration::from_mins(1),
            projects_open_max: 512,
            session_idle: Duration::from_mins(1),
            events_kept: Some(Duration::from_hours(30 * 24)),
            events_kept_bytes_max: 0,
            quotas: Quotas::default(),
            budgets: Box::default(),
            audit: AuditSettings::default(),
            resume: ResumePolicy::Manual,
            backup_interval: None,
            backups_kept: BackupSettings::KEPT_DEFAULT,
            import_bytes_max: IMPORT_BYTES_MAX,
            sockets: SocketSettings::default(),
            rates: RateSettings::NONE,
            shares: Shares::NONE,
            watchdog: WatchdogSettings::default(),
            deprecations: Deprecations::CURRENT,
            remote: std::env::var_os(REMOTE).is_some(),
        }
    }
}

impl AppOptions {
    /// A server whose default model is `fake/model` of a provider at `base_url`.
    pub fn with_provider(base_url: String) -> Self {
        let mut options = Self::default();
        let settings = ProviderConfig {
            base_url: Some(base_url),
            ..ProviderConfig::new(ProviderKind::OpenAiCompatible)
        };
        options.providers.insert("fake".to_owned(), settings);
        options.default_model = Some(model("fake", "model"));
        options
    }

    fn config(&self, data_dir: &Path) -> Config {
        Config {
            given: Given::default(),
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)),
            tls: None,
            data_dir: data_dir.to_owned(),
            setup_token: Some(SetupToken::new(SETUP_TOKEN.to_owned()).unwrap()),
            registration: self.registration,
            jwt_secret_file: data_dir.join("jwt.key"),
            jwt_secret_previous_file: self.jwt_secret_previous_file.clone(),
            trusted_proxies: self.trusted_proxies.clone(),
            smtp: self.smtp.clone(),
            master_key_file: data_dir.join("master.key"),
            master_key_previous_file: None,
            default_model: self.default_model.clone(),
            fallback_model: self.fallback_model.clone(),
            model_catalog: self.model_catalog.clone(),
            detect_models: true,
            context: self.context.clone(),
            providers: self.providers.clone(),
            project_roots: self.project_roots.clone(),
            allowed_origins: self.allowed_origins.clone(),
            allowed_hosts: Vec::new(),
            public_url: None,
            oauth: self.oauth.clone(),
            oauth_redirects: self.oauth_redirects.clone(),
            egress_allow: self.egress_allow.clone(),
            sandbox: self.sandbox.clone(),
            drain: self.drain,
            project_idle: self.project_idle,
            projects_open_max: self.projects_open_max,
            session_idle: self.session_idle,
            events_kept: self.events_kept,
            events_kept_bytes_max: self.events_kept_bytes_max,
            quotas: self.quotas,
            budgets: *self.budgets,
            audit: self.audit,
            files_kept: self.files.kept,
            transfer_bytes_max: self.files.transfer_bytes_max,
            git: self.git,
            resume: self.resume,
            backups: BackupSettings {
                interval: self.backup_interval,
                kept: self.backups_kept,
                import_bytes_max: self.import_bytes_max,
            },
            sockets: self.sockets,
            rates: self.rates,
            shares: self.shares,
            watchdog_abort: None,
            log: "info".to_owned(),
            log_format: LogFormat::Text,
            otlp: None,
        }
    }

    /// `hop_texts` counts what goes over the remote hop, if there is one.
    fn dependencies(&self, hop_texts: &Arc<AtomicU64>) -> Dependencies {
        let mut dependencies = Dependencies {
            turn: self.turn,
            approval_timeout: self.approval_timeout,
            hello_timeout: self.hello_timeout,
            answer_stall: self.answer_stall,
            body_timeout: self.body_timeout,
            presence: self.presence,
            files: self.files,
            stream_comments: self.stream_comments,
            access_token_lifetime: self.access_token_lifetime,
            key_settles: self.key_settles,
            passwords: Passwords::for_this_machine().cheap(),
            watchdog: self.watchdog,
            local_servers: self.local_servers.clone(),
            deprecations: self.deprecations,
            ..Dependencies::default()
        };
        if let Some(clock) = &self.clock {
            dependencies.clock = Arc::clone(clock);
        }
        if self.remote {
            let count = Arc::clone(hop_texts);
            let make =
                move |node| Arc::new(TextHop::start(node, Arc::clone(&count))) as Arc<dyn Hop>;
            dependencies.hop = Some(Arc::new(make));
        }
        dependencies
    }
}

fn model(provider: &str, model: &str) -> ModelRef {
    ModelRef { provider_id: provider.to_owned(), model_id: model.to_owned() }
}

/// A running server. When it is dropped it stops by itself, without being waited for.
pub struct TestApp {
    /// Like `http://127.0.0.1:40000`.
    pub url: String,
    /// Without tokens. One for all: to make one is slow.
    client: Client,
    data_dir: Arc<TempDir>,
    /// In a box: whoever holds a server holds it across waits.
    options: Box<AppOptions>,
    supervision: Supervision,
    storage: Storage,
    node: Node,
    hop_texts: Arc<AtomicU64>,
    server: Server,
}

struct Server {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<(), AppError>>,
}

/// Starts a server with the default options.
///
/// # Panics
/// When it does not start.
pub async fn spawn_app() -> TestApp {
    spawn_app_with(AppOptions::default()).await
}

/// Starts a server.
///
/// # Panics
/// When it does not start.
pub async fn spawn_app_with(options: AppOptions) -> TestApp {
    TestApp::start(Box::new(options), Arc::new(tempfile::tempdir().unwrap())).await
}

/// Starts a server on a directory of the caller's choice.
///
/// # Panics
/// When it does not start.
pub async fn spawn_app_in(options: AppOptions, data_dir: TempDir) -> TestApp {
    TestApp::start(Box::new(options), Arc::new(data_dir)).await
}

impl TestApp {
    async fn start(options: Box<AppOptions>, data_dir: Arc<TempDir>) -> Self {
        let hop_texts = Arc::<AtomicU64>::default();
        let config = options.config(data_dir.path());
        let dependencies = options.dependencies(&hop_texts);
        let (stop, stopped) = oneshot::channel();
        let (started, running) = oneshot::channel();
        // The server's thread keeps the directory until everything in it is closed.
        let keep = Arc::clone(&data_dir);
        let thread = thread::spawn(move || {
            let stopped = actix_rt::System::new().block_on(async move {
                let app = App::start(config, dependencies).await.unwrap();
                let inside = (app.supervision().clone(), app.storage().clone(), app.node().clone());
                started.send((app.address(), inside)).ok().unwrap();
                // Fails when the test has dropped the server, which means the same.
                stopped.await.ok();
                app.stop().await
            });
            drop(keep);
            stopped
        });
        let (address, (supervision, storage, node)) =
            patiently("the server to start", running).await.unwrap();
        let server = Server { stop, thread };
        let url = format!("http://{address}");
        let client = Client::new(&url).unwrap();
        Self { url, client, data_dir, options, supervision, storage, node, hop_texts, server }
    }

    /// Stops the server gracefully and waits for it.
    ///
    /// # Panics
    /// When it does not stop cleanly.
    pub async fn stop(self) {
        self.try_stop().await.unwrap();
    }

    /// Stops the server gracefully and waits for it, whatever became of it before.
    ///
    /// # Errors
    /// Those of [`App::stop`].
    ///
    /// # Panics
    /// When it does not stop at all.
    pub async fn try_stop(self) -> Result<(), AppError> {
        let Server { stop, thread } = self.server;
        stop.send(()).unwrap();
        let stopped = tokio::task::spawn_blocking(move || thread.join());
        patiently("the server to stop", stopped).await.unwrap().unwrap()
    }

    /// Stops the server and starts it again on the same data directory, on another port.
    ///
    /// # Panics
    /// When it does not stop or start.
    pub async fn restart(self) -> Self {
        let (stopped, again) = self.try_restart().await;
        stopped.unwrap();
        again
    }

    /// The same with other options.
    ///
    /// # Panics
    /// When it does not stop cleanly, or does not start.
    pub async fn restart_with(self, change: impl FnOnce(&mut AppOptions)) -> Self {
        let (mut options, data_dir) = (self.options.clone(), Arc::clone(&self.data_dir));
        change(&mut options);
        self.stop().await;
        Self::start(options, data_dir).await
    }

    /// The same, with something done to the data directory between the two.
    ///
    /// # Panics
    /// As [`TestApp::restart`].
    pub async fn restart_after(self, meanwhile: impl FnOnce()) -> Self {
        let (options, data_dir) = (self.options.clone(), Arc::clone(&self.data_dir));
        self.try_stop().await.unwrap();
        meanwhile();
        Self::start(options, data_dir).await
    }

    /// Stops the server, whatever became of it before, and starts it again as [`TestApp::restart`].
    ///
    /// # Panics
    /// When it does not stop at all, or does not start.
    pub async fn try_restart(self) -> (Result<(), AppError>, Self) {
        let (options, data_dir) = (self.options.clone(), Arc::clone(&self.data_dir));
        let stopped = self.try_stop().await;
        (stopped, Self::start(options, data_dir).await)
    }

    /// Where the server keeps everything.
    pub fn data_dir(&self) -> &Path {
        self.data_dir.path()
    }

    /// The supervision of the server's actors.
    pub fn supervision(&self) -> &Supervision {
        &self.supervision
    }

    /// The disk of the server, which can be told to look full.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The server's actors, past everything that stands before them.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// How many questions, answers and frames went over the remote hop so far.
    pub fn hop_texts(&self) -> u64 {
        self.hop_texts.load(Ordering::Relaxed)
    }

    /// Waits until the actors that are alive are the right ones.
    ///
    /// # Panics
    /// When they never are.
    pub async fn wait_for_actors(&self, what: &str, is_right: impl Fn(&[ActorInfo]) -> bool) {
        let waiting = async {
            while !is_right(&self.supervision.actors(None, None)) {
                // Nobody tells when an actor ends.
                moment().await;
            }
        };
        patiently(what, waiting).await;
    }

    /// A client without tokens.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Creates the administrator `root`.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn admin(&self) -> Person {
        let request = AuthSetup {
            token: SETUP_TOKEN.to_owned(),
            email: "root@example.com".to_owned(),
            username: "root".to_owned(),
            password: PASSWORD.to_owned(),
        };
        Person::new(self.client(), self.client().setup(&request).await.unwrap())
    }

    /// Registers a user: `bob` gets the address `bob@example.com` and [`PASSWORD`].
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn user(&self, name: &str) -> Person {
        let request = AuthRegister {
            invitation: None,
            email: format!("{name}@example.com"),
            username: name.to_owned(),
            password: PASSWORD.to_owned(),
        };
        Person::new(self.client(), self.client().register(&request).await.unwrap())
    }

    /// The same person at this server, after a restart gave it another port.
    pub fn again(&self, person: &Person) -> Person {
        Person::new(self.client(), person.grant.clone())
    }
}
