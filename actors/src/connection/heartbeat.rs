//! What goes with a ping: the last event of each room that the client is in, so that one who hears
//! nothing finds out whether there was nothing to hear.

use std::collections::BTreeMap;
use std::time::Duration;

use actix::prelude::*;
use futures_util::future::join_all;
use iris_protocol::{ConnectionFrame, Heartbeat, Position};

use super::Connection;
use crate::owner::{OwnerAnswer, OwnerAsk};

/// How long the owner of a project may take to name the last events; then its rooms are left out.
const HEADS_TIMEOUT: Duration = Duration::from_secs(5);

/// Tell: a ping was sent.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Beat;

impl Handler<Beat> for Connection {
    type Result = ();

    fn handle(&mut self, _: Beat, ctx: &mut Context<Self>) {
        let Some(claims) = self.claims.as_ref().filter(|_| !self.heartbeat_is_due) else { return };
        self.heartbeat_is_due = true;
        let asked = self.rooms.iter().map(|(project_id, rooms)| {
            let (node, project_id) = (self.node.clone(), project_id.clone());
            let (user_id, connection_id) = (claims.user_id.clone(), self.id.clone());
            let ask = OwnerAsk::Heads { connection_id, rooms: rooms.clone() };
            async move {
                let heads = node.ask_owner(&project_id, &user_id, ask, None);
                match tokio::time::timeout(HEADS_TIMEOUT, heads).await {
                    Ok(Ok(OwnerAnswer::Heads(heads))) => heads,
                    // Of a project that cannot be asked nothing is known.
                    Ok(_) | Err(_) => BTreeMap::new(),
                }
            }
        });
        let asked = join_all(asked.collect::<Vec<_>>()).into_actor(self);
        ctx.spawn(asked.map(|heads, connection, _| {
            connection.heartbeat_is_due = false;
            connection.heartbeat(heads.into_iter().flatten().collect());
        }));
    }
}

impl Connection {
    fn heartbeat(&self, rooms: BTreeMap<String, Position>) {
        let payload = Heartbeat { rooms, at: self.node.services.clock.now_ms() };
        self.push(&ConnectionFrame::Heartbeat { payload });
    }
}
