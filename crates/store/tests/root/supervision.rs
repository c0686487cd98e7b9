//! The supervision log and the audit.

use std::collections::BTreeMap;

use iris_protocol::AuditRecord;
use iris_protocol::{ExitKind, SupervisionKind, SupervisionRecord};
use iris_store::root::{RecordAudit, RecordSupervision, SupervisionQuery};
use rusqlite::Connection;
use serde_json::json;

use crate::{NOW, Root, user_id};

/// No ids.
const NONE: [u64; 0] = [];

fn record(id: u64, kind: SupervisionKind, path: &str) -> SupervisionRecord {
    SupervisionRecord {
        id,
        at: NOW + i64::try_from(id).unwrap(),
        kind,
        path: path.to_owned(),
        actor_kind: "session".to_owned(),
        reason: None,
        error: None,
        location: None,
        message: None,
        request_id: None,
        counts: BTreeMap::new(),
    }
}

/// A record with every field filled.
fn whole(id: u64) -> SupervisionRecord {
    SupervisionRecord {
        reason: Some(ExitKind::RestartIntensity),
        error: Some("out of range".to_owned()),
        location: Some("actors/src/session.rs:1:2".to_owned()),
        message: Some("SendMessage".to_owned()),
        request_id: Some("req_1".to_owned()),
        counts: BTreeMap::from([("restarts".to_owned(), 5)]),
        ..record(id, SupervisionKind::GaveUp, "node/directory")
    }
}

fn keep_all(records: Vec<SupervisionRecord>) -> RecordSupervision {
    RecordSupervision { records, keep_max: 1000, keep_since: 0 }
}

fn newest(limit: usize) -> SupervisionQuery {
    SupervisionQuery { limit, ..SupervisionQuery::default() }
}

impl Root {
    async fn ids(&self, query: SupervisionQuery) -> Vec<u64> {
        let records = self.reader.supervision(query).await.unwrap();
        records.iter().map(|record| record.id).collect()
    }
}

#[tokio::test]
async fn every_kind_of_record_comes_back_whole_also_after_a_repeat() {
    let root = Root::new();
    let kinds = SupervisionKind::ALL.iter().zip(1..);
    let mut records: Vec<_> = kinds.map(|(kind, id)| record(id, *kind, "node/root")).collect();
    records.push(whole((1 << 53) - 1));
    root.run(keep_all(records.clone())).await.unwrap();
    let changed = records.iter().cloned().map(|record| SupervisionRecord { at: 0, ..record });
    root.run(keep_all(changed.collect())).await.unwrap();
    assert_eq!(root.reader.supervision(newest(100)).await.unwrap(), records);
}

#[tokio::test]
async fn a_page_is_the_newest_or_the_oldest_after_an_id_and_always_oldest_first() {
    let root = Root::new();
    let stuck = |id| record(id, SupervisionKind::Stuck, "node");
    root.run(keep_all((1..=5).map(stuck).collect())).await.unwrap();
    assert_eq!(root.ids(newest(2)).await, [4, 5]);
    let since = |id, limit| SupervisionQuery { since: Some(id), ..newest(limit) };
    assert_eq!(root.ids(since(2, 2)).await, [3, 4]);
    assert_eq!(root.ids(since(0, 9)).await, [1, 2, 3, 4, 5]);
    assert_eq!(root.ids(since(5, 9)).await, NONE);
    assert_eq!(root.ids(since(u64::MAX, usize::MAX)).await, NONE);
    assert_eq!(root.ids(newest(0)).await, NONE);
}

#[tokio::test]
async fn records_are_found_by_kind_and_by_an_actor_with_those_under_it() {
    use SupervisionKind::{Panicked, Restarted};
    let root = Root::new();
    let paths = ["node/a", "node/a/b", "node/a-b", "node/a0", "node/ab", "node", "node/a/c/d"];
    let records = paths.into_iter().zip(1..).flat_map(|(path, id)| {
        [record(2 * id, Panicked, path), record(2 * id + 1, Restarted, path)]
    });
    root.run(keep_all(records.collect())).await.unwrap();
    let query = |kind, path: &str, since| {
        let path = Some(path.to_owned());
        SupervisionQuery { since, kind, path, limit: 100 }
    };
    assert_eq!(root.ids(query(None, "node/a", None)).await, [2, 3, 4, 5, 14, 15]);
    assert_eq!(root.ids(query(Some(Panicked), "node/a", None)).await, [2, 4, 14]);
    assert_eq!(root.ids(query(Some(Panicked), "node/a", Some(2))).await, [4, 14]);
    assert_eq!(root.ids(query(Some(Restarted), "node", None)).await.len(), paths.len());
    assert_eq!(root.ids(query(None, "node/%", None)).await, NONE);
    assert_eq!(root.ids(query(None, "", None)).await, NONE);
    let panicked = SupervisionQuery { kind: Some(Panicked), ..newest(2) };
    assert_eq!(root.ids(panicked).await, [12, 14]);
}

#[tokio::test]
async fn what_is_too_much_or_too_old_is_forgotten() {
    let root = Root::new();
    let stuck = |id| record(id, SupervisionKind::Stuck, "node");
    let batch = |ids: std::ops::RangeInclusive<u64>, keep_max, keep_since| {
        let records = ids.map(stuck).collect();
        root.run(RecordSupervision { records, keep_max, keep_since })
    };
    batch(1..=4, 3, 0).await.unwrap();
    assert_eq!(root.ids(newest(9)).await, [2, 3, 4]);
    batch(5..=5, 3, NOW + 4).await.unwrap();
    assert_eq!(root.ids(newest(9)).await, [4, 5]);
    batch(6..=6, 0, 0).await.unwrap();
    assert_eq!(root.ids(newest(9)).await, NONE);
}

fn restart(target: &str) -> RecordAudit {
    RecordAudit {
        at: NOW,
        user_id: Some(user_id(1)),
        action: "admin.actor.restart".to_owned(),
        target: target.to_owned(),
        request_id: Some("req_1".to_owned()),
        details: json!({ "restarts": 1 }),
        ..RecordAudit::default()
    }
}

#[tokio::test]
async fn the_audit_keeps_what_was_done_newest_first() {
    let root = Root::new();
    for target in ["node/root", "node/directory", "node/x"] {
        root.run(restart(target)).await.unwrap();
    }
    let newest = root.reader.audit(2).await.unwrap();
    let expected = |record: &AuditRecord, target: &str| {
        let RecordAudit { at, user_id, action, target, request_id, details, .. } = restart(target);
        let (result, hash) = ("done".to_owned(), record.hash.clone());
        let (credential, ip, project_id) = (None, None, None);
        AuditRecord {
            id: record.id,
            at,
            user_id,
            credential,
            ip,
            action,
            target,
            project_id,
            result,
            request_id,
            details,
            hash,
        }
    };
    assert_eq!(newest.iter().map(|record| record.id).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(newest[0], expected(&newest[0], "node/x"));
    assert_eq!(newest[1], expected(&newest[1], "node/directory"));
    assert_eq!(root.reader.audit(usize::MAX).await.unwrap().len(), 3);
}

#[tokio::test]
async fn nothing_in_the_audit_is_changed_or_taken_away() {
    let root = Root::new();
    root.run(restart("node/root")).await.unwrap();
    let conn = Connection::open(root.path()).unwrap();
    for sql in ["UPDATE audit SET target = 'x'", "DELETE FROM audit"] {
        let refused = conn.execute(sql, []).unwrap_err();
        assert!(refused.to_string().contains("append-only"), "{refused}");
    }
    assert_eq!(root.reader.audit(9).await.unwrap().len(), 1);
}
