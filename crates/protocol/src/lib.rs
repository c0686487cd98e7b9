//! The wire of Iris: ids, types, operations, events, errors and limits, as serde types.
//!
//! Everything a client can send or receive is defined here and nowhere else. Deliberately absent:
//! I/O, clocks, random numbers, storage rows and any decision about what a caller may do.

mod agents;
mod answer_format;
mod asking;
mod asyncapi;
mod attachments;
mod audit;
mod connection;
mod context;
mod deprecation;
mod envelope;
mod error;
mod events;
mod files;
mod ids;
mod json;
pub mod limits;
mod mcp;
mod models;
mod openapi;
mod operations;
#[macro_use]
mod payloads;
mod captures;
mod git;
mod oauth;
mod people;
mod provider_credentials;
mod reading;
mod reverting;
mod schema;
mod scopes;
mod strict;
mod supervision;
mod tools;
mod transfers;
mod turns;
mod types;
mod usage;

pub use agents::*;
pub use answer_format::*;
pub use asking::*;
pub use asyncapi::{asyncapi, asyncapi_of};
pub use attachments::*;
pub use audit::*;
pub use captures::*;
pub use connection::{Closing, ConnectionFrame, Draining, FEATURES, MaintenanceNotice};
pub use context::*;
pub use deprecation::*;
pub use envelope::{
    EventFrame, EventMeta, FrameError, Position, RequestFrame, ResponseFrame, Room, ServerFrame,
    invalid_json,
};
pub use error::{ApiError, ErrorCode};
pub use events::{Audience, Event, EventKind, EventSpec, SnapshotKind, StreamKind};
pub use files::*;
pub use git::*;
pub use ids::*;
pub use json::Json;
pub use mcp::*;
pub use models::*;
pub use oauth::*;
pub use openapi::{openapi, openapi_of};
pub use operations::{
    Command, Data, Method, Operation, OperationSpec, QueryKind, QueryParam, Request, RestRoute,
    Right, Transport,
};
pub use payloads::*;
pub use people::*;
pub use provider_credentials::*;
pub use reading::*;
pub use reverting::*;
pub use schema::{schema_document, schema_document_of};
pub use scopes::*;
pub use strict::from_slice_strict;
pub use supervision::*;
pub use tools::*;
pub use transfers::*;
pub use turns::*;
pub use types::*;
pub use usage::*;
