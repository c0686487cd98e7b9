//! A network between clients and a server, which gets as bad as it is told to.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Bytes that are carried at once at most.
const BUFFER_BYTES: usize = 64 * 1024;

/// What becomes of the bytes on their way, in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weather {
    /// How many of them go at once; at least 1.
    pub bytes_max: usize,
    /// How long each of these pieces takes.
    pub delay: Duration,
    /// Nothing arrives and nobody hears of it, until that ends.
    pub is_stalled: bool,
}

impl Weather {
    /// Everything arrives at once.
    pub const FAIR: Self =
        Self { bytes_max: BUFFER_BYTES, delay: Duration::ZERO, is_stalled: false };
}

/// A proxy for TCP on an address of its own.
pub struct Proxy {
    url: String,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    server: Mutex<SocketAddr>,
    weather: watch::Sender<Weather>,
    /// How many times everything was cut.
    cuts: watch::Sender<u64>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

/// What goes wrong here is the test's failure.
impl Proxy {
    /// Listens, for a server at a URL such as `http://127.0.0.1:40000`.
    pub async fn start(server_url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            server: Mutex::new(address(server_url)),
            weather: watch::Sender::new(Weather::FAIR),
            cuts: watch::Sender::new(0),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { url, shared, accepting }
    }

    /// Where clients connect, like `http://127.0.0.1:40001`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// From now on new connections lead to this server.
    pub fn lead_to(&self, server_url: &str) {
        *self.shared.server.lock() = address(server_url);
    }

    /// Changes the weather for all connections.
    pub fn set(&self, weather: Weather) {
        self.shared.weather.send_replace(weather);
    }

    /// Ends all connections, with whatever is on its way.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }
}

fn address(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").parse().unwrap()
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let mut cuts = shared.cuts.subscribe();
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            tokio::select! {
                // However it ends, both sides find out.
                _ = carry(client, &shared) => {}
                _ = cuts.changed() => {}
            }
        });
    }
}

async fn carry(client: TcpStream, shared: &Shared) -> io::Result<()> {
    let server = *shared.server.lock();
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    let up = pump(from_client, to_server, shared.weather.subscribe());
    let down = pump(from_server, to_client, shared.weather.subscribe());
    tokio::try_join!(up, down)?;
    Ok(())
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let bytes_max = weather.borrow().bytes_max;
        let count = from.read(&mut buffer[..bytes_max]).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        let now =
            *weather.wait_for(|weather| !weather.is_stalled).await.map_err(io::Error::other)?;
        tokio::time::sleep(now.delay).await;
        to.write_all(&buffer[..count]).await?;
    }
}
