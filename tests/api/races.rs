//! What happens at the same time: rights that end while they are used, and how long a refusal takes.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use iris_protocol::{ErrorCode, Role};
use iris_testkit::{PASSWORD, Person, ServerProcess, patiently, spawn_app};
use serde_json::json;

use crate::{ann as register, iris, refusal, rest_refusal};

const ROUNDS: usize = 8;
const WRITERS: usize = 4;
/// All of them together are one page of the list.
const WRITES_MAX: usize = 50;

/// The titles of the sessions of a project.
async fn titles(person: &Person, sessions: &str) -> BTreeSet<String> {
    let listed = person.get(&format!("{sessions}?limit=200")).await.json;
    let listed = listed["data"].as_array().unwrap();
    listed.iter().map(|session| session["title"].as_str().unwrap().to_owned()).collect()
}

/// Writes until it is refused. Answers what was accepted; nothing is that was begun after the right had gone.
async fn write(
    person: &Person,
    sessions: &str,
    writer: usize,
    is_gone: &AtomicBool,
) -> Vec<String> {
    let mut accepted = Vec::new();
    for n in 0..WRITES_MAX {
        let title = format!("{writer}-{n}");
        let was_gone = is_gone.load(Ordering::SeqCst);
        let answer = person.post(sessions, json!({ "title": title })).await;
        if !answer.is_success() {
            let code = rest_refusal(&answer).code;
            assert!([ErrorCode::NotFound, ErrorCode::Forbidden].contains(&code), "{answer:?}");
            break;
        }
        assert!(!was_gone, "`{title}` was accepted after the right had gone");
        accepted.push(title);
    }
    accepted
}

/// T10: from the answer on, nothing is done for whoever lost the right, and what was accepted before is all there.
#[tokio::test]
async fn a_role_that_is_taken_away_while_its_owner_writes_is_gone_with_the_answer() {
    let app = spawn_app().await;
    let (ann, ben) = (app.user("ann").await, app.user("ben").await);
    for round in 0..ROUNDS {
        let project = ann.project("p").await.id;
        ann.add_member(&project, &ben, Role::Member).await;
        let sessions = format!("/v1/projects/{project}/sessions");
        let place = format!("/v1/projects/{project}/members/{}", ben.id());
        let is_gone = AtomicBool::new(false);
        let writes = (0..WRITERS).map(|writer| write(&ben, &sessions, writer, &is_gone));
        let taken = async {
            patiently("a first write", async { while titles(&ann, &sessions).await.is_empty() {} })
                .await;
            let answer = if round % 2 == 0 {
                ann.rest("DELETE", &place, None).await
            } else {
                ann.rest("PATCH", &place, Some(json!({ "role": "viewer" }))).await
            };
            assert!(answer.is_success(), "{answer:?}");
            is_gone.store(true, Ordering::SeqCst);
        };
        let (accepted, ()) = join(join_all(writes), taken).await;
        assert!(accepted.iter().any(|accepted| accepted.len() < WRITES_MAX), "nobody was refused");
        let accepted: BTreeSet<String> = accepted.into_iter().flatten().collect();
        assert_eq!(titles(&ann, &sessions).await, accepted, "round {round}");
    }
}

/// A1, roughly: whoever has no account waits for a hash all the same. How exactly is a figure
/// (`cargo bench -p iris --bench figures -- logins`), for a machine that does nothing else.
#[tokio::test]
async fn nobody_is_refused_as_slowly_as_who_mistypes_a_password() {
    const PAIRS: usize = 9;
    let dir = tempfile::tempdir().unwrap();
    let mut command = iris(dir.path());
    command.env("IRIS_LOGIN_FAILURES_PER_10_MINUTES", "0");
    let server = ServerProcess::start(command).await;
    let ann = register(&server).await;
    let client = server.client();
    let took = async |email: &str| {
        let started = Instant::now();
        let refused = refusal(client.login(email, "no such password").await);
        assert_eq!(refused.code, ErrorCode::Unauthenticated);
        started.elapsed()
    };
    let (mut wrong, mut nobody) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        wrong.push(took(&ann.grant.user.email).await);
        nobody.push(took("nobody@example.com").await);
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times[PAIRS / 2]
    };
    let (wrong, nobody) = (median(&mut wrong), median(&mut nobody));
    assert!(nobody * 2 > wrong && wrong * 2 > nobody, "{wrong:?} beside {nobody:?}");
    client.login(&ann.grant.user.email, PASSWORD).await.unwrap();
}
