//! How much a project may hold, and what is said to whoever wants more.

use iris_protocol::*;
use iris_store::StoreError;
use iris_store::project::*;

use crate::fixture::*;

/// Which quota refuses a command, its limit and what is used.
async fn over<C: iris_store::Command>(fixture: &Fixture, command: C) -> (String, u64, u64) {
    let error = fixture.write(command).await.map(drop).unwrap_err();
    assert!(matches!(error, StoreError::QuotaExceeded { .. }), "{error:?}");
    let wire = error.to_api();
    assert_eq!(wire.code, ErrorCode::QuotaExceeded);
    let number = |key: &str| wire.details.get(key).unwrap().as_u64().unwrap();
    let reason = wire.details.get("reason").unwrap().as_str().unwrap().to_owned();
    (reason, number("limit"), number("used"))
}

fn file(path: &str, size: usize, quotas: Quotas) -> RecordFiles {
    RecordFiles { quotas: Some(quotas), ..wrote(path, &vec![b'x'; size], &ann()) }
}

fn cancel(n: u128) -> FailQueuedRun {
    let (session_id, run_id, status) = (session_id(), run_id(n), RunStatus::Cancelled);
    FailQueuedRun { session_id, run_id, status, error: None, at: NOW }
}

#[tokio::test]
async fn messages_fit_until_the_rows_are_used_up_and_again_after_a_deletion() {
    let fixture = Fixture::with_session().await;
    let quotas = Quotas { rows_max: 5, ..Quotas::default() };
    for n in 1..=2 {
        fixture.write(AcceptMessage { quotas, ..accept(n) }).await.unwrap();
    }
    let third = AcceptMessage { quotas, ..accept(3) };
    assert_eq!(over(&fixture, third.clone()).await, ("rows_quota".into(), 5, 4));
    // Nothing of the refused message is left.
    assert_eq!(fixture.session().await.message_count, 2);

    // A run that works is not cut off.
    fixture.write(start(1)).await.unwrap();
    fixture.write(step(1, 0, vec![text(1, "answer")])).await.unwrap();
    fixture.write(finish(1, RunStatus::Completed, FinishReason::Stop)).await.unwrap();
    let session = CreateSession { quotas, ..create_session(2) };
    assert_eq!(over(&fixture, session.clone()).await, ("rows_quota".into(), 5, 7));

    fixture.write(cancel(2)).await.unwrap();
    fixture.write(PurgeSession { id: session_id(), by: ann(), at: NOW }).await.unwrap();
    assert_eq!(fixture.reader().usage().await.unwrap().rows, 0);
    fixture.write(session).await.unwrap();
    let session_id = SessionId::from_bits(2);
    fixture.write(AcceptMessage { session_id, ..third }).await.unwrap();
}

#[tokio::test]
async fn a_database_that_is_too_large_takes_nothing_new_until_something_is_deleted() {
    let fixture = Fixture::with_session().await;
    let before = fixture.reader().usage().await.unwrap().bytes;
    let quotas = Quotas { bytes_max: before + 256 * 1024, ..Quotas::default() };
    let noise = |n: u128| {
        // Nothing that could be compressed.
        let words = (0..2_000_u128).map(|i| format!("{:x}", (i + n * 7_919).pow(5) % 0xFFFF_FFF1));
        words.collect::<Vec<_>>().join(" ")
    };
    let mut n = 0;
    let (reason, limit, used) = loop {
        n += 1;
        let message = AcceptMessage { quotas, text: noise(n), ..accept(n) };
        match fixture.write(message.clone()).await {
            Ok(_) => drop(fixture.write(cancel(n)).await.unwrap()),
            Err(_) => break over(&fixture, message).await,
        }
    };
    assert_eq!((reason.as_str(), limit), ("bytes_quota", quotas.bytes_max));
    assert!(used >= limit && n > 3, "{used} {n}");
    let agent = CreateAgent {
        id: AgentId::from_bits(1),
        name: "agent".into(),
        description: String::new(),
        mode: AgentMode::All,
        prompt: String::new(),
        model: None,
        tools: vec![],
        tuning: iris_protocol::AgentTuning::default(),
        permissions: vec![],
        budget: None,
        quotas,
        by: ann(),
        at: NOW,
    };
    assert_eq!(over(&fixture, agent.clone()).await.0, "bytes_quota");
    assert_eq!(over(&fixture, file("a", 1, quotas)).await.0, "bytes_quota");

    fixture.write(PurgeSession { id: session_id(), by: ann(), at: NOW }).await.unwrap();
    while fixture.write(CollectBlobs).await.unwrap().more {}
    fixture.write(agent).await.unwrap();
    fixture.write(file("a", 1, quotas)).await.unwrap();
}

#[tokio::test]
async fn files_fit_until_they_are_too_many_or_too_large() {
    let fixture = Fixture::new();
    let quotas = Quotas { files_max: 2, file_bytes_max: 100, ..Quotas::default() };
    fixture.write(file("a", 10, quotas)).await.unwrap();
    fixture.write(file("b", 20, quotas)).await.unwrap();
    assert_eq!(over(&fixture, file("c", 1, quotas)).await, ("files_quota".into(), 2, 2));
    fixture.write(file("b", 90, quotas)).await.unwrap();
    assert_eq!(over(&fixture, file("a", 11, quotas)).await, ("file_bytes_quota".into(), 100, 100));
    let reader = fixture.reader();
    let asked = reader.check_file(quotas, "a".into(), Some(11)).await.unwrap_err();
    assert!(matches!(asked, StoreError::QuotaExceeded { reason: "file_bytes_quota", .. }));
    reader.check_file(quotas, "a".into(), Some(10)).await.unwrap();
    // There is no room for what nobody knows the size of.
    let asked = reader.check_file(quotas, "a".into(), None).await.unwrap_err();
    assert!(matches!(asked, StoreError::QuotaExceeded { reason: "file_bytes_quota", .. }));
    let asked = reader.check_files(quotas).await.unwrap_err();
    assert!(matches!(asked, StoreError::QuotaExceeded { reason: "file_bytes_quota", .. }));
    let roomy = Quotas { file_bytes_max: 101, ..quotas };
    reader.check_file(roomy, "a".into(), None).await.unwrap();
    // Two files are as many as there may be, and not more than that.
    reader.check_files(roomy).await.unwrap();
    let asked = reader.check_files(Quotas { files_max: 1, ..roomy }).await.unwrap_err();
    assert!(matches!(asked, StoreError::QuotaExceeded { reason: "files_quota", .. }));

    // What has become too large by other ways may shrink.
    fixture.write(file("b", 500, Quotas::default())).await.unwrap();
    fixture.write(file("b", 400, quotas)).await.unwrap();
    fixture.write(file("a", 0, quotas)).await.unwrap();
    let usage = fixture.reader().usage().await.unwrap();
    assert_eq!((usage.files, usage.file_bytes), (2, 400));
    assert_eq!(over(&fixture, file("a", 1, quotas)).await, ("file_bytes_quota".into(), 100, 400));
}

/// What a tool wrote is recorded in any case: the file is there already.
#[tokio::test]
async fn what_a_tool_wrote_is_recorded_and_counted() {
    let fixture = Fixture::with_run().await;
    fixture.write(RecordFiles { quotas: None, ..file("a", 7, Quotas::default()) }).await.unwrap();
    let usage = fixture.reader().usage().await.unwrap();
    assert_eq!((usage.files, usage.file_bytes), (1, 7));
}

/// The database of a server that knew nothing of all this.
#[tokio::test]
async fn a_database_of_the_first_schema_is_counted_and_can_be_searched() {
    let mut fixture = Fixture::with_session().await;
    fixture.close();
    let path = fixture.path();
    std::fs::remove_file(&path).unwrap();
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.pragma_update(None, "application_id", 0x4952_4953).unwrap();
    let schema = include_str!("../../migrations/project/0001_conversations.sql");
    conn.execute_batch(schema).unwrap();
    conn.pragma_update(None, "user_version", 1).unwrap();
    let (project, session) = (project_id(), session_id());
    let usage = serde_json::to_string(&Usage::default()).unwrap();
    conn.execute_batch(&format!(
        "INSERT INTO meta (one, project_id, epoch, created_at, last_seq)
           VALUES (1, '{project}', 'epoch', 0, 2);
         INSERT INTO sessions (id, title, agent, mode, status, state, created_by, created_at,
             updated_at, usage, last_run)
           VALUES ('{session}', 't', 'default', 'default', 'active', 'idle', '{user}', 0, 0,
             '{usage}', 1);
         INSERT INTO messages (id, session_id, run_id, run_number, place, role, state, created_at)
           VALUES ('{message}', '{session}', '{run}', 1, 0, 'user', 'complete', 5);
         INSERT INTO message_parts (id, message_id, ordinal, body) VALUES
           ('{part}', '{message}', 0, '{{\"type\":\"text\",\"id\":\"{part}\",\"text\":\"old needle\"}}'),
           ('{thought}', '{message}', 1,
             '{{\"type\":\"reasoning\",\"id\":\"{thought}\",\"text\":\"needle\"}}');
         INSERT INTO files VALUES ('a', 7, 1, '', 0, '{user}'), ('b', 5, 1, '', 0, '{user}');
         INSERT INTO events (seq, room, prev, at, name, payload) VALUES
           (1, 'project:{project}', 0, 0, 'x', '{{}}'), (2, 'project:{project}', 1, 0, 'x', '123');",
        message = message_id(1),
        run = run_id(1),
        part = PartId::from_bits(1),
        thought = PartId::from_bits(2),
        user = ann(),
    ))
    .unwrap();
    drop(conn);
    fixture.open();
    let usage = fixture.reader().usage().await.unwrap();
    assert_eq!((usage.rows, usage.files, usage.file_bytes), (3, 2, 12));
    assert_eq!(fixture.write(IndexParts).await.unwrap(), Bite { rows: 1, more: false });
    let found = fixture.reader().search("needle".into(), None, 10, None).await.unwrap();
    assert_eq!(found.hits.len(), 1);
    assert_eq!(found.hits[0].excerpt, "old needle");
    let conn = rusqlite::Connection::open(&path).unwrap();
    let sql = "SELECT events_bytes FROM meta";
    assert_eq!(conn.query_row(sql, [], |row| row.get::<_, u64>(0)).unwrap(), 2 * 128 + 5);
    // The first run after all that: the log goes on where it was.
    fixture.write(accept(2)).await.unwrap();
    assert_eq!(fixture.take_stored()[0].seq, 3);
}
