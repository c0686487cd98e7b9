//! Frames that are about the connection itself and belong to no room.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{AuthExpiry, Connected, Heartbeat, ProjectId, SubscribePayload, TransferFailure};

/// The optional parts of the protocol that this server has, by their names in `connected`: who is present
/// (`presence` in `subscribe`), arguments of calls while the model writes them (`message.tool.input.delta`), and
/// files in binary frames of a WebSocket.
pub const FEATURES: [&str; 3] = ["presence", "toolInput", "transfers"];

/// A frame that a server sends by itself over a WebSocket or an event stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type")]
pub enum ConnectionFrame {
    /// The first frame after authentication.
    #[serde(rename = "connected")]
    Connected {
        /// Who is connected, and to what.
        payload: Connected,
    },
    /// How far the rooms of the connection are; it goes with each ping of the server.
    #[serde(rename = "heartbeat")]
    Heartbeat {
        /// The rooms.
        payload: Heartbeat,
    },
    /// The access token ends soon.
    #[serde(rename = "auth.expiring")]
    AuthExpiring {
        /// When.
        payload: AuthExpiry,
    },
    /// The server is stopping: it takes no message any more and closes the connection soon.
    #[serde(rename = "server.draining")]
    Draining {
        /// When to come back.
        payload: Draining,
    },
    /// Maintenance began or ended.
    #[serde(rename = "server.maintenance")]
    Maintenance {
        /// Which, and why.
        payload: MaintenanceNotice,
    },
    /// A stream of a file has ended by itself. Never over event streams.
    #[serde(rename = "transfer.failed")]
    TransferFailed {
        /// Which, and why.
        payload: TransferFailure,
    },
    /// What became of the rooms that an event stream asked for. Over event streams alone.
    #[serde(rename = "subscribed", rename_all = "camelCase")]
    Subscribed {
        /// The project of the rooms.
        project_id: ProjectId,
        /// The rooms.
        payload: SubscribePayload,
    },
    /// The last frame: the server ends the connection. Over event streams alone.
    #[serde(rename = "closing")]
    Closing {
        /// Why.
        payload: Closing,
    },
}

/// Payload of `server.draining`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Draining {
    /// When to try again, in milliseconds from now.
    pub retry_after_ms: u64,
}

/// Payload of `server.maintenance`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MaintenanceNotice {
    /// Whether the server is in maintenance now, and begins no runs.
    pub active: bool,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Payload of `closing`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Closing {
    /// The close code that a WebSocket would get.
    pub code: u16,
    /// One sentence for people, or `retryAfterMs=` and a number.
    pub reason: String,
}
