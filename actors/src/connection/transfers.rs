//! Files over this connection: streams of chunks either way, each with its credit. The bytes take a way of
//! their own through tasks; the actor only looks at the heads of chunks.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use actix::prelude::*;
use iris_protocol::limits::{
    CHUNK_BYTES_MIN, CHUNKS_UNACKNOWLEDGED_MAX, STREAMS_PER_CONNECTION_MAX,
};
use iris_protocol::{
    ApiError, Chunk, ChunkError, ChunkKind, ConnectionFrame, DownloadBegin, DownloadBegun,
    ErrorCode, FrameError, Json, Operation, ProjectId, TransferFailure, UploadBegin, UploadBegun,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Connection, Outbound, answer, payload_of, push};
use crate::dispatch::{
    CurrentClaims, Done, DownloadStream, UploadStream, begin_download_stream, begin_upload_stream,
    broken,
};
use crate::supervision::{detached, in_request};

/// How long it may take to begin a stream before the connection counts as stuck: what came before a cut is
/// read once.
const BEGIN_BUDGET: Duration = Duration::from_mins(2);
/// How long nothing may come of a file before its stream ends.
const IDLE_MAX: Duration = Duration::from_mins(5);

/// The streams of one connection.
#[derive(Default)]
pub(super) struct Streams {
    /// For whom they are, now.
    pub(super) claims: CurrentClaims,
    /// The number of the newest.
    last: u32,
    /// Those that are not answered yet.
    beginning: usize,
    open: HashMap<u32, Stream>,
}

enum Stream {
    Up(Up),
    Down(Down),
}

/// A file that comes from the client.
struct Up {
    project_id: ProjectId,
    chunks: mpsc::Sender<Vec<u8>>,
    /// Where the next chunk has to begin.
    next: u64,
    /// Where the last one has to end.
    size: u64,
    unacknowledged: Arc<AtomicUsize>,
    receiving: JoinHandle<Option<UploadStream>>,
}

/// A file that goes to the client. Dropping it ends the stream.
struct Down {
    project_id: ProjectId,
    acknowledged: watch::Sender<u64>,
    has_ended: Arc<AtomicBool>,
}

impl Stream {
    fn has_ended(&self) -> bool {
        match self {
            Self::Up(up) => up.chunks.is_closed(),
            Self::Down(down) => down.has_ended.load(Ordering::Acquire),
        }
    }

    fn project_id(&self) -> &ProjectId {
        match self {
            Self::Up(up) => &up.project_id,
            Self::Down(down) => &down.project_id,
        }
    }
}

impl Streams {
    /// Makes room for one more.
    fn make_room(&mut self) -> Result<(), ApiError> {
        self.open.retain(|_, stream| !stream.has_ended());
        if self.open.len() + self.beginning < STREAMS_PER_CONNECTION_MAX {
            return Ok(());
        }
        let message = format!("a connection has at most {STREAMS_PER_CONNECTION_MAX} streams");
        Err(ApiError::new(ErrorCode::QuotaExceeded, message).reason("too_many_streams"))
    }

    fn add(&mut self, stream: impl FnOnce(u32) -> Stream) -> u32 {
        self.last = self.last.wrapping_add(1);
        self.open.insert(self.last, stream(self.last));
        self.last
    }

    /// Takes a stream out that the request may mean.
    fn take(&mut self, number: u32, project_id: Option<&ProjectId>, is_up: bool) -> Option<Stream> {
        let stream = self.open.get(&number)?;
        let is_it = matches!(stream, Stream::Up(_)) == is_up
            && project_id.is_none_or(|project_id| project_id == stream.project_id());
        if is_it { self.open.remove(&number) } else { None }
    }
}

/// A request that is about a stream.
pub(super) struct About {
    pub(super) id: String,
    pub(super) deadline_ms: Option<u64>,
    pub(super) project_id: Option<ProjectId>,
}

impl Connection {
    pub(super) fn begin_upload(
        &mut self,
        about: About,
        begin: UploadBegin,
        ctx: &mut Context<Self>,
    ) {
        let (node, claims) = (self.node.clone(), Arc::clone(&self.streams.claims));
        let (project_id, size) = (about.project_id.clone(), begin.size);
        let work = async move { begin_upload_stream(&node, claims, project_id, begin).await };
        self.begin(about, work, ctx, move |connection, upload| {
            let (project_id, received) = (upload.project_id().clone(), upload.received());
            let outbound = Arc::clone(&connection.outbound);
            let stream = connection.streams.add(|number| {
                let (chunks, coming) = mpsc::channel(CHUNKS_UNACKNOWLEDGED_MAX);
                let unacknowledged = Arc::<AtomicUsize>::default();
                let receiving =
                    Receiving { number, outbound, unacknowledged: Arc::clone(&unacknowledged) };
                let receiving = detached(receiving.run(upload, coming));
                let next = received;
                Stream::Up(Up { project_id, chunks, next, size, unacknowledged, receiving })
            });
            payload_of(UploadBegun { stream, received })
        });
    }

    pub(super) fn begin_download(
        &mut self,
        about: About,
        begin: DownloadBegin,
        ctx: &mut Context<Self>,
    ) {
        let (node, claims) = (self.node.clone(), Arc::clone(&self.streams.claims));
        let project_id = about.project_id.clone();
        let work = async move { begin_download_stream(&node, claims, project_id, begin).await };
        self.begin(about, work, ctx, move |connection, download| {
            let project_id = download.project_id().clone();
            let (size, etag) = (download.file.file.size, download.file.file.hash.clone());
            let outbound = Arc::clone(&connection.outbound);
            let stall = connection.node.services.settings.answer_stall;
            let stream = connection.streams.add(|number| {
                let (acknowledged, progress) = watch::channel(download.file.offset());
                let has_ended = Arc::<AtomicBool>::default();
                let sending = Sending { number, outbound, progress, stall };
                let ended = Arc::clone(&has_ended);
                drop(detached(async move {
                    sending.run(download).await;
                    ended.store(true, Ordering::Release);
                }));
                Stream::Down(Down { project_id, acknowledged, has_ended })
            });
            payload_of(DownloadBegun { stream, size, etag })
        });
    }

    /// Begins a stream and answers with it.
    fn begin<T: 'static>(
        &mut self,
        About { id, deadline_ms, .. }: About,
        begun: impl Future<Output = Result<T, ApiError>> + 'static,
        ctx: &mut Context<Self>,
        answer: impl FnOnce(&mut Self, T) -> Result<Json, ApiError> + 'static,
    ) {
        if let Err(error) = self.streams.make_room() {
            return self.respond(id, Err(error), None);
        }
        let (in_flight, permit) = match self.requests.begin(id, deadline_ms) {
            Ok(begun) => begun,
            Err((id, error)) => return self.refuse(id, error, ctx),
        };
        self.streams.beginning += 1;
        let work = self.vitals.begin("transfer", BEGIN_BUDGET);
        let begun = Arc::clone(&in_flight.patience).bear(begun);
        let begun = in_request(self.tag(), begun).into_actor(self);
        ctx.spawn(begun.map(move |begun, connection, _| {
            drop((permit, work));
            let id = in_flight.id.clone();
            drop(in_flight);
            connection.streams.beginning -= 1;
            let answered = begun.and_then(|begun| answer(connection, begun));
            connection.respond(id, answered, None);
        }));
    }

    pub(super) fn commit_upload(&mut self, about: About, number: u32, ctx: &mut Context<Self>) {
        let stream = self.streams.take(number, about.project_id.as_ref(), true);
        self.end(about, Operation::UploadCommit, stream, ctx, UploadStream::commit);
    }

    pub(super) fn cancel_upload(&mut self, about: About, number: u32, ctx: &mut Context<Self>) {
        let stream = self.streams.take(number, about.project_id.as_ref(), true);
        self.end(about, Operation::UploadCancel, stream, ctx, UploadStream::cancel);
    }

    pub(super) fn cancel_download(&mut self, about: About, number: u32, ctx: &mut Context<Self>) {
        let stream = self.streams.take(number, about.project_id.as_ref(), false);
        self.end(about, Operation::DownloadCancel, stream, ctx, UploadStream::cancel);
    }

    /// Ends a stream, once what came of it is written, in a task of its own.
    fn end<F>(
        &mut self,
        About { id, deadline_ms, project_id }: About,
        operation: Operation,
        stream: Option<Stream>,
        ctx: &mut Context<Self>,
        finish: impl FnOnce(UploadStream) -> F + 'static,
    ) where
        F: Future<Output = Result<Done, ApiError>> + 'static,
    {
        let (in_flight, permit) = match self.requests.begin(id, deadline_ms) {
            Ok(begun) => begun,
            Err((id, error)) => return self.refuse(id, error, ctx),
        };
        let (node, outbound) = (self.node.clone(), Arc::clone(&self.outbound));
        let warnings = node.services.settings.deprecations.warnings(operation);
        let claims = self.claims.clone();
        let project_id = stream.as_ref().map(|stream| stream.project_id().clone()).or(project_id);
        detached(async move {
            let work = async move {
                node.admits(claims.as_ref(), operation, project_id.as_ref(), None).await?;
                let done = match stream {
                    None => Err(ApiError::not_found("stream")),
                    Some(Stream::Down(_)) => {
                        let payload = payload_of(iris_protocol::Done { done: true })?;
                        Ok(Done { payload, seq: None, replayed: false })
                    }
                    Some(Stream::Up(Up { chunks, receiving, .. })) => {
                        drop(chunks);
                        match receiving.await {
                            Ok(Some(upload)) => finish(upload).await,
                            Ok(None) => Err(ApiError::not_found("stream")),
                            Err(_) => Err(broken()),
                        }
                    }
                };
                drop(permit);
                done
            };
            answer(in_flight, &outbound, warnings, work).await;
        });
    }

    /// Takes a binary frame.
    pub(super) fn chunk(&mut self, frame: &[u8], ctx: &mut Context<Self>) {
        if self.outbound.is_closed() {
            return ctx.stop();
        }
        if self.claims.is_none() {
            let error = ApiError::from(ErrorCode::Unauthenticated);
            return self.protocol_error(FrameError { id: None, error }, ctx);
        }
        let invalid =
            |error: ChunkError| ApiError::invalid(error.to_string()).reason(error.reason());
        match Chunk::decode(frame) {
            Ok(chunk @ Chunk { kind: ChunkKind::Up, .. }) => self.chunk_up(&chunk, ctx),
            Ok(Chunk { kind: ChunkKind::Ack, stream, offset, .. }) => {
                // One of a stream that has just ended means nothing any more.
                if let Some(Stream::Down(down)) = self.streams.open.get(&stream) {
                    down.acknowledged.send_replace(offset);
                }
            }
            Ok(Chunk { kind: ChunkKind::Down, .. }) => {
                let error = invalid(ChunkError::Kind);
                self.protocol_error(FrameError { id: None, error }, ctx);
            }
            Err(error @ ChunkError::Checksum { stream })
                if self.streams.open.contains_key(&stream) =>
            {
                self.fail(stream, invalid(error));
            }
            Err(error) => {
                let error = invalid(error);
                self.protocol_error(FrameError { id: None, error }, ctx);
            }
        }
    }

    fn chunk_up(&mut self, chunk: &Chunk<'_>, ctx: &mut Context<Self>) {
        let number = chunk.stream;
        let Some(Stream::Up(up)) = self.streams.open.get_mut(&number) else {
            // Those that were on their way when a stream ended are nobody's fault.
            if (1..=self.streams.last).contains(&number) {
                return;
            }
            let error = ApiError::invalid(format!("there is no stream {number}"));
            let error = error.reason("unknown_stream");
            return self.protocol_error(FrameError { id: None, error }, ctx);
        };
        let end = chunk.offset.saturating_add(chunk.bytes.len() as u64);
        let refused = if chunk.offset != up.next || end > up.size || chunk.bytes.is_empty() {
            let message = format!("a chunk from {} up to {} was due", up.next, up.size);
            Some(ApiError::invalid(message).reason("chunk_offset"))
        } else if chunk.is_last && end != up.size {
            let message = format!("the chunk is called the last one, but ends at {end}");
            Some(ApiError::invalid(message).reason("chunk_flags"))
        } else if end != up.size && chunk.bytes.len() < CHUNK_BYTES_MIN {
            // Each is synced to the disk.
            let message = format!("a chunk but the last one has at least {CHUNK_BYTES_MIN} bytes");
            Some(ApiError::invalid(message).reason("chunk_length"))
        } else if up.unacknowledged.load(Ordering::Acquire) >= CHUNKS_UNACKNOWLEDGED_MAX {
            let message = format!("{CHUNKS_UNACKNOWLEDGED_MAX} chunks wait to be acknowledged");
            Some(ApiError::new(ErrorCode::RateLimited, message).reason("over_credit"))
        } else {
            None
        };
        if let Some(error) = refused {
            return self.fail(number, error);
        }
        up.next = end;
        up.unacknowledged.fetch_add(1, Ordering::AcqRel);
        if up.chunks.try_send(chunk.bytes.to_vec()).is_err() {
            // Its task has ended, and said why.
            self.streams.open.remove(&number);
        }
    }

    /// Ends a stream for what its client did.
    fn fail(&mut self, number: u32, error: ApiError) {
        self.streams.open.remove(&number);
        tell_failure(&self.outbound, number, error);
    }
}

fn tell_failure(outbound: &Outbound, stream: u32, error: ApiError) {
    push(outbound, &ConnectionFrame::TransferFailed { payload: TransferFailure { stream, error } });
}

fn too_slow(message: &str) -> ApiError {
    ApiError::new(ErrorCode::DeadlineExceeded, message)
}

/// The task of a file that comes from the client.
struct Receiving {
    number: u32,
    outbound: Arc<Outbound>,
    unacknowledged: Arc<AtomicUsize>,
}

impl Receiving {
    /// Writes what comes and acknowledges it, until nothing more will come. What waits is written together.
    async fn run(
        self,
        mut upload: UploadStream,
        mut coming: mpsc::Receiver<Vec<u8>>,
    ) -> Option<UploadStream> {
        loop {
            let Ok(first) = timeout(IDLE_MAX, coming.recv()).await else {
                return self.fail(too_slow("nothing came of the file for too long"));
            };
            let Some(mut bytes) = first else { return Some(upload) };
            let mut count = 1;
            while let Ok(more) = coming.try_recv() {
                bytes.extend(more);
                count += 1;
            }
            if let Err(error) = upload.write(bytes).await {
                return self.fail(error);
            }
            self.unacknowledged.fetch_sub(count, Ordering::AcqRel);
            self.outbound.push_binary(Chunk::ack(self.number, upload.received()).encode().into());
        }
    }

    fn fail(&self, error: ApiError) -> Option<UploadStream> {
        tell_failure(&self.outbound, self.number, error);
        None
    }
}

/// The task of a file that goes to the client.
struct Sending {
    number: u32,
    outbound: Arc<Outbound>,
    /// How many bytes the client has.
    progress: watch::Receiver<u64>,
    stall: Duration,
}

impl Sending {
    async fn run(mut self, download: DownloadStream) {
        if let Err(error) = self.send(download).await {
            tell_failure(&self.outbound, self.number, error);
        }
    }

    /// Sends chunks as the client acknowledges them, until it has all or its stream is gone.
    async fn send(&mut self, mut download: DownloadStream) -> Result<(), ApiError> {
        let (mut sent, mut ends) = (download.file.offset(), VecDeque::new());
        loop {
            if !self.acknowledged(&mut ends, CHUNKS_UNACKNOWLEDGED_MAX - 1, sent).await? {
                return Ok(());
            }
            let bytes = download.part().await?.unwrap_or_default();
            let is_last = download.file.bytes_left() == 0;
            let (kind, stream, offset) = (ChunkKind::Down, self.number, sent);
            let chunk = Chunk { kind, is_last, stream, offset, bytes: &bytes };
            if !self.outbound.push_chunk(download.project_id(), chunk.encode().into()) {
                return Ok(());
            }
            sent += bytes.len() as u64;
            ends.push_back(sent);
            if is_last {
                break;
            }
        }
        self.acknowledged(&mut ends, 0, sent).await.map(drop)
    }

    /// Waits until at most so many chunks are not acknowledged; says whether the stream is still there.
    async fn acknowledged(
        &mut self,
        ends: &mut VecDeque<u64>,
        count_max: usize,
        sent: u64,
    ) -> Result<bool, ApiError> {
        loop {
            let has = *self.progress.borrow_and_update();
            if has > sent {
                let error = ApiError::invalid("bytes were acknowledged that were not sent");
                return Err(error.reason("chunk_offset"));
            }
            while ends.front().is_some_and(|end| *end <= has) {
                ends.pop_front();
            }
            if ends.len() <= count_max {
                return Ok(self.progress.has_changed().is_ok());
            }
            match timeout(self.stall, self.progress.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Ok(false),
                Err(_) => return Err(too_slow("nothing was acknowledged for too long")),
            }
        }
    }
}
