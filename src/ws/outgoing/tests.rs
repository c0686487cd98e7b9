use actix_web::rt::net::TcpListener;
use actix_web::rt::spawn;
use tokio::io::AsyncReadExt;
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;

use super::*;

/// A connection, both ends of it. The client's takes few bytes unless it reads.
async fn connection() -> (Arc<TcpStream>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpSocket::new_v4().unwrap();
    client.set_recv_buffer_size(1).unwrap();
    let client = client.connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    SockRef::from(&server).set_send_buffer_size(1).unwrap();
    (Arc::new(server), client)
}

/// Serves the writing half, behind these bytes.
#[expect(clippy::disallowed_methods, reason = "there are no actors here")]
fn serve(stream: &Arc<TcpStream>, unsent: &'static [u8]) -> (Arc<Outbound>, JoinHandle<()>) {
    let outbound = Arc::<Outbound>::default();
    let (stream, queue) = (Arc::clone(stream), Arc::clone(&outbound));
    let writing = write(stream, Bytes::from_static(unsent), queue, Flusher::unguarded());
    (outbound, spawn(writing))
}

/// Long enough that the kernel takes a part of it.
fn long_text(number: u8) -> Bytes {
    Bytes::from(vec![number; 300_000])
}

#[actix_web::rt::test]
async fn every_byte_comes_once_and_in_order_however_little_the_kernel_takes() {
    let (stream, mut client) = connection().await;
    let (outbound, writing) = serve(&stream, b"head");
    let mut expected = BytesMut::from(&b"head"[..]);
    for number in 0..20 {
        let json = if number % 2 == 0 { long_text(number) } else { Bytes::from_static(b"{}") };
        outbound.push_replay([json.clone()]);
        encode_text(&json, &mut expected);
    }
    outbound.close(CloseReason::new(1000, "done"));
    expected.put_slice(b"\x88\x06\x03\xe8done");
    let mut read = Vec::new();
    client.read_to_end(&mut read).await.unwrap();
    assert!(read == expected, "{} bytes of {}", read.len(), expected.len());
    writing.await.unwrap();
    assert!(outbound.is_closed());
}

#[actix_web::rt::test]
async fn nothing_follows_the_close_frame_and_what_the_client_still_says_resets_nothing() {
    let (stream, mut client) = connection().await;
    client.try_write(&[0; 1000]).unwrap();
    let (outbound, writing) = serve(&stream, b"");
    outbound.close(CloseReason::new(1001, ""));
    outbound.push(Bytes::from_static(b"{}"));
    writing.await.unwrap();
    let mut read = Vec::new();
    client.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"\x88\x02\x03\xe9");
}

#[actix_web::rt::test]
async fn a_client_that_is_gone_ends_the_writing_half() {
    let (stream, client) = connection().await;
    let (outbound, writing) = serve(&stream, b"");
    outbound.push(long_text(0));
    client.readable().await.unwrap();
    // What it did not read makes this a reset.
    drop(client);
    writing.await.unwrap();
    assert!(outbound.is_closed());
    assert!(!outbound.push(Bytes::from_static(b"{}")));
}

#[actix_web::rt::test]
async fn a_connection_that_is_not_served_any_more_ends() {
    let (stream, mut client) = connection().await;
    let (outbound, writing) = serve(&stream, b"head");
    client.readable().await.unwrap();
    writing.abort();
    assert!(writing.await.is_err());
    assert!(outbound.is_closed());
    let mut read = Vec::new();
    client.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"head");
    // Whoever reads it is told.
    stream.readable().await.unwrap();
    assert_eq!(stream.try_read(&mut [0]).unwrap(), 0);
}

#[actix_web::rt::test]
async fn a_panic_while_it_writes_ends_the_connection() {
    let (stream, mut client) = connection().await;
    let outbound = Arc::<Outbound>::default();
    let outgoing = Arc::new(Outgoing {
        outbound: Arc::clone(&outbound),
        flusher: Flusher::unguarded(),
        is_listed: AtomicBool::new(true),
        stream: Arc::downgrade(&stream),
        open: Mutex::new(Some(Open { stream, rest: Bytes::new() })),
        ended: Notify::new(),
    });
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _doubtful = Doubtful(Some(&outgoing));
        panic!("while it writes");
    }));
    assert!(panicked.is_err());
    outgoing.ended.notified().await;
    assert!(outbound.is_closed());
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}
