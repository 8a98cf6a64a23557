//! A client that may say anything: TLS, WebSocket frames by tungstenite or by hand, MQTT bytes by hand.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tungstenite::Message;
use tungstenite::client::IntoClientRequest;

use super::PATIENCE;
use super::gateway::Gateway;
use super::http2::{Http2, Http2Stream};
use super::packets;

/// A TLS connection to the gateway's first listener.
pub async fn tls(gateway: &Gateway) -> TlsStream<TcpStream> {
    try_tls(gateway).await.unwrap()
}

pub async fn try_tls(gateway: &Gateway) -> std::io::Result<TlsStream<TcpStream>> {
    try_tls_to(gateway.address(0), gateway.ca_file()).await
}

/// A TLS connection to the gateway's first listener that offers these in ALPN.
pub async fn tls_offering(gateway: &Gateway, alpn: &[&[u8]]) -> TlsStream<TcpStream> {
    let config = tls_config(gateway.ca_file(), rustls::DEFAULT_VERSIONS);
    let mut config = Arc::unwrap_or_clone(config);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let connecting = tls_as(gateway.address(0), "localhost", Arc::new(config));
    connecting.await.unwrap()
}

/// A TCP connection from that address of this machine.
pub async fn tcp_from(source: IpAddr, target: SocketAddr) -> TcpStream {
    let socket = match source {
        IpAddr::V4(_) => TcpSocket::new_v4(),
        IpAddr::V6(_) => TcpSocket::new_v6(),
    }
    .unwrap();
    socket.bind(SocketAddr::new(source, 0)).unwrap();
    socket.connect(target).await.unwrap()
}

/// TLS with the gateway over a connection that is there.
pub async fn tls_over(gateway: &Gateway, tcp: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
    let config = tls_config(gateway.ca_file(), rustls::DEFAULT_VERSIONS);
    handshake_over(tcp, "localhost", config).await
}

/// A TLS connection to this address, for `localhost`, that trusts this authority.
pub async fn tls_to(address: SocketAddr, ca: &Path) -> TlsStream<TcpStream> {
    try_tls_to(address, ca).await.unwrap()
}

pub async fn try_tls_to(address: SocketAddr, ca: &Path) -> std::io::Result<TlsStream<TcpStream>> {
    let config = tls_config(ca, rustls::DEFAULT_VERSIONS);
    tls_as(address, "localhost", config).await
}

/// What a client may configure: whom it trusts and which versions it speaks.
pub fn tls_config(
    ca: &Path,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<rustls::ClientConfig> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    tls_config_by(provider, ca, versions)
}

/// The same, with the provider's cipher suites.
pub fn tls_config_by(
    provider: rustls::crypto::CryptoProvider,
    ca: &Path,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<rustls::ClientConfig> {
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots_of(ca))
        .with_no_client_auth();
    Arc::new(config)
}

/// The gateway's authority.
pub fn roots(gateway: &Gateway) -> RootCertStore {
    roots_of(gateway.ca_file())
}

fn roots_of(ca: &Path) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    roots
}

/// A TLS client that trusts the gateway's authority and has no certificate.
pub fn trusting(gateway: &Gateway) -> Arc<rustls::ClientConfig> {
    tls_config(gateway.ca_file(), rustls::DEFAULT_VERSIONS)
}

/// A TLS connection that asks for this name.
pub async fn tls_as(
    address: SocketAddr,
    name: &str,
    config: Arc<rustls::ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    handshake_over(TcpStream::connect(address).await?, name, config).await
}

async fn handshake_over(
    tcp: TcpStream,
    name: &str,
    config: Arc<rustls::ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(config).connect(name, tcp).await
}

/// A WebSocket to the gateway that may speak MQTT, over whatever carries it.
pub struct ClientOver<W> {
    pub socket: WebSocketStream<W>,
}

/// Over HTTP/1.1: the connection is the session's own.
pub type Client = ClientOver<TlsStream<TcpStream>>;

/// Over HTTP/2: one stream of a connection.
pub type Http2Client = ClientOver<Http2Stream>;

/// What carries a WebSocket.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Sized {
    /// What it offers in ALPN.
    const ALPN: &[&[u8]];

    /// Upgrades over a connection that is there, with these headers.
    async fn upgrade(
        stream: TlsStream<TcpStream>,
        path: &str,
        headers: &[(&str, &str)],
    ) -> WebSocketStream<Self>;

    /// Breaks it off without a word.
    fn reset(self);
}

impl Wire for TlsStream<TcpStream> {
    const ALPN: &[&[u8]] = &[];

    async fn upgrade(stream: Self, path: &str, headers: &[(&str, &str)]) -> WebSocketStream<Self> {
        let port = stream.get_ref().0.peer_addr().unwrap().port();
        let url = format!("wss://localhost:{port}{path}");
        let mut request = url.into_client_request().unwrap();
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().unwrap();
            request.headers_mut().append(name, value.parse().unwrap());
        }
        // On the heap: the future of every test that opens a client would hold it.
        let opening = Box::pin(tokio_tungstenite::client_async(request, stream));
        let (socket, _response) = opening.await.unwrap();
        socket
    }

    fn reset(self) {
        self.get_ref().0.set_zero_linger().unwrap();
    }
}

impl Wire for Http2Stream {
    const ALPN: &[&[u8]] = &[b"h2"];

    async fn upgrade(
        stream: TlsStream<TcpStream>,
        path: &str,
        headers: &[(&str, &str)],
    ) -> WebSocketStream<Self> {
        let mut connection = Box::pin(Http2::over(stream)).await;
        connection.web_socket(path, headers).await
    }

    fn reset(self) {
        Self::reset(self);
    }
}

/// How the gateway ended it.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed {
    /// 1006 where the connection ended without a Close frame (RFC 6455 7.1.5).
    pub code: u16,
    pub reason: String,
    /// MQTT packets that came before it.
    pub packets: Vec<Vec<u8>>,
}

impl<W: Wire> ClientOver<W> {
    /// Upgrades on `/mqtt`, offering `mqtt`.
    pub async fn open(gateway: &Gateway) -> Self {
        Box::pin(Self::open_with(gateway, "/mqtt", Some("mqtt"))).await
    }

    pub async fn open_with(gateway: &Gateway, path: &str, subprotocol: Option<&str>) -> Self {
        let headers: Vec<(&str, &str)> = subprotocol
            .map(|subprotocol| ("Sec-WebSocket-Protocol", subprotocol))
            .into_iter()
            .collect();
        let stream = tls_offering(gateway, W::ALPN).await;
        Self::open_over(stream, path, &headers).await
    }

    /// Upgrades on `/mqtt` over that connection.
    pub async fn over(stream: TlsStream<TcpStream>) -> Self {
        Self::open_over(stream, "/mqtt", &[("Sec-WebSocket-Protocol", "mqtt")]).await
    }

    /// Upgrades over a connection that is there, with these headers.
    pub async fn open_over(
        stream: TlsStream<TcpStream>,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Self {
        Self {
            socket: W::upgrade(stream, path, headers).await,
        }
    }

    /// Breaks the connection off without a word.
    pub fn reset(self) {
        self.socket.into_inner().reset();
    }

    /// Upgrades and connects with MQTT 3.1.1; panics unless CONNACK says yes.
    pub async fn connected(gateway: &Gateway, client_id: &str) -> Self {
        let mut client = Self::open(gateway).await;
        client.send(&packets::connect(client_id, 60)).await;
        assert_eq!(client.receive().await, packets::connack(0), "{client_id}");
        client
    }

    /// Upgrades and connects with MQTT 5; panics unless CONNACK says yes.
    pub async fn connected_v5(gateway: &Gateway, client_id: &str) -> Self {
        let mut client = Self::open(gateway).await;
        client.send(&packets::connect_v5(client_id, 60)).await;
        assert_eq!(
            client.receive().await,
            packets::connack_v5(0),
            "{client_id}"
        );
        client
    }

    /// One binary frame.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.socket
            .send(Message::binary(bytes.to_vec()))
            .await
            .unwrap();
    }

    /// The next binary message; pings are answered on the way.
    pub async fn receive(&mut self) -> Vec<u8> {
        loop {
            let next = timeout(PATIENCE, self.socket.next()).await;
            match next.expect("nothing came in time") {
                Some(Ok(Message::Binary(bytes))) => return bytes.to_vec(),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("{other:?} instead of a packet"),
            }
        }
    }

    /// Reads to the end.
    pub async fn closed(&mut self) -> Closed {
        let mut packets = Vec::new();
        loop {
            let next = timeout(PATIENCE, self.socket.next()).await;
            match next.expect("it was not closed in time") {
                Some(Ok(Message::Close(Some(frame)))) => {
                    return Closed {
                        code: frame.code.into(),
                        reason: frame.reason.to_string(),
                        packets,
                    };
                }
                Some(Ok(Message::Binary(bytes))) => packets.push(bytes.to_vec()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(other)) => panic!("{other:?} instead of a Close"),
                Some(Err(_)) | None => {
                    return Closed {
                        code: 1006,
                        reason: String::new(),
                        packets,
                    };
                }
            }
        }
    }

    /// Raw bytes into the TLS connection, beside the frames.
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        let stream = self.socket.get_mut();
        stream.write_all(bytes).await.unwrap();
        stream.flush().await.unwrap();
    }
}
