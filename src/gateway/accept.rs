//! Accept, admit, spawn: nothing here waits for a client.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::turns::Turns;
use super::{Gateway, connection};
use crate::config::model::Speaks;
use crate::stream::tune_clients;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{ByListener, Name};

/// What a connection must know of the listener that it came by. Listeners do not change while the process lives.
#[derive(Debug)]
pub struct ListenerContext {
    pub name: Name,
    /// Its place in the configuration.
    pub index: usize,
    pub speaks: Speaks,
    /// As bound, with the port that the operating system chose where the configuration says 0.
    pub address: SocketAddr,
    /// Where a redirect leads: the port of the first TLS listener.
    pub https_port: u16,
    pub connections: Gauge,
    /// Those that a broker has.
    pub sessions: Gauge,
    pub accepted: Counter,
    errors: Counter,
}

impl ListenerContext {
    pub fn new(
        name: &str,
        index: usize,
        speaks: Speaks,
        address: SocketAddr,
        https_port: u16,
        metrics: &Metrics,
    ) -> Self {
        let labels = ByListener {
            listener: name.into(),
        };
        Self {
            name: Arc::clone(&labels.listener),
            index,
            speaks,
            address,
            https_port,
            connections: metrics.connections.get_or_create_owned(&labels),
            sessions: metrics.listener_sessions.get_or_create_owned(&labels),
            accepted: metrics.accepted.get_or_create_owned(&labels),
            errors: metrics.accept_errors.get_or_create_owned(&labels),
        }
    }
}

/// Accepts until the drain closes the door. `worker` is the thread that this runs on, `turns` are its own.
pub async fn run(
    listener: TcpListener,
    context: Arc<ListenerContext>,
    gateway: Arc<Gateway>,
    worker: usize,
    turns: Arc<Turns>,
) {
    let _door = gateway.drain.door();
    // Sockets that were passed to us may have been made by another program.
    if let Err(error) = tune_clients(&SockRef::from(&listener)) {
        tracing::warn!(%error, listener = &*context.name, "the socket options of clients cannot be set");
    }
    let mut trouble = Trouble::default();
    loop {
        // CANCEL: `accept` loses no connection, `closing` only waits.
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = gateway.drain.closing() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                trouble = Trouble::default();
                admit(stream, peer, &context, &gateway, worker, &turns);
            }
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                context.errors.inc();
                trouble.pause(&error, &context.name).await;
            }
        }
    }
}

fn admit(
    stream: TcpStream,
    peer: SocketAddr,
    context: &Arc<ListenerContext>,
    gateway: &Arc<Gateway>,
    worker: usize,
    turns: &Arc<Turns>,
) {
    let snapshot = gateway.snapshot.load_full();
    context.accepted.inc();
    // A listener on `[::]` shows IPv4 clients as mapped addresses: everyone else means the plain form.
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let local = stream.local_addr().unwrap_or(context.address);
    let local = SocketAddr::new(local.ip().to_canonical(), local.port());
    let Some(permit) = gateway
        .admission
        .connection(snapshot.limits.connections.get())
    else {
        gateway.count_refusal("connections");
        return;
    };
    let arrival = connection::Arrival {
        peer,
        tcp_peer: peer,
        local,
        tls: None,
        unique_id: None,
        secured: None,
        began: Instant::now(),
        listener: Arc::clone(context),
        gateway: Arc::clone(gateway),
        snapshot,
        worker,
    };
    gateway.drain.spawn(connection::serve(
        stream,
        arrival,
        permit,
        Arc::clone(turns),
    ));
}

/// A connection that failed before it was accepted is its client's trouble (accept(2)).
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

/// Out of file descriptors or memory: trying again at once would burn a core, giving up would end the listener.
#[derive(Debug, Default)]
struct Trouble {
    pause: Duration,
    told: Option<Instant>,
}

impl Trouble {
    async fn pause(&mut self, error: &io::Error, listener: &str) {
        const FIRST: Duration = Duration::from_millis(10);
        const LONGEST: Duration = Duration::from_secs(1);
        self.pause = (self.pause * 2).clamp(FIRST, LONGEST);
        if self.told.is_none_or(|told| told.elapsed() > LONGEST) {
            self.told = Some(Instant::now());
            tracing::error!(listener, %error, "cannot accept: raise the limit on open files or lower limits.connections");
        }
        tokio::time::sleep(self.pause).await;
    }
}
