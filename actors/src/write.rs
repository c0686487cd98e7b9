//! Committing a command through the actor that owns the database.

use std::future::Future;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message};
use iris_store::{Command, Committed, Receipt, StoreError, WriteContext};
use tokio::sync::oneshot;

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

/// Commits `command` through `owner`. The command is on its way when this returns; the future only
/// waits for the commit.
///
/// # Errors
/// Whatever the command or the commit answers; [`StoreError::Closed`] when the owner is gone.
pub fn write<A, C>(
    owner: &Addr<A>,
    command: C,
    context: WriteContext,
) -> impl Future<Output = Result<Committed<C::Output>, StoreError>> + use<A, C>
where
    C: Command,
    A: Actor + Handler<Write<C>>,
    A::Context: ToEnvelope<A, Write<C>>,
{
    let (receipt, received) = oneshot::channel();
    owner.do_send(Write { command, context, receipt });
    async move { received.await.map_err(|_| StoreError::Closed)?.await }
}
