//! The HTTP server: who listens, and what becomes of a connection that another protocol takes over.
//!
//! It is put together from the library's parts, because its ready-made server keeps every socket to
//! itself: a WebSocket would go on as the body of a response (docs/decisions/0013).

mod upgrade;

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::thread::available_parallelism;
use std::time::Duration;

use actix_http::{HttpService, Request};
use actix_service::{IntoServiceFactory, ServiceFactoryExt, map_config};
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, Server, Service, ServiceFactory, ServiceResponse};
use iris_actors::Node;

use crate::sockets;

pub(crate) use upgrade::{Offer, Taken};

/// How long a client may take to send a request's head.
const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection is kept between requests. Longer than what clients and proxies do with one that
/// they do not need (a minute and less), so that none is closed by the server as it is taken up again.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long a client may take to end a connection that the server has ended.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long connections get to end after they were told to.
const SHUTDOWN_TIMEOUT_SECONDS: u64 = 3;

/// Serves an application on a listener: one worker thread for each core, an application for each of
/// them. Signals of the process are left to others.
///
/// # Errors
/// When the listener cannot be used.
pub(crate) fn serve<App, Factory, Body>(
    listener: TcpListener,
    node: &Node,
    app: impl Fn() -> App + Clone + Send + 'static,
) -> io::Result<Server>
where
    App: IntoServiceFactory<Factory, Request>,
    Factory: ServiceFactory<
            Request,
            Config = AppConfig,
            Response = ServiceResponse<Body>,
            Error = actix_web::Error,
            InitError: fmt::Debug,
            Service: Service<Request, Future: 'static> + 'static,
            Future: 'static,
        > + 'static,
    Body: MessageBody + 'static,
{
    let builder = Server::build();
    let (stopping, node) = (builder.graceful_shutdown_signal(), node.clone());
    let service = move || {
        let factory = || map_config(app(), |()| AppConfig::default());
        let stopping = stopping.clone();
        HttpService::build()
            // Else every idle connection would be waited for when the server stops.
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            .keep_alive(KEEP_ALIVE)
            .client_request_timeout(REQUEST_HEAD_TIMEOUT)
            .client_disconnect_timeout(DISCONNECT_TIMEOUT)
            // No client of HTTP sends the end of its half and goes on reading. One that does is gone,
            // and its event stream is ended now and not after the next comments.
            .h1_allow_half_closed(false)
            // Frames are small and each is awaited: held back for an acknowledgement it comes 40 ms late.
            .tcp_nodelay(true)
            .on_connect_ext(sockets::accepted)
            .upgrade(upgrade::service(factory(), node.clone()))
            .finish(factory().map_err(|error| error.error_response()))
            .tcp()
    };
    let server = builder
        .workers(available_parallelism().map_or(1, usize::from))
        .shutdown_timeout(SHUTDOWN_TIMEOUT_SECONDS)
        .disable_signals()
        .listen("iris", listener, service)?;
    Ok(server.run())
}
