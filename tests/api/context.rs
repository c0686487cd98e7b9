//! Long conversations: outputs that are left out, summaries in place of what came before, and what a model is
//! told besides.

use iris_protocol::{
    CompactionPart, ErrorCode, Event, FinishReason, Message, Part, ProjectUpdate, RunId, RunStatus,
    SessionCompact, SessionState,
};
use iris_testkit::{
    AppOptions, Conversation, FakeProvider, Gate, Reply, TestApp, calls_of, chat, spawn_app,
    spawn_app_with, text_of,
};
use serde_json::{Value, json};

use crate::usage::set_price;
use crate::{code_of, refusal};

/// A server whose provider's models take that many tokens, as far as it knows.
async fn with(window: Option<u32>, replies: Vec<Reply>) -> (TestApp, Conversation, FakeProvider) {
    let provider = FakeProvider::start(replies).await;
    let mut options = AppOptions::with_provider(provider.base_url());
    options.providers.get_mut("fake").unwrap().context_tokens = window;
    let app = spawn_app_with(options).await;
    let talk = app.user("ann").await.conversation().await;
    (app, talk, provider)
}

fn overflow() -> Reply {
    Reply::status(400, r#"{"error":{"message":"too long","code":"context_length_exceeded"}}"#)
}

/// An end that says how long the question was.
fn counted(tokens: u64) -> String {
    let usage = json!({ "prompt_tokens": tokens, "completion_tokens": 2 });
    let usage = json!({ "id": "chat-1", "model": "m", "choices": [], "usage": usage });
    let end = json!({ "index": 0, "delta": {}, "finish_reason": "stop" });
    let end = json!({ "id": "chat-1", "model": "m", "choices": [end] });
    format!("data: {end}\n\ndata: {usage}\n\ndata: [DONE]\n\n")
}

fn says(text: &str, tokens: u64) -> Reply {
    Reply::stream().bytes(chat::text(text)).bytes(counted(tokens))
}

fn reads(path: &str, tokens: u64) -> Reply {
    let call = chat::call("call_1", "read", &json!({ "path": path }).to_string());
    Reply::stream().bytes(call).bytes(counted(tokens))
}

/// What the model was asked: system prompt and the rest.
fn asked(provider: &FakeProvider, index: usize) -> (String, Vec<Value>) {
    let body = provider.asked()[index].body.clone();
    let mut messages = body["messages"].as_array().unwrap().clone();
    let system = messages.remove(0)["content"].as_str().unwrap().to_owned();
    (system, messages)
}

fn contents(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["content"].as_str().unwrap_or("-")).collect()
}

fn summaries(message: &Message) -> Vec<&CompactionPart> {
    let parts = message.parts.iter().filter_map(|part| match part {
        Part::Compaction(part) => Some(part),
        _ => None,
    });
    parts.collect()
}

const LONG: &str = "something about the notes that takes many words to say. ";

fn long() -> String {
    LONG.repeat(200)
}

#[tokio::test]
async fn a_conversation_that_a_model_refuses_as_too_long_goes_on_with_a_summary() {
    let replies = vec![
        chat::says("I see."),
        overflow(),
        says("They spoke of notes.", 100),
        chat::says("Here they are."),
        chat::says("As I said."),
    ];
    let (_app, mut ann, provider) = with(None, replies).await;
    ann.ask(&long()).await;
    let run = ann.send_message("where are they?").await.run_id;
    let Event::SessionCompacted { part, message_id, .. } =
        ann.wait_for("session.compacted").await.event
    else {
        panic!("no summary");
    };
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
    let answer = ann.answer(&run).await;
    assert_eq!((&answer.id, text_of(&answer).as_str()), (&message_id, "Here they are."));
    assert_eq!(summaries(&answer), [&part]);
    assert_eq!((part.summary.as_str(), part.replaced), ("They spoke of notes.", 2));
    assert!(part.tokens_after < part.tokens_before, "{part:?}");
    // It counts as a step and in usage.
    let request = iris_protocol::RunGet { session_id: ann.session.clone(), run_id: run };
    let ended = ann.call(request).await.unwrap().run;
    assert_eq!((ended.steps, ended.usage.input_tokens), (2, 103));

    let (system, messages) = asked(&provider, 2);
    assert!(system.starts_with("You write the summary"), "{system}");
    let [transcript] = contents(&messages)[..] else { panic!("{messages:?}") };
    for said in [LONG, "[assistant]\nI see.", "[the request in progress", "where are they?"] {
        assert!(transcript.contains(said), "{said}: {transcript}");
    }
    assert!(provider.asked()[2].body.get("tools").is_none());
    let (_, messages) = asked(&provider, 3);
    let [summary, question] = contents(&messages)[..] else { panic!("{messages:?}") };
    assert!(summary.ends_with("]\n\nThey spoke of notes."), "{summary}");
    assert_eq!(question, "where are they?");

    // The messages stay, and the next question begins as the last one did.
    let snapshot = ann.person.snapshot(&ann.project, &ann.session).await;
    assert_eq!(text_of(&snapshot.messages[0]), long());
    ann.ask("and again?").await;
    let (_, next) = asked(&provider, 4);
    assert_eq!(next[..2], messages[..]);
    assert_eq!(contents(&next)[2..], ["Here they are.", "and again?"]);
}

#[tokio::test]
async fn a_conversation_is_made_shorter_before_a_known_window_is_full() {
    let replies =
        vec![says("one", 9_000), says("They spoke.", 9), says("two", 9), says("three", 9)];
    let (_app, mut ann, provider) = with(Some(8_000), replies).await;
    let question = LONG.repeat(500);
    ann.ask(&question).await;
    assert_eq!(provider.asked().len(), 1, "nothing can be made shorter before the first answer");
    let answer = ann.ask("and?").await;
    assert_eq!(text_of(&answer), "two");
    let [part] = summaries(&answer)[..] else { panic!("{answer:?}") };
    assert_eq!(part.replaced, 2);
    let (_, messages) = asked(&provider, 2);
    assert!(contents(&messages)[0].ends_with("They spoke."), "{messages:?}");
    assert_eq!(summaries(&ann.ask("more?").await).len(), 0);
}

#[tokio::test]
async fn a_summary_is_made_once_a_step_and_a_conversation_that_stays_too_long_fails() {
    let replies = vec![chat::says("I see."), overflow(), chat::says("They spoke."), overflow()];
    let (_app, mut ann, provider) = with(None, replies).await;
    ann.ask(&long()).await;
    let answer = ann.ask("and?").await;
    let error = answer.error.clone().unwrap();
    assert_eq!(code_of(&error), (ErrorCode::ProviderError, "context_overflow"));
    assert!(error.message.contains("begin a new session") && !error.retryable, "{error:?}");
    assert_eq!((provider.asked().len(), summaries(&answer).len()), (4, 1));
}

#[tokio::test]
async fn a_summary_that_is_not_shorter_fails_and_changes_nothing() {
    let replies = vec![
        chat::says("I see."),
        overflow(),
        chat::says(&long().repeat(2)),
        chat::says("Still here."),
    ];
    let (_app, mut ann, provider) = with(None, replies).await;
    ann.ask(&long()).await;
    let answer = ann.ask("and?").await;
    let error = answer.error.clone().unwrap();
    assert_eq!(code_of(&error), (ErrorCode::ProviderError, "compaction_no_gain"));
    assert_eq!(summaries(&answer).len(), 0);
    ann.ask("well?").await;
    let (_, messages) = asked(&provider, 3);
    assert_eq!(contents(&messages), [&long(), "I see.", "and?", "well?"]);
}

#[tokio::test]
async fn nothing_but_a_question_that_is_too_long_has_no_summary() {
    let (_app, mut ann, provider) = with(None, vec![overflow()]).await;
    let error = ann.ask(&long()).await.error.unwrap();
    assert_eq!(code_of(&error), (ErrorCode::ProviderError, "nothing_to_compact"));
    assert_eq!(provider.asked().len(), 1);
}

#[tokio::test]
async fn a_question_for_a_summary_that_is_too_long_is_asked_again_with_less() {
    let replies = vec![
        chat::says("I see."),
        overflow(),
        overflow(),
        overflow(),
        chat::says("They spoke."),
        chat::says("Here."),
    ];
    let (_app, mut ann, provider) = with(None, replies).await;
    ann.ask(&long()).await;
    assert_eq!(text_of(&ann.ask("and?").await), "Here.");
    let lengths: Vec<usize> =
        (2..5).map(|index| contents(&asked(&provider, index).1)[0].len()).collect();
    assert!(lengths[0] > lengths[1] && lengths[1] >= lengths[2], "{lengths:?}");
}

#[tokio::test]
async fn outputs_of_old_calls_are_left_out_first_and_stay_left_out() {
    let replies = vec![
        reads("a.txt", 3_000),
        says("read a", 5_000),
        reads("b.txt", 5_100),
        says("read b", 7_000),
        says("still here", 4_000),
    ];
    let (_app, mut ann, provider) = with(Some(9_000), replies).await;
    for name in ["a.txt", "b.txt"] {
        let content = format!("{name}: {}\n", "word ".repeat(20)).repeat(80);
        ann.person.client.file_put(&ann.project, name, content).await.unwrap();
    }
    let answer = ann.ask("read a").await;
    assert!(calls_of(&answer)[0].output.as_ref().unwrap().contains("a.txt: word"));
    let answer = ann.ask("read b").await;
    assert_eq!(summaries(&answer).len(), 0);
    let output = |index: usize, at: usize| {
        asked(&provider, index).1[at]["content"].as_str().unwrap().to_owned()
    };
    assert!(output(2, 2).contains("a.txt: word"));
    assert!(output(3, 2).starts_with("[this output was left out"), "{}", output(3, 2));
    assert!(output(3, 6).contains("b.txt: word"));
    ann.ask("well?").await;
    assert!(output(4, 2).starts_with("[this output was left out"));
    assert!(output(4, 6).contains("b.txt: word"));
    // For people it is there.
    let snapshot = ann.person.snapshot(&ann.project, &ann.session).await;
    let read = calls_of(&snapshot.messages[1])[0].output.clone().unwrap();
    assert!(read.contains("a.txt: word"));
}

/// A session with something to make a summary of.
async fn with_talk(replies: Vec<Reply>) -> (TestApp, Conversation, FakeProvider) {
    let replies = std::iter::once(chat::says("I see.")).chain(replies);
    let (app, mut ann, provider) = with(None, replies.collect()).await;
    ann.ask(&long()).await;
    (app, ann, provider)
}

async fn compact(ann: &Conversation) -> RunId {
    let request = SessionCompact { session_id: ann.session.clone() };
    let run = ann.call(request).await.unwrap().run;
    assert!(run.compacts);
    run.id
}

#[tokio::test]
async fn no_summary_is_made_where_a_budget_is_used_up() {
    let (_app, mut ann, provider) = with_talk(vec![says("They spoke.", 50)]).await;
    let before = provider.asked().len();
    let settings = json!({ "budgets": { "session": { "steps": 1 } } }).as_object().cloned();
    ann.call(ProjectUpdate { name: None, description: None, settings }).await.unwrap();
    let run = compact(&ann).await;
    assert_eq!(ann.run_ended(&run).await, RunStatus::Failed);
    let answer = ann.answer(&run).await;
    assert_eq!(answer.finish_reason, Some(FinishReason::Budget));
    assert_eq!(answer.error.unwrap().code, ErrorCode::BudgetExceeded);
    assert_eq!(provider.asked().len(), before);
}

#[tokio::test]
async fn no_summary_is_made_by_a_model_whose_price_nobody_knows_where_money_is_limited() {
    let (app, mut ann, provider) = with_talk(vec![says("They spoke.", 50)]).await;
    set_price(&app.admin().await, ("fake", "model"), 1_000, 1_000).await;
    let agent =
        json!({ "name": "compaction", "model": { "providerId": "fake", "modelId": "dear" } });
    let path = format!("/v1/projects/{}/agents", ann.project);
    let made = ann.person.rest("POST", &path, Some(agent)).await;
    assert_eq!(made.status, 201, "{made:?}");
    let before = provider.asked().len();
    let settings = json!({ "budgets": { "session": { "costNanoUsd": 1_000_000_000 } } });
    let settings = settings.as_object().cloned();
    ann.call(ProjectUpdate { name: None, description: None, settings }).await.unwrap();
    let run = compact(&ann).await;
    assert_eq!(ann.run_ended(&run).await, RunStatus::Failed);
    let error = ann.answer(&run).await.error.unwrap();
    assert_eq!(code_of(&error), (ErrorCode::BudgetExceeded, "price_unknown"));
    assert_eq!(provider.asked().len(), before);
}

#[tokio::test]
async fn people_have_a_conversation_replaced_by_a_summary() {
    let (_app, mut ann, provider) =
        with_talk(vec![says("They spoke.", 50), chat::says("Yes.")]).await;
    let run = compact(&ann).await;
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
    let answer = ann.answer(&run).await;
    assert_eq!(summaries(&answer)[0].replaced, 2);
    assert_eq!((answer.finish_reason, text_of(&answer).as_str()), (Some(FinishReason::Stop), ""));
    let request = SessionCompact { session_id: ann.session.clone() };
    let error = refusal(ann.call(request).await);
    assert_eq!(code_of(&error), (ErrorCode::Conflict, "nothing_to_compact"));
    assert_eq!(text_of(&ann.ask("still there?").await), "Yes.");
    let (_, messages) = asked(&provider, 2);
    assert_eq!(contents(&messages).len(), 2);
    assert!(contents(&messages)[0].ends_with("They spoke."), "{messages:?}");
    // Over REST, with a key.
    let path = format!("/v1/projects/{}/sessions/{}/compact", ann.project, ann.session);
    let reply = ann.person.post(&path, json!({})).await;
    assert_eq!((reply.status, &reply.json["data"]["compacts"]), (202, &json!(true)), "{reply:?}");
}

#[tokio::test]
async fn a_summary_that_is_being_made_is_cancelled_and_outlives_a_restart() {
    let gate = Gate::default();
    let slow = || Reply::stream().bytes(chat::text("They")).wait(&gate);
    let (app, mut ann, _provider) =
        with_talk(vec![slow(), slow(), chat::says("They spoke.")]).await;
    let run = compact(&ann).await;
    gate.reached().await;
    let error = refusal(ann.call(SessionCompact { session_id: ann.session.clone() }).await);
    assert_eq!(code_of(&error), (ErrorCode::Conflict, "session_busy"));
    assert!(ann.cancel().await);
    assert_eq!(ann.run_ended(&run).await, RunStatus::Cancelled);
    let run = compact(&ann).await;
    gate.reached().await;
    let app = app.restart().await;
    let mut ann = ann.resume(app.again(&ann.person)).await;
    assert_eq!(ann.run_ended(&run).await, RunStatus::Interrupted);
    let request = iris_protocol::RunResume { session_id: ann.session.clone(), run_id: run.clone() };
    ann.call(request).await.unwrap();
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
    assert_eq!(summaries(&ann.answer(&run).await).len(), 1);
    let session = ann.person.snapshot(&ann.project, &ann.session).await.session;
    assert_eq!(session.state, SessionState::Idle);
}

#[tokio::test]
async fn only_members_make_summaries_and_of_something() {
    let app = spawn_app().await;
    let ann = app.user("ann").await.conversation().await;
    let request = SessionCompact { session_id: ann.session.clone() };
    let error = refusal(ann.call(request.clone()).await);
    assert_eq!(code_of(&error), (ErrorCode::Conflict, "nothing_to_compact"));
    let bob = app.user("bob").await;
    let error = refusal(bob.client.call(Some(&ann.project), request).await);
    assert_eq!(error.code, ErrorCode::NotFound);
}

#[tokio::test]
async fn agents_are_told_where_they_work_in_the_same_words_at_each_step() {
    let replies = vec![reads("a.txt", 9), chat::says("ok"), chat::says("ok")];
    let (app, mut ann, provider) = with(None, replies).await;
    let files = app.data_dir().join("projects").join(ann.project.as_str()).join("files");
    std::fs::create_dir(files.join(".git")).unwrap();
    std::fs::write(files.join(".git/HEAD"), "ref: refs/heads/main\n").unwrap();
    ann.person.client.file_put(&ann.project, "a.txt", "text").await.unwrap();
    ann.ask("read it").await;
    let (first, _) = asked(&provider, 0);
    let (_, facts) = first.split_once("\n\n# Environment\n\n").unwrap();
    let platform = format!("- Platform: {} {}", std::env::consts::OS, std::env::consts::ARCH);
    for fact in [&platform, "- Date: 20", "- Commands: cannot be run", "- Git branch: `main`"] {
        assert!(facts.lines().any(|line| line.starts_with(fact)), "{fact}: {facts}");
    }
    let root = app.data_dir().to_str().unwrap();
    assert!(facts.contains("; paths are relative to it") && !facts.contains(root), "{facts}");
    assert_eq!(asked(&provider, 1).0, first, "another beginning");
    // Another run may find something else.
    std::fs::write(files.join(".git/HEAD"), "ref: refs/heads/other\n").unwrap();
    ann.ask("well?").await;
    assert!(asked(&provider, 2).0.contains("- Git branch: `other`"));
}

#[tokio::test]
async fn instructions_of_a_directory_are_told_with_the_first_call_there() {
    let lists = chat::call("call_1", "list", &json!({ "path": "." }).to_string());
    let lists = Reply::stream().bytes(lists).bytes(counted(9));
    let replies = vec![
        lists,
        reads("src/deep/a.txt", 9),
        reads("src/b.txt", 9),
        chat::says("ok"),
        reads("src/b.txt", 9),
        reads("src/secret/c.txt", 9),
        chat::says("ok"),
    ];
    let (_app, mut ann, provider) = with(None, replies).await;
    for (path, text) in [
        ("AGENTS.md", "At the top."),
        ("src/AGENTS.md", "Rhyme in here."),
        ("src/CLAUDE.md", "Not this one."),
        ("src/deep/CLAUDE.md", "Go deeper."),
        ("src/secret/AGENTS.md", "Not for agents."),
        ("src/deep/a.txt", "a"),
        ("src/b.txt", "b"),
        ("src/secret/c.txt", "c"),
    ] {
        ann.person.client.file_put(&ann.project, path, text).await.unwrap();
    }
    let rule = iris_protocol::PermissionCreate {
        session_id: None,
        permission: "read".to_owned(),
        pattern: "/src/secret/AGENTS.md".to_owned(),
        action: iris_protocol::PermissionAction::Ask,
    };
    ann.call(rule).await.unwrap();
    let answer = ann.ask("look").await;
    let outputs: Vec<String> =
        calls_of(&answer).into_iter().map(|call| call.output.clone().unwrap()).collect();
    assert!(!outputs[0].contains("Instructions of the project"), "{outputs:?}");
    let told = "\n\n[Instructions of the project for `src`: `src/AGENTS.md`]\nRhyme in here.\n\n\
                [Instructions of the project for `src/deep`: `src/deep/CLAUDE.md`]\nGo deeper.";
    assert!(outputs[1].ends_with(told), "{outputs:?}");
    assert!(!outputs[2].contains("Instructions"), "told twice: {outputs:?}");
    let (system, messages) = asked(&provider, 2);
    assert!(system.ends_with("At the top.") && !system.contains("Rhyme"), "{system}");
    assert!(contents(&messages)[4].ends_with(told));
    // Those that changed are told again; those that may not be read are not.
    ann.person.client.file_put(&ann.project, "src/AGENTS.md", "In prose.").await.unwrap();
    let answer = ann.ask("look again").await;
    let outputs: Vec<String> =
        calls_of(&answer).into_iter().map(|call| call.output.clone().unwrap()).collect();
    assert!(outputs[0].ends_with("`src/AGENTS.md`]\nIn prose."), "{outputs:?}");
    assert!(!outputs[1].contains("Instructions"), "{outputs:?}");
}
