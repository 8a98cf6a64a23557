//! To a broker: TCP, TLS. All under the caller's deadline.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};

use super::{Broker, Failure};
use crate::stream::{Stream, tune};

/// Connects, and does the TLS handshake where the broker's URL asks for it.
pub(super) async fn connect(broker: &Broker) -> Result<Stream, Failure> {
    let tcp = dial(&broker.addresses).await?;
    tune(&tcp).map_err(Failure::Connect)?;
    let Some((config, name)) = &broker.tls else {
        return Ok(Stream::Plain(tcp));
    };
    let tls = TlsConnector::from(Arc::clone(config))
        .connect(name.clone(), tcp)
        .await
        .map_err(Failure::Tls)?;
    Ok(Stream::Tls(Box::new(TlsStream::from(tls))))
}

/// Tries the addresses in their order; only `localhost` has more than one.
async fn dial(addresses: &[SocketAddr]) -> Result<TcpStream, Failure> {
    let mut first = None;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => first = first.or(Some(Failure::connecting(error))),
        }
    }
    Err(first.unwrap_or(Failure::Refused))
}
