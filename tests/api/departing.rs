//! What somebody has under way ends with their account or their membership: row A11 of the threat model.

use std::path::Path;

use iris_protocol::{
    ApprovalState, ErrorCode, Event, MemberRemove, ProjectId, QuestionState, Role, RunGet, RunId,
    RunStatus, SessionId, SessionState, TicketGrant, WhenBusy,
};
use iris_testkit::{
    Conversation, EventStream, PASSWORD, Person, TestApp, WireSocket, calls_of, moment, patiently,
    spawn_app,
};
use iris_workspace::content_hash;
use serde_json::{Value, json};

use crate::idempotency::with_key;
use crate::{code_of, refusal, rest_refusal};

const ENDLESS: &str = "delay 10\nchunks 10000 tick";
const WRITE: &str = "call write {\"path\": \"a.txt\", \"content\": \"1\"}\nstep\nsay {{result}}";
const ASK: &str = "call question {\"questions\": [{\"text\": \"Which?\"}]}\nstep\nsay {{result}}";

/// A line that sets a sub-agent to work.
fn task(script: &str, is_in_background: bool) -> String {
    let input = json!({ "description": "look", "agent": "general", "prompt": script,
        "background": is_in_background });
    format!("call task {input}\nstep\nsay {{{{result}}}}")
}

async fn ticket(person: &Person) -> String {
    let answer = person.post("/v1/auth/tickets", json!({})).await;
    answer.data::<TicketGrant>().unwrap().ticket
}

/// Files of which not all has come.
fn staged(app: &TestApp, project: &ProjectId) -> usize {
    let files = app.data_dir().join("projects").join(project.as_str()).join("files");
    count(&files.join(".iris-tmp-uploads"))
}

fn count(directory: &Path) -> usize {
    std::fs::read_dir(directory).map_or(0, Iterator::count)
}

/// A project of olga's with all that bob can have under way there.
struct Scene {
    app: TestApp,
    root: Person,
    olga: Person,
    bob: Person,
    project: ProjectId,
    /// His runs, with the sessions that they are in, as she hears them.
    runs: Vec<(Conversation, RunId)>,
    /// Where one of hers works, with two messages of his: one waits for its turn, the other to join.
    hers: Conversation,
    her_run: RunId,
    his_queued: Vec<RunId>,
    /// On which he sends a file.
    socket: WireSocket,
    tickets: [String; 2],
}

impl Scene {
    async fn new() -> Self {
        let app = spawn_app().await;
        let root = app.admin().await;
        let (olga, bob) = (app.user("olga").await, app.user("bob").await);
        let project = olga.project("p").await.id;
        olga.add_member(&project, &bob, Role::Member).await;
        let mut runs = Vec::new();
        for (script, comes) in [
            (WRITE.to_owned(), "tool.approval.required"),
            (ASK.to_owned(), "question.asked"),
            (ENDLESS.to_owned(), "message.text.delta"),
            (task(WRITE, false), "tool.approval.required"),
        ] {
            let mut his = bob.conversation_in(&project).await;
            let heard = olga.join(&project, &his.session).await;
            let run = his.send_message(&script).await.run_id;
            his.wait_for(comes).await;
            // His next message waits behind that.
            let behind = his.send_message("say behind").await.run_id;
            runs.push((heard, run));
            runs.push((olga.join(&project, &his.session).await, behind));
        }
        runs.push(in_background(&olga, &bob, &project).await);
        let mut hers = olga.conversation_in(&project).await;
        let her_run = hers.send_message(ENDLESS).await.run_id;
        hers.wait_for("message.text.delta").await;
        let his = bob.join(&project, &hers.session).await;
        let mut his_queued = Vec::new();
        for when_busy in [WhenBusy::Queue, WhenBusy::Steer] {
            let accepted = his.try_send("say his", Some(when_busy)).await.unwrap();
            his_queued.push(accepted.run_id);
        }
        let mut socket = bob.wire().await;
        let bytes = b"not all of it comes";
        let upload = json!({ "path": "a.bin", "size": bytes.len(), "sha256": content_hash(bytes) });
        socket.ask("1", "upload.begin", Some(project.as_str()), upload).await;
        assert_eq!(socket.response("1").await["success"], true);
        let tickets = [ticket(&bob).await, ticket(&bob).await];
        assert_eq!(staged(&app, &project), 1);
        Self { app, root, olga, bob, project, runs, hers, her_run, his_queued, socket, tickets }
    }

    fn member(&self) -> String {
        format!("/v1/projects/{}/members/{}", self.project, self.bob.id())
    }

    fn account(&self) -> String {
        format!("/v1/admin/users/{}", self.bob.id())
    }

    /// All that is his has ended, and nothing of hers.
    async fn all_ended(mut self, is_gone_from_server: bool) {
        for (heard, run) in &mut self.runs {
            assert_eq!(status_when_ended(heard, run).await, RunStatus::Cancelled);
        }
        let [queued, steering] = &self.his_queued[..] else { panic!("{:?}", self.his_queued) };
        assert_eq!(status_when_ended(&mut self.hers, queued).await, RunStatus::Cancelled);
        // What was to join her run joins nothing, and begins nothing after it.
        assert_eq!(*steering, self.her_run);
        let base = format!("/v1/projects/{}", self.project);
        let waiting = self.olga.get(&format!("{base}/approvals")).await;
        assert_eq!(waiting.json["data"], json!([]), "{waiting:?}");
        let sessions: Vec<SessionId> =
            self.runs.iter().map(|(heard, _)| heard.session.clone()).collect();
        let settled = async {
            for session in &sessions {
                // A sub-agent in the background may have woken the session, for nobody.
                while self.olga.snapshot(&self.project, session).await.session.state
                    != SessionState::Idle
                {
                    moment().await;
                }
            }
        };
        patiently("sessions without work", settled).await;
        for session in &sessions {
            let snapshot = self.olga.snapshot(&self.project, session).await;
            assert_eq!((snapshot.approvals.len(), snapshot.questions.len()), (0, 0));
        }
        assert_eq!(staged(&self.app, &self.project), 0);

        let now = self
            .hers
            .call(RunGet { session_id: self.hers.session.clone(), run_id: self.her_run.clone() });
        assert_eq!(now.await.unwrap().run.status, RunStatus::Running, "hers goes on");
        assert!(self.hers.cancel().await);
        assert_eq!(self.hers.run_ended(&self.her_run).await, RunStatus::Cancelled);
        let session = self.olga.snapshot(&self.project, &self.hers.session).await.session;
        assert_eq!(session.state, SessionState::Idle);

        let [for_socket, for_stream] = &self.tickets;
        let query = format!("?ticket={for_socket}");
        let opened = WireSocket::open_with(&self.app.url, &query, None, &[]).await;
        let path = format!("{base}/events?rooms=project:{}&ticket={for_stream}", self.project);
        let stream = EventStream::open(&self.app.url, &path, None, &[]).await;
        let code = stream.unwrap_err().code;
        if is_gone_from_server {
            assert_eq!(refusal(opened.map(drop)).code, ErrorCode::Unauthenticated);
            assert_eq!(code, ErrorCode::Unauthenticated);
            assert_eq!(self.socket.close_code().await, 4403);
        } else {
            assert!(opened.is_ok(), "his login goes on");
            assert_eq!(code, ErrorCode::NotFound);
            // The next byte of the file has no place any more.
            let again = json!({ "path": "a.bin", "size": 1, "sha256": content_hash(b"x") });
            self.socket.ask("2", "upload.begin", Some(self.project.as_str()), again).await;
            assert_eq!(self.socket.response("2").await["error"]["code"], "NOT_FOUND");
        }
    }
}

/// A sub-agent of bob's that works after the run that set it to work.
async fn in_background(olga: &Person, bob: &Person, project: &ProjectId) -> (Conversation, RunId) {
    let mut his = bob.conversation_in(project).await;
    let answer = his.ask(&task(ENDLESS, true)).await;
    let part = answer.parts.iter().find_map(|part| match part {
        iris_protocol::Part::Subtask(part) => Some(part.clone()),
        _ => None,
    });
    let part = part.unwrap();
    (olga.join(project, &part.child_session_id).await, part.child_run_id)
}

/// How a run ended, or ends soon.
async fn status_when_ended(heard: &mut Conversation, run: &RunId) -> RunStatus {
    let get = RunGet { session_id: heard.session.clone(), run_id: run.clone() };
    let status = heard.call(get).await.unwrap().run.status;
    match status {
        RunStatus::Queued | RunStatus::Running | RunStatus::Waiting => heard.run_ended(run).await,
        ended => ended,
    }
}

/// A11.
#[tokio::test]
async fn what_somebody_has_under_way_ends_when_their_account_is_closed() {
    let scene = Scene::new().await;
    let closed =
        scene.root.rest("PATCH", &scene.account(), Some(json!({ "disabled": true }))).await;
    assert!(closed.is_success(), "{closed:?}");
    scene.all_ended(true).await;
}

/// A11.
#[tokio::test]
async fn what_somebody_has_under_way_ends_when_their_account_is_deleted() {
    let scene = Scene::new().await;
    let deleted = scene.root.rest("DELETE", &scene.account(), None).await;
    assert!(deleted.is_success(), "{deleted:?}");
    scene.all_ended(true).await;
}

/// A11.
#[tokio::test]
async fn what_somebody_has_under_way_ends_when_they_are_removed_from_the_project() {
    let scene = Scene::new().await;
    assert!(scene.olga.rest("DELETE", &scene.member(), None).await.is_success());
    scene.all_ended(false).await;
}

/// A11.
#[tokio::test]
async fn what_somebody_has_under_way_ends_when_they_leave_the_project() {
    let scene = Scene::new().await;
    let leave = format!("/v1/projects/{}/leave", scene.project);
    assert!(scene.bob.post(&leave, json!({})).await.is_success());
    scene.all_ended(false).await;
}

/// What somebody waits for in one project says nothing of another.
#[tokio::test]
async fn who_is_removed_from_one_project_goes_on_in_the_others() {
    let app = spawn_app().await;
    let (olga, bob) = (app.user("olga").await, app.user("bob").await);
    let (left, kept) = (olga.project("left").await.id, olga.project("kept").await.id);
    for project in [&left, &kept] {
        olga.add_member(project, &bob, Role::Member).await;
    }
    let mut goes_on = bob.conversation_in(&kept).await;
    let run = goes_on.send_message(WRITE).await.run_id;
    let call = goes_on.approval().await.tool_call_id;
    let remove = MemberRemove { user_id: bob.id().clone() };
    olga.client.call(Some(&left), remove).await.unwrap();
    goes_on.approve(&call).await.unwrap();
    assert_eq!(goes_on.run_ended(&run).await, RunStatus::Completed);
}

/// A11: a login is not its user, whose work belongs to the server.
#[tokio::test]
async fn a_login_that_ends_ends_no_run() {
    let app = spawn_app().await;
    let (olga, bob) = (app.user("olga").await, app.user("bob").await);
    let project = olga.project("p").await.id;
    olga.add_member(&project, &bob, Role::Member).await;
    let mut runs = Vec::new();
    for _ in 0..2 {
        let mut hers = olga.join(&project, &bob.session(&project).await.id).await;
        let his = bob.join(&project, &hers.session).await;
        let run = his.send_message(WRITE).await.run_id;
        let call = hers.approval().await.tool_call_id;
        runs.push((hers, run, call));
    }
    let change = json!({ "currentPassword": PASSWORD, "newPassword": "another battery staple" });
    assert!(bob.rest("PUT", "/v1/auth/password", Some(change)).await.is_success());
    assert_eq!(rest_refusal(&bob.get("/v1/me").await).code, ErrorCode::Unauthenticated);
    for (mut hers, run, call) in runs {
        hers.approve(&call).await.unwrap();
        assert_eq!(hers.run_ended(&run).await, RunStatus::Completed);
    }
}

/// What ends so says so to everybody who looks at it.
#[tokio::test]
async fn everybody_hears_that_what_waited_for_them_does_so_no_more() {
    let app = spawn_app().await;
    let (olga, bob) = (app.user("olga").await, app.user("bob").await);
    let project = olga.project("p").await.id;
    olga.add_member(&project, &bob, Role::Member).await;
    let mut asks = olga.join(&project, &bob.session(&project).await.id).await;
    let his = bob.join(&project, &asks.session).await;
    let run = his.send_message(WRITE).await.run_id;
    let call = asks.approval().await.tool_call_id;
    let mut wants = olga.join(&project, &bob.session(&project).await.id).await;
    bob.join(&project, &wants.session).await.send_message(ASK).await;
    let question = wants.question().await.id;
    olga.client.call(Some(&project), MemberRemove { user_id: bob.id().clone() }).await.unwrap();
    let is_end = |event: &Event| matches!(event, Event::ToolApprovalResolved { state, .. } if *state == ApprovalState::Cancelled);
    asks.wait_until("the end of the approval", is_end).await;
    assert_eq!(asks.run_ended(&run).await, RunStatus::Cancelled);
    assert_eq!(calls_of(&asks.answer(&run).await)[0].tool_call_id, call);
    let late = refusal(asks.approve(&call).await);
    assert_eq!(late.code, ErrorCode::Gone, "{late}");
    let is_end = |event: &Event| match event {
        Event::QuestionResolved { question_id, state, .. } => {
            *question_id == question && *state == QuestionState::Cancelled
        }
        _ => false,
    };
    wants.wait_until("the end of the question", is_end).await;
}

/// Closed while the server was about to begin again: nothing of it is taken up.
#[tokio::test]
async fn what_a_crash_left_of_somebody_whose_account_is_closed_is_not_taken_up() {
    let app = spawn_app().await;
    let (olga, bob) = (app.user("olga").await, app.user("bob").await);
    let project = olga.project("p").await.id;
    olga.add_member(&project, &bob, Role::Member).await;
    let mut his = bob.conversation_in(&project).await;
    let run = his.send_message(WRITE).await.run_id;
    his.approval().await;
    let queued = his.send_message("say behind").await.run_id;
    let (root, id) = (app.data_dir().join("root.db"), bob.id().to_string());
    let app = app
        .restart_after(|| {
            let root = rusqlite::Connection::open(root).unwrap();
            root.execute("UPDATE users SET disabled = 1 WHERE id = ?1", [id]).unwrap();
        })
        .await;
    let mut hers = app.again(&olga).join(&project, &his.session).await;
    for run in [run, queued] {
        assert_eq!(status_when_ended(&mut hers, &run).await, RunStatus::Failed);
        let get = RunGet { session_id: hers.session.clone(), run_id: run };
        let error = hers.call(get).await.unwrap().run.error.unwrap();
        assert_eq!(code_of(&error), (ErrorCode::Forbidden, "starter_lost_access"));
    }
    let login = app.client().login("bob@example.com", PASSWORD).await;
    assert_eq!(refusal(login).code, ErrorCode::Unauthenticated);
    let me: Value = app.again(&bob).get("/v1/me").await.json;
    assert_eq!(me["error"]["code"], "UNAUTHENTICATED", "{me}");
    assert_eq!(
        rest_refusal(&app.again(&bob).get(&format!("/v1/projects/{project}")).await).code,
        ErrorCode::Unauthenticated
    );
}

/// The answer to a disabling may be lost, and somebody else let them in again before it is asked for anew.
#[tokio::test]
async fn a_disabling_that_is_repeated_ends_nothing_of_who_was_let_in_again() {
    let app = spawn_app().await;
    let (root, bob) = (app.admin().await, app.user("bob").await);
    let path = format!("/v1/admin/users/{}", bob.id());
    let disable = async || with_key(&root, "PATCH", &path, r#"{"disabled":true}"#).await;
    assert!(disable().await.is_success());
    assert!(root.rest("PATCH", &path, Some(json!({ "disabled": false }))).await.is_success());
    let bob =
        Person::new(app.client(), app.client().login("bob@example.com", PASSWORD).await.unwrap());
    let mut talk = bob.conversation().await;
    let run = talk.send_message("delay 10\nchunks 50 tick").await.run_id;
    talk.wait_for("message.text.delta").await;
    let again = disable().await;
    assert_eq!(again.headers["idempotent-replay"], "true");
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
}
