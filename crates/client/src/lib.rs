//! The one Rust client of Iris: REST, commands, sockets, and following a session through reconnects.
//!
//! [`Client`] speaks HTTP, [`Socket`] is one WebSocket connection, [`Follower`] keeps one session
//! followed for as long as it lives: it reconnects, replays what was missed and joins streamed text,
//! so that its caller misses nothing and sees nothing twice. The rules behind it are pure and stand
//! in [`RoomTracker`], [`PartTracker`] and [`SessionFeed`].
//!
//! ```no_run
//! # async fn example(project: iris_protocol::ProjectId, session: iris_protocol::SessionId)
//! # -> Result<(), iris_client::ClientError> {
//! use iris_client::{Client, FollowOptions, Follower, Update};
//!
//! let client = Client::new("http://127.0.0.1:4747")?;
//! let grant = client.login("ann@example.com", "correct horse").await?;
//! let client = client.with_grant(&grant);
//! let mut follower = Follower::start(client, project, session, FollowOptions::default());
//! while let Ok(update) = follower.next().await {
//!     if let Update::Text { delta, .. } = update {
//!         eprint!("{delta}");
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Deliberately absent: uploads by multipart, binary frames, server-sent events.

mod admin;
mod auth;
mod client;
mod error;
mod frame;
mod rest;
mod socket;
mod transport;

mod feed;
mod follower;
mod part;
mod reconnect;
mod room;

pub use admin::{SupervisionFollowOptions, SupervisionFollower, SupervisionUpdate};
pub use auth::{LockedTokens, LoginTokens, TokenStore};
pub use client::Client;
pub use error::ClientError;
pub use feed::{Received, SessionFeed, Update};
pub use follower::{Caller, FollowOptions, Follower};
pub use part::{PartChange, PartTracker, Piece};
pub use reconnect::{Backoff, Reconnect};
pub use rest::RestAnswer;
pub use room::{Admission, RoomTracker};
pub use socket::{Authentication, ConnectOptions, Reply, Socket};

/// How long a request may take when nothing else was said.
pub const REQUEST_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);
