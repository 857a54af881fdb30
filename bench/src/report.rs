//! One JSON line a scenario: what was done, how fast, and what it cost the server.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Result;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::{http::Http, process};

/// What is watched while a scenario runs.
#[derive(Clone, Default)]
pub struct Watched {
    pub server: Vec<u32>,
    pub database: Vec<u32>,
    pub metrics: Option<Metrics>,
}

impl Watched {
    /// CPU seconds of server and database so far.
    pub fn cpu_s(&self) -> f64 {
        process::usage(&self.server).cpu_s + process::usage(&self.database).cpu_s
    }
}

/// The server's Prometheus page, and the two counters whose growth tells how many operations share a commit.
#[derive(Clone)]
pub struct Metrics {
    pub http: Http,
    pub path: String,
    pub operations: String,
    pub commits: String,
}

impl Metrics {
    /// The sum of each counter over all its labels.
    async fn scrape(&self) -> Result<BTreeMap<String, f64>> {
        let page = self.http.get(&self.path).await?;
        let mut sums = BTreeMap::new();
        for line in String::from_utf8_lossy(&page.body).lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let name = series.split('{').next().unwrap_or(series);
            *sums.entry(name.to_owned()).or_insert(0.0) += value.parse::<f64>().unwrap_or(0.0);
        }
        Ok(sums)
    }
}

/// A scenario that runs: began here, and what the server had used by then.
pub struct Running {
    scenario: String,
    began: Instant,
    watched: Watched,
    server: process::Usage,
    database: process::Usage,
    metrics: Option<BTreeMap<String, f64>>,
}

impl Running {
    pub async fn begin(scenario: &str, watched: &Watched) -> Self {
        let metrics = match &watched.metrics {
            Some(metrics) => metrics.scrape().await.ok(),
            None => None,
        };
        Self {
            scenario: scenario.to_owned(),
            watched: watched.clone(),
            server: process::usage(&watched.server),
            database: process::usage(&watched.database),
            metrics,
            began: Instant::now(),
        }
    }

    /// Ends the clock and prints the line. `extra` holds what only this scenario counts.
    pub async fn end(self, ops: u64, errors: u64, times: &Times, extra: Value) -> Value {
        let seconds = self.began.elapsed().as_secs_f64();
        let server = process::usage(&self.watched.server);
        let database = process::usage(&self.watched.database);
        let mut line = Map::new();
        line.insert("scenario".into(), self.scenario.into());
        line.insert("ops".into(), ops.into());
        line.insert("errors".into(), errors.into());
        line.insert("seconds".into(), round(seconds));
        line.insert("ops_per_s".into(), round(ops as f64 / seconds));
        if !times.0.is_empty() {
            line.insert("p50_ms".into(), times.at(0.50));
            line.insert("p95_ms".into(), times.at(0.95));
            line.insert("p99_ms".into(), times.at(0.99));
            line.insert("max_ms".into(), times.at(1.0));
        }
        let per_op = |cpu: f64| if ops == 0 { Value::Null } else { round(cpu * 1000.0 / ops as f64) };
        if !self.watched.server.is_empty() {
            let cpu = server.cpu_s - self.server.cpu_s;
            line.insert("cpu_s".into(), round(cpu));
            line.insert("cpu_ms_per_op".into(), per_op(cpu));
            line.insert("rss_kb".into(), server.rss_kb.into());
        }
        if !self.watched.database.is_empty() {
            let cpu = database.cpu_s - self.database.cpu_s;
            line.insert("db_cpu_s".into(), round(cpu));
            line.insert("db_cpu_ms_per_op".into(), per_op(cpu));
            line.insert("db_rss_kb".into(), database.rss_kb.into());
            line.insert("all_cpu_ms_per_op".into(), per_op(cpu + server.cpu_s - self.server.cpu_s));
        }
        if let (Some(metrics), Some(before)) = (&self.watched.metrics, &self.metrics)
            && let Ok(after) = metrics.scrape().await
        {
            let grown = |name: &str| after.get(name).unwrap_or(&0.0) - before.get(name).unwrap_or(&0.0);
            let commits = grown(&metrics.commits);
            if commits > 0.0 {
                line.insert("commits".into(), round(commits));
                line.insert("ops_per_commit".into(), round(grown(&metrics.operations) / commits));
            }
        }
        if let Value::Object(extra) = extra {
            line.extend(extra);
        }
        let line = Value::Object(line);
        println!("{line}");
        line
    }
}

/// Three decimals are more than a measurement here is good for.
pub fn round(number: f64) -> Value {
    json!((number * 1000.0).round() / 1000.0)
}

/// How long each operation took.
pub struct Times(Histogram<u64>);

impl Times {
    pub fn new() -> Self {
        // From a microsecond to an hour, three digits.
        Self(Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("the bounds are constants"))
    }

    pub fn add(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    pub fn len(&self) -> u64 {
        self.0.len()
    }

    pub fn at(&self, quantile: f64) -> Value {
        round(self.0.value_at_quantile(quantile) as f64 / 1000.0)
    }
}
