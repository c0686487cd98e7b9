//! Backups, restores, exports and imports: takes the tasks, lets a few of them run at a time, each in an
//! actor of its own, and makes the backups whose time has come. The node starts it.

mod archiver;
mod desk;
mod files;
mod importing;
mod restoring;
mod schedule;
mod server;
mod writing;

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use iris_protocol::{ApiError, ErrorCode};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::Node;
use crate::supervision::{Address, AskError, ChildSpec, Supervise, Vitals, current_request, spawn};

use archiver::Archiver;
pub(crate) use archiver::Task;
pub(crate) use desk::Desk;
pub use files::{NewFile, remove_backups, settle};
pub(crate) use files::{archive_path, remove as remove_file};
pub(crate) use importing::ImportArchive;
pub use importing::check_about;
pub(crate) use restoring::RestoreBackup;
use schedule::Rounds;
pub(crate) use server::{BackUpServer, server_backups};
pub(crate) use writing::WriteBackup;

/// How soon a caller may try again who found too much waiting, in milliseconds.
const OVERLOADED_RETRY_AFTER_MS: u64 = 5_000;

/// The backups actor.
pub(crate) struct Backups {
    vitals: Arc<Vitals>,
    desk: Desk,
    rounds: Rounds,
}

impl Backups {
    pub(crate) fn new(vitals: Arc<Vitals>, desk: Desk) -> Self {
        Self { vitals, desk, rounds: Rounds::default() }
    }
}

impl Actor for Backups {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let own = Address::of(ctx, &self.vitals).downgrade();
        let desk = self.desk.clone();
        let rounds = self.rounds.clone();
        ctx.spawn(schedule::keep_up(desk, own, rounds).into_actor(self));
    }
}

crate::supervised!(Backups);

impl Supervise for Backups {
    /// What has begun goes on: each task is an actor of its own. What is due is known from the rows.
    fn rebuild(&mut self, _: &mut Context<Self>) -> Result<Self, String> {
        let rounds = self.rounds.clone();
        Ok(Self { vitals: Arc::clone(&self.vitals), desk: self.desk.clone(), rounds })
    }

    fn observe(&self) -> Value {
        let slots = self.desk.slots();
        json!({
            "tasks": slots.count(),
            "working": slots.working(),
            "schedule": self.rounds.observe(),
        })
    }
}

/// Tell: works on a task when its turn comes. The answer comes back through a channel of its own.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Start<T: Task> {
    pub(crate) task: T,
    pub(crate) answer: oneshot::Sender<Result<T::Output, ApiError>>,
}

impl<T: Task> Handler<Start<T>> for Backups {
    type Result = ();

    fn handle(&mut self, Start { task, answer }: Start<T>, _: &mut Context<Self>) {
        let refusal = if self.desk.services.is_draining() {
            Some(ApiError::from(ErrorCode::ShuttingDown))
        } else {
            None
        };
        let place =
            refusal.map_or_else(|| self.desk.slots().admit(task.by()).ok_or_else(too_much), Err);
        let place = match place {
            Ok(place) => place,
            // Whoever asked may be gone.
            Err(error) => return drop(answer.send(Err(error))),
        };
        let desk = self.desk.clone();
        let id = format!("{:032x}", desk.services.ids.next_bits());
        let create = move |_: &mut Context<Archiver>, vitals: &Arc<Vitals>| {
            if let Some(request) = current_request() {
                vitals.acts_for(request);
            }
            Archiver::new(vitals, desk, place, task, answer)
        };
        spawn(&self.vitals, ChildSpec::new("archiver", id), create, |_| {});
    }
}

fn too_much() -> ApiError {
    let message = "too many backups, restores and imports are waiting; try again";
    ApiError::new(ErrorCode::Overloaded, message).retry_after(OVERLOADED_RETRY_AFTER_MS)
}

/// The answer to a task that was stopped, or whose actor failed.
fn stopped() -> ApiError {
    let message = "the work was stopped before its end; nothing of it is left";
    ApiError::new(ErrorCode::Overloaded, message).reason("stopped").retry_after(1_000)
}

/// Has a task done.
pub(crate) async fn perform<T: Task>(
    backups: &Address<Backups>,
    task: T,
) -> Result<T::Output, ApiError> {
    backups.admit().map_err(AskError::to_api)?;
    let (answer, answered) = oneshot::channel();
    backups.tell(Start { task, answer });
    answered.await.unwrap_or_else(|_| Err(stopped()))
}

impl Node {
    /// Has a task done.
    pub(crate) async fn archive<T: Task>(&self, task: T) -> Result<T::Output, ApiError> {
        perform(&self.backups, task).await
    }
}

impl BackupSettings {
    /// Backups of the server's own making that are kept of each project unless the operator says
    /// otherwise.
    pub const KEPT_DEFAULT: usize = 7;
}

/// How the operator wants backups to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupSettings {
    /// How often projects that changed are backed up; `None`: never.
    pub interval: Option<Duration>,
    /// How many of those that the server makes by itself are kept of each project, at least 1.
    pub kept: usize,
    /// Largest archive that is imported, in bytes.
    pub import_bytes_max: u64,
}
