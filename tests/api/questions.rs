//! What an agent asks the people of its session: answers, refusals, time, restarts.

use std::slice;
use std::sync::Arc;
use std::time::Duration;

use iris_client::Socket;
use iris_protocol::{
    ErrorCode, Event, PermissionAction, PermissionCreate, Question, QuestionList, QuestionState,
    Role, RunGet, RunStatus, SessionState, ToolState,
};
use iris_testkit::{
    AppOptions, Conversation, Person, TestApp, TestClock, calls_of, patiently, spawn_app,
    spawn_app_with, text_of,
};
use serde_json::{Value, json};

use crate::{code_of, refusal, rest_refusal};

/// A script that asks, and then says what it heard.
fn asking(questions: &Value) -> String {
    let input = json!({ "questions": questions });
    format!("call question {input}\nstep\nsay heard {{{{result}}}}")
}

fn which() -> String {
    asking(&json!([{ "text": "Which database?" }]))
}

/// Somebody whose agent asks which database, and what it asks.
async fn asked(app: &TestApp) -> (Conversation, iris_protocol::RunId, Question) {
    let mut ann = app.user("ann").await.conversation().await;
    let run = ann.send_message(&which()).await.run_id;
    let question = ann.question().await;
    (ann, run, question)
}

async fn member_of(app: &TestApp, ann: &Conversation, name: &str, role: Role) -> Person {
    let person = app.user(name).await;
    ann.person.add_member(&ann.project, &person, role).await;
    person
}

async fn next_named(socket: &mut Socket, name: &str) -> Event {
    let waiting = async {
        loop {
            let frame = socket.next_event().await.unwrap();
            if frame.event.name() == name {
                return frame.event;
            }
        }
    };
    patiently(name, waiting).await
}

fn answer_path(talk: &Conversation, question: &Question, what: &str) -> String {
    let (project, session, id) = (&talk.project, &talk.session, &question.id);
    format!("/v1/projects/{project}/sessions/{session}/questions/{id}/{what}")
}

#[tokio::test]
async fn an_answer_is_the_result_of_the_call_and_the_run_goes_on() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let mut project = ann.connect_to_project().await;
    let run = ann.send_message(&which()).await.run_id;
    let question = ann.question().await;
    assert_eq!(question.state, QuestionState::Pending);
    assert_eq!(question.questions[0].text, "Which database?");
    assert_eq!(question.expires_at - question.created_at, 600_000);
    let Event::QuestionAsked { question: short, message, .. } =
        next_named(&mut project, "question.asked").await
    else {
        panic!("another event")
    };
    assert_eq!((short, message.as_str()), (None, "Which database?"));
    let waits =
        |event: &Event| matches!(event, Event::SessionStatus { state: SessionState::Waiting, .. });
    ann.wait_until("session.status waiting", waits).await;
    let snapshot = ann.person.snapshot(&ann.project, &ann.session).await;
    assert_eq!(snapshot.questions, slice::from_ref(&question));
    assert_eq!(snapshot.approvals, []);

    let answered = ann.answer_question(&question.id, &[&["SQLite"]]).await.unwrap();
    assert_eq!(
        (answered.state, answered.by.as_ref()),
        (QuestionState::Answered, Some(ann.person.id()))
    );
    assert_eq!(answered.answers, Some(vec![vec!["SQLite".to_owned()]]));
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
    let answer = ann.answer(&run).await;
    let call = calls_of(&answer)[0];
    assert_eq!((call.state, call.started_at), (ToolState::Completed, None));
    assert_eq!(call.output.as_deref(), Some("Which database?\n- SQLite"));
    assert_eq!(text_of(&answer), "heard Which database?\n- SQLite");
    let resolved = ann.seen.iter().find_map(|frame| match &frame.event {
        Event::QuestionResolved { answers, state, .. } => Some((answers.clone(), *state)),
        _ => None,
    });
    assert_eq!(resolved, Some((answered.answers, QuestionState::Answered)));
    let notice = next_named(&mut project, "question.resolved").await;
    assert!(matches!(notice, Event::QuestionResolved { answers: None, .. }), "{notice:?}");
    let snapshot = ann.person.snapshot(&ann.project, &ann.session).await;
    assert_eq!(snapshot.questions, []);
}

#[tokio::test]
async fn several_questions_are_answered_together_over_rest() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let options = json!([{ "label": "red", "description": "loud" }, { "label": "blue" }]);
    let questions = json!([
        { "text": "Colours?", "options": options, "multiple": true },
        { "text": "Name?" },
        { "text": "Else?", "multiple": true },
    ]);
    let run = ann.send_message(&asking(&questions)).await.run_id;
    let question = ann.question().await;
    assert_eq!(question.questions[0].options[0].description.as_deref(), Some("loud"));
    let path = answer_path(&ann, &question, "answer");
    let wrong = [
        json!([["red"], ["x"]]),
        json!([["red"], [], []]),
        json!([["red"], ["x", "y"], []]),
        json!([["red"], [""], []]),
        json!([vec!["red"; 12], ["x"], []]),
        json!([["red"], ["x".repeat(32 * 1024)], []]),
    ];
    for answers in wrong {
        let refused = ann.person.post(&path, json!({ "answers": answers })).await;
        assert_eq!(
            code_of(&rest_refusal(&refused)),
            (ErrorCode::InvalidRequest, "invalid_answers")
        );
    }
    let answers = json!([["red", "green"], ["Iris"], []]);
    let answered = ann.person.post(&path, json!({ "answers": answers })).await;
    assert_eq!(answered.json["data"]["answers"], answers, "{answered:?}");
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
    let text = text_of(&ann.answer(&run).await);
    assert_eq!(text, "heard Colours?\n- red\n- green\n\nName?\n- Iris\n\nElse?\n- (none)");
}

#[tokio::test]
async fn a_refusal_is_told_to_the_model_with_its_reason() {
    let app = spawn_app().await;
    let (mut ann, run, question) = asked(&app).await;
    let path = answer_path(&ann, &question, "reject");
    let long = ann.person.post(&path, json!({ "reason": "x".repeat(4097) })).await;
    assert_eq!(rest_refusal(&long).code, ErrorCode::PayloadTooLarge);
    let rejected = ann.reject_question(&question.id, Some("decide yourself")).await.unwrap();
    assert_eq!(rejected.state, QuestionState::Rejected);
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
    let answer = ann.answer(&run).await;
    assert_eq!(calls_of(&answer)[0].state, ToolState::Denied);
    assert!(text_of(&answer).contains("refused to answer: decide yourself"), "{answer:?}");
}

#[tokio::test]
async fn nobody_answers_and_the_run_goes_on_by_itself() {
    let options =
        AppOptions { approval_timeout: Duration::from_millis(50), ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let (mut ann, run, question) = asked(&app).await;
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
    let answer = ann.answer(&run).await;
    assert!(text_of(&answer).contains("nobody answered in time"), "{answer:?}");
    let late = refusal(ann.answer_question(&question.id, &[&["SQLite"]]).await);
    assert_eq!(late.code, ErrorCode::Gone);
    let expired = Some(QuestionState::Expired);
    let list = QuestionList { session_id: None, state: expired, limit: None, cursor: None };
    let listed = ann.call(list).await.unwrap().questions;
    assert_eq!((listed.len(), &listed[0].id, &listed[0].by), (1, &question.id, &None));
}

#[tokio::test]
async fn a_cancelled_run_takes_its_question_with_it() {
    let app = spawn_app().await;
    let (mut ann, run, question) = asked(&app).await;
    assert!(ann.cancel().await);
    let resolved = ann.wait_for("question.resolved").await.event;
    assert!(matches!(resolved, Event::QuestionResolved { state: QuestionState::Cancelled, .. }));
    assert_eq!(ann.run_ended(&run).await, RunStatus::Cancelled);
    let late = refusal(ann.answer_question(&question.id, &[&["SQLite"]]).await);
    assert_eq!(late.code, ErrorCode::Gone);
}

#[tokio::test]
async fn the_first_of_two_people_answers_and_a_viewer_does_not() {
    let app = spawn_app().await;
    let (ann, _, question) = asked(&app).await;
    let viewer = member_of(&app, &ann, "vera", Role::Viewer).await;
    let vera = viewer.join(&ann.project, &ann.session).await;
    for refused in [
        vera.answer_question(&question.id, &[&["a"]]).await,
        vera.reject_question(&question.id, None).await,
    ] {
        assert_eq!(refusal(refused).code, ErrorCode::Forbidden);
    }
    let list = QuestionList { session_id: None, state: None, limit: None, cursor: None };
    assert_eq!(vera.call(list).await.unwrap().questions, slice::from_ref(&question));

    let bob = member_of(&app, &ann, "bob", Role::Member).await;
    let mut bob = bob.join(&ann.project, &ann.session).await;
    let (hers, his) = tokio::join!(
        ann.answer_question(&question.id, &[&["hers"]]),
        bob.answer_question(&question.id, &[&["his"]])
    );
    let (first, second) = if hers.is_ok() { (hers, his) } else { (his, hers) };
    let first = first.unwrap();
    assert_eq!(code_of(&refusal(second)), (ErrorCode::Conflict, "already_decided"));
    bob.wait_for("run.completed").await;
    let said = first.answers.unwrap()[0][0].clone();
    assert!(text_of(&bob.answer(&question.run_id).await).ends_with(&said));
    let late = refusal(bob.reject_question(&question.id, None).await);
    assert_eq!(code_of(&late), (ErrorCode::Conflict, "already_decided"));
}

#[tokio::test]
async fn a_question_waits_through_a_restart_and_its_answer_takes_the_run_up() {
    let app = spawn_app().await;
    let (ann, run, question) = asked(&app).await;
    let app = app.restart().await;
    let mut again = ann.resume(app.again(&ann.person)).await;
    let snapshot = again.person.snapshot(&again.project, &again.session).await;
    assert_eq!(snapshot.questions, slice::from_ref(&question));
    assert_eq!(snapshot.session.state, SessionState::Waiting);
    again.answer_question(&question.id, &[&["SQLite"]]).await.unwrap();
    assert_eq!(again.run_ended(&run).await, RunStatus::Completed);
    let text = text_of(&again.answer(&run).await);
    assert_eq!(text, "heard Which database?\n- SQLite");
}

#[tokio::test]
async fn a_question_whose_time_ended_while_the_server_was_down_expires_at_once() {
    let clock = Arc::new(TestClock::at(1_790_000_000_000));
    let options = AppOptions { clock: Some(clock.clone()), ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let (ann, run, _) = asked(&app).await;
    clock.advance(Duration::from_mins(11));
    let app = app.restart().await;
    let mut again = ann.resume(app.again(&ann.person)).await;
    assert_eq!(again.run_ended(&run).await, RunStatus::Completed);
    assert!(text_of(&again.answer(&run).await).contains("nobody answered in time"));
}

#[tokio::test]
async fn an_answer_after_its_time_is_gone_although_nobody_noticed_the_time() {
    let clock = Arc::new(TestClock::at(1_790_000_000_000));
    let options = AppOptions { clock: Some(clock.clone()), ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let (ann, _, question) = asked(&app).await;
    clock.advance(Duration::from_mins(11));
    let late = refusal(ann.answer_question(&question.id, &[&["SQLite"]]).await);
    assert_eq!(late.code, ErrorCode::Gone);
}

#[tokio::test]
async fn a_repeat_with_its_key_answers_the_first_answer() {
    let app = spawn_app().await;
    let (mut ann, run, question) = asked(&app).await;
    let path = answer_path(&ann, &question, "answer");
    let send = async |text: &str| {
        let headers = [("content-type", "application/json"), ("idempotency-key", "k")];
        let body = json!({ "answers": [[text]] }).to_string();
        let (client, token) = (&ann.person.client, Some(ann.person.token()));
        client.raw("POST", &path, token, &headers, body.into()).await.unwrap()
    };
    let first = send("SQLite").await;
    let second = send("SQLite").await;
    assert_eq!((first.status, second.status), (200, 200));
    assert_eq!(first.json["data"], second.json["data"]);
    assert_eq!(second.headers["idempotent-replay"], "true");
    assert_eq!(rest_refusal(&send("another").await).code, ErrorCode::IdempotencyConflict);
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
}

#[tokio::test]
async fn a_question_beside_a_call_that_needs_a_yes_waits_for_both() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let script = "call question {\"questions\": [{\"text\": \"Which?\"}]}\n\
                  call write {\"path\": \"a\", \"content\": \"1\"}\nstep\nsay done";
    let run = ann.send_message(script).await.run_id;
    let call = ann.approval().await.tool_call_id;
    let question = ann.question().await;
    ann.answer_question(&question.id, &[&["this"]]).await.unwrap();
    let snapshot = ann.person.snapshot(&ann.project, &ann.session).await;
    assert_eq!(snapshot.session.state, SessionState::Waiting);
    ann.approve(&call).await.unwrap();
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
    let states: Vec<_> = calls_of(&ann.answer(&run).await).iter().map(|call| call.state).collect();
    assert_eq!(states, [ToolState::Completed, ToolState::Completed]);
}

#[tokio::test]
async fn rules_can_deny_questions_and_to_ask_about_one_is_to_ask_it() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let rule = |action| PermissionCreate {
        session_id: Some(ann.session.clone()),
        permission: "question".to_owned(),
        pattern: "*".to_owned(),
        action,
    };
    let (ask, deny) = (rule(PermissionAction::Ask), rule(PermissionAction::Deny));
    ann.call(ask).await.unwrap();
    let run = ann.send_message(&which()).await.run_id;
    let question = ann.question().await;
    ann.answer_question(&question.id, &[&["a"]]).await.unwrap();
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
    ann.call(deny).await.unwrap();
    let answer = ann.ask(&which()).await;
    assert_eq!(calls_of(&answer)[0].state, ToolState::Denied);
}

#[tokio::test]
async fn what_is_no_question_is_refused_before_anybody_sees_it() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let wide = "ä".repeat(501);
    let question = json!({ "text": "a" });
    let options: Vec<_> = (0..11).map(|label| json!({ "label": label.to_string() })).collect();
    for questions in [
        json!([]),
        json!(vec![question; 9]),
        json!([{ "text": "x".repeat(1001) }]),
        // Few enough characters, and too many bytes.
        json!([{ "text": wide }]),
        json!([{ "text": "a", "options": [{ "label": "ä".repeat(101) }] }]),
        json!([{ "text": "a", "options": [{ "label": "b", "description": wide }] }]),
        json!([{ "text": "a", "options": options }]),
    ] {
        let answer = ann.ask(&asking(&questions)).await;
        assert_eq!(calls_of(&answer)[0].state, ToolState::Error, "{questions}");
    }
    assert!(!ann.names().contains(&"question.asked"));
}

#[tokio::test]
async fn who_lost_access_has_no_questions_answered_and_may_have_them_refused() {
    let app = spawn_app().await;
    let owner = app.user("olga").await;
    let project = owner.project("p").await.id;
    let bob = app.user("bob").await;
    owner.add_member(&project, &bob, Role::Member).await;
    let mut his = bob.conversation_in(&project).await;
    let run = his.send_message(&which()).await.run_id;
    let question = his.question().await;
    let mut hers = owner.join(&project, &his.session).await;
    let path = format!("/v1/projects/{project}/members/{}", bob.id());
    let viewer = owner.rest("PATCH", &path, Some(json!({ "role": "viewer" }))).await;
    assert!(viewer.is_success());
    let refused = refusal(hers.answer_question(&question.id, &[&["a"]]).await);
    assert_eq!(code_of(&refused), (ErrorCode::Forbidden, "starter_lost_access"));
    hers.reject_question(&question.id, None).await.unwrap();
    // The refusal is the result of the call, and the last thing that is done for him (INV-12).
    assert_eq!(hers.run_ended(&run).await, RunStatus::Failed);
    let ended = RunGet { session_id: hers.session.clone(), run_id: run.clone() };
    let error = hers.call(ended).await.unwrap().run.error.unwrap();
    assert_eq!(code_of(&error), (ErrorCode::Forbidden, "starter_lost_access"));
    assert_eq!(calls_of(&hers.answer(&run).await)[0].state, ToolState::Denied);
}

#[tokio::test]
async fn an_archived_project_takes_refusals_and_no_answers() {
    let app = spawn_app().await;
    let (mut ann, run, question) = asked(&app).await;
    let path = format!("/v1/projects/{}/archive", ann.project);
    assert!(ann.person.post(&path, json!({})).await.is_success());
    let refused = refusal(ann.answer_question(&question.id, &[&["a"]]).await);
    assert_eq!(code_of(&refused), (ErrorCode::Conflict, "project_archived"));
    ann.reject_question(&question.id, None).await.unwrap();
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
}

#[tokio::test]
async fn questions_are_listed_in_pages() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let mut other = ann.person.conversation_in(&ann.project).await;
    let mut ids = Vec::new();
    for talk in [&mut ann, &mut other] {
        talk.send_message(&which()).await;
        ids.push(talk.question().await.id);
    }
    let path = format!("/v1/projects/{}/questions", ann.project);
    let first = ann.person.get(&format!("{path}?limit=1")).await.json;
    assert_eq!(first["data"][0]["id"], json!(ids[1]));
    let cursor = first["meta"]["nextCursor"].as_str().unwrap();
    let second = ann.person.get(&format!("{path}?limit=1&cursor={cursor}")).await.json;
    assert_eq!(
        (&second["data"][0]["id"], &second["meta"]["hasMore"]),
        (&json!(ids[0]), &json!(false))
    );
    let of_one = ann.person.get(&format!("{path}?sessionId={}", ann.session)).await.json;
    assert_eq!(of_one["data"].as_array().unwrap().len(), 1);
    let nonsense = ann.person.get(&format!("{path}?cursor=x")).await;
    assert_eq!(rest_refusal(&nonsense).code, ErrorCode::InvalidRequest);
}
