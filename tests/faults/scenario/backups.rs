//! Archives: backups of a project and of the server, restore, export, import.

use iris_client::ClientError;
use iris_protocol::{
    BackupDelete, BackupList, Project, ProjectBackup, ProjectExport, ProjectId, ProjectRestore,
    ServerBackup,
};

use super::delete_project;
use crate::player::Player;

pub(super) async fn backups(player: &Player<'_>) {
    let project = player.project().await;
    player.session(&project).await;
    let (client, id) = (&player.person.client, Some(&project));
    let make = async || Ok(client.call(id, ProjectBackup {}).await?.backup.id);
    let backup = player.insist("project.backup", make).await;
    let list = async || Ok(client.call(id, BackupList {}).await?.backups.len());
    assert!(player.insist("project.backup.list", list).await >= 1);
    let restore = async || {
        client.call(id, ProjectRestore { backup_id: backup.clone() }).await?;
        Ok(())
    };
    player.insist("project.restore", restore).await;
    player.session(&project).await;
    let imported = import(player, &project).await;
    let delete = async || {
        client.call(id, BackupDelete { backup_id: backup.clone() }).await?;
        Ok(())
    };
    player.insist_done("project.backup.delete", delete).await;
    let server = async || {
        let operator = &player.operator.client;
        let token = operator.token();
        let answer = operator.rest("POST", "/v1/admin/backup", token.as_deref(), None).await?;
        Ok(answer.data::<ServerBackup>()?)
    };
    let server = player.insist("admin.backup.create", server).await;
    assert_eq!(server.failed, []);
    for project in [&project, &imported] {
        delete_project(player, project).await;
    }
}

/// Exports the project, downloads the archive and makes another project of it.
async fn import(player: &Player<'_>, project: &ProjectId) -> ProjectId {
    let client = &player.person.client;
    let export = async || Ok(client.call(Some(project), ProjectExport {}).await?.backup.id);
    let export = player.insist("project.export", export).await;
    let path = format!("/v1/projects/{project}/backups/{export}/content");
    let download = async || {
        let answer = client.rest("GET", &path, client.token().as_deref(), None).await?;
        match answer.error() {
            Some(error) => Err(ClientError::Api(error).into()),
            None => Ok(answer.body),
        }
    };
    let archive = player.insist("project.backup.read", download).await;
    let import = async || {
        let (path, token) = ("/v1/projects/import", client.token());
        let answer = client.raw("POST", path, token.as_deref(), &[], archive.clone()).await?;
        Ok(answer.data::<Project>()?.id)
    };
    player.insist("project.import", import).await
}
