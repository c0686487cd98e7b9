//! What the server counts of itself, for Prometheus. What is counted elsewhere already, or can be seen, is
//! read when somebody asks: see `metrics/now.rs`. Labels have few values, and never a user's, a project's or
//! a session's: no value is one that callers chose.

mod model;
mod now;
mod tool;

use std::fmt;
use std::time::Duration;

use iris_protocol::{ApiError, ApprovalState, ErrorCode, RunStatus};
use iris_store::project::{OpenWork, ProjectUsage};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::prometheus_text::{CONTENT_TYPE, encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use crate::Node;
use now::Now;

pub(crate) use model::counted;
pub(crate) use tool::ToolCall;

/// What a text of metrics is.
pub(crate) const MEDIA_TYPE: &str = CONTENT_TYPE;

/// Upper bounds of what is answered at once, in seconds.
const REQUEST_SECONDS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
/// Upper bounds of what models and tools take, in seconds.
const WORK_SECONDS: [f64; 12] =
    [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0];

/// What the rate of requests is limited by.
const LIMITS: [&str; 7] =
    ["user", "key", "address", "connection", "runs", "uploads", "unknown_connections"];

/// A histogram for each value of a label.
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// An operation and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    operation: &'static str,
    status: &'static str,
}

/// A method of HTTP and how it was answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Responded {
    method: &'static str,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabel {
    operation: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabel {
    limit: &'static str,
}

/// The counters of one server.
pub struct Metrics {
    registry: Registry,
    requests: Family<Answered, Counter>,
    request_seconds: Histograms<OperationLabel>,
    responses: Family<Responded, Counter>,
    rate_limited: Family<LimitLabel, Counter>,
    connections_opened: Counter,
    connections_closed: Family<CodeLabel, Counter>,
    frames_received: Counter,
    pieces_skipped: Counter,
    rooms: Gauge,
    room_members: Gauge,
    deliveries: Counter,
    events: Counter,
    runs: Family<StateLabel, Gauge>,
    runs_started: Counter,
    runs_ended: Family<StatusLabel, Counter>,
    run_waits: Histogram,
    command_waits: Histogram,
    run_steps: Counter,
    approvals_waiting: Gauge,
    questions_waiting: Gauge,
    approvals_resolved: Family<StateLabel, Counter>,
    held: Held,
    models: model::Counters,
    tools: tool::Counters,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// How much the open projects hold.
struct Held {
    rows: Gauge,
    bytes: Gauge,
    files: Gauge,
    file_bytes: Gauge,
}

impl Held {
    fn new(r: &mut Registry) -> Self {
        let mut gauge = |name, help| add(r, name, help, Gauge::default());
        Self {
            rows: gauge("iris_project_rows", "Messages and their parts, in open projects"),
            bytes: gauge("iris_project_bytes", "Bytes of the databases of open projects"),
            files: gauge("iris_project_files", "Files that are known, of open projects"),
            file_bytes: gauge("iris_project_file_bytes", "Bytes of the files of open projects"),
        }
    }
}

/// Registers a metric, without the `.` at the end of its help.
fn add<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Everything at its beginning.
    #[expect(clippy::too_many_lines, reason = "each metric has its lines")]
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let r = &mut registry;
        let requests: fn() -> Histogram = || Histogram::new(REQUEST_SECONDS);
        let metrics = Self {
            requests: add(
                r,
                "iris_requests",
                "Operations that were run, by class of status",
                Family::default(),
            ),
            request_seconds: add(
                r,
                "iris_request_duration_seconds",
                "Time from the gate to the answer of an operation",
                Family::new_with_constructor(requests),
            ),
            responses: add(
                r,
                "iris_http_responses",
                "Responses over HTTP, by class of status",
                Family::default(),
            ),
            rate_limited: add(
                r,
                "iris_rate_limited",
                "Requests that were refused because a limit of rate was reached",
                Family::default(),
            ),
            connections_opened: add(
                r,
                "iris_connections_opened",
                "WebSockets and event streams that were opened",
                Counter::default(),
            ),
            connections_closed: add(
                r,
                "iris_connections_closed",
                "WebSockets and event streams that ended, by the code of the close frame; 4008 are slow readers",
                Family::default(),
            ),
            frames_received: add(
                r,
                "iris_socket_frames_received",
                "Text and binary frames that came over WebSockets",
                Counter::default(),
            ),
            pieces_skipped: add(
                r,
                "iris_stream_pieces_skipped",
                "Pieces of streaming text that slow readers got a snapshot in place of",
                Counter::default(),
            ),
            rooms: add(r, "iris_rooms", "Rooms in which somebody is", Gauge::default()),
            room_members: add(
                r,
                "iris_room_members",
                "Connections in rooms, each counted once a room",
                Gauge::default(),
            ),
            deliveries: add(
                r,
                "iris_deliveries",
                "Frames that were handed to connections in rooms, each counted once a connection",
                Counter::default(),
            ),
            events: add(
                r,
                "iris_events_published",
                "Durable events that were committed and published",
                Counter::default(),
            ),
            runs: add(
                r,
                "iris_runs",
                "Runs that have not ended, in open projects",
                Family::default(),
            ),
            runs_started: add(
                r,
                "iris_runs_started",
                "Runs that started, or went on after an interruption",
                Counter::default(),
            ),
            runs_ended: add(r, "iris_runs_ended", "Runs that ended", Family::default()),
            run_waits: add(
                r,
                "iris_run_wait_seconds",
                "How long runs waited for a place among those that work, of those that had to",
                Histogram::new(WORK_SECONDS),
            ),
            command_waits: add(
                r,
                "iris_tool_command_wait_seconds",
                "How long commands of agents waited for a place among those that run, of those that had to",
                Histogram::new(WORK_SECONDS),
            ),
            run_steps: add(
                r,
                "iris_run_steps",
                "Steps of runs that were recorded: a question to a model with its answer",
                Counter::default(),
            ),
            approvals_waiting: add(
                r,
                "iris_approvals_waiting",
                "Approvals that nobody decided yet, in open projects",
                Gauge::default(),
            ),
            questions_waiting: add(
                r,
                "iris_questions_waiting",
                "Questions of agents that nobody answered yet, in open projects",
                Gauge::default(),
            ),
            approvals_resolved: add(
                r,
                "iris_approvals_resolved",
                "Approvals that were decided, or ended otherwise",
                Family::default(),
            ),
            models: model::Counters::new(r),
            tools: tool::Counters::new(r),
            held: Held::new(r),
            registry,
        };
        // What may never happen can be watched from the beginning.
        drop(metrics.connections_closed.get_or_create(&CodeLabel { code: SLOW_READER }));
        for limit in LIMITS {
            drop(metrics.rate_limited.get_or_create(&LimitLabel { limit }));
        }
        for status in
            [RunStatus::Completed, RunStatus::Failed, RunStatus::Cancelled, RunStatus::Interrupted]
        {
            drop(metrics.runs_ended.get_or_create(&StatusLabel { status: status_name(status) }));
        }
        for state in [ApprovalState::Approved, ApprovalState::Rejected, ApprovalState::Expired] {
            drop(
                metrics.approvals_resolved.get_or_create(&StateLabel { state: state_name(state) }),
            );
        }
        metrics.count_open(&OpenWork::default(), &OpenWork::default());
        metrics
    }

    /// All of it, as Prometheus reads it. Looks at every actor and connection: not for a thread that others
    /// wait for.
    pub(crate) fn text(node: &Node) -> Result<String, fmt::Error> {
        let mut now = Registry::default();
        now.register_collector(Box::new(Now::of(node)));
        let mut text = String::new();
        encode(&mut text, &node.services.metrics.registry)?;
        encode(&mut text, &now)?;
        Ok(text)
    }
}

/// The code of the close frame of a reader that was too slow.
const SLOW_READER: u16 = 4008;

// What happened.
impl Metrics {
    /// An operation was run.
    pub(crate) fn requested(
        &self,
        operation: &'static str,
        failed: Option<ErrorCode>,
        time: Duration,
    ) {
        let status = class(failed.map_or(200, ErrorCode::http_status));
        self.requests.get_or_create(&Answered { operation, status }).inc();
        let label = OperationLabel { operation };
        self.request_seconds.get_or_create(&label).observe(time.as_secs_f64());
    }

    /// A request over HTTP was answered.
    pub fn responded(&self, method: &str, status: u16) {
        const METHODS: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
        let method = METHODS.into_iter().find(|known| *known == method).unwrap_or("other");
        self.responses.get_or_create(&Responded { method, status: class(status) }).inc();
    }

    /// Counts a refusal because the rate of `limit` was reached, if it is one.
    pub(crate) fn limited<T>(
        &self,
        limit: &'static str,
        taken: Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        debug_assert!(LIMITS.contains(&limit), "a limit that nobody sees from the beginning");
        taken.inspect_err(|_| {
            self.rate_limited.get_or_create(&LimitLabel { limit }).inc();
        })
    }

    /// A run had to wait for a place.
    pub fn run_waited(&self, time: Duration) {
        self.run_waits.observe(time.as_secs_f64());
    }

    /// A command of an agent had to wait for a place.
    pub fn command_waited(&self, time: Duration) {
        self.command_waits.observe(time.as_secs_f64());
    }

    pub(crate) fn connection_opened(&self) {
        self.connections_opened.inc();
    }

    pub(crate) fn connection_closed(&self, code: u16) {
        self.connections_closed.get_or_create(&CodeLabel { code }).inc();
    }

    pub(crate) fn frame_received(&self) {
        self.frames_received.inc();
    }

    pub(crate) fn pieces_skipped(&self, pieces: usize) {
        self.pieces_skipped.inc_by(pieces as u64);
    }

    /// Rooms, and the places in them, came or went.
    pub(crate) fn rooms_changed(&self, rooms: i64, members: i64) {
        self.rooms.inc_by(rooms);
        self.room_members.inc_by(members);
    }

    /// A frame was handed to so many connections in a room.
    pub(crate) fn delivered(&self, connections: usize) {
        self.deliveries.inc_by(connections as u64);
    }

    pub(crate) fn published(&self) {
        self.events.inc();
    }

    pub(crate) fn run_started(&self) {
        self.runs_started.inc();
    }

    pub(crate) fn run_ended(&self, status: RunStatus) {
        self.runs_ended.get_or_create(&StatusLabel { status: status_name(status) }).inc();
    }

    pub(crate) fn step_recorded(&self) {
        self.run_steps.inc();
    }

    pub(crate) fn approval_resolved(&self, state: ApprovalState) {
        let state = state_name(state);
        self.approvals_resolved.get_or_create(&StateLabel { state }).inc();
    }

    /// What is open in a project was `before`, and is `now`.
    pub(crate) fn count_open(&self, before: &OpenWork, now: &OpenWork) {
        for (status, before, now) in [
            (RunStatus::Queued, before.queued, now.queued),
            (RunStatus::Running, before.running, now.running),
            (RunStatus::Waiting, before.waiting, now.waiting),
        ] {
            let runs = self.runs.get_or_create(&StateLabel { state: status_name(status) });
            runs.inc_by(now.cast_signed() - before.cast_signed());
        }
        self.approvals_waiting.inc_by(now.approvals.cast_signed() - before.approvals.cast_signed());
        self.questions_waiting.inc_by(now.questions.cast_signed() - before.questions.cast_signed());
    }

    /// A project held `before`, and holds `now`.
    pub(crate) fn count_held(&self, before: &ProjectUsage, now: &ProjectUsage) {
        for (gauge, before, now) in [
            (&self.held.rows, before.rows, now.rows),
            (&self.held.bytes, before.bytes, now.bytes),
            (&self.held.files, before.files, now.files),
            (&self.held.file_bytes, before.file_bytes, now.file_bytes),
        ] {
            gauge.inc_by(now.cast_signed() - before.cast_signed());
        }
    }
}

fn class(status: u16) -> &'static str {
    match status / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

fn status_name(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Queued => "queued",
        RunStatus::Running => "running",
        RunStatus::Waiting => "waiting",
        RunStatus::Completed => "completed",
        RunStatus::Failed => "failed",
        RunStatus::Cancelled => "cancelled",
        RunStatus::Interrupted => "interrupted",
    }
}

fn state_name(state: ApprovalState) -> &'static str {
    match state {
        ApprovalState::Pending => "pending",
        ApprovalState::Approved => "approved",
        ApprovalState::Rejected => "rejected",
        ApprovalState::Expired => "expired",
        ApprovalState::Cancelled => "cancelled",
    }
}
