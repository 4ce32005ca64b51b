//! Logs and metrics of the process.

use std::io::IsTerminal;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::log_json::Json;
use crate::log_lines::LogLines;

/// From an in-process call to a delivery that takes minutes.
const SECONDS: [f64; 19] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0,
    60.0, 300.0, 900.0,
];
/// From an envelope to the largest message.
const BYTES: [f64; 9] =
    [1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0, 67_108_864.0];
/// Members of a group.
const SIZES: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// Telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter does not parse.
    #[error("the log filter `{filter}` is not one (write for example `info` or `info,queue=debug`): {cause}")]
    Filter {
        /// As given.
        filter: String,
        /// What is wrong.
        cause: String,
    },
    /// Somebody was here before.
    #[error("telemetry is set up once in a process")]
    Twice,
    /// The system gives no thread.
    #[error("the thread that writes the log cannot be started")]
    Thread(#[source] std::io::Error),
    /// The recorder.
    #[error("the metrics recorder cannot be set up")]
    Recorder(#[source] BuildError),
}

/// The log filter of the environment: `POSTHOUSE_LOG`.
#[allow(clippy::disallowed_methods, reason = "the node crate reads the environment")]
fn filter_of_environment() -> Option<String> {
    std::env::var("POSTHOUSE_LOG").ok().filter(|filter| !filter.is_empty())
}

/// Flushes the log when it is dropped: it lives as long as the process has something to say.
pub struct LogGuard {
    lines: Option<LogLines>,
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        if let Some(lines) = &self.lines {
            lines.flush();
        }
    }
}

/// Logs go to stderr: text on a terminal, JSON lines otherwise. `filter` wins over `POSTHOUSE_LOG`; the default is `info`.
///
/// JSON lines that come close together are written together; errors, and whatever came before them, leave at once.
pub fn logs(filter: Option<&str>) -> Result<LogGuard, TelemetryError> {
    let text = filter.map(str::to_owned).or_else(filter_of_environment).unwrap_or_else(|| "info".to_owned());
    let filter = EnvFilter::builder()
        .parse(&text)
        .map_err(|cause| TelemetryError::Filter { filter: text, cause: cause.to_string() })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    let (set, lines) = if std::io::stderr().is_terminal() {
        (builder.with_writer(std::io::stderr).with_target(false).try_init(), None)
    } else {
        let lines = LogLines::new(Box::new(std::io::stderr())).map_err(TelemetryError::Thread)?;
        (builder.with_ansi(false).event_format(Json).with_writer(lines.clone()).try_init(), Some(lines))
    };
    set.map(|()| LogGuard { lines }).map_err(|_| TelemetryError::Twice)
}

/// Installs the recorder of all metrics and gives the handle that renders them.
pub fn metrics() -> Result<PrometheusHandle, TelemetryError> {
    let handle = builder().and_then(PrometheusBuilder::install_recorder).map_err(TelemetryError::Recorder)?;
    describe();
    Ok(handle)
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), &BYTES)?
        .set_buckets_for_metric(Matcher::Suffix("_size".to_owned()), &SIZES)
}

fn describe() {
    describe_counter!("posthouse_calls_total", "calls between services by answer");
    describe_histogram!("posthouse_call_seconds", Unit::Seconds, "time from a call to the begin of its answer");
    describe_gauge!("posthouse_sessions", "sessions that are open");
    describe_counter!("posthouse_sessions_total", "sessions that were opened");
    describe_counter!("posthouse_messages_total", "messages by result (accepted, rejected, deferred) and reason");
    describe_counter!("posthouse_recipients_total", "recipients by result (accepted, rejected, deferred) and reason");
    describe_counter!("posthouse_auth_total", "authentications by result");
    describe_gauge!("posthouse_queue_messages", "messages in the queue by state");
    describe_gauge!("posthouse_queue_oldest_due_seconds", Unit::Seconds, "age of the oldest delivery that is due");
    describe_histogram!("posthouse_queue_group_size", "commits in one transaction");
    describe_histogram!("posthouse_queue_commit_seconds", Unit::Seconds, "time of a transaction on its way to disk");
    describe_counter!("posthouse_deliveries_total", "settled recipients by transport, result and class of the reply");
    describe_histogram!("posthouse_delivery_seconds", Unit::Seconds, "time of a delivery attempt");
    describe_gauge!("posthouse_certificate_expiry_timestamp_seconds", Unit::Seconds, "when a certificate expires");
    describe_gauge!("posthouse_snapshot_faults", "faults of the newest configuration; it is in force when 0");
    describe_counter!("posthouse_snapshot_applied_total", "configurations that came into force");
    describe_counter!("posthouse_task_panics_total", "panics: each is a bug");
    describe_gauge!("process_resident_memory_bytes", Unit::Bytes, "resident memory");
    describe_gauge!("posthouse_tasks", "tasks of the runtime that are alive");
    describe_gauge!("process_open_fds", "open file descriptors");
}

/// What a scrape asks of the system itself.
pub(crate) fn measure_process() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    if let Some(kib) = resident.and_then(|rest| rest.trim().strip_suffix(" kB")).and_then(|n| n.parse::<u32>().ok()) {
        metrics::gauge!("process_resident_memory_bytes").set(f64::from(kib) * 1024.0);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        metrics::gauge!("process_open_fds").set(u32::try_from(open.count()).unwrap_or(u32::MAX));
    }
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        let tasks = runtime.metrics().num_alive_tasks();
        metrics::gauge!("posthouse_tasks").set(u32::try_from(tasks).unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_have_buckets_by_their_unit() {
        let recorder = builder().unwrap().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            metrics::histogram!("posthouse_call_seconds").record(0.000_07);
            metrics::histogram!("posthouse_queue_group_size").record(3.0);
        });
        let text = recorder.handle().render();
        assert!(text.contains("posthouse_call_seconds_bucket{le=\"0.0001\"} 1"), "{text}");
        assert!(text.contains("posthouse_queue_group_size_bucket{le=\"4\"} 1"), "{text}");
    }

    #[test]
    fn a_scrape_tells_the_memory_of_the_process() {
        let recorder = builder().unwrap().build_recorder();
        metrics::with_local_recorder(&recorder, measure_process);
        let text = recorder.handle().render();
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
        assert!(text.contains("process_open_fds "), "{text}");
    }
}
