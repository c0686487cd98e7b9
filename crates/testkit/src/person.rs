//! Somebody with an account.

use iris_client::{Client, ConnectOptions, RestAnswer, Socket};
use iris_protocol::{
    AuthGrant, MemberAdd, MemberPayload, Position, Project, ProjectCreate, ProjectId, ProjectType,
    Role, Session, SessionCreate, SessionGet, SessionId, SessionSnapshot, UserId,
};
use serde_json::Value;

use crate::{Conversation, WireSocket, patiently};

/// Everybody's password.
pub const PASSWORD: &str = "correct horse battery";

/// Somebody who is logged in.
#[derive(Debug, Clone)]
pub struct Person {
    /// Speaks for them.
    pub client: Client,
    /// What the server gave when they logged in.
    pub grant: AuthGrant,
}

/// What goes wrong here is the test's failure.
impl Person {
    /// The person of a grant.
    pub fn new(server: &Client, grant: AuthGrant) -> Self {
        Self { client: server.with_grant(&grant), grant }
    }

    /// Who it is.
    pub fn id(&self) -> &UserId {
        &self.grant.user.id
    }

    /// The access token that they got when they logged in.
    pub fn token(&self) -> &str {
        &self.grant.access_token
    }

    /// Sends a REST request as this person.
    pub async fn rest(&self, method: &str, path: &str, body: Option<Value>) -> RestAnswer {
        self.client.rest(method, path, Some(self.token()), body.as_ref()).await.unwrap()
    }

    /// `GET` as this person.
    pub async fn get(&self, path: &str) -> RestAnswer {
        self.rest("GET", path, None).await
    }

    /// `POST` as this person.
    pub async fn post(&self, path: &str, body: Value) -> RestAnswer {
        self.rest("POST", path, Some(body)).await
    }

    /// Creates a project.
    pub async fn project(&self, name: &str) -> Project {
        self.project_of(name, ProjectType::Local).await
    }

    /// Creates a project of a type.
    pub async fn project_of(&self, name: &str, r#type: ProjectType) -> Project {
        let request = ProjectCreate {
            name: name.to_owned(),
            description: None,
            r#type,
            path: None,
            git: None,
        };
        self.client.call(None, request).await.unwrap().project
    }

    /// Gives somebody a role in a project of this person.
    pub async fn add_member(&self, project: &ProjectId, person: &Self, role: Role) {
        let user_id = Some(person.id().clone());
        let request = MemberAdd { user_id, email: None, role };
        let MemberPayload { member } = self.client.call(Some(project), request).await.unwrap();
        assert_eq!(member.role, role);
    }

    /// Creates a session of the default agent.
    pub async fn session(&self, project: &ProjectId) -> Session {
        let request = SessionCreate { title: None, agent: None, model: None, mode: None };
        self.client.call(Some(project), request).await.unwrap().session
    }

    /// Reads a session with its first page.
    pub async fn snapshot(&self, project: &ProjectId, session: &SessionId) -> SessionSnapshot {
        let request = SessionGet { session_id: session.clone(), limit: None, before: None };
        self.client.call(Some(project), request).await.unwrap()
    }

    /// Opens a socket.
    pub async fn connect(&self) -> Socket {
        let options = ConnectOptions::default();
        // The future of a connection is large; nobody who awaits it here should be.
        let connecting = Box::pin(self.client.connect(&options));
        patiently("`connected`", connecting).await.unwrap()
    }

    /// Opens a socket that says and hears frames, and takes `connected` from it.
    pub async fn wire(&self) -> WireSocket {
        let mut socket =
            WireSocket::open(self.client.base_url(), Some(self.token())).await.unwrap();
        assert_eq!(socket.next_json().await["type"], "connected");
        socket
    }

    /// Joins a session, to hear what happens from now on.
    pub async fn join(&self, project: &ProjectId, session: &SessionId) -> Conversation {
        self.join_since(project, session, None).await
    }

    /// Joins a session, to hear also what happened after a position.
    pub async fn join_since(
        &self,
        project: &ProjectId,
        session: &SessionId,
        since: Option<Position>,
    ) -> Conversation {
        Conversation::join(self.clone(), project.clone(), session.clone(), since).await
    }

    /// Joins a new session of a new project.
    pub async fn conversation(&self) -> Conversation {
        let project = self.project("conversation").await.id;
        self.conversation_in(&project).await
    }

    /// Joins a new session of a project.
    pub async fn conversation_in(&self, project: &ProjectId) -> Conversation {
        let session = self.session(project).await.id;
        self.join(project, &session).await
    }
}
