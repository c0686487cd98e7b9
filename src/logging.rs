//! Log lines to standard error, as text or as JSON, which an administrator can change while the server
//! runs; and spans to a collector, where one is configured.

mod otlp;

use std::io::{self, IsTerminal};
use std::sync::Arc;

use iris_actors::LogControl;
use iris_protocol::{ApiError, ErrorCode, LogFormat, LogSet, LogSettings};
use iris_redact::Masked;
use opentelemetry_otlp::ExporterBuildError;
use parking_lot::Mutex;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::config::Config;
use otlp::Export;

/// Longest filter, in bytes.
pub const FILTER_BYTES_MAX: usize = 1_024;
/// Added to every filter.
const QUIET: &str = "rmcp=off";
/// The filter of the format that is not chosen.
const NOTHING: &str = "off";

/// Where log lines go: without the secrets that the process knows.
fn lines_of_stderr() -> Masked<io::Stderr> {
    Masked(io::stderr())
}

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;
type FilterHandle = reload::Handle<EnvFilter, Registry>;

/// Why there are no log lines.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is not one.
    #[error("{0}")]
    Filter(String),
    /// Spans cannot be sent to the configured collector.
    #[error("spans cannot be sent: {0}")]
    Export(#[from] ExporterBuildError),
    /// The process has log lines already.
    #[error("another part of this process writes the log lines")]
    Taken,
}

/// The log lines and spans of this process.
pub struct Logging {
    lines: Arc<Lines>,
    export: Option<Export>,
}

/// Begins to write log lines as the configuration says, and to send spans.
///
/// # Errors
/// See [`LoggingError`].
pub fn start(config: &Config) -> Result<Logging, LoggingError> {
    let settings = LogSettings { filter: config.log.clone(), format: config.log_format };
    let (lines, mut layers) = Lines::new(settings)?;
    let mut export = None;
    if let Some(collector) = &config.otlp {
        let (started, layer) = Export::start(collector)?;
        export = Some(started);
        layers.push(layer);
    }
    tracing_subscriber::registry().with(layers).try_init().map_err(|_| LoggingError::Taken)?;
    Ok(Logging { lines: Arc::new(lines), export })
}

impl Logging {
    /// What changes the log lines while the server runs.
    pub fn control(&self) -> Arc<dyn LogControl> {
        Arc::clone(&self.lines) as Arc<dyn LogControl>
    }

    /// Sends the spans that still wait, for at most two seconds. Blocks: call it outside of any runtime.
    pub fn stop(self) {
        if let Some(export) = self.export {
            export.stop();
        }
    }
}

/// One layer for each format, of which one is off. A span that was opened for the other format is
/// unknown to a layer, so that a change is safe at any moment.
struct Lines {
    settings: Mutex<LogSettings>,
    text: FilterHandle,
    json: FilterHandle,
}

impl Lines {
    fn new(settings: LogSettings) -> Result<(Self, Vec<BoxedLayer>), LoggingError> {
        let chosen = parse_filter(&settings.filter).map_err(LoggingError::Filter)?;
        let nothing = EnvFilter::new(NOTHING);
        let (text, json) = match settings.format {
            LogFormat::Text => (chosen, nothing),
            LogFormat::Json => (nothing, chosen),
        };
        let ((text, text_handle), (json, json_handle)) =
            (reload::Layer::new(text), reload::Layer::new(json));
        let has_colours = io::stderr().is_terminal();
        let lines = fmt::layer().with_writer(lines_of_stderr).with_ansi(has_colours);
        let objects = fmt::layer().with_writer(lines_of_stderr).json().flatten_event(true);
        let layers = vec![lines.with_filter(text).boxed(), objects.with_filter(json).boxed()];
        let settings = Mutex::new(settings);
        Ok((Self { settings, text: text_handle, json: json_handle }, layers))
    }
}

impl LogControl for Lines {
    fn settings(&self) -> LogSettings {
        self.settings.lock().clone()
    }

    fn set(&self, change: LogSet) -> Result<LogSettings, ApiError> {
        let mut settings = self.settings.lock();
        let next = LogSettings {
            filter: change.filter.unwrap_or_else(|| settings.filter.clone()),
            format: change.format.unwrap_or(settings.format),
        };
        let filter = parse_filter(&next.filter)
            .map_err(|problem| ApiError::invalid(problem).detail("field", "filter"))?;
        let (on, off) = match next.format {
            LogFormat::Text => (&self.text, &self.json),
            LogFormat::Json => (&self.json, &self.text),
        };
        // In this order a line in between is written twice rather than not at all.
        let reloaded = on.reload(filter).and_then(|()| off.reload(EnvFilter::new(NOTHING)));
        reloaded.map_err(|error| {
            tracing::error!(%error, "the log settings could not be changed");
            ApiError::from(ErrorCode::Internal)
        })?;
        settings.clone_from(&next);
        tracing::info!(filter = next.filter, format = ?next.format, "log settings changed");
        Ok(next)
    }
}

/// The log settings of a server inside of a program that writes the log lines itself.
pub(crate) struct LogOfAnother(pub(crate) LogSettings);

impl LogControl for LogOfAnother {
    fn settings(&self) -> LogSettings {
        self.0.clone()
    }

    fn set(&self, _: LogSet) -> Result<LogSettings, ApiError> {
        let message = "the program around this server writes the log lines";
        Err(ApiError::new(ErrorCode::Conflict, message).reason("log_not_ours"))
    }
}

/// A filter of log lines, or what is wrong with it.
pub(crate) fn parse_filter(text: &str) -> Result<EnvFilter, String> {
    if text.len() > FILTER_BYTES_MAX {
        return Err(format!("a log filter has at most `{FILTER_BYTES_MAX}` bytes"));
    }
    let refused = format!("`{text}` is not a log filter like `info` or `iris=debug,warn`");
    if text.trim().is_empty() {
        return Err(refused);
    }
    let filter = EnvFilter::try_new(text).map_err(|error| format!("{refused}: {error}"))?;
    // It tells whole messages of MCP servers, which hold what users and models wrote.
    let quiet = QUIET.parse().map_err(|error| format!("{refused}: {error}"))?;
    Ok(filter.add_directive(quiet))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(filter: &str, format: LogFormat) -> LogSettings {
        LogSettings { filter: filter.to_owned(), format }
    }

    #[test]
    fn a_change_takes_what_it_names_and_a_bad_one_takes_nothing() {
        let (lines, layers) = Lines::new(settings("info", LogFormat::Text)).unwrap();
        let _subscriber = tracing_subscriber::registry().with(layers);
        let to_json = LogSet { filter: None, format: Some(LogFormat::Json) };
        assert_eq!(lines.set(to_json), Ok(settings("info", LogFormat::Json)));
        let to_debug = LogSet { filter: Some("iris=debug,warn".to_owned()), format: None };
        let debug = settings("iris=debug,warn", LogFormat::Json);
        assert_eq!(lines.set(to_debug), Ok(debug.clone()));
        for bad in ["", " ", "iris=loud", &"x".repeat(FILTER_BYTES_MAX + 1)] {
            let change = LogSet { filter: Some(bad.to_owned()), format: Some(LogFormat::Text) };
            assert_eq!(lines.set(change).unwrap_err().code, ErrorCode::InvalidRequest, "{bad}");
        }
        assert_eq!(lines.settings(), debug);
        assert!(parse_filter(&"x".repeat(FILTER_BYTES_MAX)).is_ok());
    }

    #[test]
    fn a_span_that_is_open_during_a_change_of_format_does_no_harm() {
        let (lines, layers) = Lines::new(settings("info", LogFormat::Text)).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layers), || {
            let span = tracing::info_span!("before", count = tracing::field::Empty);
            let entered = span.enter();
            for format in [LogFormat::Json, LogFormat::Text, LogFormat::Json] {
                lines.set(LogSet { filter: None, format: Some(format) }).unwrap();
                span.record("count", 1);
                let within = tracing::info_span!("within");
                within.in_scope(|| tracing::info!("a line of two spans"));
            }
            drop(entered);
        });
    }

    #[test]
    fn lines_of_another_are_shown_and_not_changed() {
        let log = LogOfAnother(settings("info", LogFormat::Text));
        let error = log.set(LogSet { filter: None, format: None }).unwrap_err();
        assert_eq!(error.code, ErrorCode::Conflict);
        assert_eq!(error.details.get("reason"), Some(&"log_not_ours".into()));
        assert_eq!(log.settings(), settings("info", LogFormat::Text));
    }
}
