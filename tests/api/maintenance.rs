//! The commands of operators, as processes of their own, beside a running server and without one.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use iris_protocol::{AuthRegister, ProjectId};
use iris_sandbox::Tier;
use iris_store::maintenance::{digests, project_facts};
use iris_testkit::{PASSWORD, Person, ServerProcess, text_of};
use serde_json::Value;
use tempfile::tempdir;

use crate::bash::sandbox;
use crate::{iris as serve, is_held};

/// What a command said, line by line as JSON, and how it ended.
struct Said {
    code: Option<i32>,
    lines: Vec<Value>,
    stderr: String,
}

impl Said {
    /// The value of a key in the first line that has it.
    fn get(&self, key: &str) -> &str {
        let value = self.lines.iter().find_map(|line| line.get(key)?.as_str());
        value.unwrap_or_else(|| panic!("no `{key}` in {:?}, {}", self.lines, self.stderr))
    }
}

async fn iris(args: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iris"));
    command.env_clear().args(args).arg("--json");
    let (code, stdout, stderr) = ServerProcess::ended(command).await;
    let lines = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    Said { code, lines, stderr }
}

/// A command on a data directory that must do what it is told.
async fn good(data_dir: &Path, args: &[&str]) -> Said {
    let said = on(data_dir, args).await;
    assert_eq!(said.code, Some(0), "{args:?}: {}", said.stderr);
    said
}

async fn on(data_dir: &Path, args: &[&str]) -> Said {
    iris(&[args, &["--data-dir", data_dir.to_str().unwrap()]].concat()).await
}

async fn register(server: &ServerProcess, name: &str) -> Person {
    let request = AuthRegister {
        invitation: None,
        email: format!("{name}@example.com"),
        username: name.to_owned(),
        password: PASSWORD.to_owned(),
    };
    let client = server.client();
    Person::new(&client, client.register(&request).await.unwrap())
}

async fn log_in(server: &ServerProcess, name: &str) -> Person {
    let client = server.client();
    let grant = client.login(&format!("{name}@example.com"), PASSWORD).await.unwrap();
    Person::new(&client, grant)
}

fn database(data_dir: &Path, id: &ProjectId) -> std::path::PathBuf {
    data_dir.join("projects").join(id.as_str()).join("project.db")
}

fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The drill of docs/backup.md: nothing that was acknowledged before the backup is missing after it.
#[tokio::test]
async fn the_restore_drill_brings_back_all_that_was_acknowledged_before_the_backup() {
    let dir = tempdir().unwrap();
    let (data, backups, new) =
        (dir.path().join("data"), dir.path().join("backups"), dir.path().join("new"));
    let server = ServerProcess::start(serve(&data)).await;
    let mut talk = register(&server, "ann").await.conversation().await;
    for n in 0..5 {
        talk.ask(&format!("say before {n}")).await;
    }
    talk.person.client.file_put(&talk.project, "kept.txt", "kept").await.unwrap();
    let before = talk.person.snapshot(&talk.project, &talk.session).await;
    let (project, session) = (talk.project.clone(), talk.session.clone());

    // Others go on while the backup is made.
    let mut aside = talk.person.conversation_in(&project).await;
    let others = tokio::spawn(async move {
        loop {
            aside.ask("say meanwhile").await;
        }
    });
    let made = good(&data, &["backup", "--to", backups.to_str().unwrap()]).await;
    let backup = made.get("backup").to_owned();
    others.abort();
    server.kill();

    let checked = iris(&["restore", "--verify", "--from", &backup]).await;
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    let args = ["restore", "--from", &backup, "--data-dir", new.to_str().unwrap()];
    assert_eq!(iris(&args).await.code, Some(0));
    let epochs = [&data, &new].map(|dir| project_facts(&database(dir, &project)).unwrap().epoch);
    assert_ne!(epochs[0], epochs[1]);

    let server = ServerProcess::start(serve(&new)).await;
    // The key is not in the backup: everybody logs in again.
    let ann = log_in(&server, "ann").await;
    let after = ann.snapshot(&project, &session).await;
    assert_eq!(after.messages, before.messages);
    assert_eq!(ann.client.file_get(&project, "kept.txt").await.unwrap(), "kept");
    let mut again = ann.join(&project, &session).await;
    assert_eq!(text_of(&again.ask("say after").await), "after");
    assert!(server.terminate().await.success());

    // And with nobody at work meanwhile: every row.
    let made = good(&new, &["backup", "--with-keys", "--to", backups.to_str().unwrap()]).await;
    let third = dir.path().join("third");
    let backup = made.get("backup").to_owned();
    let args = ["restore", "--from", &backup, "--data-dir", third.to_str().unwrap()];
    assert_eq!(iris(&args).await.code, Some(0));
    let rows = [&new, &third].map(|dir| digests(&database(dir, &project), None).unwrap());
    assert_eq!(rows[0], rows[1]);
    assert_eq!(
        std::fs::read(new.join("jwt.key")).unwrap(),
        std::fs::read(third.join("jwt.key")).unwrap()
    );
}

#[tokio::test]
async fn a_project_goes_back_to_its_backup_and_to_another_server() {
    let dir = tempdir().unwrap();
    let (data, other) = (dir.path().join("data"), dir.path().join("other"));
    let server = ServerProcess::start(serve(&data)).await;
    let mut talk = register(&server, "ann").await.conversation().await;
    talk.ask("say one").await;
    let (id, session) = (talk.project.to_string(), talk.session.clone());
    let listed = good(&data, &["project", "list"]).await;
    assert_eq!(listed.get("project"), id);
    assert_eq!(listed.get("owner"), "ann@example.com");

    // Beside the running server.
    let backup = good(&data, &["project", "backup", &id]).await.get("archive").to_owned();
    assert!(Path::new(&backup).starts_with(data.join("backups").join(&id)));
    let export = dir.path().join("notes.tar.zst");
    let export = export.to_str().unwrap();
    good(&data, &["project", "export", &id, "--to", export]).await;
    assert_eq!(on(&data, &["project", "export", &id, "--to", export]).await.code, Some(1));
    good(&data, &["project", "verify"]).await;
    good(&data, &["project", "verify", "--archive", &backup, "--archive", export]).await;
    talk.ask("say two").await;
    let project = talk.project.clone();
    assert!(server.terminate().await.success());

    let restored = good(&data, &["project", "restore", &id, "--from", &backup]).await;
    assert_eq!(restored.get("restored"), id);
    // What was there before is a backup now.
    assert_eq!(names(&data.join("backups").join(&id)).len(), 2);
    let server = ServerProcess::start(serve(&data)).await;
    let ann = log_in(&server, "ann").await;
    assert_eq!(ann.snapshot(&project, &session).await.messages.len(), 2);
    let mut again = ann.join(&project, &session).await;
    assert_eq!(text_of(&again.ask("say three").await), "three");
    assert!(server.terminate().await.success());
    // And back to what was there before.
    let safety = restored.get("archive").to_owned();
    good(&data, &["project", "restore", &id, "--from", &safety]).await;
    let server = ServerProcess::start(serve(&data)).await;
    let ann = log_in(&server, "ann").await;
    assert_eq!(ann.snapshot(&project, &session).await.messages.len(), 4);
    assert!(server.terminate().await.success());

    // Another server, on which bob may have it, and then ann under the id that it had.
    let server = ServerProcess::start(serve(&other)).await;
    register(&server, "bob").await;
    assert!(server.terminate().await.success());
    let refused = on(&other, &["project", "import", export]).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("give `--owner`"), "{}", refused.stderr);
    let import = ["project", "import", export, "--owner", "bob@example.com"];
    let imported = good(&other, &import).await.get("imported").to_owned();
    assert_ne!(imported, id);
    let same = [&import[..], &["--id", "same", "--members", "drop"]].concat();
    assert_eq!(good(&other, &same).await.get("imported"), id);
    let twice = on(&other, &same).await;
    assert!(twice.stderr.contains("is here already"), "{}", twice.stderr);
    let server = ServerProcess::start(serve(&other)).await;
    let bob = log_in(&server, "bob").await;
    for project in [imported.parse().unwrap(), project] {
        assert_eq!(bob.snapshot(&project, &session).await.messages.len(), 2);
        let mut talk = bob.join(&project, &session).await;
        assert_eq!(text_of(&talk.ask("say here").await), "here");
    }
    assert!(server.terminate().await.success());
}

#[tokio::test]
async fn a_deleted_project_leaves_no_file() {
    let dir = tempdir().unwrap();
    let server = ServerProcess::start(serve(dir.path())).await;
    let talk = register(&server, "ann").await.conversation().await;
    let id = talk.project.to_string();
    good(dir.path(), &["project", "backup", "--all"]).await;
    assert!(server.terminate().await.success());
    let unsure = on(dir.path(), &["project", "delete", &id]).await;
    assert_eq!(unsure.code, Some(2), "{}", unsure.stderr);
    // What an earlier command left that was cut off.
    std::fs::create_dir(dir.path().join("backups/.iris-tmp-1")).unwrap();
    good(dir.path(), &["project", "delete", &id, "--yes"]).await;
    assert!(good(dir.path(), &["project", "list"]).await.lines.is_empty());
    assert!(names(&dir.path().join("projects")).is_empty());
    assert!(names(&dir.path().join("backups")).is_empty());
    let gone = on(dir.path(), &["project", "delete", &id, "--yes"]).await;
    assert_eq!(gone.code, Some(1), "{}", gone.stderr);
}

#[tokio::test]
async fn what_changes_something_waits_for_no_server_and_touches_nothing_of_one() {
    let dir = tempdir().unwrap();
    let server = ServerProcess::start(serve(dir.path())).await;
    let talk = register(&server, "ann").await.conversation().await;
    let id = talk.project.to_string();
    let backup = good(dir.path(), &["project", "backup", &id]).await.get("archive").to_owned();
    for args in [
        &["project", "restore", &id, "--from", &backup][..],
        &["project", "import", &backup],
        &["project", "delete", &id, "--yes"],
        &["db", "migrate"],
        &["db", "vacuum"],
    ] {
        let refused = on(dir.path(), args).await;
        assert_eq!(refused.code, Some(75), "{args:?}: {}", refused.stderr);
        assert!(refused.stderr.contains("a server is running"), "{}", refused.stderr);
    }
    let checked = good(dir.path(), &["db", "check"]).await;
    assert_eq!(checked.lines.len(), 2);
    assert!(server.terminate().await.success());
    for verb in ["migrate", "vacuum", "check"] {
        let said = good(dir.path(), &["db", verb]).await;
        assert_eq!(said.lines.len(), 2, "{verb}");
        let said = good(dir.path(), &["db", verb, "--project", &id]).await;
        assert_eq!(said.get("database"), id, "{verb}");
    }
    // A vacuumed database is one that the server opens.
    let server = ServerProcess::start(serve(dir.path())).await;
    let mut again = talk.resume(Person::new(&server.client(), talk.person.grant.clone())).await;
    assert_eq!(text_of(&again.ask("say on").await), "on");
}

#[tokio::test]
async fn damage_is_named_and_a_damaged_project_can_be_restored() {
    let dir = tempdir().unwrap();
    let server = ServerProcess::start(serve(dir.path())).await;
    let mut talk = register(&server, "ann").await.conversation().await;
    talk.ask("say kept").await;
    talk.person.client.file_put(&talk.project, "kept.txt", "before").await.unwrap();
    let (id, session) = (talk.project.to_string(), talk.session.clone());
    let backup = good(dir.path(), &["project", "backup", &id]).await.get("archive").to_owned();
    talk.person.client.file_put(&talk.project, "kept.txt", "after").await.unwrap();
    assert!(server.terminate().await.success());
    std::fs::write(database(dir.path(), &talk.project), "no database").unwrap();

    for args in [&["project", "verify"][..], &["db", "check"], &["project", "backup", "--all"]] {
        let said = on(dir.path(), args).await;
        assert_eq!(said.code, Some(1), "{args:?}");
        let failed: Vec<_> = said.lines.iter().filter(|line| line["status"] == "failed").collect();
        assert_eq!(failed.len(), 1, "{args:?}");
        assert!(failed[0]["reason"].as_str().unwrap().contains("the file is empty or cut off"));
    }
    let whole = on(dir.path(), &["backup", "--to", dir.path().join("all").to_str().unwrap()]).await;
    assert_eq!(whole.code, Some(1), "{}", whole.stderr);
    assert!(Path::new(whole.get("backup")).join("root.db").exists());

    // A damaged archive restores nothing.
    let bad = dir.path().join("bad.tar.zst");
    let mut bytes = std::fs::read(&backup).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&bad, bytes).unwrap();
    let bad = bad.to_str().unwrap();
    let refused = on(dir.path(), &["project", "restore", &id, "--from", bad]).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("the archive is not usable"), "{}", refused.stderr);
    assert_eq!(std::fs::read(database(dir.path(), &talk.project)).unwrap(), b"no database");

    let restored = good(dir.path(), &["project", "restore", &id, "--from", &backup]).await;
    let kept = Path::new(restored.get("keptDamaged"));
    assert_eq!(std::fs::read(kept.join("project.db")).unwrap(), b"no database");
    assert_eq!(std::fs::read(kept.join("files/kept.txt")).unwrap(), b"after");
    let server = ServerProcess::start(serve(dir.path())).await;
    let ann = log_in(&server, "ann").await;
    assert_eq!(ann.snapshot(&talk.project, &session).await.messages.len(), 2);
    assert_eq!(ann.client.file_get(&talk.project, "kept.txt").await.unwrap(), "before");
}

#[tokio::test]
async fn a_project_that_lost_what_was_acknowledged_is_named_and_not_archived() {
    let dir = tempdir().unwrap();
    let server = ServerProcess::start(serve(dir.path())).await;
    let mut talk = register(&server, "ann").await.conversation().await;
    let id = talk.project.to_string();
    let backup = good(dir.path(), &["project", "backup", &id]).await.get("archive").to_owned();
    talk.ask("say acknowledged").await;
    server.kill();
    let database = database(dir.path(), &talk.project);
    let log = database.with_file_name("project.db-wal");
    let whole = std::fs::read(&log).unwrap();
    let mut broken = whole.clone();
    broken[17] ^= 1;
    let to = dir.path().join("all");
    for (left, reason) in
        [(&broken[..], "header of the write-ahead log"), (&[][..], "that were acknowledged")]
    {
        std::fs::write(&log, left).unwrap();
        let before = std::fs::read(&database).unwrap();
        for args in [
            &["project", "verify", &id][..],
            &["project", "backup", &id],
            &["db", "check", "--project", &id],
            &["db", "vacuum", "--project", &id],
            &["backup", "--to", to.to_str().unwrap()],
        ] {
            let said = on(dir.path(), args).await;
            assert_eq!(said.code, Some(1), "{reason}: {args:?}");
            let told = said.get("reason");
            assert!(told.contains(reason), "{args:?}: {told}");
        }
        assert!(std::fs::read(&log).unwrap() == left, "{reason}: the log was touched");
        assert!(std::fs::read(&database).unwrap() == before, "{reason}: the file was touched");
    }
    std::fs::write(&log, whole).unwrap();
    good(dir.path(), &["project", "verify", &id]).await;
    std::fs::remove_file(&log).unwrap();
    let restored = good(dir.path(), &["project", "restore", &id, "--from", &backup]).await;
    assert!(restored.get("reason").contains("that were acknowledged"));
}

#[tokio::test]
async fn a_directory_without_a_server_is_named_and_stays_as_it_is() {
    let dir = tempdir().unwrap();
    for args in [
        &["project", "list"][..],
        &["project", "verify"],
        &["db", "check"],
        &["backup", "--to", dir.path().to_str().unwrap()],
    ] {
        let refused = on(dir.path(), args).await;
        assert_eq!(refused.code, Some(1), "{args:?}");
        assert!(refused.stderr.contains("is no data directory"), "{}", refused.stderr);
    }
    assert!(names(dir.path()).is_empty());
    let wrong = iris(&["project", "list", "--config", "/nowhere/iris.toml"]).await;
    assert_eq!(wrong.code, Some(78), "{}", wrong.stderr);
}

#[tokio::test]
async fn an_archive_of_what_no_project_may_be_is_not_imported() {
    let dir = tempdir().unwrap();
    let server = ServerProcess::start(serve(dir.path())).await;
    let talk = register(&server, "ann").await.conversation().await;
    let id = talk.project.to_string();
    assert!(server.terminate().await.success());
    let root = rusqlite::Connection::open(dir.path().join("root.db")).unwrap();
    root.execute("UPDATE projects SET name = 'a' || char(7)", []).unwrap();
    drop(root);
    let export = dir.path().join("forged.tar.zst");
    let export = export.to_str().unwrap();
    good(dir.path(), &["project", "export", &id, "--to", export]).await;
    let refused = on(dir.path(), &["project", "import", export]).await;
    assert_eq!(refused.code, Some(1), "{:?}", refused.lines);
    assert!(refused.stderr.contains("no control characters"), "{}", refused.stderr);
    assert_eq!(names(&dir.path().join("projects")), [id]);
}

/// As over the wire: what an archive says decides neither where git goes nor what it is told.
#[tokio::test]
async fn a_project_is_imported_without_a_repository_to_which_git_may_not_go() {
    let dir = tempdir().unwrap();
    let (data, roots) = (dir.path().join("data"), dir.path().join("roots"));
    let server = ServerProcess::start(serve(&data)).await;
    let talk = register(&server, "ann").await.conversation().await;
    let id = talk.project.to_string();
    assert!(server.terminate().await.success());
    let config = dir.path().join("iris.toml");
    std::fs::write(&config, format!("project_roots = [{roots:?}]\n")).unwrap();
    std::fs::create_dir_all(roots.join("ours.git")).unwrap();
    std::fs::create_dir_all(dir.path().join("others.git")).unwrap();
    let (ours, link) = (roots.join("ours.git").canonicalize().unwrap(), roots.join("link"));
    std::os::unix::fs::symlink(&ours, &link).unwrap();
    let root = rusqlite::Connection::open(data.join("root.db")).unwrap();
    let local = |path: &Path| format!("file://{}", path.display());
    let public = "https://192.0.32.10/a.git".to_owned();
    for (number, (url, branch, kept)) in [
        (public.clone(), "main", Some(&public)),
        (local(&link), "main", Some(&local(&ours))),
        (local(&dir.path().join("others.git")), "main", None),
        (local(&data.join("projects")), "main", None),
        ("https://127.0.0.1/a.git".to_owned(), "main", None),
        ("ext::sh -c id".to_owned(), "main", None),
        (public.clone(), "--upload-pack=id", None),
    ]
    .into_iter()
    .enumerate()
    {
        root.execute("UPDATE projects SET type = 'git' WHERE id = ?1", [&id]).unwrap();
        let sql =
            "INSERT OR REPLACE INTO project_git (project_id, url, branch, state, by, changed_at)
            VALUES (?1, ?2, ?3, 'ready', 'usr_1', 1)";
        root.execute(sql, [&id, &url, branch]).unwrap();
        let export = dir.path().join(format!("{number}.tar.zst"));
        let export = export.to_str().unwrap();
        good(&data, &["project", "export", &id, "--to", export]).await;
        let config = ["--config", config.to_str().unwrap()];
        let imported = good(&data, &[&["project", "import", export][..], &config].concat()).await;
        let sql = "SELECT type, url FROM projects LEFT JOIN project_git ON project_id = id
            WHERE id = ?1";
        let found: (String, Option<String>) = root
            .query_row(sql, [imported.get("imported")], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap();
        let r#type = if kept.is_some() { "git" } else { "local" };
        assert_eq!(found, (r#type.to_owned(), kept.cloned()), "{url} {branch}");
    }
}

/// What is called how from now on, and which directories are synced, in the order of a recording.
fn durable_names(recording: &str, made: &mut Vec<std::path::PathBuf>) -> Vec<std::path::PathBuf> {
    let mut unsynced: Vec<std::path::PathBuf> = Vec::new();
    for line in recording.lines().filter(|line| line.ends_with("= 0")) {
        let call = line.split_whitespace().nth(1).unwrap_or_default();
        if call.starts_with("mkdir") || call.starts_with("rename") {
            // The new name is the last one.
            let name = std::path::PathBuf::from(line.rsplit('"').nth(1).unwrap());
            made.push(name.clone());
            unsynced.push(name);
        } else if call.starts_with("fsync") {
            let synced = line.split(['<', '>']).nth(1).unwrap();
            unsynced.retain(|name| name.parent() != Some(Path::new(synced)));
        } else if call.starts_with("syncfs") {
            unsynced.clear();
        }
    }
    unsynced
}

/// A loss of power right after a command leaves what it made where it is called so.
#[tokio::test]
async fn the_names_of_backups_are_on_the_disk_when_a_command_ends() {
    if Command::new("strace").arg("--version").output().is_err() {
        eprintln!("SKIPPED: `strace` is not installed");
        return;
    }
    let dir = tempdir().unwrap();
    let data = dir.path().join("data");
    let server = ServerProcess::start(serve(&data)).await;
    let talk = register(&server, "ann").await.conversation().await;
    let id = talk.project.to_string();
    assert!(server.terminate().await.success());
    let to = dir.path().join("new/backups");
    let archive = dir.path().join("deep/er/restored");
    for args in [
        &["project", "backup", &id][..],
        &["backup", "--to", to.to_str().unwrap()],
        &["restore", "--from", "BACKUP", "--data-dir", archive.to_str().unwrap()],
    ] {
        let made = names(&to).pop().unwrap_or_default();
        let backup = to.join(made).to_str().unwrap().to_owned();
        let args: Vec<_> =
            args.iter().map(|arg| if *arg == "BACKUP" { &*backup } else { *arg }).collect();
        let recording = dir.path().join("recording");
        let mut command = Command::new("strace");
        command.args(["-f", "-y", "-s", "4096", "-o"]).arg(&recording).arg("-e");
        command.arg("trace=mkdir,mkdirat,rename,renameat,renameat2,fsync,fdatasync,syncfs");
        command.arg(env!("CARGO_BIN_EXE_iris")).args(&args);
        if !args.contains(&"restore") {
            command.arg("--data-dir").arg(&data);
        }
        let (code, _, stderr) = ServerProcess::ended(command).await;
        assert_eq!(code, Some(0), "{args:?}: {stderr}");
        let mut made = Vec::new();
        let unsynced = durable_names(&std::fs::read_to_string(&recording).unwrap(), &mut made);
        assert!(made.iter().any(|path| path.exists()), "{args:?}: {made:?}");
        let lost: Vec<_> = unsynced.iter().filter(|path| path.exists()).collect();
        assert!(lost.is_empty(), "{args:?}: {lost:?}");
    }
}

#[tokio::test]
async fn the_doctor_says_what_a_server_would_lack() {
    let directory = tempdir().unwrap();
    let about = |said: &Said, what: &str| -> (String, String) {
        let line = said.lines.iter().find(|line| line["what"] == what).unwrap().clone();
        let text = |key: &str| line[key].as_str().unwrap().to_owned();
        (text("state"), text("says"))
    };
    let said = good(directory.path(), &["doctor"]).await;
    let (state, says) = about(&said, "data directory");
    assert!(state == "ok" && says.ends_with("no server uses it"), "{says}");
    assert_eq!(about(&said, "model").0, "warning");
    let config = directory.path().join("sandbox.toml");
    if let Some(uid) = sandbox().uid {
        // Root has to say whom commands run as.
        let (state, says) = about(&said, "sandbox");
        assert!(state == "warning" && says.starts_with("no commands run: "), "{says}");
        std::fs::write(&config, format!("sandbox_uid = {uid}")).unwrap();
    }
    if is_held(sandbox(), Tier::S3).await {
        let file = config.to_str().unwrap();
        let options: &[&str] = if config.exists() { &["--config", file] } else { &[] };
        let said = good(directory.path(), &[&["doctor"], options].concat()).await;
        let (state, says) = about(&said, "sandbox");
        assert!(state == "ok" && says.starts_with("commands run in S3"), "{says}");
    }

    for what in ["exposure", "disk", "clock"] {
        assert_ne!(about(&said, what).0, "failed");
    }
    // What others can read, and where others reach it.
    let key = directory.path().join("master.key");
    std::fs::write(&key, [7; 32]).unwrap();
    std::fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let mut exposed = Command::new(env!("CARGO_BIN_EXE_iris"));
    exposed.env_clear().args(["doctor", "--json", "--data-dir"]).arg(directory.path());
    exposed.env("IRIS_BIND", "0.0.0.0:0");
    for (key, value) in [("KIND", "github"), ("CLIENT_ID", "a"), ("CLIENT_SECRET", "b")] {
        exposed.env(format!("IRIS_OAUTH__GITHUB__{key}"), value);
    }
    let (_, said, _) = ServerProcess::ended(exposed).await;
    assert!(said.contains("chmod go= ") && said.contains("travel in the clear"), "{said}");
    assert!(said.contains("nobody can log in at a provider: set `IRIS_PUBLIC_URL`"), "{said}");
    std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();

    // Beside a server that runs, and with a configuration that is wrong.
    let server = ServerProcess::start(serve(directory.path())).await;
    let said = good(directory.path(), &["doctor"]).await;
    assert!(about(&said, "data directory").1.ends_with("is used by a server that runs"));
    server.kill();
    let config = directory.path().join("iris.toml");
    let login = "public_url = 'https://iris.example'\n[oauth.github]\nkind = 'github'\n\
                 client_id = 'a'\nclient_secret = 'b'";
    std::fs::write(&config, login).unwrap();
    let said = good(directory.path(), &["doctor", "--config", config.to_str().unwrap()]).await;
    let expected =
        "browsers come back to `https://iris.example/v1/auth/oauth/github/callback` and the like";
    assert_eq!(about(&said, "logins"), ("ok".to_owned(), expected.to_owned()));
    std::fs::write(&config, "default_model = 'nowhere/small'").unwrap();
    let said = on(directory.path(), &["doctor", "--config", config.to_str().unwrap()]).await;
    assert_eq!(said.code, Some(78));
    assert!(said.stderr.contains("no provider `nowhere` is configured"), "{}", said.stderr);
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let said = on(&file, &["doctor"]).await;
    assert_eq!((said.code, about(&said, "data directory").0.as_str()), (Some(1), "failed"));
}

fn creation<'a>(name: &'a str, email: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["user", "create", "--username", name, "--email", email], more].concat()
}

#[tokio::test]
async fn accounts_are_created_without_a_server_and_log_in() {
    let dir = tempdir().unwrap();
    let data = dir.path().join("data");
    let create = async |name: &str, email: &str, more: &[&str]| {
        on(&data, &creation(name, email, more)).await
    };
    let refused = create("op", "op@example.com", &["--admin"]).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("is no data directory"), "{}", refused.stderr);
    let server = ServerProcess::start(serve(&data)).await;
    let refused = create("op", "op@example.com", &["--admin"]).await;
    assert_eq!(refused.code, Some(75));
    assert!(refused.stderr.contains("stop it first"), "{}", refused.stderr);
    assert!(server.terminate().await.success());

    let made = create("op", "Op@Example.com", &["--admin"]).await;
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    assert_eq!(made.lines[0]["user"]["isAdmin"], true);
    let password = made.get("password").to_owned();
    let file = dir.path().join("password");
    let with_file = ["--password-file", file.to_str().unwrap()];
    std::fs::write(&file, "vk8!tq2m and more\r\nnot this\n").unwrap();
    let made = create("eve", "eve@example.com", &with_file).await;
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    assert_eq!(made.lines[0].get("password"), None);
    for (name, email, secret, said) in [
        ("op", "other@example.com", "vk8!tq2m and more", "the user name is taken"),
        ("other", "op@example.com", "vk8!tq2m and more", "the email address is taken"),
        ("other", "nowhere", "vk8!tq2m and more", "is not an e-mail address"),
        ("", "other@example.com", "vk8!tq2m and more", "`username` must have"),
        ("other", "other@example.com", "password1", "tried first"),
        ("other", "other@example.com", "", "at least 8 characters"),
    ] {
        std::fs::write(&file, secret).unwrap();
        let refused = create(name, email, &with_file).await;
        assert_eq!(refused.code, Some(1), "{said}");
        assert!(refused.stderr.contains(said), "{}", refused.stderr);
    }
    let refused = create("other", "other@example.com", &["--password-file", "/nowhere"]).await;
    assert_eq!(refused.code, Some(1));

    let server = ServerProcess::start(serve(&data)).await;
    let client = server.client();
    let op = Person::new(&client, client.login("op@example.com", &password).await.unwrap());
    let eve = client.login("eve@example.com", "vk8!tq2m and more").await.unwrap();
    assert!(op.grant.user.is_admin && !eve.user.is_admin);
    // No setup any more: there is an administrator.
    let setup = serde_json::json!({ "token": iris_testkit::SETUP_TOKEN, "email": "x@example.com",
        "username": "x", "password": PASSWORD });
    let setup = client.rest("POST", "/v1/auth/setup", None, Some(&setup)).await.unwrap();
    assert_eq!(setup.status, 409);
    let audit = op.get("/v1/admin/audit?action=admin.user.create").await;
    assert_eq!(audit.json["data"].as_array().unwrap().len(), 2);
    assert_eq!(audit.json["data"][0]["details"]["commandLine"], true);
    assert!(!audit.json.to_string().contains(&password));
    let users = op.get("/v1/admin/users").await;
    assert_eq!(users.json["data"].as_array().unwrap().len(), 2);
}
