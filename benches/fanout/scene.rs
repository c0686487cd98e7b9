//! Iris as it is measured: the real program on one core, a project with sessions, and who makes things
//! happen in them.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use iris_protocol::SessionId;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::conversation::{Owner, new_session, say};
use crate::crowd::{Heard, Rooms};
use crate::machine::{SERVER_CORE, pinned};
use crate::server::{Server, binary, data_dir};
use crate::wire::{Target, Wire, request};

/// Between two pieces of one answer: about as often as the server sends what came.
const PIECE_EVERY: Duration = Duration::from_millis(25);

/// A server with a project.
pub(crate) struct Scene {
    pub(crate) server: Server,
    pub(crate) owner: Owner,
    pub(crate) target: Target,
    _data_dir: TempDir,
}

impl Scene {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let data_dir = data_dir()?;
        let command: Command = pinned(SERVER_CORE, binary());
        let server = Server::start_as(command, data_dir.path(), &[])?;
        let owner = Owner::of(&server).await?;
        let address = server.url().strip_prefix("http://").context("not an address")?.parse()?;
        let target = Target { address, token: owner.token().to_owned() };
        Ok(Self { server, owner, target, _data_dir: data_dir })
    }

    pub(crate) async fn sessions(&self, count: usize) -> anyhow::Result<Vec<SessionId>> {
        let mut sessions = Vec::with_capacity(count);
        for _ in 0..count {
            sessions.push(new_session(&self.owner.client, &self.owner.project).await?);
        }
        Ok(sessions)
    }

    /// The rooms of sessions.
    pub(crate) fn rooms(&self, sessions: &[SessionId]) -> Rooms {
        Rooms {
            project: self.owner.project.to_string(),
            names: sessions.iter().map(|id| format!("session:{id}")).collect(),
        }
    }

    /// Lets the model answer in all of these sessions for about so long.
    pub(crate) async fn stream(
        &self,
        sessions: &[SessionId],
        lasting: Duration,
    ) -> anyhow::Result<()> {
        let (every, pieces) =
            (PIECE_EVERY.as_millis(), lasting.as_millis() / PIECE_EVERY.as_millis());
        let script = format!("delay {every}\nchunks {pieces} word");
        for session in sessions {
            say(&self.owner, session, &script).await?;
        }
        Ok(())
    }

    /// Somebody who changes the title of a session.
    pub(crate) async fn editor(&self, session: &SessionId) -> anyhow::Result<Editor> {
        let wire = Wire::open(&self.target, 0).await?;
        let (project, session) = (self.owner.project.to_string(), session.to_string());
        Ok(Editor { wire, project, session })
    }
}

/// Changes the title of a session again and again. Each change is one durable event in the room of the
/// session, committed with fsync before it is sent to anybody.
pub(crate) struct Editor {
    wire: Wire,
    project: String,
    session: String,
}

impl Editor {
    /// Changes it `count` times, one after the other.
    pub(crate) async fn edit_all(&mut self, heard: &Heard, count: usize) -> anyhow::Result<()> {
        for _ in 0..count {
            let change = self.change(heard.number());
            self.wire.ask(&change, |_| {}).await?;
        }
        Ok(())
    }

    fn change(&self, number: usize) -> Value {
        let change = json!({ "sessionId": self.session, "title": format!("n-{number}") });
        request(&number.to_string(), "session.update", &self.project, &change)
    }

    /// So many changes a second, whether or not the earlier ones were answered, until it is dropped.
    pub(crate) fn edit_steadily(mut self, heard: Arc<Heard>, rate: u32) -> Editing {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Editing(tokio::spawn(async move {
            loop {
                let is_well = tokio::select! {
                    _ = ticks.tick() => {
                        let change = self.change(heard.number());
                        self.wire.sender().send(&change).await.is_ok()
                    }
                    read = self.wire.read(|_| {}) => matches!(read, Ok(Some(_))),
                };
                if !is_well {
                    return;
                }
            }
        }))
    }
}

/// Ends when it is dropped.
pub(crate) struct Editing(JoinHandle<()>);

impl Drop for Editing {
    fn drop(&mut self) {
        self.0.abort();
    }
}
