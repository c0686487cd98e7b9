//! The address of a supervised actor: every message that goes through it is counted, named, refused
//! when the mailbox is over its limit, and watched until its answer is there.

use std::any::{Any, type_name};
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use actix::dev::MessageResponse;
use actix::fut::WrapFuture;
use actix::{
    Actor, ActorFuture, Addr, AsyncContext, Context, Handler, Message, MessageResult,
    ResponseActFuture, ResponseFuture, WeakAddr,
};
use iris_protocol::{ApiError, ErrorCode};
use serde_json::Value;
use tokio::sync::oneshot;

use super::running::{RequestTag, current_request, handling};
use super::{Vitals, Work};

/// How soon a caller that was refused may try again, in milliseconds.
const OVERLOADED_RETRY_AFTER_MS: u64 = 250;
/// How soon a caller may try again whose actor was restarting, in milliseconds.
const GONE_RETRY_AFTER_MS: u64 = 100;
/// After so many messages in a row a busy actor lets its neighbours run.
const MESSAGES_IN_A_ROW: u64 = 16;

/// An actor that supervision can run. Implement it together with [`supervised!`](crate::supervised).
pub trait Supervise: Actor<Context = Context<Self>> {
    /// The state after a restart. It must come from the store and from what never changes, not from
    /// what the actor had worked out before: nobody knows what a panic left of that.
    ///
    /// # Errors
    /// Why it cannot start again; the actor then ends and its parent is told.
    fn rebuild(&mut self, _ctx: &mut Context<Self>) -> Result<Self, String> {
        Err("actors of this kind do not start again".to_owned())
    }

    /// What an operator may see of its state: counts above all, nothing that users wrote.
    fn observe(&self) -> Value {
        Value::Null
    }
}

/// Why a message was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The mailbox is over its limit.
    #[error("the actor has too many messages waiting")]
    Overloaded,
    /// The actor is gone, or panicked over the message.
    #[error("the actor is gone or failed over the message")]
    Gone,
}

impl AskError {
    /// The answer for a client: `OVERLOADED`, and when to try again.
    pub fn to_api(self) -> ApiError {
        let (message, retry_after_ms) = match self {
            Self::Overloaded => ("too much is waiting; try again", OVERLOADED_RETRY_AFTER_MS),
            Self::Gone => ("that part of the server is restarting; try again", GONE_RETRY_AFTER_MS),
        };
        ApiError::new(ErrorCode::Overloaded, message).retry_after(retry_after_ms)
    }
}

/// The address of a supervised actor. It stays valid across restarts.
pub struct Address<A: Actor> {
    actor: Addr<A>,
    vitals: Arc<Vitals>,
}

impl<A: Actor> Clone for Address<A> {
    fn clone(&self) -> Self {
        Self { actor: self.actor.clone(), vitals: Arc::clone(&self.vitals) }
    }
}

impl<A: Actor> PartialEq for Address<A> {
    fn eq(&self, other: &Self) -> bool {
        self.actor == other.actor
    }
}

impl<A: Actor> fmt::Debug for Address<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Address").field(self.vitals.path()).finish()
    }
}

impl<A: Supervise> Address<A> {
    /// Of the actor that runs in `ctx`.
    pub fn of(ctx: &Context<A>, vitals: &Arc<Vitals>) -> Self {
        Self { actor: ctx.address(), vitals: Arc::clone(vitals) }
    }

    /// Whether the actor is alive, or about to start again.
    pub fn connected(&self) -> bool {
        self.actor.connected()
    }

    /// What is known of the actor from outside.
    pub fn vitals(&self) -> &Arc<Vitals> {
        &self.vitals
    }

    /// An address that does not keep the actor alive.
    pub fn downgrade(&self) -> WeakAddress<A> {
        WeakAddress { actor: self.actor.downgrade(), vitals: Arc::clone(&self.vitals) }
    }

    /// Whether a caller's message would be taken.
    ///
    /// # Errors
    /// [`AskError::Overloaded`] when the mailbox is over its limit; that counts as a refusal.
    pub fn admit(&self) -> Result<(), AskError> {
        if self.vitals.admits() { Ok(()) } else { Err(AskError::Overloaded) }
    }

    /// Sends a fact or an order of the server itself. It is taken whatever waits already: what sends
    /// it is bounded by other means. Nothing happens when the actor is gone.
    pub fn tell<M: MessageFor<A>>(&self, message: M) {
        M::post(self.counted(message, None), &self.actor);
    }

    /// Asks for a caller, who can be refused. The message is in the mailbox when this returns;
    /// dropping the future takes it out unless it has begun.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn ask<M: MessageFor<A>>(
        &self,
        message: M,
    ) -> impl Future<Output = Result<M::Result, AskError>> + use<A, M> {
        let sent = self.admit().map(|()| self.send(message));
        async move { sent?.await.map_err(|_| AskError::Gone) }
    }

    /// Asks what must get through when callers are refused: to cancel, to decide, to stop.
    ///
    /// # Errors
    /// [`AskError::Gone`].
    pub fn urge<M: MessageFor<A>>(
        &self,
        message: M,
    ) -> impl Future<Output = Result<M::Result, AskError>> + use<A, M> {
        let sent = self.send(message);
        async move { sent.await.map_err(|_| AskError::Gone) }
    }

    /// Asks as [`Address::urge`], and again when the actor panicked over it: for what has to be done and
    /// may be done twice.
    ///
    /// # Errors
    /// [`AskError::Gone`].
    pub async fn insist<M: MessageFor<A>>(
        &self,
        message: impl Fn() -> M,
    ) -> Result<M::Result, AskError> {
        match self.urge(message()).await {
            Err(_) if self.connected() => self.urge(message()).await,
            answer => answer,
        }
    }

    fn send<M: MessageFor<A>>(&self, message: M) -> oneshot::Receiver<M::Result> {
        let (answer, answered) = oneshot::channel();
        M::post(self.counted(message, Some(answer)), &self.actor);
        answered
    }

    fn counted<M: Message>(&self, message: M, answer: Option<Answer<M>>) -> Counted<M> {
        self.vitals.queued();
        Counted {
            message,
            answer,
            place: Place { vitals: Arc::clone(&self.vitals), is_free: false },
            request: current_request(),
            generation: self.vitals.generation(),
        }
    }
}

/// Takes the answer to a message.
type Answer<M> = oneshot::Sender<<M as Message>::Result>;

/// A message that actors of the type `A` take. Every message with a handler is one.
pub trait MessageFor<A: Actor>: Message<Result: Send> + Send + Sized + 'static {
    /// Puts the message into the mailbox.
    #[doc(hidden)]
    fn post(message: Counted<Self>, to: &Addr<A>);
}

impl<A, M> MessageFor<A> for M
where
    A: Supervise + Handler<M> + Handler<Counted<M>, Result = ()>,
    M: Message<Result: Send> + Send + 'static,
{
    fn post(message: Counted<Self>, to: &Addr<A>) {
        to.do_send(message);
    }
}

/// An address that does not keep its actor alive.
pub struct WeakAddress<A: Actor> {
    actor: WeakAddr<A>,
    vitals: Arc<Vitals>,
}

impl<A: Actor> Clone for WeakAddress<A> {
    fn clone(&self) -> Self {
        Self { actor: self.actor.clone(), vitals: Arc::clone(&self.vitals) }
    }
}

impl<A: Supervise> WeakAddress<A> {
    /// The address, while the actor is alive.
    pub fn upgrade(&self) -> Option<Address<A>> {
        Some(Address { actor: self.actor.upgrade()?, vitals: Arc::clone(&self.vitals) })
    }
}

/// A message in the mailbox of a supervised actor.
pub struct Counted<M: Message> {
    message: M,
    answer: Option<Answer<M>>,
    place: Place,
    request: Option<RequestTag>,
    generation: u32,
}

impl<M: Message> Message for Counted<M> {
    type Result = ();
}

/// A place in a mailbox; dropping it frees the place.
struct Place {
    vitals: Arc<Vitals>,
    is_free: bool,
}

impl Place {
    /// Frees the place before it is dropped.
    fn leave(&mut self) {
        if !std::mem::replace(&mut self.is_free, true) {
            self.vitals.dequeued();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

impl<M: Message + 'static> Counted<M> {
    /// Hands the message to its actor. Called by the code that [`supervised!`](crate::supervised)
    /// makes.
    #[doc(hidden)]
    pub fn deliver<A>(self, actor: &mut A, ctx: &mut Context<A>)
    where
        A: Supervise + Handler<M>,
        <A as Handler<M>>::Result: 'static,
    {
        let Self { message, answer, mut place, request, generation } = self;
        place.leave();
        let vitals = &place.vitals;
        let is_of_earlier_life = vitals.fails_queue && generation != vitals.generation();
        if is_of_earlier_life || answer.as_ref().is_some_and(oneshot::Sender::is_closed) {
            return;
        }
        let name = type_name::<M>();
        let result = handling(name, request.as_ref(), || {
            #[cfg(feature = "faults")]
            vitals.supervision.faults().strike(vitals, name, ctx);
            actor.handle(message, ctx)
        });
        if vitals.handled_one() % MESSAGES_IN_A_ROW == MESSAGES_IN_A_ROW - 1 && vitals.depth() > 0 {
            ctx.wait(tokio::task::yield_now().into_actor(actor));
        }
        match later::<A, M>(result) {
            Ok(future) => {
                let budget = vitals.message_budget;
                let work = vitals.supervision.begin(vitals, name, budget, request.clone());
                let in_flight = InFlight { work, name, request };
                let watched: Later<A, M> = Box::pin(Flown { future, in_flight });
                MessageResponse::<A, M>::handle(watched, ctx, answer);
            }
            Err(Some(result)) => result.handle(ctx, answer),
            Err(None) => {}
        }
    }
}

/// What a handler of `M` answers.
type Handled<A, M> = <A as Handler<M>>::Result;
/// An answer that takes time, as a future of the actor.
type Later<A, M> = ResponseActFuture<A, <M as Message>::Result>;

/// The answer as a future of the actor, if it takes time. Futures are told from other answers by
/// their type, so that no handler can forget to have its future watched.
fn later<A, M>(result: Handled<A, M>) -> Result<Later<A, M>, Option<Handled<A, M>>>
where
    A: Supervise + Handler<M>,
    Handled<A, M>: 'static,
    M: Message + 'static,
{
    let mut slot = Some(result);
    let any: &mut dyn Any = &mut slot;
    if let Some(future) = any.downcast_mut::<Option<Later<A, M>>>()
        && let Some(future) = future.take()
    {
        return Ok(future);
    }
    if let Some(future) = any.downcast_mut::<Option<ResponseFuture<M::Result>>>()
        && let Some(future) = future.take()
    {
        return Ok(Box::pin(ActorOnly { future, _actor: PhantomData }));
    }
    Err(slot)
}

/// A message whose answer takes time.
struct InFlight {
    /// Ends with the answer.
    #[cfg_attr(not(feature = "faults"), expect(dead_code, reason = "it is there to be dropped"))]
    work: Work,
    name: &'static str,
    request: Option<RequestTag>,
}

/// An answer that takes time, polled as the handling of its message.
struct Flown<F> {
    future: F,
    in_flight: InFlight,
}

impl<A: Supervise, T> ActorFuture<A> for Flown<ResponseActFuture<A, T>> {
    type Output = T;

    fn poll(
        mut self: Pin<&mut Self>,
        actor: &mut A,
        ctx: &mut Context<A>,
        task: &mut TaskContext<'_>,
    ) -> Poll<T> {
        let Self { future, in_flight } = &mut *self;
        handling(in_flight.name, in_flight.request.as_ref(), || {
            #[cfg(feature = "faults")]
            in_flight.work.strike(in_flight.name);
            future.as_mut().poll(actor, ctx, task)
        })
    }
}

/// A future that does not look at its actor, but ends with it.
struct ActorOnly<A, T> {
    future: ResponseFuture<T>,
    _actor: PhantomData<fn(A)>,
}

impl<A: Supervise, T> ActorFuture<A> for ActorOnly<A, T> {
    type Output = T;

    fn poll(
        mut self: Pin<&mut Self>,
        _: &mut A,
        _: &mut Context<A>,
        task: &mut TaskContext<'_>,
    ) -> Poll<T> {
        self.future.as_mut().poll(task)
    }
}

/// Ask: what an operator may see of the actor's state.
#[derive(Message)]
#[rtype(result = "Value")]
pub struct Observe;

/// The answer of an actor to [`Observe`].
#[doc(hidden)]
#[cfg_attr(not(feature = "faults"), expect(unused_variables, reason = "only tests strike here"))]
pub fn observed<A: Supervise>(actor: &A, ctx: &mut Context<A>) -> MessageResult<Observe> {
    handling(type_name::<Observe>(), None, || {
        #[cfg(feature = "faults")]
        super::faults::strike_running(type_name::<Observe>(), ctx);
        MessageResult(actor.observe())
    })
}

/// Makes an actor one that supervision can run. It needs an implementation of
/// [`Supervise`](crate::supervision::Supervise).
#[macro_export]
macro_rules! supervised {
    ($actor:ty) => {
        impl<M> actix::Handler<$crate::supervision::Counted<M>> for $actor
        where
            Self: actix::Handler<M>,
            <Self as actix::Handler<M>>::Result: 'static,
            M: actix::Message + 'static,
        {
            type Result = ();

            fn handle(
                &mut self,
                message: $crate::supervision::Counted<M>,
                ctx: &mut actix::Context<Self>,
            ) {
                message.deliver(self, ctx);
            }
        }

        impl actix::Handler<$crate::supervision::Observe> for $actor {
            type Result = actix::MessageResult<$crate::supervision::Observe>;

            fn handle(
                &mut self,
                _: $crate::supervision::Observe,
                ctx: &mut actix::Context<Self>,
            ) -> Self::Result {
                $crate::supervision::observed(self, ctx)
            }
        }

        impl actix::Supervised for $actor {
            fn restarting(&mut self, ctx: &mut actix::Context<Self>) {
                $crate::supervision::rebuild(self, ctx);
            }
        }
    };
}
