//! From a URL and a token to a WebSocket stream.

use iris_protocol::{ApiError, ErrorCode};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{self, client::IntoClientRequest, http, protocol};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::ClientError;
use crate::rest::unexpected_status;

/// Largest message that a server may send, in bytes.
const INBOUND_BYTES_MAX: usize = 32 * 1024 * 1024;

pub(super) type Stream = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Connects and upgrades. Waits as long as the network does.
pub(super) async fn upgrade(
    base_url: &str,
    token: Option<&str>,
    headers: &[(String, String)],
) -> Result<Stream, ClientError> {
    let request = upgrade_request(base_url, token, headers)?;
    let config = protocol::WebSocketConfig::default()
        .max_message_size(Some(INBOUND_BYTES_MAX))
        .max_frame_size(Some(INBOUND_BYTES_MAX));
    let (stream, _) =
        connect_async_with_config(request, Some(config), true).await.map_err(refused)?;
    Ok(stream)
}

fn upgrade_request(
    base_url: &str,
    token: Option<&str>,
    headers: &[(String, String)],
) -> Result<http::Request<()>, ClientError> {
    let unusable = |what: &str| ClientError::Protocol(format!("unusable {what}"));
    let rest = base_url.strip_prefix("http").ok_or_else(|| unusable("URL"))?;
    let url = format!("ws{}/v1/ws", rest.trim_end_matches('/'));
    let mut request = url.into_client_request().map_err(|_| unusable("URL"))?;
    let bearer = token.map(|token| ("authorization".to_owned(), format!("Bearer {token}")));
    for (name, value) in headers.iter().cloned().chain(bearer) {
        let name = http::HeaderName::try_from(name).map_err(|_| unusable("header name"))?;
        let value = http::HeaderValue::try_from(value).map_err(|_| unusable("header value"))?;
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

#[derive(serde::Deserialize)]
struct ErrorBody {
    error: ApiError,
}

fn refused(error: tungstenite::Error) -> ClientError {
    let tungstenite::Error::Http(response) = error else {
        return ClientError::Transport(Box::new(error));
    };
    let body = response.body().as_deref().unwrap_or_default();
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(body) => ClientError::Api(body.error),
        Err(_) if response.status() == 401 => ClientError::Api(ErrorCode::Unauthenticated.into()),
        Err(_) => unexpected_status(response.status().as_u16()),
    }
}
