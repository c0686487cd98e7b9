//! Much once more, with projects as far away as on another machine: whatever passes between connections and
//! projects is written and read as text, and answered on another thread.

use std::process::{Command, Stdio};

use iris_testkit::{AppOptions, REMOTE, moment, patiently, spawn_app_with, text_of};

/// Tests in which every operation crosses the hop, all that is told of rooms and runs comes back over it, and
/// connections end on one side of it.
const MEANT: &[&str] = &[
    "access::",
    "agents::",
    "departing::",
    "joining::",
    "messages::",
    "passivation::",
    "permissions::",
    "presence::",
    "questions::",
    "queueing::",
    "reading::",
    "repeating::",
    "rights::",
    "sessions::",
    "socket::",
    "sse::",
    "steering::",
    "streaming::",
    "subscribing::",
    "tasks::",
];

/// What waits for a reader is counted where its connection is, and not known beyond the hop.
const SKIPPED: &str = "joining::replays_for_one_who_does_not_read_take_little_memory";

/// What this very program prints when it is run with these arguments, to a successful end.
async fn run(arguments: &[&str]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(arguments).env(REMOTE, "1").stdin(Stdio::null());
    let ended = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let told = String::from_utf8(ended.stdout).unwrap();
    assert!(ended.status.success(), "{told}{}", String::from_utf8_lossy(&ended.stderr));
    told
}

#[tokio::test]
async fn what_crosses_it_works_when_projects_are_reached_over_a_remote_hop() {
    let listed = run(&["--list", "--format", "terse"]).await;
    let names = listed.lines().filter_map(|line| line.strip_suffix(": test"));
    let is_meant =
        |name: &&str| MEANT.iter().any(|module| name.contains(module)) && *name != SKIPPED;
    let meant = names.filter(is_meant).count();
    assert!(meant > 100, "{listed}");
    let arguments = [MEANT, &["--skip", SKIPPED]].concat();
    let told = run(&arguments).await;
    assert!(told.contains(&format!("{meant} passed; 0 failed; 0 ignored")), "{told}");
}

#[tokio::test]
async fn what_is_about_a_project_crosses_the_hop_and_nothing_else_does() {
    let app = spawn_app_with(AppOptions { remote: true, ..AppOptions::default() }).await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    assert_eq!(app.hop_texts(), 0);
    let session = ann.session(&project).await.id;
    // A question and its answer.
    assert_eq!(app.hop_texts(), 2);
    let mut talk = ann.join(&project, &session).await;
    assert_eq!(app.hop_texts(), 4);
    assert_eq!(text_of(&talk.ask("say far away").await), "far away");
    // A message, a snapshot and each event.
    let texts = app.hop_texts();
    assert!(texts >= 8 + talk.seen.len() as u64, "{texts}");
    // The owner is told that the connection ended: the session can leave its room.
    talk.socket.close().await;
    let path = format!("node/directory/project/{project}");
    let leaving = async {
        while app.supervision().observe(&path).await["rooms"]["subscribers"] != 0 {
            moment().await;
        }
    };
    patiently("an empty room", leaving).await;
}
