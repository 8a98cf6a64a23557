//! An HTTP probe: GET, and the status of the answer. 503 is how EMQX says that a node is being evacuated.

use std::net::Ipv6Addr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::ProbeFailure;
use crate::config::probe_values::ProbeUrl;
use crate::pool::health::Sign;
use crate::pool::{Address, Broker, Failure, Pool};
use crate::stream::Stream;
use crate::tls;

/// Longest head of an answer.
const HEAD: usize = 8 * 1024;

pub(super) async fn ask(pool: &Pool, broker: &Broker) -> Result<Sign, ProbeFailure> {
    // The configuration has one for each broker.
    let url = broker.probe_url.as_ref().ok_or(ProbeFailure::NotHttp)?;
    let host = url.host.as_deref().unwrap_or(&broker.host);
    let mut stream = connect(pool, broker, url, host).await?;
    let authority = match host.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]:{}", url.port),
        Err(_) => format!("{host}:{}", url.port),
    };
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: tidegate-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        url.path
    );
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(Failure::Io)?;
    stream.flush().await.map_err(Failure::Io)?;
    match status(&mut stream).await? {
        200..=299 => Ok(Sign::Good { session: false }),
        503 => Ok(Sign::Draining),
        status => Err(ProbeFailure::Status(status)),
    }
}

async fn connect(
    pool: &Pool,
    broker: &Broker,
    url: &ProbeUrl,
    host: &str,
) -> Result<Stream, Failure> {
    let address = match &broker.address {
        Address::Tcp(addresses) => addresses.first(),
        Address::Unix(_) => None,
    };
    let tcp = match (&url.host, address) {
        // The broker's own host: of all addresses of its name, this one is asked about.
        (None, Some(address)) => TcpStream::connect((address.ip(), url.port)).await,
        (_, _) => TcpStream::connect((host, url.port)).await,
    };
    let tcp = tcp.map_err(Failure::connecting)?;
    let Some(config) = pool.probe_tls.as_ref().filter(|_| url.tls) else {
        return Ok(Stream::Plain(tcp));
    };
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| Failure::Tls(std::io::Error::other(error)))?;
    let tls = tls::connect(Arc::clone(config), name, tcp).await;
    Ok(Stream::Tls(tls.map_err(Failure::Tls)?))
}

async fn status(stream: &mut Stream) -> Result<u16, ProbeFailure> {
    let mut head = Vec::with_capacity(512);
    loop {
        if stream.read_buf(&mut head).await.map_err(Failure::Io)? == 0 {
            return Err(Failure::Closed.into());
        }
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(&head);
        match (parsed, response.code) {
            (Ok(_), Some(code)) => return Ok(code),
            (Ok(_), None) if head.len() < HEAD => {}
            (Ok(_), None) | (Err(_), _) => return Err(ProbeFailure::NotHttp),
        }
    }
}
