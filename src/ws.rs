//! One WebSocket: the frames of RFC 6455 on one side, a connection actor and its queue on the other.
//!
//! Handshake and codec are the library's. The socket is ours once the handshake is answered: the actor
//! reads it, and one task for all sockets of a thread writes (docs/decisions/0001 and 0013).

#[cfg(feature = "echo")]
pub(crate) mod echo;
mod flusher;
mod incoming;
mod outgoing;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use actix_web::web::{Data, Query};
use actix_web::{HttpRequest, HttpResponse};
use actix_web_actors::ws::handshake;
use futures_util::StreamExt;
use iris_actors::connection::{Inbound, NewConnection, Outbound};
use iris_actors::{Node, TicketUse};
use iris_protocol::{ApiError, Operation};

use crate::http::{RestError, peer, who_connects};
use crate::server::{Offer, Taken};
use crate::sockets;

pub(crate) use flusher::Flusher;
use incoming::Incoming;

/// `GET /v1/ws`.
pub(crate) async fn connect(
    node: Data<Node>,
    request: HttpRequest,
) -> Result<HttpResponse, RestError> {
    let ticket = ticket(&request);
    let claims = who_connects(&node, &request, ticket.as_deref(), &TicketUse::Socket).await?;
    if claims.is_some() {
        node.count(claims.as_ref(), &peer(&request))?;
        node.admits(claims.as_ref(), Operation::Ping, None, None).await?;
    }
    let (node, peer) = (Node::clone(&node), peer(&request));
    let unknown = if claims.is_none() { node.admit_unknown(&peer)? } else { None };
    let (response, offer) = shake_hands(&request)?;
    offer.accept(|Taken { stream, unsent, came, flusher }| {
        let (stream, outbound) = (Arc::new(stream), Arc::new(Outbound::default()));
        let is_known = Arc::new(AtomicBool::new(claims.is_some()));
        let incoming = Incoming::new(Arc::clone(&stream), came, Arc::clone(&is_known));
        let connection = NewConnection {
            node,
            inbound: incoming.map(Inbound::from),
            is_known,
            outbound: Arc::clone(&outbound),
            abort: sockets::abort(Arc::downgrade(&stream)),
            claims,
            unknown,
            peer,
        };
        connection.start();
        outgoing::write(stream, unsent.freeze(), outbound, flusher)
    });
    Ok(response)
}

/// The answer to a handshake, and the socket that is taken over with it.
fn shake_hands(request: &HttpRequest) -> Result<(HttpResponse, Offer), ApiError> {
    let refused = |error: &str| {
        ApiError::invalid(format!("not a WebSocket handshake: {error}")).reason("handshake")
    };
    let mut response = handshake(request).map_err(|error| refused(&error.to_string()))?;
    let offer = Offer::of(request).ok_or_else(|| refused("the headers contradict each other"))?;
    Ok((response.finish(), offer))
}

/// The ticket in the URL, if it has one.
fn ticket(request: &HttpRequest) -> Option<String> {
    let query = Query::<Vec<(String, String)>>::from_query(request.query_string()).ok()?;
    query.into_inner().into_iter().find(|(name, _)| name == "ticket").map(|(_, ticket)| ticket)
}
