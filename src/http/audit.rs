//! The audit as a body: one record a line, oldest first, read while it is sent.

use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use futures_util::stream;
use iris_actors::Node;
use iris_actors::dispatch::{AuditReader, export_audit};

use super::error::RestError;
use super::{claims, peer, request_id};

/// Answers the whole audit.
pub(super) async fn export(node: &Node, request: &HttpRequest) -> Result<HttpResponse, RestError> {
    let claims = claims(node, request).await?;
    let reader = export_audit(node, claims.as_ref(), peer(request), request_id(request)).await?;
    let lines = stream::try_unfold(reader, async |mut reader: AuditReader| {
        let part = reader.part().await.map_err(RestError::from)?;
        Ok::<_, RestError>(part.map(|lines| (Bytes::from(lines), reader)))
    });
    Ok(HttpResponse::Ok()
        .content_type("application/x-ndjson")
        .insert_header(("Content-Disposition", "attachment; filename=\"audit.jsonl\""))
        .streaming(lines))
}
