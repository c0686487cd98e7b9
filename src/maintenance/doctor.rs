//! `iris doctor`: whether a server would work with this configuration, on this machine.

use std::fs;
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use iris_actors::SystemClock;
use iris_agent::Clock;
use iris_auth::load_key;
use iris_llm::Models;
use iris_sandbox::{Config as SandboxConfig, Sandbox, Tier};
use serde_json::{Value, json};

use super::output::Output;
use super::{MaintenanceError, Place};
use crate::app::public_url;
use crate::config::Config;
use crate::lock::DataDirLock;
use crate::lodging::Lodging;
use crate::tls::{self, TlsFiles};

/// Descriptors below which a server holds few clients: one for each, and five for each open project.
const DESCRIPTORS_MIN: u64 = 4_096;

/// Free bytes of the disk below which a server soon has trouble.
const DISK_BYTES_MIN: u64 = 1024 * 1024 * 1024;
/// Free bytes below which hardly more than its reserve has room.
const DISK_BYTES_NEEDED: u64 = 32 * 1024 * 1024;
/// The beginning of 2026: no clock that is right says less.
const WRITTEN_MS: i64 = 1_767_225_600_000;

/// How long a proxy has to take a connection.
const PROXY_PATIENCE: Duration = Duration::from_secs(2);
/// By how much a file may be newer than the clock: file systems and clocks are not exact.
const CLOCK_TOLERANCE: Duration = Duration::from_mins(1);

/// What was found about one thing.
struct Finding {
    what: &'static str,
    state: State,
    says: String,
    facts: Value,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    /// The server works, but not all of it.
    Warning,
    Bad,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Warning => "warning",
            Self::Bad => "failed",
        }
    }
}

fn finding(what: &'static str, state: State, says: impl Into<String>, facts: Value) -> Finding {
    Finding { what, state, says: says.into(), facts }
}

/// Looks at everything that a server needs, changes nothing and says one line of each.
pub(super) fn run(place: &Place) -> Result<(), MaintenanceError> {
    let (config, warnings) = Config::from_process(place.flags())?;
    let mut findings: Vec<Finding> = warnings
        .into_iter()
        .map(|warning| finding("configuration", State::Warning, warning, Value::Null))
        .collect();
    if findings.is_empty() {
        findings.push(finding("configuration", State::Good, "understood", Value::Null));
    }
    findings.push(data_directory(&config));
    findings.push(file_system(&config));
    findings.extend(permissions(&config));
    findings.extend(keys(&config));
    findings.push(address(&config));
    findings.push(exposure(&config));
    findings.extend(config.tls.as_ref().map(certificate));
    findings.push(descriptors());
    findings.extend(disk(&config));
    findings.push(clock(&config));
    findings.extend(proxies(&config));
    findings.push(tried_out(config.sandbox.clone()));
    findings.push(model(&config));
    findings.extend(logins(&config));

    let mut output = Output::new(place.manner);
    for Finding { what, state, says, facts } in findings {
        let text = format!("{:<8} {what}: {says}", state.as_str());
        let value = json!({ "what": what, "state": state.as_str(), "says": says, "facts": facts });
        match state {
            State::Good | State::Warning => output.done(&text, &value)?,
            State::Bad => output.failed(&text, &value)?,
        }
    }
    output.end()
}

fn certificate(files: &TlsFiles) -> Finding {
    let facts = json!({ "certificate": files.certificate, "key": files.key });
    match tls::check(files, &SystemClock) {
        Ok(()) => finding("certificate", State::Good, "it can be shown", facts),
        Err(error) => finding("certificate", State::Bad, error.to_string(), facts),
    }
}

fn data_directory(config: &Config) -> Finding {
    let path = &config.data_dir;
    let facts = json!({ "path": path });
    let about = |state, says: String| finding("data directory", state, says, facts.clone());
    let shown = path.display();
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return about(State::Good, format!("`{shown}` will be made"));
        }
        Err(error) => return about(State::Bad, format!("`{shown}`: {error}")),
        Ok(found) if !found.is_dir() => {
            return about(State::Bad, format!("`{shown}` is no directory"));
        }
        Ok(_) => {}
    }
    match DataDirLock::take(path) {
        Ok(Some(_)) => about(State::Good, format!("`{shown}` is there, and no server uses it")),
        Ok(None) => about(State::Good, format!("`{shown}` is used by a server that runs")),
        Err(error) => about(State::Bad, format!("`{shown}`: {error}")),
    }
}

/// Whether databases can live where the data directory is.
fn file_system(config: &Config) -> Finding {
    let about = |state, says: String, kind: Option<&str>| {
        finding("file system", state, says, json!({ "network": kind }))
    };
    match Lodging::of(&config.data_dir) {
        Lodging::Here => about(State::Good, "of this machine".to_owned(), None),
        Lodging::Perhaps(kind) => {
            let says = format!(
                "{kind}, behind which another machine may be: databases need one of this machine"
            );
            about(State::Warning, says, Some(kind))
        }
        Lodging::Elsewhere(kind) => {
            let says = format!("{kind} is over a network: choose a data directory of this machine");
            about(State::Bad, says, Some(kind))
        }
    }
}

/// Whether the keys that are there can be used.
fn keys(config: &Config) -> Vec<Finding> {
    let previous = [
        ("the key of tokens from before", config.jwt_secret_previous_file.as_deref()),
        ("the master key from before", config.master_key_previous_file.as_deref()),
    ];
    let current = [
        ("the key of tokens", Some(config.jwt_secret_file.as_path())),
        ("the master key", Some(config.master_key_file.as_path())),
    ];
    let found =
        current.into_iter().chain(previous).enumerate().filter_map(|(index, (role, path))| {
            let path = path?;
            let (shown, facts) = (path.display(), json!({ "path": path }));
            let about = |state, says: String| Some(finding("keys", state, says, facts));
            // Those that are to be made are the first two.
            if index < 2 && !path.exists() {
                return about(State::Good, format!("`{shown}`, {role}, will be made"));
            }
            match load_key(path) {
                Ok(_) => about(State::Good, format!("`{shown}`, {role}, can be used")),
                Err(error) => about(State::Bad, format!("`{shown}`, {role}: {error}")),
            }
        });
    found.collect()
}

/// Whether the proxies in front of providers of models answer. Nothing is sent through them.
fn proxies(config: &Config) -> Vec<Finding> {
    let used = config.providers.iter().filter_map(|(name, it)| Some((name, it.proxy.as_ref()?)));
    let found = used.map(|(name, proxy)| {
        let (host, port) = proxy.place();
        let facts = json!({ "provider": name, "host": host, "port": port });
        let answers = (host.as_str(), port).to_socket_addrs().is_ok_and(|mut all| {
            all.any(|address| TcpStream::connect_timeout(&address, PROXY_PATIENCE).is_ok())
        });
        let place = format!("{host}:{port}, before provider `{name}`");
        if answers {
            finding("proxy", State::Good, format!("{place}, answers"), facts)
        } else {
            finding("proxy", State::Warning, format!("{place}, does not answer"), facts)
        }
    });
    found.collect()
}

/// Whether other users of the machine can read what only the server should, as far as it is there.
fn permissions(config: &Config) -> Vec<Finding> {
    let private: [(&str, &Path); 3] = [
        ("the data directory", &config.data_dir),
        ("the key of tokens", &config.jwt_secret_file),
        ("the master key", &config.master_key_file),
    ];
    let found = private.into_iter().filter_map(|(role, path)| {
        let mode = mode(path)?;
        let of_others = mode & 0o077;
        let facts = json!({ "path": path, "mode": format!("{mode:03o}") });
        let shown = path.display();
        Some(if of_others == 0 {
            let says = format!("`{shown}`, {role}, is open to its owner alone");
            finding("permissions", State::Good, says, facts)
        } else {
            let says = format!(
                "`{shown}`, {role}, is open to others ({mode:03o}): run `chmod go= {shown}`"
            );
            finding("permissions", State::Warning, says, facts)
        })
    });
    found.collect()
}

#[cfg(unix)]
fn mode(path: &Path) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;

    Some(fs::metadata(path).ok()?.permissions().mode() & 0o777)
}

#[cfg(not(unix))]
fn mode(_: &Path) -> Option<u32> {
    None
}

/// Whether passwords would travel in the clear.
fn exposure(config: &Config) -> Finding {
    let facts = json!({ "tls": config.tls.is_some(), "proxies": config.trusted_proxies.len() });
    let about = |state, says: &str| finding("exposure", state, says, facts.clone());
    if config.tls.is_some() {
        about(State::Good, "the server speaks TLS itself")
    } else if config.bind.ip().is_loopback() {
        about(State::Good, "only this machine reaches the server, a proxy on it among others")
    } else if config.trusted_proxies.is_empty() {
        let says = "other machines reach the server without TLS, and passwords travel in the clear: \
                    set `IRIS_TLS_CERTIFICATE_FILE` and `IRIS_TLS_KEY_FILE`, or bind a loopback address \
                    behind a proxy that speaks TLS, or name that proxy in `IRIS_TRUSTED_PROXIES`";
        about(State::Warning, says)
    } else {
        about(State::Good, "a proxy stands in front of the server, which has to speak TLS")
    }
}

/// None where nobody says how much is left.
fn disk(config: &Config) -> Option<Finding> {
    let there = config.data_dir.ancestors().find(|path| path.is_dir())?;
    let left = iris_store::disk_available(there)?;
    let mebibytes = left / 1024 / 1024;
    let (state, says) = if left < DISK_BYTES_NEEDED {
        (State::Bad, format!("only {mebibytes} MiB are free: hardly anything can be written"))
    } else if left < DISK_BYTES_MIN {
        (State::Warning, format!("only {mebibytes} MiB are free: writes will soon be refused"))
    } else if left < config.shares.disk_free_bytes_min {
        let says = format!(
            "only {mebibytes} MiB are free, fewer than `IRIS_COMMANDS_DISK_FREE_BYTES_MIN`: commands of \
             agents are ended"
        );
        (State::Warning, says)
    } else {
        (State::Good, format!("{mebibytes} MiB are free"))
    };
    Some(finding("disk", state, says, json!({ "availableBytes": left })))
}

/// Whether tokens and certificates would be good when they should.
fn clock(config: &Config) -> Finding {
    let now = SystemClock.now_ms();
    let facts = json!({ "now": now });
    if let Some(ahead) = newest_write_ahead(&config.data_dir) {
        let says = format!(
            "the data directory was written {} s after the time of the clock: set it",
            ahead.as_secs()
        );
        return finding("clock", State::Warning, says, facts);
    }
    if now < WRITTEN_MS {
        let says = "the clock is at a time before this program was written: set it";
        return finding("clock", State::Bad, says, facts);
    }
    finding("clock", State::Good, "not at a time before this program was written", facts)
}

/// By how much what the server wrote last is after now, where that is more than a moment.
fn newest_write_ahead(data_dir: &Path) -> Option<Duration> {
    let names = ["root.db", "root.db-wal", "lock"];
    let written =
        names.iter().filter_map(|name| fs::metadata(data_dir.join(name)).ok()?.modified().ok());
    let ahead = written.filter_map(|at| at.elapsed().err().map(|error| error.duration())).max()?;
    (ahead > CLOCK_TOLERANCE).then_some(ahead)
}

fn address(config: &Config) -> Finding {
    let facts = json!({ "address": config.bind.to_string() });
    let bind = config.bind;
    match TcpListener::bind(bind) {
        Ok(_) => finding("address", State::Good, format!("{bind} is free"), facts),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let says = format!("{bind} is in use, perhaps by the server that runs");
            finding("address", State::Warning, says, facts)
        }
        Err(error) => finding("address", State::Bad, format!("{bind}: {error}"), facts),
    }
}

fn descriptors() -> Finding {
    let what = "open files";
    match rlimit::getrlimit(rlimit::Resource::NOFILE) {
        Ok((_, hard)) if hard >= DESCRIPTORS_MIN => {
            finding(what, State::Good, format!("at most {hard}"), json!({ "limit": hard }))
        }
        Ok((_, hard)) => {
            let says = format!("at most {hard}: few clients and projects can be open at once");
            finding(what, State::Warning, says, json!({ "limit": hard }))
        }
        Err(error) => finding(what, State::Warning, error.to_string(), Value::Null),
    }
}

fn tried_out(config: Option<SandboxConfig>) -> Finding {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(sandbox(config)),
        Err(error) => finding("sandbox", State::Bad, error.to_string(), Value::Null),
    }
}

/// Tries the sandbox out as the server does at its start.
async fn sandbox(config: Option<SandboxConfig>) -> Finding {
    let Some(config) = config else {
        let says = "switched off: there is no tool `bash`";
        return finding("sandbox", State::Good, says, json!({ "tier": null }));
    };
    let sandbox = Sandbox::start(config).await;
    let tier = sandbox.tier().to_string();
    let missing: Vec<String> = sandbox.missing().iter().map(ToString::to_string).collect();
    let facts = json!({ "tier": tier, "missing": missing });
    let lacks = if missing.is_empty() {
        String::new()
    } else {
        format!("; missing: {}", missing.join("; "))
    };
    let (state, says) = match sandbox.check() {
        Ok(()) => (held(sandbox.tier()), format!("commands run in {tier}{lacks}")),
        Err(error) => (State::Warning, format!("no commands run: {error}")),
    };
    finding("sandbox", state, says, facts)
}

/// What is to be said of a tier in which commands run: S2 has holes.
fn held(tier: Tier) -> State {
    if tier >= Tier::S3 { State::Good } else { State::Warning }
}

/// Whether somebody would answer. No provider is asked.
fn model(config: &Config) -> Finding {
    let facts = json!({ "providers": config.providers.keys().collect::<Vec<_>>() });
    let about = |state, says: String| finding("model", state, says, facts.clone());
    let models = match Models::new(config.providers.clone()) {
        Ok(models) => models,
        Err(error) => return about(State::Bad, error.to_string()),
    };
    let Some(chosen) = &config.default_model else {
        return about(State::Warning, models.none_chosen().to_string());
    };
    match models.get(chosen) {
        Ok(_) => {
            let says = format!("`{}/{}` answers by default", chosen.provider_id, chosen.model_id);
            about(State::Good, says)
        }
        Err(error) => about(State::Bad, error.to_string()),
    }
}

/// Whether browsers come back from where people log in; none where they log in here alone. No provider is
/// asked.
fn logins(config: &Config) -> Option<Finding> {
    let names: Vec<&str> = config.oauth.keys().map(String::as_str).collect();
    let (first, facts) = (names.first()?, json!({ "providers": names }));
    let about = |state, says: String| Some(finding("logins", state, says, facts.clone()));
    let Some(url) = public_url(config, config.bind) else {
        let says = "nobody can log in at a provider: set `IRIS_PUBLIC_URL`";
        return about(State::Warning, says.to_owned());
    };
    let says = format!("browsers come back to `{url}/v1/auth/oauth/{first}/callback` and the like");
    about(State::Good, says)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_with_holes_is_warned_of() {
        assert!(held(Tier::S3) == State::Good && held(Tier::S2) == State::Warning);
    }
}
