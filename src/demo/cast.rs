//! The two people of the demo, each with an account, a client and a socket.

use iris_client::{Client, ClientError, ConnectOptions, Socket};
use iris_protocol::{
    AgentCreate, AuthGrant, AuthRegister, AuthSetup, Content, EventFrame, MemberAdd, MessageSend,
    Position, ProjectCreate, ProjectId, ProjectType, Role, Room, RoomRequest, RoomSince,
    RoomStatus, RunCancel, RunId, SessionCreate, SessionGet, SessionId, SessionSnapshot, Subscribe,
    ToolApprove, ToolCallId, ToolReject, UserId,
};

/// The agent of the demo.
const AGENT: &str = "host";
/// Its instructions.
const PROMPT: &str = "You are a helpful assistant.";
/// Its tools, in the order in which the model sees them. Small models cope with few.
const TOOLS: [&str; 2] = ["read", "write"];
/// Of accounts that end with the demo, on a server that nobody else knows.
const PASSWORD: &str = "only for this demo";

/// Who sees an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Viewer {
    Ann,
    Ben,
}

impl Viewer {
    pub(super) const BOTH: [Self; 2] = [Self::Ann, Self::Ben];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ann => "ann",
            Self::Ben => "ben",
        }
    }
}

/// What ben thinks of a tool call.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verdict {
    Approve,
    Reject { reason: &'static str },
}

impl Verdict {
    pub(super) fn says(self) -> &'static str {
        match self {
            Self::Approve => "approves",
            Self::Reject { .. } => "rejects",
        }
    }
}

/// One of the two.
pub(super) struct Person {
    pub(super) id: UserId,
    pub(super) name: &'static str,
    client: Client,
    socket: Socket,
}

impl Person {
    async fn enter(viewer: Viewer, client: &Client, grant: AuthGrant) -> Result<Self, ClientError> {
        let client = client.with_grant(&grant);
        let socket = client.connect(&ConnectOptions::default()).await?;
        Ok(Self { id: grant.user.id, name: viewer.name(), client, socket })
    }
}

/// Ann, who owns the project, ben, who is a member of it, and the session that they share.
pub(super) struct Cast {
    pub(super) ann: Person,
    pub(super) ben: Person,
    project: ProjectId,
    session: SessionId,
}

impl Cast {
    /// Makes the accounts, the project and the session, and joins both sockets to its rooms from the
    /// very first event on.
    pub(super) async fn assemble(url: &str, setup_token: &str) -> Result<Self, ClientError> {
        let client = Client::new(url)?;
        let ann = Person::enter(Viewer::Ann, &client, setup(&client, setup_token).await?).await?;
        let ben = Person::enter(Viewer::Ben, &client, register(&client).await?).await?;
        let project = create_project(&ann.client).await?;
        let member = MemberAdd { user_id: Some(ben.id.clone()), email: None, role: Role::Member };
        ann.client.call(Some(&project), member).await?;
        let session = create_session(&ann.client, &project).await?;
        let cast = Self { ann, ben, project, session };
        cast.join().await?;
        Ok(cast)
    }

    async fn join(&self) -> Result<(), ClientError> {
        let epoch = self.snapshot().await?.as_of.epoch;
        let since = Some(Position { epoch, seq: 0 });
        let rooms = [Room::Project(self.project.clone()), Room::Session(self.session.clone())];
        let rooms = rooms.map(|room| {
            RoomRequest::Since(RoomSince { room: room.to_string(), since: since.clone() })
        });
        let request = Subscribe { rooms: rooms.to_vec(), deltas: None, presence: None };
        for person in [&self.ann, &self.ben] {
            let reply = person.socket.call(Some(&self.project), request.clone()).await?;
            let refused =
                reply.payload.rooms.into_iter().find(|r| r.status != RoomStatus::Replayed);
            if let Some(room) = refused {
                let problem = format!("{} could not join `{}`", person.name, room.room);
                return Err(ClientError::Protocol(problem));
            }
        }
        Ok(())
    }

    /// The next event that reaches one of the two.
    pub(super) async fn next_event(&self) -> Result<(Viewer, EventFrame), ClientError> {
        tokio::select! {
            event = self.ann.socket.next_event() => Ok((Viewer::Ann, event?)),
            event = self.ben.socket.next_event() => Ok((Viewer::Ben, event?)),
        }
    }

    /// Ann writes a file, with REST.
    pub(super) async fn put_file(&self, path: &str, text: &'static str) -> Result<(), ClientError> {
        self.ann.client.file_put(&self.project, path, text).await.map(drop)
    }

    /// Ben reads a file, with REST.
    pub(super) async fn get_file(&self, path: &str) -> Result<String, ClientError> {
        let content = self.ben.client.file_get(&self.project, path).await?;
        Ok(String::from_utf8_lossy(&content).into_owned())
    }

    /// Ann says something to the agent.
    pub(super) async fn send(&self, message: &str) -> Result<RunId, ClientError> {
        let content = Content::Text(message.to_owned());
        let request = MessageSend {
            session_id: self.session.clone(),
            content,
            when_busy: None,
            attachments: Vec::new(),
        };
        Ok(self.ann.socket.call(Some(&self.project), request).await?.payload.run_id)
    }

    /// Ann ends the run.
    pub(super) async fn cancel(&self) -> Result<(), ClientError> {
        let request = RunCancel { session_id: self.session.clone() };
        self.ann.socket.call(Some(&self.project), request).await.map(drop)
    }

    /// Ben decides about a tool call.
    pub(super) async fn decide(
        &self,
        call: &ToolCallId,
        verdict: Verdict,
    ) -> Result<(), ClientError> {
        let (session_id, tool_call_id) = (self.session.clone(), call.clone());
        let (socket, project) = (&self.ben.socket, Some(&self.project));
        match verdict {
            Verdict::Approve => {
                let request = ToolApprove {
                    session_id,
                    tool_call_id,
                    remember: None,
                    input_hash: None,
                    input: None,
                };
                socket.call(project, request).await.map(drop)
            }
            Verdict::Reject { reason } => {
                let reason = Some(reason.to_owned());
                let request = ToolReject { session_id, tool_call_id, reason };
                socket.call(project, request).await.map(drop)
            }
        }
    }

    /// The session as the server has recorded it.
    pub(super) async fn snapshot(&self) -> Result<SessionSnapshot, ClientError> {
        let session_id = self.session.clone();
        let request = SessionGet { session_id, limit: None, before: None };
        self.ben.client.call(Some(&self.project), request).await
    }
}

async fn setup(client: &Client, token: &str) -> Result<AuthGrant, ClientError> {
    let request = AuthSetup {
        token: token.to_owned(),
        email: "ann@example.com".to_owned(),
        username: Viewer::Ann.name().to_owned(),
        password: PASSWORD.to_owned(),
    };
    client.setup(&request).await
}

async fn register(client: &Client) -> Result<AuthGrant, ClientError> {
    let request = AuthRegister {
        invitation: None,
        email: "ben@example.com".to_owned(),
        username: Viewer::Ben.name().to_owned(),
        password: PASSWORD.to_owned(),
    };
    client.register(&request).await
}

async fn create_project(client: &Client) -> Result<ProjectId, ClientError> {
    let name = "Party".to_owned();
    let request = ProjectCreate {
        name,
        description: None,
        r#type: ProjectType::default(),
        path: None,
        git: None,
    };
    Ok(client.call(None, request).await?.project.id)
}

async fn create_session(client: &Client, project: &ProjectId) -> Result<SessionId, ClientError> {
    let tools = Some(TOOLS.map(str::to_owned).to_vec());
    let agent = AgentCreate {
        name: AGENT.to_owned(),
        description: None,
        mode: None,
        prompt: Some(PROMPT.to_owned()),
        model: None,
        tools,
        tuning: iris_protocol::AgentTuning::default(),
        permissions: None,
        budget: None,
    };
    client.call(Some(project), agent).await?;
    let (title, agent) = (Some("Friday".to_owned()), Some(AGENT.to_owned()));
    let request = SessionCreate { title, agent, model: None, mode: None };
    Ok(client.call(Some(project), request).await?.session.id)
}
