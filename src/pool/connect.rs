//! To a broker: TCP, PROXY header, TLS. All under the caller's deadline.

use std::io;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::announce::announce;
use super::source::Sources;
use super::{Broker, Failure};
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
    let mut tcp = dial(broker).await?;
    // The options fail only on a connection that the broker has ended already.
    tune(&tcp).map_err(|_gone| Failure::Closed)?;
    if let Some(version) = broker.dialing.proxy_protocol {
        // In front of everything, TLS too (proxy-protocol.txt 2), and in one write.
        let header = match client {
            Some(client) => announce(client, version),
            None => announce(&own(&tcp).map_err(Failure::Connect)?, version),
        };
        tcp.write_all(&header).await.map_err(Failure::Connect)?;
    }
    let Some((config, name)) = &broker.tls else {
        return Ok(Stream::Plain(tcp));
    };
    let tls = tls::connect(Arc::clone(config), name.clone(), tcp).await;
    Ok(Stream::Tls(tls.map_err(Failure::Tls)?))
}

/// A probe must not say LOCAL: mosquitto 2.1 closes on it without a word.
fn own(tcp: &TcpStream) -> io::Result<Identity> {
    Ok(Identity::of_gateway(tcp.local_addr()?, tcp.peer_addr()?))
}

/// Tries the addresses in their order; only `localhost` has more than one.
async fn dial(broker: &Broker) -> Result<TcpStream, Failure> {
    let mut first = None;
    for address in &broker.addresses {
        match broker.dialing.sources.connect(*address).await {
            Ok(stream) => return Ok(stream),
            Err(failure) => first = first.or(Some(failure)),
        }
    }
    Err(first.unwrap_or(Failure::Refused))
}
