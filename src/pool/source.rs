//! The source addresses of a pool, and the ports that run out. Without one the system chooses.
//!
//! The limit is per (source address, broker address, broker port): 28,232 with Linux' own port range.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

use super::Failure;
use crate::telemetry::metrics::Name;

/// A pool whose ports ran out says so in the log no more often than this.
const QUIET: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Sources {
    pool: Name,
    v4: Vec<IpAddr>,
    v6: Vec<IpAddr>,
    turn: AtomicUsize,
    warned: Mutex<Option<Instant>>,
}

impl Sources {
    pub(super) fn new(pool: &str, addresses: &[IpAddr]) -> Self {
        let (v4, v6) = addresses.iter().partition(|address| address.is_ipv4());
        Self {
            pool: pool.into(),
            v4,
            v6,
            turn: AtomicUsize::new(0),
            warned: Mutex::new(None),
        }
    }

    /// Connects from the next source address; from the one after it where that has no port left, and so on.
    pub(super) async fn connect(&self, target: SocketAddr) -> Result<TcpStream, Failure> {
        let sources = if target.is_ipv4() { &self.v4 } else { &self.v6 };
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut result = match sources.is_empty() {
            true => TcpStream::connect(target)
                .await
                .map_err(Failure::connecting),
            false => Err(Failure::SourcePorts),
        };
        for turn in 0..sources.len() {
            result = connect_from(sources[first.wrapping_add(turn) % sources.len()], target).await;
            if !matches!(
                result,
                Err(Failure::SourcePorts | Failure::SourceAddress(..))
            ) {
                break;
            }
        }
        if matches!(result, Err(Failure::SourcePorts)) {
            self.warn(target, sources.len());
        }
        result
    }

    fn warn(&self, target: SocketAddr, sources: usize) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|last| last.elapsed() >= QUIET) {
            *warned = Some(Instant::now());
            tracing::warn!(
                pool = &*self.pool,
                broker = %target,
                sources,
                "source ports exhausted: no session can be joined to this broker until one ends; add source_addresses \
                 or broker addresses, or widen net.ipv4.ip_local_port_range"
            );
        }
    }
}

async fn connect_from(source: IpAddr, target: SocketAddr) -> Result<TcpStream, Failure> {
    let bound = || {
        let socket = match target.is_ipv4() {
            true => TcpSocket::new_v4(),
            false => TcpSocket::new_v6(),
        }?;
        // bind(2) would otherwise take a port for all destinations at once, long before connect(2) knows this one. The
        // option is for IPv6 too.
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        socket.bind(SocketAddr::new(source, 0))?;
        Ok::<_, io::Error>(socket)
    };
    let socket = bound().map_err(|error| Failure::SourceAddress(source, error))?;
    socket.connect(target).await.map_err(Failure::connecting)
}
