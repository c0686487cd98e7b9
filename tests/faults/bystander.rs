//! Somebody with another project, who is to notice nothing: no error, no gap, no repeat.

use iris_client::SessionFeed;
use iris_protocol::{Event, RunId, RunStatus};
use iris_testkit::{Conversation, Person, text_of};

use crate::player::project_path;

/// Streams for much longer than any test.
const SCRIPT: &str = "delay 10\nchunks 20000 tick";

/// Somebody whose agent talks all the time.
pub(crate) struct Bystander {
    talk: Conversation,
    feed: SessionFeed,
    run: Option<RunId>,
}

impl Bystander {
    pub(crate) async fn join(person: &Person) -> Self {
        let talk = person.conversation().await;
        let feed = SessionFeed::resume(talk.session.clone(), talk.position.clone());
        Self { talk, feed, run: None }
    }

    /// Where the registry of the project and the connection stand.
    pub(crate) fn paths(&self) -> Vec<String> {
        let connected = self.talk.socket.connected().unwrap();
        let connection = format!("node/connection/{}", connected.connection_id);
        vec![project_path(&self.talk.project), connection]
    }

    /// Lets the agent talk.
    pub(crate) async fn begin(&mut self) {
        self.run = Some(self.talk.send_message(SCRIPT).await.run_id);
        self.talk.wait_for("message.text.delta").await;
    }

    /// Ends the talk. Every frame since the beginning has to be the one after the one before it, and
    /// what streamed has to be what is stored.
    pub(crate) async fn check(&mut self) {
        let run = self.run.take().unwrap();
        // Still talking: the next piece comes.
        self.talk.wait_for("message.text.delta").await;
        assert!(self.talk.cancel().await, "the bystander's run had ended");
        assert_eq!(self.talk.run_ended(&run).await, RunStatus::Cancelled);
        let mut text = String::new();
        for frame in std::mem::take(&mut self.talk.seen) {
            if let Event::MessageTextDelta { offset, delta, .. } = &frame.event {
                assert_eq!(*offset, text.len() as u64, "{frame:?}");
                text.push_str(delta);
            }
            if let Some(seq) = frame.meta.seq {
                assert!(seq > self.feed.position().seq, "again: {frame:?}");
            }
            assert!(!self.feed.receive(frame.clone()).gap, "a gap before {frame:?}");
        }
        assert_eq!(text_of(&self.talk.answer(&run).await), text);
    }
}
