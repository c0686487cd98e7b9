//! Messages that do not wait behind others while a run is active: they join it, or end it.

use iris_protocol::{
    Event, FinishReason, MemberUpdate, Message, MessageAccepted, Role, RunId, RunList, RunStatus,
    ToolState, WhenBusy,
};
use iris_testkit::{
    AppOptions, Conversation, FakeProvider, Gate, Person, Reply, ServerProcess, calls_of, chat,
    spawn_app, spawn_app_with, text_of,
};
use serde_json::Value;
use tempfile::tempdir;

use crate::{ann, iris, iris_with};

/// Keeps a run waiting for a person.
const HOLD: &str = "call write {\"path\": \"a.txt\", \"content\": \"x\"}\nstep\nsay first";

async fn steer(talk: &Conversation, text: &str) -> MessageAccepted {
    talk.try_send(text, Some(WhenBusy::Steer)).await.unwrap()
}

async fn interrupt(talk: &Conversation, text: &str) -> MessageAccepted {
    talk.try_send(text, Some(WhenBusy::Interrupt)).await.unwrap()
}

async fn stored(talk: &Conversation, accepted: &MessageAccepted) -> Message {
    let messages = talk.person.snapshot(&talk.project, &talk.session).await.messages;
    messages.into_iter().find(|message| message.id == accepted.message_id).unwrap()
}

/// The message as the next `message.updated` about it says.
async fn updated(talk: &mut Conversation, accepted: &MessageAccepted) -> Message {
    let id = &accepted.message_id;
    let is_it = |e: &Event| matches!(e, Event::MessageUpdated { message, .. } if message.id == *id);
    let frame = talk.wait_until("the message", is_it).await;
    let Event::MessageUpdated { message, .. } = frame.event else { panic!("{frame:?}") };
    message
}

/// The roles of a question to the model and what each says.
fn said(body: &Value) -> Vec<(String, String)> {
    let messages = body["messages"].as_array().unwrap().iter();
    let messages = messages.filter(|message| message["role"] != "system");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    messages.map(|message| (text(&message["role"]), text(&message["content"]))).collect()
}

fn roles(body: &Value) -> Vec<String> {
    said(body).into_iter().map(|(role, _)| role).collect()
}

#[tokio::test]
async fn a_message_that_steers_joins_the_run_behind_the_results_of_its_step() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let first = ann.send_message(HOLD).await;
    let call = ann.approval().await.tool_call_id;
    let joins = steer(&ann, "say steered").await;
    assert_eq!((&joins.run_id, joins.queued), (&first.run_id, true));
    let waiting = ann.person.snapshot(&ann.project, &ann.session).await;
    assert_eq!(waiting.queue.len(), 1);
    let queued = &waiting.queue[0];
    assert_eq!((&queued.run_id, queued.steers), (&first.run_id, true));
    assert_eq!(waiting.runs.len(), 1, "{:?}", waiting.runs);

    ann.approve(&call).await.unwrap();
    ann.wait_for("message.tool.result").await;
    let joined = updated(&mut ann, &joins).await;
    assert_eq!((joined.run_id.as_ref(), joined.after_step), (Some(&first.run_id), Some(1)));
    assert_eq!(ann.run_ended(&first.run_id).await, RunStatus::Completed);
    assert_eq!(text_of(&ann.answer(&first.run_id).await), "steered");

    let after = ann.person.snapshot(&ann.project, &ann.session).await;
    assert!(after.queue.is_empty());
    assert_eq!(after.session.message_count, 3);
    let ids: Vec<_> = after.messages.iter().map(|message| &message.id).collect();
    let answer = ann.answer(&first.run_id).await.id;
    assert_eq!(ids, [&first.message_id, &answer, &joins.message_id]);
    let list = RunList { session_id: ann.session.clone(), limit: None, cursor: None };
    assert_eq!(ann.call(list).await.unwrap().runs.len(), 1);
    assert_eq!(text_of(&ann.ask("say next").await), "next");
}

#[tokio::test]
async fn the_model_reads_what_joined_where_it_joined() {
    let held = Gate::default();
    let reply = Reply::stream().bytes(chat::call("c1", "list", "{\"path\": \".\"}"));
    let reply = reply.wait(&held).bytes(chat::end("tool_calls"));
    let provider = FakeProvider::start([reply, chat::says("done"), chat::says("on")]).await;
    let app = spawn_app_with(AppOptions::with_provider(provider.base_url())).await;
    let mut ann = app.user("ann").await.conversation().await;
    let run = ann.send_message("look").await.run_id;
    held.reached().await;
    let first = steer(&ann, "be quick").await;
    let second = steer(&ann, "be brief").await;
    held.open();
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
    for message in [&first, &second] {
        assert_eq!(stored(&ann, message).await.after_step, Some(1));
    }
    ann.ask("and?").await;
    let asked = provider.asked();
    assert_eq!(roles(&asked[0].body), ["user"]);
    assert_eq!(roles(&asked[1].body)[..3], ["user", "assistant", "tool"]);
    let joined: String = said(&asked[1].body)[3..].iter().map(|(_, text)| text.as_str()).collect();
    assert!(joined.starts_with("be quick") && joined.ends_with("be brief"), "{joined}");
    // In the next run they stand where they stood.
    let (before, after) = (said(&asked[1].body), said(&asked[2].body));
    assert_eq!(after[..before.len()], before);
    assert_eq!(after[before.len()..].len(), 2, "{after:?}");
}

#[tokio::test]
async fn a_message_that_steers_a_run_without_another_step_is_the_next_to_be_answered() {
    let held = Gate::default();
    let reply = Reply::stream().bytes(chat::text("first")).wait(&held).bytes(chat::end("stop"));
    let replies = [reply, chat::says("steered"), chat::says("queued")];
    let provider = FakeProvider::start(replies).await;
    let app = spawn_app_with(AppOptions::with_provider(provider.base_url())).await;
    let mut ann = app.user("ann").await.conversation().await;
    let first = ann.send_message("one").await.run_id;
    held.reached().await;
    let queued = ann.send_message("three").await;
    let joins = steer(&ann, "two").await;
    assert_eq!(joins.run_id, first);
    held.open();
    let alone = updated(&mut ann, &joins).await;
    let own = alone.run_id.unwrap();
    assert!(own != first && alone.after_step.is_none());
    assert_eq!(ann.run_ended(&first).await, RunStatus::Completed);
    assert_eq!(ann.run_ended(&own).await, RunStatus::Completed);
    assert_eq!(ann.run_ended(&queued.run_id).await, RunStatus::Completed);
    assert_eq!(text_of(&ann.answer(&own).await), "steered");
    assert_eq!(text_of(&ann.answer(&queued.run_id).await), "queued");
    let texts: Vec<_> = said(&provider.asked()[2].body).into_iter().map(|(_, said)| said).collect();
    assert_eq!(texts, ["one", "first", "two", "steered", "three"]);
}

#[tokio::test]
async fn a_message_that_steers_or_interrupts_nothing_is_answered_at_once() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    for when_busy in [WhenBusy::Steer, WhenBusy::Interrupt] {
        let sent = ann.try_send("say hi", Some(when_busy)).await.unwrap();
        assert!(!sent.queued);
        assert_eq!(ann.run_ended(&sent.run_id).await, RunStatus::Completed);
        assert_eq!(text_of(&ann.answer(&sent.run_id).await), "hi");
    }
}

#[tokio::test]
async fn a_cancelled_run_leaves_what_would_have_joined_it_to_the_next() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let first = ann.send_message(HOLD).await.run_id;
    ann.approval().await;
    let joins = steer(&ann, "say steered").await;
    assert!(ann.cancel().await);
    let own = updated(&mut ann, &joins).await.run_id.unwrap();
    assert_eq!(ann.run_ended(&first).await, RunStatus::Cancelled);
    assert_eq!(ann.run_ended(&own).await, RunStatus::Completed);
    assert_eq!(text_of(&ann.answer(&own).await), "steered");
}

#[tokio::test]
async fn a_message_that_interrupts_ends_the_run_with_results_for_its_calls_and_is_answered_next() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let first = ann.send_message(HOLD).await.run_id;
    ann.approval().await;
    let later = ann.send_message("say later").await;
    let now = interrupt(&ann, "say now").await;
    assert!(now.queued && now.run_id != first);
    assert_eq!(ann.run_ended(&first).await, RunStatus::Cancelled);
    assert_eq!(ann.run_ended(&now.run_id).await, RunStatus::Completed);
    assert_eq!(ann.run_ended(&later.run_id).await, RunStatus::Completed);
    let answer = ann.answer(&first).await;
    assert_eq!(answer.finish_reason, Some(FinishReason::Cancelled));
    assert_eq!(calls_of(&answer)[0].state, ToolState::Cancelled);
    assert!(ann.names().contains(&"tool.approval.resolved"));
    assert_eq!(text_of(&ann.answer(&now.run_id).await), "now");
    assert_eq!(text_of(&ann.answer(&later.run_id).await), "later");
}

/// A stream that nobody reads any more is closed.
#[tokio::test]
async fn a_message_that_interrupts_closes_the_stream_of_the_model() {
    let held = Gate::default();
    let reply = Reply::stream().bytes(chat::text("never ends")).wait(&held);
    let provider = FakeProvider::start([reply, chat::says("now")]).await;
    let app = spawn_app_with(AppOptions::with_provider(provider.base_url())).await;
    let mut ann = app.user("ann").await.conversation().await;
    let first = ann.send_message("one").await.run_id;
    ann.wait_until("text", |e| matches!(e, Event::MessageTextDelta { .. })).await;
    let now = interrupt(&ann, "two").await.run_id;
    assert_eq!(ann.run_ended(&first).await, RunStatus::Cancelled);
    assert_eq!(ann.run_ended(&now).await, RunStatus::Completed);
    assert_eq!(text_of(&ann.answer(&first).await), "never ends");
    assert_eq!(text_of(&ann.answer(&now).await), "now");
}

/// INV-12: a run may do what all may whose messages it works on.
#[tokio::test]
async fn a_run_that_somebody_steers_does_nothing_that_they_may_not() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let bob = app.user("bob").await;
    ann.person.add_member(&ann.project, &bob, Role::Member).await;
    let run = ann.send_message(HOLD).await.run_id;
    let call = ann.approval().await.tool_call_id;
    let steering = bob.join(&ann.project, &ann.session).await;
    steer(&steering, "call list\nstep\nsay {{result}}").await;
    let demote = MemberUpdate { user_id: bob.id().clone(), role: Role::Viewer };
    ann.call(demote).await.unwrap();
    ann.approve(&call).await.unwrap();
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
    let answer = ann.answer(&run).await;
    let calls = calls_of(&answer);
    assert_eq!(calls[0].state, ToolState::Completed, "before bob said anything");
    assert_eq!(calls[1].state, ToolState::Denied);
    let told = "who started or steered this run may not work in this project any more";
    assert_eq!(text_of(&answer), told);
}

/// The same people in the same session, at a server that was started again.
async fn came_back(server: &ServerProcess, talk: &Conversation) -> Conversation {
    talk.resume(Person::new(&server.client(), talk.person.grant.clone())).await
}

#[tokio::test]
async fn a_message_that_waits_to_join_a_run_is_there_after_a_kill_and_joins_once() {
    let dir = tempdir().unwrap();
    let server = ServerProcess::start(iris(dir.path())).await;
    let mut talk = ann(&server).await.conversation().await;
    let run = talk.send_message(HOLD).await.run_id;
    let call = talk.approval().await.tool_call_id;
    let joins = steer(&talk, "say steered").await;
    server.kill();

    let server = ServerProcess::start(iris(dir.path())).await;
    let mut again = came_back(&server, &talk).await;
    again.approve(&call).await.unwrap();
    assert_eq!(updated(&mut again, &joins).await.after_step, Some(1));
    assert_eq!(again.run_ended(&run).await, RunStatus::Completed);
    assert_eq!(text_of(&again.answer(&run).await), "steered");
    assert_eq!(again.names().iter().filter(|name| **name == "message.updated").count(), 1);
    assert_eq!(again.person.snapshot(&again.project, &again.session).await.messages.len(), 3);
}

#[tokio::test]
async fn a_message_that_joined_a_run_right_before_a_kill_is_read_once_when_that_goes_on() {
    let held = Gate::default();
    let reply = Reply::stream().bytes(chat::call("c1", "list", "{}"));
    let reply = reply.wait(&held).bytes(chat::end("tool_calls"));
    let provider = FakeProvider::start([reply, chat::says("done")]).await;
    let dir = tempdir().unwrap();
    let mut command = iris_with(dir.path(), &provider);
    command.env("IRIS_CRASH_AT", "after_join").env("IRIS_RESUME", "auto");
    let server = ServerProcess::start(command).await;
    let talk = ann(&server).await.conversation().await;
    let run = talk.send_message("look").await.run_id;
    held.reached().await;
    let joins = steer(&talk, "be quick").await;
    held.open();
    assert!(!server.exited().await.success());

    let mut command = iris_with(dir.path(), &provider);
    command.env("IRIS_RESUME", "auto");
    let server = ServerProcess::start(command).await;
    let mut again = came_back(&server, &talk).await;
    assert_eq!(updated(&mut again, &joins).await.after_step, Some(1));
    assert_eq!(again.run_ended(&run).await, RunStatus::Interrupted);
    assert_eq!(again.run_ended(&run).await, RunStatus::Completed);
    let asked = provider.asked();
    assert_eq!(asked.len(), 2);
    let told = said(&asked[1].body);
    let quick: Vec<_> = told.iter().filter(|(_, text)| text.contains("be quick")).collect();
    assert_eq!(quick.len(), 1, "{told:?}");
    assert_eq!(told.last().unwrap().0, "user");
    let snapshot = again.person.snapshot(&again.project, &again.session).await;
    assert!(snapshot.queue.is_empty());
    assert_eq!(snapshot.messages.len(), 3);
}

#[tokio::test]
async fn what_a_message_interrupts_stays_cancelled_through_a_kill_and_it_is_answered() {
    let held = Gate::default();
    let reply = Reply::stream().bytes(chat::text("never ends")).wait(&held);
    let provider = FakeProvider::start([reply, chat::says("now")]).await;
    let dir = tempdir().unwrap();
    let mut command = iris_with(dir.path(), &provider);
    let armed = dir.path().join("armed");
    command.env("IRIS_CRASH_AT", "after_commit_before_fanout").env("IRIS_CRASH_WHEN", &armed);
    let server = ServerProcess::start(command).await;
    let mut talk = ann(&server).await.conversation().await;
    let first: RunId = talk.send_message("one").await.run_id;
    talk.wait_until("text", |e| matches!(e, Event::MessageTextDelta { .. })).await;
    std::fs::write(&armed, "").unwrap();
    // The answer may not come any more.
    drop(talk.try_send("two", Some(WhenBusy::Interrupt)).await);
    assert!(!server.exited().await.success());

    let server = ServerProcess::start(iris_with(dir.path(), &provider)).await;
    let mut again = came_back(&server, &talk).await;
    assert_eq!(again.run_ended(&first).await, RunStatus::Cancelled);
    let frame = again.wait_for("run.started").await;
    let Event::RunStarted { run } = frame.event else { panic!("{frame:?}") };
    assert_eq!(again.run_ended(&run.id).await, RunStatus::Completed);
    assert_eq!(text_of(&again.answer(&run.id).await), "now");
}
