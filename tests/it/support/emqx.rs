//! A listener with EMQX's rules, as its sources have them (`emqx_schema.erl`, `emqx_ws_connection.erl`): where it takes a
//! client's address from, and what it closes for. The real one cannot be had for tests.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::PATIENCE;
use super::authority::Authority;

/// `proxy_protocol_timeout`.
const PROXY_TIMEOUT: Duration = Duration::from_secs(3);

/// `supported_subprotocols`.
const SUBPROTOCOLS: [&str; 4] = ["mqtt", "mqtt-v3", "mqtt-v3.1.1", "mqtt-v5"];

trait Io: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Io for T {}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    Mqtt,
    WebSocket,
}

/// One listener.
pub struct Emqx {
    listener: TcpListener,
    speaks: Speaks,
    /// `proxy_protocol = true`
    proxy_protocol: bool,
    tls: Option<TlsAcceptor>,
}

/// What it knows of a client.
#[derive(Debug)]
pub struct Known {
    pub peer: SocketAddr,
    /// The TLVs of the PROXY header as proxy-header shows them; empty without one.
    pub tlvs: String,
    /// The bytes of the PROXY header.
    pub proxy: Vec<u8>,
    /// The head of the upgrade; empty for mqtt.
    pub request: String,
}

/// Why it closed, in words for the test.
pub type Closed = String;

impl Emqx {
    pub async fn start(speaks: Speaks, proxy_protocol: bool, tls: Option<&Authority>) -> Self {
        Self {
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            speaks,
            proxy_protocol,
            tls: tls.map(Authority::acceptor),
        }
    }

    pub fn url(&self) -> String {
        let (scheme, path) = match (self.speaks, self.tls.is_some()) {
            (Speaks::Mqtt, false) => ("mqtt", ""),
            (Speaks::Mqtt, true) => ("mqtts", ""),
            (Speaks::WebSocket, false) => ("ws", "/mqtt"),
            (Speaks::WebSocket, true) => ("wss", "/mqtt"),
        };
        let port = self.listener.local_addr().unwrap().port();
        format!("{scheme}://127.0.0.1:{port}{path}")
    }

    /// Takes the next connection up to its CONNACK. Whoever waits for that gets it.
    pub async fn serve(&self) -> Result<Known, Closed> {
        let (mut tcp, peer) = timeout(PATIENCE, self.listener.accept())
            .await
            .map_err(|_elapsed| "nobody came")?
            .unwrap();
        let mut known = Known {
            peer,
            tlvs: String::new(),
            proxy: Vec::new(),
            request: String::new(),
        };
        if self.proxy_protocol {
            let reading = read_proxy_header(&mut tcp, &mut known);
            timeout(PROXY_TIMEOUT, reading)
                .await
                .map_err(|_elapsed| "no PROXY header in 3 s")??;
        }
        let mut stream: Pin<Box<dyn Io>> = match &self.tls {
            None => Box::pin(tcp),
            Some(acceptor) => Box::pin(
                acceptor
                    .accept(tcp)
                    .await
                    .map_err(|error| format!("TLS: {error}"))?,
            ),
        };
        if self.speaks == Speaks::WebSocket {
            self.upgrade(&mut stream, &mut known).await?;
        }
        // CONNECT in one piece: a frame header of 6 bytes and a packet, or the packet alone.
        let mut connect = [0; 512];
        let read = stream.read(&mut connect).await.map_err(text)?;
        if read == 0 {
            return Err("no CONNECT".to_owned());
        }
        let connack: &[u8] = match self.speaks {
            Speaks::Mqtt => &[0x20, 2, 0, 0],
            Speaks::WebSocket => &[0x82, 4, 0x20, 2, 0, 0],
        };
        stream.write_all(connack).await.map_err(text)?;
        stream.flush().await.map_err(text)?;
        // Not closed before the client has read it.
        let mut rest = [0; 64];
        drop(timeout(PATIENCE, stream.read(&mut rest)).await);
        Ok(known)
    }

    async fn upgrade(
        &self,
        stream: &mut Pin<Box<dyn Io>>,
        known: &mut Known,
    ) -> Result<(), Closed> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.map_err(text)?);
        }
        known.request = String::from_utf8(head).map_err(text)?;
        let header = |name: &str| {
            known.request.lines().find_map(|line| {
                let (header, value) = line.split_once(": ")?;
                header.eq_ignore_ascii_case(name).then(|| value.to_owned())
            })
        };
        let path = known.request.split(' ').nth(1).unwrap_or_default();
        if path.split('?').next() != Some("/mqtt") {
            let answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.map_err(text)?;
            return Err(format!("404 for {path}"));
        }
        let chosen = header("Sec-WebSocket-Protocol").and_then(|offered| {
            let mut tokens = offered.split(',').map(str::trim);
            tokens
                .find(|token| SUBPROTOCOLS.contains(token))
                .map(str::to_owned)
        });
        let Some(chosen) = chosen else {
            let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.map_err(text)?;
            return Err("400: no known subprotocol".to_owned());
        };
        if !self.proxy_protocol {
            // `get_peer`: the left-most entry if it is an address, else the TCP peer; the port in the same way.
            let address = header("x-forwarded-for").unwrap_or_default();
            if let Ok(address) = address
                .split(',')
                .next()
                .unwrap_or_default()
                .trim()
                .parse::<IpAddr>()
            {
                known.peer.set_ip(address);
            }
            if let Some(Ok(port)) = header("x-forwarded-port").map(|port| port.parse()) {
                known.peer.set_port(port);
            }
        }
        let key = header("Sec-WebSocket-Key").ok_or("no key")?;
        let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
             sec-websocket-accept: {accept}\r\nsec-websocket-protocol: {chosen}\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await.map_err(text)?;
        stream.flush().await.map_err(text)
    }
}

/// The header must be whole in the first read, as mosquitto 2.1 wants its start, and carry no control characters.
async fn read_proxy_header(tcp: &mut TcpStream, known: &mut Known) -> Result<(), Closed> {
    let mut first = [0; 1024];
    let ready = tcp.peek(&mut first).await.map_err(text)?;
    let (header, length) = ProxyHeader::parse(&first[..ready], ParseConfig::default())
        .map_err(|error| format!("PROXY header: {error:?}"))?;
    if length > 516 {
        return Err("PROXY header over 500 bytes".to_owned());
    }
    let address = header.proxied_address().ok_or("LOCAL")?;
    known.peer = address.source;
    for tlv in header.tlvs() {
        known.tlvs.push_str(&format!("{:?} ", tlv.map_err(text)?));
    }
    let names = [
        header.authority().unwrap_or_default().to_owned(),
        header
            .ssl()
            .and_then(|ssl| ssl.cn().map(str::to_owned))
            .unwrap_or_default(),
    ];
    if names.concat().chars().any(char::is_control) {
        return Err("a control character".to_owned());
    }
    known.proxy = first[..length].to_vec();
    tcp.read_exact(&mut first[..length]).await.map_err(text)?;
    Ok(())
}

fn text(error: impl std::fmt::Debug) -> Closed {
    format!("{error:?}")
}
