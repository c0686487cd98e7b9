//! What the examples with a server inside have in common: its configuration, and somebody who asks it.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, ensure};
use iris::app::App;
use iris::config::{Config, Flags};
use iris_client::{Client, FollowOptions, Follower, Update};
use iris_protocol::{
    AuthSetup, Content, Event, Message, MessageSend, ProjectCreate, ProjectId, ProjectType, RunId,
    RunStatus, SessionCreate, SessionGet, SessionId,
};

/// The scripted model, which does what a message tells it and needs no network.
pub(crate) const SCRIPTED: &[(&str, &str)] =
    &[("IRIS_PROVIDERS__DEMO__KIND", "scripted"), ("IRIS_DEFAULT_MODEL", "demo/script")];

/// The configuration of a server in `data_dir`, on a free port: the variables that `iris serve` reads, without
/// those of this process.
pub(crate) fn config(data_dir: &Path, more: &[(&str, &str)]) -> anyhow::Result<Config> {
    let data_dir = data_dir.to_str().context("a path of text")?;
    let fixed = [
        ("IRIS_DATA_DIR", data_dir),
        ("IRIS_BIND", "127.0.0.1:0"),
        // A program with `bash` has to be the launcher of its sandbox too: `iris_sandbox::launcher_main`.
        ("IRIS_SANDBOX_MINIMUM", "off"),
        // No other model is looked for on this machine.
        ("IRIS_DETECT_MODELS", "false"),
    ];
    let variables = fixed.iter().chain(more);
    let variables = variables.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let no_file = |_: &Path| Err(ErrorKind::NotFound.into());
    Ok(Config::load(Flags::default(), variables, no_file)?.0)
}

/// The first user of a new server, with a project and a session in it.
pub(crate) struct Guest {
    /// Knows who the user is.
    pub(crate) client: Client,
    /// The project.
    pub(crate) project: ProjectId,
    /// The session.
    pub(crate) session: SessionId,
}

impl Guest {
    /// As any client: an account, a project, a session.
    pub(crate) async fn enter(app: &App) -> anyhow::Result<Self> {
        let server = Client::new(&app.url())?;
        let token = app.setup_token().context("a new server has one")?.as_str().to_owned();
        let account = AuthSetup {
            token,
            email: "ann@example.com".to_owned(),
            username: "ann".to_owned(),
            password: "correct horse battery".to_owned(),
        };
        let grant = server.setup(&account).await?;
        let client = server.with_grant(&grant);
        let project = ProjectCreate {
            name: "example".to_owned(),
            description: None,
            r#type: ProjectType::Local,
            path: None,
            git: None,
        };
        let project = client.call(None, project).await?.project.id;
        let session = SessionCreate { title: None, agent: None, model: None, mode: None };
        let session = client.call(Some(&project), session).await?.session.id;
        Ok(Self { client, project, session })
    }

    /// Sends a message and waits, over a WebSocket, until its run has ended. Gives the session's messages.
    pub(crate) async fn ask(&self, text: &str) -> anyhow::Result<Vec<Message>> {
        let (client, options) = (self.client.clone(), FollowOptions::default());
        let (project, session) = (self.project.clone(), self.session.clone());
        let mut follower = Follower::start(client, project, session, options);
        // What happens after the snapshot is told, so that the end of the run is not missed.
        while !matches!(follower.next().await?, Update::Reset(_)) {}
        let message = MessageSend {
            session_id: self.session.clone(),
            content: Content::Text(text.to_owned()),
            when_busy: None,
            attachments: Vec::new(),
        };
        let run = follower.call(message).await?.payload.run_id;
        while !is_end(&follower.next().await?, &run)? {}
        let request = SessionGet { session_id: self.session.clone(), limit: None, before: None };
        Ok(self.client.call(Some(&self.project), request).await?.messages)
    }
}

/// Whether an update tells of the good end of a run.
fn is_end(update: &Update, run: &RunId) -> anyhow::Result<bool> {
    let Update::Event(frame) = update else { return Ok(false) };
    let Event::RunCompleted { run_id, status, error, .. } = &frame.event else { return Ok(false) };
    if run_id != run {
        return Ok(false);
    }
    ensure!(*status == RunStatus::Completed, "the run ended as {status:?}: {error:?}");
    Ok(true)
}
