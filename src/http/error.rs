//! The one place that turns a code into an HTTP response.

use actix_web::http::StatusCode;
use actix_web::http::header::{
    ALLOW, ContentType, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use actix_web::{HttpRequest, HttpResponse, Responder, ResponseError};
use iris_protocol::{ApiError, ErrorCode};
use serde_json::json;

/// An error on its way out over HTTP.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct RestError {
    error: ApiError,
    /// The methods that the route has, where that is what was wrong.
    allowed: Option<String>,
}

impl RestError {
    /// The body of the answer.
    pub(super) fn body(&self, request_id: Option<String>) -> String {
        let request_id = request_id.or_else(|| self.error.request_id.clone());
        json!({ "error": ApiError { request_id, ..self.error.clone() } }).to_string()
    }

    pub(super) fn method_not_allowed(allowed: &str) -> Self {
        let message = format!("the route takes {allowed}");
        let error = ApiError::new(ErrorCode::MethodNotAllowed, message);
        Self { error, allowed: Some(allowed.to_owned()) }
    }
}

impl From<ApiError> for RestError {
    fn from(error: ApiError) -> Self {
        Self { error, allowed: None }
    }
}

/// The header that says in whole seconds when to try again.
pub(super) fn retry_after(delay_ms: u64) -> (HeaderName, String) {
    (RETRY_AFTER, delay_ms.div_ceil(1000).to_string())
}

pub(super) fn status_code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl ResponseError for RestError {
    fn status_code(&self) -> StatusCode {
        status_code(self.error.code.http_status())
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        if let Some(allowed) = &self.allowed {
            response.insert_header((ALLOW, allowed.as_str()));
        }
        if let Some(delay_ms) = self.error.retry_after_ms {
            response.insert_header(retry_after(delay_ms));
        }
        if self.status_code() == StatusCode::UNAUTHORIZED {
            response.insert_header((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        }
        response.content_type(ContentType::json()).body(self.body(None))
    }
}

impl Responder for RestError {
    type Body = actix_web::body::BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        // Kept as an error, so that the request's id finds its way into it.
        HttpResponse::from_error(self)
    }
}
