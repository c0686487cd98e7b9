//! An HTTP answer as it came, for callers that look at statuses and headers.

use bytes::Bytes;
use iris_protocol::ApiError;
use reqwest::header::HeaderMap;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::ClientError;

/// The answer of a REST route, success or not.
#[derive(Debug, Clone)]
pub struct RestAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as it came.
    pub body: Bytes,
    /// The body as JSON; null when it is not JSON.
    pub json: Value,
}

impl RestAnswer {
    pub(crate) async fn read(response: reqwest::Response) -> Result<Self, ClientError> {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await?;
        let json = serde_json::from_slice(&body).unwrap_or_default();
        Ok(Self { status, headers, body, json })
    }

    /// Whether the status is 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The error that the answer holds.
    pub fn error(&self) -> Option<ApiError> {
        serde_json::from_value(self.json.get("error")?.clone()).ok()
    }

    /// The `data` of a success.
    ///
    /// # Errors
    /// `Api` with the server's error, `Protocol` when the answer is neither.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        let data = self.success()?.json.get("data").cloned().unwrap_or_default();
        serde_json::from_value(data).map_err(|e| ClientError::protocol("`data` of the answer", e))
    }

    pub(crate) fn success(&self) -> Result<&Self, ClientError> {
        if self.is_success() {
            return Ok(self);
        }
        Err(match self.error() {
            Some(error) => ClientError::Api(error),
            None => unexpected_status(self.status),
        })
    }
}

/// An error without the body of one comes from something between client and server.
pub(crate) fn unexpected_status(status: u16) -> ClientError {
    match status {
        502..=504 => ClientError::Transport(format!("the answer had status `{status}`").into()),
        _ => ClientError::Protocol(format!("an answer with status `{status}` holds no error")),
    }
}
