//! Clients of the server, and the same model without a server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures_util::StreamExt;
use iris_agent::{Prompt, PromptMessage};
use iris_client::{Client, FollowOptions, Follower, Update};
use iris_llm::{Model, ModelEvent, ModelRequest, Models, ProviderConfig, ProviderKind};
use iris_protocol::{
    AuthGrant, AuthSetup, Content, Event, MessageSend, ModelRef, ProjectCreate, ProjectId,
    ProjectType, RunStatus, SessionCreate, SessionId,
};

use crate::server::{PROVIDER, SETUP_TOKEN, Server};

/// Chunks of one answer.
pub(crate) const CHUNKS: usize = 200;
/// What one answer says.
const CHUNK: &str = "word ";
/// No answer takes as long as this.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Somebody who is signed in and owns a project.
pub(crate) struct Owner {
    pub(crate) client: Client,
    pub(crate) grant: AuthGrant,
    pub(crate) project: ProjectId,
}

impl Owner {
    /// Makes the administrator of a new server, and a project.
    pub(crate) async fn of(server: &Server) -> anyhow::Result<Self> {
        let client = Client::new(server.url())?;
        let setup = AuthSetup {
            token: SETUP_TOKEN.to_owned(),
            email: "ann@example.com".to_owned(),
            username: "ann".to_owned(),
            password: "a long password".to_owned(),
        };
        let grant = client.setup(&setup).await?;
        let client = client.with_grant(&grant);
        let project = new_project(&client).await?;
        Ok(Self { client, grant, project })
    }

    /// The same owner after the server started again somewhere else.
    pub(crate) fn again(&self, server: &Server) -> anyhow::Result<Self> {
        let (grant, project) = (self.grant.clone(), self.project.clone());
        Ok(Self { client: Client::new(server.url())?.with_grant(&grant), grant, project })
    }

    /// What proves who it is.
    pub(crate) fn token(&self) -> &str {
        &self.grant.access_token
    }

    /// Makes a session and hears it over a WebSocket of its own.
    pub(crate) async fn new_session(&self) -> anyhow::Result<Conversation> {
        let session = new_session(&self.client, &self.project).await?;
        let (client, project) = (self.client.clone(), self.project.clone());
        let follower = Follower::start(client, project, session.clone(), FollowOptions::default());
        let mut conversation = Conversation { follower, session };
        while conversation.next().await? != Update::Connected {}
        Ok(conversation)
    }
}

/// Makes a project.
pub(crate) async fn new_project(client: &Client) -> anyhow::Result<ProjectId> {
    new_project_of(client, ProjectType::default()).await
}

/// Makes a project of a type.
pub(crate) async fn new_project_of(
    client: &Client,
    r#type: ProjectType,
) -> anyhow::Result<ProjectId> {
    let name = "figures".to_owned();
    let create = ProjectCreate { name, description: None, r#type, path: None, git: None };
    Ok(client.call(None, create).await?.project.id)
}

/// Makes a session.
pub(crate) async fn new_session(client: &Client, project: &ProjectId) -> anyhow::Result<SessionId> {
    let create = SessionCreate { title: None, agent: None, model: None, mode: None };
    Ok(client.call(Some(project), create).await?.session.id)
}

/// Sends a message.
pub(crate) async fn say(owner: &Owner, session: &SessionId, text: &str) -> anyhow::Result<()> {
    let (session_id, content) = (session.clone(), Content::Text(text.to_owned()));
    let message = MessageSend { session_id, content, when_busy: None, attachments: Vec::new() };
    Ok(owner.client.call(Some(&owner.project), message).await.map(drop)?)
}

/// A client in a session.
pub(crate) struct Conversation {
    pub(crate) follower: Follower,
    pub(crate) session: SessionId,
}

/// An answer that came whole.
pub(crate) struct Answer {
    /// From before the message was sent until the end of its run was heard.
    pub(crate) took: Duration,
    /// From before the message was sent until text was heard first.
    pub(crate) first: Duration,
    /// How many pieces of text arrived while it streamed.
    pub(crate) pieces: usize,
}

impl Conversation {
    /// Sends `script` to the model and hears the answer, every byte of which has to arrive.
    pub(crate) async fn ask(&mut self, script: &str) -> anyhow::Result<Answer> {
        let mut text = String::new();
        let answer = self.hear(script, |heard| heard.clone_into(&mut text)).await?;
        ensure!(text == CHUNK.repeat(CHUNKS), "text was lost: `{text}`");
        Ok(answer)
    }

    /// Sends a message and hears the answer; `heard` is told all of its text again with each piece.
    pub(crate) async fn hear(
        &mut self,
        message: &str,
        mut heard: impl FnMut(&str),
    ) -> anyhow::Result<Answer> {
        let started_at = Instant::now();
        let (session_id, content) = (self.session.clone(), Content::Text(message.to_owned()));
        let message = MessageSend { session_id, content, when_busy: None, attachments: Vec::new() };
        let run_id = self.follower.call(message).await?.payload.run_id;
        let (mut text, mut pieces, mut first) = (String::new(), 0, None);
        loop {
            match self.next().await? {
                Update::Text { offset, delta, .. } => {
                    first.get_or_insert_with(|| started_at.elapsed());
                    text.truncate(usize::try_from(offset)?);
                    text.push_str(&delta);
                    pieces += 1;
                    heard(&text);
                }
                Update::Event(frame) => {
                    if let Event::RunCompleted { run_id: ended, status, error, .. } = frame.event
                        && ended == run_id
                    {
                        let took = started_at.elapsed();
                        ensure!(status == RunStatus::Completed, "the run ended with {error:?}");
                        let first = first.unwrap_or(took);
                        return Ok(Answer { took, first, pieces });
                    }
                }
                Update::Connected | Update::Reset(_) | Update::Presence(_) => {}
                Update::Reconnecting { reason, .. } => bail!("the connection was lost: {reason}"),
            }
        }
    }

    /// What is heard next.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Update> {
        let update = tokio::time::timeout(ANSWER_TIMEOUT, self.follower.next()).await;
        Ok(update.context("nothing was heard for a long time")??)
    }
}

/// The script of one answer with `delay_ms` before each chunk.
pub(crate) fn script(delay_ms: u64) -> String {
    format!("delay {delay_ms}\nchunks {CHUNKS} {}", CHUNK.trim_end())
}

/// The model that the server uses.
pub(crate) fn model() -> anyhow::Result<Arc<dyn Model>> {
    let config = ProviderConfig::new(ProviderKind::Scripted);
    let models = Models::new([(PROVIDER.to_owned(), config)].into())?;
    Ok(models.get(&ModelRef { provider_id: PROVIDER.to_owned(), model_id: "script".to_owned() })?)
}

/// How long the model itself takes to say all of `script`.
pub(crate) async fn drive(model: &dyn Model, script: &str) -> anyhow::Result<Duration> {
    let messages = vec![PromptMessage::asked(script)];
    let prompt = Prompt { messages, ..Prompt::default() };
    let started_at = Instant::now();
    let mut stream = model.stream(ModelRequest { prompt, ..ModelRequest::default() });
    let mut heard = String::new();
    while let Some(event) = stream.next().await {
        if let ModelEvent::TextDelta { text, .. } = event? {
            heard.push_str(&text);
        }
    }
    let took = started_at.elapsed();
    ensure!(heard == CHUNK.repeat(CHUNKS), "the model said something else: `{heard}`");
    Ok(took)
}
