//! The `process_*` metrics that every Prometheus client has, read from /proc when they are asked for.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt::Error;

/// Reads /proc/self at each scrape.
#[derive(Debug)]
pub struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut gauge = |name, help, value: Option<f64>| match value {
            Some(value) => {
                let metric = ConstGauge::new(value);
                metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
            }
            None => Ok(()),
        };
        gauge(
            "process_resident_memory_bytes",
            "Resident memory",
            resident(),
        )?;
        gauge(
            "process_virtual_memory_bytes",
            "Address space",
            status("VmSize:"),
        )?;
        gauge("process_threads", "Threads", threads())?;
        gauge("process_open_fds", "Open file descriptors", open_files())?;
        gauge(
            "process_max_fds",
            "Limit on open file descriptors",
            max_files(),
        )?;
        gauge(
            "process_start_time_seconds",
            "Start of the process, Unix time",
            start_time(),
        )?;
        if let Some(seconds) = cpu_seconds() {
            let metric = ConstCounter::new(seconds);
            metric.encode(encoder.encode_descriptor(
                "process_cpu_seconds",
                "User and system CPU time",
                None,
                metric.metric_type(),
            )?)?;
        }
        Ok(())
    }
}

/// Ticks per second of /proc/*/stat; 100 on every Linux that user space has seen (USER_HZ).
const TICKS: f64 = 100.0;

/// The fields of /proc/self/stat behind the command name; field 3 of proc(5) is index 0.
fn stat() -> Option<Vec<String>> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    Some(fields.split(' ').map(str::to_owned).collect())
}

pub fn cpu_seconds() -> Option<f64> {
    let stat = stat()?;
    let user: f64 = stat.get(11)?.parse().ok()?;
    let system: f64 = stat.get(12)?.parse().ok()?;
    Some((user + system) / TICKS)
}

pub fn start_time() -> Option<f64> {
    let ticks: f64 = stat()?.get(19)?.parse().ok()?;
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = stat
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .parse()
        .ok()?;
    Some(boot + ticks / TICKS)
}

/// A line of /proc/self/status that is in KiB.
fn status(name: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024.0)
}

/// Bytes.
pub fn resident() -> Option<f64> {
    status("VmRSS:")
}

fn threads() -> Option<f64> {
    stat()?.get(17)?.parse().ok()
}

pub fn open_files() -> Option<f64> {
    let count = u32::try_from(std::fs::read_dir("/proc/self/fd").ok()?.count()).ok()?;
    Some(f64::from(count))
}

pub fn max_files() -> Option<f64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}
