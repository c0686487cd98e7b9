//! An actor that does what a test tells it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use actix::prelude::*;
use iris_actors::supervised;
use iris_actors::supervision::{Supervise, Vitals};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// What a probe and its test share; it outlives restarts.
#[derive(Default)]
pub(crate) struct Script {
    /// How often the probe has started.
    pub(crate) starts: AtomicUsize,
    /// How many of its next starts panic.
    pub(crate) bad_starts: AtomicUsize,
    /// Whether its next goodbye panics.
    pub(crate) panics_when_stopped: AtomicBool,
    /// Whether dropping its state panics, the next time.
    pub(crate) panics_when_dropped: AtomicBool,
    /// Why it does not start again, the next time.
    pub(crate) refusal: Mutex<Option<String>>,
}

/// An actor that does what tests tell it.
pub(crate) struct Probe {
    pub(crate) vitals: Arc<Vitals>,
    script: Arc<Script>,
    /// The state that a restart must not carry over: how often it was told to count.
    count: usize,
}

impl Actor for Probe {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.script.starts.fetch_add(1, Ordering::SeqCst);
        let bad = &self.script.bad_starts;
        let is_good = bad.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        assert!(is_good.is_err(), "panicked while it started");
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        let panics = self.script.panics_when_stopped.swap(false, Ordering::SeqCst);
        assert!(!panics, "panicked while it stopped");
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let panics = self.script.panics_when_dropped.swap(false, Ordering::SeqCst);
        assert!(!panics, "panicked while it was dropped");
    }
}

supervised!(Probe);

impl Supervise for Probe {
    fn rebuild(&mut self, _: &mut Context<Self>) -> Result<Self, String> {
        match self.script.refusal.lock().take() {
            Some(refusal) => Err(refusal),
            None => Ok(Self::new(&self.vitals, &self.script)),
        }
    }

    fn observe(&self) -> Value {
        json!({ "count": self.count })
    }
}

impl Probe {
    pub(crate) fn new(vitals: &Arc<Vitals>, script: &Arc<Script>) -> Self {
        Self { vitals: Arc::clone(vitals), script: Arc::clone(script), count: 0 }
    }
}

/// Ask: counts. Returns how often it did since it started.
#[derive(Message)]
#[rtype(result = "usize")]
pub(crate) struct Count;

impl Handler<Count> for Probe {
    type Result = usize;

    fn handle(&mut self, _: Count, _: &mut Context<Self>) -> usize {
        self.count += 1;
        self.count
    }
}

type Body<T> = Box<dyn FnOnce(&mut Probe, &mut Context<Probe>) -> T + Send>;

/// Ask: does what the test wants, at once.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Act(Body<()>);

/// Makes an [`Act`].
pub(crate) fn act(body: impl FnOnce(&mut Probe, &mut Context<Probe>) + Send + 'static) -> Act {
    Act(Box::new(body))
}

impl Handler<Act> for Probe {
    type Result = ();

    fn handle(&mut self, act: Act, ctx: &mut Context<Self>) {
        (act.0)(self, ctx);
    }
}

/// Ask: does what the test wants, as a future that may look at the actor.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ActLater(Body<ResponseActFuture<Probe, ()>>);

/// Makes an [`ActLater`].
pub(crate) fn act_later(future: impl Future<Output = ()> + Send + 'static) -> ActLater {
    ActLater(Box::new(|probe, _| Box::pin(future.into_actor(probe))))
}

impl Handler<ActLater> for Probe {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, act: ActLater, ctx: &mut Context<Self>) -> Self::Result {
        (act.0)(self, ctx)
    }
}

/// Ask: does what the test wants, as a future that does not look at the actor.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ActApart(Body<ResponseFuture<()>>);

/// Makes an [`ActApart`].
pub(crate) fn act_apart(future: impl Future<Output = ()> + Send + 'static) -> ActApart {
    ActApart(Box::new(|_, _| Box::pin(future)))
}

impl Handler<ActApart> for Probe {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, act: ActApart, ctx: &mut Context<Self>) -> Self::Result {
        (act.0)(self, ctx)
    }
}
