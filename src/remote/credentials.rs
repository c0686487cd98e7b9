//! The logins of this user, each at a server, in a file that nobody else may read. Commands that run at
//! the same time share a login: one at a time exchanges its refresh token.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use directories::ProjectDirs;
use iris_client::{LockedTokens, LoginTokens, TokenStore};
use serde::{Deserialize, Serialize};

/// Names the file, in place of the one in the user's directory for configuration.
const FILE_VARIABLE: &str = "IRIS_CREDENTIALS_FILE";
const PRIVATE_DIRECTORY: u32 = 0o700;

/// A login, as it is kept.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    email: String,
    access_token: String,
    refresh_token: String,
}

/// By the address of the server.
type Logins = BTreeMap<String, Kept>;

/// The login at one server.
pub(crate) struct Store {
    path: PathBuf,
    url: String,
    /// Of the user for whom a command runs: it never goes on as another.
    email: Option<String>,
}

/// The tokens of the login at a server, and where others find them; none without a login.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn of(url: &str) -> io::Result<Option<(LoginTokens, Arc<dyn TokenStore>)>> {
    let store = Store::new(url)?;
    let login = read(&store.path)?.remove(url);
    Ok(login.map(|login| {
        let store = Store { email: Some(login.email.clone()), ..store };
        (LoginTokens::from(login), Arc::new(store) as Arc<dyn TokenStore>)
    }))
}

impl From<Kept> for LoginTokens {
    fn from(kept: Kept) -> Self {
        Self { access: kept.access_token, refresh: kept.refresh_token }
    }
}

impl Store {
    /// Where the login at a server is kept.
    ///
    /// # Errors
    /// When this user has no directory for it.
    pub(crate) fn new(url: &str) -> io::Result<Self> {
        Ok(Self { path: path()?, url: url.to_owned(), email: None })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps a login in place of the one before, which it answers.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn put(&self, email: &str, tokens: LoginTokens) -> io::Result<Option<LoginTokens>> {
        let mut locked = self.locked()?;
        let kept = Kept {
            email: email.to_owned(),
            access_token: tokens.access,
            refresh_token: tokens.refresh,
        };
        let before = locked.logins.insert(self.url.clone(), kept);
        locked.write()?;
        Ok(before.map(LoginTokens::from))
    }

    /// Forgets the login.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn forget(&self) -> io::Result<()> {
        let mut locked = self.locked()?;
        locked.logins.remove(&self.url);
        locked.write()
    }

    fn locked(&self) -> io::Result<Locked> {
        if let Some(directory) = self.path.parent() {
            make_private(directory)?;
        }
        // Another file: the one with the logins is replaced, not changed.
        let mut options = File::options();
        options.create(true).truncate(false).write(true);
        let lock = options.open(self.path.with_extension("lock"))?;
        lock.lock()?;
        let logins = read(&self.path)?;
        let (path, url, email) = (self.path.clone(), self.url.clone(), self.email.clone());
        Ok(Locked { _lock: lock, path, url, email, logins })
    }
}

impl TokenStore for Store {
    fn lock(&self) -> io::Result<Box<dyn LockedTokens>> {
        Ok(Box::new(self.locked()?))
    }
}

/// The file, while no other process changes it.
struct Locked {
    _lock: File,
    path: PathBuf,
    url: String,
    email: Option<String>,
    logins: Logins,
}

impl Locked {
    /// Whether a login is that of another user, who logged in meanwhile.
    fn is_of_another(&self, login: &Kept) -> bool {
        self.email.as_ref().is_some_and(|email| *email != login.email)
    }

    fn write(&self) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        // Open to its owner alone from the beginning.
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        serde_json::to_writer_pretty(&mut file, &self.logins)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist(&self.path).map_err(|error| error.error)?;
        Ok(())
    }
}

impl LockedTokens for Locked {
    fn tokens(&self) -> Option<LoginTokens> {
        let login = self.logins.get(&self.url).filter(|login| !self.is_of_another(login));
        login.cloned().map(LoginTokens::from)
    }

    fn keep(&mut self, tokens: &LoginTokens) {
        // Logged out meanwhile: nothing is to be kept any more.
        if self.tokens().is_none() {
            return;
        }
        let Some(login) = self.logins.get_mut(&self.url) else { return };
        login.access_token.clone_from(&tokens.access);
        login.refresh_token.clone_from(&tokens.refresh);
        if let Err(error) = self.write() {
            super::say("login", &format!("it cannot be kept, and has to be made again: {error}"));
        }
    }
}

fn path() -> io::Result<PathBuf> {
    if let Some(path) = std::env::var_os(FILE_VARIABLE).filter(|path| !path.is_empty()) {
        return Ok(PathBuf::from(path));
    }
    let own = ProjectDirs::from("", "", "iris");
    let own = own.map(|own| own.config_dir().join("credentials.json"));
    own.ok_or_else(|| {
        let text = format!("this user has no home directory: set `{FILE_VARIABLE}`");
        io::Error::new(ErrorKind::NotFound, text)
    })
}

fn read(path: &Path) -> io::Result<Logins> {
    match fs::read(path) {
        Ok(json) => serde_json::from_slice(&json).map_err(|error| {
            let text = format!("`{}` cannot be read ({error}): remove it", path.display());
            io::Error::new(ErrorKind::InvalidData, text)
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Logins::default()),
        Err(error) => Err(error),
    }
}

fn make_private(directory: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, PRIVATE_DIRECTORY);
    builder.create(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(n: u8) -> LoginTokens {
        LoginTokens { access: format!("access {n}"), refresh: format!("refresh {n}") }
    }

    #[test]
    fn a_login_is_kept_for_its_owner_alone_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new").join("credentials.json");
        let store = |url: &str| Store { path: path.clone(), url: url.to_owned(), email: None };
        let (here, there) = (store("http://here/"), store("http://there/"));
        assert!(here.put("ann@example.com", tokens(1)).unwrap().is_none());
        assert!(there.put("ann@example.com", tokens(2)).unwrap().is_none());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        }
        here.lock().unwrap().keep(&tokens(3));
        assert!(here.lock().unwrap().tokens() == Some(tokens(3)));
        assert!(there.lock().unwrap().tokens() == Some(tokens(2)));
        here.forget().unwrap();
        // Who exchanged meanwhile does not bring it back.
        here.lock().unwrap().keep(&tokens(4));
        assert!(here.lock().unwrap().tokens().is_none());
        fs::write(&path, "nonsense").unwrap();
        assert!(there.locked().is_err());
    }

    #[test]
    fn a_command_does_not_go_on_as_another_user() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials.json");
        let store = |email: Option<&str>| Store {
            path: path.clone(),
            url: "http://here/".to_owned(),
            email: email.map(ToOwned::to_owned),
        };
        let (anyone, ann) = (store(None), store(Some("ann@example.com")));
        anyone.put("ann@example.com", tokens(1)).unwrap();
        assert!(ann.lock().unwrap().tokens() == Some(tokens(1)));
        // She logged in again: that is still her.
        anyone.put("ann@example.com", tokens(2)).unwrap();
        assert!(ann.lock().unwrap().tokens() == Some(tokens(2)));
        assert!(anyone.put("ben@example.com", tokens(3)).unwrap() == Some(tokens(2)));
        assert!(ann.lock().unwrap().tokens().is_none());
        ann.lock().unwrap().keep(&tokens(4));
        assert!(anyone.lock().unwrap().tokens() == Some(tokens(3)));
    }
}
