//! Streaming parts for one connection that lacks pieces of them.

use actix::prelude::*;
use iris_protocol::{ConnectionId, PartId};

use super::Project;

/// Ask: sends snapshots of these parts to a connection, of those that stream in its rooms. Answers how
/// many there were.
#[derive(Message)]
#[rtype(result = "usize")]
pub(crate) struct SendSnapshots {
    pub(crate) connection_id: ConnectionId,
    pub(crate) parts: Vec<PartId>,
}

impl Handler<SendSnapshots> for Project {
    type Result = usize;

    fn handle(&mut self, ask: SendSnapshots, _: &mut Context<Self>) -> usize {
        let SendSnapshots { connection_id, parts } = ask;
        let sent = parts.into_iter().filter(|part| self.rooms.send_snapshot(&connection_id, part));
        sent.count()
    }
}
