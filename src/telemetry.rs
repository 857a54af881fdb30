//! Logs and metrics: how they leave the process, and the names of all metrics of this crate.

/// The names of the metrics, each with its unit in its name.
pub mod name {
    pub const HTTP_REQUESTS: &str = "hearth_http_requests_total";
    pub const HTTP_DURATION: &str = "hearth_http_request_duration_seconds";
    pub const HTTP_IN_FLIGHT: &str = "hearth_http_requests_in_flight";
    pub const HTTP_PANICS: &str = "hearth_http_panics_total";
    pub const HTTP_CONNECTIONS: &str = "hearth_http_connections";
}
