//! One REST route: path, query and body become the operation's request; its response becomes `data`
//! and `meta`.

use std::collections::BTreeMap;

use actix_web::web::{Data, Payload, Query};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use iris_actors::Node;
use iris_actors::dispatch::{Ask, Done};
use iris_protocol::limits::{FRAME_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX};
use iris_protocol::{
    ApiError, Command, Data as Shape, ErrorCode, Json, Method, Operation, ProjectId, QueryKind,
    RestRoute, Right, SessionDocument, UsageReport, from_slice_strict, invalid_json,
};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::error::{RestError, status_code};
use super::{PUBLIC_BODY_BYTES_MAX, body, claims, peer, request_id, require_json, undisturbed};
use super::{archives, attachments, audit, contents, csv, oauth, uploads, written};

pub(super) async fn answer(
    node: Data<Node>,
    operation: Operation,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, RestError> {
    let Some(route) = operation.spec().rest else {
        return Err(ApiError::not_found("route").into());
    };
    if matches!(route.data, Shape::Bytes(_) | Shape::Upload(_) | Shape::Form(_)) {
        return Box::pin(bytes(&node, operation, route, &request, payload)).await;
    }
    // A request that carries its own proof must not fail for an old token beside it.
    let claims = if operation.right() == Right::Public {
        node.count(None, &peer(&request))?;
        None
    } else {
        claims(&node, &request).await?
    };
    let mut path_fields = Map::new();
    let project_id = fields_of_path(&request, &mut path_fields)?;
    // Nobody's body is read who may not send it.
    let key = idempotency_key(&request).ok().flatten();
    let (caller, project) = (claims.as_ref(), project_id.as_ref());
    if let Err(refusal) = node.admits(caller, operation, project, key.as_deref()).await {
        let refusal = ApiError { request_id: request_id(&request), ..refusal };
        let about = (&Value::Object(path_fields), &peer(&request));
        node.note_refusal(caller, operation, project, about, &refusal).await;
        return Err(refusal.into());
    }
    let mut fields = match route.method {
        Method::Get => Map::new(),
        Method::Post | Method::Put | Method::Patch | Method::Delete => {
            let is_public = operation.right() == Right::Public;
            let bytes_max = if is_public { PUBLIC_BODY_BYTES_MAX } else { FRAME_BYTES_MAX };
            fields_of_body(&node, &request, payload, bytes_max).await?
        }
    };
    fields_of_query(&request, route, &mut fields)?;
    fields.extend(path_fields);
    let command = Command::decode(operation, Value::Object(fields))?;
    let idempotency_key = idempotency_key(&request)?;
    let (mut peer, request_id) = (peer(&request), request_id(&request));
    if operation == Operation::OauthCallback {
        peer.browser = oauth::browser(&node, &request);
    }
    let wants_csv = csv::is_wanted(&request);
    let ask =
        Ask { claims, project_id, command, idempotency_key, peer, request_id, connection_id: None };
    let dispatching = node.clone();
    let done = undisturbed(async move { dispatching.dispatch(ask).await }).await?;
    if operation == Operation::OauthStart {
        return oauth::begun(&node, &done.payload);
    }
    if operation == Operation::OauthCallback {
        return oauth::finished(&node, &done.payload);
    }
    if matches!(operation, Operation::UsageGet | Operation::ServerUsageGet) && wants_csv {
        return table(&done.payload);
    }
    Ok(success(route, &done))
}

/// What was used, for spreadsheets.
fn table(payload: &Json) -> Result<HttpResponse, RestError> {
    let report: UsageReport = payload.read().map_err(|error| {
        tracing::error!(%error, "what was used cannot be read");
        ApiError::from(ErrorCode::Internal)
    })?;
    let name = ("Content-Disposition", "attachment; filename=\"usage.csv\"");
    let body = csv::table(&report);
    Ok(HttpResponse::Ok().content_type(csv::MEDIA_TYPE).insert_header(name).body(body))
}

async fn fields_of_body(
    node: &Node,
    request: &HttpRequest,
    payload: Payload,
    bytes_max: usize,
) -> Result<Map<String, Value>, ApiError> {
    let body = body(node, request, payload, bytes_max).await?;
    if body.is_empty() {
        return Ok(Map::new());
    }
    require_json(request)?;
    match from_slice_strict(&body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(ApiError::invalid("the body must be a JSON object").reason("invalid_json")),
        Err(e) => Err(ApiError::invalid(invalid_json(&e)).reason("invalid_json")),
    }
}

fn query(request: &HttpRequest) -> Result<Vec<(String, String)>, ApiError> {
    written::check(request.query_string())?;
    let query = Query::<Vec<(String, String)>>::from_query(request.query_string());
    query.map(Query::into_inner).map_err(|_| ApiError::invalid("the query is not well formed"))
}

pub(super) fn fields_of_query(
    request: &HttpRequest,
    route: RestRoute,
    fields: &mut Map<String, Value>,
) -> Result<(), ApiError> {
    for (name, text) in query(request)? {
        let Some((_, kind)) = route.query.iter().find(|(known, _)| *known == name) else {
            continue;
        };
        if name == "path" {
            written::check_path(&text)?;
        }
        let value = match kind {
            QueryKind::Text => Some(Value::String(text)),
            QueryKind::Integer => text.parse::<u64>().ok().map(Value::from),
            QueryKind::Boolean => text.parse::<bool>().ok().map(Value::from),
        };
        let Some(value) = value else {
            let message = format!("query parameter `{name}` has a value of the wrong type");
            return Err(ApiError::invalid(message).detail("field", name));
        };
        fields.insert(name, value);
    }
    Ok(())
}

/// Moves what the path names into the request; the project stands beside it. An id that cannot be one
/// is an id of nothing.
fn fields_of_path(
    request: &HttpRequest,
    fields: &mut Map<String, Value>,
) -> Result<Option<ProjectId>, ApiError> {
    let mut project_id = None;
    written::check(request.uri().path())?;
    // Decoded whole: an encoded slash is part of a field that may hold slashes.
    let texts = request.match_info().load::<Vec<String>>();
    let texts = texts.map_err(|_| ApiError::not_found("route"))?;
    for ((name, _), text) in request.match_info().iter().zip(texts) {
        if name == "projectId" {
            project_id = Some(text.parse().map_err(|_| ApiError::not_found("project"))?);
        } else if let Some(kind) = name.strip_suffix("Id")
            && !is_id(&text)
        {
            return Err(ApiError::not_found(kind));
        } else {
            fields.insert(name.to_owned(), Value::String(text));
        }
    }
    Ok(project_id)
}

/// Whether the text has the shape of an id of any kind.
fn is_id(text: &str) -> bool {
    text.split_once('_').is_some_and(|(prefix, body)| {
        prefix.len() == 3 && body.len() == 32 && body.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

pub(super) fn idempotency_key(request: &HttpRequest) -> Result<Option<String>, ApiError> {
    let Some(header) = request.headers().get("idempotency-key") else { return Ok(None) };
    let key = header.to_str().ok().filter(|k| (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&k.len()));
    let key = key.ok_or_else(|| {
        ApiError::invalid(format!(
            "`Idempotency-Key` must have 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible characters"
        ))
    })?;
    Ok(Some(key.to_owned()))
}

fn success(route: RestRoute, done: &Done) -> HttpResponse {
    if route.data == Shape::Document {
        return document(route, &done.payload);
    }
    let (name, is_list) = match route.data {
        Shape::Field(name) => (Some(name), false),
        Shape::List(name) => (Some(name), true),
        Shape::Whole
        | Shape::Bytes(_)
        | Shape::Document
        | Shape::Redirect
        | Shape::Upload(_)
        | Shape::Form(_) => (None, false),
    };
    // A part of the answer goes on as the text that it is.
    let parts = name.and_then(|name| Some((name, done.payload.read::<Parts>().ok()?)));
    let (data, meta) = match parts {
        Some((name, mut parts)) => {
            let data = parts.remove(name);
            parts.entry("nextCursor".to_owned()).or_insert(RawValue::NULL);
            parts.entry("hasMore".to_owned()).or_insert(RawValue::FALSE);
            (data, is_list.then_some(parts))
        }
        None => (Some(done.payload.raw()), None),
    };
    answer_with(route, &Body { data, meta }, done.replayed)
}

/// What an answer consists of, by the names of its fields.
type Parts<'a> = BTreeMap<String, &'a RawValue>;

/// The content of a document, as what it is.
fn document(route: RestRoute, payload: &Json) -> HttpResponse {
    let Ok(SessionDocument { mime_type, content }) = payload.read() else {
        return RestError::from(ApiError::from(ErrorCode::Internal)).error_response();
    };
    HttpResponse::build(status_code(route.status)).content_type(mime_type).body(content)
}

/// What REST answers.
#[derive(Serialize)]
struct Body<'a> {
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<Parts<'a>>,
}

pub(super) fn answer_with(route: RestRoute, body: &impl Serialize, replayed: bool) -> HttpResponse {
    let mut response = HttpResponse::build(status_code(route.status));
    if replayed {
        response.insert_header(("Idempotent-Replay", "true"));
    }
    response.json(body)
}

/// The routes whose body is a file.
async fn bytes(
    node: &Node,
    operation: Operation,
    route: RestRoute,
    request: &HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, RestError> {
    let mut fields = Map::new();
    let project_id = fields_of_path(request, &mut fields)?;
    if operation == Operation::AuditExport {
        return audit::export(node, request).await;
    }
    if operation == Operation::ProjectImport {
        fields_of_query(request, route, &mut fields)?;
        let key = idempotency_key(request)?;
        let imported = archives::import_project(node, request, payload, fields, key).await;
        let (project, replayed) = imported?;
        return Ok(answer_with(route, &json!({ "data": project }), replayed));
    }
    let project_id = project_id.ok_or_else(|| ApiError::not_found("project"))?;
    if operation == Operation::BackupRead {
        return archives::download_backup(node, request, project_id, fields).await;
    }
    if operation == Operation::MessageAttachment {
        return attachments::download(node, request, project_id, fields).await;
    }
    if operation == Operation::FileUpload {
        let key = idempotency_key(request)?;
        let (files, replayed) = uploads::receive(node, request, payload, project_id, key).await?;
        return Ok(answer_with(route, &json!({ "data": files }), replayed));
    }
    Box::pin(contents::answer(node, route, request, payload, project_id)).await
}

#[cfg(test)]
mod tests {
    use actix_web::http::StatusCode;
    use actix_web::{App, test, web};

    use super::super::{http_method, pattern, routed};
    use super::*;

    /// Answers which operation of an administrator a request reaches, and what its path names.
    async fn reached(method: Method, uri: &str) -> (StatusCode, Value) {
        let mut app = App::new();
        for (operation, route) in routed() {
            if !route.path.starts_with("/v1/admin/actors") {
                continue;
            }
            let echo = move |request: HttpRequest| async move {
                let mut fields = Map::new();
                fields_of_path(&request, &mut fields).unwrap();
                HttpResponse::Ok().json(json!([operation.name(), fields]))
            };
            let reaching = web::method(http_method(route.method)).to(echo);
            app = app.service(web::resource(pattern(route)).route(reaching));
        }
        let app = test::init_service(app).await;
        let request = test::TestRequest::with_uri(uri).method(http_method(method)).to_request();
        let answer = test::call_service(&app, request).await;
        let status = answer.status();
        let body = test::read_body(answer).await;
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    #[actix_rt::test]
    async fn the_path_of_an_actor_has_several_segments_and_the_verb_behind_it_wins() {
        let project = "node/directory/project/prj_1";
        let named = |name: &str, path: &str| (StatusCode::OK, json!([name, { "path": path }]));
        let refused = (StatusCode::METHOD_NOT_ALLOWED, Value::Null);
        for (method, uri, expected) in [
            (Method::Get, "node/directory/project/prj_1", named("admin.actor.get", project)),
            (Method::Get, "node%2Fdirectory%2fproject/prj_1", named("admin.actor.get", project)),
            (Method::Post, "node/root/restart", named("admin.actor.restart", "node/root")),
            (Method::Post, "node%2Froot/stop", named("admin.actor.stop", "node/root")),
            (Method::Get, "restart", named("admin.actor.get", "restart")),
            (Method::Get, "a%252Fb", named("admin.actor.get", "a%2Fb")),
            (Method::Get, "node/root/stop", refused.clone()),
            (Method::Post, "node/root", refused),
        ] {
            let found = reached(method, &format!("/v1/admin/actors/{uri}")).await;
            assert_eq!(found, expected, "{method:?} {uri}");
        }
        let list = (StatusCode::OK, json!(["admin.actor.list", {}]));
        assert_eq!(reached(Method::Get, "/v1/admin/actors?kind=root").await, list);
    }
}
