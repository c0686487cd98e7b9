//! The supervision log: what became of the actors, also before the server started.

use futures_util::future::join_all;
use iris_actors::supervision::faults::{Armed, Fault};
use iris_actors::supervision::install_panic_hook;
use iris_protocol::{
    ErrorCode, SupervisionKind, SupervisionList, SupervisionPage, SupervisionRecord,
    limits::{SUPERVISION_RECORDS_DEFAULT, SUPERVISION_RECORDS_MAX},
};
use iris_testkit::{Person, patiently, spawn_app};
use serde_json::json;

use super::{project_path, session_path};
use crate::rest_refusal;

async fn list(root: &Person, request: SupervisionList) -> SupervisionPage {
    root.client.supervision(&request).await.unwrap()
}

fn ids(records: &[SupervisionRecord]) -> Vec<u64> {
    records.iter().map(|record| record.id).collect()
}

#[tokio::test]
async fn records_are_listed_by_position_kind_and_path() {
    let app = spawn_app().await;
    let root = app.admin().await;
    let mut ann = app.user("ann").await.conversation().await;
    let eve = app.user("eve").await.conversation().await;
    ann.ask("say hi").await;
    eve.send_message("say hi").await;
    let path = session_path(&ann.project, &ann.session);
    app.wait_for_actors("the ends of the runs", |actors| {
        actors.iter().all(|actor| actor.kind != "orchestrator")
    })
    .await;

    let all = list(&root, SupervisionList::default()).await;
    assert!(ids(&all.records).is_sorted() && !all.has_more && all.dropped == 0);
    let of_ann = SupervisionList { path: Some(path.clone()), ..Default::default() };
    let records = list(&root, of_ann.clone()).await.records;
    let kinds: Vec<_> = records.iter().map(|r| (r.kind, r.actor_kind.as_str())).collect();
    assert_eq!(
        kinds,
        [
            (SupervisionKind::Started, "session"),
            (SupervisionKind::Started, "orchestrator"),
            (SupervisionKind::Stopped, "orchestrator"),
        ]
    );
    let request = SupervisionList { since: Some(records[0].id), ..of_ann.clone() };
    assert_eq!(list(&root, request).await.records, records[1..]);
    let request = SupervisionList { kind: Some(SupervisionKind::Stopped), ..of_ann.clone() };
    assert_eq!(list(&root, request).await.records, records[2..]);
    let request = SupervisionList { since: Some(records[2].id), ..of_ann };
    assert!(list(&root, request).await.records.is_empty());
    // A part of a name is not a parent.
    let part = Some(path[..path.len() - 1].to_owned());
    let request = SupervisionList { path: part, ..Default::default() };
    assert!(list(&root, request).await.records.is_empty());
}

#[tokio::test]
async fn without_a_position_the_newest_records_are_listed_with_one_all_page_by_page() {
    let app = spawn_app().await;
    let root = app.admin().await;
    let ann = app.user("ann").await.conversation().await;
    let all = list(&root, SupervisionList::default()).await.records;
    // The last page is not full.
    assert!(all.len() > 4 && all.len() % 4 != 0, "{all:?}");
    let newest = SupervisionList { limit: Some(2), ..Default::default() };
    let page = list(&root, newest).await;
    assert_eq!((&page.records[..], page.has_more), (&all[all.len() - 2..], false));

    let (mut found, mut since) = (Vec::new(), 0);
    loop {
        let request = SupervisionList { since: Some(since), limit: Some(4), ..Default::default() };
        let page = list(&root, request).await;
        assert!(page.records.len() <= 4);
        since = page.records.last().unwrap().id;
        found.extend(page.records);
        assert_eq!(page.has_more, found.len() < all.len());
        if !page.has_more {
            break;
        }
    }
    assert_eq!(found, all);
    drop(ann);
}

#[tokio::test]
async fn a_page_has_a_bounded_number_of_records() {
    let app = spawn_app().await;
    let root = app.admin().await;
    for limit in ["0", "1001", "-1", "many"] {
        let refused =
            rest_refusal(&root.get(&format!("/v1/admin/supervision?limit={limit}")).await);
        assert_eq!(refused.code, ErrorCode::InvalidRequest, "{limit}");
    }
    for wrong in ["kind=ended", "since=-1", "since=x"] {
        let refused = rest_refusal(&root.get(&format!("/v1/admin/supervision?{wrong}")).await);
        assert_eq!(refused.code, ErrorCode::InvalidRequest, "{wrong}");
    }
    // Each connection is two records.
    for _ in 0..SUPERVISION_RECORDS_MAX / 20 {
        drop(join_all((0..10).map(|_| root.wire())).await);
    }
    app.wait_for_actors("the end of all connections", |actors| {
        actors.iter().all(|actor| actor.kind != "connection")
    })
    .await;
    let request = SupervisionList { since: Some(0), ..Default::default() };
    let limit = Some(SUPERVISION_RECORDS_MAX);
    let page = list(&root, SupervisionList { limit, ..request.clone() }).await;
    assert_eq!((page.records.len(), page.has_more), (SUPERVISION_RECORDS_MAX, true));
    let since = page.records.last().map(|record| record.id);
    let rest = list(&root, SupervisionList { since, limit, ..request.clone() }).await;
    // Those of the actors that are always there.
    assert_eq!((rest.records.len(), rest.has_more), (4, false));
    let page = list(&root, request).await;
    assert_eq!((page.records.len(), page.has_more), (SUPERVISION_RECORDS_DEFAULT, true));
}

#[tokio::test]
async fn what_is_abnormal_is_known_after_a_restart_of_the_server() {
    let app = spawn_app().await;
    let root = app.admin().await;
    let ann = app.user("ann").await.conversation().await;
    let path = project_path(&ann.project);
    root.client.restart_actor(&path).await.unwrap();
    app.wait_for_actors("the restart", |actors| {
        actors.iter().any(|actor| actor.path == path && actor.restarts == 1)
    })
    .await;
    let request = SupervisionList { path: Some(path.clone()), ..Default::default() };
    let before = list(&root, request.clone()).await.records;
    let kinds = |records: &[SupervisionRecord]| -> Vec<SupervisionKind> {
        records.iter().map(|record| record.kind).collect()
    };
    assert_eq!(kinds(&before), [SupervisionKind::Started, SupervisionKind::Restarted]);

    let app = app.restart().await;
    let root = app.again(&root);
    let after = list(&root, request.clone()).await.records;
    assert_eq!(after, before[1..]);
    // What happens now comes after what happened then.
    app.again(&ann.person).snapshot(&ann.project, &ann.session).await;
    let now = list(&root, request).await.records;
    assert_eq!(kinds(&now), [SupervisionKind::Restarted, SupervisionKind::Started]);
    assert_eq!(now[0], after[0]);
}

#[tokio::test]
async fn a_panic_bears_the_id_of_the_request_that_caused_it() {
    install_panic_hook();
    let app = spawn_app().await;
    let root = app.admin().await;
    let ann = app.user("ann").await.conversation().await;
    let message = "SendMessage".to_owned();
    let panic = Armed { kind: "session", message, fault: Fault::Panic, times: 1 };
    app.supervision().faults().arm(panic);
    let frame = json!({
        "id": "1", "type": "session.message.send", "projectId": ann.project,
        "payload": { "sessionId": ann.session, "content": "say hi" },
    });
    let headers = [("x-request-id", "id-of-the-test"), ("content-type", "application/json")];
    let (token, body) = (Some(ann.person.token()), frame.to_string().into());
    let answer = root.client.raw("POST", "/v1/commands", token, &headers, body).await.unwrap();
    assert_eq!(answer.json["error"]["code"], "OVERLOADED", "{answer:?}");
    assert_eq!(answer.json["error"]["requestId"], "id-of-the-test");
    assert!(answer.json["error"]["retryAfterMs"].as_u64().unwrap() > 0);

    let kind = Some(SupervisionKind::Panicked);
    let request = SupervisionList { kind, ..Default::default() };
    // Who asked may be told before it is written down.
    let record = patiently("the record of the panic", async {
        loop {
            if let Some(record) = list(&root, request.clone()).await.records.pop() {
                return record;
            }
        }
    });
    let record = record.await;
    assert_eq!(record.path, session_path(&ann.project, &ann.session));
    assert_eq!(record.message.as_deref(), Some("SendMessage"));
    assert_eq!(record.request_id.as_deref(), Some("id-of-the-test"));
    assert!(record.error.is_some() && record.location.unwrap().contains("faults.rs:"));
}
