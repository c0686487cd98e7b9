//! The sockets below HTTP: how much of them the kernel may buffer, and how one is ended whose client
//! does not read.

use std::any::Any;
use std::io;
use std::net::Shutdown;
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::dev::Extensions;
use actix_web::rt::net::TcpStream;
use socket2::{SockRef, Socket};

/// Bytes that the kernel may buffer for a client. With its own choice of megabytes a slow reader would
/// be noticed late.
const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// How long bytes may stay unacknowledged before the kernel ends the connection.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);

/// Prepares a connection that was accepted.
pub(crate) fn accepted(io: &dyn Any, data: &mut Extensions) {
    let Some(stream) = io.downcast_ref::<TcpStream>() else { return };
    match prepared(stream) {
        Ok(socket) => drop(data.insert(Arc::new(socket))),
        // Such as one that has ended already.
        Err(error) => tracing::debug!(%error, "a connection could not be prepared"),
    }
}

/// A second handle of the socket, for [`abort`] and [`Deafening`].
fn prepared(stream: &TcpStream) -> io::Result<Socket> {
    let socket = SockRef::from(stream);
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    socket.try_clone()
}

/// When it is dropped the connection hears nothing more, so that it ends as soon as all was written.
/// Else the HTTP server would wait a second for what the client may still say, while RFC 6455 (section
/// 7.1.1) has the client wait for the server to end it.
pub(crate) struct Deafening(Weak<Socket>);

impl Deafening {
    /// For the connection of a request.
    pub(crate) fn of(request: &HttpRequest) -> Self {
        Self(request.conn_data::<Arc<Socket>>().map(Arc::downgrade).unwrap_or_default())
    }
}

impl Drop for Deafening {
    fn drop(&mut self) {
        let Some(socket) = self.0.upgrade() else { return };
        if let Err(error) = socket.shutdown(Shutdown::Read) {
            tracing::debug!(%error, "a connection had ended before it was closed");
        }
    }
}

/// What ends the connection of a request at once. Bytes that wait in the kernel are thrown away, so
/// that a client which does not read holds nothing here.
pub(crate) fn abort(request: &HttpRequest) -> Box<dyn Fn() + Send + Sync> {
    // Whoever serves the connection keeps the socket: once it has let go, there is nothing to end.
    let socket = request.conn_data::<Arc<Socket>>().map(Arc::downgrade).unwrap_or_default();
    Box::new(move || {
        let Some(socket) = socket.upgrade() else { return };
        let aborted = socket.set_linger(Some(Duration::ZERO));
        if let Err(error) = aborted.and_then(|()| socket.shutdown(Shutdown::Both)) {
            tracing::debug!(%error, "a connection had ended before it was aborted");
        }
    })
}
