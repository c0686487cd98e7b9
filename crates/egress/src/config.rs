//! The limits of a client and what the operator lets through.

use std::time::Duration;

use crate::exception::Exception;

/// How one [`Egress`](crate::Egress) behaves. A request may ask for less than this, never for more.
#[derive(Debug, Clone)]
pub struct Config {
    /// What is allowed besides the internet; empty by default.
    pub allow: Vec<Exception>,
    /// Most bytes of a body, decoded.
    pub body_bytes_max: usize,
    /// Most bytes of the names and values of an answer's headers. The parser gives up at about 400 KiB
    /// and at 100 headers, whatever stands here.
    pub header_bytes_max: usize,
    /// Longest time of a request, from the call until the last byte of the body, with all redirects and
    /// all waiting for its turn.
    pub timeout: Duration,
    /// Longest time until a connection stands, with looking up the name and TLS.
    pub connect_timeout: Duration,
    /// Most requests under way at once.
    pub requests_max: usize,
    /// Most of them to one host.
    pub requests_per_host_max: usize,
    /// Most further requests that wait for their turn; beyond them the answer is `Busy`.
    pub waiting_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            body_bytes_max: 5 << 20,
            header_bytes_max: 64 << 10,
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            requests_max: 64,
            requests_per_host_max: 8,
            waiting_max: 256,
        }
    }
}
