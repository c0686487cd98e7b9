//! Files that are locked, changed and put back.

use iris_client::{ClientError, ConnectOptions};
use iris_protocol::{
    FileLockTake, FileUnlock, ProjectId, SnapshotCreate, SnapshotId, SnapshotRestore, UploadBegin,
    UploadCommit, UploadedFile,
};

use crate::player::Player;

/// A form with one file.
const FORM: &str = "--x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"b.txt\"\r\n\r\n\
                    uploaded\r\n--x--\r\n";

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
    let upload = async || {
        let headers = [("content-type", "multipart/form-data; boundary=x")];
        let (path, token) = (format!("/v1/projects/{project}/uploads"), client.token());
        let sent = client.raw("POST", &path, token.as_deref(), &headers, FORM.into()).await?;
        let error = sent.data::<Vec<UploadedFile>>()?.into_iter().find_map(|file| file.error);
        error.map_or(Ok(()), |error| Err(ClientError::Api(error).into()))
    };
    player.insist("file.upload", upload).await;
    // One without bytes needs no chunks.
    let send = async || {
        let socket = client.connect(&ConnectOptions::default()).await?;
        let (path, sha256) = ("c.txt".to_owned(), iris_workspace::content_hash(b""));
        let begin = UploadBegin { path, size: 0, sha256, version: None };
        let stream = socket.call(id, begin).await?.payload.stream;
        Ok(socket.call(id, UploadCommit { stream }).await?)
    };
    player.insist("upload.commit", send).await;
    let restore = async || {
        let request = SnapshotRestore { snapshot_id: snapshot_id.clone(), skip_unkept: None };
        Ok(client.call(id, request).await?)
    };
    player.insist("snapshot.restore", restore).await;
    let get = async || Ok(client.file_get(project, "b.txt").await?);
    assert_eq!(player.insist("file.read", get).await, "hello");
    let unlock = async || Ok(client.call(id, FileUnlock { path: path() }).await?);
    player.insist_done("file.unlock", unlock).await;
}
