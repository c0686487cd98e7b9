//! The half of a WebSocket that writes: takes frames out of the queue of a connection and puts them into
//! its socket, as many at a time as the kernel takes.
//!
//! The queue wakes it, and so does the socket once it takes more again; both put it into the list of
//! the thread's [`Flusher`], which alone writes.

use std::io::{self, ErrorKind, Read};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};

use actix_http::ws::{CloseCode, CloseReason as WireReason, Codec, Message};
use actix_web::rt::net::TcpStream;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use iris_actors::connection::{Bundle, CloseReason, OutFrame, Outbound, Transport};
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::sync::Notify;
use tokio_util::codec::Encoder;

use super::flusher::{Flusher, Scratch};

/// Bytes that one write joins from the queue, as long as there are frames.
pub(super) const WRITE_BYTES: usize = 32 * 1024;
/// Of the head of a frame that is not masked.
const HEAD_BYTES_MAX: usize = 10;
/// Of what a client sent and nobody reads any more, read all the same when its connection ends: else
/// the kernel would reset it, and the client might never see the close frame.
const UNREAD_BYTES_MAX: usize = 1024 * 1024;

/// The writing half of one connection. What a delivery looks at is in one cache line.
#[repr(C, align(64))]
pub(super) struct Outgoing {
    outbound: Arc<Outbound>,
    /// That of `open`, for whoever only looks.
    stream: Weak<TcpStream>,
    /// None once the connection has ended.
    open: Mutex<Option<Open>>,
    flusher: Arc<Flusher>,
    /// Whether it is in the list of the flusher.
    is_listed: AtomicBool,
    /// Told when it has.
    ended: Notify,
}

struct Open {
    stream: Arc<TcpStream>,
    /// Of what was taken out of the queue, or came before it, that which the kernel did not take yet.
    rest: Bytes,
}

/// How a turn ended.
enum Turn {
    /// Something waits, but others come first.
    Over,
    /// The queue or the socket will wake it.
    Waits,
    /// All was said.
    Done,
}

/// Serves the writing half of a connection until it has ended, and ends it when it is dropped.
/// `unsent` is written before the first frame.
pub(super) async fn write(
    stream: Arc<TcpStream>,
    unsent: Bytes,
    outbound: Arc<Outbound>,
    flusher: Arc<Flusher>,
) {
    let outgoing = Arc::new(Outgoing {
        outbound,
        stream: Arc::downgrade(&stream),
        open: Mutex::new(Some(Open { stream, rest: unsent })),
        flusher,
        is_listed: AtomicBool::new(false),
        ended: Notify::new(),
    });
    let serving = Serving(Arc::clone(&outgoing));
    let transport: Weak<Outgoing> = Arc::downgrade(&outgoing);
    outgoing.outbound.comes_by(Arc::clone(outgoing.flusher.courier()), transport);
    outgoing.wake();
    serving.0.ended.notified().await;
}

struct Serving(Arc<Outgoing>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Wake for Outgoing {
    fn wake(self: Arc<Self>) {
        if !self.is_listed.swap(true, Ordering::AcqRel) {
            Arc::clone(&self.flusher).add(self);
        }
    }
}

impl Outgoing {
    /// Writes what can be written now.
    pub(super) fn flush(self: Arc<Self>, scratch: &mut Scratch) {
        self.is_listed.store(false, Ordering::Release);
        let mut doubtful = Doubtful(Some(&self));
        let turn = self.turn(scratch);
        doubtful.0 = None;
        match turn {
            Ok(Turn::Waits) => {}
            Ok(Turn::Over) => Arc::clone(&self).wake(),
            Ok(Turn::Done) => self.end(),
            Err(error) => {
                tracing::debug!(%error, "a client is gone");
                self.end();
            }
        }
    }

    /// Brings deliveries to the reader. Where nothing waits they go into the socket at once.
    fn bring(&self, bundle: &Bundle, wire: &Bytes) -> io::Result<()> {
        let mut open = self.open.lock();
        // One that has ended hears nothing more.
        let Some(Open { stream, rest }) = open.as_mut() else { return Ok(()) };
        let mut tried = Ok(());
        self.outbound.bring(bundle, || match send_once(stream, wire) {
            Ok(sent) if sent == wire.len() => true,
            Ok(sent) => {
                *rest = wire.slice(sent..);
                false
            }
            Err(error) => {
                tried = Err(error);
                true
            }
        });
        tried
    }

    fn turn(self: &Arc<Self>, scratch: &mut Scratch) -> io::Result<Turn> {
        let waker = Waker::from(Arc::clone(self));
        let mut cx = Context::from_waker(&waker);
        let mut open = self.open.lock();
        let Some(Open { stream, rest }) = open.as_mut() else { return Ok(Turn::Waits) };
        let sent = send(stream, rest, &mut cx)?;
        rest.advance(sent);
        // What is more than a write comes when others have had theirs.
        let mut written = 0;
        while rest.is_empty() && written < WRITE_BYTES {
            match self.outbound.poll_some(WRITE_BYTES, &cx, &mut scratch.frames) {
                Poll::Ready(true) => scratch.encode(),
                Poll::Ready(false) => return Ok(Turn::Done),
                Poll::Pending => return Ok(Turn::Waits),
            }
            let sent = send(stream, &scratch.bytes, &mut cx)?;
            scratch.bytes.advance(sent);
            *rest = Bytes::copy_from_slice(&scratch.bytes);
            written += sent;
        }
        Ok(if rest.is_empty() { Turn::Over } else { Turn::Waits })
    }

    /// Ends the connection, unless it has ended: whoever reads it reads its end, and nothing more is
    /// queued.
    fn end(&self) {
        if let Some(Open { stream, .. }) = self.open.lock().take()
            && let Err(error) = hang_up(&stream)
        {
            tracing::debug!(%error, "a connection had ended before it was closed");
        }
        self.outbound.abandon();
        self.ended.notify_one();
    }
}

impl Transport for Outgoing {
    fn deliver(&self, bundle: &Bundle, wire: &Bytes) {
        let mut doubtful = Doubtful(Some(self));
        let brought = self.bring(bundle, wire);
        doubtful.0 = None;
        if let Err(error) = brought {
            tracing::debug!(%error, "a client is gone");
            self.end();
        }
    }

    fn is_free(&self) -> bool {
        (self.stream.strong_count() > 0) & !self.open.is_locked()
    }
}

/// Ends a connection of which nobody knows what was written, when a panic drops this.
struct Doubtful<'a>(Option<&'a Outgoing>);

impl Drop for Doubtful<'_> {
    fn drop(&mut self) {
        if let Some(outgoing) = self.0 {
            outgoing.end();
        }
    }
}

/// Gives bytes to the kernel until it takes no more; how many it took. When it did not take all of them
/// the task will be woken.
pub(super) fn send(stream: &TcpStream, bytes: &[u8], cx: &mut Context<'_>) -> io::Result<usize> {
    let mut sent = 0;
    while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
        match stream.try_write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                match stream.poll_write_ready(cx) {
                    Poll::Ready(ready) => ready?,
                    Poll::Pending => break,
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

/// Gives bytes to the kernel as far as it takes them at once; how many it took. What the runtime knows of
/// the socket is not looked at: it costs memory that is not at hand, and nearly every socket takes all.
fn send_once(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match SockRef::from(stream).send(bytes) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(0)
        }
        sent => sent,
    }
}

/// Says that nothing more comes, and does not wait for the client to say so too: RFC 6455 (section 7.1.1)
/// has the client wait for the server.
pub(super) fn hang_up(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.shutdown(Shutdown::Write)?;
    let (mut unread, mut bytes) = (0, [0; 4096]);
    while unread < UNREAD_BYTES_MAX {
        match (&*socket).read(&mut bytes) {
            Ok(0) | Err(_) => break,
            Ok(count) => unread += count,
        }
    }
    socket.shutdown(Shutdown::Both)
}

impl Scratch {
    /// Encodes the frames in place of what is there.
    fn encode(&mut self) {
        let Self { frames, bytes, codec } = self;
        bytes.clear();
        bytes.reserve(frames.iter().map(|frame| length(frame)).sum());
        for frame in frames.drain(..) {
            encode(&frame, codec, bytes);
        }
    }

    /// Frames that go to many.
    pub(super) fn encoded(&mut self, bundle: &Bundle) -> Bytes {
        let frames = bundle.deliveries().iter().map(|delivery| delivery.frame());
        let mut bytes = BytesMut::with_capacity(frames.clone().map(length).sum());
        for frame in frames {
            encode(frame, &mut self.codec, &mut bytes);
        }
        bytes.freeze()
    }
}

/// At least as many bytes as a frame is encoded in, but for a control frame.
fn length(frame: &OutFrame) -> usize {
    HEAD_BYTES_MAX + frame.json().map_or(0, Bytes::len)
}

fn encode(frame: &OutFrame, codec: &mut Codec, to: &mut BytesMut) {
    let control = match frame {
        OutFrame::Text(json)
        | OutFrame::Replay(json)
        | OutFrame::Delta(_, json)
        | OutFrame::Snapshot(_, json)
        | OutFrame::Latest(_, json)
        | OutFrame::Left(_, json) => return encode_text(json, to),
        OutFrame::Binary(bytes) => return encode_whole(LAST_BINARY, bytes, to),
        OutFrame::Ping => Message::Ping(Bytes::new()),
        OutFrame::Pong(payload) => Message::Pong(payload.clone()),
        OutFrame::Close(reason) => close(reason.clone()),
    };
    if let Err(error) = codec.encode(control, to) {
        tracing::error!(%error, "a frame could not be encoded");
    }
}

/// A close frame.
pub(super) fn close(CloseReason { code, text }: CloseReason) -> Message {
    Message::Close(Some(WireReason { code: CloseCode::from(code), description: Some(text) }))
}

/// Writes a text frame (RFC 6455, section 5.2). The codec would look at every byte of JSON for every
/// reader, whether it is UTF-8; JSON from serde is.
pub(super) fn encode_text(json: &[u8], to: &mut BytesMut) {
    encode_whole(LAST_TEXT, json, to);
}

/// The first byte of a text message in one frame, and of a binary one.
const LAST_TEXT: u8 = 0x81;
const LAST_BINARY: u8 = 0x82;

fn encode_whole(first: u8, payload: &[u8], to: &mut BytesMut) {
    to.put_u8(first);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ 0..=125), _) => to.put_u8(length),
        (_, Ok(length)) => {
            to.put_u8(126);
            to.put_u16(length);
        }
        (_, Err(_)) => {
            to.put_u8(127);
            to.put_u64(payload.len() as u64);
        }
    }
    to.put_slice(payload);
}

#[cfg(test)]
mod tests;
