//! Files that go with a message: read when it comes, looked at, and bound to it with what they hold then.

use std::borrow::Cow;

use iris_protocol::limits::{
    ATTACHED_IMAGES_BYTES_MAX, ATTACHED_IMAGES_MAX, ATTACHED_TEXT_BYTES_MAX, ATTACHMENTS_BYTES_MAX,
    FILE_BYTES_MAX, IMAGE_BYTES_MAX, IMAGE_SIDE_MAX,
};
use iris_protocol::{
    ApiError, AttachmentGiven, AttachmentPart, ErrorCode, ModelRef, PartId,
    Session as SessionResource,
};
use iris_redact::Redactor;
use iris_store::project::AttachedFile;
use iris_workspace::content_hash;

use super::{SessionPlace, answerer};
use crate::Services;
use crate::dispatch::{FileBytes, mime_type, read_bytes, read_version};

/// A file that is to go with a message.
#[derive(Debug, Clone)]
pub(crate) enum Attached {
    /// One of the project.
    File {
        path: String,
        /// As it is now without one.
        version: Option<u64>,
    },
    /// One that came with the request.
    Data { name: String, bytes: Vec<u8> },
}

/// A file and what it holds.
struct Found {
    name: String,
    path: Option<String>,
    version: Option<u64>,
    bytes: Vec<u8>,
}

/// Reads what goes with a message, once it is known who answers that.
///
/// # Errors
/// As [`answerer`]; those of reading files; `PAYLOAD_TOO_LARGE` and `UNSUPPORTED_MEDIA_TYPE` for what cannot go
/// with a message; `MODEL_UNAVAILABLE` for images that the model is not shown.
pub(super) async fn attach(
    place: &SessionPlace,
    session: &SessionResource,
    attached: Vec<Attached>,
) -> Result<Vec<AttachedFile>, ApiError> {
    let answerer = answerer(place, session).await?;
    let (mut files, mut bytes) = (Vec::with_capacity(attached.len()), 0);
    for one in attached {
        let found = find(place, one).await?;
        bytes += found.bytes.len();
        if bytes > ATTACHMENTS_BYTES_MAX {
            let most = ATTACHMENTS_BYTES_MAX;
            let message = format!("the attachments have more than {most} bytes together");
            return Err(too_large(message, "attachments_too_large"));
        }
        let id = PartId::from_bits(place.services.ids.next_bits());
        let secrets = place.project.kept.secrets.clone();
        let looked_at = tokio::task::spawn_blocking(move || look_at(found, id, &secrets)).await;
        files.push(looked_at.map_err(|_| ApiError::from(ErrorCode::Internal))??);
    }
    check_images(&files, &place.services, &answerer.model)?;
    Ok(files)
}

async fn find(place: &SessionPlace, attached: Attached) -> Result<Found, ApiError> {
    let (path, version) = match attached {
        Attached::Data { name, bytes } => {
            return Ok(Found { name, path: None, version: None, bytes });
        }
        Attached::File { path, version } => (path, version),
    };
    let project = &place.project;
    let FileBytes { file, bytes } = match version {
        Some(version) => read_version(project, path, version).await?,
        None => read_bytes(project, path, FILE_BYTES_MAX as u64, u64::MAX).await?,
    };
    let name = file.path.rsplit('/').next().unwrap_or_default().to_owned();
    // What nobody recorded yet has no version.
    let version = Some(file.version).filter(|version| *version > 0);
    Ok(Found { name, path: Some(file.path), version, bytes })
}

/// Finds out what a file is and what a model gets of it. Secrets in texts of the project are hidden, as in
/// what tools read; what people send themselves stays as it is.
fn look_at(found: Found, id: PartId, secrets: &Redactor) -> Result<AttachedFile, ApiError> {
    let Found { name, path, version, mut bytes } = found;
    let mime_type = mime_type(&bytes);
    let given = match mime_type {
        "text/plain" if bytes.len() <= ATTACHED_TEXT_BYTES_MAX => AttachmentGiven::Text,
        image if image.starts_with("image/") => AttachmentGiven::Image,
        _ => AttachmentGiven::Named,
    };
    if given == AttachmentGiven::Text
        && path.is_some()
        && let Ok(text) = std::str::from_utf8(&bytes)
        && let Cow::Owned(masked) = secrets.mask(text)
    {
        bytes = masked.into_bytes();
    }
    if given == AttachmentGiven::Image {
        check_image(&name, &bytes)?;
    }
    let part = AttachmentPart {
        id,
        name,
        path,
        version,
        mime_type: mime_type.to_owned(),
        size: bytes.len() as u64,
        hash: content_hash(&bytes),
        given,
    };
    Ok(AttachedFile { part, bytes })
}

/// Refuses an image that no provider would take: then every question of the session would fail.
fn check_image(name: &str, bytes: &[u8]) -> Result<(), ApiError> {
    let size = imagesize::blob_size(bytes).map_err(|_| {
        let message = format!("`{name}` begins like an image and is none");
        ApiError::new(ErrorCode::UnsupportedMediaType, message).reason("invalid_image")
    })?;
    let longest = size.width.max(size.height);
    if bytes.len() as u64 <= IMAGE_BYTES_MAX && longest <= IMAGE_SIDE_MAX as usize {
        return Ok(());
    }
    let message = format!(
        "`{name}` is an image of {} bytes and {} by {} pixels; models are shown {IMAGE_BYTES_MAX} bytes and \
         {IMAGE_SIDE_MAX} by {IMAGE_SIDE_MAX} pixels at most",
        bytes.len(),
        size.width,
        size.height
    );
    Err(too_large(message, "image_too_large"))
}

/// Refuses more images than a model is shown at once, and any for a model that is shown none.
fn check_images(
    files: &[AttachedFile],
    services: &Services,
    model: &ModelRef,
) -> Result<(), ApiError> {
    let images = files.iter().map(|file| &file.part);
    let images: Vec<_> = images.filter(|part| part.given == AttachmentGiven::Image).collect();
    let Some(first) = images.first() else { return Ok(()) };
    if !shows_images(services, model) {
        let ModelRef { provider_id, model_id } = model;
        let message = format!(
            "the model `{provider_id}/{model_id}` is shown no images, so it cannot be sent `{}`",
            first.name
        );
        let error = ApiError::new(ErrorCode::ModelUnavailable, message);
        return Err(error.reason("images_unsupported"));
    }
    let bytes: u64 = images.iter().map(|part| part.size).sum();
    if images.len() > ATTACHED_IMAGES_MAX || bytes > ATTACHED_IMAGES_BYTES_MAX {
        let message = format!(
            "the attachments are more than {ATTACHED_IMAGES_MAX} images, or images of more than \
             {ATTACHED_IMAGES_BYTES_MAX} bytes together"
        );
        return Err(too_large(message, "too_many_images"));
    }
    Ok(())
}

/// Whether a model is shown images: as its operator says, else as the catalogue does.
fn shows_images(services: &Services, model: &ModelRef) -> bool {
    let said = services.models.get(model).ok().and_then(|found| found.shows_images());
    said.or_else(|| services.catalog.info(model).facts.images).unwrap_or(false)
}

fn too_large(message: String, reason: &str) -> ApiError {
    ApiError::new(ErrorCode::PayloadTooLarge, message).reason(reason)
}
