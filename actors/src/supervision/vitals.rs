//! What is known of one actor from outside: shared by its addresses, its supervisor, the tree and the
//! watchdog. An actor holds its own.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::thread::{self, ThreadId};
use std::time::Duration;

use actix::{Context, WeakRecipient};
use iris_protocol::{ActorInfo, ActorState};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::address::Observe;
use super::running::{RequestTag, current_request, handling};
use super::{
    ActorPath, ChildSpec, ExitReason, OnStuck, RestartPolicy, Strategy, Supervise, Supervision,
    Work,
};

/// A mailbox that stays over its limit is reported again after this long.
const OVERLOAD_REPORTED_EVERY: Duration = Duration::from_secs(10);

/// The node's number; actors have higher ones.
pub(super) const NODE_NUMBER: u64 = 0;

/// What an actor, its addresses and its supervisor share.
pub struct Vitals {
    pub(super) path: ActorPath,
    pub(super) kind: &'static str,
    /// Who started it; none for the node.
    pub(super) parent: Option<Arc<Self>>,
    pub(super) supervision: Supervision,
    /// Callers are refused from this depth on; 0 means never.
    pub(super) mailbox_limit: u32,
    pub(super) message_budget: Duration,
    pub(super) policy: RestartPolicy,
    /// What happens to its children when one of them restarts.
    pub(super) strategy: Strategy,
    pub(super) on_stuck: OnStuck,
    pub(super) fails_queue: bool,
    /// The order in which actors were spawned.
    pub(super) number: u64,
    /// Where it was spawned, and runs.
    pub(super) thread: ThreadId,
    started_at: i64,
    depth: AtomicU32,
    restarts: AtomicU32,
    handled: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    state: AtomicU8,
    has_order: AtomicBool,
    request: OnceLock<RequestTag>,
    rare: Mutex<Rare>,
}

/// What is seldom touched.
#[derive(Default)]
struct Rare {
    /// Of the task that is the actor's life.
    waker: Option<Waker>,
    observer: Option<WeakRecipient<Observe>>,
    is_passivated: bool,
    trouble: Option<Box<Trouble>>,
}

/// What most actors never have. There may be thousands of them, so it is not among the rest.
#[derive(Default)]
struct Trouble {
    order: Option<Order>,
    /// Why the actor says that it cannot go on.
    failure: Option<String>,
    last_error: Option<String>,
    overload_reported: Option<Instant>,
}

impl Rare {
    fn trouble(&mut self) -> &mut Trouble {
        self.trouble.get_or_insert_default()
    }
}

/// What somebody outside wants of an actor. A later order replaces an earlier one that is weaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    Restart(ExitReason),
    /// Ends it, its children first.
    Stop(ExitReason),
    /// Ends it at once, then its children.
    Kill(ExitReason),
}

impl Order {
    fn rank(&self) -> u8 {
        match self {
            Self::Restart(_) => 0,
            Self::Stop(_) => 1,
            Self::Kill(_) => 2,
        }
    }
}

impl fmt::Debug for Vitals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vitals").field("path", &self.path).finish_non_exhaustive()
    }
}

const STATES: [ActorState; 3] = [ActorState::Running, ActorState::Restarting, ActorState::Stopping];

impl Vitals {
    /// Of the node, the parent of those that have none.
    pub(super) fn node(supervision: Supervision) -> Arc<Self> {
        let mut node = Self::new(supervision, None, &ChildSpec::new("node", ""), NODE_NUMBER);
        node.path = ActorPath::node();
        Arc::new(node)
    }

    pub(super) fn child(parent: &Arc<Self>, spec: &ChildSpec) -> Self {
        let number = parent.supervision.next_number();
        Self::new(parent.supervision.clone(), Some(Arc::clone(parent)), spec, number)
    }

    fn new(
        supervision: Supervision,
        parent: Option<Arc<Self>>,
        spec: &ChildSpec,
        number: u64,
    ) -> Self {
        let path = parent
            .as_ref()
            .map_or_else(ActorPath::node, |parent| parent.path.child(spec.kind, &spec.id));
        Self {
            path,
            kind: spec.kind,
            parent,
            started_at: supervision.now_ms(),
            message_budget: supervision.budget(spec.message_budget),
            supervision,
            mailbox_limit: spec.mailbox_limit,
            policy: spec.policy,
            strategy: spec.strategy,
            on_stuck: spec.on_stuck,
            fails_queue: spec.fails_queue,
            number,
            thread: thread::current().id(),
            depth: AtomicU32::new(0),
            restarts: AtomicU32::new(0),
            handled: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            state: AtomicU8::new(0),
            has_order: AtomicBool::new(false),
            request: OnceLock::new(),
            rare: Mutex::default(),
        }
    }

    /// Where the actor stands.
    pub fn path(&self) -> &ActorPath {
        &self.path
    }

    /// What supervises it.
    pub fn supervision(&self) -> &Supervision {
        &self.supervision
    }

    /// Says that all the actor does is done for one request.
    pub fn acts_for(&self, request: RequestTag) {
        // A second request would be a second answer to the same question; the first one stays.
        drop(self.request.set(request));
    }

    pub(super) fn request(&self) -> Option<&RequestTag> {
        self.request.get()
    }

    /// Says that the actor cannot go on: once it has stopped, its policy decides as after a panic.
    /// `error` must not hold what users wrote.
    pub fn fail(&self, error: impl Into<String>) {
        self.rare.lock().trouble().failure = Some(error.into());
    }

    /// Tells the actor to end, its children first, on its parent's behalf.
    pub fn stop(&self) {
        self.order(Order::Stop(ExitReason::Parent));
    }

    /// Says that the actor stops because nobody needs it, to free its memory.
    pub fn passivate(&self) {
        self.rare.lock().is_passivated = true;
    }

    pub(super) fn is_passivated(&self) -> bool {
        self.rare.lock().is_passivated
    }

    /// Runs `body` as the handling of something that reached the actor another way than through its
    /// mailbox.
    pub fn handle<A, T>(
        self: &Arc<Self>,
        name: &'static str,
        actor: &mut A,
        ctx: &mut Context<A>,
        body: impl FnOnce(&mut A, &mut Context<A>) -> T,
    ) -> T
    where
        A: Supervise,
    {
        let done = handling(name, None, || {
            #[cfg(feature = "faults")]
            self.supervision.faults().strike(self, name, ctx);
            body(actor, ctx)
        });
        self.handled_one();
        done
    }

    /// Notes that the actor begins something that takes at most `budget`, or is stuck.
    pub fn begin(self: &Arc<Self>, name: &'static str, budget: Duration) -> Work {
        let budget = self.supervision.budget(budget);
        self.supervision.begin(self, name, budget, current_request())
    }
}

// The mailbox.
impl Vitals {
    pub(crate) fn depth(&self) -> u32 {
        self.depth.load(Ordering::Relaxed)
    }

    pub(super) fn queued(&self) {
        self.depth.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn dequeued(&self) {
        self.depth.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a message as handled. Returns how many there were before.
    pub(super) fn handled_one(&self) -> u64 {
        // Only the actor's own thread writes it.
        let before = self.handled.load(Ordering::Relaxed);
        self.handled.store(before + 1, Ordering::Relaxed);
        before
    }

    pub(super) fn handled(&self) -> u64 {
        self.handled.load(Ordering::Relaxed)
    }

    /// Whether a caller's message is taken.
    pub(super) fn admits(&self) -> bool {
        let limit = self.mailbox_limit;
        if limit == 0 || self.depth() < limit {
            return true;
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        if self.overload_is_news() {
            self.supervision.log().overloaded(self);
        }
        false
    }

    /// Whether an overload is to be reported, which is then taken as done.
    fn overload_is_news(&self) -> bool {
        let (now, mut rare) = (Instant::now(), self.rare.lock());
        let reported = &mut rare.trouble().overload_reported;
        let is_news = reported.is_none_or(|at| now.duration_since(at) >= OVERLOAD_REPORTED_EVERY);
        if is_news {
            *reported = Some(now);
        }
        is_news
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

// Its life.
impl Vitals {
    /// Restarts since it was spawned; what was queued before a restart is of an older generation.
    pub(crate) fn generation(&self) -> u32 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Whether it works: it is about neither to end nor to start again.
    pub(crate) fn is_running(&self) -> bool {
        self.state.load(Ordering::Relaxed) == ActorState::Running as u8
    }

    pub(super) fn state(&self) -> ActorState {
        let state = STATES.get(usize::from(self.state.load(Ordering::Relaxed)));
        state.copied().unwrap_or(ActorState::Running)
    }

    pub(super) fn set_state(&self, state: ActorState) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    pub(super) fn restarted(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
        self.set_state(ActorState::Running);
    }

    pub(super) fn failed(&self, error: &str) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.rare.lock().trouble().last_error = Some(error.to_owned());
    }

    pub(super) fn take_failure(&self) -> Option<String> {
        let mut rare = self.rare.lock();
        let trouble = rare.trouble.as_mut()?;
        let failure = trouble.failure.take()?;
        trouble.last_error = Some(failure.clone());
        Some(failure)
    }

    pub(super) fn observed_by(&self, observer: WeakRecipient<Observe>) {
        self.rare.lock().observer = Some(observer);
    }

    pub(super) fn observer(&self) -> Option<WeakRecipient<Observe>> {
        self.rare.lock().observer.clone()
    }

    pub(super) fn order(&self, order: Order) {
        let waker = {
            let mut rare = self.rare.lock();
            let before = &mut rare.trouble().order;
            if before.as_ref().is_none_or(|before| before.rank() <= order.rank()) {
                *before = Some(order);
                self.has_order.store(true, Ordering::Release);
            }
            rare.waker.clone()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn take_order(&self) -> Option<Order> {
        // It is asked before each message, and hardly ever there.
        if !self.has_order.load(Ordering::Relaxed) || !self.has_order.swap(false, Ordering::Acquire)
        {
            return None;
        }
        self.rare.lock().trouble.as_mut()?.order.take()
    }

    pub(super) fn wakes(&self, waker: &Waker) {
        self.rare.lock().waker = Some(waker.clone());
    }

    /// Wakes its life, to look at its orders or its children.
    pub(super) fn wake(&self) {
        let waker = self.rare.lock().waker.clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// All but what it works on and how many children it has.
    pub(super) fn info(&self) -> ActorInfo {
        ActorInfo {
            path: self.path.to_string(),
            parent: self.parent.as_ref().map_or_else(String::new, |up| up.path.to_string()),
            kind: self.kind.to_owned(),
            state: self.state(),
            mailbox_depth: self.depth().into(),
            mailbox_limit: self.mailbox_limit.into(),
            handled: self.handled(),
            failed: self.failed.load(Ordering::Relaxed),
            refused: self.refused(),
            restarts: self.generation().into(),
            started_at: self.started_at,
            current: Vec::new(),
            last_error: self.rare.lock().trouble.as_ref().and_then(|of| of.last_error.clone()),
            children: 0,
        }
    }
}
