//! What can be set: every key with its default, what it may be and what it is for. The one source of what is read,
//! of `iris config` and of the table in the README; tests hold all of them together.

use serde_json::{Value, json};

use super::parse::{
    BACKUP_HOURS_MAX, COMPACT_AT_MAX, COUNT_MAX, CPU_PERCENT_MAX, DAYS_MAX, DRAIN_SECONDS_MAX,
    MEMORY_BYTES_MIN, NICE_MAX, NUMBER_MAX, PROJECTS_OPEN_MAX, SECONDS_MAX, TOKENS_MAX,
};
use super::settings::ENV_PREFIX;
use Shape::{List, OneOf, Path, Secret, Switch, Text, Whole};

const BACKUPS_KEPT_MAX: u64 = iris_protocol::limits::BACKUPS_MAX as u64;
const U32_MAX: u64 = u32::MAX as u64;
/// What a TOML file can hold.
const BYTES_MAX: u64 = i64::MAX as u64;
/// Longest line of a comment.
const LINE_CHARS: usize = 100;

/// What a value looks like.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// A whole number of something, from the first bound to the second.
    Whole(&'static str, u64, u64),
    /// `true` or `false`.
    Switch,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A path, with an example.
    Path(&'static str),
    /// A text: what it is, and an example.
    Text(&'static str, &'static str),
    /// A text that nobody is shown, with an example.
    Secret(&'static str),
    /// Several texts: what they are, and an example of one.
    List(&'static str, &'static str),
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub(super) name: &'static str,
    /// As documents show it: in backticks where it is a value, else in words.
    default: &'static str,
    pub(super) shape: Shape,
    /// Whether a server that runs takes another value without a restart.
    pub(super) is_live: bool,
    /// For people, with links from the directory of the README.
    about: &'static str,
}

const fn key(name: &'static str, default: &'static str, shape: Shape, about: &'static str) -> Key {
    Key { name, default, shape, is_live: false, about }
}

/// One that a server that runs takes.
const fn live(name: &'static str, default: &'static str, shape: Shape, about: &'static str) -> Key {
    Key { name, default, shape, is_live: true, about }
}

/// Keys at the top. In the environment they are upper case behind `IRIS_`.
pub(super) const TOP: &[Key] = &[
    key(
        "bind",
        "`127.0.0.1:4747`",
        Text("an address with a port", "127.0.0.1:4747"),
        "address and port, 0 for a free one; flag `--bind`",
    ),
    key(
        "data_dir",
        "the platform's place for data",
        Path("/var/lib/iris"),
        "everything the server keeps; flag `--data-dir`",
    ),
    key(
        "setup_token",
        "a new one at each start",
        Secret("a token of your own"),
        "creates the first administrator, once; at least 16 bytes",
    ),
    key(
        "setup_token_file",
        "none",
        Path("/run/credentials/setup-token"),
        "the file with it, in place of the variable",
    ),
    live(
        "registration",
        "`closed`",
        OneOf(&["open", "invite", "closed"]),
        "`open`, `invite` or `closed`: who may create an account",
    ),
    key(
        "jwt_secret_file",
        "`jwt.key` in the data directory",
        Path("/etc/iris/jwt.key"),
        "signs access tokens; made when there is none",
    ),
    key(
        "jwt_secret_previous_file",
        "none",
        Path("/etc/iris/jwt.key.old"),
        "the key from before a rotation: tokens that it signed are good until they end",
    ),
    live(
        "trusted_proxies",
        "none",
        List("networks and addresses", "10.0.0.0/8"),
        "networks of proxies whose `X-Forwarded-For` is believed, like `10.0.0.0/8`",
    ),
    key(
        "oauth_redirects",
        "none",
        List("URLs", "https://app.example.com/in"),
        "where browsers may be sent after a [login at another provider](docs/access.md#logins-at-other-providers), exactly, separated by commas; programs on the same machine need none",
    ),
    key(
        "smtp_url",
        "none",
        Secret("smtps://user:password@mail.example.com"),
        "mail server for links: `smtps://user:password@host`, or `smtp://` with `?tls=required`",
    ),
    key(
        "smtp_url_file",
        "none",
        Path("/run/credentials/smtp-url"),
        "the file with it, in place of the variable",
    ),
    key(
        "smtp_from",
        "none",
        Text("an address, with or without a name", "Iris <iris@example.com>"),
        "whom its mails are from; needed with `IRIS_SMTP_URL`",
    ),
    key(
        "master_key_file",
        "`master.key` in the data directory",
        Path("/etc/iris/master.key"),
        "seals the secrets of tools and MCP servers at rest; made when there is none",
    ),
    key(
        "master_key_previous_file",
        "none",
        Path("/etc/iris/master.key.old"),
        "the master key from before a rotation: it opens what it sealed and seals nothing",
    ),
    key(
        "default_model",
        "none",
        Text("`provider/model`", "local/model"),
        "`provider/model` for sessions and agents that chose none",
    ),
    key(
        "fallback_model",
        "none",
        Text("`provider/model`", "local/other"),
        "`provider/model` that is asked when another model does not answer after five attempts",
    ),
    live(
        "model_catalog",
        "the list that comes with the server",
        Path("/etc/iris/models.json"),
        "a file with what is known of models, in the form of LiteLLM, models.dev or the server; see [docs/models.md](docs/models.md#the-catalogue)",
    ),
    key(
        "detect_models",
        "`true`",
        Switch,
        "whether Ollama or llama.cpp on this machine is looked for when no provider is configured",
    ),
    live(
        "budget_run",
        "none",
        List("limits like `steps=40`, `tokens=1000000`, `usd=2.50` and `minutes=30`", "steps=40"),
        "the most that a run may use, like `steps=40,tokens=1000000,usd=2.50,minutes=30`; see [docs/usage.md](docs/usage.md#budgets)",
    ),
    live(
        "budget_session",
        "none",
        List("limits like `steps=40`, `tokens=1000000`, `usd=2.50` and `minutes=30`", "steps=40"),
        "the same for a session",
    ),
    live(
        "budget_project",
        "none",
        List("limits like `steps=40`, `tokens=1000000`, `usd=2.50` and `minutes=30`", "steps=40"),
        "the same for a project",
    ),
    live(
        "budget_project_month",
        "none",
        List("limits like `steps=40`, `tokens=1000000`, `usd=2.50` and `minutes=30`", "steps=40"),
        "the same for a project in a month",
    ),
    live(
        "budget_project_user",
        "none",
        List("limits like `steps=40`, `tokens=1000000`, `usd=2.50` and `minutes=30`", "steps=40"),
        "the same for a user in a project",
    ),
    live(
        "budget_project_user_month",
        "none",
        List("limits like `steps=40`, `tokens=1000000`, `usd=2.50` and `minutes=30`", "steps=40"),
        "the same for a user in a project in a month",
    ),
    live(
        "budget_user",
        "none",
        List("limits like `steps=40`, `tokens=1000000`, `usd=2.50` and `minutes=30`", "steps=40"),
        "the same for a user in all projects",
    ),
    live(
        "budget_user_month",
        "none",
        List("limits like `steps=40`, `tokens=1000000`, `usd=2.50` and `minutes=30`", "steps=40"),
        "the same for a user in all projects in a month",
    ),
    key(
        "small_model",
        "the session's",
        Text("`provider/model`", "local/small"),
        "`provider/model` that makes titles",
    ),
    key(
        "titles",
        "`true`",
        Switch,
        "whether sessions to which nobody gave a title get one from a model",
    ),
    key(
        "compact_at_percent",
        "`80`",
        Whole("percent", 0, COMPACT_AT_MAX),
        "share of a model's context window at which a conversation is made shorter, 10 to 95; 0 for only when the model refuses it",
    ),
    key(
        "project_roots",
        "none",
        List("absolute paths", "/srv/projects"),
        "absolute directories under which a project may have its own, or be cloned from",
    ),
    live(
        "allowed_origins",
        "none",
        List("origins", "https://app.example.com"),
        "origins of web pages that may call; `null` for [pages from the disk](examples/browser/README.md#what-the-server-has-to-allow)",
    ),
    live(
        "allowed_hosts",
        "loopback and the bound address",
        List("names, with or without a port", "iris.example.com"),
        "further names under which clients reach the server",
    ),
    key(
        "public_url",
        "the bound address, if it is loopback",
        Text("an origin", "https://iris.example.com"),
        "origin at which browsers reach the server, like `https://iris.example.com`; authorizations of MCP servers and logins at other providers come back to it",
    ),
    key(
        "sandbox_minimum",
        "`S3`",
        OneOf(&["S3", "S2", "off"]),
        "what the sandbox has to hold for commands to run: `S3`, `S2` (without namespaces, and with the holes that the document names), or `off` for no commands; see [docs/sandbox.md](docs/sandbox.md)",
    ),
    key(
        "sandbox_uid",
        "none",
        Whole("user", 1, U32_MAX),
        "the user that commands run as; needed when the server is started as root",
    ),
    key("sandbox_gid", "as the user", Whole("group", 1, U32_MAX), "the group that commands run as"),
    key(
        "sandbox_read_only",
        "none",
        List("absolute paths", "/opt/toolchain"),
        "directories that commands may read and execute besides the system's: toolchains",
    ),
    key(
        "sandbox_cgroup",
        "none",
        Path("/sys/fs/cgroup/iris"),
        "a directory of cgroup v2 in which the server may make groups for commands",
    ),
    key(
        "sandbox_nice",
        "`10`",
        Whole("", 0, NICE_MAX),
        "by how much commands stand behind the server when processor time is scarce, as in `nice(1)`",
    ),
    key(
        "sandbox_cpu_percent",
        "none",
        Whole("percent of a processor", 1, CPU_PERCENT_MAX),
        "most processor time of one command, in percent of one processor; needs `IRIS_SANDBOX_CGROUP`",
    ),
    key(
        "sandbox_memory_bytes_max",
        "`4294967296`",
        Whole("bytes", MEMORY_BYTES_MIN, BYTES_MAX),
        "most memory of a process of a command, and with `IRIS_SANDBOX_CGROUP` of the whole command",
    ),
    key(
        "egress_allow",
        "none",
        List("networks, and hosts with a port", "docs.internal:8080"),
        "what tools may fetch, and git may clone, besides the public web: networks like `10.1.0.0/16`, and places like `docs.internal:8080`; see [docs/egress.md](docs/egress.md)",
    ),
    key(
        "drain_seconds",
        "`30`",
        Whole("seconds", 0, DRAIN_SECONDS_MAX),
        "how long runs may go on after the signal to stop, at most 3600",
    ),
    key(
        "project_idle_seconds",
        "`60`",
        Whole("seconds", 1, SECONDS_MAX),
        "a project that nobody needs for this long is closed until it is wanted again, at most 86400",
    ),
    key(
        "projects_open_max",
        "`512`",
        Whole("projects", 1, PROJECTS_OPEN_MAX),
        "most projects open at once; the least recently used one makes room",
    ),
    key(
        "events_kept_days",
        "`30`",
        Whole("days", 0, DAYS_MAX),
        "how long the log of a project keeps events for clients that come back; 0 keeps them for ever",
    ),
    key(
        "events_kept_bytes_max",
        "`67108864`",
        Whole("bytes", 0, NUMBER_MAX),
        "most bytes of the log of one project; 0 is no limit",
    ),
    key(
        "tls_certificate_file",
        "none",
        Path("/etc/iris/fullchain.pem"),
        "PEM file with the certificate of the server and those behind it; with it the server speaks TLS itself, see [operations](docs/operations.md#tls)",
    ),
    key(
        "tls_key_file",
        "none",
        Path("/etc/iris/privkey.pem"),
        "PEM file with the private key of that certificate",
    ),
    key(
        "audit_kept_days",
        "`730`",
        Whole("days", 0, DAYS_MAX),
        "how long the audit keeps its records; 0 keeps them for ever",
    ),
    key(
        "audit_records_max",
        "`1000000`",
        Whole("records", 0, NUMBER_MAX),
        "most records of the audit, the oldest go first; 0 is no limit",
    ),
    key(
        "project_rows_max",
        "`1000000`",
        Whole("rows", 0, NUMBER_MAX),
        "most messages and parts of messages in one project; 0 is no limit",
    ),
    key(
        "project_bytes_max",
        "`4294967296`",
        Whole("bytes", 0, NUMBER_MAX),
        "largest database of one project, in bytes; 0 is no limit",
    ),
    key(
        "project_files_max",
        "`100000`",
        Whole("files", 0, NUMBER_MAX),
        "most files of one project, whoever made them, but for what `.gitignore` leaves out; 0 is no limit",
    ),
    key(
        "project_file_bytes_max",
        "`10737418240`",
        Whole("bytes", 0, NUMBER_MAX),
        "most bytes of these files together; 0 is no limit",
    ),
    key(
        "file_versions_max",
        "`200`",
        Whole("versions", 1, U32_MAX),
        "most versions of one path that are kept, at least 1; what a snapshot holds is kept besides",
    ),
    key(
        "file_versions_kept_days",
        "`90`",
        Whole("days", 0, DAYS_MAX),
        "how long earlier versions and snapshots are kept; 0 is for ever",
    ),
    key(
        "file_versions_bytes_max",
        "`2147483648`",
        Whole("bytes", 0, NUMBER_MAX),
        "most bytes of contents of versions in a project; 0 is no limit",
    ),
    key(
        "snapshots_max",
        "`500`",
        Whole("snapshots", 1, U32_MAX),
        "most snapshots of a project, at least 1",
    ),
    key(
        "transfer_bytes_max",
        "`1073741824`",
        Whole("bytes", 1, BYTES_MAX),
        "largest file that is uploaded or downloaded, in bytes",
    ),
    key(
        "git_time_seconds",
        "`1800`",
        Whole("seconds", 1, SECONDS_MAX),
        "how long git may take to clone, to fetch and to push; see [docs/git.md](docs/git.md)",
    ),
    key(
        "git_stall_seconds",
        "`30`",
        Whole("seconds", 1, SECONDS_MAX),
        "how long the other side of git may send next to nothing",
    ),
    key(
        "git_bytes_max",
        "`4294967296`",
        Whole("bytes", 1, BYTES_MAX),
        "largest repository that is cloned, in bytes; the quota of a project's files counts where it is less",
    ),
    key(
        "resume",
        "`manual`",
        OneOf(&["manual", "auto"]),
        "`auto`: runs that were interrupted by a stop of the server go on by themselves, each at most 3 times; `manual`: they wait for `run.resume`; a project may choose in its settings (`\"resume\"`)",
    ),
    key(
        "backup_interval_hours",
        "`0`",
        Whole("hours", 0, BACKUP_HOURS_MAX),
        "how often projects that changed and the root database are backed up into the data directory; 0 means never",
    ),
    key(
        "backups_kept",
        "`7`",
        Whole("backups", 1, BACKUPS_KEPT_MAX),
        "backups kept of each project of those that the server made by itself, 1 to 200",
    ),
    key(
        "import_bytes_max",
        "`4294967296`",
        Whole("bytes", 1, BYTES_MAX),
        "largest archive that can be imported",
    ),
    key(
        "session_idle_seconds",
        "`60`",
        Whole("seconds", 1, SECONDS_MAX),
        "a session without a run and without a message for this long leaves memory, at most 86400",
    ),
    key(
        "ping_interval_seconds",
        "`25`",
        Whole("seconds", 0, SECONDS_MAX),
        "how often a WebSocket gets a ping and a heartbeat, at most 86400; 0 means never",
    ),
    key(
        "pong_timeout_seconds",
        "`10`",
        Whole("seconds", 1, SECONDS_MAX),
        "a client that has not answered a ping after this long is closed",
    ),
    key(
        "frame_age_max_seconds",
        "`10`",
        Whole("seconds", 1, SECONDS_MAX),
        "a client for which a frame has waited this long is closed as a slow reader",
    ),
    live(
        "requests_per_second",
        "`50`",
        Whole("requests a second", 0, COUNT_MAX),
        "requests of one user a second, and of one connection; 0 is no limit",
    ),
    live("requests_burst", "`100`", Whole("requests", 0, COUNT_MAX), "how many of them at once"),
    live(
        "public_requests_per_minute",
        "`120`",
        Whole("requests a minute", 0, COUNT_MAX),
        "logins, registrations and renewals of tokens a minute from one address, half of them at once; 0 is no limit",
    ),
    live(
        "key_requests_per_second",
        "`50`",
        Whole("requests a second", 0, COUNT_MAX),
        "requests with one API key a second, twice as many at once; 0 is no limit",
    ),
    live(
        "runs_per_minute",
        "`60`",
        Whole("runs a minute", 0, COUNT_MAX),
        "messages and resumed runs of one user a minute, half of them at once; 0 is no limit",
    ),
    live(
        "runs_working_max",
        "`1024`",
        Whole("runs", 0, COUNT_MAX),
        "most runs that work at once in the whole server, those beyond wait in a [fair order](docs/operations.md#limits-and-fairness); 0 is no limit",
    ),
    live(
        "runs_working_per_project_max",
        "`512`",
        Whole("runs", 0, COUNT_MAX),
        "the same of one project",
    ),
    live(
        "runs_working_per_user_max",
        "`256`",
        Whole("runs", 0, COUNT_MAX),
        "the same of one user over all projects",
    ),
    live(
        "commands_running_max",
        "`64`",
        Whole("commands", 0, COUNT_MAX),
        "most commands of agents that run at once in the whole server, those beyond wait in the same order; 0 is no limit",
    ),
    live(
        "commands_running_per_project_max",
        "`32`",
        Whole("commands", 0, COUNT_MAX),
        "the same of one project",
    ),
    live(
        "commands_running_per_user_max",
        "`16`",
        Whole("commands", 0, COUNT_MAX),
        "the same of one user over all projects",
    ),
    key(
        "commands_disk_free_bytes_min",
        "`268435456`",
        Whole("bytes", 0, NUMBER_MAX),
        "a command of an agent ends when fewer bytes than these are free on the disk of its project; 0 is no limit",
    ),
    live(
        "uploads_per_minute",
        "`120`",
        Whole("uploads a minute", 0, COUNT_MAX),
        "files and archives that one user sends a minute, half of them at once; 0 is no limit",
    ),
    live(
        "login_failures_per_10_minutes",
        "`10`",
        Whole("failures in ten minutes", 0, COUNT_MAX),
        "wrong passwords of one account, and ten times as many from one address; 0 is no limit",
    ),
    live(
        "unknown_connections_per_address_max",
        "`20`",
        Whole("connections", 0, COUNT_MAX),
        "WebSockets of one address on which nobody has said yet who they are; 0 is no limit",
    ),
    live(
        "connections_per_user_max",
        "`8`",
        Whole("connections", 0, COUNT_MAX),
        "most WebSockets of one user; 0 is no limit",
    ),
    live(
        "refusals_per_minute_max",
        "`300`",
        Whole("refusals a minute", 0, COUNT_MAX),
        "a WebSocket with more requests refused in a minute is closed; 0 means never",
    ),
    key(
        "watchdog_abort_seconds",
        "`0`",
        Whole("seconds", 0, SECONDS_MAX),
        "a thread that is blocked for this long aborts the process, for the service manager to start it again; 0 means never",
    ),
    live(
        "log",
        "`info`",
        Text("a filter of log lines", "iris=debug,warn"),
        "which log lines; flag `--log`",
    ),
    live("log_format", "`text`", OneOf(&["text", "json"]), "`text` or `json`; flag `--log-format`"),
    key(
        "otlp_endpoint",
        "none",
        Text("a URL", "http://127.0.0.1:4318"),
        "base URL of an OpenTelemetry collector that gets spans, like `http://127.0.0.1:4318`",
    ),
    key(
        "otlp_service_name",
        "`iris`",
        Text("a name", "iris"),
        "what the collector knows the server as",
    ),
];

/// Keys of a provider of models.
pub(super) const PROVIDERS: &[Key] = &[
    key(
        "kind",
        "none",
        OneOf(&["anthropic", "google", "ollama", "openai", "openai-compatible", "scripted"]),
        "`anthropic`, `google`, `ollama`, `openai`, `openai-compatible` or `scripted`; `NAME` is the provider's, upper case; all of these in [docs/models.md](docs/models.md)",
    ),
    key(
        "base_url",
        "the provider's",
        Text("a URL", "http://127.0.0.1:8081/v1"),
        "where it is; needed for `openai-compatible`",
    ),
    key("api_key", "none", Secret("sk-.."), "what it knows the server by"),
    key(
        "api_key_file",
        "none",
        Path("/run/credentials/api-key"),
        "the file with it, in place of the variable",
    ),
    key("script", "none", Path("/etc/iris/script.txt"), "the script file of a `scripted` provider"),
    key("images", "as the catalogue says", Switch, "whether its models are shown images"),
    key(
        "catalog",
        "by the kind",
        Text("the name of a vendor, or `none`", "deepseek"),
        "whose models these are in the catalogue; `none` for none",
    ),
    key("free", "`true` for `ollama` without a key", Switch, "whether its models cost nothing"),
    key(
        "reasoning",
        "none",
        OneOf(&["off", "minimal", "low", "medium", "high", "xhigh", "max"]),
        "how much its models think: `off`, `minimal`, `low`, `medium`, `high`, `xhigh` or `max`",
    ),
    key(
        "max_output_tokens",
        "the provider's",
        Whole("tokens", 1, TOKENS_MAX),
        "most tokens of an answer",
    ),
    key(
        "context_tokens",
        "what is known of the model",
        Whole("tokens", 1, TOKENS_MAX),
        "how many tokens its models take in all: long conversations are made shorter before that; `ollama` is asked for it",
    ),
    key(
        "proxy",
        "none",
        Secret("http://proxy.example.com:3128"),
        "the proxy through which it is reached, `http://[user:password@]host:port`",
    ),
    key(
        "proxy_file",
        "none",
        Path("/run/credentials/proxy"),
        "the file with it, in place of the variable",
    ),
    key(
        "ca_file",
        "none",
        Path("/etc/iris/ca.pem"),
        "certificates in PEM that are trusted besides those of the system",
    ),
    key(
        "first_byte_seconds",
        "`120`",
        Whole("seconds", 1, SECONDS_MAX),
        "how long an answer may take to begin; more for slow models on a machine of one's own",
    ),
    key(
        "idle_seconds",
        "`120`",
        Whole("seconds", 1, SECONDS_MAX),
        "how long an answer may be silent in the middle",
    ),
    key("stream_options", "`true`", Switch, "`openai-compatible`: whether usage is asked for"),
    key(
        "parallel_tool_calls",
        "not sent",
        Switch,
        "`openai-compatible`: what `parallel_tool_calls` says",
    ),
    key(
        "max_tokens_name",
        "`max_tokens`",
        OneOf(&["max_tokens", "max_completion_tokens"]),
        "`openai-compatible`: or `max_completion_tokens`",
    ),
    key(
        "reasoning_replay",
        "`none`",
        OneOf(&["none", "reasoning_content", "reasoning", "reasoning_details"]),
        "`openai-compatible`: how thoughts are sent back: `none`, `reasoning_content`, `reasoning` or `reasoning_details`",
    ),
    key(
        "prompt_cache_key",
        "`false`",
        Switch,
        "`openai-compatible`: whether the session's id is sent as `prompt_cache_key`",
    ),
];

/// Keys of a provider of logins.
pub(super) const OAUTH: &[Key] = &[
    key(
        "kind",
        "none",
        OneOf(&["github", "google", "oidc"]),
        "`github`, `google` or `oidc`: where people may log in besides; `NAME` is the provider's, upper case ([docs/operations.md](docs/operations.md#logins-at-other-providers))",
    ),
    key("title", "by the kind", Text("a text", "Our company"), "what people are shown"),
    key(
        "issuer",
        "that of GitHub or Google",
        Text("a URL", "https://login.example.com"),
        "what it calls itself, exactly; needed for `oidc`",
    ),
    key("client_id", "none", Text("a text", "iris"), "what it calls the server; needed"),
    key(
        "client_secret",
        "none",
        Secret(".."),
        "what shows that the server is it; needed but for `oidc`",
    ),
    key(
        "client_secret_file",
        "none",
        Path("/etc/iris/login.secret"),
        "the file with it, in place of the variable",
    ),
    key(
        "scopes",
        "`openid`, `email`, `profile`; `read:user`, `user:email` for `github`",
        List("scopes", "openid"),
        "what is asked for",
    ),
    key(
        "trust_email",
        "`false`",
        Switch,
        "whether its addresses count as verified whatever it says: only for a provider of your own",
    ),
];

/// The tables of the file besides the keys at the top: their names, what stands for the name of one in documents,
/// and their keys.
const TABLES: [(&str, &str, &[Key]); 2] =
    [("oauth", "company", OAUTH), ("providers", "local", PROVIDERS)];

impl Shape {
    /// What a value may be, in words.
    fn words(self) -> String {
        match self {
            Whole(unit, min, max) if max >= NUMBER_MAX => {
                format!("a whole number{}, at least {min}", of(unit))
            }
            Whole(unit, min, max) => format!("a whole number{}, {min} to {max}", of(unit)),
            Switch => "`true` or `false`".to_owned(),
            OneOf(words) => {
                let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
                words.join(", ")
            }
            Path(_) => "a path".to_owned(),
            Text(what, _) => what.to_owned(),
            Secret(_) => "a secret".to_owned(),
            List(what, _) => format!("a list of {what}"),
        }
    }

    /// A value as TOML writes it.
    fn toml(self, value: &str) -> String {
        match self {
            Whole(..) | Switch => value.to_owned(),
            OneOf(_) | Path(_) | Text(..) | Secret(_) => Value::from(value).to_string(),
            List(..) => json!([value]).to_string(),
        }
    }

    fn example(self) -> String {
        match self {
            Whole(_, min, _) => min.to_string(),
            Switch => "true".to_owned(),
            OneOf(words) => words.first().copied().unwrap_or_default().to_owned(),
            Path(example) | Text(_, example) | Secret(example) | List(_, example) => {
                example.to_owned()
            }
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Whole(..) => "integer",
            Switch => "boolean",
            OneOf(_) | Path(_) | Text(..) | Secret(_) => "string",
            List(..) => "array of strings",
        }
    }
}

fn of(unit: &str) -> String {
    if unit.is_empty() { String::new() } else { format!(" of {unit}") }
}

impl Key {
    /// The default, where it is the same on every machine.
    pub(super) fn fixed_default(&self) -> Option<&'static str> {
        let value = self.default.strip_prefix('`')?.strip_suffix('`')?;
        (!value.contains('`')).then_some(value)
    }

    fn is_secret(&self) -> bool {
        matches!(self.shape, Secret(_))
    }

    fn variable(&self, table: Option<&str>) -> String {
        let name = self.name.to_ascii_uppercase();
        match table {
            Some(table) => format!("{ENV_PREFIX}{}__NAME__{name}", table.to_ascii_uppercase()),
            None => format!("{ENV_PREFIX}{name}"),
        }
    }

    /// Whether a change counts without a restart, in words.
    fn when(&self) -> &'static str {
        if self.is_live { "at once, on SIGHUP" } else { "with the next start" }
    }

    /// Its lines of the file; `table` is the one that it stands in.
    fn write(&self, table: Option<&str>, explain: bool, text: &mut String) {
        comment(&plain(self.about), text);
        if explain {
            comment(&format!("Value: {}", self.shape.words()), text);
            comment(&format!("Default: {}", plain(self.default)), text);
            comment(&format!("Variable: {}", self.variable(table)), text);
            comment(&format!("A change counts {}", self.when()), text);
        }
        let name = self.name;
        let line = match (self.fixed_default(), self.shape) {
            (Some(default), shape) => format!("{name} = {}", shape.toml(default)),
            // Nothing is what a list is without a value.
            (None, List(..)) if self.default == "none" => format!("{name} = []"),
            (None, shape) => format!("# {name} = {}", shape.toml(&shape.example())),
        };
        // A table is an example as a whole.
        let mark = if table.is_some() && !line.starts_with('#') { "# " } else { "" };
        text.push_str(mark);
        text.push_str(&line);
        text.push_str("\n\n");
    }

    fn describe(&self, table: Option<&str>) -> Value {
        let key = table
            .map_or_else(|| self.name.to_owned(), |table| format!("{table}.NAME.{}", self.name));
        let (min, max) = match self.shape {
            Whole(_, min, max) => (Some(min), (max < NUMBER_MAX).then_some(max)),
            Switch | OneOf(_) | Path(_) | Text(..) | Secret(_) | List(..) => (None, None),
        };
        let words = match self.shape {
            OneOf(words) => Some(words),
            Whole(..) | Switch | Path(_) | Text(..) | Secret(_) | List(..) => None,
        };
        json!({
            "key": key,
            "variable": self.variable(table),
            "about": plain(self.about),
            "type": self.shape.kind(),
            "value": self.shape.words(),
            "oneOf": words,
            "min": min,
            "max": max,
            "default": self.fixed_default(),
            "defaultIs": plain(self.default),
            "secret": self.is_secret(),
            "reloadable": self.is_live,
        })
    }

    /// Its row of the table in the README.
    #[cfg(test)]
    pub(super) fn row(&self, table: Option<&str>) -> String {
        format!("| `{}` | {} | {} |", self.variable(table), self.default, self.about)
    }
}

/// The file with every key at its default, as TOML.
pub(super) fn file(explain: bool) -> String {
    let mut text = String::new();
    comment(
        "Every setting of Iris at its default. Lines without a value of their own are examples.",
        &mut text,
    );
    comment("Variables of the environment win over this file, and flags over them.", &mut text);
    text.push('\n');
    for key in TOP {
        key.write(None, explain, &mut text);
    }
    for (table, example, keys) in TABLES {
        for part in ["# [", table, ".", example, "]\n\n"] {
            text.push_str(part);
        }
        for key in keys {
            key.write(Some(table), explain, &mut text);
        }
    }
    text
}

/// The same for programs.
pub(super) fn describe() -> Value {
    let mut all: Vec<Value> = TOP.iter().map(|key| key.describe(None)).collect();
    for (table, _, keys) in TABLES {
        all.extend(keys.iter().map(|key| key.describe(Some(table))));
    }
    json!({ "settings": all })
}

/// All keys, each with the table that it is in.
#[cfg(test)]
pub(super) fn all() -> impl Iterator<Item = (Option<&'static str>, &'static Key)> {
    let tables = TABLES.into_iter();
    let in_tables =
        tables.flat_map(|(table, _, keys)| keys.iter().map(move |key| (Some(table), key)));
    TOP.iter().map(|key| (None, key)).chain(in_tables)
}

/// Whether a server that runs takes a change of this key, as in `log` or `providers.local.kind`.
pub(super) fn is_live(path: &str) -> bool {
    TOP.iter().any(|key| key.name == path && key.is_live)
}

/// The key that somebody probably meant.
pub(super) fn nearest(name: &str, keys: &[Key]) -> Option<&'static str> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    let distance = |key: &Key| (distance(&name, key.name), key.name);
    let (distance, nearest) = keys.iter().map(distance).min()?;
    (distance <= name.len() / 3).then_some(nearest)
}

/// How many letters have to be put in, taken out or changed (Wagner and Fischer).
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.bytes().enumerate() {
        let mut left = i + 1;
        let mut above_left = i;
        for (b, above) in other.bytes().zip(row.iter_mut().skip(1)) {
            let changed = above_left + usize::from(a != b);
            above_left = *above;
            left = changed.min(left + 1).min(*above + 1);
            *above = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

/// Without links and backticks.
fn plain(markdown: &str) -> String {
    let mut text = String::new();
    let mut rest = markdown;
    while let Some((before, after)) = rest.split_once('[') {
        text.push_str(before);
        let Some((label, target)) = after.split_once("](") else {
            text.push('[');
            rest = after;
            continue;
        };
        text.push_str(label);
        rest = target.split_once(')').map_or("", |(_, rest)| rest);
    }
    text.push_str(rest);
    text.replace('`', "")
}

/// Writes a comment, in lines that are not too long.
fn comment(words: &str, text: &mut String) {
    let mut line = "#".to_owned();
    for word in words.split(' ') {
        if line.len() + word.len() > LINE_CHARS && line.len() > 1 {
            text.push_str(&line);
            text.push('\n');
            "#".clone_into(&mut line);
        }
        line.push(' ');
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}
