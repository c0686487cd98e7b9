//! Requests to go on with another protocol on the same connection (RFC 9110, section 7.8): the
//! application answers them like all others, and the handler that says yes gets the socket.

use std::cell::RefCell;
use std::fmt;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use actix_codec::{Framed, FramedParts};
use actix_http::h1::{self, Message};
use actix_http::{ConnectionType, Request, Response};
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Service, ServiceFactory, ServiceResponse, fn_factory, fn_service};
use actix_web::http::StatusCode;
use actix_web::rt::net::TcpStream;
use actix_web::{HttpMessage, HttpRequest, HttpResponse};
use bytes::BytesMut;
use futures_util::future::{LocalBoxFuture, poll_fn};
use iris_actors::{Node, Pace};
use tokio::io::AsyncWriteExt;
use tokio_util::codec::Encoder;

use crate::ws::Flusher;

/// A connection that HTTP has let go of.
pub(crate) struct Taken {
    /// The socket, which nothing else reads or writes any more.
    pub(crate) stream: TcpStream,
    /// What has to be written before anything else: the answer to the request, behind whatever earlier
    /// answers left.
    pub(crate) unsent: BytesMut,
    /// What the client has sent behind its request.
    pub(crate) came: BytesMut,
    /// Of the thread that serves the connection.
    pub(crate) flusher: Arc<Flusher>,
}

/// A request for an upgrade, and its connection.
type Upgrade = (Request, Framed<TcpStream, h1::Codec>);
/// Serves a connection from its takeover to its end.
type Takeover = Box<dyn FnOnce(Taken) -> LocalBoxFuture<'static, ()>>;

/// The socket of a request, for the handler to take. Only requests that ask for a WebSocket in the form
/// that the HTTP library understands carry one.
#[derive(Clone, Default)]
pub(crate) struct Offer(Rc<RefCell<Option<Takeover>>>);

impl Offer {
    /// That of a request, if it has one.
    pub(crate) fn of(request: &HttpRequest) -> Option<Self> {
        request.extensions().get::<Self>().cloned()
    }

    /// Serves the connection with `takeover`, if the answer to the request is 101.
    pub(crate) fn accept<F: Future<Output = ()> + 'static>(
        self,
        takeover: impl FnOnce(Taken) -> F + 'static,
    ) {
        self.0.replace(Some(Box::new(|taken| Box::pin(takeover(taken)))));
    }
}

/// What answers requests for an upgrade, made once for each worker thread.
pub(super) fn service<Factory, Body>(
    app: Factory,
    node: Node,
) -> impl ServiceFactory<
    Upgrade,
    Config = (),
    Response = (),
    Error = actix_web::Error,
    InitError = Factory::InitError,
    Service: Service<Upgrade> + 'static,
    Future: 'static,
>
where
    Factory: ServiceFactory<
            Request,
            Config = (),
            Response = ServiceResponse<Body>,
            Error = actix_web::Error,
            InitError: fmt::Debug,
            Service: Service<Request, Future: 'static> + 'static,
            Future: 'static,
        > + 'static,
    Body: MessageBody + 'static,
{
    fn_factory(move || {
        let (app, node) = (app.new_service(()), node.clone());
        async move {
            let (app, flusher) = (Rc::new(app.await?), Flusher::start(node));
            let pace = Pace::default();
            Ok(fn_service(move |(request, framed): Upgrade| {
                let (app, flusher, pace) = (Rc::clone(&app), Arc::clone(&flusher), pace.clone());
                async move {
                    // Who is connected already does not wait for a crowd that comes.
                    pace.step().await;
                    answer(app, request, framed, flusher).await
                }
            }))
        }
    })
}

/// Lets the application answer, and then whoever took the socket go on with it. Where nobody did, the
/// connection ends with the answer: nothing that comes behind such a request is read.
async fn answer<App, Body: MessageBody>(
    app: Rc<App>,
    request: Request,
    framed: Framed<TcpStream, h1::Codec>,
    flusher: Arc<Flusher>,
) -> Result<(), actix_web::Error>
where
    App: Service<Request, Response = ServiceResponse<Body>, Error = actix_web::Error>,
{
    let FramedParts { io: stream, mut codec, read_buf: came, write_buf: mut unsent, .. } =
        framed.into_parts();
    let offer = Offer::default();
    request.extensions_mut().insert(offer.clone());
    let response = match app.call(request).await {
        Ok(response) => response,
        Err(error) => {
            let response = Response::<BoxBody>::from(HttpResponse::from_error(error));
            return write_whole(stream, codec, unsent, response).await;
        }
    };
    // Whoever can abort the connection holds on to nothing that is older than it: this does.
    let request = response.request().clone();
    let is_upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let Some(takeover) = offer.0.take().filter(|_| is_upgrade) else {
        return write_whole(stream, codec, unsent, response.into()).await;
    };
    let head = Response::<Body>::from(response).drop_body();
    drop(request);
    codec.encode(Message::Item((head, BodySize::None)), &mut unsent)?;
    takeover(Taken { stream, unsent, came, flusher }).await;
    Ok(())
}

/// Writes an answer that is no upgrade, as the last one of its connection.
async fn write_whole<Body: MessageBody>(
    mut stream: TcpStream,
    mut codec: h1::Codec,
    mut unsent: BytesMut,
    response: Response<Body>,
) -> Result<(), actix_web::Error> {
    let (mut head, body) = response.into_parts();
    head.head_mut().set_connection_type(ConnectionType::Close);
    codec.encode(Message::Item((head, body.size())), &mut unsent)?;
    let mut body = pin!(body);
    loop {
        let chunk = poll_fn(|cx| body.as_mut().poll_next(cx)).await;
        let chunk = chunk.transpose().map_err(Into::into)?;
        let is_last = chunk.is_none();
        codec.encode(Message::Chunk(chunk), &mut unsent)?;
        stream.write_all_buf(&mut unsent).await?;
        if is_last {
            return Ok(stream.shutdown().await?);
        }
    }
}
