//! Somebody who uses the server while things go wrong in it: tries again what was refused, and notes
//! when and how it was refused.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use iris_actors::SystemClock;
use iris_actors::supervision::faults::Armed;
use iris_agent::Clock;
use iris_client::ClientError;
use iris_protocol::{
    ApiError, ErrorCode, ProjectCreate, ProjectId, ProjectType, RunStatus, SessionCreate, SessionId,
};
use iris_testkit::{IdentityProvider, Person, TestApp};
use tokio::time::{Instant, timeout};

use crate::stage::oauthfake::OauthFake;

/// The longest that anything may take; what takes longer hangs.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// The longest that trying again may take.
const RECOVERY_MAX: Duration = Duration::from_secs(10);

/// What somebody was told who did not get what they wanted.
#[derive(Debug, Clone)]
pub(crate) enum Trouble {
    /// An error that says to try again.
    Refused(ApiError),
    /// The socket was closed with this code.
    Closed(u16),
    /// The run ended otherwise than it should have.
    RunEnded(RunStatus),
    /// The actor at this path did not say anything of itself.
    Silent(String),
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Api(error) => Self::Refused(error),
            ClientError::Closed { code, .. } => Self::Closed(code),
            other => panic!("no way to fail: {other}"),
        }
    }
}

impl Trouble {
    /// Whether it says what happened, and that it is worth to try again.
    fn is_fair(&self) -> bool {
        match self {
            Self::Refused(error) => error.retryable,
            Self::Closed(code) => *code == 1011,
            Self::RunEnded(status) => {
                matches!(status, RunStatus::Failed | RunStatus::Interrupted)
            }
            Self::Silent(path) => path.starts_with("node/"),
        }
    }

    /// Whether it says that an earlier attempt did it after all, though its answer was lost.
    fn is_done_already(&self) -> bool {
        let Self::Refused(error) = self else { return false };
        matches!(error.code, ErrorCode::Conflict | ErrorCode::NotFound | ErrorCode::Gone)
    }
}

/// One attempt to do something. Times are milliseconds since 1970 UTC.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) what: &'static str,
    pub(crate) began_at: i64,
    pub(crate) ended_at: i64,
    pub(crate) trouble: Option<Trouble>,
}

/// Somebody with a project of their own, an operator and a friend.
pub(crate) struct Player<'a> {
    pub(crate) app: &'a TestApp,
    pub(crate) person: &'a Person,
    pub(crate) friend: &'a Person,
    pub(crate) operator: &'a Person,
    /// A place on the web that may be reached.
    pub(crate) login: &'a OauthFake,
    /// Where people may log in.
    pub(crate) identities: &'a IdentityProvider,
    /// Paths of actors that are somebody else's.
    pub(crate) spared: Vec<String>,
    /// Goes wrong in the next project that is created.
    pub(crate) armed: Cell<Option<Armed>>,
    pub(crate) attempts: RefCell<Vec<Attempt>>,
}

impl Player<'_> {
    /// Whether an actor is somebody else's.
    pub(crate) fn spares(&self, path: &str) -> bool {
        self.spared.iter().any(|spared| path.starts_with(spared))
    }

    /// Tries until it succeeds.
    pub(crate) async fn insist<T>(
        &self,
        what: &'static str,
        attempt: impl AsyncFnMut() -> Result<T, Trouble>,
    ) -> T {
        self.tries(what, attempt).await.unwrap_or_else(|error| panic!("{what}: {error:?}"))
    }

    /// Tries until it succeeds, or turns out to have succeeded before.
    pub(crate) async fn insist_done<T>(
        &self,
        what: &'static str,
        attempt: impl AsyncFnMut() -> Result<T, Trouble>,
    ) {
        drop(self.tries(what, attempt).await);
    }

    /// Fails only with what says that an earlier attempt did it.
    async fn tries<T>(
        &self,
        what: &'static str,
        mut attempt: impl AsyncFnMut() -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let (first, mut is_first) = (Instant::now(), true);
        loop {
            let began_at = SystemClock.now_ms();
            let outcome = timeout(ANSWER_MAX, attempt()).await;
            let outcome = outcome.unwrap_or_else(|_| panic!("`{what}` hangs"));
            let is_done = !is_first && outcome.as_ref().is_err_and(Trouble::is_done_already);
            let trouble = if is_done { None } else { outcome.as_ref().err().cloned() };
            let ended_at = SystemClock.now_ms();
            self.attempts.borrow_mut().push(Attempt { what, began_at, ended_at, trouble });
            match outcome {
                Ok(done) => return Ok(done),
                Err(trouble) if is_done => return Err(trouble),
                Err(trouble) => assert!(trouble.is_fair(), "`{what}`: {trouble:?}"),
            }
            assert!(first.elapsed() < RECOVERY_MAX, "`{what}` is not possible any more");
            is_first = false;
        }
    }

    /// Notes what went wrong on the way to something else.
    pub(crate) fn note(&self, what: &'static str, trouble: Trouble) {
        assert!(trouble.is_fair(), "`{what}`: {trouble:?}");
        let now = SystemClock.now_ms();
        let attempt = Attempt { what, began_at: now, ended_at: now, trouble: Some(trouble) };
        self.attempts.borrow_mut().push(attempt);
    }

    /// Creates a project, in which something may go wrong from now on.
    pub(crate) async fn project(&self) -> ProjectId {
        let create = async || {
            let request = ProjectCreate {
                name: "a".to_owned(),
                description: None,
                r#type: ProjectType::Local,
                path: None,
                git: None,
            };
            Ok(self.person.client.call(None, request).await?.project.id)
        };
        let project = self.insist("project.create", create).await;
        if let Some(armed) = self.armed.take() {
            self.app.supervision().faults().arm_under(&project_path(&project), armed);
        }
        project
    }

    /// Creates a session.
    pub(crate) async fn session(&self, project: &ProjectId) -> SessionId {
        let create = async || {
            let request = SessionCreate { title: None, agent: None, model: None, mode: None };
            Ok(self.person.client.call(Some(project), request).await?.session.id)
        };
        self.insist("session.create", create).await
    }
}

/// Where the registry of a project stands.
pub(crate) fn project_path(project: &ProjectId) -> String {
    format!("node/directory/project/{project}")
}
