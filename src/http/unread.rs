//! A body that nobody reads to its end, of a length that nobody knows: its connection ends with the answer.
//!
//! The HTTP library would read on for as long as somebody sends, to take the next request from behind it. It does not
//! while somebody holds the body; so the answer does.

use std::cell::RefCell;
use std::error::Error;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::HttpMessage;
use actix_web::body::{BodySize, BoxBody, EitherBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::error::PayloadError;
use actix_web::middleware::Next;
use bytes::Bytes;
use futures_util::Stream;

/// The body of a request, for whoever reads it and for the answer.
type Held = Rc<RefCell<Payload>>;

/// The middleware, before all that answers.
///
/// # Errors
/// None of its own.
pub(crate) async fn end_unread<B: MessageBody + 'static>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B, Holding>>, actix_web::Error> {
    // Where the length is known the library ends the connection by itself.
    if !request.chunked().unwrap_or(false) {
        return Ok(next.call(request).await?.map_into_left_body());
    }
    let held = Rc::new(RefCell::new(request.take_payload()));
    request.set_payload(Payload::Stream { payload: Box::pin(Reading(Rc::clone(&held))) });
    let response = next.call(request).await?;
    Ok(response
        .map_body(|_, answer| EitherBody::right(Holding { answer: answer.boxed(), _held: held })))
}

struct Reading(Held);

impl Stream for Reading {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_next(cx)
    }
}

/// An answer that keeps the body of its request until it is sent.
pub(crate) struct Holding {
    answer: BoxBody,
    _held: Held,
}

impl MessageBody for Holding {
    type Error = Box<dyn Error>;

    fn size(&self) -> BodySize {
        self.answer.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.answer).poll_next(cx)
    }
}
