//! To a broker: name, TCP, TLS. All under the caller's deadline.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::{TlsConnector, TlsStream};

use super::{Broker, Failure};
use crate::stream::{Stream, tune};

/// Connects, and does the TLS handshake where the broker's URL asks for it.
pub(super) async fn connect(broker: &Broker) -> Result<Stream, Failure> {
    let tcp = dial(&broker.host, broker.port).await?;
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

/// Tries the addresses of a name in the order that the resolver gives them.
async fn dial(host: &str, port: u16) -> Result<TcpStream, Failure> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return TcpStream::connect(SocketAddr::new(address, port))
            .await
            .map_err(Failure::connecting);
    }
    let mut last = Failure::NoAddress;
    for address in lookup_host((host, port)).await.map_err(Failure::Name)? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Failure::connecting(error),
        }
    }
    Err(last)
}
