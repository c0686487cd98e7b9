//! Why nothing was fetched.

use std::error::Error;
use std::time::Duration;

use url::Url;

use crate::hop::REDIRECTS_MAX;

/// A request that was refused or failed. The texts are for models and people; none tells to which
/// address a name leads, so that nobody explores a network with them.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The text is no URL, or one that is never asked for.
    #[error("the url cannot be used: {problem}")]
    BadUrl {
        /// What is wrong, without the URL.
        problem: String,
    },
    /// Neither `http` nor `https`.
    #[error("the scheme `{scheme}` is not allowed; use http or https")]
    BlockedScheme {
        /// Of the URL.
        scheme: String,
    },
    /// The host is, or leads to, an address that is not on the internet.
    #[error("`{host}` is not allowed: it is or leads to an address that is not public")]
    BlockedAddress {
        /// Of the URL.
        host: String,
    },
    /// The port belongs to a service that is not the web.
    #[error("port {port} is not allowed")]
    BlockedPort {
        /// Of the URL.
        port: u16,
    },
    /// A method or a header that callers may not set.
    #[error("the request cannot be sent: {problem}")]
    BadRequest {
        /// Which, and why.
        problem: String,
    },
    /// The answer sent the client on too often.
    #[error("more than {REDIRECTS_MAX} redirects")]
    TooManyRedirects,
    /// The answer sent the client from `https` to `http`.
    #[error("a redirect from https to http was refused")]
    InsecureRedirect,
    /// The answer sent the client on to where the caller does not want it to go.
    #[error("the answer is at `{url}`")]
    RefusedRedirect {
        /// Where to.
        url: Url,
    },
    /// The whole took too long.
    #[error("not answered within {} seconds", .limit.as_secs_f32())]
    TimedOut {
        /// What was allowed.
        limit: Duration,
    },
    /// The body or the headers of the answer are larger than allowed.
    #[error("the {part} of the answer is larger than {bytes_max} bytes")]
    TooLarge {
        /// `body` or `header`.
        part: &'static str,
        /// What was allowed, decoded.
        bytes_max: usize,
    },
    /// Too many requests are under way or wait already. A later attempt may work.
    #[error("too many requests are under way; try again later")]
    Busy,
    /// The name does not exist or could not be looked up.
    #[error("the host `{host}` was not found")]
    Dns {
        /// Of the URL.
        host: String,
    },
    /// The host did not take the connection.
    #[error("`{host}` could not be reached")]
    Connect {
        /// Of the URL.
        host: String,
        /// What the client said.
        source: reqwest::Error,
    },
    /// The host does not speak TLS, or not with a certificate that is valid for it.
    #[error("no secure connection to `{host}`: {problem}")]
    Tls {
        /// Of the URL.
        host: String,
        /// What the TLS library said.
        problem: String,
    },
    /// What came is not HTTP, ended too early or is encoded in a way that was not asked for.
    #[error("`{host}` gave a broken answer")]
    BadResponse {
        /// Of the URL.
        host: String,
        /// What the client said, where it is the client that noticed.
        source: Option<reqwest::Error>,
    },
    /// The HTTP client cannot be built.
    #[error("the http client cannot be built")]
    Setup {
        /// Why not.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl EgressError {
    /// A short name that never changes, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadUrl { .. } => "bad_url",
            Self::BlockedScheme { .. } => "blocked_scheme",
            Self::BlockedAddress { .. } => "blocked_address",
            Self::BlockedPort { .. } => "blocked_port",
            Self::BadRequest { .. } => "bad_request",
            Self::TooManyRedirects => "too_many_redirects",
            Self::InsecureRedirect => "insecure_redirect",
            Self::RefusedRedirect { .. } => "refused_redirect",
            Self::TimedOut { .. } => "timed_out",
            Self::TooLarge { .. } => "too_large",
            Self::Busy => "busy",
            Self::Dns { .. } => "dns",
            Self::Connect { .. } => "connect",
            Self::Tls { .. } => "tls",
            Self::BadResponse { .. } => "bad_response",
            Self::Setup { .. } => "setup",
        }
    }
}
