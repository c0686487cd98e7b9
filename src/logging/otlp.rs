//! Spans to a collector of OpenTelemetry: OTLP over HTTP, in batches, from a thread of their own.
//!
//! Whoever ends a span puts it into a bounded queue and goes on; when the queue is full the span is
//! dropped. A collector that does not answer costs a warning a minute.

use std::time::{Duration, Instant};

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, SpanExporter as OtlpExporter, WithExportConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData, SpanExporter,
};
use parking_lot::Mutex;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::BoxedLayer;
use crate::config::Otlp;

/// Ended spans that wait for the thread that sends them.
const QUEUE_SPANS_MAX: usize = 2_048;
/// Spans of one request to the collector.
const BATCH_SPANS_MAX: usize = 512;
/// How long a span waits for others to be sent with.
const BATCH_DELAY: Duration = Duration::from_secs(5);
/// How long the collector may take for one request, repeats included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the spans that are left may take when the server stops.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two warnings.
const WARNING_PAUSE: Duration = Duration::from_mins(1);
/// Begins the names of our crates: only their spans are sent.
const OURS: &str = "iris";

/// The thread that sends spans.
pub(super) struct Export(SdkTracerProvider);

impl Export {
    /// Starts the thread, and gives the layer that feeds it.
    pub(super) fn start(collector: &Otlp) -> Result<(Self, BoxedLayer), ExporterBuildError> {
        // The client speaks TLS with the provider of the process.
        iris_llm::install_tls_provider();
        let exporter = OtlpExporter::builder()
            .with_http()
            .with_endpoint(format!("{}/v1/traces", collector.endpoint))
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(REQUEST_TIMEOUT)
            .build()?;
        let failures = Mutex::new(Failures::default());
        let provider = provider(Reported { exporter, failures }, &collector.service_name);
        let layer = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(OURS))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false)
            .with_filter(Targets::new().with_target(OURS, LevelFilter::INFO))
            .boxed();
        Ok((Self(provider), layer))
    }

    /// Sends what still waits, for at most [`FLUSH_TIMEOUT`].
    pub(super) fn stop(self) {
        if let Err(error) = self.0.shutdown_with_timeout(FLUSH_TIMEOUT) {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

fn provider(exporter: impl SpanExporter + 'static, service_name: &str) -> SdkTracerProvider {
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE_SPANS_MAX)
        .with_max_export_batch_size(BATCH_SPANS_MAX)
        .with_scheduled_delay(BATCH_DELAY)
        .build();
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
    SdkTracerProvider::builder()
        .with_span_processor(processor)
        .with_sampler(Sampler::AlwaysOn)
        .with_resource(Resource::builder_empty().with_service_name(service_name.to_owned()).build())
        .build()
}

/// An exporter that says when it fails, seldom.
#[derive(Debug)]
struct Reported<E> {
    exporter: E,
    failures: Mutex<Failures>,
}

impl<E: SpanExporter> SpanExporter for Reported<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let sent = self.exporter.export(batch).await;
        if let Err(error) = &sent
            && let Some(spans_lost) = self.failures.lock().add(spans, Instant::now())
        {
            tracing::warn!(%error, spans_lost, "spans could not be sent");
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// What was not sent since the last warning.
#[derive(Debug, Default)]
struct Failures {
    spans_lost: usize,
    warned_at: Option<Instant>,
}

impl Failures {
    /// Counts spans that were not sent; gives the sum when a warning is due.
    fn add(&mut self, spans: usize, now: Instant) -> Option<usize> {
        self.spans_lost += spans;
        if self.warned_at.is_some_and(|at| now.saturating_duration_since(at) < WARNING_PAUSE) {
            return None;
        }
        self.warned_at = Some(now);
        Some(std::mem::take(&mut self.spans_lost))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};

    use opentelemetry::trace::{Span, Tracer};

    use super::*;

    #[test]
    fn failures_are_told_once_a_minute_with_their_sum() {
        let (mut failures, start) = (Failures::default(), Instant::now());
        assert_eq!(failures.add(3, start), Some(3));
        assert_eq!(failures.add(4, start + Duration::from_secs(1)), None);
        assert_eq!(failures.add(5, start + WARNING_PAUSE), Some(9));
        assert_eq!(failures.add(1, start + WARNING_PAUSE), None);
    }

    /// Holds its first batch until it is let go.
    #[derive(Debug)]
    struct Held {
        reached: Mutex<Option<Sender<()>>>,
        go: Mutex<Receiver<()>>,
        sent: Arc<AtomicUsize>,
    }

    impl SpanExporter for Held {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            if let Some(reached) = self.reached.lock().take() {
                reached.send(()).unwrap();
                self.go.lock().recv().unwrap();
            }
            assert!(batch.len() <= BATCH_SPANS_MAX);
            self.sent.fetch_add(batch.len(), Ordering::Relaxed);
            Ok(())
        }
    }

    #[test]
    fn a_collector_that_stalls_stops_nobody_and_the_queue_stays_bounded() {
        let ((reached, is_reached), (let_go, go)) = (channel(), channel());
        let sent = Arc::new(AtomicUsize::new(0));
        let held =
            Held { reached: Mutex::new(Some(reached)), go: Mutex::new(go), sent: sent.clone() };
        let provider = provider(held, "test");
        let tracer = provider.tracer("test");
        (0..BATCH_SPANS_MAX).for_each(|_| tracer.start("span").end());
        is_reached.recv().unwrap();
        (0..2 * QUEUE_SPANS_MAX).for_each(|_| tracer.start("span").end());
        let_go.send(()).unwrap();
        provider.shutdown().unwrap();
        assert_eq!(sent.load(Ordering::Relaxed), BATCH_SPANS_MAX + QUEUE_SPANS_MAX);
    }
}
