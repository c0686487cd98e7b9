//! The sources of the configuration, merged key by key. Values stay text here; `parse` types them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use toml::{Table, Value};

use super::parse::Parsed;
use super::{ConfigError, Flags};

/// Begins the name of each environment variable of ours.
pub(super) const ENV_PREFIX: &str = "IRIS_";

/// Keys at the top. In the environment they are upper case behind [`ENV_PREFIX`].
const KEYS: &[&str] = &[
    "bind",
    "tls_certificate_file",
    "tls_key_file",
    "data_dir",
    "setup_token",
    "registration",
    "jwt_secret_file",
    "jwt_secret_previous_file",
    "master_key_file",
    "master_key_previous_file",
    "default_model",
    "fallback_model",
    "model_catalog",
    "detect_models",
    "small_model",
    "titles",
    "compact_at_percent",
    "project_roots",
    "allowed_origins",
    "allowed_hosts",
    "public_url",
    "oauth_redirects",
    "trusted_proxies",
    "smtp_url",
    "smtp_from",
    "egress_allow",
    "sandbox_minimum",
    "sandbox_uid",
    "sandbox_gid",
    "sandbox_read_only",
    "sandbox_cgroup",
    "drain_seconds",
    "project_idle_seconds",
    "projects_open_max",
    "session_idle_seconds",
    "events_kept_days",
    "events_kept_bytes_max",
    "audit_kept_days",
    "audit_records_max",
    "project_rows_max",
    "project_bytes_max",
    "project_files_max",
    "project_file_bytes_max",
    "budget_run",
    "budget_session",
    "budget_project",
    "budget_project_month",
    "budget_project_user",
    "budget_project_user_month",
    "budget_user",
    "budget_user_month",
    "file_versions_max",
    "file_versions_kept_days",
    "file_versions_bytes_max",
    "snapshots_max",
    "transfer_bytes_max",
    "resume",
    "backup_interval_hours",
    "backups_kept",
    "import_bytes_max",
    "ping_interval_seconds",
    "pong_timeout_seconds",
    "frame_age_max_seconds",
    "requests_per_second",
    "requests_burst",
    "public_requests_per_minute",
    "key_requests_per_second",
    "runs_per_minute",
    "uploads_per_minute",
    "login_failures_per_10_minutes",
    "unknown_connections_per_address_max",
    "connections_per_user_max",
    "refusals_per_minute_max",
    "watchdog_abort_seconds",
    "log",
    "log_format",
    "otlp_endpoint",
    "otlp_service_name",
];
/// The table of providers of models, and the keys of one of them.
const PROVIDERS: &str = "providers";
const PROVIDER_KEYS: &[&str] = &[
    "kind",
    "base_url",
    "api_key",
    "script",
    "images",
    "catalog",
    "free",
    "reasoning",
    "max_output_tokens",
    "context_tokens",
    "proxy",
    "ca_file",
    "stream_options",
    "parallel_tool_calls",
    "max_tokens_name",
    "reasoning_replay",
    "prompt_cache_key",
];

/// The table of providers of logins, and the keys of one of them.
const OAUTH: &str = "oauth";
const OAUTH_KEYS: &[&str] = &[
    "kind",
    "title",
    "issuer",
    "client_id",
    "client_secret",
    "client_secret_file",
    "scopes",
    "trust_email",
];

/// One value and where it was set. Has no `Debug`: the value may be a secret.
pub(super) struct Setting {
    /// The key in backticks as the operator wrote it, and the file it is in.
    name: String,
    content: Content,
}

enum Content {
    /// A single value of the file.
    Single(String),
    /// An array of the file.
    Array(Vec<String>),
    /// A variable or flag: one value, or a list separated by commas.
    Flat(String),
}

impl Setting {
    /// Gives a single value its type.
    pub(super) fn parse<T>(self, parse: impl FnOnce(&str) -> Parsed<T>) -> Result<T, ConfigError> {
        let parsed = match &self.content {
            Content::Single(text) | Content::Flat(text) => parse(text),
            Content::Array(_) => Err("expected one value, not an array".to_owned()),
        };
        parsed.map_err(|problem| ConfigError::BadValue { name: self.name, problem })
    }

    /// Gives each element of a list its type. An empty variable is an empty list.
    fn parse_list<T>(self, parse: impl Fn(&str) -> Parsed<T>) -> Result<Vec<T>, ConfigError> {
        let parsed: Parsed<Vec<T>> = match &self.content {
            Content::Array(elements) => elements.iter().map(|element| parse(element)).collect(),
            Content::Flat(text) if text.trim().is_empty() => Ok(Vec::new()),
            Content::Flat(text) => text.split(',').map(|element| parse(element.trim())).collect(),
            Content::Single(_) => Err("expected an array of strings".to_owned()),
        };
        parsed.map_err(|problem| ConfigError::BadValue { name: self.name, problem })
    }
}

/// The settings of one table, by key.
#[derive(Default)]
pub(super) struct Section(BTreeMap<&'static str, Setting>);

impl Section {
    /// Takes out the setting and gives it its type; `None` when no source has it.
    pub(super) fn parse<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Parsed<T>,
    ) -> Result<Option<T>, ConfigError> {
        self.0.remove(key).map(|setting| setting.parse(parse)).transpose()
    }

    /// Takes out the setting and gives its elements their type; empty when no source has it.
    pub(super) fn parse_list<T>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Parsed<T>,
    ) -> Result<Vec<T>, ConfigError> {
        self.0.remove(key).map_or(Ok(Vec::new()), |setting| setting.parse_list(parse))
    }

    /// Adds the table of one provider in the file.
    fn add(
        &mut self,
        table: Table,
        keys: &[&'static str],
        name_of: impl Fn(&str) -> String,
    ) -> Result<(), ConfigError> {
        for (key, value) in table {
            let name = name_of(&key);
            let Some(known) = keys.iter().find(|known| **known == key) else {
                return Err(ConfigError::UnknownKey { name });
            };
            self.0.insert(known, file_setting(name, value)?);
        }
        Ok(())
    }

    /// Whether a source has it and nobody took it out.
    pub(super) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// The keys that nobody took out.
    pub(super) fn keys_left(&self) -> Vec<&'static str> {
        self.0.keys().copied().collect()
    }
}

/// What all sources say; what is added later wins.
#[derive(Default)]
pub(super) struct Settings {
    pub(super) top: Section,
    /// Of models, by the provider's name.
    pub(super) providers: BTreeMap<String, Section>,
    /// Of logins, by the provider's name.
    pub(super) oauth: BTreeMap<String, Section>,
}

impl Settings {
    /// Adds the TOML `text` of the file at `path`.
    pub(super) fn add_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        // The parser's own text would quote the line, which may hold a secret.
        let table: Table = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            line: line_of(text, error.span()),
            message: error.message().to_owned(),
        })?;
        let name_of = |key: &str| format!("`{key}` in `{}`", path.display());
        for (key, value) in table {
            let name = name_of(&key);
            let of_providers = match key.as_str() {
                PROVIDERS => Some((&mut self.providers, PROVIDER_KEYS)),
                OAUTH => Some((&mut self.oauth, OAUTH_KEYS)),
                _ => None,
            };
            if let Some((sections, keys)) = of_providers {
                for (provider, value) in table_of(name, value)? {
                    let key = format!("{key}.{provider}");
                    let table = table_of(name_of(&key), value)?;
                    let section = sections.entry(provider).or_default();
                    section.add(table, keys, |field| name_of(&format!("{key}.{field}")))?;
                }
                continue;
            }
            let Some(known) = KEYS.iter().find(|known| **known == key) else {
                return Err(ConfigError::UnknownKey { name });
            };
            self.top.0.insert(known, file_setting(name, value)?);
        }
        Ok(())
    }

    /// Adds variables; those that do not begin with [`ENV_PREFIX`] are not ours. Returns a warning
    /// for each one of ours that means nothing.
    pub(super) fn add_environment(&mut self, variables: BTreeMap<String, String>) -> Vec<String> {
        let mut warnings = Vec::new();
        for (variable, value) in variables {
            let Some(path) = variable.strip_prefix(ENV_PREFIX) else { continue };
            let parts: Vec<&str> = path.split("__").collect();
            let name = format!("`{variable}`");
            let slot = match parts.as_slice() {
                [key] => find_upper(KEYS, key).map(|known| (&mut self.top, known)),
                ["PROVIDERS", provider, key] => find_upper(PROVIDER_KEYS, key).map(|known| {
                    let provider = provider.to_ascii_lowercase();
                    (self.providers.entry(provider).or_default(), known)
                }),
                ["OAUTH", provider, key] => find_upper(OAUTH_KEYS, key).map(|known| {
                    let provider = provider.to_ascii_lowercase();
                    (self.oauth.entry(provider).or_default(), known)
                }),
                _ => None,
            };
            match slot {
                Some((section, known)) => {
                    section.0.insert(known, Setting { name, content: Content::Flat(value) });
                }
                None => warnings.push(format!("the environment variable {name} means nothing")),
            }
        }
        warnings
    }

    /// Adds what stands on the command line, but for the name of the file.
    pub(super) fn add_flags(&mut self, flags: Flags) {
        let Flags { config: _, data_dir, bind, log, log_format } = flags;
        let flags = [
            ("data_dir", "`--data-dir`", data_dir),
            ("bind", "`--bind`", bind),
            ("log", "`--log`", log),
            ("log_format", "`--log-format`", log_format),
        ];
        for (key, name, value) in flags {
            if let Some(value) = value {
                let setting = Setting { name: name.to_owned(), content: Content::Flat(value) };
                self.top.0.insert(key, setting);
            }
        }
    }
}

/// The key whose upper-case form is `upper`.
fn find_upper(keys: &[&'static str], upper: &str) -> Option<&'static str> {
    keys.iter().copied().find(|key| key.to_ascii_uppercase() == upper)
}

fn table_of(name: String, value: Value) -> Result<Table, ConfigError> {
    match value {
        Value::Table(table) => Ok(table),
        Value::String(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Datetime(_)
        | Value::Array(_) => Err(bad_value(name, "expected a table")),
    }
}

fn file_setting(name: String, value: Value) -> Result<Setting, ConfigError> {
    let content = match value {
        Value::String(text) => Content::Single(text),
        Value::Integer(number) => Content::Single(number.to_string()),
        Value::Float(number) => Content::Single(number.to_string()),
        Value::Boolean(truth) => Content::Single(truth.to_string()),
        Value::Datetime(time) => Content::Single(time.to_string()),
        Value::Array(elements) => {
            let Some(elements) = elements.into_iter().map(string_of).collect() else {
                return Err(bad_value(name, "expected only strings in the array"));
            };
            Content::Array(elements)
        }
        Value::Table(_) => return Err(bad_value(name, "expected a value, not a table")),
    };
    Ok(Setting { name, content })
}

fn string_of(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Datetime(_)
        | Value::Array(_)
        | Value::Table(_) => None,
    }
}

fn bad_value(name: String, problem: &str) -> ConfigError {
    ConfigError::BadValue { name, problem: problem.to_owned() }
}

/// The 1-based line in which `span` begins.
fn line_of(text: &str, span: Option<Range<usize>>) -> usize {
    let start = span.map_or(0, |span| span.start);
    text.bytes().take(start).filter(|&byte| byte == b'\n').count() + 1
}
