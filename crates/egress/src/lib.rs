//! The one HTTP client for everything that users or models make the server fetch.
//!
//! Whoever chooses a URL chooses where the server connects to, from inside its network. So every
//! address is judged where the connection is made, every redirect is judged again, and nothing is
//! read for longer or further than a limit says. Deliberately absent: who may fetch and whether
//! somebody is asked first; cookies, caches, proxies.

mod address;
mod body;
mod client;
mod config;
mod error;
mod exception;
mod gate;
mod hop;
mod policy;
mod port;
mod request;
mod resolver;
mod target;

pub use address::is_public;
pub use body::Body;
pub use client::{Answer, Egress, Pinned, Response};
pub use config::Config;
pub use error::EgressError;
pub use exception::{Exception, ExceptionError};
pub use hop::REDIRECTS_MAX;
pub use port::is_blocked_port;
pub use request::Request;
pub use resolver::{Lookup, SystemLookup};
pub use target::{URL_BYTES_MAX, parse_url};
