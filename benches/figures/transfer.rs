//! What an upload costs beside a plain copy of the same bytes from a socket to the disk, in the same run, and
//! what it takes of memory. With `--quick` the file is an eighth as large.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, ensure};
use iris_protocol::FileDelete;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::conversation::Owner;
use crate::server::{OK, Server, data_dir};
use crate::table::{Figure, median};

const FILE_MEGABYTES: u32 = 512;
const MEGABYTE: usize = 1024 * 1024;
const RUNS: usize = 5;
/// Bytes that a client gives the kernel at a time.
const WRITE_BYTES: usize = 256 * 1024;
const BOUNDARY: &str = "iris-figures";
/// An upload has 70 % of the speed of the copy: it takes so many times as long at most.
const TIMES_MAX: f64 = 1.0 / 0.7;
/// Megabytes by which the server may grow, however large the file is.
const GROWTH_MAX: f64 = 32.0;

pub(crate) async fn figures() -> anyhow::Result<Vec<Figure>> {
    let is_quick = std::env::args().any(|argument| argument == "--quick");
    let megabytes = if is_quick { FILE_MEGABYTES / 8 } else { FILE_MEGABYTES };
    let bytes = usize::try_from(megabytes)? * MEGABYTE;
    let data_dir = data_dir()?;
    let server = Server::start(data_dir.path())?;
    let owner = Owner::of(&server).await?;
    // Both have been everywhere once.
    upload(&server, &owner, WRITE_BYTES).await?;
    copy(data_dir.path(), WRITE_BYTES).await?;
    let before = server.memory_mb("VmRSS")?;
    let (mut times, mut copies, mut uploads) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let plain = copy(data_dir.path(), bytes).await?;
        let own = upload(&server, &owner, bytes).await?;
        times.push(own / plain);
        copies.push(plain);
        uploads.push(own);
    }
    let peak = server.memory_mb("VmHWM")?;
    server.stop()?;
    let speed = |seconds: &[f64]| f64::from(megabytes) / median(seconds);
    Ok(vec![
        Figure {
            name: "upload of a file, as long as a plain copy to the disk",
            target: Some(TIMES_MAX),
            unit: "times",
            samples: times,
            comparison: format!("{:.0} MiB/s, plain {:.0} MiB/s", speed(&uploads), speed(&copies)),
        },
        Figure {
            name: "growth of the server by uploads",
            target: Some(GROWTH_MAX),
            unit: "MB",
            samples: vec![peak - before],
            comparison: format!("{RUNS} files of {megabytes} MiB"),
        },
    ])
}

/// Seconds for `tokio::io::copy` from a socket to a file, which is synced.
async fn copy(directory: &Path, bytes: usize) -> anyhow::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let path = directory.join("plain");
    let receive = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await?;
        let mut file = File::create(&path).await?;
        let copied = tokio::io::copy(&mut socket, &mut file).await?;
        file.sync_all().await?;
        std::io::Result::Ok(copied)
    });
    let began = Instant::now();
    let mut socket = TcpStream::connect(address).await?;
    send(&mut socket, bytes).await?;
    socket.shutdown().await?;
    let copied = receive.await??;
    let took = began.elapsed().as_secs_f64();
    ensure!(copied == bytes as u64, "{copied} of {bytes} bytes were copied");
    Ok(took)
}

/// Seconds for a form with one file, until its version is told.
async fn upload(server: &Server, owner: &Owner, bytes: usize) -> anyhow::Result<f64> {
    let host = server.url().strip_prefix("http://").context("the URL of the server")?;
    let head = format!(
        "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"large\"\r\n\r\n"
    );
    let tail = format!("\r\n--{BOUNDARY}--\r\n");
    let request = format!(
        "POST /v1/projects/{}/uploads HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {}\r\n\
         content-type: multipart/form-data; boundary={BOUNDARY}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{head}",
        owner.project,
        owner.token(),
        head.len() + bytes + tail.len(),
    );
    let began = Instant::now();
    let mut socket = TcpStream::connect(host).await?;
    socket.write_all(request.as_bytes()).await?;
    send(&mut socket, bytes).await?;
    socket.write_all(tail.as_bytes()).await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    let took = began.elapsed().as_secs_f64();
    ensure!(answer.starts_with(OK) && answer.contains("\"version\":"), "the answer is {answer}");
    let delete =
        FileDelete { path: "large".to_owned(), recursive: None, unversioned: None, version: None };
    owner.client.call(Some(&owner.project), delete).await?;
    Ok(took)
}

async fn send(socket: &mut TcpStream, bytes: usize) -> std::io::Result<()> {
    let block = vec![0x5a; WRITE_BYTES];
    for _ in 0..bytes / WRITE_BYTES {
        socket.write_all(&block).await?;
    }
    Ok(())
}
