//! The sockets below HTTP: how much of them the kernel may buffer, and how one is ended whose client
//! does not read.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
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
pub(crate) fn accepted(stream: &TcpStream, data: &mut Extensions) {
    match prepared(stream) {
        Ok(socket) => drop(data.insert(Arc::new(socket))),
        // Such as one that has ended already.
        Err(error) => tracing::debug!(%error, "a connection could not be prepared"),
    }
}

/// A second handle of the socket, for [`abort_of`] while HTTP has the first.
pub(crate) fn prepared(stream: &TcpStream) -> io::Result<Socket> {
    let socket = SockRef::from(stream);
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    // One end of a pair behind TLS is none of TCP, whose socket was prepared before.
    #[cfg(target_os = "linux")]
    if !socket.local_addr()?.is_unix() {
        socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    }
    socket.try_clone()
}

/// What ends the connection of a request at once.
pub(crate) fn abort_of(request: &HttpRequest) -> Box<dyn Fn() + Send + Sync> {
    // Whoever serves the connection keeps the socket: once it has let go, there is nothing to end.
    abort(request.conn_data::<Arc<Socket>>().map(Arc::downgrade).unwrap_or_default())
}

/// What ends a connection at once, unless its socket is gone. Bytes that wait in the kernel are thrown
/// away, so that a client which does not read holds nothing here.
pub(crate) fn abort<S: AsFd + Send + Sync + 'static>(
    socket: Weak<S>,
) -> Box<dyn Fn() + Send + Sync> {
    Box::new(move || {
        let Some(socket) = socket.upgrade() else { return };
        let socket = SockRef::from(&*socket);
        let aborted = socket.set_linger(Some(Duration::ZERO));
        if let Err(error) = aborted.and_then(|()| socket.shutdown(Shutdown::Both)) {
            tracing::debug!(%error, "a connection had ended before it was aborted");
        }
    })
}
