//! The thread dies that writes a database.

use iris_actors::supervision::faults::{Armed, Fault};
use iris_protocol::{ExitKind, MessageRole, ProjectGet, SupervisionKind, SupervisionRecord};
use iris_testkit::AppOptions;

use crate::aftermath::{mark, nothing_is_left, records_since};
use crate::bystander::Bystander;
use crate::player::{Player, project_path};
use crate::scenario::{delete_project, invite};
use crate::stage::Stage;
use crate::talk::{How, Talk};

/// Who fails while the writer dies, one caller at a time: the one whose command it took with it, and
/// the one over whose command the death is noticed.
const REFUSALS_MAX: usize = 2;

fn kills_writer(kind: &'static str, message: &str) -> Armed {
    Armed { kind, message: message.to_owned(), fault: Fault::KillWriter, times: 1 }
}

fn refusals(player: &Player<'_>, what: &str) -> usize {
    let attempts = player.attempts.borrow();
    attempts.iter().filter(|attempt| attempt.what == what && attempt.trouble.is_some()).count()
}

/// What became of an actor since the mark.
fn story(stage: &Stage, since: u64, path: &str) -> Vec<SupervisionRecord> {
    let records = records_since(&stage.app, since).into_iter();
    records.filter(|record| record.path == path).collect()
}

#[tokio::test]
async fn a_project_whose_writer_dies_is_opened_anew_and_keeps_all_that_was_acknowledged() {
    let stage = Stage::set(AppOptions::default()).await;
    let mut bystander = Bystander::join(&stage.friend).await;
    bystander.begin().await;
    let player = stage.player(&bystander.paths(), None);
    let project = player.project().await;
    let session = player.session(&project).await;
    invite(&player, &project).await;
    let mut talk = Talk::follow(&player, &project, session.clone());
    talk.run("before", "say one", How::Watch).await;
    let since = mark(&stage.app);
    let path = project_path(&project);
    let armed = kills_writer("project", "Write<AcceptMessage>");
    stage.app.supervision().faults().arm_under(&path, armed);
    talk.run("after", "say two", How::Watch).await;
    assert!((1..=REFUSALS_MAX).contains(&refusals(&player, "after")));

    let snapshot = stage.person.snapshot(&project, &session).await;
    let asked = snapshot.messages.iter().filter(|message| message.role == MessageRole::User);
    assert_eq!(asked.count(), 2, "each message once");
    let story = story(&stage, since, &path);
    let kinds: Vec<_> = story.iter().map(|record| (record.kind, record.reason)).collect();
    let error = (SupervisionKind::Stopped, Some(ExitKind::Error));
    assert_eq!(kinds, [error, (SupervisionKind::Started, None)], "{story:#?}");
    drop(talk);
    delete_project(&player, &project).await;
    bystander.check().await;
    nothing_is_left(&stage.app, &bystander.paths()).await;
}

#[tokio::test]
async fn a_root_whose_writer_dies_gets_another_and_nobody_with_a_project_notices() {
    let stage = Stage::set(AppOptions::default()).await;
    let mut bystander = Bystander::join(&stage.friend).await;
    bystander.begin().await;
    let player = stage.player(&bystander.paths(), None);
    let before = player.project().await;
    let since = mark(&stage.app);
    stage.app.supervision().faults().arm(kills_writer("root", "Write<CreateProject>"));
    let after = player.project().await;
    let refused = refusals(&player, "project.create");
    assert!((1..=REFUSALS_MAX).contains(&refused), "{refused}");
    for project in [&before, &after] {
        stage.person.client.call(Some(project), ProjectGet {}).await.unwrap();
        player.session(project).await;
    }
    let story = story(&stage, since, "node/root");
    let kinds: Vec<_> = story.iter().map(|record| (record.kind, record.reason)).collect();
    assert_eq!(kinds, [(SupervisionKind::Restarted, Some(ExitKind::Error))], "{story:#?}");
    assert!(story[0].error.as_ref().unwrap().contains("writer"), "{story:#?}");
    assert!(stage.app.client().health_ready().await.unwrap());
    bystander.check().await;
}
