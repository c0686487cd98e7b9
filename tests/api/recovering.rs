//! What recovery has to do when the server was killed: what comes meanwhile waits, and damage to one run
//! holds up no other.

use iris_protocol::{
    Content, ErrorCode, MessageAccepted, MessageSend, RunGet, RunStatus, SessionList,
};
use iris_testkit::{
    Conversation, FakeProvider, Gate, Person, Reply, ServerProcess, chat, patiently,
};
use rusqlite::Connection;
use serde_json::json;
use tempfile::{TempDir, tempdir};

use crate::unattended::{project_db, until_column};
use crate::{ann, code_of, iris, iris_with, refusal, root};

/// A server that was killed during a run and started again while somebody holds the database of its
/// project, so that nothing can be written there until it is let go.
struct Held {
    directory: TempDir,
    provider: FakeProvider,
    /// As it was before.
    before: Conversation,
    server: ServerProcess,
    operator: Person,
    person: Person,
    lock: Connection,
}

const RUNS: &str = "SELECT status FROM runs ORDER BY number";

impl Held {
    async fn start() -> Self {
        let gate = Gate::default();
        let held = Reply::stream().wait(&gate).bytes(chat::text("first")).bytes(chat::end("stop"));
        let provider = FakeProvider::start([held, chat::says("second")]).await;
        let directory = tempdir().unwrap();
        let server = ServerProcess::start(iris_with(directory.path(), &provider)).await;
        let operator = root(&server).await;
        let before = ann(&server).await.conversation().await;
        before.send_message("one").await;
        gate.reached().await;
        server.kill();

        let lock = Connection::open(project_db(directory.path(), &before.project)).unwrap();
        lock.execute_batch("BEGIN IMMEDIATE").unwrap();
        let server = ServerProcess::start(iris_with(directory.path(), &provider)).await;
        let client = server.client();
        let operator = Person::new(&client, operator.grant);
        let person = Person::new(&client, before.person.grant.clone());
        Self { directory, provider, before, server, operator, person, lock }
    }

    async fn send(&self) -> Result<MessageAccepted, iris_client::ClientError> {
        let session_id = self.before.session.clone();
        let content = Content::Text("two".to_owned());
        let request = MessageSend { session_id, content, when_busy: None, attachments: Vec::new() };
        self.person.client.call(Some(&self.before.project), request).await
    }

    /// Waits until an actor of the project, or the project itself, is as it should be.
    async fn until_observed(&self, what: &str, under: &str, field: &str, value: &str) {
        let path = format!("node/directory/project/{}{under}", self.before.project);
        let waiting = async {
            loop {
                let actor = self.operator.client.actor(&path).await;
                if actor.is_ok_and(|actor| actor.observed[field] == json!(value)) {
                    break;
                }
            }
        };
        patiently(what, waiting).await;
    }

    async fn read(&self) {
        let snapshot = self.person.snapshot(&self.before.project, &self.before.session).await;
        assert_eq!(snapshot.messages.len(), 2);
        let list =
            SessionList { limit: None, cursor: None, include_archived: None, parent_id: None };
        let listed = self.person.client.call(Some(&self.before.project), list).await.unwrap();
        assert_eq!(listed.sessions.len(), 1);
    }

    /// Lets the server write.
    fn let_go(&self) {
        self.lock.execute_batch("ROLLBACK").unwrap();
    }

    /// Waits until both runs have ended as they should.
    async fn both_end(&self) {
        let path = project_db(self.directory.path(), &self.before.project);
        let client = self.server.client();
        until_column(&client, &path, RUNS, |found| found == ["interrupted", "completed"]).await;
        // Once for each: nobody went on with the first one.
        assert_eq!(self.provider.asked().len(), 2);
    }
}

#[tokio::test]
async fn a_session_waits_until_the_runs_of_an_earlier_life_are_recovered() {
    let held = Held::start().await;
    let look = async {
        let session = format!("/session/{}", held.before.session);
        held.until_observed("the session to wait", &session, "work", "lookingUp").await;
        for _ in 0..20 {
            held.read().await;
        }
        assert_eq!(held.provider.asked().len(), 1, "the first run was taken up");
        held.let_go();
    };
    let (sent, ()) = tokio::join!(held.send(), look);
    sent.unwrap();
    held.both_end().await;
}

#[tokio::test]
async fn while_recovery_fails_a_project_can_be_read_and_its_sessions_refuse_until_it_succeeds() {
    let held = Held::start().await;
    held.until_observed("recovery to fail", "", "recovery", "fails").await;
    let refused = refusal(held.send().await);
    assert_eq!(refused.code, ErrorCode::Overloaded);
    assert!(refused.retryable && refused.retry_after_ms.is_some(), "{refused:?}");
    held.read().await;
    let mut heard =
        held.before.resume(Person::new(&held.server.client(), held.person.grant.clone())).await;
    assert_eq!(held.provider.asked().len(), 1, "the first run was taken up");
    held.let_go();
    heard.wait_for("run.completed").await;
    held.until_observed("recovery", "", "recovery", "done").await;
    held.send().await.unwrap();
    held.both_end().await;
}

#[tokio::test]
async fn a_run_whose_call_is_damaged_fails_and_the_rest_of_the_project_goes_on() {
    let directory = tempdir().unwrap();
    let server = ServerProcess::start(iris(directory.path())).await;
    let person = ann(&server).await;
    let mut talk = person.conversation().await;
    let input = json!({ "path": "a", "content": "x".repeat(10_000) });
    let run = talk.send_message(&format!("call write {input}")).await.run_id;
    talk.approval().await;
    let behind = talk.send_message("say behind").await.run_id;
    let mut other = person.conversation_in(&talk.project).await;
    let waits = "call write {\"path\": \"b\", \"content\": \"\"}\nstep\nsay done";
    let other_run = other.send_message(waits).await.run_id;
    let call = other.approval().await.tool_call_id;
    server.kill();
    let conn = Connection::open(project_db(directory.path(), &talk.project)).unwrap();
    let sql = "UPDATE blobs SET content = zeroblob(octet_length(content))
               WHERE hash IN (SELECT blob FROM message_parts WHERE tool_call_id IS NOT NULL)";
    assert_eq!(conn.execute(sql, []).unwrap(), 1);
    drop(conn);

    let server = ServerProcess::start(iris(directory.path())).await;
    let again = || Person::new(&server.client(), person.grant.clone());
    let mut talk = talk.resume(again()).await;
    assert_eq!(talk.run_ended(&run).await, RunStatus::Failed);
    let request = RunGet { session_id: talk.session.clone(), run_id: run };
    let error = talk.call(request).await.unwrap().run.error.unwrap();
    assert_eq!(code_of(&error), (ErrorCode::ProjectCorrupt, "blob_corrupt"));
    assert_eq!(talk.run_ended(&behind).await, RunStatus::Completed);
    let mut other = other.resume(again()).await;
    other.approve(&call).await.unwrap();
    assert_eq!(other.run_ended(&other_run).await, RunStatus::Completed);
}
