//! Files of a form (RFC 7578): each goes to the disk while it comes, and takes its place once all have come.

use std::time::Duration;

use actix_multipart::{Field, Multipart, MultipartError};
use actix_web::HttpRequest;
use actix_web::web::Payload;
use futures_util::StreamExt;
use iris_actors::Node;
use iris_actors::dispatch::{FileUpload, UploadAsk, begin_file_upload};
use iris_protocol::limits::UPLOAD_FILES_MAX;
use iris_protocol::{ApiError, ErrorCode, ProjectId, UploadedFile};
use tokio::time::{Instant, timeout, timeout_at};

use super::error::RestError;
use super::{claims, content_length, request_id, require_plain, undisturbed, written};

/// How long a client may send nothing of a form.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);
/// How long bytes wait until a part is full.
const PART_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a form may take.
const FORM_TIMEOUT: Duration = Duration::from_hours(1);
/// What a form may have besides its files, for each of its parts, in bytes.
const PART_HEAD_BYTES: u64 = 4 * 1024;
/// Largest field that is no file, in bytes.
const TEXT_BYTES_MAX: usize = 4 * 1024;
/// The field whose text is the directory of the files behind it.
const DIRECTORY: &str = "directory";
/// The field of a file that says its path in `filename`; any other one is the path by its own name.
const FILE: &str = "file";

/// Receives a form and writes its files. Says too whether this is the answer to an earlier one with the same
/// idempotency key.
pub(super) async fn receive(
    node: &Node,
    request: &HttpRequest,
    payload: Payload,
    project_id: ProjectId,
    idempotency_key: Option<String>,
) -> Result<(Vec<UploadedFile>, bool), RestError> {
    let claims = claims(node, request).await?;
    let ask = UploadAsk { claims, project_id, request_id: request_id(request) };
    let mut upload = begin_file_upload(node, ask).await?;
    let bytes_max = upload.bytes_max() + UPLOAD_FILES_MAX as u64 * PART_HEAD_BYTES;
    if content_length(request).is_some_and(|length| length as u64 > bytes_max) {
        let message = format!("the form is larger than {bytes_max} bytes");
        return Err(ApiError::new(ErrorCode::PayloadTooLarge, message).into());
    }
    require_plain(request)?;
    let mut form = Form {
        parts: Multipart::new(request.headers(), payload),
        deadline: Instant::now() + FORM_TIMEOUT,
    };
    let mut directory = String::new();
    while let Some(field) = form.next().await? {
        match described(&field)? {
            Described::Directory => directory = form.text(field).await?,
            Described::File(path) => {
                let path = if directory.is_empty() { path } else { format!("{directory}/{path}") };
                written::check_path(&path)?;
                upload.begin(&path).await?;
                form.file(field, &mut upload).await?;
            }
        }
    }
    Ok(undisturbed(upload.commit(idempotency_key)).await?)
}

/// What a field is.
enum Described {
    Directory,
    /// A file, by its path.
    File(String),
}

fn described(field: &Field) -> Result<Described, ApiError> {
    let disposition = field.content_disposition();
    let file_name = disposition.and_then(|disposition| disposition.get_filename());
    match (field.name().unwrap_or_default(), file_name) {
        (DIRECTORY, None) => Ok(Described::Directory),
        (name, Some(path)) => {
            Ok(Described::File(if name == FILE { path } else { name }.to_owned()))
        }
        (name, None) => {
            let error = ApiError::invalid("a field of the form is no file and not `directory`");
            Err(error.reason("unknown_field").detail("field", name))
        }
    }
}

struct Form {
    parts: Multipart,
    deadline: Instant,
}

impl Form {
    async fn next(&mut self) -> Result<Option<Field>, ApiError> {
        in_time(self.deadline, self.parts.next()).await?.transpose().map_err(broken)
    }

    async fn text(&self, mut field: Field) -> Result<String, ApiError> {
        let mut text = Vec::new();
        while let Some(bytes) = in_time(self.deadline, field.next()).await? {
            text.extend_from_slice(&bytes.map_err(broken)?);
            if text.len() > TEXT_BYTES_MAX {
                let message = format!("a field is longer than {TEXT_BYTES_MAX} bytes");
                return Err(ApiError::new(ErrorCode::PayloadTooLarge, message));
            }
        }
        String::from_utf8(text).map_err(|_| ApiError::invalid("a field is not UTF-8"))
    }

    /// Passes a file on, in parts of one size, so that small chunks cost no more than large ones. What comes
    /// slowly is passed on before: who receives it gives up what it hears nothing of.
    async fn file(&self, mut field: Field, upload: &mut FileUpload) -> Result<(), ApiError> {
        let part_bytes = upload.part_bytes();
        let mut part = Vec::with_capacity(part_bytes);
        let mut passed_on = Instant::now();
        while let Some(bytes) = in_time(self.deadline, field.next()).await? {
            let bytes = bytes.map_err(broken)?;
            part.extend_from_slice(&bytes);
            if part.len() >= part_bytes || passed_on.elapsed() >= PART_TIMEOUT {
                passed_on = Instant::now();
                let full = std::mem::replace(&mut part, Vec::with_capacity(part_bytes));
                upload.part(full).await?;
            }
        }
        if !part.is_empty() {
            upload.part(part).await?;
        }
        upload.written().await;
        Ok(())
    }
}

async fn in_time<T>(
    deadline: Instant,
    next: impl Future<Output = Option<T>>,
) -> Result<Option<T>, ApiError> {
    match timeout_at(deadline, timeout(CHUNK_TIMEOUT, next)).await {
        Ok(Ok(next)) => Ok(next),
        Ok(Err(_)) | Err(_) => {
            Err(ApiError::new(ErrorCode::DeadlineExceeded, "the form took too long to arrive"))
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
fn broken(error: MultipartError) -> ApiError {
    let is_none = matches!(
        error,
        MultipartError::ContentTypeMissing
            | MultipartError::ContentTypeParse
            | MultipartError::ContentTypeIncompatible
    );
    if is_none {
        let message = "the body must be `multipart/form-data`";
        return ApiError::new(ErrorCode::UnsupportedMediaType, message);
    }
    ApiError::invalid(format!("the form is broken: {error}")).reason("invalid_form")
}
