//! Root databases of every released schema: opened, brought to the newest one, read whole.

use std::fs;
use std::path::{Path, PathBuf};

use iris_protocol::{Member, Project, User};
use iris_store::RootDatabase;
use iris_store::WriteContext;
use iris_store::root::SupervisionQuery;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::{NOW, create_user};

fn migrations() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/root")
}

fn newest() -> usize {
    fs::read_dir(migrations()).unwrap().count()
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// What the server answered whose rows are in all of them.
#[derive(Deserialize)]
struct Answers {
    user: User,
    projects: Vec<Project>,
    members: Vec<Member>,
}

fn released() -> impl Iterator<Item = usize> {
    (1..=newest()).filter(|schema| fixture(&format!("root-{schema}.db")).exists())
}

#[tokio::test]
async fn a_root_database_of_each_released_schema_is_brought_up_to_date_and_reads_as_it_did() {
    let text = fs::read(fixture("root-2.json")).unwrap();
    let Answers { user, projects, members } = serde_json::from_slice(&text).unwrap();
    for schema in released() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("root.db");
        fs::copy(fixture(&format!("root-{schema}.db")), &path).unwrap();
        let database = RootDatabase::open_or_create(&path, NOW).unwrap();
        let reader = database.reader();
        assert!(reader.has_admin().await.unwrap());
        assert_eq!(reader.user(&user.id).await.unwrap().as_ref(), Some(&user));
        let found = reader.projects(&user.id, 100, None, true).await.unwrap();
        assert_eq!(found.projects, projects);
        for project in &projects {
            assert_eq!(reader.members(&project.id).await.unwrap(), members);
        }
        let query = SupervisionQuery { limit: 10, ..SupervisionQuery::default() };
        reader.supervision(query).await.unwrap();
        let audited = reader.audit(10).await.unwrap();
        assert_eq!(audited.is_empty(), schema == 1, "one order was given in schema 2");
        database.writer().submit(create_user(9), WriteContext::default()).await.unwrap();
        database.close();
        let copy = directory.path().join(format!("root.db.before-migration-{}", schema + 1));
        assert_eq!(copy.exists(), schema < newest());
    }
}

#[test]
fn every_root_schema_that_was_released_has_a_database() {
    assert!(released().eq(1..=newest()) || released().eq(1..newest()));
    assert!(released().count() >= 2);
}

#[test]
fn no_released_migration_of_the_root_was_changed() {
    let released = [
        (
            "0001_users_and_projects.sql",
            "896bbd043166a4c8166a7703a571eabbfe77ed75312f7e449623c8365663337b",
        ),
        (
            "0002_supervision.sql",
            "39207327213a40ad2a380e79ecfedfa2afe969dcf8f4a447c23ef254c47b116b",
        ),
    ];
    for (name, expected) in released {
        let bytes = fs::read(migrations().join(name)).unwrap();
        let found = Sha256::digest(bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<Vec<_>>()
            .concat();
        assert_eq!(found, expected, "{name}");
    }
}
