//! Parts of the server itself that hear a project.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use actix::prelude::*;
use iris_actors::project::{Listener, ListeningEnded, ProjectEvent};
use iris_actors::supervised;
use iris_actors::supervision::{Address, ChildSpec, Supervise, Vitals, spawn};
use iris_protocol::ProjectId;
use iris_store::StoredEvent;
use iris_testkit::{Person, TestApp, patiently, spawn_app};
use tokio::sync::{mpsc, oneshot};

/// Messages that may wait for a listener.
const MAILBOX_LIMIT: u32 = 64;

/// An actor that passes on what it hears, once it may.
struct Ear {
    heard: mpsc::UnboundedSender<ProjectEvent>,
    gate: Option<oneshot::Receiver<()>>,
}

impl Actor for Ear {
    type Context = Context<Self>;
}

supervised!(Ear);

impl Supervise for Ear {}

impl Handler<ProjectEvent> for Ear {
    type Result = ();

    fn handle(&mut self, event: ProjectEvent, ctx: &mut Context<Self>) {
        self.heard.send(event).unwrap();
        if let Some(gate) = self.gate.take() {
            ctx.wait(async { drop(gate.await) }.into_actor(self));
        }
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Leave;

impl Handler<Leave> for Ear {
    type Result = ();

    fn handle(&mut self, _: Leave, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}

/// An ear on a thread of its own, from outside.
struct Listening {
    address: Address<Ear>,
    heard: mpsc::UnboundedReceiver<ProjectEvent>,
    end: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Listening {
    /// One that is stuck over its first message until the gate opens, if there is one.
    async fn start(app: &TestApp, gate: Option<oneshot::Receiver<()>>) -> Self {
        let (tell, heard) = mpsc::unbounded_channel();
        let (started, address) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let parent = app.supervision().node();
        let thread = thread::spawn(move || {
            actix_rt::System::new().block_on(async move {
                let spec = ChildSpec { mailbox_limit: MAILBOX_LIMIT, ..ChildSpec::new("ear", "") };
                let create = move |_: &mut Context<Ear>, _: &Arc<Vitals>| Ear { heard: tell, gate };
                started.send(spawn(&parent, spec, create, |_| {})).unwrap();
                // Fails when the test ended, which means the same.
                ended.await.ok();
            });
        });
        Self { address: patiently("an ear", address).await.unwrap(), heard, end, thread }
    }

    fn listener(&self) -> Listener {
        Listener::new(&self.address)
    }

    async fn next(&mut self) -> ProjectEvent {
        patiently("news of the project", self.heard.recv()).await.unwrap()
    }

    async fn event(&mut self) -> Arc<StoredEvent> {
        match self.next().await {
            ProjectEvent::Committed { event, .. } => event,
            ProjectEvent::Ended { reason, .. } => panic!("it hears no more: {reason:?}"),
        }
    }

    /// Hears on until the end of it.
    async fn ended(&mut self) -> (usize, ListeningEnded) {
        let mut count = 0;
        loop {
            match self.next().await {
                ProjectEvent::Committed { .. } => count += 1,
                ProjectEvent::Ended { reason, .. } => return (count, reason),
            }
        }
    }

    fn stop(self) {
        drop((self.end, self.address, self.heard));
        self.thread.join().unwrap();
    }
}

async fn count_of_listeners(root: &Person, project: &ProjectId) -> u64 {
    let path = format!("node/directory/project/{project}");
    root.client.actor(&path).await.unwrap().observed["listeners"].as_u64().unwrap()
}

#[tokio::test]
async fn a_listener_hears_every_durable_event_of_a_project_in_order() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let mut bob = ann.person.conversation_in(&ann.project).await;
    let mut ear = Listening::start(&app, None).await;
    let position = app.node().listen(&ann.project, ear.listener()).await.unwrap();
    assert_eq!(position.epoch, ann.position.epoch);
    tokio::join!(ann.ask("say one"), bob.ask("say two"));
    let last = ann.position.seq.max(bob.position.seq);
    for seq in position.seq + 1..=last {
        let event = ear.event().await;
        assert_eq!(event.seq, seq);
        assert!(serde_json::from_str::<serde_json::Value>(&event.payload).unwrap().is_object());
    }
    ear.stop();
}

#[tokio::test]
async fn a_listener_that_is_stuck_holds_nobody_up_and_is_dropped() {
    let app = spawn_app().await;
    let root = app.admin().await;
    let mut ann = app.user("ann").await.conversation().await;
    let (open, gate) = oneshot::channel();
    let mut stuck = Listening::start(&app, Some(gate)).await;
    let mut other = Listening::start(&app, None).await;
    app.node().listen(&ann.project, stuck.listener()).await.unwrap();
    let position = app.node().listen(&ann.project, other.listener()).await.unwrap();
    assert_eq!(count_of_listeners(&root, &ann.project).await, 2);
    // More than its mailbox takes.
    while ann.position.seq <= position.seq + u64::from(MAILBOX_LIMIT) * 2 {
        ann.ask("say something").await;
    }
    assert_eq!(count_of_listeners(&root, &ann.project).await, 1);
    for seq in position.seq + 1..=ann.position.seq {
        assert_eq!(other.event().await.seq, seq);
    }
    open.send(()).unwrap();
    let (count, reason) = stuck.ended().await;
    assert_eq!(reason, ListeningEnded::TooSlow);
    // One in hand, and those that waited.
    assert_eq!(count, usize::try_from(MAILBOX_LIMIT).unwrap() + 1);
    // It may listen again.
    app.node().listen(&ann.project, stuck.listener()).await.unwrap();
    ann.ask("say on").await;
    stuck.event().await;
    stuck.stop();
    other.stop();
}

#[tokio::test]
async fn a_listener_that_is_gone_is_forgotten() {
    let app = spawn_app().await;
    let root = app.admin().await;
    let mut ann = app.user("ann").await.conversation().await;
    let ear = Listening::start(&app, None).await;
    app.node().listen(&ann.project, ear.listener()).await.unwrap();
    assert_eq!(count_of_listeners(&root, &ann.project).await, 1);
    ear.address.tell(Leave);
    app.wait_for_actors("the end of the ear", |actors| actors.iter().all(|a| a.kind != "ear"))
        .await;
    ann.ask("say something").await;
    assert_eq!(count_of_listeners(&root, &ann.project).await, 0);
    ear.stop();
}

#[tokio::test]
async fn only_so_many_listen_to_one_project() {
    let app = spawn_app().await;
    let ann = app.user("ann").await.conversation().await;
    let ear = Listening::start(&app, None).await;
    for _ in 0..16 {
        app.node().listen(&ann.project, ear.listener()).await.unwrap();
    }
    let refused = app.node().listen(&ann.project, ear.listener()).await.unwrap_err();
    assert_eq!(refused.code, iris_protocol::ErrorCode::Overloaded);
    ear.stop();
}

#[tokio::test]
async fn a_listener_is_told_of_a_restart_and_hears_on_when_it_listens_again() {
    let app = spawn_app().await;
    let root = app.admin().await;
    let mut ann = app.user("ann").await.conversation().await;
    let mut ear = Listening::start(&app, None).await;
    app.node().listen(&ann.project, ear.listener()).await.unwrap();
    ann.ask("say one").await;
    root.client.restart_actor(&format!("node/directory/project/{}", ann.project)).await.unwrap();
    assert_eq!(ear.ended().await.1, ListeningEnded::Project);
    let position = app.node().listen(&ann.project, ear.listener()).await.unwrap();
    assert!(position.seq >= ann.position.seq);
    let mut ann = ann.resume(ann.person.clone()).await;
    ann.ask("say two").await;
    for seq in position.seq + 1..=ann.position.seq {
        assert_eq!(ear.event().await.seq, seq);
    }
    ear.stop();
}
