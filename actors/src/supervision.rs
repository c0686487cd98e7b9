//! The only way to start an actor: watched, named in one tree, every death explained.
//!
//! `actix::Supervisor` does not restart an actor that panicked (docs/decisions/0002). Here the
//! actor's own future is polled inside `catch_unwind`: after a panic its children end, its state is
//! rebuilt and it starts again under the same address, as often as its policy allows; then, and
//! after every other end, its parent is told. docs/supervision.md says what each kind does.

mod address;
#[cfg(feature = "faults")]
pub mod faults;
mod log;
mod panics;
mod path;
mod request;
mod running;
mod spec;
mod tree;
mod vitals;
mod watchdog;
mod work;

use std::collections::VecDeque;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use actix::dev::{AsyncContextParts, ContextFut};
use actix::{ActorContext, AsyncContext, Context, Handler, Supervised};
use iris_protocol::ActorState;
use tokio::time::{Instant, Sleep, sleep};

pub use address::{
    Address, AskError, Counted, MessageFor, Observe, Supervise, WeakAddress, observed,
};
pub use log::{RecordFilter, SupervisionLog};
pub use panics::install_panic_hook;
pub use path::ActorPath;
pub use request::{Panicked, guarded};
pub use running::{RequestTag, current_request, in_request};
pub use spec::{ChildExited, ChildSpec, ExitReason, Intensity, OnStuck, RestartPolicy, Strategy};
pub(crate) use tree::Census;
pub use tree::{OrderError, Supervision};
pub use vitals::Vitals;
pub use watchdog::{Watchdog, WatchdogSettings};
pub use work::Work;

use panics::PanicReport;
use running::Running;
use vitals::Order;

/// Delay before the first restart; doubled for each further one in the window, give or take half.
const RESTART_DELAY: Duration = Duration::from_millis(10);
/// Longest delay before a restart.
const RESTART_DELAY_MAX: Duration = Duration::from_secs(5);
/// How long the children of an actor that stops have to end before they are killed.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// How long killed children are waited for; one on a blocked thread may never end.
const KILL_DEADLINE: Duration = Duration::from_secs(1);

/// Starts an actor on the current arbiter, as a child of `parent`.
///
/// `create` is called once, before the actor runs. `on_exit` is called once, after the actor ended
/// for good and left the tree; it must not panic.
#[expect(clippy::needless_pass_by_value, reason = "it is made for this one call")]
pub fn spawn<A>(
    parent: &Arc<Vitals>,
    spec: ChildSpec,
    create: impl FnOnce(&mut Context<A>, &Arc<Vitals>) -> A,
    on_exit: impl FnOnce(ChildExited) + 'static,
) -> Address<A>
where
    A: Supervise + Supervised + Handler<Observe>,
{
    let vitals = Arc::new(Vitals::child(parent, &spec));
    let mut context = Context::new();
    // Zero means that actix never holds a message back: the limit is ours.
    context.set_mailbox_capacity(0);
    let address = Address::of(&context, &vitals);
    vitals.observed_by(context.address().downgrade().recipient());
    let actor = create(&mut context, &vitals);
    let life = Life {
        actor: Some(context.into_future(actor)),
        running: Some(Running::new(&vitals)),
        keeps_children: spec.keeps_children,
        restarts: VecDeque::new(),
        phase: Phase::Starting,
        on_exit: Some(Box::new(on_exit)),
        vitals,
    };
    life.vitals.supervision.watch_thread();
    life.vitals.supervision.add(&life.vitals);
    detached(life);
    address
}

/// Runs a future on the current arbiter that belongs to no actor. It must not panic, and whatever it
/// waits for must be bounded.
#[expect(clippy::disallowed_methods, reason = "this is the one place that spawns on an arbiter")]
pub fn detached<F>(future: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future + 'static,
{
    actix_rt::spawn(future)
}

/// One actor's whole life.
struct Life<A: Supervise + Supervised> {
    actor: Option<ContextFut<A, Context<A>>>,
    vitals: Arc<Vitals>,
    /// There while it does not run.
    running: Option<Running>,
    keeps_children: bool,
    /// When the restarts inside the window happened, oldest first.
    restarts: VecDeque<Instant>,
    phase: Phase,
    on_exit: Option<Box<dyn FnOnce(ChildExited)>>,
}

enum Phase {
    /// It was not polled yet, or not since it was to start again.
    Starting,
    Alive,
    /// Its children end; then the next thing happens.
    Stopping {
        then: Then,
        deadline: Pin<Box<Sleep>>,
        is_killing: bool,
    },
    /// The wait before it starts again.
    Pausing {
        /// None when it need not wait: a timer would take a millisecond even for no time at all.
        pause: Option<Pin<Box<Sleep>>>,
        reason: ExitReason,
    },
    Ended,
}

enum Then {
    Restart { after: Duration, reason: ExitReason },
    End(ExitReason),
}

impl<A: Supervise + Supervised> Unpin for Life<A> {}

impl<A: Supervise + Supervised> Future for Life<A> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<()> {
        // Before any order: one that is stopped before it began has to hear of its children too.
        if let Phase::Starting = self.phase {
            self.vitals.wakes(task.waker());
        }
        loop {
            if let Some(order) = self.vitals.take_order() {
                self.obey(order);
            }
            let this = &mut *self;
            match &mut this.phase {
                Phase::Starting => {
                    this.phase = Phase::Alive;
                    #[cfg(feature = "faults")]
                    if let Err(report) = this.strike_start() {
                        this.panicked(&report);
                    }
                }
                Phase::Alive => match this.run(|actor| poll_actor(actor, task)) {
                    Ok(Poll::Pending) => return Poll::Pending,
                    Ok(Poll::Ready(())) => this.stopped(),
                    Err(report) => this.panicked(&report),
                },
                Phase::Stopping { deadline, is_killing, .. } => {
                    if !this.vitals.supervision.has_children(&this.vitals) {
                        this.children_ended();
                    } else if deadline.as_mut().poll(task).is_pending() {
                        return Poll::Pending;
                    } else if *is_killing {
                        // They are on a thread that does not come back.
                        this.children_ended();
                    } else {
                        this.kill_children();
                    }
                }
                Phase::Pausing { pause, .. } => {
                    if let Some(pause) = pause
                        && pause.as_mut().poll(task).is_pending()
                    {
                        return Poll::Pending;
                    }
                    this.start_again();
                }
                Phase::Ended => return Poll::Ready(()),
            }
        }
    }
}

impl<A: Supervise + Supervised> Life<A> {
    /// Runs `body` as work of the actor; a panic in it becomes a report.
    fn run<T>(
        &mut self,
        body: impl FnOnce(&mut Option<ContextFut<A, Context<A>>>) -> T,
    ) -> Result<T, PanicReport> {
        let Self { actor, running, .. } = self;
        panics::catch(|| running::run(running, || body(actor)))
    }

    #[cfg(feature = "faults")]
    fn strike_start(&mut self) -> Result<(), PanicReport> {
        let vitals = Arc::clone(&self.vitals);
        self.run(|_| vitals.supervision.faults().strike_start(&vitals))
    }

    fn obey(&mut self, order: Order) {
        match (order, &self.phase) {
            (_, Phase::Ended)
            | (Order::Restart(_), Phase::Stopping { .. } | Phase::Pausing { .. })
            | (Order::Stop(_), Phase::Stopping { then: Then::End(_), .. }) => {}
            (Order::Restart(reason), Phase::Starting | Phase::Alive) => match self.vitals.policy {
                RestartPolicy::Temporary => self.end_children(Then::End(reason)),
                RestartPolicy::Permanent(_) | RestartPolicy::Transient(_) => {
                    self.end_children(Then::Restart { after: Duration::ZERO, reason });
                }
            },
            (Order::Stop(reason), _) => self.end_children(Then::End(reason)),
            (Order::Kill(reason), _) => {
                self.drop_actor();
                self.end_children(Then::End(reason));
                self.kill_children();
            }
        }
    }

    fn panicked(&mut self, report: &PanicReport) {
        self.vitals.failed(&report.text);
        self.vitals.supervision.log().panicked(&self.vitals, report);
        let text = report.text.clone();
        match self.vitals.policy {
            RestartPolicy::Temporary => self.end_children(Then::End(ExitReason::Panic(text))),
            RestartPolicy::Permanent(intensity) | RestartPolicy::Transient(intensity) => {
                self.restart_if_allowed(intensity, ExitReason::Panic(text));
            }
        }
    }

    /// The actor stopped by itself.
    fn stopped(&mut self) {
        let reason = self.vitals.take_failure().map_or(ExitReason::Normal, ExitReason::Error);
        match (self.vitals.policy, &reason) {
            (RestartPolicy::Permanent(intensity), _)
            | (RestartPolicy::Transient(intensity), ExitReason::Error(_)) => {
                self.restart_if_allowed(intensity, reason);
            }
            (RestartPolicy::Transient(_) | RestartPolicy::Temporary, _) => {
                self.end_children(Then::End(reason));
            }
        }
    }

    fn restart_if_allowed(&mut self, intensity: Intensity, reason: ExitReason) {
        let now = Instant::now();
        while self.restarts.front().is_some_and(|at| now.duration_since(*at) > intensity.window) {
            self.restarts.pop_front();
        }
        if self.restarts.len() >= intensity.restarts_max {
            let last = reason.error().unwrap_or("it stopped").to_owned();
            return self.end_children(Then::End(ExitReason::RestartIntensity(last)));
        }
        let after = restart_delay(self.restarts.len(), self.vitals.path());
        self.restarts.push_back(now);
        self.end_children(Then::Restart { after, reason });
    }

    /// Tells the children to end, and goes on once they have.
    fn end_children(&mut self, then: Then) {
        let (state, keeps) = match &then {
            Then::Restart { .. } => (ActorState::Restarting, self.keeps_children),
            Then::End(_) => (ActorState::Stopping, false),
        };
        self.vitals.set_state(state);
        if keeps {
            return self.go_on(then);
        }
        for child in self.vitals.supervision.children(&self.vitals) {
            child.order(Order::Stop(ExitReason::Parent));
        }
        let deadline = Box::pin(sleep(STOP_DEADLINE));
        self.phase = Phase::Stopping { then, deadline, is_killing: false };
    }

    fn kill_children(&mut self) {
        for child in self.vitals.supervision.children(&self.vitals) {
            child.order(Order::Kill(ExitReason::Parent));
        }
        if let Phase::Stopping { deadline, is_killing, .. } = &mut self.phase {
            *deadline = Box::pin(sleep(KILL_DEADLINE));
            *is_killing = true;
        }
    }

    fn children_ended(&mut self) {
        match std::mem::replace(&mut self.phase, Phase::Alive) {
            Phase::Stopping { then, .. } => self.go_on(then),
            other @ (Phase::Starting | Phase::Alive | Phase::Pausing { .. } | Phase::Ended) => {
                self.phase = other;
            }
        }
    }

    fn go_on(&mut self, then: Then) {
        match then {
            Then::Restart { after, reason } => {
                let pause = (!after.is_zero()).then(|| Box::pin(sleep(after)));
                self.phase = Phase::Pausing { pause, reason };
            }
            Then::End(reason) => self.end(reason),
        }
    }

    fn start_again(&mut self) {
        let Phase::Pausing { reason, .. } = std::mem::replace(&mut self.phase, Phase::Starting)
        else {
            return;
        };
        // What it said before it panicked is no refusal to start again.
        drop(self.vitals.take_failure());
        match self.run(|actor| actor.as_mut().is_some_and(ContextFut::restart)) {
            Ok(true) => {
                if let Some(error) = self.vitals.take_failure() {
                    return self.not_rebuilt(ExitReason::Error(error));
                }
                self.vitals.restarted();
                self.vitals.supervision.log().restarted(&self.vitals, &reason);
                self.restart_siblings(&reason);
            }
            // Nobody holds its address any more.
            Ok(false) => self.end_children(Then::End(ExitReason::Normal)),
            Err(report) => self.panicked(&report),
        }
    }

    /// The server cannot be without a permanent actor: it tries again, as often as it may restart.
    fn not_rebuilt(&mut self, reason: ExitReason) {
        match self.vitals.policy {
            RestartPolicy::Permanent(intensity) => self.restart_if_allowed(intensity, reason),
            RestartPolicy::Transient(_) | RestartPolicy::Temporary => {
                self.end_children(Then::End(reason));
            }
        }
    }

    /// As the parent's strategy wants it, unless the siblings' own restart is why this one restarted.
    fn restart_siblings(&self, reason: &ExitReason) {
        let Some(parent) = &self.vitals.parent else { return };
        if matches!(reason, ExitReason::Killed(_) | ExitReason::Parent) {
            return;
        }
        for sibling in self.vitals.supervision.children(parent) {
            let is_meant = match parent.strategy {
                Strategy::OneForOne => false,
                Strategy::OneForAll => sibling.number != self.vitals.number,
                Strategy::RestForOne => sibling.number > self.vitals.number,
            };
            if is_meant {
                sibling.order(Order::Restart(ExitReason::Parent));
            }
        }
    }

    /// Lets the actor say goodbye, then drops it. Each may panic, and a panic during a panic would end
    /// the process: one after the other.
    fn drop_actor(&mut self) {
        let Some(mut actor) = self.actor.take() else { return };
        // One that has not begun has nothing to say, and must not begin now.
        if actor.ctx().parts().started() && actor.alive() {
            self.at_the_end(|| {
                actor.ctx().stop();
                let mut task = TaskContext::from_waker(Waker::noop());
                let _ended = Pin::new(&mut actor).poll(&mut task);
            });
        }
        self.at_the_end(move || {
            actor.ctx().terminate();
            drop(actor);
        });
    }

    fn at_the_end(&mut self, body: impl FnOnce()) {
        if let Err(report) = self.run(|_| body()) {
            self.vitals.failed(&report.text);
            self.vitals.supervision.log().panicked(&self.vitals, &report);
        }
    }

    fn end(&mut self, reason: ExitReason) {
        self.drop_actor();
        self.phase = Phase::Ended;
        self.vitals.supervision.log().stopped(&self.vitals, &reason);
        self.vitals.supervision.remove(&self.vitals);
        let exited = ChildExited { path: self.vitals.path().clone(), reason };
        if let Some(on_exit) = self.on_exit.take()
            && catch_unwind(AssertUnwindSafe(|| on_exit(exited))).is_err()
        {
            tracing::error!(actor.path = %self.vitals.path(), "telling the parent panicked");
        }
    }
}

impl<A: Supervise + Supervised> Drop for Life<A> {
    /// The arbiter is going down: the actor leaves the tree, nobody is told.
    fn drop(&mut self) {
        if !matches!(self.phase, Phase::Ended) {
            self.drop_actor();
            self.vitals.supervision.remove(&self.vitals);
        }
    }
}

/// One that was dropped has ended.
fn poll_actor<A: Supervise + Supervised>(
    actor: &mut Option<ContextFut<A, Context<A>>>,
    task: &mut TaskContext<'_>,
) -> Poll<()> {
    match actor {
        Some(actor) => Pin::new(actor).poll(task),
        None => Poll::Ready(()),
    }
}

/// Replaces the state of an actor that starts again. Called by the code that
/// [`supervised!`](crate::supervised) makes.
#[doc(hidden)]
pub fn rebuild<A: Supervise>(actor: &mut A, ctx: &mut Context<A>) {
    match actor.rebuild(ctx) {
        Ok(fresh) => *actor = fresh,
        Err(error) => {
            if let Some(running) = running::running() {
                running.vitals.fail(error);
            }
        }
    }
}

/// The wait before a restart when `before` others happened in the window. Each actor has its own, so
/// that those which failed together do not come back together.
fn restart_delay(before: usize, path: &ActorPath) -> Duration {
    let doublings = u32::try_from(before).unwrap_or(u32::MAX);
    let delay =
        RESTART_DELAY.saturating_mul(2_u32.saturating_pow(doublings)).min(RESTART_DELAY_MAX);
    let mut hasher = DefaultHasher::new();
    (path, before).hash(&mut hasher);
    // Half to one and a half of it, in 1/1024.
    let share = u32::try_from(hasher.finish() % 1024).unwrap_or_default() + 512;
    delay * share / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_before_a_restart_doubles_up_to_its_limit_and_differs_between_actors() {
        let node = ActorPath::node();
        let paths: Vec<ActorPath> = (0..100).map(|id| node.child("a", &id.to_string())).collect();
        for before in [0, 1, 2, 5, 8, 9, 20, 1_000_000] {
            let doublings = u32::try_from(before).unwrap().min(30);
            let middle = (RESTART_DELAY * 2_u32.pow(doublings)).min(RESTART_DELAY_MAX);
            let delays: Vec<Duration> =
                paths.iter().map(|path| restart_delay(before, path)).collect();
            assert!(delays.iter().all(|delay| *delay >= middle / 2 && *delay < middle * 3 / 2));
            let (least, most) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
            assert!(*most > *least + middle / 2, "{before}: {least:?} to {most:?}");
        }
    }
}
