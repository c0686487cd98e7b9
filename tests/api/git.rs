//! Projects that are cloned: from this machine, over HTTP, and from servers that behave badly. Every test runs the
//! real git in the real sandbox of this machine.

mod bad_servers;
mod recovering;
mod serving;
mod working;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use iris_client::Socket;
use iris_protocol::{
    CloneState, ErrorCode, Event, GitAction, GitSource, Project, ProjectCreate, ProjectGet,
    ProjectGit, ProjectId, ProjectType, RoomRequest, SecretText, Subscribe,
};
use iris_sandbox::{Tier, share_directory};
use iris_testkit::{AppOptions, Person, TestApp, patiently, spawn_app_with};
use tempfile::TempDir;

use crate::bash::sandbox;
use crate::{code_of, is_held, refusal};

/// A repository that is cloned from, and one with which somebody else works on it.
pub(crate) struct Origin {
    dir: TempDir,
}

impl Origin {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(dir.path(), open).unwrap();
        // The repositories may be of another user, who sends to them.
        let trust = "[safe]\n\tdirectory = *\n";
        std::fs::write(dir.path().join("gitconfig"), trust).unwrap();
        let origin = Self { dir };
        git(origin.top(), &["init", "-q", "--bare", "-b", "main", "origin.git"]);
        git(origin.top(), &["init", "-q", "-b", "main", "work"]);
        origin.commit("a.txt", "one\n", "First");
        std::fs::create_dir(origin.work().join("b")).unwrap();
        origin.commit("b/c.txt", "two\n", "Second");
        git(&origin.work(), &["switch", "-q", "-c", "feature"]);
        origin.commit("a.txt", "of the feature\n", "Third");
        git(&origin.work(), &["switch", "-q", "main"]);
        origin.send();
        origin
    }

    pub(crate) fn top(&self) -> &Path {
        self.dir.path()
    }

    fn work(&self) -> PathBuf {
        self.top().join("work")
    }

    pub(crate) fn bare(&self) -> PathBuf {
        self.top().join("origin.git").canonicalize().unwrap()
    }

    /// Commits in the other work tree.
    fn commit(&self, path: &str, text: &str, message: &str) {
        std::fs::write(self.work().join(path), text).unwrap();
        git(&self.work(), &["add", "-A"]);
        git(&self.work(), &["commit", "-q", "-m", message]);
    }

    /// Has the repository have what the other work tree has, for all who may write there.
    fn send(&self) {
        git(&self.work(), &["push", "-q", "--all", "--force", "../origin.git"]);
        git(&self.bare(), &["update-server-info"]);
        if let Some(uid) = sandbox().uid {
            share_directory(&self.bare(), uid, uid).unwrap();
        }
    }

    /// What the repository says.
    fn says(&self, arguments: &[&str]) -> String {
        git(&self.bare(), arguments)
    }
}

/// Runs git without the configuration of this machine.
pub(crate) fn git(at: &Path, arguments: &[&str]) -> String {
    let config = at.ancestors().map(|it| it.join("gitconfig")).find(|it| it.exists());
    let ran = Command::new("git")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", config.unwrap())
        .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_NAME"), "Eve")))
        .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_EMAIL"), "eve@example.com")))
        .current_dir(at)
        .args(arguments)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap().trim_end().to_owned()
}

fn options(roots: &[&Path]) -> AppOptions {
    AppOptions {
        sandbox: Some(sandbox()),
        project_roots: roots.iter().map(|root| (*root).to_owned()).collect(),
        ..AppOptions::default()
    }
}

/// A server that may clone, and its administrator. None on a machine whose sandbox has no network to give.
pub(crate) async fn scene(options: AppOptions) -> Option<(TestApp, Person)> {
    if !is_held(sandbox(), Tier::S3).await {
        return None;
    }
    let app = spawn_app_with(options).await;
    open(app.data_dir());
    let admin = app.admin().await;
    Some((app, admin))
}

/// The user of the commands has to be able to get there.
pub(crate) fn open(data_dir: &Path) {
    if sandbox().uid.is_some() {
        std::fs::set_permissions(data_dir, std::fs::Permissions::from_mode(0o711)).unwrap();
    }
}

pub(crate) fn from(url: impl Into<String>) -> GitSource {
    GitSource { url: url.into(), branch: None, username: None, token: None }
}

fn with_token(url: String, token: &str) -> GitSource {
    let (username, token) = (Some("ann".to_owned()), Some(SecretText::new(token.to_owned())));
    GitSource { username, token, ..from(url) }
}

fn cloned_from(git: GitSource) -> ProjectCreate {
    ProjectCreate {
        name: "p".to_owned(),
        description: None,
        r#type: ProjectType::Git,
        path: None,
        git: Some(git),
    }
}

pub(crate) async fn clone(person: &Person, git: GitSource) -> Project {
    let project = person.client.call(None, cloned_from(git)).await.unwrap().project;
    assert_eq!(project.r#type, ProjectType::Git);
    project
}

pub(crate) async fn state(person: &Person, id: &ProjectId) -> ProjectGit {
    person.client.call(Some(id), ProjectGet {}).await.unwrap().project.git.unwrap()
}

/// Hears what becomes of a project.
async fn hear(person: &Person, id: &ProjectId) -> Socket {
    let socket = person.connect().await;
    let rooms = vec![RoomRequest::Live(format!("project:{id}"))];
    let subscribe = Subscribe { rooms, deltas: None, presence: None };
    socket.call(Some(id), subscribe).await.unwrap();
    socket
}

/// Waits until the clone of a project has ended.
async fn ended(person: &Person, id: &ProjectId) -> ProjectGit {
    let socket = hear(person, id).await;
    let now = state(person, id).await;
    if now.state != CloneState::Cloning {
        return now;
    }
    let end = async {
        loop {
            if let Event::GitChanged { action, .. } = socket.next_event().await.unwrap().event
                && matches!(action, GitAction::Cloned | GitAction::CloneFailed)
            {
                return;
            }
        }
    };
    patiently("the end of a clone", end).await;
    state(person, id).await
}

async fn ready(person: &Person, git: GitSource) -> ProjectId {
    let id = clone(person, git).await.id;
    let found = ended(person, &id).await;
    assert_eq!((found.state, found.error), (CloneState::Ready, None));
    id
}

/// Why a clone failed.
async fn failure(person: &Person, git: GitSource) -> (ProjectId, String) {
    let id = clone(person, git).await.id;
    let found = ended(person, &id).await;
    assert_eq!(found.state, CloneState::Failed);
    (id, found.error.unwrap())
}

async fn refused(person: &Person, git: GitSource) -> (ErrorCode, String) {
    let error = refusal(person.client.call(None, cloned_from(git)).await);
    let (code, reason) = code_of(&error);
    (code, reason.to_owned())
}

fn files_of(app: &TestApp, id: &ProjectId) -> PathBuf {
    app.data_dir().join("projects").join(id.as_str()).join("files")
}
