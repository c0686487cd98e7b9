//! What is to go wrong, for tests. Only in builds with the feature `faults`, which releases have not.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use actix::{Actor, AsyncContext, Context};
use parking_lot::Mutex;

use super::Vitals;
use super::path::is_under;
use super::running::{running, short_name};

/// The message name that stands for the start of an actor.
pub const START: &str = "started";

/// What is armed, and what could have been struck.
pub struct Faults {
    /// Whether anything was ever armed or watched; until then nothing here costs anything.
    is_on: AtomicBool,
    /// Each with the path that it is for; empty for every path.
    armed: Mutex<Vec<(String, Armed)>>,
    seen: Mutex<BTreeSet<Spot>>,
    /// Budgets are divided by it.
    haste: AtomicU32,
}

/// Something that an actor did and that a fault could have struck.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// Kind of the actor.
    pub kind: String,
    /// Short name of the message, or [`START`].
    pub message: String,
    /// Whether it was the future of the answer rather than the handler.
    pub is_later: bool,
}

/// One thing that is to go wrong.
#[derive(Debug, Clone)]
pub struct Armed {
    /// Kind of the actor.
    pub kind: &'static str,
    /// Short name of the message, or [`START`].
    pub message: String,
    /// What happens.
    pub fault: Fault,
    /// How often it happens before it is over.
    pub times: usize,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The handler panics before it does anything.
    Panic,
    /// The future of the answer panics.
    PanicLater,
    /// The handler holds up its thread.
    Block(Duration),
    /// The actor takes no further message.
    Freeze,
    /// The thread that writes the actor's database panics before it gets the command.
    KillWriter,
}

/// What of a message a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Handler,
    Future,
    Write,
}

impl Fault {
    fn moment(self) -> Moment {
        match self {
            Self::Panic | Self::Block(_) | Self::Freeze => Moment::Handler,
            Self::PanicLater => Moment::Future,
            Self::KillWriter => Moment::Write,
        }
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            is_on: AtomicBool::new(false),
            armed: Mutex::default(),
            seen: Mutex::default(),
            haste: AtomicU32::new(1),
        }
    }
}

impl Faults {
    /// Lets something go wrong.
    pub fn arm(&self, armed: Armed) {
        self.arm_under("", armed);
    }

    /// Lets something go wrong with the actor at `path` or one under it.
    pub fn arm_under(&self, path: &str, armed: Armed) {
        self.armed.lock().push((path.to_owned(), armed));
        self.is_on.store(true, Ordering::Relaxed);
    }

    /// What is armed and did not happen yet.
    pub fn armed(&self) -> Vec<Armed> {
        self.armed.lock().iter().map(|(_, armed)| armed.clone()).collect()
    }

    /// Lets nothing go wrong any more. Returns what did not happen.
    pub fn disarm(&self) -> Vec<Armed> {
        std::mem::take(&mut *self.armed.lock()).into_iter().map(|(_, armed)| armed).collect()
    }

    /// Begins to note what could be struck.
    pub fn watch(&self) {
        self.is_on.store(true, Ordering::Relaxed);
    }

    /// What could have been struck since something was armed or watched first.
    pub fn seen(&self) -> BTreeSet<Spot> {
        self.seen.lock().clone()
    }

    /// Makes every budget that is given from now on shorter.
    pub fn shorten_budgets(&self, divisor: u32) {
        self.haste.store(divisor.max(1), Ordering::Relaxed);
    }

    pub(super) fn budget(&self, budget: Duration) -> Duration {
        budget / self.haste.load(Ordering::Relaxed)
    }

    fn take(&self, vitals: &Vitals, message: &str, moment: Moment) -> Option<Fault> {
        let mut armed = self.armed.lock();
        let index = armed.iter().position(|(under, armed)| {
            (under.is_empty() || is_under(vitals.path().as_str(), under))
                && armed.kind == vitals.kind
                && armed.message == message
                && armed.fault.moment() == moment
        })?;
        let (_, found) = armed.get_mut(index)?;
        let fault = found.fault;
        found.times = found.times.saturating_sub(1);
        if found.times == 0 {
            armed.remove(index);
        }
        Some(fault)
    }

    /// Notes that a moment has come, and says what goes wrong in it.
    fn comes(&self, vitals: &Vitals, type_name: &str, moment: Moment) -> Option<Fault> {
        if !self.is_on.load(Ordering::Relaxed) {
            return None;
        }
        let message = short_name(type_name);
        let fault = self.take(vitals, &message, moment);
        let (kind, is_later) = (vitals.kind.to_owned(), moment == Moment::Future);
        self.seen.lock().insert(Spot { kind, message, is_later });
        fault
    }

    pub(super) fn strike<A>(&self, vitals: &Vitals, type_name: &str, ctx: &mut Context<A>)
    where
        A: Actor<Context = Context<A>>,
    {
        match self.comes(vitals, type_name, Moment::Handler) {
            Some(Fault::Block(time)) => std::thread::sleep(time),
            Some(Fault::Freeze) => ctx.wait(actix::fut::wrap_future(std::future::pending::<()>())),
            Some(Fault::Panic) => crash(),
            Some(Fault::PanicLater | Fault::KillWriter) | None => {}
        }
    }

    pub(super) fn strike_future(&self, vitals: &Vitals, type_name: &str) {
        if self.comes(vitals, type_name, Moment::Future).is_some() {
            crash();
        }
    }

    pub(super) fn strike_start(&self, vitals: &Vitals) {
        if self.comes(vitals, START, Moment::Handler).is_some() {
            crash();
        }
    }

    /// Whether the writer thread of the actor's database is to die before it gets a command.
    pub(crate) fn kills_writer<M>(&self, vitals: &Vitals) -> bool {
        self.comes(vitals, std::any::type_name::<M>(), Moment::Write).is_some()
    }
}

/// Strikes the actor that runs.
pub(super) fn strike_running<A>(type_name: &str, ctx: &mut Context<A>)
where
    A: Actor<Context = Context<A>>,
{
    if let Some(running) = running() {
        running.vitals.supervision.faults().strike(&running.vitals, type_name, ctx);
    }
}

#[expect(clippy::panic, reason = "that is what it is for")]
fn crash() {
    panic!("a test wanted this panic");
}
