//! Archives of projects as bodies: downloads part by part, uploads into a file.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_LENGTH, ETAG};
use actix_web::web::Payload;
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use iris_actors::Node;
use iris_actors::dispatch::{
    self, BackupAsk, Download, ImportAsk, Upload, begin_upload, disk_failed, download,
};
use iris_protocol::{ApiError, Command, ErrorCode, Operation, ProjectId};
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};

use super::error::RestError;
use super::parts::body_of;
use super::ranges::{Asked, content_range, not_satisfiable};
use super::{claims, request_id, undisturbed};

/// How long a client may send nothing of an archive.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an upload may take.
const UPLOAD_TIMEOUT: Duration = Duration::from_hours(1);
/// Chunks of an upload that may wait for the disk.
const CHUNKS_WAITING_MAX: usize = 8;

/// Answers an archive, or the one range of it that is asked for (RFC 9110 section 14).
pub(super) async fn download_backup(
    node: &Node,
    request: &HttpRequest,
    project_id: ProjectId,
    fields: Map<String, Value>,
) -> Result<HttpResponse, RestError> {
    let Command::BackupRead(read) = Command::decode(Operation::BackupRead, fields.into())? else {
        return Err(ApiError::not_found("route").into());
    };
    let claims = claims(node, request).await?;
    let (backup_id, request_id) = (read.backup_id, request_id(request));
    let ask = BackupAsk { claims, project_id, backup_id, request_id: request_id.clone() };
    let download = download(node, ask).await?;
    let (total, sha256) = (download.backup.bytes, download.backup.sha256.clone());
    let etag = format!("\"{sha256}\"");
    let mut response = HttpResponse::Ok();
    let (first, end) = match Asked::of(request, &etag, total) {
        Asked::Whole => (0, total),
        Asked::Part(first, end) => {
            response.status(StatusCode::PARTIAL_CONTENT);
            response.insert_header(content_range(first, end, total));
            (first, end)
        }
        Asked::Beyond => return Ok(not_satisfiable(total, request_id)),
    };
    let length = end - first;
    let name = format!("{}.tar.zst", download.backup.id);
    response
        .content_type("application/zstd")
        .insert_header((ETAG, etag))
        .insert_header(("Accept-Ranges", "bytes"))
        .insert_header(("Content-Disposition", format!("attachment; filename=\"{name}\"")));
    let stall = node.services.settings.answer_stall;
    Ok(response.body(body_of(request, stall, length, bytes_of(download, first, length))))
}

fn bytes_of(
    download: Download,
    first: u64,
    length: u64,
) -> impl Stream<Item = Result<Bytes, ApiError>> {
    let end = first + length;
    stream::try_unfold((download, first), move |(download, offset)| async move {
        if offset >= end {
            return Ok(None);
        }
        let bytes = download.part(offset, end - offset).await?;
        let next = offset + bytes.len() as u64;
        Ok(Some((Bytes::from(bytes), (download, next))))
    })
}

/// Receives an archive and creates a project from it. Says too whether it was a repeat.
pub(super) async fn import_project(
    node: &Node,
    request: &HttpRequest,
    payload: Payload,
    fields: Map<String, Value>,
    idempotency_key: Option<String>,
) -> Result<(iris_protocol::Project, bool), RestError> {
    let command = Command::decode(Operation::ProjectImport, fields.into())?;
    let Command::ProjectImport(import) = command else {
        return Err(ApiError::not_found("route").into());
    };
    let claims = claims(node, request).await?;
    let upload = begin_upload(node, claims.as_ref()).await?;
    let bytes_max = upload.bytes_max;
    if let Some(length) = request.headers().get(CONTENT_LENGTH)
        && let Ok(length) = length.to_str().unwrap_or_default().parse::<u64>()
        && length > bytes_max
    {
        return Err(too_large(bytes_max).into());
    }
    let archive = receive(upload, payload).await?;
    let ask = ImportAsk {
        claims,
        id: import.id,
        members: import.members,
        archive,
        idempotency_key,
        request_id: request_id(request),
    };
    let node = node.clone();
    Ok(undisturbed(async move { dispatch::import(&node, ask).await }).await?)
}

fn too_large(bytes_max: u64) -> ApiError {
    let message = format!("the archive is larger than {bytes_max} bytes");
    ApiError::new(ErrorCode::PayloadTooLarge, message)
}

fn too_slow() -> ApiError {
    ApiError::new(ErrorCode::DeadlineExceeded, "the archive took too long to arrive")
}

/// Writes the body into the file of an upload, on a thread that may wait for the disk.
async fn receive(upload: Upload, mut payload: Payload) -> Result<iris_actors::NewFile, ApiError> {
    let (chunks, waiting) = mpsc::channel(CHUNKS_WAITING_MAX);
    let file = upload.file.try_clone().map_err(disk_failed)?;
    let written = spawn_blocking(move || write_all(file, waiting));
    let deadline = Instant::now() + UPLOAD_TIMEOUT;
    let mut length = 0;
    loop {
        let next = timeout_at(deadline, timeout(CHUNK_TIMEOUT, payload.next())).await;
        let Ok(Ok(next)) = next else { return Err(too_slow()) };
        let Some(chunk) = next else { break };
        let chunk = chunk.map_err(|error| ApiError::invalid(format!("broken body: {error}")))?;
        length += chunk.len() as u64;
        if length > upload.bytes_max {
            return Err(too_large(upload.bytes_max));
        }
        upload.check_space()?;
        if chunks.send(chunk).await.is_err() {
            // The writer failed; it says why.
            break;
        }
    }
    drop(chunks);
    let written = written.await.map_err(|_| ApiError::from(ErrorCode::Internal))?;
    written.map_err(disk_failed)?;
    Ok(upload.archive)
}

fn write_all(mut file: File, mut chunks: mpsc::Receiver<Bytes>) -> std::io::Result<()> {
    while let Some(chunk) = chunks.blocking_recv() {
        file.write_all(&chunk)?;
    }
    file.flush()
}
