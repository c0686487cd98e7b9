//! The process ends at a named point inside of a turn: what each of them promises.

use std::path::{Path, PathBuf};

use iris_protocol::{
    FinishReason, Message, MessageRole, MessageState, Part, RunCancel, RunResume, RunStatus,
    SessionCompact, SessionSnapshot, SessionState, ToolPart, ToolState,
};
use iris_store::CrashPoint;
use iris_testkit::{Conversation, PASSWORD, Person, ServerProcess, calls_of, text_of};
use rusqlite::Connection;
use tempfile::TempDir;

const READ: &str = "call read {\"path\": \"none\"}\nstep\nsay done";
const WRITE: &str =
    "call write {\"path\": \"effect.txt\", \"content\": \"effect\"}\nstep\nsay done";
const ENDLESS: &str = "delay 10\nchunks 10000 tick";
/// What the test writes over the effect, to see a second one.
const BY_HAND: &str = "changed by hand";

/// A session whose server ended at a point of a run, and was started again.
struct Cut {
    directory: TempDir,
    /// As it was before, with the position up to which it heard.
    before: Conversation,
    server: ServerProcess,
}

fn command(directory: &Path) -> std::process::Command {
    ServerProcess::command(env!("CARGO_BIN_EXE_iris"), directory)
}

async fn ann(server: &ServerProcess) -> Person {
    let request = iris_protocol::AuthRegister {
        invitation: None,
        email: "ann@example.com".to_owned(),
        username: "ann".to_owned(),
        password: PASSWORD.to_owned(),
    };
    let client = server.client();
    Person::new(&client, client.register(&request).await.unwrap())
}

/// Sends `script` to a server that ends at `point`, allowing what it asks for; `meanwhile` happens while
/// no server runs.
async fn cut(point: CrashPoint, script: &str, meanwhile: impl FnOnce(&Path)) -> Cut {
    let directory = TempDir::new().unwrap();
    let armed = directory.path().join("armed");
    let mut doomed = command(directory.path());
    doomed.env("IRIS_CRASH_AT", point.as_str()).env("IRIS_CRASH_WHEN", &armed);
    let server = ServerProcess::start(doomed).await;
    let mut before = ann(&server).await.conversation().await;
    before.ask("say before").await;
    let needs_approval = script == WRITE;
    if !needs_approval {
        std::fs::write(&armed, "").unwrap();
    }
    // The answer may not come any more.
    drop(before.try_send(script, None).await);
    if needs_approval {
        let approval = before.approval().await;
        std::fs::write(&armed, "").unwrap();
        drop(before.approve(&approval.tool_call_id).await);
    }
    let exit = server.exited().await;
    assert!(!exit.success(), "the server did not come to `{}`", point.as_str());
    meanwhile(&files(directory.path(), &before));
    let server = ServerProcess::start(command(directory.path())).await;
    Cut { directory, before, server }
}

fn files(directory: &Path, talk: &Conversation) -> PathBuf {
    directory.join("projects").join(talk.project.as_str()).join("files")
}

impl Cut {
    fn person(&self) -> Person {
        Person::new(&self.server.client(), self.before.person.grant.clone())
    }

    async fn snapshot(&self) -> SessionSnapshot {
        self.person().snapshot(&self.before.project, &self.before.session).await
    }

    /// The interrupted run's answer. Who was there before the end is told what became of it.
    async fn interrupted(&self) -> Message {
        let run = self.snapshot().await.messages.pop().unwrap().run_id.unwrap();
        let mut again = self.before.resume(self.person()).await;
        assert_eq!(again.run_ended(&run).await, RunStatus::Interrupted);
        let mut snapshot = self.snapshot().await;
        assert_eq!(snapshot.session.state, SessionState::Interrupted);
        let answer = snapshot.messages.pop().unwrap();
        assert_eq!(answer.role, MessageRole::Assistant);
        assert_eq!(answer.state, MessageState::Interrupted);
        answer
    }

    /// The one call of the interrupted run, whose outcome nobody knows; the model is told so, and the
    /// session goes on.
    async fn unknown_call(&self) -> ToolPart {
        let answer = self.interrupted().await;
        let calls = calls_of(&answer);
        assert_eq!(calls.len(), 1, "{answer:?}");
        assert_eq!(calls[0].state, ToolState::UnknownOutcome);
        let mut again = self.before.resume(self.person()).await;
        let told = text_of(&again.ask("say {{result}}").await);
        assert!(told.contains("may or may not"), "the model was told `{told}`");
        calls[0].clone()
    }

    fn effect(&self) -> Option<String> {
        let path = files(self.directory.path(), &self.before).join("effect.txt");
        std::fs::read_to_string(path).ok()
    }
}

#[tokio::test]
async fn before_an_intent_is_durable_nothing_of_it_happened() {
    let cut = cut(CrashPoint::BeforeIntent, READ, |_| {}).await;
    let answer = cut.interrupted().await;
    assert_eq!(calls_of(&answer), Vec::<&ToolPart>::new());
}

#[tokio::test]
async fn after_an_intent_the_call_has_an_unknown_outcome() {
    let cut = cut(CrashPoint::AfterIntent, READ, |_| {}).await;
    assert_eq!(cut.unknown_call().await.tool_name, "read");
}

#[tokio::test]
async fn a_tool_that_was_about_to_start_is_never_started() {
    let cut = cut(CrashPoint::ToolStart, WRITE, |_| {}).await;
    assert_eq!(cut.unknown_call().await.tool_name, "write");
    assert_eq!(cut.effect(), None);
}

#[tokio::test]
async fn a_tool_that_has_ended_is_not_run_again() {
    let cut = cut(CrashPoint::ToolEnd, WRITE, |files| {
        let effect = files.join("effect.txt");
        assert_eq!(std::fs::read_to_string(&effect).unwrap(), "effect");
        std::fs::write(&effect, BY_HAND).unwrap();
    })
    .await;
    assert_eq!(cut.unknown_call().await.tool_name, "write");
    assert_eq!(cut.effect().as_deref(), Some(BY_HAND));
}

/// Whatever was said last is recorded with the end of the run.
#[tokio::test]
async fn a_run_whose_end_is_not_recorded_keeps_its_text_up_to_the_last_checkpoint() {
    // Long enough for a checkpoint by length, and time for it to be written.
    let script = "chunks 1500 word\ndelay 200\nchunks 3 word";
    let cut = cut(CrashPoint::Finish, script, |_| {}).await;
    let text = text_of(&cut.interrupted().await);
    assert!(!text.is_empty() && "word ".repeat(1503).starts_with(&text), "`{text}`");
}

#[tokio::test]
async fn streaming_text_is_kept_up_to_the_last_checkpoint() {
    let cut = cut(CrashPoint::Checkpoint, "delay 10\nchunks 400 word", |_| {}).await;
    let text = text_of(&cut.interrupted().await);
    let whole = "word ".repeat(400);
    assert!(!text.is_empty() && whole.starts_with(&text), "`{text}`");
    assert!(text.len() < whole.len(), "the run was not cut off");
}

/// Ends a server at a point of a run that makes a summary, because the model refuses the conversation or
/// because somebody wants one. The answer as the next server has it.
async fn cut_summary(point: CrashPoint, because: Option<&str>) -> Message {
    let directory = TempDir::new().unwrap();
    let (armed, script) = (directory.path().join("armed"), directory.path().join("script"));
    // What is no script itself is the question for a summary.
    std::fs::write(&script, "say They spoke.").unwrap();
    let command = || {
        let mut command = command(directory.path());
        command.env("IRIS_PROVIDERS__DEMO__SCRIPT", &script);
        command
    };
    let mut doomed = command();
    doomed.env("IRIS_CRASH_AT", point.as_str()).env("IRIS_CRASH_WHEN", &armed);
    let server = ServerProcess::start(doomed).await;
    let mut talk = ann(&server).await.conversation().await;
    talk.ask("chunks 400 word").await;
    std::fs::write(&armed, "").unwrap();
    // The answer may not come any more.
    match because {
        Some(script) => drop(talk.try_send(script, None).await),
        None => drop(talk.call(SessionCompact { session_id: talk.session.clone() }).await),
    }
    assert!(!server.exited().await.success(), "the server did not come to `{}`", point.as_str());
    let server = ServerProcess::start(command()).await;
    let person = Person::new(&server.client(), talk.person.grant.clone());
    let mut again = talk.resume(person).await;
    let snapshot = again.person.snapshot(&again.project, &again.session).await;
    let answer = snapshot.messages.last().unwrap().clone();
    let run = answer.run_id.clone().unwrap();
    assert_eq!(again.run_ended(&run).await, RunStatus::Interrupted);
    // Whatever became of it, the session goes on.
    if because.is_none() {
        let session_id = again.session.clone();
        again.call(RunResume { session_id, run_id: run.clone() }).await.unwrap();
        assert_eq!(again.run_ended(&run).await, RunStatus::Completed);
        assert_eq!(summaries(&again.answer(&run).await), 1);
    }
    assert_eq!(text_of(&again.ask("say still here").await), "still here");
    answer
}

fn summaries(message: &Message) -> usize {
    message.parts.iter().filter(|part| matches!(part, Part::Compaction(_))).count()
}

#[tokio::test]
async fn a_summary_is_there_whole_or_not_at_all() {
    let too_long = Some("fail context_overflow");
    for (point, because, expected) in [
        (CrashPoint::BeforeIntent, too_long, 0),
        (CrashPoint::AfterIntent, too_long, 1),
        (CrashPoint::Finish, None, 0),
    ] {
        let answer = cut_summary(point, because).await;
        assert_eq!(summaries(&answer), expected, "{point:?}: {answer:?}");
    }
}

#[tokio::test]
async fn what_was_committed_and_told_to_nobody_is_told_to_whoever_resumes() {
    let cut = cut(CrashPoint::AfterCommitBeforeFanout, "say hello", |_| {}).await;
    let mut again = cut.before.resume(cut.person()).await;
    let heard = again.wait_for("message.created").await;
    assert!(heard.meta.seq > Some(cut.before.position.seq), "{heard:?}");
    let snapshot = cut.snapshot().await;
    let mine = snapshot.messages.iter().filter(|message| text_of(message) == "say hello");
    assert_eq!(mine.count(), 1);
    // It was queued before the end, so it is answered after it.
    let run = snapshot.messages.iter().rev().find_map(|message| message.run_id.clone()).unwrap();
    assert_eq!(again.run_ended(&run).await, RunStatus::Completed);
    assert_eq!(text_of(&again.answer(&run).await), "hello");
}

/// Cancels the run of `script` at a server that ends before the end of the run is recorded. What the
/// next server makes of it, which resumes by itself what was interrupted.
async fn cancelled_and_cut(script: &str) -> Message {
    let directory = TempDir::new().unwrap();
    let armed = directory.path().join("armed");
    let mut doomed = command(directory.path());
    doomed.env("IRIS_CRASH_AT", CrashPoint::Finish.as_str()).env("IRIS_CRASH_WHEN", &armed);
    let server = ServerProcess::start(doomed).await;
    let mut talk = ann(&server).await.conversation().await;
    let run = talk.send_message(script).await.run_id;
    if script == WRITE {
        talk.approval().await;
    } else {
        talk.wait_for("message.text.delta").await;
    }
    std::fs::write(&armed, "").unwrap();
    // The answer may not come any more.
    drop(talk.call(RunCancel { session_id: talk.session.clone() }).await);
    assert!(!server.exited().await.success(), "the server did not come to the end of the run");

    let mut next = command(directory.path());
    next.env("IRIS_RESUME", "auto");
    let server = ServerProcess::start(next).await;
    let person = Person::new(&server.client(), talk.person.grant.clone());
    let mut again = talk.resume(person).await;
    assert_eq!(again.run_ended(&run).await, RunStatus::Cancelled);
    assert_eq!(text_of(&again.ask("say next").await), "next");
    let answer = again.answer(&run).await;
    let end = (answer.state, answer.finish_reason);
    assert_eq!(end, (MessageState::Complete, Some(FinishReason::Cancelled)));
    answer
}

#[tokio::test]
async fn a_run_that_works_and_is_cancelled_stays_cancelled_through_a_crash() {
    cancelled_and_cut(ENDLESS).await;
}

#[tokio::test]
async fn a_run_that_waits_and_is_cancelled_stays_cancelled_through_a_crash() {
    let answer = cancelled_and_cut(WRITE).await;
    assert_eq!(calls_of(&answer)[0].state, ToolState::Cancelled);
}

#[tokio::test]
async fn a_change_of_the_sandbox_is_recorded_once_though_the_server_ends_at_its_record() {
    let directory = TempDir::new().unwrap();
    let wanting = |minimum: &str| {
        let mut command = command(directory.path());
        command.env("IRIS_SANDBOX_MINIMUM", minimum);
        command
    };
    let recorded = || {
        let sql = "SELECT details ->> '$.before.minimum', details ->> '$.now.minimum' FROM audit
                   WHERE action = 'server.sandbox' ORDER BY id";
        let root = Connection::open(directory.path().join("root.db")).unwrap();
        let mut rows = root.prepare(sql).unwrap();
        let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect::<Vec<(Option<String>, String)>>()
    };
    let server = ServerProcess::start(wanting("off")).await;
    assert!(server.terminate().await.success());
    let first = (None, "off".to_owned());
    assert_eq!(recorded(), std::slice::from_ref(&first));
    let both = [first.clone(), (Some("off".to_owned()), "S3".to_owned())];
    // What is committed first may be something else that a start writes.
    for _ in 0..20 {
        let mut doomed = wanting("S3");
        doomed.env("IRIS_CRASH_AT", CrashPoint::AfterCommitBeforeFanout.as_str());
        let (code, said) = ServerProcess::refused(doomed).await;
        assert_ne!(code, Some(0), "{said}");
        if recorded() == both {
            break;
        }
        assert_eq!(recorded(), std::slice::from_ref(&first));
    }
    let server = ServerProcess::start(wanting("S3")).await;
    assert!(server.terminate().await.success());
    assert_eq!(recorded(), both);
}
