//! What processes have spent: CPU time and memory, from /proc. A process's work in the kernel on loopback is charged to
//! it, so user and system time together are the whole cost.

use std::fs;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::poller::now;

/// Processes and whatever descends from them.
#[derive(Clone, Debug)]
pub struct Family {
    pub roots: Vec<u32>,
}

impl Family {
    pub fn of(root: u32) -> Self {
        Self { roots: vec![root] }
    }

    fn members(&self) -> Vec<u32> {
        let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(|pid| Some((pid, parent(pid)?)))
            .collect();
        let mut members = self.roots.clone();
        let mut seen = 0;
        while seen < members.len() {
            let parent = members[seen];
            members.extend(
                parents
                    .iter()
                    .filter(|pair| pair.1 == parent)
                    .map(|pair| pair.0),
            );
            seen += 1;
        }
        members
    }

    /// Nanoseconds on a processor, of all threads.
    pub fn cpu(&self) -> u64 {
        self.members().into_iter().map(cpu).sum()
    }

    /// KiB: pages shared with others count in part, so the sum over processes is true.
    pub fn memory(&self) -> u64 {
        let members = self.members().into_iter();
        members.filter_map(proportional).sum()
    }
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything, a `)` too.
    let (_, behind) = stat.rsplit_once(") ")?;
    behind.split(' ').nth(1)?.parse().ok()
}

fn cpu(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok())
        .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
        .sum()
}

fn proportional(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    kib(&text, "Pss:")
}

fn kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// KiB of slab of the whole machine: sockets, their files and epoll entries.
pub fn slab() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    kib(&text, "Slab:").unwrap_or(0)
}

/// KiB in the buffers of all TCP sockets of this network namespace.
pub fn socket_buffers() -> u64 {
    const PAGE: u64 = 4;
    let text = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let tcp = text.lines().find(|line| line.starts_with("TCP:"));
    let pages = tcp.and_then(|line| line.rsplit_once("mem ")?.1.trim().parse::<u64>().ok());
    pages.unwrap_or(0) * PAGE
}

/// Nanoseconds in which any processor of the machine was busy.
fn busy() -> u64 {
    // proc_stat(5): USER_HZ is 100 on every Linux of today.
    const TICK: u64 = 10_000_000;
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks: Vec<u64> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_ascii_whitespace()
        .skip(1)
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    // user, nice, system, irq, softirq
    [0, 1, 2, 5, 6]
        .iter()
        .filter_map(|at| ticks.get(*at))
        .sum::<u64>()
        * TICK
}

/// Nanoseconds of the children that have ended and were waited for: load generators.
fn children() -> u64 {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else {
        return 0;
    };
    let times = [usage.user_time(), usage.system_time()];
    let microseconds = times
        .map(|time| time.num_microseconds())
        .iter()
        .sum::<i64>();
    u64::try_from(microseconds).unwrap_or(0) * 1000
}

/// The accounts over a stretch of time.
pub struct Span {
    gateway: Family,
    load: Family,
    at: u64,
    gateway_cpu: u64,
    load_cpu: u64,
    busy: u64,
}

/// What was spent in it.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    pub seconds: f64,
    pub gateway_ns: u64,
    /// Of broker and clients, in parts of one processor.
    pub load_share: f64,
    /// Of everything else on the machine, in parts of one processor.
    pub other_share: f64,
}

impl Span {
    /// `broker` is on the load's side, as this process is.
    pub fn begin(gateway: &Family, broker: u32) -> Self {
        let load = Family {
            roots: vec![broker, std::process::id()],
        };
        // The children of this process are the gateways too: only the two themselves are the load.
        let load_cpu = Self::load_cpu(&load);
        Self {
            gateway_cpu: gateway.cpu(),
            gateway: gateway.clone(),
            load_cpu,
            load,
            busy: busy(),
            at: now(),
        }
    }

    /// Of children that were waited for, too.
    fn load_cpu(load: &Family) -> u64 {
        load.roots.iter().map(|pid| cpu(*pid)).sum::<u64>() + children()
    }

    pub fn end(self) -> Spent {
        let ns = now() - self.at;
        let busy = busy() - self.busy;
        let gateway_ns = self.gateway.cpu().saturating_sub(self.gateway_cpu);
        let load = Self::load_cpu(&self.load).saturating_sub(self.load_cpu);
        let share = |part: u64| part as f64 / ns as f64;
        Spent {
            seconds: ns as f64 / 1e9,
            gateway_ns,
            load_share: share(load),
            other_share: share(busy.saturating_sub(gateway_ns + load)),
        }
    }
}
