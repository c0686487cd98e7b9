//! What is used in a project: told to those who look, and to the root database.
//!
//! The project's own database has it with the step that used it. The root database is told a moment later,
//! what is told twice counts once, and a project that could not tell it all is opened again at the next
//! start, because its mark of unfinished work stays.

use std::collections::BTreeSet;
use std::time::Duration;

use actix::prelude::*;
use iris_protocol::{Event, ProjectId, Room, SessionId};
use iris_store::project::ProjectReader;
use iris_store::root::RecordUsage;
use iris_store::{StoreError, StoredEvent, WriteContext};

use super::Project;
use crate::connection::Wants;
use crate::root::RootAccess;
use crate::write;

/// How long steps are gathered before they are told.
const TELL_AFTER: Duration = Duration::from_millis(250);

/// Tells the root database what was used in one project.
#[derive(Clone)]
pub(crate) struct UsageTeller {
    pub(super) project_id: ProjectId,
    pub(super) epoch: String,
    pub(super) reader: ProjectReader,
    pub(super) root: RootAccess,
}

impl UsageTeller {
    /// Tells what was used and not told. May be called at any time by anybody.
    ///
    /// # Errors
    /// Those of either database. What was told is told.
    pub(crate) async fn tell(&self) -> Result<(), StoreError> {
        let mut revision = self.root.reader.usage_head(&self.project_id, &self.epoch).await?;
        loop {
            let days = self.reader.used_after(revision).await?;
            let Some(last) = days.last() else { return Ok(()) };
            revision = last.revision;
            let (project_id, epoch) = (self.project_id.clone(), self.epoch.clone());
            let command = RecordUsage { project_id, epoch, days };
            write(&self.root.address, command, WriteContext::default()).await?;
        }
    }
}

/// The sessions that used something since it was told last.
#[derive(Debug, Default)]
pub(super) struct UsageNews {
    sessions: BTreeSet<SessionId>,
    is_due: bool,
}

impl Project {
    pub(super) fn usage_teller(&self) -> UsageTeller {
        UsageTeller {
            project_id: self.id.clone(),
            epoch: self.epoch.to_string(),
            reader: self.reader.clone(),
            root: self.root.clone(),
        }
    }

    /// Sees the events that were published: each step used something.
    pub(super) fn usage_sees(&mut self, events: &[StoredEvent], ctx: &mut Context<Self>) {
        for event in events.iter().filter(|event| event.name == "message.step.finished") {
            if let Room::Session(id) = &event.room {
                self.usage_news.sessions.insert(id.clone());
            }
        }
        if !self.usage_news.sessions.is_empty() && !self.usage_news.is_due {
            self.usage_news.is_due = true;
            ctx.run_later(TELL_AFTER, Self::tell_usage);
        }
    }

    /// Tells what was used, once at a time; also what an earlier life did not come to tell.
    pub(super) fn tell_usage(&mut self, ctx: &mut Context<Self>) {
        let sessions: Vec<SessionId> =
            std::mem::take(&mut self.usage_news.sessions).into_iter().collect();
        let teller = self.usage_teller();
        let told = async move {
            let totals = if sessions.is_empty() {
                Vec::new()
            } else {
                teller.reader.usage_of_sessions(sessions).await?
            };
            Ok::<_, StoreError>((totals, teller.tell().await))
        };
        ctx.spawn(told.into_actor(self).map(|told, registry, _| {
            registry.usage_news.is_due = false;
            let path = registry.vitals.path();
            let told = told.and_then(|(totals, told)| {
                for (session_id, totals) in totals {
                    let room = Room::Session(session_id.clone());
                    let event = Event::UsageUpdated { session_id, totals };
                    registry.rooms.tell(&room, &event, Wants::Everything);
                    let room = Room::Project(registry.id.clone());
                    registry.rooms.tell(&room, &event, Wants::Everything);
                }
                told
            });
            if let Err(error) = told {
                // It is told with the next step, or when the project closes or is opened again.
                tracing::warn!(actor.path = %path, %error, "what was used could not be told");
            }
        }));
    }
}
