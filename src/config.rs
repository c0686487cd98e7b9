//! Everything that an operator can set, as one typed value. The only reader of the environment.
//!
//! Sources, the later ones win: defaults, the TOML file, `IRIS_*` variables, flags. A bad value names
//! the place where it was set; secrets are never shown.

mod error;
mod oauth;
mod parse;
mod provider;
mod reference;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use directories::ProjectDirs;
use ipnet::IpNet;
use iris_actors::connection::SocketSettings;
use iris_actors::{
    AuditSettings, BackupSettings, BudgetSettings, ContextSettings, GitSettings, LineLimits,
    MailError, Rate, RateSettings, Registration, ResumePolicy, Shares, SmtpSettings,
};
use iris_auth::SetupToken;
use iris_egress::Exception;
use iris_identity::ProviderSettings;
use iris_llm::ProviderConfig;
use iris_protocol::{
    Budget, LogFormat, ModelRef, ProjectBudgets, UserBudgets,
    limits::{IMPORT_BYTES_MAX, TRANSFER_BYTES_MAX},
};
use iris_sandbox::{Config as SandboxConfig, Limits as SandboxLimits, Tier};
use iris_store::project::{FileRetention, Quotas};

pub use error::ConfigError;
pub use settings::Given;
use settings::{ENV_PREFIX, Section, Settings};

use crate::tls::TlsFiles;

/// Where the server listens unless told otherwise.
const BIND_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4747);
/// What commands leave free on the disk.
const DISK_FREE_BYTES_MIN_DEFAULT: u64 = 256 * 1024 * 1024;
const DRAIN_DEFAULT: Duration = Duration::from_secs(30);
const IDLE_DEFAULT: Duration = Duration::from_mins(1);
const PROJECTS_OPEN_DEFAULT: usize = 512;
const EVENTS_KEPT_DEFAULT: Duration = Duration::from_hours(30 * 24);
const EVENTS_KEPT_BYTES_DEFAULT: u64 = 64 << 20;
const QUOTAS_DEFAULT: Quotas = Quotas {
    rows_max: 1_000_000,
    bytes_max: 4 << 30,
    files_max: 100_000,
    file_bytes_max: 10 << 30,
};
const LOG_DEFAULT: &str = "info";
const OTLP_SERVICE_NAME_DEFAULT: &str = "iris";
/// Names of the key files in the data directory.
const JWT_SECRET_FILE_DEFAULT: &str = "jwt.key";
const MASTER_KEY_FILE_DEFAULT: &str = "master.key";

/// The settings that can be given on the command line; they win over every other source.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Flags {
    /// TOML file with settings [env: `IRIS_CONFIG`]
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,
    /// Directory for everything the server keeps [env: `IRIS_DATA_DIR`]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Address and port to listen on; port 0 takes a free one [env: `IRIS_BIND`]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub bind: Option<String>,
    /// Which log lines to write, like `info` or `iris=debug,warn` [env: `IRIS_LOG`]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// `text` or `json` [env: `IRIS_LOG_FORMAT`]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

/// The configuration of one server.
#[derive(Debug, Clone)]
pub struct Config {
    /// What the sources say.
    pub given: Given,
    /// Where to listen; port 0 takes a free one.
    pub bind: SocketAddr,
    /// The certificate of the listener; `None` where TLS is left to others.
    pub tls: Option<TlsFiles>,
    /// Holds everything the server keeps. May not exist yet, may be relative.
    pub data_dir: PathBuf,
    /// Creates the first admin; `None` means a new one at each start.
    pub setup_token: Option<SetupToken>,
    /// Who may create an account.
    pub registration: Registration,
    /// Holds the key that signs access tokens; made when there is none.
    pub jwt_secret_file: PathBuf,
    /// Holds the key that signed them before: those that have not ended are good.
    pub jwt_secret_previous_file: Option<PathBuf>,
    /// Holds the key that secrets are sealed with; made when there is none.
    pub master_key_file: PathBuf,
    /// Holds the key that they were sealed with before.
    pub master_key_previous_file: Option<PathBuf>,
    /// For sessions that name no model. Its provider is in `providers`.
    pub default_model: Option<ModelRef>,
    /// What is asked when a model does not answer. Its provider is in `providers`.
    pub fallback_model: Option<ModelRef>,
    /// A list of models in place of the one that the server brings along.
    pub model_catalog: Option<PathBuf>,
    /// Whether servers of models on this machine are looked for when no provider is configured.
    pub detect_models: bool,
    /// How conversations are kept within what models take, and titles. The provider of a small model is in
    /// `providers`.
    pub context: ContextSettings,
    /// By name: lower case letters, digits, `-` and `_`.
    pub providers: BTreeMap<String, ProviderConfig>,
    /// Absolute directories under which projects with a path of their own must lie.
    pub project_roots: Vec<PathBuf>,
    /// Values of `Origin` that browsers may connect with.
    pub allowed_origins: Vec<String>,
    /// Values of `Host` that are the server, with or without port, besides its own address. Lower case.
    pub allowed_hosts: Vec<String>,
    /// Where browsers reach this server: an origin, without a `/` at its end. `None` where only this machine
    /// does.
    pub public_url: Option<String>,
    /// Providers at which people may log in, by name: lower case letters, digits, `-` and `_`.
    pub oauth: BTreeMap<String, ProviderSettings>,
    /// Where browsers may be sent after such a login, exactly.
    pub oauth_redirects: Vec<String>,
    /// Networks of proxies whose word about a client's address is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Sends e-mails; `None` for none.
    pub smtp: Option<SmtpSettings>,
    /// What tools may fetch besides the public web.
    pub egress_allow: Vec<Exception>,
    /// How commands are run; `None` means that none are, and that there is no tool `bash`.
    pub sandbox: Option<SandboxConfig>,
    /// How long runs may go on after the signal to stop.
    pub drain: Duration,
    /// A project that nobody needs for this long is closed. Not zero.
    pub project_idle: Duration,
    /// Most projects that are open at once, at least 1.
    pub projects_open_max: usize,
    /// A session without a run and without a message for this long ends. Not zero.
    pub session_idle: Duration,
    /// How long a project's log keeps events; `None` means for ever.
    pub events_kept: Option<Duration>,
    /// Most bytes of a project's log; 0 means no limit.
    pub events_kept_bytes_max: u64,
    /// The most that a project may hold; 0 means no limit.
    pub quotas: Quotas,
    /// How much may be used where neither a project nor an administrator says otherwise.
    pub budgets: BudgetSettings,
    /// What the audit keeps.
    pub audit: AuditSettings,
    /// How much of the history of files a project keeps.
    pub files_kept: FileRetention,
    /// Largest file that is sent part by part, either way, in bytes.
    pub transfer_bytes_max: u64,
    /// How long and how much is cloned with git.
    pub git: GitSettings,
    /// What becomes of interrupted runs in projects that do not choose.
    pub resume: ResumePolicy,
    /// How connections are watched.
    pub sockets: SocketSettings,
    /// How often callers may ask.
    pub rates: RateSettings,
    /// How many runs and commands work at once.
    pub shares: Shares,
    /// How backups are made and archives taken.
    pub backups: BackupSettings,
    /// How long a thread may be blocked before the process aborts; `None` means for ever.
    pub watchdog_abort: Option<Duration>,
    /// Which log lines to write; a valid filter of `tracing-subscriber`.
    pub log: String,
    /// How to write them.
    pub log_format: LogFormat,
    /// The collector of spans; `None` for none.
    pub otlp: Option<Otlp>,
}

/// Where spans are sent, as OTLP over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Otlp {
    /// Base URL of the collector without a `/` at its end; spans go to `/v1/traces` below it.
    pub endpoint: String,
    /// What the collector knows this server as. Not empty.
    pub service_name: String,
}

impl Config {
    /// Reads the configuration from the environment of this process and from the file system.
    /// Returns warnings too, for the log that is not set up yet.
    ///
    /// # Errors
    /// As [`Config::load`], and [`ConfigError::NotUtf8`].
    pub fn from_process(flags: Flags) -> Result<(Self, Vec<String>), ConfigError> {
        let environment = environment(std::env::vars_os())?;
        Self::load(flags, environment.into_iter(), |path| fs::read_to_string(path))
    }

    /// Builds the configuration from `flags`, `environment` and the file that one of them names,
    /// which is read with `read_file`. Returns warnings too, one sentence each.
    ///
    /// # Errors
    /// Each variant of [`ConfigError`] but [`ConfigError::NotUtf8`]; the first problem found.
    pub fn load(
        flags: Flags,
        environment: impl Iterator<Item = (String, String)>,
        read_file: impl FnOnce(&Path) -> io::Result<String>,
    ) -> Result<(Self, Vec<String>), ConfigError> {
        let mut variables: BTreeMap<String, String> = environment.collect();
        let file_from_environment = variables.remove("IRIS_CONFIG");
        variables.retain(|name, _| !crate::remote::VARIABLES.contains(&name.as_str()));
        let file = flags.config.clone().or(file_from_environment).map(PathBuf::from);

        let mut settings = Settings::default();
        if let Some(path) = file {
            let text = read_file(&path)
                .map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
            settings.add_file(&path, &text)?;
        }
        let mut warnings = settings.add_environment(variables);
        settings.add_flags(flags);
        let config = Self::from_settings(settings, &mut warnings)?;
        Ok((config, warnings))
    }

    fn from_settings(settings: Settings, warnings: &mut Vec<String>) -> Result<Self, ConfigError> {
        let given = settings.given();
        let Settings { mut top, providers, oauth } = settings;
        let data_dir = match top.parse("data_dir", parse::path)? {
            Some(data_dir) => data_dir,
            None => data_dir_default()?,
        };
        let providers = providers
            .into_iter()
            .map(|(name, section)| {
                Ok((name.clone(), provider::provider(&name, section, warnings)?))
            })
            .collect::<Result<BTreeMap<_, _>, ConfigError>>()?;
        let oauth = oauth
            .into_iter()
            .map(|(name, section)| Ok((name.clone(), oauth::provider(&name, section)?)))
            .collect::<Result<BTreeMap<_, _>, ConfigError>>()?;
        let default_model = top.parse("default_model", |text| parse::model(text, &providers))?;
        let fallback_model = top.parse("fallback_model", |text| parse::model(text, &providers))?;
        let context = context(&mut top, &providers)?;
        let config = Self {
            given,
            bind: top.parse("bind", parse::bind)?.unwrap_or(BIND_DEFAULT),
            tls: tls(&mut top)?,
            setup_token: top.parse_secret("setup_token", parse::setup_token)?,
            registration: top
                .parse("registration", parse::registration)?
                .unwrap_or(Registration::Closed),
            jwt_secret_file: top
                .parse("jwt_secret_file", parse::path)?
                .unwrap_or_else(|| data_dir.join(JWT_SECRET_FILE_DEFAULT)),
            jwt_secret_previous_file: top.parse("jwt_secret_previous_file", parse::path)?,
            master_key_file: top
                .parse("master_key_file", parse::path)?
                .unwrap_or_else(|| data_dir.join(MASTER_KEY_FILE_DEFAULT)),
            master_key_previous_file: top.parse("master_key_previous_file", parse::path)?,
            model_catalog: top.parse("model_catalog", parse::path)?,
            detect_models: top.parse("detect_models", parse::switch)?.unwrap_or(true),
            project_roots: top.parse_list("project_roots", parse::absolute_path)?,
            allowed_origins: top.parse_list("allowed_origins", parse::allowed_origin)?,
            allowed_hosts: top.parse_list("allowed_hosts", parse::host)?,
            public_url: top.parse("public_url", parse::origin)?,
            oauth,
            oauth_redirects: top.parse_list("oauth_redirects", parse::redirect)?,
            trusted_proxies: top.parse_list("trusted_proxies", parse::network)?,
            smtp: smtp(&mut top)?,
            egress_allow: top.parse_list("egress_allow", parse::egress_exception)?,
            sandbox: sandbox(&mut top)?,
            drain: top.parse("drain_seconds", parse::drain)?.unwrap_or(DRAIN_DEFAULT),
            project_idle: top
                .parse("project_idle_seconds", parse::seconds)?
                .unwrap_or(IDLE_DEFAULT),
            projects_open_max: top
                .parse("projects_open_max", parse::projects_open_max)?
                .unwrap_or(PROJECTS_OPEN_DEFAULT),
            session_idle: top
                .parse("session_idle_seconds", parse::seconds)?
                .unwrap_or(IDLE_DEFAULT),
            events_kept: top
                .parse("events_kept_days", parse::days)?
                .unwrap_or(Some(EVENTS_KEPT_DEFAULT)),
            events_kept_bytes_max: top
                .parse("events_kept_bytes_max", parse::number)?
                .unwrap_or(EVENTS_KEPT_BYTES_DEFAULT),
            quotas: quotas(&mut top)?,
            budgets: budgets(&mut top)?,
            audit: audit(&mut top)?,
            files_kept: files_kept(&mut top)?,
            transfer_bytes_max: top
                .parse("transfer_bytes_max", parse::bytes)?
                .unwrap_or(TRANSFER_BYTES_MAX),
            git: git(&mut top)?,
            resume: top.parse("resume", parse::resume)?.unwrap_or(ResumePolicy::Manual),
            sockets: sockets(&mut top)?,
            rates: rates(&mut top)?,
            shares: shares(&mut top)?,
            backups: BackupSettings {
                interval: top.parse("backup_interval_hours", parse::backup_interval)?.flatten(),
                kept: top
                    .parse("backups_kept", parse::backups_kept)?
                    .unwrap_or(BackupSettings::KEPT_DEFAULT),
                import_bytes_max: top
                    .parse("import_bytes_max", parse::bytes)?
                    .unwrap_or(IMPORT_BYTES_MAX),
            },
            watchdog_abort: top.parse("watchdog_abort_seconds", parse::seconds_or_never)?.flatten(),
            log: top.parse("log", parse::log_filter)?.unwrap_or_else(|| LOG_DEFAULT.to_owned()),
            log_format: top.parse("log_format", parse::log_format)?.unwrap_or(LogFormat::Text),
            otlp: otlp(&mut top, warnings)?,
            data_dir,
            default_model,
            fallback_model,
            context,
            providers,
        };
        debug_assert!(top.keys_left().is_empty(), "keys not read: {:?}", top.keys_left());
        Ok(config)
    }
}

impl Config {
    /// The keys whose values differ from those of `before`: those that a server takes while it runs, and those that
    /// take a restart.
    pub fn changes(&self, before: &Self) -> (Vec<String>, Vec<String>) {
        let changed = self.given.differences(&before.given);
        changed.into_iter().partition(|key| reference::is_live(key))
    }
}

/// Every setting at its default as a file, with comments; with all that is known of each when `explain`.
pub fn reference_file(explain: bool) -> String {
    reference::file(explain)
}

/// What is known of every setting, for programs.
pub fn reference_json() -> serde_json::Value {
    reference::describe()
}

/// Whether the listener speaks TLS. Both keys, or neither.
fn tls(top: &mut Section) -> Result<Option<TlsFiles>, ConfigError> {
    let certificate = top.parse("tls_certificate_file", parse::path)?;
    let key = top.parse("tls_key_file", parse::path)?;
    let lacking = |name: &str, other: &str| ConfigError::BadValue {
        name: format!("`{name}`"),
        problem: format!("is needed with `{other}`"),
    };
    match (certificate, key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles { certificate, key })),
        (Some(_), None) => Err(lacking("tls_key_file", "tls_certificate_file")),
        (None, Some(_)) => Err(lacking("tls_certificate_file", "tls_key_file")),
    }
}

/// The mail server. Both keys, or neither.
fn smtp(top: &mut Section) -> Result<Option<SmtpSettings>, ConfigError> {
    let bad = |name: &str, problem: &str| ConfigError::BadValue {
        name: format!("`{name}`"),
        problem: problem.to_owned(),
    };
    let url = top.parse_secret("smtp_url", parse::secret_text)?;
    let from = top.parse("smtp_from", parse::secret_text)?;
    let settings = match (url, from) {
        (None, None) => return Ok(None),
        (Some(url), Some(from)) => SmtpSettings { url, from },
        (Some(_), None) => return Err(bad("smtp_from", "is needed with `smtp_url`")),
        (None, Some(_)) => return Err(bad("smtp_url", "is needed with `smtp_from`")),
    };
    match settings.check() {
        Ok(()) => Ok(Some(settings)),
        Err(error @ MailError::Url) => Err(bad("smtp_url", &error.to_string())),
        Err(error @ MailError::From(_)) => Err(bad("smtp_from", &error.to_string())),
    }
}

/// Only S3 keeps commands from the protected paths of a project: less is for the operator to choose.
const SANDBOX_MINIMUM_DEFAULT: Tier = Tier::S3;

fn context(
    top: &mut Section,
    providers: &BTreeMap<String, ProviderConfig>,
) -> Result<ContextSettings, ConfigError> {
    let defaults = ContextSettings::default();
    let percent = top.parse("compact_at_percent", parse::compact_at_percent)?;
    Ok(ContextSettings {
        compact_at_percent: percent.unwrap_or(defaults.compact_at_percent),
        small_model: top.parse("small_model", |text| parse::model(text, providers))?,
        titles: top.parse("titles", parse::switch)?.unwrap_or(defaults.titles),
    })
}

/// How commands are run. Where none are, the other keys are read all the same: a mistake is a mistake.
fn sandbox(top: &mut Section) -> Result<Option<SandboxConfig>, ConfigError> {
    let defaults = SandboxConfig::default();
    let minimum = top.parse("sandbox_minimum", parse::sandbox_minimum)?;
    let config = SandboxConfig {
        uid: top.parse("sandbox_uid", parse::unprivileged_id)?,
        gid: top.parse("sandbox_gid", parse::unprivileged_id)?,
        extra_read_only: top.parse_list("sandbox_read_only", parse::absolute_path)?,
        cgroup: top.parse("sandbox_cgroup", parse::absolute_path)?,
        limits: SandboxLimits {
            nice: top.parse("sandbox_nice", parse::nice)?.unwrap_or(defaults.limits.nice),
            cpu_percent: top.parse("sandbox_cpu_percent", parse::cpu_percent)?,
            memory_bytes: top
                .parse("sandbox_memory_bytes_max", parse::memory_bytes)?
                .unwrap_or(defaults.limits.memory_bytes),
            ..defaults.limits
        },
        ..defaults
    };
    Ok(minimum
        .unwrap_or(Some(SANDBOX_MINIMUM_DEFAULT))
        .map(|minimum| SandboxConfig { minimum, ..config }))
}

/// Keeps the variables that may be ours.
fn environment(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, String)>, ConfigError> {
    let mut ours = Vec::new();
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| name.starts_with(ENV_PREFIX)) else {
            continue;
        };
        let name = name.to_owned();
        match value.into_string() {
            Ok(value) => ours.push((name, value)),
            Err(_) => return Err(ConfigError::NotUtf8 { name }),
        }
    }
    Ok(ours)
}

fn data_dir_default() -> Result<PathBuf, ConfigError> {
    let places = ProjectDirs::from("", "", "iris").ok_or(ConfigError::NoDataDir)?;
    Ok(places.data_dir().to_owned())
}

fn quotas(top: &mut Section) -> Result<Quotas, ConfigError> {
    let mut quota = |key, default| Ok(top.parse(key, parse::number)?.unwrap_or(default));
    Ok(Quotas {
        rows_max: quota("project_rows_max", QUOTAS_DEFAULT.rows_max)?,
        bytes_max: quota("project_bytes_max", QUOTAS_DEFAULT.bytes_max)?,
        files_max: quota("project_files_max", QUOTAS_DEFAULT.files_max)?,
        file_bytes_max: quota("project_file_bytes_max", QUOTAS_DEFAULT.file_bytes_max)?,
    })
}

fn budgets(top: &mut Section) -> Result<BudgetSettings, ConfigError> {
    let mut budget = |key: &str| -> Result<Budget, ConfigError> {
        let limits = top.parse_list(key, parse::budget_limit)?;
        Ok(limits.into_iter().fold(Budget::default(), Budget::tightest))
    };
    Ok(BudgetSettings {
        project: ProjectBudgets {
            run: budget("budget_run")?,
            session: budget("budget_session")?,
            user: budget("budget_project_user")?,
            user_month: budget("budget_project_user_month")?,
            project: budget("budget_project")?,
            project_month: budget("budget_project_month")?,
        },
        user: UserBudgets { total: budget("budget_user")?, month: budget("budget_user_month")? },
    })
}

fn audit(top: &mut Section) -> Result<AuditSettings, ConfigError> {
    let default = AuditSettings::default();
    Ok(AuditSettings {
        kept: top.parse("audit_kept_days", parse::days)?.unwrap_or(default.kept),
        records_max: top.parse("audit_records_max", parse::number)?.unwrap_or(default.records_max),
    })
}

fn files_kept(top: &mut Section) -> Result<FileRetention, ConfigError> {
    let default = FileRetention::default();
    let age = top.parse("file_versions_kept_days", parse::days)?;
    let age_ms = age.map(|age| age.and_then(|age| i64::try_from(age.as_millis()).ok()));
    Ok(FileRetention {
        versions_max: top
            .parse("file_versions_max", parse::at_least_one)?
            .map_or(default.versions_max, u64::from),
        age_ms: age_ms.unwrap_or(default.age_ms),
        bytes_max: top
            .parse("file_versions_bytes_max", parse::number)?
            .unwrap_or(default.bytes_max),
        snapshots_max: top
            .parse("snapshots_max", parse::at_least_one)?
            .unwrap_or(default.snapshots_max),
    })
}

fn git(top: &mut Section) -> Result<GitSettings, ConfigError> {
    let default = GitSettings::default();
    Ok(GitSettings {
        time: top.parse("git_time_seconds", parse::seconds)?.unwrap_or(default.time),
        stall: top.parse("git_stall_seconds", parse::seconds)?.unwrap_or(default.stall),
        bytes_max: top.parse("git_bytes_max", parse::bytes)?.unwrap_or(default.bytes_max),
    })
}

fn sockets(top: &mut Section) -> Result<SocketSettings, ConfigError> {
    let default = SocketSettings::default();
    Ok(SocketSettings {
        ping_interval: top
            .parse("ping_interval_seconds", parse::seconds_or_never)?
            .unwrap_or(default.ping_interval),
        pong_timeout: top
            .parse("pong_timeout_seconds", parse::seconds)?
            .unwrap_or(default.pong_timeout),
        frame_age_max: top
            .parse("frame_age_max_seconds", parse::seconds)?
            .unwrap_or(default.frame_age_max),
        ..default
    })
}

fn rates(top: &mut Section) -> Result<RateSettings, ConfigError> {
    let mut count = |key: &str, default: u32| -> Result<u32, ConfigError> {
        Ok(top.parse(key, parse::count)?.unwrap_or(default))
    };
    let a_second = count("requests_per_second", 50)?;
    let burst = count("requests_burst", 100)?;
    let public = count("public_requests_per_minute", 120)?;
    let (keys, runs) = (count("key_requests_per_second", 50)?, count("runs_per_minute", 60)?);
    let uploads = count("uploads_per_minute", 120)?;
    let failures = count("login_failures_per_10_minutes", 10)?;
    let unknown = count("unknown_connections_per_address_max", 20)?;
    let connections = count("connections_per_user_max", 8)?;
    let refusals = count("refusals_per_minute_max", 300)?;
    let a_minute = |count: u32| {
        let every = Duration::from_mins(1).checked_div(count);
        every.map(|every| Rate { every, burst: count.div_ceil(2) })
    };
    let most = |count: u32| (count > 0).then(|| usize::try_from(count).unwrap_or(usize::MAX));
    Ok(RateSettings {
        requests: (Duration::from_secs(1).checked_div(a_second))
            .map(|every| Rate { every, burst: burst.max(1) }),
        public: a_minute(public),
        keys: (Duration::from_secs(1).checked_div(keys))
            .map(|every| Rate { every, burst: keys.saturating_mul(2) }),
        runs: a_minute(runs),
        uploads: a_minute(uploads),
        login_failures: (Duration::from_mins(10).checked_div(failures))
            .map(|every| Rate { every, burst: failures }),
        // Ten accounts' worth.
        login_failures_of_address: (Duration::from_mins(10)
            .checked_div(failures.saturating_mul(10)))
        .map(|every| Rate { every, burst: failures.saturating_mul(10) }),
        unknown_connections_max: most(unknown),
        connections_per_user_max: most(connections),
        refusals_per_minute_max: most(refusals),
    })
}

fn shares(top: &mut Section) -> Result<Shares, ConfigError> {
    let disk_free = top.parse("commands_disk_free_bytes_min", parse::number)?;
    let mut most = |key: &str, default: u32| -> Result<Option<usize>, ConfigError> {
        let count = top.parse(key, parse::count)?.unwrap_or(default);
        Ok((count > 0).then(|| usize::try_from(count).unwrap_or(usize::MAX)))
    };
    Ok(Shares {
        disk_free_bytes_min: disk_free.unwrap_or(DISK_FREE_BYTES_MIN_DEFAULT),
        runs: LineLimits {
            server: most("runs_working_max", 1_024)?,
            project: most("runs_working_per_project_max", 512)?,
            user: most("runs_working_per_user_max", 256)?,
        },
        commands: LineLimits {
            server: most("commands_running_max", 64)?,
            project: most("commands_running_per_project_max", 32)?,
            user: most("commands_running_per_user_max", 16)?,
        },
    })
}

fn otlp(top: &mut Section, warnings: &mut Vec<String>) -> Result<Option<Otlp>, ConfigError> {
    let endpoint = top.parse("otlp_endpoint", parse::otlp_endpoint)?;
    let service_name = top.parse("otlp_service_name", parse::otlp_service_name)?;
    let is_named = service_name.as_deref().is_some_and(|name| name != OTLP_SERVICE_NAME_DEFAULT);
    if endpoint.is_none() && is_named {
        warnings.push("`otlp_service_name` has no effect: there is no `otlp_endpoint`".to_owned());
    }
    Ok(endpoint.map(|endpoint| Otlp {
        endpoint,
        service_name: service_name.unwrap_or_else(|| OTLP_SERVICE_NAME_DEFAULT.to_owned()),
    }))
}
