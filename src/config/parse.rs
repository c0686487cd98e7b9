//! From the text of one value to its type. A refusal is the second half of a sentence about the key.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use iris_actors::{Registration, ResumePolicy};
use iris_auth::SetupToken;
use iris_egress::{Exception, ExceptionError};
use iris_identity::ProviderKind as IdentityKind;
pub(super) use iris_llm::is_provider_name;
use iris_llm::{ApiKey, KindError, ProviderConfig, ProviderKind, ProxyUrl, Reasoning};
use iris_protocol::{Budget, LogFormat, ModelRef, limits::BACKUPS_MAX};
use iris_sandbox::Tier;
use url::{Host, Url};

use crate::logging::parse_filter;

/// A value, or what is wrong with its text.
pub(super) type Parsed<T> = Result<T, String>;

/// Longest time for runs to end after the signal to stop, in seconds.
pub(super) const DRAIN_SECONDS_MAX: u64 = 3_600;
/// Longest other time: a day.
pub(super) const SECONDS_MAX: u64 = 24 * 60 * 60;
/// A hundred years.
pub(super) const DAYS_MAX: u64 = 36_500;
/// What SQLite can hold.
pub(super) const NUMBER_MAX: u64 = i64::MAX.cast_unsigned();
/// Most of what is counted by the second or minute, or by the user.
pub(super) const COUNT_MAX: u64 = 1_000_000;
/// Most tokens that a window or an answer is said to have.
pub(super) const TOKENS_MAX: u64 = 10_000_000;
/// Longest time between two backups, in hours: a year.
pub(super) const BACKUP_HOURS_MAX: u64 = 366 * 24;
/// Most projects that a server may be told to hold open; each takes three descriptors or more.
pub(super) const PROJECTS_OPEN_MAX: u64 = 100_000;
/// Largest share at which a conversation is made shorter, in percent.
pub(super) const COMPACT_AT_MAX: u64 = 95;
/// The nicest that a process can be.
pub(super) const NICE_MAX: u64 = 19;
/// Most processor time of a command: a hundred processors.
pub(super) const CPU_PERCENT_MAX: u64 = 10_000;
/// Less memory than this starts no program that is of use.
pub(super) const MEMORY_BYTES_MIN: u64 = 64 << 20;

fn refuse<T>(text: &str, expected: &str) -> Parsed<T> {
    Err(format!("`{text}` is not {expected}"))
}

pub(super) fn bind(text: &str) -> Parsed<SocketAddr> {
    text.parse().or_else(|_| refuse(text, "an address with a port like `127.0.0.1:4747`"))
}

pub(super) fn path(text: &str) -> Parsed<PathBuf> {
    if text.is_empty() {
        return refuse(text, "a path");
    }
    Ok(PathBuf::from(text))
}

pub(super) fn absolute_path(text: &str) -> Parsed<PathBuf> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { refuse(text, "an absolute path") }
}

/// Never shows the text.
pub(super) fn setup_token(text: &str) -> Parsed<SetupToken> {
    SetupToken::new(text.to_owned()).map_err(|error| error.to_string())
}

pub(super) fn registration(text: &str) -> Parsed<Registration> {
    match text {
        "open" => Ok(Registration::Open),
        "closed" => Ok(Registration::Closed),
        "invite" => Ok(Registration::Invite),
        _ => refuse(text, "`open`, `invite` or `closed`"),
    }
}

/// A network, or one address.
pub(super) fn network(text: &str) -> Parsed<IpNet> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse::<IpNet>().ok().or_else(address).map_or_else(
        || refuse(text, "a network like `10.0.0.0/8`, or an address"),
        |network| Ok(network.trunc()),
    )
}

/// Never shown: it may hold a password.
pub(super) fn secret_text(text: &str) -> Parsed<String> {
    if text.trim().is_empty() {
        return Err("expected a text that is not empty".to_owned());
    }
    Ok(text.to_owned())
}

pub(super) fn identity_kind(text: &str) -> Parsed<IdentityKind> {
    IdentityKind::from_name(text).map_or_else(|| refuse(text, "`github`, `google` or `oidc`"), Ok)
}

/// RFC 6749 section 3.3.
pub(super) fn oauth_scope(text: &str) -> Parsed<String> {
    let is_plain = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
    if text.is_empty() || !text.bytes().all(is_plain) {
        return refuse(text, "a scope: visible characters but `\"` and `\\`");
    }
    Ok(text.to_owned())
}

/// Where browsers may be sent after a login. It is compared as text, so it has to be as a browser writes it.
pub(super) fn redirect(text: &str) -> Parsed<String> {
    let is_one = Url::parse(text).is_ok_and(|url| {
        let is_local = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        let is_reached = match url.scheme() {
            "https" => true,
            "http" => is_local,
            // Of a program on the same device (RFC 8252 section 7.1).
            scheme => scheme.contains('.'),
        };
        is_reached
            && url.as_str() == text
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none()
    });
    if is_one {
        return Ok(text.to_owned());
    }
    refuse(
        text,
        "a URL without user and fragment, as browsers write it: `https`, `http` on this machine, or a \
         scheme with a dot like `com.example.app:/callback`",
    )
}

pub(super) fn resume(text: &str) -> Parsed<ResumePolicy> {
    ResumePolicy::from_name(text).map_or_else(|| refuse(text, "`manual` or `auto`"), Ok)
}

pub(super) fn log_format(text: &str) -> Parsed<LogFormat> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => refuse(text, "`text` or `json`"),
    }
}

pub(super) fn log_filter(text: &str) -> Parsed<String> {
    parse_filter(text).map(|_| text.to_owned())
}

pub(super) fn drain(text: &str) -> Parsed<Duration> {
    match text.parse() {
        Ok(seconds) if seconds <= DRAIN_SECONDS_MAX => Ok(Duration::from_secs(seconds)),
        Ok(_) | Err(_) => {
            refuse(text, &format!("a whole number of seconds up to {DRAIN_SECONDS_MAX}"))
        }
    }
}

/// A time that is not zero, in whole seconds.
pub(super) fn seconds(text: &str) -> Parsed<Duration> {
    match text.parse() {
        Ok(seconds @ 1..=SECONDS_MAX) => Ok(Duration::from_secs(seconds)),
        Ok(_) | Err(_) => refuse(text, &format!("a whole number of seconds, 1 to {SECONDS_MAX}")),
    }
}

/// A share in percent; 0 means never.
pub(super) fn compact_at_percent(text: &str) -> Parsed<u8> {
    match text.parse() {
        Ok(percent @ (0 | 10..=COMPACT_AT_MAX)) => Ok(u8::try_from(percent).unwrap_or(0)),
        Ok(_) | Err(_) => refuse(text, &format!("0, or a whole number, 10 to {COMPACT_AT_MAX}")),
    }
}

/// A time in whole seconds; 0 means never.
pub(super) fn seconds_or_never(text: &str) -> Parsed<Option<Duration>> {
    if text == "0" { Ok(None) } else { seconds(text).map(Some) }
}

/// A time in whole days; 0 means for ever.
pub(super) fn days(text: &str) -> Parsed<Option<Duration>> {
    match text.parse() {
        Ok(0) => Ok(None),
        Ok(days @ 1..=DAYS_MAX) => Ok(Some(Duration::from_hours(days * 24))),
        Ok(_) | Err(_) => refuse(text, &format!("a whole number of days up to {DAYS_MAX}")),
    }
}

/// How much there may be of something; 0 means no limit.
pub(super) fn number(text: &str) -> Parsed<u64> {
    match text.parse() {
        Ok(number @ 0..=NUMBER_MAX) => Ok(number),
        Ok(_) | Err(_) => refuse(text, &format!("a whole number up to {NUMBER_MAX}")),
    }
}

/// How many there may be of something that is counted; 0 means no limit.
pub(super) fn count(text: &str) -> Parsed<u32> {
    match text.parse::<u64>() {
        Ok(count @ 0..=COUNT_MAX) => Ok(u32::try_from(count).unwrap_or(u32::MAX)),
        Ok(_) | Err(_) => refuse(text, &format!("a whole number up to {COUNT_MAX}")),
    }
}

pub(super) fn at_least_one(text: &str) -> Parsed<u32> {
    match text.parse() {
        Ok(count @ 1..) => Ok(count),
        Ok(_) | Err(_) => refuse(text, "a whole number, at least 1"),
    }
}

pub(super) fn projects_open_max(text: &str) -> Parsed<usize> {
    match text.parse::<u64>() {
        Ok(count @ 1..=PROJECTS_OPEN_MAX) => Ok(usize::try_from(count).unwrap_or(usize::MAX)),
        Ok(_) | Err(_) => refuse(text, &format!("a whole number, 1 to {PROJECTS_OPEN_MAX}")),
    }
}

/// `None` for 0: never.
pub(super) fn backup_interval(text: &str) -> Parsed<Option<Duration>> {
    match text.parse::<u64>() {
        Ok(0) => Ok(None),
        Ok(hours @ 1..=BACKUP_HOURS_MAX) => Ok(Some(Duration::from_hours(hours))),
        Ok(_) | Err(_) => {
            refuse(text, &format!("a whole number of hours, 0 to {BACKUP_HOURS_MAX}"))
        }
    }
}

pub(super) fn backups_kept(text: &str) -> Parsed<usize> {
    match text.parse() {
        Ok(count @ 1..=BACKUPS_MAX) => Ok(count),
        Ok(_) | Err(_) => refuse(text, &format!("a whole number, 1 to {BACKUPS_MAX}")),
    }
}

pub(super) fn bytes(text: &str) -> Parsed<u64> {
    match text.parse() {
        Ok(bytes @ 1..) => Ok(bytes),
        Ok(_) | Err(_) => refuse(text, "a number of bytes, at least 1"),
    }
}

/// How nice commands are.
pub(super) fn nice(text: &str) -> Parsed<u8> {
    match text.parse::<u64>() {
        Ok(nice @ 0..=NICE_MAX) => Ok(u8::try_from(nice).unwrap_or(0)),
        Ok(_) | Err(_) => refuse(text, &format!("a whole number, 0 to {NICE_MAX}")),
    }
}

/// A share of one processor, in percent.
pub(super) fn cpu_percent(text: &str) -> Parsed<u64> {
    match text.parse() {
        Ok(percent @ 1..=CPU_PERCENT_MAX) => Ok(percent),
        Ok(_) | Err(_) => refuse(text, &format!("a whole number, 1 to {CPU_PERCENT_MAX}")),
    }
}

pub(super) fn memory_bytes(text: &str) -> Parsed<u64> {
    match text.parse() {
        Ok(bytes @ MEMORY_BYTES_MIN..) => Ok(bytes),
        Ok(_) | Err(_) => refuse(text, &format!("a number of bytes, at least {MEMORY_BYTES_MIN}")),
    }
}

/// An origin as browsers send it (RFC 6454 section 6.2).
pub(super) fn origin(text: &str) -> Parsed<String> {
    let is_origin = web_url(text).is_some_and(|url| url.origin().ascii_serialization() == text);
    if !is_origin {
        return refuse(text, "an origin like `https://app.example.com`");
    }
    Ok(text.to_owned())
}

/// An origin whose pages may call, or `null`, the one of pages that were opened from a disk.
pub(super) fn allowed_origin(text: &str) -> Parsed<String> {
    if text == "null" { Ok(text.to_owned()) } else { origin(text) }
}

/// A host with or without a port, as in the `Host` header. Made lower case.
pub(super) fn host(text: &str) -> Parsed<String> {
    let text = text.to_ascii_lowercase();
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        Some(_) | None => (text.as_str(), None),
    };
    let port_is_good = port.is_none_or(|port| port.parse::<u16>().is_ok());
    let name_is_good = Host::parse(name).is_ok_and(|host| host.to_string() == name);
    if !port_is_good || !name_is_good || name.contains('*') {
        return refuse(&text, "a host like `iris.example.com` or `iris.example.com:8443`");
    }
    Ok(text)
}

/// What has to be held for commands to run; none for no commands at all.
pub(super) fn sandbox_minimum(text: &str) -> Parsed<Option<Tier>> {
    match text {
        "S2" => Ok(Some(Tier::S2)),
        "S3" => Ok(Some(Tier::S3)),
        "off" => Ok(None),
        _ => refuse(text, "`S2`, `S3`, or `off` for no commands"),
    }
}

/// The number of a user or group that is not root's.
pub(super) fn unprivileged_id(text: &str) -> Parsed<u32> {
    match text.parse() {
        Ok(id) if id > 0 => Ok(id),
        Ok(_) | Err(_) => refuse(text, "the number of a user or group, not 0"),
    }
}

/// What tools may fetch besides the public web.
pub(super) fn egress_exception(text: &str) -> Parsed<Exception> {
    text.parse().map_err(|error: ExceptionError| error.to_string())
}

/// A model of a provider that is configured.
pub(super) fn model(text: &str, providers: &BTreeMap<String, ProviderConfig>) -> Parsed<ModelRef> {
    let Some((provider, model)) = text.split_once('/').filter(|(_, model)| !model.is_empty())
    else {
        return refuse(text, "of the form `provider/model`");
    };
    if !providers.contains_key(provider) {
        return Err(format!("no provider `{provider}` is configured (in `{text}`)"));
    }
    Ok(ModelRef { provider_id: provider.to_owned(), model_id: model.to_owned() })
}

pub(super) fn provider_kind(text: &str) -> Parsed<ProviderKind> {
    text.parse().map_err(|error: KindError| error.to_string())
}

pub(super) fn base_url(text: &str) -> Parsed<String> {
    service_url(text, "`api_key`")
}

/// Without a `/` at its end.
pub(super) fn otlp_endpoint(text: &str) -> Parsed<String> {
    let url = service_url(text, "the variable `OTEL_EXPORTER_OTLP_HEADERS`")?;
    Ok(url.trim_end_matches('/').to_owned())
}

/// Does not show a text that may hold a password; `instead` says where that belongs.
fn service_url(text: &str, instead: &str) -> Parsed<String> {
    let Some(url) = web_url(text) else {
        return refuse(text, "a URL like `https://api.example.com/v1`");
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("the URL must not hold a user or password; use {instead}"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refuse(text, "a URL without `?` and `#`");
    }
    Ok(text.to_owned())
}

pub(super) fn otlp_service_name(text: &str) -> Parsed<String> {
    if text.trim().is_empty() {
        return refuse(text, "a name");
    }
    Ok(text.to_owned())
}

/// Never shows the text.
pub(super) fn switch(text: &str) -> Parsed<bool> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("`{text}` is not `true` or `false`")),
    }
}

pub(super) fn reasoning(text: &str) -> Parsed<Reasoning> {
    text.parse()
}

/// One limit of a budget, as in `usd=2.50`.
pub(super) fn budget_limit(text: &str) -> Parsed<Budget> {
    let expected = "of the form `steps=40`, `tokens=1000000`, `usd=2.50` or `minutes=30`";
    let Some((kind, amount)) = text.split_once('=') else { return refuse(text, expected) };
    let count = || amount.parse::<u64>().ok().filter(|count| *count <= NUMBER_MAX);
    let budget = match kind {
        "steps" => count().map(|steps| Budget { steps: Some(steps), ..Budget::default() }),
        "tokens" => count().map(|tokens| Budget { tokens: Some(tokens), ..Budget::default() }),
        "minutes" => count()
            .and_then(|minutes| minutes.checked_mul(60_000))
            .map(|time| Budget { wall_time_ms: Some(time), ..Budget::default() }),
        "usd" => {
            nano_usd(amount).map(|cost| Budget { cost_nano_usd: Some(cost), ..Budget::default() })
        }
        _ => None,
    };
    budget.map_or_else(|| refuse(text, expected), Ok)
}

/// An amount of dollars in billionths of one, exactly.
fn nano_usd(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 9 || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(1_000_000_000)?;
    let fraction = format!("{fraction:0<9}").parse::<u64>().ok()?;
    whole.checked_add(fraction).filter(|cost| *cost <= NUMBER_MAX)
}

/// Whose models, as the catalogue of models calls them.
pub(super) fn vendor(text: &str) -> Parsed<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > 100 || !text.chars().all(is_part) {
        return refuse(text, "the name of a vendor in the catalogue of models, or `none`");
    }
    Ok(text.to_owned())
}

/// How many tokens; not 0.
pub(super) fn tokens(text: &str) -> Parsed<u32> {
    match text.parse::<u64>() {
        Ok(tokens @ 1..=TOKENS_MAX) => Ok(u32::try_from(tokens).unwrap_or(u32::MAX)),
        Ok(_) | Err(_) => refuse(text, &format!("a whole number, 1 to {TOKENS_MAX}")),
    }
}

/// Does not show a text that may hold a password.
pub(super) fn proxy(text: &str) -> Parsed<ProxyUrl> {
    text.parse().map_err(|problem: &str| problem.to_owned())
}

pub(super) fn api_key(text: &str) -> Parsed<ApiKey> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a key is printable ASCII without spaces, and not empty".to_owned());
    }
    Ok(ApiKey::new(text))
}

fn web_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url)
}
