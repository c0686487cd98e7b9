//! What stands around operations and events on a socket (docs/protocol.md, "Envelopes").

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::{
    ApiError, AuthExpiry, Connected, Draining, ErrorCode, Event, Heartbeat, Json,
    MaintenanceNotice, ProjectId, SessionId, TransferFailure, UserId, Warning, from_slice_strict,
    limits::{DEADLINE_MS_MAX, IDEMPOTENCY_KEY_BYTES_MAX, REQUEST_ID_BYTES_MAX},
};

/// A request on a socket, and the body of `POST /v1/commands`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestFrame {
    /// Chosen by the client, unique among its requests in flight.
    pub id: String,
    /// Name of the operation.
    pub r#type: String,
    /// The project, for operations in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<ProjectId>,
    /// The request of the operation.
    #[serde(default)]
    pub payload: Value,
    /// Makes a repeat of the same command answer what the first one answered, and do nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// How long the caller waits for the answer, in milliseconds; for as long as it takes when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// A frame that is not a request. Holds the request's id when it could be read.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameError {
    /// The id of the request, for the answer.
    pub id: Option<String>,
    /// What is wrong with it.
    pub error: ApiError,
}

impl RequestFrame {
    /// Reads a request from the text of a frame.
    ///
    /// # Errors
    /// `INVALID_REQUEST` with a reason: `invalid_json`, `invalid_message`, `missing_id`,
    /// `missing_type`, `invalid_project_id`.
    pub fn parse(text: &[u8]) -> Result<Self, FrameError> {
        let refuse = |id: Option<String>, message: String, reason: &str| FrameError {
            id,
            error: ApiError::invalid(message).reason(reason),
        };
        let value =
            from_slice_strict(text).map_err(|e| refuse(None, invalid_json(&e), "invalid_json"))?;
        let Value::Object(mut object) = value else {
            return Err(refuse(None, "a frame must be a JSON object".into(), "invalid_message"));
        };
        let id = match object.remove("id") {
            Some(Value::String(id)) if !id.is_empty() && id.len() <= REQUEST_ID_BYTES_MAX => id,
            None => return Err(refuse(None, "the request has no `id`".into(), "missing_id")),
            Some(_) => {
                let message = format!("`id` must be a string of 1 to {REQUEST_ID_BYTES_MAX} bytes");
                return Err(refuse(None, message, "invalid_message"));
            }
        };
        let Some(Value::String(r#type)) = object.remove("type") else {
            let message = "the request has no `type`".into();
            return Err(refuse(Some(id), message, "missing_type"));
        };
        let project_id = match object.remove("projectId") {
            None | Some(Value::Null) => None,
            Some(value) => match serde_json::from_value(value) {
                Ok(project_id) => Some(project_id),
                Err(e) => {
                    let message = format!("`projectId`: {e}");
                    return Err(refuse(Some(id), message, "invalid_project_id"));
                }
            },
        };
        let idempotency_key = match object.remove("idempotencyKey") {
            None | Some(Value::Null) => None,
            Some(Value::String(key)) if (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()) => {
                Some(key)
            }
            Some(_) => {
                let message = format!(
                    "`idempotencyKey` must be a string of 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes"
                );
                return Err(refuse(Some(id), message, "invalid_message"));
            }
        };
        let deadline_ms = match object.remove("deadlineMs") {
            None | Some(Value::Null) => None,
            Some(value) => {
                let deadline_ms = value.as_u64().filter(|ms| (1..=DEADLINE_MS_MAX).contains(ms));
                if deadline_ms.is_none() {
                    let message =
                        format!("`deadlineMs` must be an integer, 1 to {DEADLINE_MS_MAX}");
                    return Err(refuse(Some(id), message, "invalid_message"));
                }
                deadline_ms
            }
        };
        let payload = object.remove("payload").unwrap_or(Value::Null);
        Ok(Self { id, r#type, project_id, payload, idempotency_key, deadline_ms })
    }
}

/// What is wrong with a text that is no JSON, or names a field twice: where, and not what it says there.
pub fn invalid_json(error: &serde_json::Error) -> String {
    let what = if error.is_data() { "a field stands twice" } else { "invalid JSON" };
    format!("{what} at line {}, column {}", error.line(), error.column())
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResponseFrame {
    /// The request's id; null when it could not be read.
    pub id: Option<String>,
    /// Always `response`.
    pub r#type: String,
    /// Which of `payload` and `error` is there.
    pub success: bool,
    /// The response of the operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Json>,
    /// The last durable event that the command caused: wait for it to read your own write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ApiError>,
    /// What the client should know besides, such as that the operation is deprecated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

impl ResponseFrame {
    /// The same with what the client should know besides.
    #[must_use]
    pub fn with_warnings(self, warnings: Vec<Warning>) -> Self {
        Self { warnings, ..self }
    }

    /// The answer to a request that was done.
    pub fn success(id: String, payload: Json, seq: Option<u64>) -> Self {
        let r#type = "response".to_owned();
        let (error, warnings) = (None, Vec::new());
        Self { id: Some(id), r#type, success: true, payload: Some(payload), seq, error, warnings }
    }

    /// The answer to a request that was not.
    pub fn failure(id: Option<String>, error: ApiError) -> Self {
        let r#type = "response".to_owned();
        let (error, warnings) = (Some(error), Vec::new());
        Self { id, r#type, success: false, payload: None, seq: None, error, warnings }
    }
}

/// A place to hear events. Whoever may join hears all of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub enum Room {
    /// One conversation.
    Session(SessionId),
    /// Session list, files, members and agents of a project.
    Project(ProjectId),
    /// What one user alone is told, on every connection of theirs; it is joined by itself.
    User(UserId),
    /// The actors of the server, for its administrators.
    Admin,
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(id) => write!(f, "session:{id}"),
            Self::Project(id) => write!(f, "project:{id}"),
            Self::User(id) => write!(f, "user:{id}"),
            Self::Admin => f.write_str("admin"),
        }
    }
}

impl FromStr for Room {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("session", id)) => id.parse().map(Self::Session).map_err(|e| e.to_string()),
            Some(("project", id)) => id.parse().map(Self::Project).map_err(|e| e.to_string()),
            Some(("user", id)) => id.parse().map(Self::User).map_err(|e| e.to_string()),
            None if text == "admin" => Ok(Self::Admin),
            Some(_) | None => {
                let rooms = "`session:`, `project:` or `user:` followed by an id";
                Err(format!("a room is {rooms}, or `admin`"))
            }
        }
    }
}

impl TryFrom<String> for Room {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl Serialize for Room {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A place in a project's order of durable events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Position {
    /// Changes when a project is restored from a backup.
    pub epoch: String,
    /// The last event seen.
    pub seq: u64,
}

/// What stands around an event in a room. `seq` and `prev` are there on durable events alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventMeta {
    /// The project; none for what happens outside of projects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<ProjectId>,
    /// Where it happened.
    pub room: Room,
    /// Its number in the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The number of the event before it in the same room; 0 for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev: Option<u64>,
    /// Milliseconds since 1970 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<i64>,
    /// The user who caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<UserId>,
}

impl EventMeta {
    /// Encodes the frame of an event whose payload is already JSON.
    ///
    /// # Errors
    /// When `payload` is not JSON.
    pub fn encode(&self, name: &str, payload: &str) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct Frame<'a> {
            r#type: &'a str,
            #[serde(flatten)]
            meta: &'a EventMeta,
            payload: &'a RawValue,
        }
        let payload: &RawValue = serde_json::from_str(payload)?;
        serde_json::to_string(&Frame { r#type: name, meta: self, payload })
    }
}

/// An event as a client reads it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EventFrame {
    /// Where, when, by whom, and its place in the order.
    #[serde(flatten)]
    pub meta: EventMeta,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// Anything that a server sends on a socket, as a client reads it.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerFrame {
    /// The first frame.
    Connected(Box<Connected>),
    /// The answer to a request.
    Response(Box<ResponseFrame>),
    /// Something happened in a room.
    Event(Box<EventFrame>),
    /// The access token ends soon; milliseconds since 1970 UTC.
    AuthExpiring {
        /// When the token ends.
        expires_at: i64,
    },
    /// How far the joined rooms are; it goes with each ping of the server.
    Heartbeat(Heartbeat),
    /// The server is stopping: it takes no message any more and closes the socket soon.
    Draining {
        /// When to try again, in milliseconds from now.
        retry_after_ms: u64,
    },
    /// Maintenance began or ended.
    Maintenance(MaintenanceNotice),
    /// A stream of a file has ended by itself.
    TransferFailed(Box<TransferFailure>),
    /// A frame that this client does not know; to be ignored.
    Unknown(Value),
}

impl ServerFrame {
    /// Reads a frame. One of an unknown type is `Unknown`, not an error.
    ///
    /// # Errors
    /// When the text is not JSON, or a frame of a known type has another shape.
    pub fn parse(text: &str) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Head<'a> {
            #[serde(borrow)]
            r#type: Cow<'a, str>,
            #[serde(borrow, default)]
            payload: Option<&'a RawValue>,
        }
        // As the server writes responses. They may be long: the text is gone through once less.
        if text.starts_with(r#"{"id":"#)
            && let Ok(response) = serde_json::from_str::<ResponseFrame>(text)
            && response.r#type == "response"
        {
            return Ok(Self::Response(Box::new(response)));
        }
        let Ok(Head { r#type, payload }) = serde_json::from_str(text) else {
            return serde_json::from_str(text).map(Self::Unknown);
        };
        let payload = payload.unwrap_or(RawValue::NULL).get();
        match &*r#type {
            "connected" => serde_json::from_str(payload).map(Self::Connected),
            "response" => serde_json::from_str(text).map(Self::Response),
            "auth.expiring" => {
                let AuthExpiry { expires_at } = serde_json::from_str(payload)?;
                Ok(Self::AuthExpiring { expires_at })
            }
            "heartbeat" => serde_json::from_str(payload).map(Self::Heartbeat),
            "server.draining" => {
                let Draining { retry_after_ms } = serde_json::from_str(payload)?;
                Ok(Self::Draining { retry_after_ms })
            }
            "server.maintenance" => serde_json::from_str(payload).map(Self::Maintenance),
            "transfer.failed" => serde_json::from_str(payload).map(Self::TransferFailed),
            name if Event::ALL.iter().any(|spec| spec.name == name) => {
                serde_json::from_str(text).map(Self::Event)
            }
            _ => serde_json::from_str(text).map(Self::Unknown),
        }
    }
}

impl From<FrameError> for ResponseFrame {
    fn from(error: FrameError) -> Self {
        Self::failure(error.id, error.error)
    }
}

impl From<ErrorCode> for ApiError {
    fn from(code: ErrorCode) -> Self {
        Self::new(code, code.as_str().to_lowercase().replace('_', " "))
    }
}
