//! Connections that are encrypted: each is opened here, and what is in it goes through a pair of sockets to
//! the rest of the server, which serves it like any other.
//!
//! Each WebSocket writes to its socket itself (docs/decisions/0013), which over TLS nobody can. So it
//! keeps a socket of its own, and this copies between that one and the client.

use std::io;
use std::net::{SocketAddr, TcpStream as StdTcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::time::Duration;

use actix_http::Protocol;
use actix_http::error::DispatchError;
use actix_service::{ServiceFactory, ServiceFactoryExt, fn_service};
use actix_web::rt::net::TcpStream;
use iris_actors::supervision::detached;
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::DISCONNECT_TIMEOUT;
use crate::sockets;

/// How long a client may take to begin.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may take nothing of what is written to it. The rest of the server is sooner with who
/// reads too slowly, and this with who then does not even take the end.
const STALL_MAX: Duration = Duration::from_secs(30);
/// Bytes that are copied at a time: what fits into one record of TLS.
const COPY_BYTES: usize = 16 * 1024;

/// The service of a connection of HTTP, behind TLS.
pub(super) fn secured<Http>(
    acceptor: TlsAcceptor,
    http: Http,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = DispatchError, InitError = ()>
where
    Http: ServiceFactory<
            (TcpStream, Protocol, Option<SocketAddr>),
            Config = (),
            Response = (),
            Error = DispatchError,
            InitError = (),
        > + 'static,
{
    let open = fn_service(move |stream: TcpStream| {
        let acceptor = acceptor.clone();
        async move {
            let peer = stream.peer_addr().ok();
            let inside = open(&acceptor, stream).await.inspect_err(|error| {
                tracing::debug!(%error, "a client did not begin to speak TLS");
            })?;
            Ok::<_, DispatchError>((inside, Protocol::Http1, peer))
        }
    });
    open.and_then(http)
}

/// Takes a connection up. Answers the socket behind which there is what the client says.
async fn open(acceptor: &TlsAcceptor, stream: TcpStream) -> io::Result<TcpStream> {
    // Small frames are not held back, and what a client does not take is noticed.
    stream.set_nodelay(true)?;
    drop(sockets::prepared(&stream)?);
    let opened = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
    let client = opened.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let (inside, outside) = pair()?;
    detached(async move {
        if let Err(error) = relay(client, outside).await {
            tracing::debug!(%error, "a client is gone");
        }
    });
    Ok(inside)
}

/// Two ends of one connection that never leaves the process. To their holders they are like any other
/// socket of a stream of bytes.
fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let adopt = |end: UnixStream| {
        end.set_nonblocking(true)?;
        TcpStream::from_std(StdTcpStream::from(OwnedFd::from(end)))
    };
    let (inside, outside) = UnixStream::pair()?;
    Ok((adopt(inside)?, adopt(outside)?))
}

/// Copies both ways until the server has ended the connection.
async fn relay(client: TlsStream<TcpStream>, server: TcpStream) -> io::Result<()> {
    let (mut from_client, mut to_client) = split(client);
    let (mut from_server, mut to_server) = server.into_split();
    let mut up = pin!(async {
        let (mut bytes, mut is_heard) = (vec![0; COPY_BYTES], true);
        while let Ok(count @ 1..) = from_client.read(&mut bytes).await {
            // What nobody reads any more is taken all the same: else the kernel would reset the
            // connection, and the client might lose what was said last.
            let read = bytes.get(..count).unwrap_or_default();
            is_heard = is_heard && to_server.write_all(read).await.is_ok();
        }
        // The server reads the end, and ends the connection in its turn.
        to_server.shutdown().await
    });
    let mut down = pin!(async {
        let mut bytes = vec![0; COPY_BYTES];
        loop {
            let count = from_server.read(&mut bytes).await?;
            let Some(read @ [_, ..]) = bytes.get(..count) else { break };
            let writing = async {
                to_client.write_all(read).await?;
                to_client.flush().await
            };
            timeout(STALL_MAX, writing).await.map_err(|_| io::ErrorKind::TimedOut)??;
        }
        timeout(DISCONNECT_TIMEOUT, to_client.shutdown())
            .await
            .map_err(|_| io::ErrorKind::TimedOut)?
    });
    tokio::select! {
        ended = &mut down => {
            drop(timeout(DISCONNECT_TIMEOUT, up).await);
            ended
        }
        _ = &mut up => down.await,
    }
}
