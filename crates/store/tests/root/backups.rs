//! What is known of backups, and projects that come from archives.

use iris_protocol::{
    Backup, BackupId, BackupKind, ErrorCode, ProjectType, Role, limits::BACKUPS_MAX,
};
use iris_store::root::{
    AcceptImport, BackupState, DeleteBackup, DeleteProject, ImportProject, LastBackup, RecordAudit,
    RecordBackup, StoredBackup,
};
use serde_json::{Map, json};

use crate::{NOW, Root, conflict, missing, project_id, user_id};

fn backup(n: u128, kind: BackupKind) -> Backup {
    Backup {
        id: BackupId::from_bits(n),
        project_id: project_id(1),
        kind,
        at: NOW + i64::try_from(n).unwrap(),
        bytes: 100,
        sha256: "0f".repeat(32),
        seq: u64::try_from(n).unwrap(),
        epoch: "epoch".to_owned(),
        by: (kind != BackupKind::Scheduled).then(|| user_id(1)),
        verified_at: NOW + 5,
        expires_at: (kind == BackupKind::Export).then_some(NOW + 1_000),
    }
}

fn stored(backup: Backup) -> StoredBackup {
    let file = format!("{}.tar.zst", backup.id);
    StoredBackup { backup, file }
}

fn record(n: u128, kind: BackupKind) -> RecordBackup {
    let StoredBackup { backup, file } = stored(backup(n, kind));
    RecordBackup { backup, file, audit: None }
}

fn audit(action: &str) -> RecordAudit {
    RecordAudit {
        at: NOW,
        user_id: Some(user_id(1)),
        action: action.to_owned(),
        target: project_id(1).to_string(),
        request_id: None,
        details: json!({}),
        ..RecordAudit::default()
    }
}

async fn with_project() -> Root {
    let root = Root::new();
    root.user(1).await;
    root.project(1, 1).await;
    root
}

#[tokio::test]
async fn backups_are_listed_newest_first_and_found_in_their_project_alone() {
    let root = with_project().await;
    root.project(2, 1).await;
    let kinds = [
        (1, BackupKind::Manual),
        (2, BackupKind::Scheduled),
        (3, BackupKind::Export),
        (4, BackupKind::Safety),
    ];
    for (n, kind) in kinds {
        assert_eq!(root.run(record(n, kind)).await.unwrap(), backup(n, kind));
    }
    let expected = kinds.iter().rev().map(|(n, kind)| stored(backup(*n, *kind)));
    let expected: Vec<_> = expected.collect();
    assert_eq!(root.reader.backups(&project_id(1)).await.unwrap(), expected);
    assert_eq!(root.reader.backups(&project_id(2)).await.unwrap(), []);
    let id = BackupId::from_bits(1);
    let found = root.reader.backup(&project_id(1), &id).await.unwrap();
    assert_eq!(found, Some(stored(backup(1, BackupKind::Manual))));
    assert_eq!(root.reader.backup(&project_id(2), &id).await.unwrap(), None);

    let delete = |project| DeleteBackup { project_id: project_id(project), id: id.clone() };
    assert_eq!(missing(root.run(delete(2)).await), "backup");
    assert_eq!(root.run(delete(1)).await.unwrap(), format!("{id}.tar.zst"));
    assert_eq!(missing(root.run(delete(1)).await), "backup");
}

#[tokio::test]
async fn an_export_expires_and_nothing_else_does() {
    let root = with_project().await;
    root.run(record(1, BackupKind::Export)).await.unwrap();
    root.run(record(2, BackupKind::Manual)).await.unwrap();
    assert_eq!(root.reader.expired_backups(NOW + 999).await.unwrap(), []);
    let expired = root.reader.expired_backups(NOW + 1_000).await.unwrap();
    assert_eq!(expired, [stored(backup(1, BackupKind::Export))]);
}

#[tokio::test]
async fn where_the_newest_backup_ends_is_known_of_every_project() {
    let root = with_project().await;
    root.project(2, 1).await;
    root.run(record(3, BackupKind::Scheduled)).await.unwrap();
    root.run(record(4, BackupKind::Manual)).await.unwrap();
    // They are about to go, or of what was left behind.
    root.run(record(5, BackupKind::Export)).await.unwrap();
    root.run(record(6, BackupKind::Safety)).await.unwrap();
    let last = LastBackup { at: NOW + 4, epoch: "epoch".to_owned(), seq: 4 };
    let expected = [
        BackupState { project_id: project_id(1), last: Some(last) },
        BackupState { project_id: project_id(2), last: None },
    ];
    assert_eq!(root.reader.backup_states().await.unwrap(), expected);
}

#[tokio::test]
async fn people_are_bounded_in_backups_and_the_server_is_not() {
    let root = with_project().await;
    for n in 0..BACKUPS_MAX as u128 {
        root.run(record(10_000 + n, BackupKind::Scheduled)).await.unwrap();
        root.run(record(20_000 + n, BackupKind::Safety)).await.unwrap();
    }
    // Those of the server leave people all of theirs.
    for n in 0..BACKUPS_MAX as u128 {
        root.run(record(n, BackupKind::Manual)).await.unwrap();
    }
    for kind in [BackupKind::Manual, BackupKind::Export] {
        assert_eq!(conflict(root.run(record(1_000, kind)).await), "too_many_backups");
    }
    root.run(record(1_001, BackupKind::Scheduled)).await.unwrap();
    root.run(record(1_002, BackupKind::Safety)).await.unwrap();
}

#[tokio::test]
async fn backups_go_with_their_project_and_come_to_none_that_is_gone() {
    let root = with_project().await;
    root.run(record(1, BackupKind::Manual)).await.unwrap();
    root.run(DeleteProject { id: project_id(1), keep_backups: false, at: NOW }).await.unwrap();
    assert_eq!(root.reader.all_backups().await.unwrap(), []);
    let command =
        RecordBackup { audit: Some(audit("project.export")), ..record(2, BackupKind::Export) };
    assert_eq!(missing(root.run(command).await), "project");
    assert_eq!(root.reader.audit(1).await.unwrap(), []);
}

#[tokio::test]
async fn an_import_is_a_project_with_an_entry_in_the_audit() {
    let root = Root::new();
    root.user(1).await;
    root.user(2).await;
    let command = || AcceptImport {
        import: ImportProject {
            id: project_id(7),
            owner_id: user_id(1),
            name: "imported".to_owned(),
            description: None,
            settings: Map::new(),
            r#type: ProjectType::Local,
            git: None,
            created_at: NOW - 1,
            members: vec![(user_id(2), Role::Owner)],
            at: NOW,
        },
        audit: audit("project.import"),
    };
    let project = root.run(command()).await.unwrap();
    assert_eq!(
        (project.id, project.role, project.created_at),
        (project_id(7), Role::Owner, NOW - 1)
    );
    let members = root.reader.members(&project_id(7)).await.unwrap();
    let roles: Vec<_> = members.iter().map(|member| (&member.user_id, member.role)).collect();
    assert_eq!(roles, [(&user_id(1), Role::Owner), (&user_id(2), Role::Admin)]);
    assert_eq!(root.reader.audit(2).await.unwrap().len(), 1);
    assert_eq!(conflict(root.run(command()).await), "project_exists");
    assert_eq!(root.reader.audit(2).await.unwrap().len(), 1);
    let listed = root.reader.listed_project(&project_id(7)).await.unwrap().unwrap();
    assert_eq!((listed.name.as_str(), listed.members.len()), ("imported", 2));
    assert_eq!(root.reader.listed_project(&project_id(8)).await.unwrap(), None);
    let error = root.run(command()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Conflict);
}
