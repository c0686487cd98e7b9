//! Recording what a session asks model providers: by whom, of what, without secrets, for how long.

use std::sync::Arc;
use std::time::Duration;

use iris_actors::ContextSettings;
use iris_protocol::limits::{CAPTURE_BYTES_MIN, CAPTURE_KEPT_MS, CAPTURES_MAX};
use iris_protocol::{
    Capture, CaptureEnd, CaptureList, CaptureOutcome, CapturePage, CapturePurpose, CaptureRecord,
    CaptureStart, CaptureStop, CapturedExchange, ErrorCode, Event, Role, SessionDelete,
    SessionFork, SessionId,
};
use iris_testkit::{
    AppOptions, Conversation, FakeProvider, Gate, Reply, TestApp, TestClock, chat, moment,
    patiently, spawn_app, spawn_app_with,
};
use serde_json::{Value, json};

use crate::{code_of, refusal};

/// What the provider knows the server by.
const KEY: &str = "sk-canary0f1e2d3c4b5a69788796";
/// What a member told the project to hide.
const CHOSEN: &str = "ch0sen-by-ann-4f1c9a";

async fn with(
    replies: Vec<Reply>,
    change: impl FnOnce(&mut AppOptions),
) -> (TestApp, Conversation, FakeProvider) {
    let provider = FakeProvider::start(replies).await;
    let mut options = AppOptions::with_provider(provider.base_url());
    for settings in options.providers.values_mut() {
        settings.api_key = Some(iris_llm::ApiKey::new(KEY));
    }
    change(&mut options);
    let app = spawn_app_with(options).await;
    let ann = app.user("ann").await.conversation().await;
    (app, ann, provider)
}

fn start(session: &SessionId) -> CaptureStart {
    CaptureStart { session_id: session.clone(), minutes: None, expires_at: None, bytes_max: None }
}

async fn begin(talk: &Conversation) -> Capture {
    talk.call(start(&talk.session)).await.unwrap().capture
}

async fn page(talk: &Conversation) -> CapturePage {
    let session_id = talk.session.clone();
    talk.call(CaptureList { session_id, limit: None, cursor: None }).await.unwrap()
}

/// What is recorded, once there are that many records, oldest first.
async fn records(talk: &Conversation, count: usize) -> Vec<CaptureRecord> {
    let all = async {
        loop {
            let mut records = page(talk).await.records;
            if records.len() == count {
                records.reverse();
                return records;
            }
            moment().await;
        }
    };
    patiently("the records", all).await
}

async fn read(talk: &Conversation, record: &CaptureRecord) -> CapturedExchange {
    let (project, session) = (&talk.project, &talk.session);
    let path = format!("/v1/projects/{project}/sessions/{session}/capture/records/{}", record.id);
    serde_json::from_value(talk.person.get(&path).await.json["data"].take()).unwrap()
}

/// Tells the project a secret that is its own.
async fn hide(talk: &Conversation) {
    let http = json!({ "method": "GET", "url": "https://tool.example/", "secretHeaders": { "x-key": CHOSEN } });
    let tool = json!({ "name": "weather", "description": "d", "http": http, "parameters": { "type": "object" } });
    let made = talk.person.post(&format!("/v1/projects/{}/tools", talk.project), tool).await;
    assert_eq!(made.status, 201, "{made:?}");
}

#[tokio::test]
async fn requests_and_answers_are_recorded_with_their_times_and_without_secrets() {
    let gate = Gate::default();
    let (head, tail) = CHOSEN.split_at(10);
    let answer = Reply::stream()
        .header("set-cookie", "session=of-the-provider")
        .header("x-request-id", "req-of-provider")
        .bytes(chat::text(&format!("you said {CHOSEN}, ")))
        .wait(&gate)
        .bytes(chat::text(&format!("so {head}")))
        .bytes(chat::text(&format!("{tail} it is")))
        .bytes(chat::end("stop"));
    let (_app, mut ann, provider) = with(vec![chat::says("not recorded"), answer], |_| {}).await;
    hide(&ann).await;
    ann.ask("before").await;
    let capture = begin(&ann).await;
    assert_eq!((capture.records, capture.ended_at), (0, None));
    let run = ann.send_message(&format!("the word is {CHOSEN}")).await.run_id;
    gate.reached().await;
    gate.open();
    ann.run_ended(&run).await;
    let record = records(&ann, 1).await.remove(0);
    assert_eq!((record.status, record.outcome), (Some(200), CaptureOutcome::Complete));
    assert_eq!((record.purpose, &record.run_id), (CapturePurpose::Answer, &run));
    assert_eq!((record.number, record.attempt), (1, 1));
    assert_eq!(record.message_id, Some(ann.answer(&run).await.id));
    assert_eq!(record.session_id, ann.session);

    let found = read(&ann, &record).await;
    assert_eq!(found.record, record);
    assert_eq!(found.url, format!("{}/chat/completions", provider.base_url()));
    let sent: Value = serde_json::from_str(&found.request).unwrap();
    assert_eq!(sent["model"], provider.asked()[1].body["model"]);
    assert!(!found.request_truncated && !found.response_truncated);
    assert!(found.response.contains("data: [DONE]"), "{}", found.response);
    let bytes: u64 = found.chunks.iter().map(|chunk| chunk.bytes).sum();
    assert_eq!(bytes, record.response_bytes);
    assert!(found.chunks.len() >= 2 && found.chunks.is_sorted_by_key(|chunk| chunk.at_ms));
    assert_eq!(record.first_byte_ms, found.chunks.first().map(|chunk| chunk.at_ms));
    let names: Vec<&str> = found.response_headers.iter().map(|it| it.name.as_str()).collect();
    assert!(names.contains(&"x-request-id") && !names.contains(&"set-cookie"), "{names:?}");
    // Not what is secret, nor a piece of it, whether it was said or came back; nor who the server is.
    let shown = serde_json::to_string(&found).unwrap();
    for secret in [KEY, CHOSEN, head, tail, "of-the-provider", "uthorization"] {
        assert!(!shown.contains(secret), "`{secret}` is in {shown}");
    }
    assert!(found.response.contains("it is"), "{}", found.response);
}

#[tokio::test]
async fn every_attempt_is_a_record_of_its_own() {
    let busy = json!({ "error": { "message": format!("{KEY} asks too much") } }).to_string();
    let replies = vec![
        Reply::status(429, &busy).header("content-type", "application/json"),
        Reply::stream().bytes(chat::text("half")).cut(),
        chat::says("whole"),
    ];
    let (_app, mut ann, _provider) = with(replies, crate::wires::patient(3)).await;
    begin(&ann).await;
    ann.ask("go").await;
    let records = records(&ann, 3).await;
    let facts: Vec<_> = records.iter().map(|it| (it.attempt, it.status, it.outcome)).collect();
    let failed = CaptureOutcome::Failed;
    assert_eq!(
        facts,
        [(1, Some(429), failed), (2, Some(200), failed), (3, Some(200), CaptureOutcome::Complete)]
    );
    assert!(records[0].error.as_ref().unwrap().contains("asks too much"));
    let found = read(&ann, &records[0]).await;
    assert!(found.response.contains("asks too much") && !found.response.contains(KEY));
    assert!(read(&ann, &records[1]).await.response.contains("half"));
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_recorded_as_far_as_it_came() {
    let gate = Gate::default();
    let answer = Reply::stream().bytes(chat::text("half")).until_left(&gate);
    let (_app, mut ann, _provider) = with(vec![answer], |_| {}).await;
    begin(&ann).await;
    let run = ann.send_message("go").await.run_id;
    ann.wait_for("message.text.delta").await;
    ann.cancel().await;
    ann.run_ended(&run).await;
    let record = records(&ann, 1).await.remove(0);
    assert_eq!(record.outcome, CaptureOutcome::Abandoned);
    assert!(read(&ann, &record).await.response.contains("half"));
}

#[tokio::test]
async fn whoever_is_in_the_session_is_told_and_only_administrators_read() {
    let (app, mut ann, _provider) = with(vec![chat::says("hi"), chat::says("ho")], |_| {}).await;
    let bob = app.user("bob").await;
    ann.person.add_member(&ann.project, &bob, Role::Member).await;
    let mut bob = bob.join(&ann.project, &ann.session).await;
    begin(&ann).await;
    let Event::SessionCaptureStarted { session } =
        bob.wait_for("session.capture.started").await.event
    else {
        panic!()
    };
    let capturing = session.capturing.unwrap();
    assert_eq!((&capturing.by, &capturing.session_id), (ann.person.id(), &ann.session));
    let seen = bob.person.snapshot(&bob.project, &bob.session).await.session;
    assert_eq!(seen.capturing, Some(capturing));
    // Titles and other changes leave it.
    for refused in [
        bob.call(start(&bob.session)).await.map(drop),
        bob.call(CaptureList { session_id: bob.session.clone(), limit: None, cursor: None })
            .await
            .map(drop),
        bob.call(CaptureStop { session_id: bob.session.clone(), discard: None }).await.map(drop),
    ] {
        assert_eq!(refusal(refused).code, ErrorCode::Forbidden);
    }
    ann.ask("one").await;
    let record = records(&ann, 1).await.remove(0);
    let path = format!(
        "/v1/projects/{}/sessions/{}/capture/records/{}",
        ann.project, ann.session, record.id
    );
    assert_eq!(bob.person.get(&path).await.status, 403);
    read(&ann, &record).await;

    let stop = CaptureStop { session_id: ann.session.clone(), discard: None };
    assert!(ann.call(stop.clone()).await.unwrap().capture.ended_at.is_some());
    let Event::SessionCaptureEnded { session, reason } =
        bob.wait_for("session.capture.ended").await.event
    else {
        panic!()
    };
    assert_eq!((session.capturing, reason), (None, CaptureEnd::Stopped));
    ann.ask("two").await;
    assert_eq!(page(&ann).await.records.len(), 1);
    // Ended again, nothing is told; thrown away, nothing is left.
    let discard = CaptureStop { discard: Some(true), ..stop };
    assert_eq!(ann.call(discard.clone()).await.unwrap().capture.records, 0);
    assert_eq!(refusal(ann.call(discard).await).code, ErrorCode::NotFound);
    assert_eq!(ann.person.get(&path).await.status, 404);
    // Who did it stands in the audit, who read it too.
    let audit = app.admin().await.get("/v1/admin/audit?limit=200").await.json["data"].to_string();
    for action in ["session.capture.start", "session.capture.stop", "session.capture.read"] {
        assert!(audit.contains(action), "{action}");
    }
}

#[tokio::test]
async fn sub_agents_and_titles_are_recorded_with_the_session_above_and_forks_are_not() {
    let task = json!({ "description": "look", "prompt": "look around", "agent": "explore" });
    let replies =
        vec![chat::calls("task", &task.to_string()), chat::says("found it"), chat::says("heard")];
    let (_app, mut ann, _provider) = with(replies, |options| {
        options.context = ContextSettings { titles: false, ..options.context.clone() };
    })
    .await;
    begin(&ann).await;
    ann.ask("go").await;
    let records = records(&ann, 3).await;
    let child = &records[1].session_id;
    assert_ne!(child, &ann.session);
    assert_eq!((&records[0].session_id, &records[2].session_id), (&ann.session, &ann.session));
    let below = ann.person.snapshot(&ann.project, child).await.session;
    assert_eq!(below.capturing.unwrap().session_id, ann.session);
    let refused = refusal(ann.call(start(child)).await);
    assert_eq!(code_of(&refused), (ErrorCode::Conflict, "session_of_sub_agent"));
    let fork = SessionFork { session_id: ann.session.clone(), message_id: None, title: None };
    assert_eq!(ann.call(fork).await.unwrap().session.capturing, None);
    // With the session all of it goes.
    let stop = CaptureStop { session_id: ann.session.clone(), discard: None };
    ann.call(stop).await.unwrap();
    let below = ann.person.snapshot(&ann.project, child).await.session;
    assert_eq!(below.capturing, None);
    let delete = SessionDelete { session_id: ann.session.clone(), permanent: Some(true) };
    ann.call(delete).await.unwrap();
    let list = CaptureList { session_id: ann.session.clone(), limit: None, cursor: None };
    assert_eq!(refusal(ann.call(list).await).code, ErrorCode::NotFound);
}

#[tokio::test]
async fn a_capture_ends_by_itself_and_goes_on_through_a_restart() {
    let (app, mut ann, _provider) = with(vec![chat::says("one"), chat::says("two")], |_| {}).await;
    begin(&ann).await;
    ann.ask("one").await;
    records(&ann, 1).await;
    let app = app.restart().await;
    let mut ann = ann.resume(app.again(&ann.person)).await;
    assert_eq!(page(&ann).await.records.len(), 1);
    ann.ask("two").await;
    records(&ann, 2).await;
    let soon = app.node().services.clock.now_ms() + 300;
    let request = CaptureStart { expires_at: Some(soon), ..start(&ann.session) };
    let capture = ann.call(request).await.unwrap().capture;
    assert_eq!((capture.until, capture.records), (soon, 2));
    let ended = ann.wait_for("session.capture.ended").await;
    let Event::SessionCaptureEnded { reason, .. } = ended.event else { panic!() };
    assert_eq!((reason, ended.meta.by), (CaptureEnd::Expired, None));
    let page = page(&ann).await;
    assert_eq!((page.capture.ended_at.is_some(), page.records.len()), (true, 2));
}

#[tokio::test]
async fn records_are_kept_for_a_week() {
    let clock = Arc::new(TestClock::at(1_767_225_600_000));
    let known = clock.clone();
    let (app, mut ann, _provider) = with(vec![chat::says("one")], move |options| {
        options.clock = Some(known);
        options.access_token_lifetime = Some(Duration::from_hours(24 * 30));
    })
    .await;
    begin(&ann).await;
    ann.ask("one").await;
    records(&ann, 1).await;
    clock.advance(Duration::from_millis(CAPTURE_KEPT_MS) + Duration::from_mins(1));
    let app = app.restart().await;
    let talk = ann.resume(app.again(&ann.person)).await;
    let list = CaptureList { session_id: talk.session.clone(), limit: None, cursor: None };
    let gone = async {
        loop {
            match talk.call(list.clone()).await {
                Ok(page) if !page.records.is_empty() => moment().await,
                Ok(_) | Err(_) => return,
            }
        }
    };
    patiently("the records to go", gone).await;
}

#[tokio::test]
async fn the_oldest_make_room_and_too_many_captures_are_refused() {
    // Together with what is asked again, three of them are more than is kept.
    let long = chat::text(&"x".repeat(900_000));
    let says = || Reply::stream().bytes(long.clone()).bytes(long.clone()).bytes(chat::end("stop"));
    let replies = (0..3).map(|_| says()).collect();
    let (_app, mut ann, _provider) = with(replies, |_| {}).await;
    let request = CaptureStart { bytes_max: Some(CAPTURE_BYTES_MIN), ..start(&ann.session) };
    ann.call(request).await.unwrap();
    for _ in 0..3 {
        ann.ask("go").await;
    }
    let kept = async {
        loop {
            let page = page(&ann).await;
            if page.capture.records + page.capture.dropped == 3 {
                return page;
            }
            moment().await;
        }
    };
    let page = patiently("three records", kept).await;
    assert!(page.capture.dropped > 0 && page.capture.bytes <= CAPTURE_BYTES_MIN, "{page:?}");
    assert_eq!(page.records.len() as u64, page.capture.records);

    for (minutes, expires_at, bytes_max) in [
        (Some(0), None, None),
        (Some(1441), None, None),
        (Some(1), Some(1), None),
        (None, Some(1), None),
        (None, None, Some(CAPTURE_BYTES_MIN - 1)),
    ] {
        let session_id = ann.session.clone();
        let request = CaptureStart { session_id, minutes, expires_at, bytes_max };
        assert_eq!(refusal(ann.call(request).await).code, ErrorCode::InvalidRequest);
    }
    for _ in 1..CAPTURES_MAX {
        let other = ann.person.session(&ann.project).await.id;
        ann.call(start(&other)).await.unwrap();
    }
    let other = ann.person.session(&ann.project).await.id;
    let refused = refusal(ann.call(start(&other)).await);
    assert_eq!(code_of(&refused), (ErrorCode::QuotaExceeded, "captures_quota"));
    // One that is there lasts longer.
    begin(&ann).await;
}

#[tokio::test]
async fn archives_of_a_project_hold_no_records() {
    let (app, mut ann, _provider) = with(vec![chat::says("recorded-answer")], |_| {}).await;
    begin(&ann).await;
    ann.ask("go").await;
    records(&ann, 1).await;
    let project = &ann.project;
    let made = ann.person.post(&format!("/v1/projects/{project}/backup"), json!({})).await;
    let backup = made.json["data"]["id"].clone();
    let restore = json!({ "backupId": backup });
    let restored = ann.person.post(&format!("/v1/projects/{project}/restore"), restore).await;
    assert!(restored.is_success(), "{restored:?}");
    let session = ann.person.snapshot(project, &ann.session).await.session;
    assert_eq!(session.capturing, None);
    let path = format!("/v1/projects/{project}/sessions/{}/capture/records", ann.session);
    assert_eq!(ann.person.get(&path).await.status, 404);
    drop(app);
}

#[tokio::test]
async fn a_scripted_model_has_no_wire_to_record() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    begin(&ann).await;
    ann.ask("say hello").await;
    assert_eq!(page(&ann).await.records, []);
}
