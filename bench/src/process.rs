//! What /proc knows about the processes that are measured.

use std::{collections::HashMap, fs};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal};

/// CPU seconds and memory of a process and all that descends from it.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    pub cpu_s: f64,
    pub rss_kb: u64,
}

struct Stat {
    parent: u32,
    /// Its own ticks, and those of its children that have ended.
    ticks: u64,
    zombie: bool,
}

fn stat(pid: u32) -> Option<Stat> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces and brackets; what follows the last bracket does not.
    let fields: Vec<&str> = line[line.rfind(')')? + 1..].split_whitespace().collect();
    let number = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Some(Stat {
        parent: u32::try_from(number(1)).ok()?,
        ticks: (11..=14).map(number).sum(),
        zombie: fields.first() == Some(&"Z"),
    })
}

fn rss_kb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok())
        .unwrap_or(0)
}

/// `pid` and everything below it.
pub fn family(pid: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if let Some(child) = entry.file_name().to_str().and_then(|name| name.parse().ok())
            && let Some(stat) = stat(child)
        {
            children.entry(stat.parent).or_default().push(child);
        }
    }
    let mut all = vec![pid];
    let mut next = 0;
    while next < all.len() {
        all.extend(children.remove(&all[next]).unwrap_or_default());
        next += 1;
    }
    all
}

pub fn usage(roots: &[u32]) -> Usage {
    let tick = rustix::param::clock_ticks_per_second() as f64;
    let mut sum = Usage::default();
    for pid in roots.iter().flat_map(|root| family(*root)) {
        if let Some(stat) = stat(pid) {
            sum.cpu_s += stat.ticks as f64 / tick;
        }
        sum.rss_kb += rss_kb(pid);
    }
    sum
}

pub fn alive(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| !stat.zombie)
}

pub fn signal(pid: u32, signal: Signal) -> Result<()> {
    let raw = i32::try_from(pid)?;
    let pid = Pid::from_raw(raw).context("no such process id")?;
    rustix::process::kill_process(pid, signal).with_context(|| format!("signal to process {raw}"))
}

/// Thousands of connections need more descriptors than a shell allows by default.
pub fn raise_open_files() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Best effort: the caller compares what it needs with what there is.
    let _ = setrlimit(Resource::Nofile, limit);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
