//! What becomes of actors that panic: real actors on a real arbiter.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix::prelude::*;
use iris_actors::supervision::{
    ActorPath, ActorTree, ChildSpec, ExitReason, RestartPolicy, install_panic_hook, spawn,
};
use tokio::sync::oneshot;

/// Counts what it was told since it started.
struct Counter {
    count: usize,
    starts: Arc<AtomicUsize>,
    panic_when_started: bool,
}

impl Actor for Counter {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.starts.fetch_add(1, Ordering::SeqCst);
        assert!(!self.panic_when_started, "panicked while it started");
    }
}

impl Supervised for Counter {
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.count = 0;
    }
}

#[derive(Message)]
#[rtype(result = "usize")]
struct Count;

impl Handler<Count> for Counter {
    type Result = usize;

    fn handle(&mut self, _: Count, _: &mut Context<Self>) -> usize {
        self.count += 1;
        self.count
    }
}

/// How a message makes the actor panic.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
#[expect(clippy::enum_variant_names, reason = "they say where")]
enum Crash {
    InHandler,
    InAsyncHandler,
    InSpawnedFuture,
}

impl Handler<Crash> for Counter {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, crash: Crash, ctx: &mut Context<Self>) -> Self::Result {
        match crash {
            Crash::InHandler => panic!("panicked in a handler"),
            Crash::InAsyncHandler => {
                let later = async { tokio::task::yield_now().await }.into_actor(self);
                Box::pin(later.map(|(), _, _| panic!("panicked in an async handler")))
            }
            Crash::InSpawnedFuture => {
                let later = async { tokio::task::yield_now().await }.into_actor(self);
                ctx.spawn(later.map(|(), _, _| panic!("panicked in a spawned future")));
                Box::pin(actix::fut::ready(()))
            }
        }
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Stop;

impl Handler<Stop> for Counter {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}

struct Watched {
    address: Addr<Counter>,
    tree: ActorTree,
    starts: Arc<AtomicUsize>,
    exit: oneshot::Receiver<ExitReason>,
}

fn watch(policy: RestartPolicy, panic_when_started: bool) -> Watched {
    install_panic_hook();
    let (tree, starts) = (ActorTree::default(), Arc::new(AtomicUsize::new(0)));
    let (exited, exit) = oneshot::channel();
    let spec = ChildSpec { kind: "counter", id: "one".to_owned(), policy };
    let address = {
        let starts = Arc::clone(&starts);
        let create = move |_: &mut Context<Counter>, path: &ActorPath| {
            assert_eq!(path.to_string(), "node/counter/one");
            Counter { count: 0, starts, panic_when_started }
        };
        spawn(&tree, &ActorPath::node(), spec, create, move |reason| {
            exited.send(reason).unwrap();
        })
    };
    Watched { address, tree, starts, exit }
}

const PERMANENT: RestartPolicy =
    RestartPolicy::Permanent { restarts_max: 3, window: Duration::from_mins(1) };

#[actix_rt::test]
async fn a_permanent_actor_starts_again_with_fresh_state_and_the_same_address() {
    for crash in [Crash::InHandler, Crash::InAsyncHandler, Crash::InSpawnedFuture] {
        let watched = watch(PERMANENT, false);
        assert_eq!(watched.address.send(Count).await.unwrap(), 1);
        assert_eq!(watched.address.send(Count).await.unwrap(), 2);
        // Only the message that panicked fails; the one queued behind it is answered.
        watched.address.do_send(crash);
        let mut count = watched.address.send(Count).await.unwrap();
        if count == 3 {
            // The panic of a future comes after the message that was queued behind its cause.
            while count != 1 {
                count = watched.address.send(Count).await.unwrap();
            }
        }
        assert_eq!(count, 1, "state was reused after {crash:?}");
        assert_eq!(watched.starts.load(Ordering::SeqCst), 2);
        let records = watched.tree.snapshot();
        assert_eq!(records.len(), 1);
        assert_eq!(records.first().map(|record| record.restarts), Some(1));
    }
}

#[actix_rt::test]
async fn the_caller_of_a_message_that_panicked_gets_an_error() {
    let watched = watch(PERMANENT, false);
    assert!(watched.address.send(Crash::InHandler).await.is_err());
    assert_eq!(watched.address.send(Count).await.unwrap(), 1);
}

#[actix_rt::test]
async fn too_many_panics_end_the_actor_and_its_parent_is_told() {
    let watched = watch(PERMANENT, false);
    for _ in 0..4 {
        watched.address.do_send(Crash::InHandler);
    }
    let reason = watched.exit.await.unwrap();
    let ExitReason::RestartIntensity(panic) = reason else { panic!("ended by {reason:?}") };
    assert!(panic.contains("panicked in a handler"), "{panic}");
    assert!(panic.contains("supervision.rs:"), "no source location in `{panic}`");
    assert_eq!(watched.starts.load(Ordering::SeqCst), 4);
    assert!(watched.tree.snapshot().is_empty());
    assert!(!watched.address.connected());
}

#[actix_rt::test]
async fn an_actor_that_cannot_start_does_not_try_for_ever() {
    let watched = watch(PERMANENT, true);
    assert!(matches!(watched.exit.await.unwrap(), ExitReason::RestartIntensity(_)));
    assert_eq!(watched.starts.load(Ordering::SeqCst), 4);
}

#[actix_rt::test]
async fn a_temporary_actor_ends_at_its_first_panic() {
    let watched = watch(RestartPolicy::Temporary, false);
    watched.address.do_send(Crash::InAsyncHandler);
    assert!(matches!(watched.exit.await.unwrap(), ExitReason::Panic(_)));
    assert!(watched.tree.snapshot().is_empty());
}

#[actix_rt::test]
async fn an_actor_that_stops_leaves_the_tree_and_says_so() {
    let watched = watch(PERMANENT, false);
    watched.address.do_send(Stop);
    assert_eq!(watched.exit.await.unwrap(), ExitReason::Normal);
    assert!(watched.tree.snapshot().is_empty());
}

#[actix_rt::test]
async fn a_panic_leaves_the_neighbours_alone() {
    let (crashing, neighbour) = (watch(PERMANENT, false), watch(PERMANENT, false));
    assert_eq!(neighbour.address.send(Count).await.unwrap(), 1);
    crashing.address.do_send(Crash::InHandler);
    assert_eq!(crashing.address.send(Count).await.unwrap(), 1);
    assert_eq!(neighbour.address.send(Count).await.unwrap(), 2);
}
