//! A way to the owner of projects over which only text goes, as between two machines: what is asked
//! is written, read by a node on a thread of its own, and what comes back is written and read too.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actix_rt::Arbiter;
use futures_util::future::BoxFuture;
use iris_actors::Node;
use iris_actors::connection::{About, CloseReason, OutFrame, Outbound};
use iris_actors::owner::{Hop, OwnerAnswer, OwnerAsk, ToOwner};
use iris_actors::supervision::detached;
use iris_protocol::{ApiError, ConnectionId, ErrorCode, PartId, ProjectId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

/// What goes to the owner.
#[derive(Serialize, Deserialize)]
enum There {
    Ask {
        number: u64,
        question: ToOwner,
    },
    /// The connection has ended.
    Ended(ConnectionId),
}

/// What comes back.
#[derive(Serialize, Deserialize)]
enum Back {
    Answer { number: u64, answer: Result<OwnerAnswer, ApiError> },
    Frame { connection_id: ConnectionId, frame: Frame },
}

/// An [`OutFrame`] that can be written.
#[derive(Serialize, Deserialize)]
enum Frame {
    Text(String),
    Replay(String),
    Delta(PartId, String),
    Snapshot(PartId, String),
    Latest(About, String),
    Left(ProjectId, String),
    Ping,
    Pong(Vec<u8>),
    Binary(Vec<u8>),
    Close { code: u16, text: String },
}

impl From<OutFrame> for Frame {
    fn from(frame: OutFrame) -> Self {
        let text = |bytes: bytes::Bytes| String::from_utf8(bytes.into()).unwrap();
        match frame {
            OutFrame::Text(json) => Self::Text(text(json)),
            OutFrame::Replay(json) => Self::Replay(text(json)),
            OutFrame::Delta(part_id, json) => Self::Delta(PartId::clone(&part_id), text(json)),
            OutFrame::Snapshot(part_id, json) => Self::Snapshot(part_id, text(json)),
            OutFrame::Latest(about, json) => Self::Latest(about, text(json)),
            OutFrame::Left(project_id, json) => Self::Left(project_id, text(json)),
            OutFrame::Ping => Self::Ping,
            OutFrame::Pong(payload) => Self::Pong(payload.into()),
            OutFrame::Binary(bytes) => Self::Binary(bytes.into()),
            OutFrame::Close(CloseReason { code, text }) => Self::Close { code, text },
        }
    }
}

impl From<Frame> for OutFrame {
    fn from(frame: Frame) -> Self {
        match frame {
            Frame::Text(json) => Self::Text(json.into()),
            Frame::Replay(json) => Self::Replay(json.into()),
            Frame::Delta(part_id, json) => Self::Delta(part_id.into(), json.into()),
            Frame::Snapshot(part_id, json) => Self::Snapshot(part_id, json.into()),
            Frame::Latest(about, json) => Self::Latest(about, json.into()),
            Frame::Left(project_id, json) => Self::Left(project_id, json.into()),
            Frame::Ping => Self::Ping,
            Frame::Pong(payload) => Self::Pong(payload.into()),
            Frame::Binary(bytes) => Self::Binary(bytes.into()),
            Frame::Close { code, text } => Self::Close(CloseReason { code, text }),
        }
    }
}

/// One end of a wire for text.
#[derive(Clone)]
struct Wire {
    texts: UnboundedSender<String>,
    /// Texts that went over it.
    count: Arc<AtomicU64>,
}

impl Wire {
    fn new(count: Arc<AtomicU64>) -> (Self, UnboundedReceiver<String>) {
        let (texts, other_end) = unbounded_channel();
        (Self { texts, count }, other_end)
    }

    fn say(&self, what: &impl Serialize) {
        self.count.fetch_add(1, Ordering::Relaxed);
        // Fails when the server is stopping.
        self.texts.send(serde_json::to_string(what).unwrap()).ok();
    }
}

/// The side of the connections.
pub(crate) struct TextHop {
    to_owner: Wire,
    near: Arc<Near>,
}

#[derive(Default)]
struct Near {
    numbers: AtomicU64,
    asked: Mutex<HashMap<u64, oneshot::Sender<Result<OwnerAnswer, ApiError>>>>,
    connections: Mutex<HashMap<ConnectionId, Arc<Outbound>>>,
}

impl TextHop {
    /// Starts both sides: that of the owner on an arbiter of its own, where `node` answers, this one
    /// on the current one. `count` counts the texts.
    pub(crate) fn start(node: Node, count: Arc<AtomicU64>) -> Self {
        let (to_owner, questions) = Wire::new(Arc::clone(&count));
        let (back, mut answers) = Wire::new(count);
        Arbiter::new().spawn_fn(move || drop(detached(serve(node, questions, back))));
        let near = Arc::<Near>::default();
        let this = Arc::clone(&near);
        detached(async move {
            while let Some(text) = answers.recv().await {
                this.take(serde_json::from_str(&text).unwrap());
            }
        });
        Self { to_owner, near }
    }

    /// Makes a connection one that frames can come back to, until it ends.
    fn connect(&self, id: &ConnectionId, outbound: &Arc<Outbound>) {
        let known = self.near.connections.lock().insert(id.clone(), Arc::clone(outbound));
        if known.is_some() {
            return;
        }
        let (near, to_owner) = (Arc::clone(&self.near), self.to_owner.clone());
        let (id, outbound) = (id.clone(), Arc::clone(outbound));
        detached(async move {
            outbound.closed().await;
            near.connections.lock().remove(&id);
            to_owner.say(&There::Ended(id));
        });
    }
}

impl Near {
    fn take(&self, back: Back) {
        match back {
            Back::Answer { number, answer } => {
                let asked = self.asked.lock().remove(&number).unwrap();
                // Fails when whoever asked went away.
                asked.send(answer).ok();
            }
            Back::Frame { connection_id, frame } => {
                let outbound = self.connections.lock().get(&connection_id).cloned();
                if let Some(outbound) = outbound {
                    outbound.offer(&Arc::new(frame.into()));
                }
            }
        }
    }
}

impl Hop for TextHop {
    fn ask(
        &self,
        question: ToOwner,
        outbound: Option<Arc<Outbound>>,
    ) -> BoxFuture<'static, Result<OwnerAnswer, ApiError>> {
        if let OwnerAsk::Join { connection_id, .. } = &question.ask {
            self.connect(connection_id, &outbound.unwrap());
        }
        let number = self.near.numbers.fetch_add(1, Ordering::Relaxed);
        let (asked, answered) = oneshot::channel();
        self.near.asked.lock().insert(number, asked);
        self.to_owner.say(&There::Ask { number, question });
        Box::pin(async move {
            answered.await.unwrap_or_else(|_| Err(ApiError::from(ErrorCode::ShuttingDown)))
        })
    }
}

/// What the owner has of a connection: a queue of its own, and the answers that go back behind the
/// frames in it.
#[derive(Clone)]
struct Far {
    outbound: Arc<Outbound>,
    answers: UnboundedSender<Back>,
}

impl Far {
    fn start(connection_id: ConnectionId, back: Wire) -> Self {
        let outbound = Arc::new(Outbound::relay());
        let (answers, mut waiting) = unbounded_channel();
        let frames = Arc::clone(&outbound);
        detached(async move {
            loop {
                tokio::select! {
                    biased;
                    frame = poll_fn(|task| frames.poll_next(task)) => {
                        let Some(frame) = frame else { break };
                        let connection_id = connection_id.clone();
                        back.say(&Back::Frame { connection_id, frame: frame.into() });
                    }
                    Some(answer) = waiting.recv() => back.say(&answer),
                }
            }
            while let Some(answer) = waiting.recv().await {
                back.say(&answer);
            }
        });
        Self { outbound, answers }
    }
}

/// The side of the owner, until the other one is gone.
async fn serve(node: Node, mut questions: UnboundedReceiver<String>, back: Wire) {
    let mut connections: HashMap<ConnectionId, Far> = HashMap::new();
    while let Some(text) = questions.recv().await {
        match serde_json::from_str(&text).unwrap() {
            There::Ended(id) => {
                if let Some(far) = connections.remove(&id) {
                    far.outbound.close(CloseReason::new(1000, "the connection ended"));
                }
            }
            There::Ask { number, question } => {
                let far = match &question.ask {
                    OwnerAsk::Join { connection_id: id, .. } => {
                        let start = || Far::start(id.clone(), back.clone());
                        Some(connections.entry(id.clone()).or_insert_with(start).clone())
                    }
                    // Its answer must not overtake the frames.
                    OwnerAsk::Heads { connection_id: id, .. }
                    | OwnerAsk::Snapshots { connection_id: id, .. } => connections.get(id).cloned(),
                    OwnerAsk::Perform { .. }
                    | OwnerAsk::OpenFile { .. }
                    | OwnerAsk::ReadFile { .. }
                    | OwnerAsk::CloseFile { .. }
                    | OwnerAsk::FindAttachment { .. }
                    | OwnerAsk::ReadAttachment { .. }
                    | OwnerAsk::WriteFile { .. }
                    | OwnerAsk::StageFile { .. }
                    | OwnerAsk::StagePart { .. }
                    | OwnerAsk::PlaceFiles { .. }
                    | OwnerAsk::GiveUpFiles { .. }
                    | OwnerAsk::BeginUpload { .. }
                    | OwnerAsk::WriteUpload { .. }
                    | OwnerAsk::CommitUpload { .. }
                    | OwnerAsk::CancelUpload { .. }
                    | OwnerAsk::ReadBackup { .. }
                    | OwnerAsk::Leave { .. } => None,
                };
                let (node, back) = (node.clone(), back.clone());
                detached(async move {
                    let outbound = far.as_ref().map(|far| Arc::clone(&far.outbound));
                    let answer = node.answer_as_owner(question, outbound).await;
                    let answer = Back::Answer { number, answer };
                    match far {
                        Some(far) => far.answers.send(answer).ok().unwrap(),
                        None => back.say(&answer),
                    }
                });
            }
        }
    }
}
