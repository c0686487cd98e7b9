//! Requests into frames, and responses out of them.

use iris_protocol::{ProjectId, Request, RequestFrame, ResponseFrame};
use serde::de::DeserializeOwned;

use crate::ClientError;

/// The frame of a request, for a socket or a command.
pub(crate) fn request_frame<R: Request>(
    id: String,
    project: Option<&ProjectId>,
    request: &R,
) -> Result<RequestFrame, ClientError> {
    let payload = serde_json::to_value(request)
        .map_err(|e| ClientError::protocol("encoding the request", e))?;
    Ok(RequestFrame {
        id,
        r#type: R::OPERATION.name().to_owned(),
        project_id: project.cloned(),
        payload,
        idempotency_key: None,
        deadline_ms: None,
    })
}

/// Makes an error of a response that says so.
pub(crate) fn check_response(response: ResponseFrame) -> Result<ResponseFrame, ClientError> {
    match response.error {
        Some(error) => Err(ClientError::Api(error)),
        None if response.success => Ok(response),
        None => Err(ClientError::Protocol("a failed response holds no error".to_owned())),
    }
}

/// Reads the payload of a response to a request whose response is a `T`.
pub(crate) fn decode_payload<T: DeserializeOwned>(
    response: ResponseFrame,
) -> Result<T, ClientError> {
    response
        .payload
        .unwrap_or_default()
        .read()
        .map_err(|e| ClientError::protocol("payload of the response", e))
}
