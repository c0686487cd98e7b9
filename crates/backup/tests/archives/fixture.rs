//! A project in a temporary directory, with a bit of everything in it, and short ways to change it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use iris_backup::{ArchiveInfo, ArchivedMember, BackupError, ProjectAbout, ProjectSource};
use iris_protocol::{Event, ProjectId, ProjectType, Role, Room, UserId};
use iris_store::maintenance::{Digests, digests};
use iris_store::{Command, ProjectDatabase, StoreError, WriteContext, WriteTx};
use rusqlite::{Connection, params};
use serde_json::json;
use tempfile::TempDir;

/// A time: 2026-09-21 in milliseconds since 1970 UTC.
pub(crate) const NOW: i64 = 1_790_000_000_000;

pub(crate) fn project_id() -> ProjectId {
    ProjectId::from_bits(1)
}

pub(crate) fn ann() -> UserId {
    UserId::from_bits(1)
}

pub(crate) fn bob() -> UserId {
    UserId::from_bits(2)
}

pub(crate) fn about() -> ProjectAbout {
    let member = |user_id, name: &str, role| ArchivedMember {
        user_id,
        email: format!("{name}@example.com"),
        username: name.to_owned(),
        role,
    };
    ProjectAbout {
        name: "notes".to_owned(),
        description: Some("what we know".to_owned()),
        settings: json!({ "theme": "dark", "ratio": 0.1, "far": 1.797_693_134_862_315_7e308 })
            .as_object()
            .unwrap()
            .clone(),
        project_type: ProjectType::Local,
        git: None,
        created_at: NOW,
        members: vec![member(ann(), "ann", Role::Owner), member(bob(), "bob", Role::Member)],
    }
}

pub(crate) struct Fixture {
    directory: TempDir,
}

impl Fixture {
    /// A project with an empty database and without files.
    pub(crate) fn empty() -> Self {
        let fixture = Self { directory: tempfile::tempdir().unwrap() };
        fs::create_dir_all(fixture.files()).unwrap();
        fs::create_dir(fixture.path("archives")).unwrap();
        ProjectDatabase::create(&fixture.database(), &project_id(), "epoch", NOW).unwrap();
        fixture
    }

    /// With messages, events and files.
    pub(crate) fn new() -> Self {
        let fixture = Self::empty();
        fixture.talk(20);
        fixture.put("readme.md", b"# notes");
        fixture.put("src/main.rs", b"fn main() {}");
        fixture.put("src/empty", b"");
        fs::create_dir(fixture.files().join("nothing")).unwrap();
        fixture
    }

    /// A path in the temporary directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.path("project/project.db")
    }

    pub(crate) fn files(&self) -> PathBuf {
        self.path("project/files")
    }

    pub(crate) fn put(&self, path: &str, content: &[u8]) {
        let path = self.files().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn conn(&self) -> Connection {
        Connection::open(self.database()).unwrap()
    }

    /// A session with this many messages, a reply kept for a repeat, and an event of a member.
    pub(crate) fn talk(&self, messages: u32) {
        let conn = self.conn();
        conn.execute_batch("PRAGMA synchronous = OFF; BEGIN").unwrap();
        conn.execute(
            "INSERT INTO sessions (id, title, agent, mode, status, state, created_by, created_at,
                 updated_at, message_count, usage)
             VALUES ('ses_1', ?1, 'default', 'default', 'active', 'idle', ?2, 1, 1, ?3, '{}')",
            params![format!("what {} said", ann()), ann().as_str(), messages],
        )
        .unwrap();
        for n in 0..messages {
            conn.prepare_cached(
                "INSERT INTO messages (id, session_id, run_id, run_number, place, role, state,
                     created_by, created_at)
                 VALUES (?1, 'ses_1', ?2, ?3, 0, 'user', 'complete', ?4, 1)",
            )
            .unwrap()
            .execute(params![format!("msg_{n}"), format!("run_{n}"), n, ann().as_str()])
            .unwrap();
            let body = json!({
                "type": "text", "text": format!("{n}: I am {}", ann()), "by": ann(),
                "input": { "userId": ann() }, "number": 1.5,
            });
            conn.prepare_cached(
                "INSERT INTO message_parts (id, message_id, ordinal, body) VALUES (?1, ?2, 0, ?3)",
            )
            .unwrap()
            .execute(params![
                format!("prt_{n}"),
                format!("msg_{n}"),
                // As no serialiser writes it, to see that it stays.
                body.to_string().replace("1.5}", "1.50}")
            ])
            .unwrap();
        }
        conn.execute(
            "INSERT INTO idempotency (user_id, operation, key, body_hash, output, at)
             VALUES (?1, 'session.create', 'key', 'hash', 'KEPT-ANSWER', 1)",
            [ann().as_str()],
        )
        .unwrap();
        conn.execute_batch("COMMIT").unwrap();
        drop(conn);
        let database = ProjectDatabase::open(&self.database(), &project_id(), |_| {}).unwrap();
        let receipt = database.writer().submit(member_removed(bob()), WriteContext::default());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(receipt).unwrap();
        database.close();
    }

    pub(crate) fn source(&self) -> ProjectSource {
        ProjectSource {
            id: project_id(),
            database: self.database(),
            files: self.files(),
            about: about(),
        }
    }

    pub(crate) fn archive(&self, name: &str) -> Result<ArchiveInfo, BackupError> {
        iris_backup::write_project(&self.source(), &self.archived(name), NOW)
    }

    pub(crate) fn archived(&self, name: &str) -> PathBuf {
        self.path("archives").join(name)
    }

    pub(crate) fn rows(&self) -> Digests {
        digests(&self.database(), None).unwrap()
    }
}

/// Says in the project's log that somebody is no member any more.
pub(crate) struct TellRemoved(UserId);

impl Command for TellRemoved {
    type Output = ();

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let event = Event::MemberRemoved { user_id: self.0 };
        tx.publish(Room::Project(project_id()), NOW, Some(&ann()), &event).map(drop)
    }
}

pub(crate) fn member_removed(user_id: UserId) -> TellRemoved {
    TellRemoved(user_id)
}

/// What lies below a directory: `None` for a directory, the content of a file.
pub(crate) fn tree(root: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    fn add(root: &Path, at: &Path, found: &mut BTreeMap<PathBuf, Option<Vec<u8>>>) {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_owned();
            if path.is_dir() {
                found.insert(name, None);
                add(root, &path, found);
            } else {
                found.insert(name, Some(fs::read(&path).unwrap()));
            }
        }
    }
    let mut found = BTreeMap::new();
    add(root, root, &mut found);
    found
}

/// The names in a directory, sorted.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
