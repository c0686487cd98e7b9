//! One session with one MCP server (Model Context Protocol): a program in the sandbox that speaks over its
//! pipes, or a place on the web that speaks over HTTP.
//!
//! A server is not trusted: what it sends is counted and bounded, its tools have a hash that somebody
//! approves, and it gets nothing but what a call hands to it; a place on the web also gets the token that was
//! given for it. Deliberately absent: who may configure a server or call its tools, approvals, restarts,
//! storage.

mod call;
mod connection;
mod correlation;
mod definition;
mod error;
mod guest;
mod http;
mod line;
pub mod oauth;
mod sse;
mod stdio;
mod traffic;

use std::time::Duration;

pub use call::{CallAnswer, Elicitation, ElicitationAnswer, ElicitationSource};
pub use connection::{Connection, Patience, Target};
pub use definition::{Definition, canonical_json, hash_of_all, with_hidden_shown};
pub use error::{McpError, NotOpened};
pub use http::{HttpServer, Secret, Token};
pub use traffic::{Counts, Report};

/// Most bytes of one message of a server: a line, an event, or the body of an answer.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most tools of one server.
pub const TOOLS_MAX: usize = 128;
/// Most pages in which a server may list its tools.
pub const PAGES_MAX: usize = 32;
/// Most bytes of all definitions of a server together, as JSON.
pub const DEFINITIONS_BYTES_MAX: usize = 1024 * 1024;
/// Calls of one server that are under way at once; further ones wait within their time.
pub const CALLS_MAX: usize = 16;
/// How long a request may take unless a server's configuration says otherwise.
pub const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a server has to start and say what it is.
pub const INITIALIZE_TIMEOUT: Duration = Duration::from_secs(30);
