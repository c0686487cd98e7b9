//! A tree of its own for each test, which checks at the end that nothing of it is left.

use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix::Arbiter;
use iris_actors::SystemClock;
use iris_actors::supervision::{
    Address, ChildExited, ChildSpec, ExitReason, Intensity, RestartPolicy, Supervision, Vitals,
    install_panic_hook, spawn,
};
use iris_protocol::{SupervisionKind, SupervisionRecord};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use crate::probe::{Count, Probe, Script};

/// Nothing that a test waits for takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for what has to come.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let output = tokio::time::timeout(PATIENCE, future).await;
    output.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// A temporary probe.
pub(crate) fn temporary(id: &str) -> ChildSpec {
    ChildSpec::new("probe", id)
}

/// A probe that starts again after a failure.
pub(crate) fn transient(id: &str) -> ChildSpec {
    ChildSpec { policy: RestartPolicy::Transient(Intensity::DEFAULT), ..temporary(id) }
}

/// A probe that always starts again.
pub(crate) fn permanent(id: &str) -> ChildSpec {
    ChildSpec { policy: RestartPolicy::Permanent(Intensity::DEFAULT), ..temporary(id) }
}

/// A probe from outside.
pub(crate) struct Child {
    pub(crate) address: Address<Probe>,
    pub(crate) script: Arc<Script>,
    pub(crate) exit: oneshot::Receiver<ChildExited>,
}

impl Child {
    /// How often it counted since it started, this time included.
    pub(crate) async fn count(&self) -> usize {
        soon("a count", self.address.ask(Count)).await.unwrap()
    }

    /// How often it has started.
    pub(crate) fn starts(&self) -> usize {
        self.script.starts.load(Ordering::SeqCst)
    }

    pub(crate) fn path(&self) -> &str {
        self.address.vitals().path().as_str()
    }

    /// Why it ended, once it has.
    pub(crate) async fn ended(&mut self) -> ExitReason {
        let exited = soon("an end", &mut self.exit).await.unwrap();
        assert_eq!(exited.path, *self.address.vitals().path());
        exited.reason
    }
}

/// The tree of one test.
pub(crate) struct Stage {
    pub(crate) supervision: Supervision,
    pub(crate) node: Arc<Vitals>,
    records: mpsc::UnboundedReceiver<SupervisionRecord>,
    spawned: Mutex<Vec<Weak<Vitals>>>,
    /// How many have not ended.
    alive: watch::Sender<usize>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        install_panic_hook();
        let supervision = Supervision::new(Arc::new(SystemClock));
        let (sender, records) = mpsc::unbounded_channel();
        supervision.log().subscribe(move |frame| {
            let frame: Value = serde_json::from_slice(frame).unwrap();
            sender.send(serde_json::from_value(frame["payload"].clone()).unwrap()).is_ok()
        });
        let (alive, _) = watch::channel(0);
        Self { node: supervision.node(), supervision, records, spawned: Mutex::default(), alive }
    }

    /// Starts a probe at the top.
    pub(crate) fn spawn(&self, spec: ChildSpec) -> Child {
        self.spawn_under(&self.node, spec)
    }

    /// Starts a probe under another one.
    pub(crate) fn spawn_under(&self, parent: &Arc<Vitals>, spec: ChildSpec) -> Child {
        let child = start(parent, spec, self.alive.clone());
        self.spawned.lock().push(Arc::downgrade(child.address.vitals()));
        child
    }

    /// Starts a probe under another one, on another thread.
    pub(crate) fn spawn_on(
        &self,
        thread: &Arbiter,
        parent: &Arc<Vitals>,
        spec: ChildSpec,
    ) -> Child {
        let (sender, receiver) = std::sync::mpsc::channel();
        let (parent, alive) = (Arc::clone(parent), self.alive.clone());
        thread.spawn_fn(move || sender.send(start(&parent, spec, alive)).unwrap());
        let child = receiver.recv().unwrap();
        self.spawned.lock().push(Arc::downgrade(child.address.vitals()));
        child
    }

    /// The next record of a kind, from those that no call returned or passed over.
    pub(crate) async fn next(&mut self, kind: SupervisionKind) -> SupervisionRecord {
        self.next_where(kind.as_str(), |record| record.kind == kind).await
    }

    /// The next record like this, from those that no call returned or passed over.
    pub(crate) async fn next_where(
        &mut self,
        what: &str,
        is_meant: impl Fn(&SupervisionRecord) -> bool,
    ) -> SupervisionRecord {
        let next = async {
            loop {
                let record = self.records.recv().await.unwrap();
                if is_meant(&record) {
                    return record;
                }
            }
        };
        soon(what, next).await
    }

    /// What was told of an actor so far.
    pub(crate) fn told(&self, path: &str) -> Vec<SupervisionKind> {
        self.supervision.history(path).iter().map(|record| record.kind).collect()
    }

    /// Ends what is left and checks that nothing of it stays: no actor, no work, no message. `held`
    /// is what the test still has of it.
    pub(crate) async fn end<T>(self, held: T) {
        let spawned = self.spawned.into_inner();
        for vitals in spawned.iter().filter_map(Weak::upgrade) {
            vitals.stop();
        }
        let mut alive = self.alive.subscribe();
        soon("the end of all actors", alive.wait_for(|count| *count == 0)).await.unwrap();
        drop(held);
        assert_eq!(self.supervision.actors(None, None), []);
        let left = spawned.iter().filter_map(Weak::upgrade).map(|left| left.path().to_string());
        assert_eq!(left.collect::<Vec<_>>(), [""; 0], "something holds on to these actors");
        assert_eq!(Arc::strong_count(&self.node), 1, "something holds on to the node");
    }
}

/// One probe more, until it is dropped.
struct Alive(watch::Sender<usize>);

impl Alive {
    fn new(count: watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

fn start(parent: &Arc<Vitals>, spec: ChildSpec, alive: watch::Sender<usize>) -> Child {
    let script = Arc::new(Script::default());
    let (exited, exit) = oneshot::channel();
    let alive = Alive::new(alive);
    let on_exit = move |child| {
        // The test may not care.
        drop(exited.send(child));
        drop(alive);
    };
    let address = {
        let script = Arc::clone(&script);
        spawn(parent, spec, move |_, vitals| Probe::new(vitals, &script), on_exit)
    };
    Child { address, script, exit }
}
