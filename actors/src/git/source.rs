//! Where a repository is, who may say so, and how git gets there.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use iris_auth::PlainSecret;
use iris_egress::{Egress, EgressError, Pinned, parse_url};
use iris_protocol::{ApiError, ErrorCode, GitSource, ProjectId};
use iris_store::root::{ImportProject, NewGit, StoredGit};

use super::{GitSettings, Network, broken, conflict};
use crate::Services;
use crate::project::ProjectHandle;

/// Longest address of a repository, in bytes.
const URL_BYTES_MAX: usize = 2048;
/// Longest name of a branch, and longest name and token for the other side, in bytes.
const NAME_BYTES_MAX: usize = 255;
const TOKEN_BYTES_MAX: usize = 4096;
/// The name that goes with a token where nobody gave one: most servers take any.
const USERNAME: &str = "git";
/// Fewer bytes in a second for too long are none.
const BYTES_PER_SECOND_MIN: &str = "100";

/// What a token is sealed for.
pub(crate) fn sealed_for(id: &ProjectId) -> [&str; 2] {
    ["git", id.as_str()]
}

/// Refuses what cannot be the name of a branch (git-check-ref-format(1)), or could be taken for an option.
pub(crate) fn check_branch(field: &str, name: &str) -> Result<(), ApiError> {
    let is_bad = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
    let is_part = |part: &str| {
        !part.is_empty() && !part.starts_with('.') && part.strip_suffix(".lock").is_none()
    };
    let is_name = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with('-')
        && !name.ends_with('.')
        && name != "@"
        && name != "HEAD"
        && !name.contains("..")
        && !name.contains("@{")
        && !name.contains(is_bad)
        && name.split('/').all(is_part);
    if is_name {
        return Ok(());
    }
    Err(ApiError::invalid(format!("`{field}` is not the name of a branch"))
        .reason("invalid_branch"))
}

/// Refuses what does not name a commit in a plain way: a branch, a tag, a hash, with `~2` and `^` behind it.
pub(super) fn check_commit(field: &str, name: &str) -> Result<(), ApiError> {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '~' || c == '^');
    if name == "HEAD" || stem == "HEAD" || check_branch(field, name).is_ok() {
        return Ok(());
    }
    check_branch(field, stem).map_err(|_| {
        ApiError::invalid(format!("`{field}` does not name a commit")).reason("invalid_commit")
    })
}

/// Checks where a project is to be cloned from, and seals its token.
///
/// # Errors
/// As [`Reach`]; `INVALID_REQUEST` with reason `invalid_git_credentials`.
pub(crate) async fn check_source(
    services: &Services,
    id: &ProjectId,
    source: GitSource,
) -> Result<NewGit, ApiError> {
    let GitSource { url, branch, username, token } = source;
    let url = Reach::of(services).check(&url, branch.as_deref()).await?;
    let token = token.map(|token| PlainSecret::new(token.expose().to_owned()));
    let sealed = seal(services, id, username.as_deref(), token.as_ref())?;
    Ok(NewGit { url, branch, username, sealed })
}

/// Checks name and token for the other side, and seals the latter.
///
/// # Errors
/// `INVALID_REQUEST` with reason `invalid_git_credentials`.
pub(crate) fn seal(
    services: &Services,
    id: &ProjectId,
    username: Option<&str>,
    token: Option<&PlainSecret>,
) -> Result<Option<String>, ApiError> {
    let invalid = |message: &str| ApiError::invalid(message).reason("invalid_git_credentials");
    // A colon would end it (RFC 7617, section 2).
    let is_bad = |c: char| c.is_control() || c == ':';
    if username.is_some_and(|it| it.is_empty() || it.len() > NAME_BYTES_MAX || it.contains(is_bad))
    {
        return Err(invalid(
            "`username` must have 1 to 255 bytes, no colon, no control characters",
        ));
    }
    let Some(token) = token else { return Ok(None) };
    let text = token.expose();
    if text.is_empty() || text.len() > TOKEN_BYTES_MAX || text.contains(char::is_control) {
        return Err(invalid("`token` must have 1 to 4096 bytes, no control characters"));
    }
    services.sealing.seal(token, &sealed_for(id)).map(Some).map_err(broken)
}

/// The path that an address names on this machine, if it does.
fn local_path(url: &str) -> Result<Option<PathBuf>, ApiError> {
    let path = match url.strip_prefix("file://") {
        Some(path) => path,
        None if url.starts_with('/') => url,
        None => return Ok(None),
    };
    // Nothing is decoded: the path is what it says.
    if !path.starts_with('/') || path.contains(char::is_control) || path.contains(['%', '?', '#']) {
        let message = "`git.url` names a path of this machine that cannot be used";
        return Err(ApiError::invalid(message).reason("invalid_git_url"));
    }
    Ok(Some(PathBuf::from(path)))
}

fn outside() -> ApiError {
    let message = "`git.url` must lead to a directory under one of the server's project roots";
    ApiError::new(ErrorCode::Forbidden, message).reason("outside_project_roots")
}

/// Where git may go from here. What it may not is refused with `INVALID_REQUEST` (`invalid_git_url`,
/// `invalid_branch`), or `FORBIDDEN` with the reason of the way out or `outside_project_roots`.
pub struct Reach<'a> {
    /// Directories under which the repositories of this machine are that may be cloned.
    pub project_roots: &'a [PathBuf],
    /// The server's own, apart from which they are.
    pub data_dir: &'a Path,
    /// The way out; none where nobody is reached.
    pub egress: Option<&'a Egress>,
}

impl<'a> Reach<'a> {
    pub(crate) fn of(services: &'a Services) -> Self {
        Self {
            project_roots: &services.settings.project_roots,
            data_dir: &services.settings.data_dir,
            egress: services.egress.as_deref(),
        }
    }

    /// Has a project that is imported keep where it was cloned from, or else be one of the type `local`.
    pub async fn settle(&self, import: &mut ImportProject) {
        let Some(git) = &mut import.git else { return };
        match self.check(&git.url, git.branch.as_deref()).await {
            Ok(url) => git.url = url,
            Err(_) => import.without_git(),
        }
    }

    /// Gives the address as it is kept.
    async fn check(&self, url: &str, branch: Option<&str>) -> Result<String, ApiError> {
        if let Some(branch) = branch {
            check_branch("git.branch", branch)?;
        }
        let url = match local_path(url)? {
            Some(path) => {
                let real = self.allowed(path).await?;
                let text = real.to_str().ok_or_else(outside)?;
                format!("file://{text}")
            }
            None => match self.pinned(url).await {
                Ok(pinned) => pinned.url.to_string(),
                // Perhaps it is only away now: the clone tells.
                Err(EgressError::Dns { .. } | EgressError::TimedOut { .. }) => {
                    parse_url(url).map_err(|error| refused(&error))?.to_string()
                }
                Err(error) => return Err(refused(&error)),
            },
        };
        if url.len() > URL_BYTES_MAX {
            let message = format!("`git.url` is longer than {URL_BYTES_MAX} bytes");
            return Err(ApiError::invalid(message).reason("invalid_git_url"));
        }
        Ok(url)
    }

    /// The real path of a directory under one of the operator's project roots, apart from the server's own data.
    async fn allowed(&self, path: PathBuf) -> Result<PathBuf, ApiError> {
        let (roots, data_dir) = (self.project_roots.to_owned(), self.data_dir.to_owned());
        let look = move || {
            let real = path.canonicalize().ok().filter(|real| real.is_dir())?;
            let data_dir = data_dir.canonicalize().ok()?;
            if real.starts_with(&data_dir) || data_dir.starts_with(&real) {
                return None;
            }
            // What belongs to a work tree is no repository of its own.
            let is_inner = |name: &OsStr| name == ".git" || name == ".iris";
            if real.iter().any(is_inner) {
                return None;
            }
            let mut roots = roots.iter().filter_map(|root| root.canonicalize().ok());
            roots.any(|root| real.starts_with(root)).then_some(real)
        };
        tokio::task::spawn_blocking(look).await.map_err(broken)?.ok_or_else(outside)
    }

    async fn pinned(&self, url: &str) -> Result<Pinned, EgressError> {
        match self.egress {
            Some(egress) => egress.pin(url).await,
            None => Err(EgressError::BadUrl { problem: "this server reaches nobody".to_owned() }),
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the others are about what the caller wrote")]
fn refused(error: &EgressError) -> ApiError {
    let message = format!("`git.url`: {error}");
    match error {
        EgressError::BlockedScheme { .. }
        | EgressError::BlockedAddress { .. }
        | EgressError::BlockedPort { .. } => {
            ApiError::new(ErrorCode::Forbidden, message).reason(error.code())
        }
        EgressError::Dns { .. } | EgressError::TimedOut { .. } => {
            conflict("git_unreachable", message)
        }
        _ => ApiError::invalid(message).reason("invalid_git_url"),
    }
}

/// How git gets to the other side.
pub(super) struct Way {
    pub(super) url: String,
    pub(super) protocol: &'static str,
    pub(super) network: Network,
    pub(super) read_only: Vec<PathBuf>,
    /// A repository of this machine that is written to.
    pub(super) writable: Option<PathBuf>,
    pub(super) config: Vec<(String, String)>,
}

/// Judges the address again, since names and rules may have changed, and opens the token.
///
/// # Errors
/// As [`Reach`]; `CONFLICT` with reasons `git_unreachable` and `git_credentials_unreadable`.
pub(super) async fn way(
    services: &Services,
    project: &ProjectHandle,
    git: &StoredGit,
) -> Result<Way, ApiError> {
    let (source, reach) = (&git.source, Reach::of(services));
    if let Some(path) = local_path(&source.url)? {
        let real = reach.allowed(path.clone()).await?;
        if real != path {
            return Err(outside());
        }
        return Ok(Way {
            url: source.url.clone(),
            protocol: "file",
            network: Network::Off,
            read_only: vec![real],
            writable: None,
            config: Vec::new(),
        });
    }
    let Pinned { url, addresses } =
        reach.pinned(&source.url).await.map_err(|error| refused(&error))?;
    let port = url.port_or_known_default().unwrap_or(443);
    let host = url.host_str().unwrap_or_default();
    let addresses: Vec<_> = addresses
        .iter()
        .map(|address| match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        })
        .collect();
    let GitSettings { stall, .. } = services.settings.git;
    let seconds = stall.as_secs().max(1).to_string();
    let mut config: Vec<(String, String)> = [
        ("http.followRedirects", "false"),
        ("http.proxy", ""),
        ("http.sslVerify", "true"),
        ("http.lowSpeedLimit", BYTES_PER_SECOND_MIN),
        ("http.lowSpeedTime", &seconds),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    if !host.starts_with('[') {
        let pinned = format!("{host}:{port}:{}", addresses.join(","));
        config.push(("http.curloptResolve".to_owned(), pinned));
    }
    if let Some(header) = header(services, project, git)? {
        config.push(("http.extraHeader".to_owned(), header));
    }
    let protocol = if url.scheme() == "https" { "https" } else { "http" };
    let (network, read_only) = (Network::On, Vec::new());
    let (url, writable) = (url.to_string(), None);
    Ok(Way { url, protocol, network, read_only, writable, config })
}

impl Way {
    /// The same for what is sent there.
    pub(super) fn into_writing(mut self) -> Self {
        self.writable = self.read_only.pop();
        self
    }
}

/// What tells the other side who asks (RFC 7617). From now on nobody repeats it.
fn header(
    services: &Services,
    project: &ProjectHandle,
    git: &StoredGit,
) -> Result<Option<String>, ApiError> {
    let Some(sealed) = &git.source.sealed else { return Ok(None) };
    let token = services.sealing.open(sealed, &sealed_for(&git.project_id)).map_err(|error| {
        tracing::warn!(project.id = %git.project_id, %error, "a token for git cannot be read");
        let message = "the token for the other side cannot be read any more: set it again";
        conflict("git_credentials_unreadable", message)
    })?;
    let username = git.source.username.as_deref().unwrap_or(USERNAME);
    let basic = STANDARD.encode(format!("{username}:{}", token.expose()));
    for secret in [token.expose(), &basic] {
        project.kept.secrets.learn_chosen(secret);
    }
    Ok(Some(format!("Authorization: Basic {basic}")))
}

/// Whether the directory is there.
pub(super) async fn is_there(path: &Path) -> Result<bool, ApiError> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || path.is_dir()).await.map_err(broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_branches_are_told_from_options_and_other_things() {
        for name in ["main", "feature/a-b", "v1.2", "ä", "a@b", "origin/main"] {
            assert!(check_branch("branch", name).is_ok(), "{name}");
        }
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        for name in [
            "",
            "-b",
            "--upload-pack=x",
            "a..b",
            "a b",
            "a~1",
            "a^",
            "a:b",
            "a?",
            "a*",
            "a[",
            "a\\b",
            "/a",
            "a/",
            "a//b",
            ".a",
            "a/.b",
            "a.lock",
            "a.lock/b",
            "a.",
            "@",
            "a@{1}",
            "a\nb",
            "HEAD",
            &long,
        ] {
            assert!(check_branch("branch", name).is_err(), "{name}");
        }
    }

    #[test]
    fn commits_have_plain_names() {
        for name in ["HEAD", "HEAD~2", "main^", "main^2~1", "0123456789abcdef", "origin/main"] {
            assert!(check_commit("from", name).is_ok(), "{name}");
        }
        for name in ["", "-x", "--all", "a..b", "HEAD:x", "@{u}", "^main", "main^{tree}", ":/text"]
        {
            assert!(check_commit("from", name).is_err(), "{name}");
        }
    }

    #[test]
    fn paths_of_this_machine_are_told_from_addresses() {
        let path = |text: &str| local_path(text).ok().flatten();
        assert_eq!(path("/srv/a.git"), Some(PathBuf::from("/srv/a.git")));
        assert_eq!(path("file:///srv/a.git"), Some(PathBuf::from("/srv/a.git")));
        assert_eq!(path("https://example.com/a.git"), None);
        for text in ["file://host/a", "file:///a%20b", "/a\nb"] {
            assert!(local_path(text).is_err(), "{text}");
        }
    }
}
