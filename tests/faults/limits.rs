//! Actors that panic more often than their policy allows: who ends, who brings them back.

use iris_actors::supervision::Intensity;
use iris_actors::supervision::faults::{Armed, Fault, START};
use iris_protocol::{
    ErrorCode, ExitKind, ProjectCreate, ProjectType, RunStatus, SessionList, SupervisionKind,
    UserGet,
};
use iris_testkit::{AppOptions, TestApp, moment, patiently};

use crate::aftermath::{mark, records_since};
use crate::player::project_path;
use crate::scenario::invite;
use crate::stage::Stage;
use crate::talk::{How, Talk};

/// Every restart that is allowed, and the panic after the last.
const PANICS: usize = Intensity::DEFAULT.restarts_max + 1;

fn panics(kind: &'static str, message: &str) -> Armed {
    Armed { kind, message: message.to_owned(), fault: Fault::Panic, times: PANICS }
}

/// What became of an actor since the mark.
fn kinds_of(app: &TestApp, since: u64, path: &str) -> Vec<(SupervisionKind, Option<ExitKind>)> {
    let records = records_since(app, since).into_iter().filter(|record| record.path == path);
    records.map(|record| (record.kind, record.reason)).collect()
}

/// Waits until an actor has given up, after every restart that it may have.
async fn given_up(app: &TestApp, since: u64, path: &str) {
    let gave_up = (SupervisionKind::GaveUp, Some(ExitKind::RestartIntensity));
    let waiting = async {
        while !kinds_of(app, since, path).contains(&gave_up) {
            moment().await;
        }
    };
    patiently("an actor to give up", waiting).await;
    let told = kinds_of(app, since, path);
    let end = told.iter().position(|told| *told == gave_up).unwrap();
    let mut expected = vec![(SupervisionKind::Panicked, None)];
    for _ in 1..PANICS {
        expected.push((SupervisionKind::Restarted, Some(ExitKind::Panic)));
        expected.push((SupervisionKind::Panicked, None));
    }
    expected.push(gave_up);
    let began = told.iter().position(|told| told.0 == SupervisionKind::Panicked).unwrap();
    assert_eq!(told[began..=end], expected);
}

/// A project in which an actor panics more often than it may is usable at once after that.
async fn is_brought_back(kind: &'static str, message: &str) {
    let stage = Stage::set(AppOptions::default()).await;
    let since = mark(&stage.app);
    let player = stage.player(&[], Some(panics(kind, message)));
    let project = player.project().await;
    let session = player.session(&project).await;
    invite(&player, &project).await;
    let mut talk = Talk::follow(&player, &project, session.clone());
    talk.run("a run", "say hi", How::Watch).await;
    let registry = project_path(&project);
    let path = match kind {
        "project" => registry,
        _ => format!("{registry}/session/{session}"),
    };
    given_up(&stage.app, since, &path).await;
    assert!(stage.app.client().health_ready().await.unwrap());
}

#[tokio::test]
async fn a_project_that_gave_up_is_opened_anew_by_the_next_request() {
    tokio::join!(
        is_brought_back("project", START),
        is_brought_back("project", "Write<CreateSession>")
    );
}

#[tokio::test]
async fn a_session_that_gave_up_is_started_anew_by_the_next_message() {
    tokio::join!(is_brought_back("session", START), is_brought_back("session", "SendMessage"));
}

#[tokio::test]
async fn without_its_root_the_server_is_not_ready_and_says_why() {
    let stage = Stage::set(AppOptions::default()).await;
    let since = mark(&stage.app);
    stage.app.supervision().faults().arm(panics("root", "Write<CreateProject>"));
    let create = async || {
        let request = ProjectCreate {
            name: "p".to_owned(),
            description: None,
            r#type: ProjectType::Local,
            path: None,
            git: None,
        };
        let refused = stage.person.client.call(None, request).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::Overloaded, "{refused}");
    };
    for _ in 0..PANICS {
        create().await;
    }
    given_up(&stage.app, since, "node/root").await;
    assert!(!stage.app.client().health_ready().await.unwrap());
    // Nobody hangs, and what only reads goes on.
    create().await;
    stage.person.client.call(None, UserGet {}).await.unwrap();
}

#[tokio::test]
async fn without_its_directory_the_server_is_not_ready_and_projects_are_closed_to_the_end() {
    let stage = Stage::set(AppOptions::default()).await;
    let mut talk = stage.person.conversation().await;
    let run = talk.send_message("delay 10\nchunks 10000 tick").await.run_id;
    talk.wait_for("message.text.delta").await;
    let since = mark(&stage.app);
    stage.app.supervision().faults().arm(panics("directory", "OpenProject"));
    let list = async || {
        let request =
            SessionList { limit: None, cursor: None, include_archived: None, parent_id: None };
        let refused = talk.person.client.call(Some(&talk.project), request).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::Overloaded, "{refused}");
    };
    for _ in 0..PANICS {
        list().await;
    }
    given_up(&stage.app, since, "node/directory").await;
    assert!(!stage.app.client().health_ready().await.unwrap());
    list().await;
    // The projects went down with it; a server that starts again has everything.
    let supervision = stage.app.supervision();
    let gone = ["project", "session", "orchestrator"].map(|kind| supervision.count(kind));
    assert_eq!(gone, [0, 0, 0]);
    let (stopped, app) = stage.app.try_restart().await;
    assert!(stopped.is_err());
    let mut again = talk.resume(app.again(&talk.person)).await;
    assert_eq!(again.run_ended(&run).await, RunStatus::Interrupted);
}
