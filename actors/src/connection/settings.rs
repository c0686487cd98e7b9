//! What operators choose for the connections of clients.

use std::time::Duration;

/// How connections are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketSettings {
    /// How often a client gets a ping and a heartbeat; never zero, none for never.
    pub ping_interval: Option<Duration>,
    /// How long a client may take to answer a ping before it is closed with 4012.
    pub pong_timeout: Duration,
    /// How long a frame may wait for its reader before the client is closed with 4008.
    pub frame_age_max: Duration,
    /// How long a client that is closed may take to read what it is told, before its socket is
    /// aborted.
    pub abort_after: Duration,
}

impl Default for SocketSettings {
    fn default() -> Self {
        Self {
            ping_interval: Some(Duration::from_secs(25)),
            pong_timeout: Duration::from_secs(10),
            frame_age_max: Duration::from_secs(10),
            abort_after: Duration::from_secs(2),
        }
    }
}
