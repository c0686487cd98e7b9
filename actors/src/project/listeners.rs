//! Parts of the server itself that are told each durable event of a project, after its commit and in
//! order, without its registry ever waiting for them.

use std::fmt;
use std::sync::Arc;

use actix::prelude::*;
use iris_protocol::{ApiError, ErrorCode, Position, ProjectId};
use iris_store::StoredEvent;

use super::Project;
use crate::supervision::{Address, AskError, MessageFor, Supervise, WeakAddress};

/// Most listeners of one project.
const LISTENERS_MAX: usize = 16;
/// Most messages that may wait in the mailbox of a listener, should its own limit be higher.
const BEHIND_MAX: u32 = 4096;

/// Tell: what a part of the server hears that listens to a project.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub enum ProjectEvent {
    /// A durable event was committed. Each comes once, in the order of the project.
    Committed {
        /// The project.
        project_id: ProjectId,
        /// Of its order of events.
        epoch: Arc<str>,
        /// The event; shared by all who listen.
        event: Arc<StoredEvent>,
    },
    /// Nothing more comes. Whoever wants to hear on listens again, and reads what it missed.
    Ended {
        /// The project.
        project_id: ProjectId,
        /// Why.
        reason: ListeningEnded,
    },
}

/// Why a part of the server does not hear a project any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListeningEnded {
    /// The registry closed or starts again.
    Project,
    /// Too much was waiting in the listener's mailbox.
    TooSlow,
}

/// An actor that takes [`ProjectEvent`]s. Holding it keeps no actor alive.
pub struct Listener(Box<dyn Hear>);

impl Listener {
    /// Of an actor that handles [`ProjectEvent`]. What may wait for it is bounded by the limit of its
    /// mailbox.
    pub fn new<A: Supervise>(address: &Address<A>) -> Self
    where
        ProjectEvent: MessageFor<A>,
    {
        Self(Box::new(address.downgrade()))
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Listener").field(&self.0.path()).finish()
    }
}

/// An address whose actor's type is forgotten.
trait Hear: Send {
    /// Puts an event into the mailbox unless too much waits there.
    fn tell(&self, event: ProjectEvent) -> Result<(), AskError>;
    /// Puts the last word into the mailbox, whatever waits there.
    fn tell_end(&self, event: ProjectEvent);
    /// Who it is; nobody once it is gone.
    fn path(&self) -> Option<String>;
}

impl<A: Supervise> Hear for WeakAddress<A>
where
    ProjectEvent: MessageFor<A>,
{
    fn tell(&self, event: ProjectEvent) -> Result<(), AskError> {
        let address = self.upgrade().filter(Address::connected).ok_or(AskError::Gone)?;
        address.admit()?;
        if address.vitals().depth() >= BEHIND_MAX {
            return Err(AskError::Overloaded);
        }
        address.tell(event);
        Ok(())
    }

    fn tell_end(&self, event: ProjectEvent) {
        if let Some(address) = self.upgrade() {
            address.tell(event);
        }
    }

    fn path(&self) -> Option<String> {
        Some(self.upgrade().filter(Address::connected)?.vitals().path().to_string())
    }
}

/// Who listens to one project. They are told of the end when this is dropped, whatever ended it.
pub(super) struct Listeners {
    project_id: ProjectId,
    all: Vec<Listener>,
}

impl Listeners {
    pub(super) fn new(project_id: ProjectId) -> Self {
        Self { project_id, all: Vec::new() }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    fn add(&mut self, listener: Listener) -> Result<(), ApiError> {
        self.all.retain(|known| known.0.path().is_some());
        if self.all.len() >= LISTENERS_MAX {
            let message = "too many parts of the server listen to the project";
            return Err(ApiError::new(ErrorCode::Overloaded, message));
        }
        self.all.push(listener);
        Ok(())
    }

    /// Tells everybody, and forgets who is gone or too slow.
    pub(super) fn tell(&mut self, epoch: &Arc<str>, event: &StoredEvent) {
        if self.all.is_empty() {
            return;
        }
        let told = ProjectEvent::Committed {
            project_id: self.project_id.clone(),
            epoch: Arc::clone(epoch),
            event: Arc::new(event.clone()),
        };
        let project_id = &self.project_id;
        self.all.retain(|listener| match listener.0.tell(told.clone()) {
            Ok(()) => true,
            Err(AskError::Gone) => false,
            Err(AskError::Overloaded) => {
                tracing::warn!(project.id = %project_id, ?listener, "a listener is too slow and hears the project no more");
                listener.0.tell_end(ended(project_id, ListeningEnded::TooSlow));
                false
            }
        });
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for listener in &self.all {
            listener.0.tell_end(ended(&self.project_id, ListeningEnded::Project));
        }
    }
}

fn ended(project_id: &ProjectId, reason: ListeningEnded) -> ProjectEvent {
    ProjectEvent::Ended { project_id: project_id.clone(), reason }
}

/// Ask: tells a part of the server each event after the position that is answered.
#[derive(Message)]
#[rtype(result = "Result<Position, ApiError>")]
pub(crate) struct Listen(pub(crate) Listener);

impl Handler<Listen> for Project {
    type Result = Result<Position, ApiError>;

    fn handle(&mut self, Listen(listener): Listen, _: &mut Context<Self>) -> Self::Result {
        self.listeners.add(listener)?;
        Ok(Position { epoch: self.epoch.to_string(), seq: self.head })
    }
}
