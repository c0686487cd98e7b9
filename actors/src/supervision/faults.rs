//! What is to go wrong, for tests. Only in builds with the feature `faults`, which releases have not.

use std::collections::BTreeSet;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context};
use parking_lot::Mutex;

use super::Vitals;
use super::running::short_name;

/// The message name that stands for the start of an actor.
pub const START: &str = "started";

/// What is armed, and what could have been struck.
#[derive(Default)]
pub struct Faults {
    armed: Mutex<Vec<Armed>>,
    seen: Mutex<BTreeSet<(String, String)>>,
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
}

impl Faults {
    /// Lets something go wrong.
    pub fn arm(&self, armed: Armed) {
        self.armed.lock().push(armed);
    }

    /// Lets nothing go wrong any more. Returns what did not happen.
    pub fn disarm(&self) -> Vec<Armed> {
        std::mem::take(&mut *self.armed.lock())
    }

    /// The pairs of kind and message that were handled.
    pub fn seen(&self) -> BTreeSet<(String, String)> {
        self.seen.lock().clone()
    }

    fn take(&self, kind: &str, message: &str, later: bool) -> Option<Fault> {
        let mut armed = self.armed.lock();
        let index = armed.iter().position(|armed| {
            armed.kind == kind
                && armed.message == message
                && later == (armed.fault == Fault::PanicLater)
        })?;
        let found = armed.get_mut(index)?;
        let fault = found.fault;
        found.times = found.times.saturating_sub(1);
        if found.times == 0 {
            armed.remove(index);
        }
        Some(fault)
    }

    pub(super) fn strike<A>(&self, vitals: &Vitals, type_name: &str, ctx: &mut Context<A>)
    where
        A: Actor<Context = Context<A>>,
    {
        let message = short_name(type_name);
        self.seen.lock().insert((vitals.kind.to_owned(), message.clone()));
        match self.take(vitals.kind, &message, false) {
            Some(Fault::Block(time)) => std::thread::sleep(time),
            Some(Fault::Freeze) => ctx.wait(actix::fut::wrap_future(std::future::pending::<()>())),
            Some(Fault::Panic) => crash(),
            Some(Fault::PanicLater) | None => {}
        }
    }

    pub(super) fn strike_future(&self, vitals: &Vitals, type_name: &str) {
        if self.take(vitals.kind, &short_name(type_name), true).is_some() {
            crash();
        }
    }

    pub(super) fn strike_start(&self, vitals: &Vitals) {
        self.seen.lock().insert((vitals.kind.to_owned(), START.to_owned()));
        if self.take(vitals.kind, START, false).is_some() {
            crash();
        }
    }
}

#[expect(clippy::panic, reason = "that is what it is for")]
fn crash() {
    panic!("a test wanted this panic");
}
