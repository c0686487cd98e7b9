//! Committing a command through the actor that owns the database.

use std::future::Future;

use actix::Message;
use iris_store::{Command, Committed, Receipt, StoreError, WriteContext};
use tokio::sync::oneshot;

use crate::supervision::{Address, MessageFor, Supervise};

/// Tell: commits a command. The receipt comes back through a channel of its own, so that a caller
/// who goes away takes nothing out of the queue.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Write<C: Command> {
    /// What to commit.
    pub command: C,
    /// Whose repeat it may be.
    pub context: WriteContext,
    /// Takes the receipt as soon as the writer has the command.
    pub receipt: oneshot::Sender<Receipt<C::Output>>,
}

/// Commits a caller's `command` through `owner`. The command is on its way when this returns; the
/// future only waits for the commit.
///
/// # Errors
/// Whatever the command or the commit answers; [`StoreError::Overloaded`] when too much waits for the
/// owner; [`StoreError::Closed`] when it is gone.
pub fn write<A, C>(
    owner: &Address<A>,
    command: C,
    context: WriteContext,
) -> impl Future<Output = Result<Committed<C::Output>, StoreError>> + use<A, C>
where
    C: Command,
    A: Supervise,
    Write<C>: MessageFor<A>,
{
    let sent = owner.admit().map(|()| record(owner, command, context));
    async move { sent.map_err(|_| StoreError::Overloaded)?.await }
}

/// Commits what must get through however much waits for the owner already: what the server itself has
/// to record, and decisions that end something.
///
/// # Errors
/// Those of [`write()`] but for `Overloaded`, which only the writer thread itself may answer.
pub fn record<A, C>(
    owner: &Address<A>,
    command: C,
    context: WriteContext,
) -> impl Future<Output = Result<Committed<C::Output>, StoreError>> + use<A, C>
where
    C: Command,
    A: Supervise,
    Write<C>: MessageFor<A>,
{
    let (receipt, received) = oneshot::channel();
    owner.tell(Write { command, context, receipt });
    async move { received.await.map_err(|_| StoreError::Closed)?.await }
}
