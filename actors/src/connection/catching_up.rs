//! Pieces of streaming text that were left out for a slow reader, and what comes in their place.

use std::sync::Arc;

use actix::prelude::*;
use futures_util::future::join_all;
use iris_protocol::{ApiError, Done, ErrorCode, Operation, PartId, ProjectId};

use super::{Connection, payload_of};
use crate::owner::{OwnerAnswer, OwnerAsk, mismatch};
use crate::supervision::{detached, in_request};

impl Connection {
    /// From now on asks for a snapshot of each part that its client is behind with, as soon as all else
    /// was read.
    pub(super) fn catch_up(&self, ctx: &mut Context<Self>) {
        let outbound = Arc::clone(&self.outbound);
        let behind = async move { outbound.behind().await }.into_actor(self);
        ctx.spawn(behind.map(|parts, connection, ctx| {
            let asks =
                connection.rooms.keys().map(|project| connection.ask(project, parts.clone()));
            let (asks, outbound) =
                (join_all(asks.collect::<Vec<_>>()), Arc::clone(&connection.outbound));
            detached(async move {
                // Of a project that cannot be asked the client asks for itself.
                drop(asks.await);
                outbound.caught_up(&parts);
            });
            connection.catch_up(ctx);
        }));
    }

    /// Sends a snapshot of a part that streams in one of the rooms.
    pub(super) fn sync_part(
        &mut self,
        (id, deadline_ms): (String, Option<u64>),
        project_id: Option<ProjectId>,
        part_id: PartId,
        ctx: &mut Context<Self>,
    ) {
        let (in_flight, permit) = match self.requests.begin(id, deadline_ms) {
            Ok(begun) => begun,
            Err((id, error)) => return self.refuse(id, error, ctx),
        };
        let (node, claims) = (self.node.clone(), self.claims.clone());
        let asked = project_id.as_ref().map(|project_id| self.ask(project_id, vec![part_id]));
        let work = async move {
            let _permit = permit;
            node.gate(claims.as_ref(), Operation::PartSync, project_id.as_ref()).await?;
            let sent = match asked {
                Some(asked) => asked.await?,
                None => 0,
            };
            if sent > 0 { Ok(Done { done: true }) } else { Err(ApiError::not_found("part")) }
        };
        let answer = Arc::clone(&in_flight.patience).bear(in_request(self.tag(), work));
        let answer = answer.into_actor(self);
        ctx.spawn(answer.map(move |done, connection, _| {
            let id = in_flight.id.clone();
            drop(in_flight);
            connection.respond(id, done.and_then(payload_of), None);
        }));
    }

    fn ask(
        &self,
        project_id: &ProjectId,
        parts: Vec<PartId>,
    ) -> impl Future<Output = Result<usize, ApiError>> + use<> {
        let (node, project_id) = (self.node.clone(), project_id.clone());
        let user_id = self.claims.as_ref().map(|claims| claims.user_id.clone());
        let ask = OwnerAsk::Snapshots { connection_id: self.id.clone(), parts };
        async move {
            let user_id = user_id.ok_or_else(|| ApiError::from(ErrorCode::Unauthenticated))?;
            let answer = node.ask_owner(&project_id, &user_id, ask, None).await?;
            let OwnerAnswer::Snapshots(sent) = answer else { return Err(mismatch()) };
            Ok(sent)
        }
    }
}
