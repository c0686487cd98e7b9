//! What Iris is compared with: a WebSocket server that does nothing but pass frames on, which are
//! encoded already, through one broadcast channel of tokio on one thread.
//!
//! It is this program once more, started with [`ARGUMENT`], and obeys the lines of its standard input.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::time::Duration;

use actix_http::ws::hash_key;
use anyhow::{Context, bail};
use bytes::{BufMut, Bytes, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::MissedTickBehavior;

use crate::machine::{SERVER_CORE, pinned};

/// Makes this program the bare server.
pub(crate) const ARGUMENT: &str = "bare-server";
/// Bytes that one write joins; the same as Iris.
const WRITE_BYTES: usize = 32 * 1024;
/// Bytes that the kernel may buffer for a client, and how long they may stay unacknowledged; the same as
/// Iris.
const SEND_BUFFER_BYTES: usize = 128 * 1024;
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);
/// Frames that the channel holds: nobody may miss one.
const FRAMES_MAX: usize = 1024;

/// What it publishes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Publishing {
    /// Nothing.
    Nothing,
    /// One frame of `bytes`, `rate` times a second.
    Steady { bytes: usize, rate: u32 },
    /// `frames` of `bytes`, again as soon as everybody took all of them.
    Full { bytes: usize, frames: usize },
}

impl Publishing {
    fn line(self) -> String {
        match self {
            Self::Nothing => "nothing".to_owned(),
            Self::Steady { bytes, rate } => format!("steady {bytes} {rate}"),
            Self::Full { bytes, frames } => format!("full {bytes} {frames}"),
        }
    }

    fn parse(line: &str) -> anyhow::Result<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        Ok(match words.as_slice() {
            ["steady", bytes, rate] => Self::Steady { bytes: bytes.parse()?, rate: rate.parse()? },
            ["full", bytes, frames] => {
                Self::Full { bytes: bytes.parse()?, frames: frames.parse()? }
            }
            _ => Self::Nothing,
        })
    }
}

/// The bare server as a child process.
pub(crate) struct Bare {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Bare {
    /// Starts it on the core of servers.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let program = std::env::current_exe()?;
        let mut child = pinned(SERVER_CORE, &program)
            .arg(ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.as_mut().context("the bare server has no standard output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().parse().context("the bare server did not start")?;
        Ok(Self { child, address })
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Says what is published from now on.
    pub(crate) fn publish(&mut self, publishing: Publishing) -> anyhow::Result<()> {
        let stdin = self.child.stdin.as_mut().context("the bare server has no standard input")?;
        Ok(writeln!(stdin, "{}", publishing.line())?)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // Fails when it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Is the bare server, until its standard input ends.
pub(crate) fn serve() -> anyhow::Result<()> {
    rlimit::increase_nofile_limit(rlimit::INFINITY)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (tell, told) = watch::channel(Publishing::Nothing);
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
        std::thread::spawn(move || {
            for line in std::io::stdin().lines().map_while(Result::ok) {
                tell.send_replace(Publishing::parse(&line).unwrap_or(Publishing::Nothing));
            }
        });
        let (frames, _) = broadcast::channel(FRAMES_MAX);
        tokio::spawn(accept(listener, frames.clone()));
        publish(&frames, told).await;
        Ok(())
    })
}

async fn accept(listener: TcpListener, frames: broadcast::Sender<Bytes>) {
    while let Ok((stream, _)) = listener.accept().await {
        let frames = frames.subscribe();
        tokio::spawn(async move {
            // A client that goes away is no error.
            drop(pass_on(stream, frames).await);
        });
    }
}

async fn pass_on(
    mut stream: TcpStream,
    mut frames: broadcast::Receiver<Bytes>,
) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER_BYTES)?;
    SockRef::from(&stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    shake_hands(&mut stream).await?;
    let mut written = BytesMut::new();
    loop {
        written.put(frames.recv().await?);
        while written.len() < WRITE_BYTES {
            match frames.try_recv() {
                Ok(frame) => written.put(frame),
                Err(TryRecvError::Empty) => break,
                Err(error) => return Err(error.into()),
            }
        }
        stream.write_all(&written).await?;
        written.clear();
    }
}

async fn shake_hands(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            bail!("no request");
        }
    }
    let head = String::from_utf8(head)?;
    let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: "));
    let accept = hash_key(key.context("no key")?.as_bytes());
    let accept = str::from_utf8(&accept)?;
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-accept: {accept}\r\n\r\n"
    );
    Ok(stream.write_all(answer.as_bytes()).await?)
}

/// Publishes as it was told, until nobody is left who would say otherwise.
async fn publish(frames: &broadcast::Sender<Bytes>, mut told: watch::Receiver<Publishing>) {
    loop {
        let publishing = *told.borrow_and_update();
        match publishing {
            Publishing::Nothing => {}
            Publishing::Steady { bytes, rate } => {
                let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                let frame = frame(bytes);
                while !told.has_changed().unwrap_or(true) {
                    ticks.tick().await;
                    // Nobody may be there yet.
                    drop(frames.send(frame.clone()));
                }
            }
            Publishing::Full { bytes, frames: count } => {
                let frame = frame(bytes);
                while !told.has_changed().unwrap_or(true) {
                    for _ in 0..count {
                        drop(frames.send(frame.clone()));
                    }
                    while !frames.is_empty() {
                        tokio::task::yield_now().await;
                    }
                }
            }
        }
        if told.changed().await.is_err() {
            return;
        }
    }
}

/// A text frame of so many bytes, its head included.
fn frame(bytes: usize) -> Bytes {
    let payload = bytes.saturating_sub(4);
    let length = u16::try_from(payload).unwrap_or(u16::MAX).to_be_bytes();
    let mut frame = BytesMut::with_capacity(bytes);
    frame.put_slice(&[0x81, 126]);
    frame.put_slice(&length);
    frame.put_bytes(b'x', payload);
    frame.freeze()
}
