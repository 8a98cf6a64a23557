//! Packets and bytes of the whole process, counted where they pass: a shard for each worker, so that no two threads
//! write to one cache line and counting costs a load and a store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the broker.
    Up,
    /// From the broker to the client.
    Down,
}

impl Direction {
    pub const BOTH: [Self; 2] = [Self::Up, Self::Down];

    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// Counters by packet type of one worker and direction. Aligned so that neighbours do not share a cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Table {
    packets: [AtomicU64; 16],
    bytes: [AtomicU64; 16],
}

/// One worker's counters of one direction.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    table: Arc<Table>,
}

impl Counters {
    /// Counts one packet.
    ///
    /// INVARIANT: called only on the worker that the counters belong to, so a load and a store lose nothing.
    pub fn add(&self, packet_type: usize, bytes: u64) {
        let bump = |counter: &AtomicU64, by: u64| {
            counter.store(
                counter.load(Ordering::Relaxed).wrapping_add(by),
                Ordering::Relaxed,
            );
        };
        bump(&self.table.packets[packet_type], 1);
        bump(&self.table.bytes[packet_type], bytes);
    }
}

/// All workers' counters.
#[derive(Debug)]
pub struct Traffic {
    workers: Box<[[Counters; 2]]>,
}

impl Traffic {
    pub fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers).map(|_| Default::default()).collect(),
        }
    }

    /// The counters of one worker.
    pub fn counters(&self, worker: usize, direction: Direction) -> Counters {
        self.workers[worker][direction as usize].clone()
    }

    /// Packets and bytes of one direction.
    pub fn sum(&self, direction: Direction) -> (u64, u64) {
        (0..16).fold((0, 0), |(packets, bytes), packet_type| {
            let (more, heavier) = self.total(direction, packet_type);
            (packets + more, bytes + heavier)
        })
    }

    /// Packets and bytes of one direction and type, all workers together.
    pub fn total(&self, direction: Direction, packet_type: usize) -> (u64, u64) {
        self.workers
            .iter()
            .fold((0, 0), |(packets, bytes), worker| {
                let table = &worker[direction as usize].table;
                (
                    packets + table.packets[packet_type].load(Ordering::Relaxed),
                    bytes + table.bytes[packet_type].load(Ordering::Relaxed),
                )
            })
    }
}
