//! The wire of Iris: ids, types, operations, events, errors and limits, as serde types.
//!
//! Everything a client can send or receive is defined here and nowhere else. Deliberately absent:
//! I/O, clocks, random numbers, storage rows and any decision about what a caller may do.

mod agents;
mod answer_format;
mod asking;
mod asyncapi;
mod connection;
mod context;
mod envelope;
mod error;
mod events;
mod files;
mod ids;
pub mod limits;
mod mcp;
mod openapi;
mod operations;
mod payloads;
mod reverting;
mod schema;
mod supervision;
mod tools;
mod turns;
mod types;

pub use agents::*;
pub use answer_format::*;
pub use asking::*;
pub use asyncapi::asyncapi;
pub use connection::{Closing, ConnectionFrame, Draining};
pub use context::*;
pub use envelope::{
    EventFrame, EventMeta, FrameError, Position, RequestFrame, ResponseFrame, Room, ServerFrame,
};
pub use error::{ApiError, ErrorCode};
pub use events::{Audience, Event, EventKind, EventSpec, StreamKind};
pub use files::*;
pub use ids::*;
pub use mcp::*;
pub use openapi::openapi;
pub use operations::{
    Command, Data, Method, Operation, OperationSpec, QueryKind, QueryParam, Request, RestRoute,
    Right, Transport,
};
pub use payloads::*;
pub use reverting::*;
pub use schema::schema_document;
pub use supervision::*;
pub use tools::*;
pub use turns::*;
pub use types::*;
