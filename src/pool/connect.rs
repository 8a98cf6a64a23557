//! To a broker: TCP or a Unix socket, PROXY header, TLS. All under the caller's deadline.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::sleep;

use super::announce::announce;
use super::source::Sources;
use super::{Address, Broker, Failure};
use crate::config::announcement::ProxyVersion;
use crate::config::model;
use crate::identity::Identity;
use crate::stream::{Stream, tune};
use crate::tls;

/// How a pool connects to any of its brokers.
#[derive(Debug)]
pub(super) struct Dialing {
    sources: Sources,
    proxy_protocol: Option<ProxyVersion>,
}

impl Dialing {
    pub(super) fn new(config: &model::Pool) -> Self {
        Self {
            sources: Sources::new(&config.name, &config.source_addresses),
            proxy_protocol: config.announcement.proxy_protocol,
        }
    }
}

/// Connects, says who the client is (the gateway itself where there is none), and does the TLS handshake where the
/// broker's URL asks for it.
pub(super) async fn connect(broker: &Broker, client: Option<&Identity>) -> Result<Stream, Failure> {
    let mut stream = match &broker.address {
        Address::Tcp(addresses) => Stream::Plain(tcp(broker, addresses).await?),
        Address::Unix(path) => Stream::Unix(unix(path).await?),
    };
    if let Some(version) = broker.dialing.proxy_protocol {
        // In front of everything, TLS too (proxy-protocol.txt 2), and in one write.
        let header = match client {
            Some(client) => announce(client, version),
            None => announce(&own(&stream), version),
        };
        stream.write_all(&header).await.map_err(Failure::Connect)?;
    }
    match (&broker.tls, stream) {
        (Some((config, name)), Stream::Plain(tcp)) => {
            let tls = tls::connect(Arc::clone(config), name.clone(), tcp).await;
            Ok(Stream::Tls(tls.map_err(Failure::Tls)?))
        }
        // A Unix socket has no TLS: the configuration refuses it.
        (_, stream) => Ok(stream),
    }
}

/// The gateway as a client of its own: a probe must not say LOCAL, since mosquitto 2.1 closes on it without a word. The ends
/// of a Unix socket have no addresses, but they are on this machine.
pub(super) fn own(stream: &Stream) -> Identity {
    let tcp = stream.tcp();
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let end = |address: fn(&TcpStream) -> io::Result<SocketAddr>| {
        tcp.and_then(|tcp| address(tcp).ok()).unwrap_or(here)
    };
    Identity::of_gateway(end(TcpStream::local_addr), end(TcpStream::peer_addr))
}

/// Tries the addresses in their order; only `localhost` has more than one.
async fn tcp(broker: &Broker, addresses: &[SocketAddr]) -> Result<TcpStream, Failure> {
    let mut first = None;
    for address in addresses {
        match broker.dialing.sources.connect(*address).await {
            Ok(stream) => {
                // The options fail only on a connection that the broker has ended already.
                tune(&stream).map_err(|_gone| Failure::Closed)?;
                return Ok(stream);
            }
            Err(failure) => first = first.or(Some(failure)),
        }
    }
    Err(first.unwrap_or(Failure::Refused))
}

async fn unix(path: &Path) -> Result<UnixStream, Failure> {
    /// connect(2) answers EAGAIN where a TCP connection would wait for room in a busy broker's queue.
    const PAUSE: Duration = Duration::from_millis(10);
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(PAUSE).await,
            connected => return connected.map_err(Failure::Socket),
        }
    }
}
