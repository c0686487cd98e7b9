//! A whole server: backed up, verified, restored. What a running server does meanwhile is in
//! tests/api/maintenance.rs.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use iris_backup::server::{
    Outcome, OwnDirectories, ServerBackup, ServerKeys, ServerManifest, ServerSource,
    restore_server, verify_server, write_server,
};
use iris_backup::{BackupError, Progress, Stage, watched};
use iris_protocol::{ProjectId, UserId};
use iris_store::maintenance::{digests, list_projects, project_facts};
use iris_store::root::{CreateProject, CreateUser, IntendDirectory};
use iris_store::{Command, ProjectDatabase, RootDatabase, WriteContext};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::fixture::{NOW, ann, names, tree};

/// A data directory with two projects, the second with its files elsewhere.
struct Server {
    directory: TempDir,
}

impl Server {
    fn new() -> Self {
        let server = Self { directory: tempfile::tempdir().unwrap() };
        fs::create_dir_all(server.data_dir()).unwrap();
        let root = RootDatabase::open_or_create(&server.data_dir().join("root.db"), NOW).unwrap();
        write(&root, create_user(&ann()));
        for n in [1, 2] {
            let own = (n == 2).then(|| server.path("elsewhere").to_str().unwrap().to_owned());
            let id = ProjectId::from_bits(n);
            write(&root, create_project(&id, own.clone()));
            let place = server.place(n);
            let files = own.map_or(place.join("files"), PathBuf::from);
            fs::create_dir_all(place.join("files")).unwrap();
            fs::create_dir_all(&files).unwrap();
            fs::write(files.join("name"), format!("file of {n}")).unwrap();
            ProjectDatabase::create(&place.join("project.db"), &id, "before", NOW).unwrap();
        }
        root.close();
        fs::write(server.data_dir().join("jwt.key"), "a secret").unwrap();
        fs::write(server.data_dir().join("master.key"), "another").unwrap();
        server
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn data_dir(&self) -> PathBuf {
        self.path("data")
    }

    fn place(&self, n: u128) -> PathBuf {
        self.data_dir().join("projects").join(ProjectId::from_bits(n).as_str())
    }

    fn back_up(&self, with_keys: bool) -> Result<ServerBackup, BackupError> {
        let keys = with_keys.then(|| ServerKeys {
            jwt: self.data_dir().join("jwt.key"),
            master: self.data_dir().join("master.key"),
        });
        let source = ServerSource { data_dir: self.data_dir(), keys };
        write_server(&source, &self.path("backups"), NOW)
    }
}

fn write<C: Command>(root: &RootDatabase, command: C) {
    let receipt = root.writer().submit(command, WriteContext::default());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(receipt).unwrap();
}

fn create_user(id: &UserId) -> CreateUser {
    CreateUser {
        id: id.clone(),
        email: "ann@example.com".to_owned(),
        username: "ann".to_owned(),
        password_hash: Some("$argon2id$".to_owned()),
        is_admin: true,
        only_if_no_admin: false,
        at: NOW,
    }
}

fn create_project(id: &ProjectId, path: Option<String>) -> CreateProject {
    CreateProject {
        id: id.clone(),
        owner_id: ann(),
        name: format!("project {id}"),
        description: None,
        r#type: iris_protocol::ProjectType::Local,
        path,
        git: None,
        at: NOW,
    }
}

fn archived(manifest: &ServerManifest) -> usize {
    let is_archived = |outcome: &Outcome| matches!(outcome, Outcome::Archived { .. });
    manifest.projects.iter().filter(|project| is_archived(&project.outcome)).count()
}

#[test]
fn a_server_comes_back_with_new_epochs_and_without_its_keys() {
    let server = Server::new();
    let backup = server.back_up(false).unwrap();
    assert_eq!(archived(&backup.manifest), 2);
    // As a verification that was killed leaves it.
    fs::create_dir(backup.directory.join(".iris-tmp-0123")).unwrap();
    assert_eq!(verify_server(&backup.directory).unwrap(), backup.manifest);
    let expected = [".iris-tmp-0123", "manifest.json", "projects", "root.db"];
    assert_eq!(names(&backup.directory), expected);
    assert_eq!(names(&server.path("backups")).len(), 1);

    let new = server.path("new/data");
    let restored = restore_server(&backup.directory, &new, OwnDirectories::Collected).unwrap();
    assert_eq!(restored, backup.manifest);
    assert_eq!(names(&new), ["projects", "root.db"]);
    assert_eq!(names(&server.path("new")), ["data"]);
    for n in [1, 2] {
        let id = ProjectId::from_bits(n);
        let place = new.join("projects").join(id.as_str());
        assert_eq!(fs::read(place.join("files/name")).unwrap(), format!("file of {n}").as_bytes());
        let (old, new) = (server.place(n).join("project.db"), place.join("project.db"));
        assert_eq!(digests(&old, None).unwrap(), digests(&new, None).unwrap());
        assert_ne!(project_facts(&new).unwrap().epoch, "before");
    }
    let listed = list_projects(&new.join("root.db")).unwrap();
    assert!(listed.iter().all(|project| project.path.is_none()));
    assert_eq!(listed[0].members[0].email, "ann@example.com");
    // The next start looks whether one of them has work to take up.
    assert_eq!(count(&new.join("root.db"), "unfinished_work"), 2);
}

fn count(path: &Path, table: &str) -> u64 {
    let sql = format!("SELECT count(*) FROM {table}");
    Connection::open(path).unwrap().query_row(&sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn what_was_being_made_or_removed_is_not_in_a_copy() {
    let server = Server::new();
    let path = server.data_dir().join("root.db");
    let root = RootDatabase::open_or_create(&path, NOW).unwrap();
    write(&root, IntendDirectory { project_id: ProjectId::from_bits(3), at: NOW });
    let backup = server.back_up(false).unwrap();
    root.close();
    assert_eq!(count(&path, "directory_intents"), 1);
    assert_eq!(count(&backup.directory.join("root.db"), "directory_intents"), 0);
}

#[test]
fn keys_come_along_when_asked_for_and_own_directories_can_be_kept() {
    let server = Server::new();
    fs::write(server.data_dir().join("master.key.previous"), "the one before").unwrap();
    let backup = server.back_up(true).unwrap();
    fs::write(server.path("elsewhere/name"), "newer").unwrap();
    let new = server.path("new");
    fs::create_dir(&new).unwrap();
    restore_server(&backup.directory, &new, OwnDirectories::Kept).unwrap();
    assert_eq!(fs::read(new.join("jwt.key")).unwrap(), b"a secret");
    assert_eq!(fs::read(new.join("master.key")).unwrap(), b"another");
    assert_eq!(fs::read(new.join("master.key.previous")).unwrap(), b"the one before");
    let listed = list_projects(&new.join("root.db")).unwrap();
    assert_eq!(listed[1].path.as_deref(), server.path("elsewhere").to_str());
    assert_eq!(fs::read(server.path("elsewhere/name")).unwrap(), b"newer");
    let place = new.join("projects").join(ProjectId::from_bits(2).as_str());
    assert!(names(&place.join("files")).is_empty());
}

#[test]
fn a_damaged_project_is_noted_and_the_others_go_on() {
    let server = Server::new();
    fs::write(server.place(1).join("project.db"), "not a database at all").unwrap();
    let backup = server.back_up(false).unwrap();
    let failed: Vec<_> = backup.manifest.failed().map(|(project, _)| &project.id).collect();
    assert_eq!(failed, [&ProjectId::from_bits(1)]);
    assert_eq!(archived(&backup.manifest), 1);
    verify_server(&backup.directory).unwrap();
    restore_server(&backup.directory, &server.path("new"), OwnDirectories::Collected).unwrap();
    assert_eq!(names(&server.path("new/projects")), [ProjectId::from_bits(2).as_str()]);
}

#[test]
fn a_root_database_that_is_damaged_gets_no_backup() {
    let server = Server::new();
    fs::write(server.data_dir().join("root.db"), "not a database at all").unwrap();
    assert!(matches!(server.back_up(false), Err(BackupError::Database(_))));
    assert!(names(&server.path("backups")).is_empty());
}

#[test]
fn a_data_directory_in_use_is_not_touched() {
    let server = Server::new();
    let backup = server.back_up(false).unwrap();
    let before = tree(&server.data_dir());
    let refused = restore_server(&backup.directory, &server.data_dir(), OwnDirectories::Collected);
    assert!(matches!(refused, Err(BackupError::Exists { .. })), "{refused:?}");
    assert_eq!(tree(&server.data_dir()), before);
}

#[test]
fn whatever_is_wrong_with_a_backup_is_found_before_anything_is_restored() {
    type Damage = fn(&Path);
    let archive =
        |directory: &Path| directory.join(format!("projects/{}.tar.zst", ProjectId::from_bits(1)));
    let damages: [(&str, Damage); 6] = [
        ("not what its hash says", |directory| {
            let conn = Connection::open(directory.join("root.db")).unwrap();
            conn.execute("UPDATE users SET is_admin = 0", []).unwrap();
        }),
        ("`root.db` is missing", |directory| fs::remove_file(directory.join("root.db")).unwrap()),
        ("is not in the manifest", |directory| {
            fs::write(directory.join("projects/extra"), "").unwrap();
        }),
        ("is not in the manifest", |directory| {
            fs::write(directory.join("extra"), "").unwrap();
        }),
        ("the path", |directory| {
            let path = directory.join("manifest.json");
            let json = fs::read_to_string(&path).unwrap();
            fs::write(path, json.replacen("\"root.db\"", "\"../root.db\"", 1)).unwrap();
        }),
        ("cannot be read", |directory| {
            fs::write(directory.join("manifest.json"), "{").unwrap();
        }),
    ];
    let refusal = |server: &Server, directory: &Path| {
        let new = server.path("new");
        let refused = restore_server(directory, &new, OwnDirectories::Collected).unwrap_err();
        assert!(matches!(refused, BackupError::Corrupt { .. }), "{refused:?}");
        assert!(!new.exists());
        refused.to_string()
    };
    for (expected, damage) in damages {
        let server = Server::new();
        let backup = server.back_up(false).unwrap();
        damage(&backup.directory);
        let found = refusal(&server, &backup.directory);
        assert!(found.contains(expected), "{expected}: {found}");
    }
    let server = Server::new();
    let backup = server.back_up(false).unwrap();
    let path = archive(&backup.directory);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(refusal(&server, &backup.directory).contains("not what its hash says"));
}

/// What was told of a backup: how many projects were done, of how many; and each stage with the bytes
/// that were to go by and those that did.
#[derive(Default)]
struct Told {
    projects: RefCell<Vec<(usize, usize)>>,
    stages: RefCell<Vec<(Stage, u64, u64)>>,
}

impl Progress for Told {
    fn project(&self, done: usize, all: usize) {
        self.projects.borrow_mut().push((done, all));
    }

    fn begin(&self, stage: Stage, bytes: u64) {
        self.stages.borrow_mut().push((stage, bytes, 0));
    }

    fn passed(&self, bytes: u64) {
        self.stages.borrow_mut().last_mut().unwrap().2 += bytes;
    }
}

#[test]
fn who_waits_is_told_how_far_it_is_until_it_is_done() {
    let server = Server::new();
    let told = Rc::new(Told::default());
    let source = ServerSource { data_dir: server.data_dir(), keys: None };
    let written = watched(Rc::clone(&told) as Rc<dyn Progress>, || {
        write_server(&source, &server.path("backups"), NOW)
    });
    // Each archive is written, and read back.
    let stages = told.stages.take();
    let kinds: Vec<Stage> = stages.iter().map(|stage| stage.0).collect();
    assert_eq!(kinds, [Stage::Writing, Stage::Reading, Stage::Writing, Stage::Reading]);
    assert!(stages.iter().all(|(_, all, passed)| all == passed && *all > 0), "{stages:?}");
    assert_eq!(told.projects.take(), [(0, 2), (1, 2)]);
    // Nobody is told of what comes later.
    verify_server(&written.unwrap().directory).unwrap();
    assert!(told.stages.take().is_empty());
}
