//! What every actor may use: clock, ids, models, tools, keys and settings. No actor is among them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use iris_agent::{Clock, IdSource, TurnLimits};
use iris_auth::{
    AccessTokens, ChangingKey, Fingerprints, Passwords, RefreshTokens, SealingKeys, SetupToken,
};
use iris_egress::Egress;
use iris_identity::Provider;
use iris_llm::{Catalog, Models};
use iris_protocol::limits::{
    FILE_LOCK_GRACE_MS, FILE_LOCK_WAIT_MS, FILES_WATCHED_MAX, TRANSFER_BYTES_MAX,
};
use iris_protocol::{
    ApiError, Deprecations, LogSet, LogSettings, ModelRef, RegistrationMode, UserId,
};
use iris_sandbox::Sandbox;
use iris_store::Storage;
use iris_store::project::{FileRetention, Quotas};
use iris_store::root::RecordAudit;
use iris_tools::{ToolRegistry, Workshop};
use iris_workspace::WATCHED_DIRECTORIES_MAX;
use parking_lot::{Mutex, RwLock};
use serde_json::{Map, Value};

use crate::connection::SocketSettings;
use crate::line::{Line, Shares};
use crate::rates::RateSettings;
use crate::supervision::Supervision;
use crate::{
    BackupSettings, BudgetSettings, GitSettings, Mailer, McpHost, Metrics, Origins,
    PresenceSettings, Threads,
};

/// Who may create an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// Anybody.
    Open,
    /// Who was invited.
    Invite,
    /// Nobody.
    Closed,
}

impl Registration {
    /// As clients read it.
    pub(crate) fn mode(self) -> RegistrationMode {
        match self {
            Self::Open => RegistrationMode::Open,
            Self::Invite => RegistrationMode::Invite,
            Self::Closed => RegistrationMode::Closed,
        }
    }
}

/// What becomes of runs that were interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResumePolicy {
    /// They stay so until somebody resumes them.
    Manual,
    /// They go on by themselves, a few times.
    Auto,
}

impl ResumePolicy {
    /// Where a project's settings choose one.
    const SETTING: &'static str = "resume";

    /// The policy of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "manual" => Some(Self::Manual),
            "auto" => Some(Self::Auto),
            _ => None,
        }
    }

    /// The one that the settings of a project choose.
    pub(crate) fn of_project(settings: &Map<String, Value>) -> Option<Self> {
        settings.get(Self::SETTING)?.as_str().and_then(Self::from_name)
    }

    /// Refuses settings of a project that choose one there is not.
    pub(crate) fn check(settings: &Map<String, Value>) -> Result<(), ApiError> {
        if settings.contains_key(Self::SETTING) && Self::of_project(settings).is_none() {
            let message = "`settings.resume` must be `manual` or `auto`";
            return Err(ApiError::invalid(message).reason("invalid_settings"));
        }
        Ok(())
    }
}

/// How the history of files is kept, and how locks end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSettings {
    /// What of the history is kept.
    pub kept: FileRetention,
    /// How long a lock stays when its owner has no connection any more.
    pub lock_grace: Duration,
    /// How long a tool waits for a lock.
    pub lock_wait: Duration,
    /// How long after a project was opened its files are looked at and watched.
    pub watch_after: Duration,
    /// Most files of one project that a look at everything finds.
    pub watched_files_max: usize,
    /// Most directories of one project that are watched.
    pub watched_directories_max: usize,
    /// How often everything is looked at where the system does not tell of all changes.
    pub scan_every: Duration,
    /// Largest file that is sent part by part, either way, in bytes.
    pub transfer_bytes_max: u64,
}

impl Default for FileSettings {
    fn default() -> Self {
        Self {
            kept: FileRetention::default(),
            lock_grace: Duration::from_millis(FILE_LOCK_GRACE_MS),
            lock_wait: Duration::from_millis(FILE_LOCK_WAIT_MS),
            watch_after: Duration::from_secs(1),
            watched_files_max: FILES_WATCHED_MAX,
            watched_directories_max: WATCHED_DIRECTORIES_MAX,
            scan_every: Duration::from_secs(30),
            transfer_bytes_max: TRANSFER_BYTES_MAX,
        }
    }
}

/// How conversations are kept within what models take, and what is done by a small one.
#[derive(Debug, Clone)]
pub struct ContextSettings {
    /// At which share of a model's context window a conversation is made shorter, in percent; 0 for only
    /// when the model refuses it.
    pub compact_at_percent: u8,
    /// The model that makes titles; the one of the session without it.
    pub small_model: Option<ModelRef>,
    /// Whether sessions without a title get one.
    pub titles: bool,
}

impl Default for ContextSettings {
    fn default() -> Self {
        Self { compact_at_percent: 80, small_model: None, titles: true }
    }
}

/// What the audit keeps. The newest record always stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditSettings {
    /// How long it keeps a record; none for ever.
    pub kept: Option<Duration>,
    /// Most records; 0 for no limit.
    pub records_max: u64,
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self { kept: Some(Duration::from_hours(2 * 365 * 24)), records_max: 1_000_000 }
    }
}

/// The operator's choices that actors need.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Holds the root database and everything of the projects.
    pub data_dir: PathBuf,
    /// Holds the key that secrets are sealed with, and can be changed.
    pub master_key: ChangingKey,
    /// How long what was sealed with the old key may be on its way to a database.
    pub key_settles: Duration,
    /// Directories under which a project may name its own directory.
    pub project_roots: Vec<PathBuf>,
    /// Where browsers reach this server: an origin, without a `/` at its end. None where nobody said.
    pub public_url: Option<String>,
    /// Where browsers may be sent after a login at a provider, exactly.
    pub oauth_redirects: Vec<String>,
    /// Who may create an account.
    pub registration: Registration,
    /// The model of sessions and agents that chose none.
    pub default_model: Option<ModelRef>,
    /// The model that is asked when another one does not answer.
    pub fallback_model: Option<ModelRef>,
    /// How conversations are kept within what models take.
    pub context: ContextSettings,
    /// Bounds of one run.
    pub turn: TurnLimits,
    /// How long a tool call waits for a person before the answer is no.
    pub approval_timeout: Duration,
    /// What becomes of interrupted runs where the project does not choose.
    pub resume: ResumePolicy,
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
    /// A project that nobody needs for this long is closed; never zero.
    pub project_idle: Duration,
    /// Most projects that are open at once, at least 1.
    pub projects_open_max: usize,
    /// A session without a run and without a message for this long ends; never zero.
    pub session_idle: Duration,
    /// How long a project's log keeps events; none for ever.
    pub events_kept: Option<Duration>,
    /// Most bytes of a project's log; 0 for no limit.
    pub events_kept_bytes_max: u64,
    /// The most that a project may hold.
    pub quotas: Quotas,
    /// What the audit keeps.
    pub audit: AuditSettings,
    /// How the history of files is kept, and how locks end.
    pub files: FileSettings,
    /// How git works.
    pub git: GitSettings,
    /// How connections are watched.
    pub sockets: SocketSettings,
    /// How often callers may ask.
    pub rates: RateSettings,
    /// How many runs and commands work at once, at the start.
    pub shares: Shares,
    /// How backups are made and archives taken.
    pub backups: BackupSettings,
    /// The operations that are on their way out.
    pub deprecations: Deprecations,
}

/// The log lines of the process: which are written, and how.
pub trait LogControl: Send + Sync {
    /// As they are now.
    fn settings(&self) -> LogSettings;

    /// Changes what `change` names, until the server stops. Gives the settings after it.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for a filter that is none; then nothing has changed. `CONFLICT` with reason
    /// `log_not_ours` where another program writes the log lines.
    fn set(&self, change: LogSet) -> Result<LogSettings, ApiError>;
}

/// Shared by all actors of a node.
pub struct Services {
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// New ids.
    pub ids: Arc<dyn IdSource>,
    /// The actors that are alive, and what became of the others.
    pub supervision: Supervision,
    /// The configured providers.
    pub models: Models,
    /// Where their answers are read.
    pub provider_threads: Threads,
    /// What is known of their models.
    pub catalog: Catalog,
    /// The tools of this server.
    pub tools: Arc<ToolRegistry>,
    /// Makes the tools that projects define.
    pub workshop: Workshop,
    /// Judges where git may go; none where nobody is reached.
    pub egress: Option<Arc<Egress>>,
    /// Where commands run; none where none may.
    pub sandbox: Option<Sandbox>,
    /// Where connections to MCP servers live.
    pub mcp: McpHost,
    /// Issues and checks access tokens.
    pub access_tokens: AccessTokens,
    /// Makes refresh tokens.
    pub refresh_tokens: RefreshTokens,
    /// The providers at which people may log in, by their names in the configuration.
    pub identity_providers: BTreeMap<String, Provider>,
    /// Seals secrets at rest.
    pub sealing: SealingKeys,
    /// Tells requests with secrets in them apart.
    pub fingerprints: Fingerprints,
    /// Hashes passwords off the arbiters.
    pub passwords: Passwords,
    /// Sends e-mails; none where no mail server is configured.
    pub mailer: Option<Arc<Mailer>>,
    /// Where the requests come from that are under way.
    pub origins: Arc<Origins>,
    /// There until somebody is an administrator.
    pub setup_token: Mutex<Option<SetupToken>>,
    /// The log lines of the process.
    pub log: Arc<dyn LogControl>,
    /// What is counted for operators.
    pub metrics: Arc<Metrics>,
    /// How much may be used where nobody says otherwise.
    pub budgets: RwLock<BudgetSettings>,
    /// Which runs work, and which wait for a place.
    pub runs: Line,
    /// Which commands of agents run, and which wait.
    pub commands: Line,
    /// The disk of the data directory.
    pub storage: Storage,
    /// The operator's choices.
    pub settings: Settings,
    /// Set once the server stops.
    pub draining: AtomicBool,
}

impl Services {
    /// Whether the server is stopping: runs may end, none may start.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// What the audit is to say of something that a user did in the current request.
    pub(crate) fn audit(
        &self,
        user_id: &UserId,
        action: &str,
        target: &str,
        details: Value,
    ) -> RecordAudit {
        self.origins.audit(self.clock.as_ref(), user_id, action, target, details)
    }
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    fn now_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

/// UUIDs of version 7 (RFC 9562): they sort by the time they were made.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemIds;

impl IdSource for SystemIds {
    fn next_bits(&self) -> u128 {
        uuid::Uuid::now_v7().as_u128()
    }
}
