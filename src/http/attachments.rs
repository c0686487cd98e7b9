//! What a file held that went with a message, as a body.

use actix_web::http::header::{
    CONTENT_DISPOSITION, CacheControl, CacheDirective, Charset, ContentDisposition,
    DispositionParam, DispositionType, ETAG, EntityTag, ExtendedValue, Header, IfNoneMatch,
};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use futures_util::{Stream, stream};
use iris_actors::Node;
use iris_actors::dispatch::{AttachmentAsk, Held, download_attachment};
use iris_protocol::{ApiError, AttachmentGiven, Command, Operation, ProjectId};
use serde_json::{Map, Value};

use super::error::RestError;
use super::parts::body_of;
use super::{claims, request_id};

/// Bytes of a body that are written at a time.
const PART_BYTES: usize = 256 * 1024;

/// Answers the bytes, which are the same for ever. No browser takes them for a page: images are named as what
/// they are, texts as plain text, and all else is unknown.
pub(super) async fn download(
    node: &Node,
    request: &HttpRequest,
    project_id: ProjectId,
    mut fields: Map<String, Value>,
) -> Result<HttpResponse, RestError> {
    let index = fields.get("index").and_then(Value::as_str).and_then(|text| text.parse().ok());
    // What is no number is that of none.
    let index: u32 = index.unwrap_or(u32::MAX);
    fields.insert("index".to_owned(), index.into());
    let command = Command::decode(Operation::MessageAttachment, fields.into())?;
    let Command::MessageAttachment(read) = command else {
        return Err(ApiError::not_found("route").into());
    };
    let ask = AttachmentAsk {
        claims: claims(node, request).await?,
        project_id,
        session_id: read.session_id,
        message_id: read.message_id,
        index,
        request_id: request_id(request),
    };
    let found = download_attachment(node, ask).await?;
    let part = found.part.clone();
    let etag = EntityTag::new_strong(part.hash.clone());
    let is_known = match IfNoneMatch::parse(request) {
        Ok(IfNoneMatch::Any) => true,
        Ok(IfNoneMatch::Items(known)) => known.iter().any(|known| known.weak_eq(&etag)),
        Err(_) => false,
    };
    let mut response = if is_known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    let cached = [CacheDirective::Private, CacheDirective::NoCache];
    response.insert_header((ETAG, etag.to_string())).insert_header(CacheControl(cached.into()));
    if is_known {
        return Ok(response.finish());
    }
    let (bytes, held) = found.bytes().await?;
    let content_type = match part.given {
        AttachmentGiven::Image => part.mime_type.as_str(),
        AttachmentGiven::Text => "text/plain; charset=utf-8",
        AttachmentGiven::Named => "application/octet-stream",
    };
    response.content_type(content_type).insert_header((CONTENT_DISPOSITION, named(part.name)));
    let stall = node.services.settings.answer_stall;
    Ok(response.body(body_of(request, stall, part.size, parts_of(bytes.into(), held))))
}

fn named(name: String) -> ContentDisposition {
    let value = ExtendedValue {
        charset: Charset::Ext("UTF-8".to_owned()),
        language_tag: None,
        value: name.into_bytes(),
    };
    let parameters = vec![DispositionParam::FilenameExt(value)];
    ContentDisposition { disposition: DispositionType::Attachment, parameters }
}

fn parts_of(bytes: Bytes, held: Held) -> impl Stream<Item = Result<Bytes, ApiError>> {
    stream::try_unfold((bytes, held), async |(mut bytes, held)| {
        let part = bytes.split_to(PART_BYTES.min(bytes.len()));
        Ok((!part.is_empty()).then_some((part, (bytes, held))))
    })
}
