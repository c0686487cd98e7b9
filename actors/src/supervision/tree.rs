//! The actors that are alive, and what the server as a whole knows of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, ThreadId};
use std::time::Duration;

use actix_rt::{Arbiter, ArbiterHandle};
use iris_agent::Clock;
use iris_protocol::{ActorInfo, ActorState, CurrentWork, SupervisionRecord};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use super::address::Observe;
use super::log::{RecordFilter, SupervisionLog};
use super::path::is_under;
use super::running::{Pulse, short_name};
use super::vitals::Order;
use super::watchdog::Health;
use super::work::InProgress;
use super::{ActorPath, ExitReason, RestartPolicy, Vitals};

/// How long an operator waits for what an actor says of itself.
const OBSERVE_TIMEOUT: Duration = Duration::from_millis(500);

/// The supervision of one server. Clones share it.
#[derive(Clone)]
pub struct Supervision(pub(super) Arc<Shared>);

pub(super) struct Shared {
    clock: Arc<dyn Clock>,
    began: Instant,
    log: SupervisionLog,
    actors: Mutex<BTreeMap<ActorPath, Arc<Vitals>>>,
    next_number: AtomicU64,
    pub(super) work: Mutex<HashMap<u64, InProgress>>,
    pub(super) threads: Mutex<HashMap<ThreadId, Thread>>,
    pub(super) health: Health,
    #[cfg(feature = "faults")]
    faults: super::faults::Faults,
}

/// A thread that actors run on.
#[derive(Clone)]
pub(super) struct Thread {
    pub(super) pulse: Arc<Pulse>,
    /// None for a thread that is no arbiter's.
    pub(super) arbiter: Option<ArbiterHandle>,
}

/// The actors of one kind that are in one state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) kind: &'static str,
    pub(crate) state: &'static str,
    pub(crate) actors: u64,
    /// What waits in all their mailboxes.
    pub(crate) messages: u64,
    /// What waits in the fullest one.
    pub(crate) messages_most: u64,
}

fn state_name(state: ActorState) -> &'static str {
    match state {
        ActorState::Running => "running",
        ActorState::Restarting => "restarting",
        ActorState::Stopping => "stopping",
    }
}

/// Why an operator's order was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// There is no such actor.
    #[error("there is no such actor")]
    NotFound,
    /// Actors of this kind end, they do not start again.
    #[error("actors of this kind do not start again: stop it instead")]
    NotRestartable,
    /// The server cannot be without it.
    #[error("the server cannot be without this actor: restart it instead")]
    Indispensable,
}

impl Supervision {
    /// An empty tree.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Shared {
            log: SupervisionLog::new(Arc::clone(&clock)),
            clock,
            began: Instant::now(),
            actors: Mutex::default(),
            next_number: AtomicU64::new(1),
            work: Mutex::default(),
            threads: Mutex::default(),
            health: Health::default(),
            #[cfg(feature = "faults")]
            faults: super::faults::Faults::default(),
        }))
    }

    /// The parent of actors that have none.
    pub fn node(&self) -> Arc<Vitals> {
        Vitals::node(self.clone())
    }

    /// What became of the actors.
    pub fn log(&self) -> &SupervisionLog {
        &self.0.log
    }

    /// Time since it was made.
    pub fn uptime(&self) -> Duration {
        self.0.began.elapsed()
    }

    /// What is to go wrong, for tests.
    #[cfg(feature = "faults")]
    pub fn faults(&self) -> &super::faults::Faults {
        &self.0.faults
    }

    /// How long something may take that may usually take `budget`: tests have less patience.
    #[cfg_attr(
        not(feature = "faults"),
        expect(clippy::unused_self, reason = "only tests shorten budgets")
    )]
    pub(super) fn budget(&self, budget: Duration) -> Duration {
        #[cfg(feature = "faults")]
        let budget = self.0.faults.budget(budget);
        budget
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.0.clock.now_ms()
    }

    pub(super) fn next_number(&self) -> u64 {
        self.0.next_number.fetch_add(1, Ordering::Relaxed)
    }

    /// Lets the watchdog see the current thread from now on.
    pub(super) fn watch_thread(&self) {
        let pulse = Pulse::current();
        let thread = || Thread { pulse, arbiter: Arbiter::try_current() };
        self.0.threads.lock().entry(thread::current().id()).or_insert_with(thread);
    }

    pub(super) fn add(&self, vitals: &Arc<Vitals>) {
        self.0.actors.lock().insert(vitals.path().clone(), Arc::clone(vitals));
        self.log().started(vitals);
    }

    /// Takes out an actor that ended, unless another one stands in its place already.
    pub(super) fn remove(&self, vitals: &Arc<Vitals>) {
        let mut actors = self.0.actors.lock();
        if actors.get(vitals.path()).is_some_and(|other| Arc::ptr_eq(other, vitals)) {
            actors.remove(vitals.path());
        }
        drop(actors);
        if let Some(parent) = &vitals.parent {
            parent.wake();
        }
    }

    /// The actors that one has started and that are alive.
    pub(super) fn children(&self, parent: &Arc<Vitals>) -> Vec<Arc<Vitals>> {
        let actors = self.0.actors.lock();
        let under = below(&actors, parent.path().as_str());
        under.filter(|vitals| is_child_of(vitals, parent)).cloned().collect()
    }

    pub(super) fn has_children(&self, parent: &Arc<Vitals>) -> bool {
        let actors = self.0.actors.lock();
        below(&actors, parent.path().as_str()).any(|vitals| is_child_of(vitals, parent))
    }

    /// Every actor that is alive.
    pub(super) fn all(&self) -> Vec<Arc<Vitals>> {
        self.0.actors.lock().values().cloned().collect()
    }
}

fn is_child_of(vitals: &Vitals, parent: &Arc<Vitals>) -> bool {
    vitals.parent.as_ref().is_some_and(|of| Arc::ptr_eq(of, parent))
}

/// The actors whose paths begin with `path` and a slash.
fn below<'a>(
    actors: &'a BTreeMap<ActorPath, Arc<Vitals>>,
    path: &str,
) -> impl Iterator<Item = &'a Arc<Vitals>> + use<'a> {
    let prefix = format!("{path}/");
    let from = (std::ops::Bound::Included(prefix.as_str()), std::ops::Bound::Unbounded);
    let range = actors.range::<str, _>(from);
    range.take_while(move |(path, _)| path.as_str().starts_with(&prefix)).map(|(_, vitals)| vitals)
}

// What operators see and do.
impl Supervision {
    /// The actors that are alive, in the order of their paths: only those of a kind, only one and
    /// those under it.
    pub fn actors(&self, kind: Option<&str>, under: Option<&str>) -> Vec<ActorInfo> {
        let all = self.all();
        let mut children: HashMap<u64, u64> = HashMap::new();
        for parent in all.iter().filter_map(|vitals| vitals.parent.as_ref()) {
            *children.entry(parent.number).or_insert(0) += 1;
        }
        let wanted = all.iter().filter(|vitals| {
            kind.is_none_or(|kind| vitals.kind == kind)
                && under.is_none_or(|under| is_under(vitals.path().as_str(), under))
        });
        let mut infos: Vec<ActorInfo> = wanted
            .map(|vitals| {
                let children = children.get(&vitals.number).copied().unwrap_or(0);
                ActorInfo { children, ..vitals.info() }
            })
            .collect();
        self.add_work(&mut infos);
        infos
    }

    /// Adds what each of them works on, the oldest first.
    fn add_work(&self, infos: &mut [ActorInfo]) {
        for work in self.0.work.lock().values() {
            let path = work.vitals.path().as_str();
            let Ok(index) = infos.binary_search_by(|info| info.path.as_str().cmp(path)) else {
                continue;
            };
            if let Some(info) = infos.get_mut(index) {
                let age = work.since.elapsed();
                info.current.push(CurrentWork {
                    name: short_name(work.name),
                    age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
                    stuck: age > work.budget,
                });
            }
        }
        for info in infos {
            info.current.sort_by_key(|work| std::cmp::Reverse(work.age_ms));
        }
    }

    /// How many actors are alive, by kind.
    pub fn count_by_kind(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for vitals in self.all() {
            *counts.entry(vitals.kind.to_owned()).or_insert(0) += 1;
        }
        counts
    }

    /// How many actors are alive, and how much waits for them, by kind and state.
    pub(crate) fn census(&self) -> Vec<Census> {
        let mut all: BTreeMap<(&'static str, &'static str), Census> = BTreeMap::new();
        // Of ten thousand, each is touched once.
        for vitals in self.0.actors.lock().values() {
            let (kind, state) = (vitals.kind, state_name(vitals.state()));
            let empty = Census { kind, state, actors: 0, messages: 0, messages_most: 0 };
            let census = all.entry((kind, state)).or_insert(empty);
            let messages = u64::from(vitals.depth());
            census.actors += 1;
            census.messages += messages;
            census.messages_most = census.messages_most.max(messages);
        }
        all.into_values().collect()
    }

    /// How many actors of a kind are alive.
    pub fn count(&self, kind: &str) -> usize {
        self.0.actors.lock().values().filter(|vitals| vitals.kind == kind).count()
    }

    fn find(&self, path: &str) -> Option<Arc<Vitals>> {
        self.0.actors.lock().get(path).cloned()
    }

    /// What an actor says of itself; null when it does not answer in time or is not there.
    pub async fn observe(&self, path: &str) -> Value {
        let observer = self.find(path).and_then(|vitals| vitals.observer());
        let Some(observer) = observer.and_then(|observer| observer.upgrade()) else {
            return Value::Null;
        };
        let answer = tokio::time::timeout(OBSERVE_TIMEOUT, observer.send(Observe)).await;
        answer.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// What the log has in memory of an actor.
    pub fn history(&self, path: &str) -> Vec<SupervisionRecord> {
        let filter = RecordFilter { path: Some(path.to_owned()), ..RecordFilter::default() };
        let mut records = self.log().records(&filter);
        records.retain(|record| record.path == path);
        records
    }

    /// Whether an operator may start the actor again.
    ///
    /// # Errors
    /// `NotFound`, `NotRestartable`.
    pub fn may_restart(&self, path: &str) -> Result<(), OrderError> {
        self.restartable(path).map(drop)
    }

    fn restartable(&self, path: &str) -> Result<Arc<Vitals>, OrderError> {
        let vitals = self.find(path).ok_or(OrderError::NotFound)?;
        match vitals.policy {
            RestartPolicy::Temporary => Err(OrderError::NotRestartable),
            RestartPolicy::Permanent { .. } | RestartPolicy::Transient { .. } => Ok(vitals),
        }
    }

    /// Starts an actor again with fresh state.
    ///
    /// # Errors
    /// As [`Supervision::may_restart`].
    pub fn restart(&self, path: &str) -> Result<(), OrderError> {
        self.restartable(path)?.order(Order::Restart(ExitReason::by_operator()));
        Ok(())
    }

    /// Whether an operator may end the actor.
    ///
    /// # Errors
    /// `NotFound`, `Indispensable`.
    pub fn may_stop(&self, path: &str) -> Result<(), OrderError> {
        self.stoppable(path).map(drop)
    }

    fn stoppable(&self, path: &str) -> Result<Arc<Vitals>, OrderError> {
        let vitals = self.find(path).ok_or(OrderError::NotFound)?;
        match vitals.policy {
            RestartPolicy::Permanent { .. } => Err(OrderError::Indispensable),
            RestartPolicy::Transient { .. } | RestartPolicy::Temporary => Ok(vitals),
        }
    }

    /// Ends an actor, those under it first.
    ///
    /// # Errors
    /// As [`Supervision::may_stop`].
    pub fn stop(&self, path: &str) -> Result<(), OrderError> {
        self.stoppable(path)?.order(Order::Stop(ExitReason::by_operator()));
        Ok(())
    }
}
