//! A server that ends in the middle of a clone.

use iris_protocol::CloneState;
use iris_sandbox::{Sandbox, Tier};
use iris_store::CrashPoint;
use iris_testkit::{Person, ServerProcess};

use super::{Origin, clone, ended, from, open};
use crate::bash::sandbox;

#[tokio::test]
async fn a_clone_that_a_crash_cut_off_is_begun_anew_at_the_next_start() {
    let origin = Origin::new();
    if Sandbox::start(sandbox()).await.tier() < Tier::S3 {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let serve = |point: Option<CrashPoint>| {
        let mut command = crate::iris(&data);
        command.env("IRIS_PROJECT_ROOTS", origin.top());
        if let Some(uid) = sandbox().uid {
            command.env("IRIS_SANDBOX_UID", uid.to_string());
        }
        if let Some(point) = point {
            command.env("IRIS_CRASH_AT", point.as_str());
        }
        command
    };
    let server = ServerProcess::start(serve(Some(CrashPoint::CloneHalf))).await;
    open(dir.path());
    open(&data);
    let admin = crate::root(&server).await;
    let id = clone(&admin, from(origin.bare().display().to_string())).await.id;
    assert!(!server.exited().await.success(), "the server did not come to the middle");
    let place = data.join("projects").join(id.as_str());
    assert!(place.join("git/mirror.git").exists() && !place.join("files/a.txt").exists());
    // What lies around of the first time is not what the second begins with.
    std::fs::write(place.join("files/strange.txt"), "x").unwrap();

    let server = ServerProcess::start(serve(None)).await;
    let again = Person::new(&server.client(), admin.grant.clone());
    let found = ended(&again, &id).await;
    assert_eq!((found.state, found.error), (CloneState::Ready, None));
    assert_eq!(std::fs::read_to_string(place.join("files/a.txt")).unwrap(), "one\n");
    assert!(!place.join("files/strange.txt").exists());
    server.kill();
}
