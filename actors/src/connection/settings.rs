//! What operators choose for the connections of clients.

use std::time::Duration;

/// How connections are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketSettings {
    /// How often a client gets a ping and a heartbeat; never zero, none for never.
    pub ping_interval: Option<Duration>,
    /// How long a client may take to answer a ping before it is closed with 4012.
    pub pong_timeout: Duration,
}

impl Default for SocketSettings {
    fn default() -> Self {
        Self {
            ping_interval: Some(Duration::from_secs(25)),
            pong_timeout: Duration::from_secs(10),
        }
    }
}
