//! What can be seen when somebody asks: actors, mailboxes, queues, writers, the disk, the process.

use std::fmt;

use iris_protocol::SupervisionKind;
use iris_store::{Distribution, StorageStatus, WriterFigures};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, NoLabelSet,
};
use prometheus_client::metrics::MetricType;

use crate::Node;
use crate::connection::Queued;
use crate::line::LineFigures;
use crate::supervision::Census;

/// One look at a server.
#[derive(Debug)]
pub(super) struct Now {
    census: Vec<Census>,
    records: Vec<(SupervisionKind, String, u64)>,
    records_dropped: u64,
    threads_blocked: usize,
    connections: usize,
    queued: Queued,
    writers: WriterFigures,
    disk: StorageStatus,
    projects_open_max: usize,
    runs: LineFigures,
    commands: LineFigures,
    is_in_maintenance: bool,
    is_draining: bool,
    started_at_seconds: f64,
    process: Process,
}

/// What the system says of this process; none where it does not.
#[derive(Debug, Default)]
struct Process {
    resident_bytes: Option<u64>,
    open_descriptors: Option<u64>,
}

impl Process {
    /// As Linux says it (proc(5)).
    fn look() -> Self {
        Self {
            resident_bytes: Some(crate::dispatch::rss_bytes()).filter(|bytes| *bytes > 0),
            open_descriptors: open_descriptors(),
        }
    }
}

/// The size of the directory is their number since Linux 6.2; before that it is 0, and they are counted, which
/// takes ten milliseconds for ten thousand.
fn open_descriptors() -> Option<u64> {
    const ALL: &str = "/proc/self/fd";
    match std::fs::metadata(ALL).ok()?.len() {
        0 => Some(std::fs::read_dir(ALL).ok()?.count() as u64),
        count => Some(count),
    }
}

impl Now {
    pub(super) fn of(node: &Node) -> Self {
        let services = &node.services;
        let supervision = &services.supervision;
        let started_at_ms = services
            .clock
            .now_ms()
            .saturating_sub(i64::try_from(supervision.uptime().as_millis()).unwrap_or(i64::MAX));
        let (connections, queued) = node.connections.queued();
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of 285,000 years are exact")]
        let started_at_seconds = started_at_ms as f64 / 1e3;
        Self {
            census: supervision.census(),
            records: supervision.log().counted(),
            records_dropped: supervision.log().dropped(),
            threads_blocked: supervision.threads().iter().filter(|it| it.blocked_ms > 0).count(),
            connections,
            queued,
            writers: services.storage.writers(),
            disk: services.storage.status(),
            projects_open_max: services.settings.projects_open_max,
            runs: services.runs.figures(),
            commands: services.commands.figures(),
            is_in_maintenance: node.maintenance().is_some(),
            is_draining: services.is_draining(),
            started_at_seconds,
            process: Process::look(),
        }
    }
}

impl Collector for Now {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.encode_actors(&mut page)?;
        self.encode_queues(&mut page)?;
        self.encode_lines(&mut page)?;
        self.encode_writers(&mut page)?;
        self.encode_disk(&mut page)?;
        self.encode_process(&mut page)
    }
}

impl Now {
    fn encode_actors(&self, page: &mut Page<'_>) -> fmt::Result {
        let all = |of: fn(&Census) -> u64| {
            self.census.iter().map(move |it| ([("kind", it.kind), ("state", it.state)], of(it)))
        };
        page.gauges("iris_actors", "Actors that are alive", all(|it| it.actors))?;
        page.gauges(
            "iris_mailbox_messages",
            "Messages that wait for actors",
            all(|it| it.messages),
        )?;
        let most = all(|it| it.messages_most);
        page.gauges(
            "iris_mailbox_messages_max",
            "Messages that wait for the actor for which most do",
            most,
        )?;
        let records = self.records.iter().map(|(record, kind, count)| {
            ([("record", record.as_str()), ("kind", kind.as_str())], *count)
        });
        page.counters(
            "iris_supervision_records",
            "Records of the supervision log: restarts, panics and the like, by kind of actor",
            records,
        )?;
        page.counter(
            "iris_supervision_records_dropped",
            "Abnormal records of the supervision log that could not be stored",
            self.records_dropped,
        )?;
        page.gauge(
            "iris_threads_blocked",
            "Threads of actors that do not answer",
            self.threads_blocked,
        )?;
        let projects = self.census.iter().filter(|it| it.kind == "project");
        let projects: u64 = projects.map(|it| it.actors).sum();
        page.gauge("iris_projects_open", "Projects that are open", projects)?;
        page.gauge(
            "iris_projects_open_limit",
            "Projects that may be open at once",
            self.projects_open_max,
        )
    }

    fn encode_queues(&self, page: &mut Page<'_>) -> fmt::Result {
        let Queued { frames, bytes, frames_most } = self.queued;
        page.gauge(
            "iris_connections",
            "WebSockets and event streams that are open",
            self.connections,
        )?;
        page.gauge(
            "iris_outbound_frames",
            "Frames that wait for the readers of all connections",
            frames,
        )?;
        page.gauge("iris_outbound_bytes", "Bytes of the frames that wait for readers", bytes)?;
        page.gauge(
            "iris_outbound_frames_max",
            "Frames that wait for the reader for whom most do",
            frames_most,
        )
    }

    fn encode_lines(&self, page: &mut Page<'_>) -> fmt::Result {
        let (runs, commands) = (&self.runs, &self.commands);
        page.gauge(
            "iris_runs_working",
            "Runs that have a place among those that work",
            runs.working,
        )?;
        page.gauge("iris_runs_in_line", "Runs that wait for a place", runs.waiting)?;
        page.gauge(
            "iris_runs_in_line_longest_seconds",
            "How long the run has waited for a place that waits longest",
            runs.longest.as_secs_f64(),
        )?;
        page.gauge("iris_tool_commands_running", "Commands of agents that run", commands.working)?;
        page.gauge(
            "iris_tool_commands_in_line",
            "Commands of agents that wait for a place",
            commands.waiting,
        )?;
        page.gauge(
            "iris_maintenance",
            "1 while the server is in maintenance and begins no runs",
            u64::from(self.is_in_maintenance),
        )
    }

    fn encode_writers(&self, page: &mut Page<'_>) -> fmt::Result {
        let it = &self.writers;
        page.histogram(
            "iris_commit_commands",
            "Commands in one commit of a database",
            &it.commit_sizes,
        )?;
        page.histogram(
            "iris_commit_duration_seconds",
            "Time of one commit with its commands",
            &it.commit_seconds,
        )?;
        page.counter("iris_commits_lost", "Transactions that failed as a whole", it.lost)?;
        page.gauge("iris_databases_open", "Databases that are open to be written", it.open)?;
        page.gauge(
            "iris_commands_waiting",
            "Commands that wait for the writers of databases",
            it.waiting,
        )?;
        page.gauge(
            "iris_commands_waiting_max",
            "Commands that wait for the writer for which most do",
            it.waiting_most,
        )?;
        page.gauge(
            "iris_wal_bytes",
            "Bytes of the write-ahead logs of all open databases",
            it.log_bytes,
        )?;
        page.gauge("iris_wal_bytes_max", "Bytes of the largest write-ahead log", it.log_bytes_most)
    }

    fn encode_disk(&self, page: &mut Page<'_>) -> fmt::Result {
        let StorageStatus { is_full, reserve_bytes, available_bytes } = self.disk;
        page.gauge("iris_disk_full", "1 while what takes space is refused", u64::from(is_full))?;
        page.gauge(
            "iris_disk_reserve_bytes",
            "Bytes that are kept free for the time when the disk is full",
            reserve_bytes,
        )?;
        let Some(available) = available_bytes else { return Ok(()) };
        page.gauge(
            "iris_disk_available_bytes",
            "Bytes that are free on the disk of the data directory",
            available,
        )
    }

    fn encode_process(&self, page: &mut Page<'_>) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        page.gauges("iris_build_info", "The version, as a label", [(version, 1_u64)].into_iter())?;
        page.gauge("iris_draining", "1 while the server stops", u64::from(self.is_draining))?;
        page.gauge(
            "process_start_time_seconds",
            "When the server started, in seconds since 1970 UTC",
            self.started_at_seconds,
        )?;
        if let Some(bytes) = self.process.resident_bytes {
            page.gauge("process_resident_memory_bytes", "Resident memory", bytes)?;
        }
        if let Some(descriptors) = self.process.open_descriptors {
            page.gauge("process_open_fds", "Open file descriptors", descriptors)?;
        }
        Ok(())
    }
}

/// Where metrics are written to.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    #[expect(clippy::needless_pass_by_value, reason = "a number")]
    fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        mut series: impl Iterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        series.try_for_each(|(labels, value)| family.encode_family(&labels)?.encode_gauge(&value))
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut counter = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        counter.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        mut series: impl Iterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        series.try_for_each(|(labels, value)| {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
        })
    }

    fn histogram(&mut self, name: &str, help: &str, values: &Distribution) -> fmt::Result {
        let mut histogram = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        let Distribution { buckets, sum } = values;
        histogram.encode_histogram::<NoLabelSet>(*sum, values.count(), buckets, None)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn every_open_descriptor_is_counted() {
        let opened: Vec<_> = (0..500).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let counted = open_descriptors().unwrap();
        assert!(counted >= 500, "{counted}");
        drop(opened);
    }
}
