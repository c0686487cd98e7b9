//! The only way to start an actor: watched, named in one tree, every death explained.
//!
//! `actix::Supervisor` does not restart an actor that panicked (docs/decisions/0002). Here the
//! actor's own future is polled inside `catch_unwind`: after a panic the actor is reset through
//! [`actix::Supervised::restarting`] and started again, its address and queue kept, as often as its
//! policy allows; then, and after every other end, the parent is told.

mod panics;
mod tree;

use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use actix::dev::ContextFut;
use actix::{Actor, Addr, AsyncContext, Context, Supervised};
use tokio::time::{Instant, Sleep, sleep};

pub use panics::install_panic_hook;
pub use tree::{ActorPath, ActorRecord, ActorState, ActorTree};

/// What happens to an actor after a panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// It starts again with fresh state, at most this many times in the window.
    Permanent {
        /// Most restarts in the window; the one after that ends the actor.
        restarts_max: usize,
        /// How far back restarts count.
        window: Duration,
    },
    /// It ends, and its parent decides.
    Temporary,
}

impl RestartPolicy {
    /// For actors that others hold the address of: 5 restarts a minute.
    pub const PERMANENT: Self = Self::Permanent { restarts_max: 5, window: Duration::from_mins(1) };
}

/// Why an actor ended, as its parent is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitReason {
    /// It stopped by itself or because nobody holds its address.
    Normal,
    /// It panicked, and its policy is to end then.
    Panic(String),
    /// It panicked more often than its policy allows.
    RestartIntensity(String),
}

/// Who an actor is and what becomes of it.
#[derive(Debug, Clone)]
pub struct ChildSpec {
    /// What kind of actor: the first part of its own path segment.
    pub kind: &'static str,
    /// Which one of its kind; empty for the only one.
    pub id: String,
    /// What happens after a panic.
    pub policy: RestartPolicy,
}

/// Delay before the first restart; doubled for each further one in the window.
const RESTART_DELAY_MS: u64 = 10;

/// Starts an actor on the current arbiter, under `parent` in `tree`.
///
/// `create` is called once, before the actor runs. `on_exit` is called once, after it ended and left
/// the tree; it must not panic.
pub fn spawn<A>(
    tree: &ActorTree,
    parent: &ActorPath,
    spec: ChildSpec,
    create: impl FnOnce(&mut Context<A>, &ActorPath) -> A,
    on_exit: impl FnOnce(ExitReason) + 'static,
) -> Addr<A>
where
    A: Actor<Context = Context<A>> + Supervised,
{
    let ChildSpec { kind, id, policy } = spec;
    let path = parent.child(kind, &id);
    let mut context = Context::new();
    let address = context.address();
    let actor = create(&mut context, &path);
    tree.add(&path, kind, parent);
    actix_rt::spawn(Watched {
        actor: Some(context.into_future(actor)),
        path,
        tree: tree.clone(),
        policy,
        restarts: VecDeque::new(),
        pause: None,
        on_exit: Some(Box::new(on_exit)),
    });
    address
}

/// The future of one actor's whole life.
struct Watched<A>
where
    A: Actor<Context = Context<A>> + Supervised,
{
    actor: Option<ContextFut<A, Context<A>>>,
    path: ActorPath,
    tree: ActorTree,
    policy: RestartPolicy,
    /// When the restarts inside the window happened, oldest first.
    restarts: VecDeque<Instant>,
    /// The wait before the next restart.
    pause: Option<Pin<Box<Sleep>>>,
    on_exit: Option<Box<dyn FnOnce(ExitReason)>>,
}

impl<A> Unpin for Watched<A> where A: Actor<Context = Context<A>> + Supervised {}

impl<A> Future for Watched<A>
where
    A: Actor<Context = Context<A>> + Supervised,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        loop {
            if let Some(pause) = self.pause.as_mut() {
                if pause.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.pause = None;
                if let Err(panic) = self.restart() {
                    self.panicked(&panic);
                }
                continue;
            }
            let this = &mut *self;
            let Some(actor) = this.actor.as_mut() else { return Poll::Ready(()) };
            match panics::catch(&this.path, || Pin::new(actor).poll(cx)) {
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(())) => self.end(ExitReason::Normal),
                Err(panic) => self.panicked(&panic),
            }
        }
    }
}

impl<A> Watched<A>
where
    A: Actor<Context = Context<A>> + Supervised,
{
    fn panicked(&mut self, panic: &str) {
        self.tree.panicked(&self.path);
        let RestartPolicy::Permanent { restarts_max, window } = self.policy else {
            return self.end(ExitReason::Panic(panic.to_owned()));
        };
        let now = Instant::now();
        while self.restarts.front().is_some_and(|at| now.duration_since(*at) > window) {
            self.restarts.pop_front();
        }
        if self.restarts.len() >= restarts_max {
            return self.end(ExitReason::RestartIntensity(panic.to_owned()));
        }
        let doublings = u32::try_from(self.restarts.len()).unwrap_or(u32::MAX);
        let delay_ms = RESTART_DELAY_MS.saturating_mul(2_u64.saturating_pow(doublings));
        self.restarts.push_back(now);
        self.pause = Some(Box::pin(sleep(Duration::from_millis(delay_ms))));
    }

    fn restart(&mut self) -> Result<(), String> {
        let Some(actor) = self.actor.as_mut() else { return Ok(()) };
        if panics::catch(&self.path, || actor.restart())? {
            self.tree.restarted(&self.path);
            tracing::warn!(actor.path = %self.path, restarts = self.restarts.len(), "actor restarted");
        } else {
            self.end(ExitReason::Normal);
        }
        Ok(())
    }

    fn end(&mut self, reason: ExitReason) {
        // Dropping the future of an actor that panicked polls it once more; it may panic again.
        let actor = self.actor.take();
        if let Err(panic) = panics::catch(&self.path, || drop(actor)) {
            tracing::error!(actor.path = %self.path, panic, "actor panicked while it was dropped");
        }
        self.tree.remove(&self.path);
        match &reason {
            ExitReason::Normal => tracing::debug!(actor.path = %self.path, "actor ended"),
            ExitReason::Panic(panic) | ExitReason::RestartIntensity(panic) => {
                tracing::error!(actor.path = %self.path, panic, ?reason, "actor ended");
            }
        }
        if let Some(on_exit) = self.on_exit.take()
            && catch_unwind(AssertUnwindSafe(|| on_exit(reason))).is_err()
        {
            tracing::error!(actor.path = %self.path, "telling the parent panicked");
        }
    }
}

impl<A> Drop for Watched<A>
where
    A: Actor<Context = Context<A>> + Supervised,
{
    /// The arbiter is going down: the actor leaves the tree, nobody is told.
    fn drop(&mut self) {
        if self.actor.is_some() {
            self.tree.remove(&self.path);
        }
    }
}
