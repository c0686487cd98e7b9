//! The content of a file of a project, over REST: conditions, ranges, and the bytes.

use actix_web::body::SizedStream;
use actix_web::http::header::{
    Charset, ContentDisposition, DispositionParam, DispositionType, ETAG, EntityTag, ExtendedValue,
    Header, IF_MATCH, IF_NONE_MATCH, IfMatch, IfNoneMatch,
};
use actix_web::http::{Method as HttpMethod, StatusCode};
use actix_web::web::Payload;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use bytes::Bytes;
use futures_util::{Stream, stream};
use iris_actors::Node;
use iris_actors::dispatch::{self, Before, FileAsk, FileDownload};
use iris_protocol::limits::FILE_BYTES_MAX;
use iris_protocol::{ApiError, ErrorCode, File, Method, ProjectId, RestRoute};
use serde_json::{Map, Value, json};

use super::error::RestError;
use super::parts::body_of;
use super::ranges::{Asked, content_range, not_satisfiable};
use super::rest::{answer_with, fields_of_query, idempotency_key};
use super::{body, claims, content_length, request_id, undisturbed};

/// Reads or writes the content of a file.
pub(super) async fn answer(
    node: &Node,
    route: RestRoute,
    request: &HttpRequest,
    payload: Payload,
    project_id: ProjectId,
) -> Result<HttpResponse, RestError> {
    let claims = claims(node, request).await?;
    let mut fields = Map::new();
    fields_of_query(request, route, &mut fields)?;
    let version = fields.get("version").and_then(Value::as_u64);
    let Some(Value::String(path)) = fields.remove("path") else {
        return Err(ApiError::invalid("the query names no `path`").reason("invalid_path").into());
    };
    let (request_id, before) = (request_id(request), before(request)?);
    let ask = FileAsk { claims, project_id, path, version, before, request_id };
    if route.method == Method::Get {
        return read(node, request, ask).await;
    }
    let key = idempotency_key(request)?;
    // One of unknown length may be as long as any.
    let length = content_length(request).unwrap_or(FILE_BYTES_MAX).min(FILE_BYTES_MAX);
    let held = dispatch::begin_put(node, &ask, length as u64).await?;
    let bytes = body(node, request, payload, FILE_BYTES_MAX).await?;
    let node = node.clone();
    let put = async move {
        let put = dispatch::put_file_bytes(&node, ask, bytes, key).await;
        drop(held);
        put
    };
    let (file, replayed) = undisturbed(put).await?;
    Ok(answer_with(route, &json!({ "data": file }), replayed))
}

/// What the request says has to be there (RFC 9110, sections 13.1.1 and 13.1.2).
fn before(request: &HttpRequest) -> Result<Before, ApiError> {
    let malformed = |name: &str| ApiError::invalid(format!("`{name}` is not well formed"));
    let hashes = |tags: Vec<EntityTag>| tags.iter().map(|tag| tag.tag().to_owned()).collect();
    let (only, none) = (IF_MATCH, IF_NONE_MATCH);
    match (request.headers().contains_key(&only), request.headers().contains_key(&none)) {
        (false, false) => Ok(Before::Any),
        (true, true) => Err(ApiError::invalid("`If-Match` and `If-None-Match` exclude each other")),
        (true, false) => match IfMatch::parse(request).map_err(|_| malformed("If-Match"))? {
            IfMatch::Any => Ok(Before::Something),
            // One that is weak matches nothing.
            IfMatch::Items(tags) if tags.is_empty() => Err(malformed("If-Match")),
            IfMatch::Items(mut tags) => {
                tags.retain(|tag| !tag.weak);
                Ok(Before::OneOf(hashes(tags)))
            }
        },
        (false, true) => {
            match IfNoneMatch::parse(request).map_err(|_| malformed("If-None-Match"))? {
                IfNoneMatch::Any => Ok(Before::Nothing),
                IfNoneMatch::Items(tags) if tags.is_empty() => Err(malformed("If-None-Match")),
                IfNoneMatch::Items(tags) => Ok(Before::NoneOf(hashes(tags))),
            }
        }
    }
}

async fn read(node: &Node, request: &HttpRequest, ask: FileAsk) -> Result<HttpResponse, RestError> {
    let (before, request_id) = (ask.before.clone(), ask.request_id.clone());
    let name = ask.path.rsplit('/').next().unwrap_or_default().to_owned();
    let mut download = dispatch::download_file(node, ask).await?;
    let (hash, total) = (&download.file.hash, download.file.size);
    let etag = format!("\"{hash}\"");
    match before {
        Before::Nothing => return Ok(not_modified(&download.file, &etag)),
        Before::NoneOf(hashes) if hashes.contains(hash) => {
            return Ok(not_modified(&download.file, &etag));
        }
        Before::OneOf(hashes) if !hashes.contains(hash) => {
            let message = "the file is not what the request names";
            let error = ApiError::new(ErrorCode::VersionConflict, message);
            let error = error.reason("version_conflict").detail("currentHash", hash.clone());
            return Err(error.detail("currentVersion", download.file.version).into());
        }
        Before::Any | Before::Something | Before::OneOf(_) | Before::NoneOf(_) => {}
    }
    let is_head = request.method() == HttpMethod::HEAD;
    let asked = if is_head { Asked::Whole } else { Asked::of(request, &etag, total) };
    let mut response = HttpResponse::Ok();
    match asked {
        Asked::Whole => {}
        Asked::Part(first, end) => {
            response.status(StatusCode::PARTIAL_CONTENT);
            response.insert_header(content_range(first, end, total));
            download.narrow(first, end);
        }
        Asked::Beyond => return Ok(not_satisfiable(total, request_id)),
    }
    describe(&mut response, &download.file, &etag);
    response
        .content_type("application/octet-stream")
        .insert_header(("Accept-Ranges", "bytes"))
        .insert_header(attachment(name));
    if is_head {
        return Ok(response.body(SizedStream::new(total, stream::empty::<Result<_, ApiError>>())));
    }
    let (stall, length) = (node.services.settings.answer_stall, download.bytes_left());
    Ok(response.body(body_of(request, stall, length, bytes_of(download))))
}

fn not_modified(file: &File, etag: &str) -> HttpResponse {
    let mut response = HttpResponse::NotModified();
    describe(&mut response, file, etag);
    response.finish()
}

fn describe(response: &mut HttpResponseBuilder, file: &File, etag: &str) {
    response
        .insert_header((ETAG, etag))
        .insert_header(("X-Iris-File-Version", file.version.to_string()));
}

/// To be saved, never to be shown as a page, whatever it holds.
fn attachment(name: String) -> ContentDisposition {
    let (charset, value) = (Charset::Ext("UTF-8".to_owned()), name.into_bytes());
    let name = ExtendedValue { charset, language_tag: None, value };
    let parameters = vec![DispositionParam::FilenameExt(name)];
    ContentDisposition { disposition: DispositionType::Attachment, parameters }
}

fn bytes_of(download: FileDownload) -> impl Stream<Item = Result<Bytes, ApiError>> {
    stream::try_unfold(download, async |mut download| {
        let part = download.part().await?;
        Ok(part.map(|bytes| (Bytes::from(bytes), download)))
    })
}
