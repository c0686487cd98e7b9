//! A database becomes that of another project with other people.

use std::collections::BTreeMap;
use std::fs;
#[cfg(target_os = "linux")]
use std::path::Path;

use iris_backup::{
    BackupError, Bounds, Identity, Kept, Unpacked, adopt, replace, replace_kept, unpack,
};
use iris_protocol::{ErrorCode, ProjectId, UserId};
use iris_store::ProjectDatabase;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::fixture::{Fixture, ann, bob, names, project_id};

fn unpacked(fixture: &Fixture) -> Unpacked {
    fixture.archive("a.tar.zst").unwrap();
    unpack(&fixture.archived("a.tar.zst"), &fixture.path("out"), Bounds::default()).unwrap()
}

fn one<T: rusqlite::types::FromSql>(conn: &Connection, sql: &str) -> T {
    conn.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn ids_change_where_they_are_ids_and_nowhere_else() {
    let fixture = Fixture::new();
    let published = "UPDATE meta SET outbox_id = 9, outbox_seq = 1";
    fixture.conn().execute_batch(published).unwrap();
    let unpacked = unpacked(&fixture);
    let (other, eve) = (ProjectId::from_bits(7), UserId::from_bits(77));
    let users = BTreeMap::from([(ann(), Some(eve.clone())), (bob(), None)]);
    let identity =
        Identity { id: other.clone(), epoch: "new".to_owned(), users, importer: Some(eve.clone()) };
    adopt(&unpacked, &identity).unwrap();

    let conn = Connection::open(&unpacked.database).unwrap();
    assert_eq!(one::<String>(&conn, "SELECT created_by FROM sessions"), eve.as_str());
    assert_eq!(one::<String>(&conn, "SELECT user_id FROM events"), eve.as_str());
    assert_eq!(one::<String>(&conn, "SELECT room FROM events"), format!("project:{other}"));
    assert_eq!(one::<String>(&conn, "SELECT room FROM rooms"), format!("project:{other}"));
    assert_eq!(one::<String>(&conn, "SELECT title FROM sessions"), format!("what {} said", ann()));
    // Whoever has no account here keeps the id.
    let payload: Value = one::<String>(&conn, "SELECT payload FROM events").parse().unwrap();
    assert_eq!(payload["userId"], json!(bob()));
    // The text, and what a tool was given, is what was written; the rest of the JSON keeps its bytes.
    let body = one::<String>(&conn, "SELECT body FROM message_parts WHERE id = 'prt_0'");
    let expected = format!(
        r#"{{"type":"text","text":"0: I am {0}","by":"{eve}","input":{{"userId":"{0}"}},"number":1.50}}"#,
        ann()
    );
    assert_eq!(body, expected);
    assert_eq!(one::<i64>(&conn, "SELECT count(*) FROM idempotency"), 0);
    // The outbox of this server numbers its events otherwise.
    assert_eq!(one::<i64>(&conn, "SELECT outbox_id + outbox_seq FROM meta"), 0);
    drop(conn);

    let database = ProjectDatabase::open(&unpacked.database, &other, |_| {}).unwrap();
    assert_eq!(database.epoch(), "new");
    database.close();
    assert!(ProjectDatabase::open(&unpacked.database, &project_id(), |_| {}).is_err());
}

/// What somebody might write into an archive, to have others here do what they may not do themselves.
const FORGED: &str = r#"
    INSERT INTO runs (id, session_id, number, status, started_by, usage, ended_at)
        SELECT 'run_q', id, 90, 'queued', ?1, '{}', NULL FROM sessions
        UNION ALL SELECT 'run_i', id, 91, 'interrupted', ?1, '{}', 1 FROM sessions
        UNION ALL SELECT 'run_d', id, 92, 'completed', ?1, '{}', 1 FROM sessions;
    UPDATE sessions SET mode = 'auto';
    INSERT INTO permissions VALUES
        ('prm_1', 'project', NULL, 'bash', '*', 'allow', ?1, 1, 1),
        ('prm_2', 'project', NULL, 'read', 'x', 'deny', ?1, 1, 1);
    INSERT INTO agents (id, name, prompt, tools, permissions, created_at, updated_at) VALUES ('agt_1', 'a',
        '', '[]', '[{"permission":"*","pattern":"*","action":"allow"},["bash","*","allow"],
        {"permission":"read","pattern":"x","action":"deny"}]', 1, 1);
    INSERT INTO tools VALUES ('tol_1', 'run', 'd', 'command', '{}', '{}', '{}', 1, 1, 1, ?1, 1, ?1, 1),
        ('tol_2', 'ask', 'd', 'http', '{}', '{}', '{"x":"sealed"}', 0, 1, 1, ?1, 1, ?1, 1);
    INSERT INTO mcp_servers (name, transport, secret_headers, secrets, enabled, initialize_timeout_ms,
        request_timeout_ms, definitions, tools, approved_hash, created_by, created_at, updated_by, updated_at)
        VALUES ('s', '["stdio","/bin/sh",["-c","true"],{}]', '[]', NULL, 1, 1, 1, '[{}]', '["s__x"]', 'h',
            ?1, 1, ?1, 1),
        ('w', '{"type":"http","url":"https://a.example"}', '[]', 'sealed', 1, 1, 1, '[{}]', '["w__x"]', 'h',
            ?1, 1, ?1, 1);
"#;

#[test]
fn what_is_imported_acts_for_nobody_else_and_runs_nothing_unasked() {
    let fixture = Fixture::new();
    fixture.conn().execute_batch(&FORGED.replace("?1", &format!("'{}'", ann()))).unwrap();
    let (victim, eve) = (UserId::from_bits(66), UserId::from_bits(77));
    let adopted = |importer: Option<UserId>, name: &str| {
        let archive = format!("{name}.tar.zst");
        fixture.archive(&archive).unwrap();
        let unpacked =
            unpack(&fixture.archived(&archive), &fixture.path(name), Bounds::default()).unwrap();
        let users = BTreeMap::from([(ann(), Some(victim.clone()))]);
        let id = ProjectId::from_bits(7);
        adopt(&unpacked, &Identity { id, epoch: "new".to_owned(), users, importer }).unwrap();
        Connection::open(&unpacked.database).unwrap()
    };
    let conn = adopted(Some(eve.clone()), "imported");
    let all = |conn: &Connection, sql: &str| one::<String>(conn, sql);
    let starters = "SELECT group_concat(id || ' ' || started_by, ', ' ORDER BY id) FROM runs
                    WHERE number >= 90";
    let expected = format!("run_d {victim}, run_i {eve}, run_q {eve}");
    assert_eq!(all(&conn, starters), expected);
    assert_eq!(all(&conn, "SELECT mode FROM sessions"), "default");
    let actions = "SELECT group_concat(action, ' ' ORDER BY id) FROM permissions";
    assert_eq!(all(&conn, actions), "ask deny");
    let rules: Value = all(&conn, "SELECT permissions FROM agents").parse().unwrap();
    let rule = |permission, pattern, action| json!({ "permission": permission, "pattern": pattern, "action": action });
    assert_eq!(rules, json!([rule("*", "*", "ask"), rule("read", "x", "deny")]));
    let tools = "SELECT group_concat(name || enabled || secrets, ' ' ORDER BY id) FROM tools";
    assert_eq!(all(&conn, tools), r#"run0{} ask1{"x":""}"#);
    let servers = "SELECT count(*) FROM mcp_servers WHERE enabled = 0 AND definitions = '[]'
                   AND tools = '[]' AND approved_hash IS NULL AND secrets IS NULL";
    assert_eq!(one::<i64>(&conn, servers), 2);

    // The project of this server that it was keeps all of it.
    let conn = adopted(None, "restored");
    let expected = format!("run_d {victim}, run_i {victim}, run_q {victim}");
    assert_eq!(all(&conn, starters), expected);
    assert_eq!(all(&conn, actions), "allow deny");
    assert_eq!(one::<i64>(&conn, "SELECT sum(enabled) FROM mcp_servers"), 2);
}

#[test]
fn code_of_others_in_a_database_is_not_adopted() {
    let fixture = Fixture::new();
    let trigger = "CREATE TRIGGER t AFTER UPDATE ON meta BEGIN DELETE FROM messages; END";
    fixture.conn().execute_batch(trigger).unwrap();
    let refused = fixture.archive("a.tar.zst");
    assert!(matches!(&refused, Err(BackupError::Corrupt { reason }) if reason.contains("trigger")));
    let clean = Fixture::new();
    let unpacked = unpacked(&clean);
    Connection::open(&unpacked.database).unwrap().execute_batch(trigger).unwrap();
    let (id, epoch, users) = (project_id(), "new".to_owned(), BTreeMap::new());
    let refused = adopt(&unpacked, &Identity { id, epoch, users, importer: None });
    assert!(matches!(refused, Err(BackupError::Corrupt { .. })), "{refused:?}");
}

#[test]
fn an_unpacked_project_takes_a_new_place_or_that_of_another() {
    let fixture = Fixture::new();
    let first = unpacked(&fixture);
    let place = fixture.path("place");
    replace(&first, &place, &place.join("files")).unwrap();
    assert!(!fixture.path("out").exists());
    assert_eq!(names(&place), ["files", "project.db"]);

    fs::write(place.join("files/readme.md"), "changed").unwrap();
    fs::write(place.join("project.db-wal"), "of the database before").unwrap();
    let archive = fixture.archived("a.tar.zst");
    let second = unpack(&archive, &fixture.path("out"), Bounds::default()).unwrap();
    replace(&second, &place, &place.join("files")).unwrap();
    assert_eq!(fs::read(place.join("files/readme.md")).unwrap(), b"# notes");
    assert_eq!(names(&place), ["files", "project.db"]);
    assert!(!fixture.path("out").exists());
}

#[test]
fn files_outside_of_the_data_directory_are_replaced_there() {
    let fixture = Fixture::new();
    let (place, elsewhere) = (fixture.path("place"), fixture.path("elsewhere/files"));
    fs::create_dir_all(&elsewhere).unwrap();
    fs::write(elsewhere.join("stray"), "not in the archive").unwrap();
    let unpacked = unpacked(&fixture);
    replace(&unpacked, &place, &elsewhere).unwrap();
    assert_eq!(names(&elsewhere), ["nothing", "readme.md", "src"]);
    assert_eq!(names(&fixture.path("elsewhere")), ["files"]);
    assert_eq!(names(&place.join("files")), [""; 0]);
    assert!(place.join("project.db").exists());
}

#[test]
fn what_was_replaced_and_is_in_no_archive_is_kept_whole() {
    let fixture = Fixture::new();
    let (place, elsewhere) = (fixture.path("place"), fixture.path("elsewhere/files"));
    let kept = fixture.path("kept-damaged");
    let first = unpacked(&fixture);
    let nothing = replace_kept(&first, &place, &place.join("files"), &kept).unwrap();
    assert_eq!(nothing, Kept { directory: None, files: None });
    assert!(place.join("project.db").exists() && !kept.exists());

    fs::write(place.join("project.db"), "damaged").unwrap();
    fs::write(place.join("files/readme.md"), "changed").unwrap();
    let archive = fixture.archived("a.tar.zst");
    let second = unpack(&archive, &fixture.path("out"), Bounds::default()).unwrap();
    let all = replace_kept(&second, &place, &place.join("files"), &kept).unwrap();
    assert_eq!(all, Kept { directory: Some(kept.clone()), files: None });
    assert_eq!(fs::read(kept.join("project.db")).unwrap(), b"damaged");
    assert_eq!(fs::read(kept.join("files/readme.md")).unwrap(), b"changed");
    assert_eq!(fs::read(place.join("files/readme.md")).unwrap(), b"# notes");
    assert!(!fixture.path("out").exists());

    // The name is taken: nothing happens, and the new one is where it was.
    let third = unpack(&archive, &fixture.path("out"), Bounds::default()).unwrap();
    let refused = replace_kept(&third, &place, &place.join("files"), &kept);
    assert!(matches!(refused, Err(BackupError::Exists { .. })), "{refused:?}");
    assert!(third.database.exists());

    fs::create_dir_all(&elsewhere).unwrap();
    fs::write(elsewhere.join("stray"), "in no archive").unwrap();
    let again = fixture.path("again-damaged");
    let all = replace_kept(&third, &place, &elsewhere, &again).unwrap();
    let files = fixture.path("elsewhere/files-again-damaged");
    assert_eq!(all, Kept { directory: Some(again), files: Some(files.clone()) });
    assert_eq!(fs::read(files.join("stray")).unwrap(), b"in no archive");
    assert_eq!(names(&elsewhere), ["nothing", "readme.md", "src"]);
    assert_eq!(names(&fixture.path("elsewhere")), ["files", "files-again-damaged"]);
}

#[test]
fn whoever_cannot_put_a_project_back_is_told_where_its_files_are_kept() {
    let fixture = Fixture::new();
    let (place, elsewhere) = (fixture.path("place"), fixture.path("elsewhere/files"));
    fs::create_dir_all(&elsewhere).unwrap();
    fs::write(elsewhere.join("stray"), "in no archive").unwrap();
    for name in ["place/files", "kept-damaged"] {
        fs::create_dir_all(fixture.path(name)).unwrap();
    }
    // The name for the directory is taken, that for the files is not.
    let refused =
        replace_kept(&unpacked(&fixture), &place, &elsewhere, &fixture.path("kept-damaged"));
    let error = refused.unwrap_err();
    let files = fixture.path("elsewhere/files-kept-damaged");
    assert!(error.to_string().contains(files.to_str().unwrap()), "{error}");
    assert_eq!((error.code(), error.reason()), (ErrorCode::Conflict, Some("archive_exists")));
    assert!(!error.to_api().message.contains("elsewhere"), "{error:?}");
    assert_eq!(names(&files), ["stray"]);
    assert_eq!(names(&elsewhere), ["nothing", "readme.md", "src"]);
}

#[test]
fn files_that_do_not_get_their_place_leave_nothing_beside_it() {
    let fixture = Fixture::new();
    let (place, elsewhere) = (fixture.path("place"), fixture.path("elsewhere/files"));
    for name in ["elsewhere/files", "elsewhere/files-kept-damaged"] {
        fs::create_dir_all(fixture.path(name)).unwrap();
    }
    let unpacked = unpacked(&fixture);
    let refused = replace_kept(&unpacked, &place, &elsewhere, &fixture.path("kept-damaged"));
    assert!(matches!(refused, Err(BackupError::Exists { .. })), "{refused:?}");
    assert_eq!(names(&fixture.path("elsewhere")), ["files", "files-kept-damaged"]);
    assert_eq!(names(&unpacked.files), ["nothing", "readme.md", "src"]);
}

/// Does something while names in a directory can be changed, but not made durable: it cannot be opened.
#[cfg(target_os = "linux")]
fn without_sync<T: Send>(directory: &Path, act: impl FnOnce() -> T + Send) -> T {
    use std::os::unix::fs::PermissionsExt;

    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

    fs::set_permissions(directory, fs::Permissions::from_mode(0o300)).unwrap();
    let act = || {
        // Nothing is forbidden to the superuser, in this thread too, otherwise.
        let mut mine = capabilities(None).unwrap();
        mine.effective -= CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
        set_capabilities(None, mine).unwrap();
        assert!(fs::File::open(directory).is_err());
        act()
    };
    let done = std::thread::scope(|scope| scope.spawn(act).join().unwrap());
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).unwrap();
    done
}

#[cfg(target_os = "linux")]
#[test]
fn what_was_exchanged_is_in_place_and_loses_nothing_when_that_cannot_be_made_durable() {
    let fixture = Fixture::new();
    let (shut, archive) = (fixture.path("shut"), fixture.archived("a.tar.zst"));
    let (place, out) = (shut.join("place"), shut.join("out"));
    fs::create_dir_all(place.join("files")).unwrap();
    fs::write(place.join("project.db"), "before").unwrap();
    fixture.archive("a.tar.zst").unwrap();
    let unpacked = unpack(&archive, &out, Bounds::default()).unwrap();
    without_sync(&shut, || replace(&unpacked, &place, &place.join("files"))).unwrap();
    assert_eq!(names(&place.join("files")), ["nothing", "readme.md", "src"]);
    // Until the next start: a loss of power may bring it back.
    assert_eq!(fs::read(out.join("project.db")).unwrap(), b"before");

    // Where nothing was replaced, nothing is in place after a failure.
    let again = unpack(&archive, &shut.join("again"), Bounds::default()).unwrap();
    let new = shut.join("new");
    let refused = without_sync(&shut, || replace(&again, &new, &new.join("files")));
    assert!(matches!(refused, Err(BackupError::Io { .. })), "{refused:?}");
    assert!(again.database.exists() && !new.exists());

    // The parent of what is kept is another directory.
    let kept = fixture.path("kept-damaged");
    let refused = without_sync(&shut, || replace_kept(&again, &place, &place.join("files"), &kept));
    assert!(matches!(refused, Err(BackupError::Io { .. })), "{refused:?}");
    assert!(again.database.exists() && !kept.exists());
}

#[cfg(target_os = "linux")]
#[test]
fn what_was_kept_is_kept_when_that_cannot_be_made_durable() {
    let fixture = Fixture::new();
    let (shut, kept) = (fixture.path("shut"), fixture.path("kept-damaged"));
    let place = shut.join("place");
    fs::create_dir_all(place.join("files")).unwrap();
    fs::write(place.join("project.db"), "before").unwrap();
    let unpacked = unpacked(&fixture);
    let all = without_sync(&shut, || replace_kept(&unpacked, &place, &place.join("files"), &kept));
    assert_eq!(all.unwrap(), Kept { directory: Some(kept.clone()), files: None });
    assert_eq!(fs::read(kept.join("project.db")).unwrap(), b"before");
    assert_eq!(names(&place.join("files")), ["nothing", "readme.md", "src"]);
}
