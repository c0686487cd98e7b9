//! The audit: its chain, its pages, and what a change of it looks like.

use iris_store::WriteContext;
use iris_store::maintenance::check_audit;
use iris_store::root::{
    AUDIT_RECORDS_TRIMMED_MAX, AuditDamage, AuditHead, AuditQuery, ChooseSettings, RecordAudit,
    RecordSandbox, RootDatabase, TrimAudit, Trimmed,
};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::{NOW, Root, create_user, user_id};

fn record(n: u128) -> RecordAudit {
    RecordAudit {
        at: NOW + i64::try_from(n).unwrap(),
        user_id: Some(user_id(n % 2)),
        action: format!("action.{}", n % 3),
        target: format!("target {n}"),
        ip: Some("192.0.2.1".to_owned()),
        ..RecordAudit::default()
    }
}

async fn with_records(count: u128) -> Root {
    let root = Root::new();
    for n in 1..=count {
        root.run(record(n)).await.unwrap();
    }
    root
}

/// Does to the file what nobody can through the server.
fn tamper(root: &Root, sql: &str) {
    let conn = Connection::open(root.path()).unwrap();
    let triggers = "SELECT sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'audit'";
    let triggers: Vec<String> = {
        let mut statement = conn.prepare(triggers).unwrap();
        let found = statement.query_map([], |row| row.get(0)).unwrap();
        found.map(Result::unwrap).collect()
    };
    conn.execute_batch("DROP TRIGGER audit_is_not_changed; DROP TRIGGER audit_is_not_shortened")
        .unwrap();
    conn.execute_batch(sql).unwrap();
    conn.execute_batch(&triggers.join(";\n")).unwrap();
}

fn damage(root: &Root, known: Option<&AuditHead>) -> Option<AuditDamage> {
    check_audit(&root.path(), known).unwrap().damage
}

#[tokio::test]
async fn an_audit_that_nobody_touched_is_sound_and_its_head_is_found_again() {
    let root = with_records(3).await;
    let first = check_audit(&root.path(), None).unwrap();
    assert_eq!((first.records, first.damage), (3, None));
    root.run(record(4)).await.unwrap();
    let later = check_audit(&root.path(), Some(&first.head)).unwrap();
    assert_eq!((later.records, later.damage), (4, None));
    assert_ne!(later.head, first.head);
    let page = root.reader.audit_page(AuditQuery { limit: 1, ..AuditQuery::default() }).await;
    assert_eq!(page.unwrap().head, later.head.to_string());
}

/// T21 of the threat model.
#[tokio::test]
async fn a_record_that_was_changed_taken_out_or_added_is_named() {
    for (sql, expected) in [
        ("UPDATE audit SET target = 'x' WHERE id = 2", AuditDamage::Changed { id: 2 }),
        ("UPDATE audit SET user_id = NULL WHERE id = 1", AuditDamage::Changed { id: 1 }),
        ("UPDATE audit SET result = 'refused' WHERE id = 4", AuditDamage::Changed { id: 4 }),
        ("UPDATE audit SET at = at - 1 WHERE id = 3", AuditDamage::Changed { id: 3 }),
        ("UPDATE audit SET hash = zeroblob(32) WHERE id = 3", AuditDamage::Changed { id: 3 }),
        ("UPDATE audit SET hash = NULL, target = 'x' WHERE id = 2", AuditDamage::Changed { id: 3 }),
        ("DELETE FROM audit WHERE id = 2", AuditDamage::Missing { id: 2 }),
        ("DELETE FROM audit WHERE id = 1", AuditDamage::Missing { id: 1 }),
        ("UPDATE audit SET id = 9 WHERE id = 4", AuditDamage::Missing { id: 4 }),
    ] {
        let root = with_records(4).await;
        tamper(&root, sql);
        assert_eq!(damage(&root, None), Some(expected), "{sql}");
    }
}

#[tokio::test]
async fn what_is_cut_off_at_the_end_shows_against_a_head_that_was_kept() {
    let root = with_records(4).await;
    let head = check_audit(&root.path(), None).unwrap().head;
    tamper(&root, "DELETE FROM audit WHERE id = 4");
    assert_eq!(damage(&root, None), None);
    assert_eq!(damage(&root, Some(&head)), Some(AuditDamage::NotTheHead { id: 4 }));
    // Written anew by somebody else.
    root.run(record(9)).await.unwrap();
    assert_eq!(damage(&root, None), None);
    assert_eq!(damage(&root, Some(&head)), Some(AuditDamage::NotTheHead { id: 4 }));
}

#[tokio::test]
async fn records_of_servers_that_made_no_hashes_are_counted_in_by_the_first_hash() {
    let root = Root::new();
    tamper(
        &root,
        "INSERT INTO audit (id, at, user_id, action, target, result, details)
         VALUES (1, 1, 'usr_1', 'a', 'x', 'done', '{}'), (2, 2, 'usr_1', 'a', 'y', 'done', '{}')",
    );
    assert_eq!(check_audit(&root.path(), None).unwrap().records, 2);
    root.run(record(3)).await.unwrap();
    assert_eq!(damage(&root, None), None);
    tamper(&root, "UPDATE audit SET target = 'z' WHERE id = 1");
    assert_eq!(damage(&root, None), Some(AuditDamage::Changed { id: 3 }));
}

#[tokio::test]
async fn a_write_and_its_record_are_there_both_or_neither() {
    let root = Root::new();
    let context = || WriteContext { audit: Some(Box::new(record(1))), ..WriteContext::default() };
    root.db.writer().submit(create_user(1), context()).await.unwrap();
    root.db.writer().submit(create_user(1), context()).await.unwrap_err();
    assert_eq!(root.reader.audit(9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn pages_hold_what_is_asked_for_and_go_on_where_the_last_one_ended() {
    let root = with_records(10).await;
    let query =
        AuditQuery { action: Some("action.1".to_owned()), limit: 2, ..AuditQuery::default() };
    let (mut before, mut found) = (None, Vec::new());
    loop {
        let page = root.reader.audit_page(AuditQuery { before, ..query.clone() }).await.unwrap();
        found.extend(page.records.iter().map(|record| record.id));
        if !page.has_more {
            break;
        }
        before = Some(page.next_cursor.unwrap().parse().unwrap());
    }
    assert_eq!(found, [10, 7, 4, 1]);
    let of = |query: AuditQuery| {
        let reader = root.reader.clone();
        async move {
            let page = reader.audit_page(AuditQuery { limit: 50, ..query }).await.unwrap();
            page.records.iter().map(|record| record.id).collect::<Vec<_>>()
        }
    };
    let user = AuditQuery { user_id: Some(user_id(1)), ..AuditQuery::default() };
    assert_eq!(of(user).await, [9, 7, 5, 3, 1]);
    let target = AuditQuery { target: Some("target 3".to_owned()), ..AuditQuery::default() };
    assert_eq!(of(target).await, [3]);
    let time = AuditQuery { from: Some(NOW + 4), to: Some(NOW + 6), ..AuditQuery::default() };
    assert_eq!(of(time).await, [5, 4]);
    assert_eq!(root.reader.audit_after(8, 9).await.unwrap().len(), 2);
}

#[tokio::test]
async fn the_audit_of_an_earlier_version_keeps_its_records() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root.db");
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/root-2.db");
    std::fs::copy(fixture, &path).unwrap();
    let database = RootDatabase::open_or_create(&path, NOW).unwrap();
    let before = database.reader().audit(9).await.unwrap();
    assert!(before.iter().all(|record| record.hash.is_none() && record.result == "done"));
    database.writer().submit(record(1), WriteContext::default()).await.unwrap();
    let after = database.reader().audit(9).await.unwrap();
    assert_eq!(after[1..], before);
    assert_eq!(check_audit(&path, None).unwrap().damage, None);
}

/// Everything older may go, and all but so many.
fn trim(before: Option<i64>, keep_max: u64) -> TrimAudit {
    TrimAudit { before, keep_max, at: NOW }
}

async fn ids(root: &Root) -> Vec<u64> {
    let page = root.reader.audit_page(AuditQuery { limit: 50, ..AuditQuery::default() }).await;
    let page = page.unwrap();
    assert!(!page.has_more);
    page.records.iter().map(|record| record.id).collect()
}

#[tokio::test]
async fn old_records_go_and_the_rest_verifies_against_a_head_that_was_kept() {
    let root = with_records(6).await;
    let head = check_audit(&root.path(), None).unwrap().head;
    assert_eq!(root.run(trim(Some(NOW + 4), 0)).await.unwrap(), Trimmed::Records(3));
    let verdict = check_audit(&root.path(), Some(&head)).unwrap();
    assert_eq!((verdict.let_go, verdict.records, verdict.damage), (3, 4, None));
    // That they went is the newest.
    assert_eq!(ids(&root).await, [7, 6, 5, 4]);
    assert_eq!(root.reader.audit(1).await.unwrap()[0].action, "audit.trim");
    assert_eq!(root.run(trim(Some(NOW + 4), 0)).await.unwrap(), Trimmed::Records(0));
    assert_eq!(ids(&root).await.len(), 4);
    root.run(record(9)).await.unwrap();
    assert_eq!(damage(&root, Some(&head)), None);
}

#[tokio::test]
async fn no_more_records_stay_than_are_kept_and_the_newest_always_does() {
    let root = with_records(6).await;
    assert_eq!(root.run(trim(None, 0)).await.unwrap(), Trimmed::Records(0));
    assert_eq!(root.run(trim(None, 9)).await.unwrap(), Trimmed::Records(0));
    assert_eq!(root.run(trim(None, 2)).await.unwrap(), Trimmed::Records(4));
    assert_eq!(ids(&root).await, [7, 6, 5]);
    assert_eq!(root.run(trim(Some(i64::MAX), 1)).await.unwrap(), Trimmed::Records(2));
    assert_eq!(ids(&root).await, [8, 7]);
    assert_eq!(damage(&root, None), None);
}

#[tokio::test]
async fn many_records_go_in_bites_also_those_without_a_hash() {
    let root = Root::new();
    tamper(
        &root,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 600)
         INSERT INTO audit (id, at, user_id, action, target, result, details)
         SELECT i, i, 'usr_1', 'a', 'x', 'done', '{}' FROM n",
    );
    let bite = Trimmed::Records(AUDIT_RECORDS_TRIMMED_MAX);
    assert_eq!(root.run(trim(Some(1_000), 0)).await.unwrap(), bite);
    let rest = Trimmed::Records(600 - AUDIT_RECORDS_TRIMMED_MAX);
    assert_eq!(root.run(trim(Some(1_000), 0)).await.unwrap(), rest);
    let verdict = check_audit(&root.path(), None).unwrap();
    assert_eq!((verdict.let_go, verdict.records, verdict.damage), (600, 2, None));
}

#[tokio::test]
async fn nothing_goes_that_is_not_what_it_was() {
    let root = with_records(4).await;
    tamper(&root, "UPDATE audit SET target = 'x' WHERE id = 2");
    let refused = Trimmed::Damaged(AuditDamage::Changed { id: 2 });
    assert_eq!(root.run(trim(Some(i64::MAX), 1)).await.unwrap(), refused);
    assert_eq!(ids(&root).await, [4, 3, 2, 1]);
}

#[tokio::test]
async fn what_was_let_go_is_known_by_its_last_record() {
    let root = with_records(2).await;
    let second = check_audit(&root.path(), None).unwrap().head;
    root.run(record(3)).await.unwrap();
    let third = check_audit(&root.path(), None).unwrap().head;
    for n in 4..=6 {
        root.run(record(n)).await.unwrap();
    }
    root.run(trim(Some(NOW + 4), 0)).await.unwrap();
    assert_eq!(damage(&root, Some(&third)), None);
    assert_eq!(damage(&root, Some(&second)), Some(AuditDamage::LetGo { id: 2 }));
    let other = AuditHead { hash: second.hash.clone(), ..third };
    assert_eq!(damage(&root, Some(&other)), Some(AuditDamage::NotTheHead { id: 3 }));
    // Somebody moves the beginning, or changes what it stands on.
    tamper(&root, "DELETE FROM audit WHERE id = 4");
    assert_eq!(damage(&root, None), Some(AuditDamage::Missing { id: 4 }));
    tamper(&root, "UPDATE audit_anchor SET hash = zeroblob(32), id = 4");
    assert_eq!(damage(&root, None), Some(AuditDamage::Changed { id: 5 }));
}

#[tokio::test]
async fn a_sandbox_is_recorded_when_it_changes_and_what_was_told_goes_with_its_record() {
    let root = Root::new();
    let tell = |now: Value| root.run(RecordSandbox { now, at: NOW });
    let told = async || {
        let records = root.reader.audit(9).await.unwrap().into_iter().rev();
        records.map(|record| record.details).collect::<Vec<Value>>()
    };
    assert!(tell(json!({ "tier": "S3" })).await.unwrap());
    assert!(!tell(json!({ "tier": "S3" })).await.unwrap());
    let first = json!({ "before": null, "now": { "tier": "S3" } });
    assert_eq!(told().await, std::slice::from_ref(&first));

    // Neither without the other.
    let outside = Connection::open(root.path()).unwrap();
    outside
        .execute_batch(
            "CREATE TRIGGER no_more BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no'); END",
        )
        .unwrap();
    assert!(tell(json!({ "tier": "S2" })).await.is_err());
    outside.execute_batch("DROP TRIGGER no_more").unwrap();
    assert!(tell(json!({ "tier": "S2" })).await.unwrap());
    let second = json!({ "before": { "tier": "S3" }, "now": { "tier": "S2" } });
    assert_eq!(told().await, [first, second]);

    // It is none of the settings that somebody chooses.
    let chosen = ChooseSettings { changes: vec![("apiKeys", Some(json!(true)))], at: NOW };
    let chosen = root.run(chosen).await.unwrap();
    assert_eq!(chosen.keys().collect::<Vec<_>>(), ["apiKeys"]);
    assert_eq!(root.reader.chosen_settings().await.unwrap(), chosen);
    assert_eq!(damage(&root, None), None);
}
