//! What the process tells about itself: log lines, metrics, and spans for those who collect traces.
//!
//! One line per request and per batch, never bodies, traits, addresses or keys. Log lines go to standard error, so
//! that standard output stays for what a command answers.

pub mod metrics;
#[cfg(feature = "otlp")]
mod otlp;
pub mod traces;

use std::io;

use tracing_subscriber::{
    EnvFilter, Layer, Registry, fmt, layer::SubscriberExt, util::SubscriberInitExt, util::TryInitError,
};

use crate::config::{LogFormat, Telemetry};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `telemetry.log` makes no sense; the configuration has already refused it.
    #[error("telemetry.log is not usable: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// It was set up before.
    #[error("logging is already set up: {0}")]
    Twice(#[from] TryInitError),
    /// The collector's endpoint makes no sense.
    #[cfg(feature = "otlp")]
    #[error("traces cannot be sent as the OTEL_ variables say: {0}")]
    Traces(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// Sets logging up for this process and installs the metrics.
pub fn init(config: &Telemetry) -> Result<(), TelemetryError> {
    let filter = EnvFilter::builder().parse(&config.log)?;
    let lines = fmt::layer().with_writer(io::stderr);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match config.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => {
            lines.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
        }
    };
    let layers = vec![lines.with_filter(filter).boxed()];
    #[cfg(feature = "otlp")]
    let layers = layers.into_iter().chain(otlp::layer()?).collect::<Vec<_>>();
    tracing_subscriber::registry().with(layers).try_init()?;
    metrics::install();
    Ok(())
}

/// Tells the last of what there is to tell, before the process ends.
pub fn end() {
    #[cfg(feature = "otlp")]
    otlp::end();
}
