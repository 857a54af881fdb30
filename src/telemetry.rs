//! Logs and metrics: how they leave the process, and the names of all metrics of this crate.

use std::{fs, io::IsTerminal as _, sync::OnceLock, time::SystemTime};

use metrics::Unit;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// The names of the metrics. Each is explained in the table below.
pub mod name {
    pub const HTTP_REQUESTS: &str = "hearth_http_requests_total";
    pub const HTTP_DURATION: &str = "hearth_http_request_duration_seconds";
    pub const HTTP_IN_FLIGHT: &str = "hearth_http_requests_in_flight";
    pub const HTTP_PANICS: &str = "hearth_http_panics_total";
    pub const HTTP_CONNECTIONS: &str = "hearth_http_connections";
    pub const RATE_LIMITED: &str = "hearth_rate_limited_total";
    pub const SSO_LOGINS: &str = "hearth_sso_logins_total";
    pub const PUSHES: &str = "hearth_pushes_total";
    pub const PUSH_DURATION: &str = "hearth_push_duration_seconds";
    pub const URL_PREVIEWS: &str = "hearth_url_previews_total";
    pub const TO_DEVICE_DROPPED: &str = "hearth_to_device_dropped_total";
    pub const PROCESS_RSS: &str = "process_resident_memory_bytes";
    pub const PROCESS_FDS: &str = "process_open_fds";
    pub const PROCESS_START: &str = "process_start_time_seconds";
}

enum Shape {
    Counter,
    Gauge,
    Histogram,
}

/// Every metric of this crate: its name, its unit, and what it tells an operator.
const ALL: &[(Shape, &str, Unit, &str)] = &[
    (Shape::Counter, name::HTTP_REQUESTS, Unit::Count, "Answered requests by method, route and status"),
    (Shape::Histogram, name::HTTP_DURATION, Unit::Seconds, "From the head of a request to the head of its answer"),
    (Shape::Gauge, name::HTTP_IN_FLIGHT, Unit::Count, "Requests under way, waiting syncs among them"),
    (
        Shape::Counter,
        name::HTTP_PANICS,
        Unit::Count,
        "Requests answered 500 because their handler panicked: a bug each",
    ),
    (Shape::Gauge, name::HTTP_CONNECTIONS, Unit::Count, "Open connections"),
    (Shape::Counter, name::RATE_LIMITED, Unit::Count, "Requests refused for there being too many, by limit"),
    (
        Shape::Counter,
        name::SSO_LOGINS,
        Unit::Count,
        "Logins at identity providers, by provider and what became of them",
    ),
    (Shape::Counter, name::PUSHES, Unit::Count, "Notifications sent to push gateways, by what became of them"),
    (Shape::Histogram, name::PUSH_DURATION, Unit::Seconds, "How long push gateways took to answer, or to fail"),
    (Shape::Counter, name::URL_PREVIEWS, Unit::Count, "Links that were looked at for a preview, by what became of it"),
    (Shape::Counter, name::TO_DEVICE_DROPPED, Unit::Count, "Messages to devices that waited behind too many others"),
    (Shape::Gauge, name::PROCESS_RSS, Unit::Bytes, "Memory of this process that is in RAM"),
    (Shape::Gauge, name::PROCESS_FDS, Unit::Count, "Open files and sockets of this process"),
    (Shape::Gauge, name::PROCESS_START, Unit::Seconds, "When this process started, since the Unix epoch"),
];

/// From a lookup in memory to a long poll.
const SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Starts the log of the process, on standard output. Only the first call counts.
pub fn start_log(config: &Log) -> Result<(), String> {
    let filter = EnvFilter::try_new(&config.log).map_err(|e| format!("log filter `{}`: {e}", config.log))?;
    // Colours are for people: in a file or a journal they would be noise.
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours);
    let started = match config.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|e| e.to_string())
}

/// The metrics of the process. The first call starts to collect them.
pub fn metrics() -> Result<&'static PrometheusHandle, String> {
    static HANDLE: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
    HANDLE.get_or_init(collect).as_ref().map_err(Clone::clone)
}

fn collect() -> Result<PrometheusHandle, String> {
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
        .map_err(|e| e.to_string())?;
    let handle = builder.install_recorder().map_err(|e| e.to_string())?;
    for (shape, name, unit, what) in ALL {
        match shape {
            Shape::Counter => metrics::describe_counter!(*name, *unit, *what),
            Shape::Gauge => metrics::describe_gauge!(*name, *unit, *what),
            Shape::Histogram => metrics::describe_histogram!(*name, *unit, *what),
        }
    }
    // An alert on its growth has to see where it grew from.
    metrics::counter!(name::HTTP_PANICS).absolute(0);
    let start = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    metrics::gauge!(name::PROCESS_START).set(start.as_secs_f64());
    Ok(handle)
}

/// What only the kernel knows; looked up when somebody asks.
pub fn look_at_process() {
    if let Some(bytes) = resident_bytes() {
        metrics::gauge!(name::PROCESS_RSS).set(bytes);
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        // A directory has far fewer entries than a float has exact integers. One entry is the look itself.
        metrics::gauge!(name::PROCESS_FDS).set(files.count().saturating_sub(1) as f64);
    }
}

fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}
