//! Files that are locked, changed and put back.

use iris_protocol::{
    FileLockTake, FileUnlock, ProjectId, SnapshotCreate, SnapshotId, SnapshotRestore,
};

use crate::player::Player;

pub(super) async fn files(player: &Player<'_>, project: &ProjectId) {
    let (client, id) = (&player.person.client, Some(project));
    let path = || "b.txt".to_owned();
    let lock = async || {
        let request = FileLockTake { path: path(), scope: None, ttl_ms: None, take_over: None };
        Ok(client.call(id, request).await?)
    };
    player.insist("file.lock", lock).await;
    let keep = async || Ok(client.call(id, SnapshotCreate {}).await?.snapshot.id);
    let snapshot_id: SnapshotId = player.insist("snapshot.create", keep).await;
    let put = async || Ok(client.file_put(project, "b.txt", "another").await?);
    player.insist("file.write", put).await;
    let restore = async || {
        let request = SnapshotRestore { snapshot_id: snapshot_id.clone() };
        Ok(client.call(id, request).await?)
    };
    player.insist("snapshot.restore", restore).await;
    let get = async || Ok(client.file_get(project, "b.txt").await?);
    assert_eq!(player.insist("file.read", get).await, "hello");
    let unlock = async || Ok(client.call(id, FileUnlock { path: path() }).await?);
    player.insist_done("file.unlock", unlock).await;
}
