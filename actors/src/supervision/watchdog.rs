//! The watchdog: a thread of its own that sees what the actors' threads cannot say of themselves:
//! that one of them stopped, that a message takes too long, that a mailbox is not read.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use iris_protocol::ArbiterInfo;
use parking_lot::Mutex;

use super::running::{Pulse, RequestTag, short_name};
use super::tree::Thread;
use super::vitals::{NODE_NUMBER, Order};
use super::work::InProgress;
use super::{ActorPath, ExitReason, OnStuck, Supervision, Vitals};

/// What the watchdog puts up with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchdogSettings {
    /// How often it looks.
    pub tick: Duration,
    /// How long a thread of actors may go without answering before it counts as blocked.
    pub thread_budget: Duration,
    /// How long a thread may be blocked before the process is aborted, for the service manager to
    /// start it again; none means never.
    pub abort_after: Option<Duration>,
}

impl Default for WatchdogSettings {
    fn default() -> Self {
        Self {
            tick: Duration::from_secs(1),
            thread_budget: Duration::from_secs(2),
            abort_after: None,
        }
    }
}

/// What the watchdog last saw.
#[derive(Default)]
pub(super) struct Health {
    is_blocked: AtomicBool,
    /// The threads that do not answer, and since when.
    blocked: Mutex<HashMap<ThreadId, Instant>>,
}

/// The running watchdog; dropping it ends it.
pub struct Watchdog {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Starts it.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(supervision: &Supervision, settings: WatchdogSettings) -> std::io::Result<Self> {
        let (stop, stopped) = channel();
        let mut rounds = Rounds::new(supervision, settings);
        let thread = thread::Builder::new().name("iris-watchdog".to_owned()).spawn(move || {
            while stopped.recv_timeout(settings.tick) == Err(RecvTimeoutError::Timeout) {
                rounds.look();
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the watchdog panicked");
        }
    }
}

impl Supervision {
    /// Whether a thread of actors does not answer.
    pub fn is_blocked(&self) -> bool {
        self.0.health.is_blocked.load(Ordering::Relaxed)
    }

    /// The threads that actors run on.
    pub fn threads(&self) -> Vec<ArbiterInfo> {
        let blocked = self.0.health.blocked.lock().clone();
        let threads = self.0.threads.lock();
        let mut infos: Vec<ArbiterInfo> = threads
            .iter()
            .map(|(id, thread)| {
                let since = blocked.get(id);
                let culprit = since.and_then(|_| self.culprit(&thread.pulse));
                ArbiterInfo {
                    name: thread.pulse.name.clone(),
                    blocked_ms: since.map_or(0, |since| {
                        u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
                    }),
                    actor: culprit.as_ref().map(|culprit| culprit.path.to_string()),
                    message: culprit.and_then(|culprit| culprit.message).map(short_name),
                }
            })
            .collect();
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        infos
    }
}

/// Who holds up a thread.
pub(super) struct Culprit {
    pub(super) path: ActorPath,
    /// What it handles; none when it is between messages.
    pub(super) message: Option<&'static str>,
    pub(super) request: Option<RequestTag>,
}

impl Supervision {
    fn culprit(&self, pulse: &Pulse) -> Option<Culprit> {
        let number = pulse.actor()?;
        let path = if number == NODE_NUMBER {
            ActorPath::node()
        } else {
            self.all().iter().find(|vitals| vitals.number == number)?.path().clone()
        };
        let (message, request) = pulse.message().unzip();
        Some(Culprit { path, message, request: request.flatten() })
    }
}

/// What the watchdog remembers from one look to the next.
struct Rounds {
    supervision: Supervision,
    settings: WatchdogSettings,
    ping: u64,
    /// The pings that are not answered yet: which, and since when.
    pinged: HashMap<ThreadId, (u64, Instant)>,
    /// Mailboxes with something in them: messages handled, since when no further one, and whether
    /// that was said.
    waiting: HashMap<ActorPath, (u64, Instant, bool)>,
}

impl Rounds {
    fn new(supervision: &Supervision, settings: WatchdogSettings) -> Self {
        Self {
            supervision: supervision.clone(),
            settings,
            ping: 0,
            pinged: HashMap::new(),
            waiting: HashMap::new(),
        }
    }

    fn look(&mut self) {
        self.look_at_threads();
        self.look_at_work();
        self.look_at_mailboxes();
    }

    fn look_at_threads(&mut self) {
        let threads: Vec<(ThreadId, Thread)> = {
            let threads = self.supervision.0.threads.lock();
            threads.iter().map(|(id, thread)| (*id, thread.clone())).collect()
        };
        for (id, thread) in threads {
            let Some(arbiter) = &thread.arbiter else { continue };
            // One that ended answers no ping, not even the last one.
            if !arbiter.alive() {
                self.answered(id, &thread);
                self.supervision.0.threads.lock().remove(&id);
                continue;
            }
            if let Some((ping, since)) = self.pinged.get(&id).copied() {
                if thread.pulse.answered.load(Ordering::Relaxed) < ping {
                    self.unanswered(id, &thread, since);
                    continue;
                }
                self.answered(id, &thread);
            }
            self.ping += 1;
            let (ping, pulse) = (self.ping, Arc::clone(&thread.pulse));
            if arbiter.spawn_fn(move || pulse.answer(ping)) {
                self.pinged.insert(id, (ping, Instant::now()));
            }
        }
    }

    fn unanswered(&self, id: ThreadId, thread: &Thread, since: Instant) {
        let age = since.elapsed();
        if age < self.settings.thread_budget {
            return;
        }
        let health = &self.supervision.0.health;
        if health.blocked.lock().insert(id, since).is_none() {
            health.is_blocked.store(true, Ordering::Relaxed);
            let culprit = self.supervision.culprit(&thread.pulse);
            self.supervision.log().blocked(&thread.pulse.name, culprit.as_ref(), age);
        }
        if self.settings.abort_after.is_some_and(|after| age >= after) {
            tracing::error!(thread = thread.pulse.name, "aborting: the thread does not come back");
            std::process::abort();
        }
    }

    fn answered(&mut self, id: ThreadId, thread: &Thread) {
        self.pinged.remove(&id);
        let health = &self.supervision.0.health;
        let mut blocked = health.blocked.lock();
        if let Some(since) = blocked.remove(&id) {
            health.is_blocked.store(!blocked.is_empty(), Ordering::Relaxed);
            drop(blocked);
            self.begin_again(id);
            self.supervision.log().unblocked(&thread.pulse.name, since.elapsed());
        }
    }

    /// What could not get on while its thread was blocked has its whole budget again.
    fn begin_again(&self, id: ThreadId) {
        for work in self.supervision.0.work.lock().values_mut() {
            if work.vitals.thread == id {
                work.since = tokio::time::Instant::now();
            }
        }
    }

    /// Whether the actor cannot help it that nothing gets on: its thread is blocked by another.
    fn is_held_up(&self, vitals: &Vitals) -> bool {
        self.supervision.0.health.blocked.lock().contains_key(&vitals.thread)
    }

    /// Reports what takes longer than its budget; kills the actor where that is its rule.
    fn look_at_work(&self) {
        for (work, age) in self.late_work() {
            self.supervision.log().stuck(&work, age);
            if work.vitals.on_stuck == OnStuck::Kill {
                let why = format!("stuck in `{}`", short_name(work.name));
                work.vitals.order(Order::Kill(ExitReason::Killed(why)));
            }
        }
    }

    /// What is over its budget and was not reported yet, with its age. Every message waits for the lock
    /// on work: nothing is told under it.
    fn late_work(&self) -> Vec<(InProgress, Duration)> {
        let mut all = self.supervision.0.work.lock();
        let unreported =
            |work: &&mut InProgress| !work.is_reported && !self.is_held_up(&work.vitals);
        let late = all.values_mut().filter(unreported).filter_map(|work| {
            let age = work.since.elapsed();
            work.is_reported = age > work.budget;
            work.is_reported.then(|| (work.clone(), age))
        });
        late.collect()
    }

    fn look_at_mailboxes(&mut self) {
        let mut waiting = HashMap::new();
        for vitals in self.supervision.all() {
            if vitals.depth() == 0 || self.is_held_up(&vitals) {
                continue;
            }
            let handled = vitals.handled();
            let before = self.waiting.remove(vitals.path());
            let same = before.filter(|(seen, ..)| *seen == handled);
            let (seen, since, mut is_said) = same.unwrap_or((handled, Instant::now(), false));
            if !is_said && since.elapsed() > vitals.message_budget {
                is_said = true;
                self.supervision.log().stalled(&vitals, since.elapsed());
                if vitals.on_stuck == OnStuck::Kill {
                    let why = ExitReason::Killed("it takes no messages".to_owned());
                    vitals.order(Order::Kill(why));
                }
            }
            waiting.insert(vitals.path().clone(), (seen, since, is_said));
        }
        self.waiting = waiting;
    }
}

#[cfg(test)]
mod tests;
