//! A client that may say anything: TLS, WebSocket frames by tungstenite or by hand, MQTT bytes by hand.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tungstenite::Message;
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::client::Response;

use super::PATIENCE;
use super::gateway::Gateway;
use super::packets;

/// A TLS connection to the gateway's first listener.
pub async fn tls(gateway: &Gateway) -> TlsStream<TcpStream> {
    try_tls(gateway).await.unwrap()
}

pub async fn try_tls(gateway: &Gateway) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(gateway.address(0)).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(trusting(gateway))
        .connect(name, tcp)
        .await
}

/// The gateway's authority.
pub fn roots(gateway: &Gateway) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(gateway.ca_file()).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    roots
}

/// A TLS client that trusts the gateway's authority and has no certificate.
pub fn trusting(gateway: &Gateway) -> Arc<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(gateway))
        .with_no_client_auth();
    Arc::new(config)
}

/// Sends a request as it stands and reads the answer to the end of the connection, or of patience.
pub async fn http(gateway: &Gateway, request: &str) -> String {
    let mut stream = tls(gateway).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A server may end TLS without a word when the answer is complete.
    drop(timeout(PATIENCE, stream.read_to_end(&mut answer)).await);
    String::from_utf8_lossy(&answer).into_owned()
}

/// A WebSocket to the gateway that may speak MQTT.
pub struct Client {
    pub socket: WebSocketStream<TlsStream<TcpStream>>,
    pub response: Response,
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

impl Client {
    /// Upgrades on `/mqtt`, offering `mqtt`.
    pub async fn open(gateway: &Gateway) -> Self {
        Self::open_with(gateway, "/mqtt", Some("mqtt")).await
    }

    pub async fn open_with(gateway: &Gateway, path: &str, subprotocol: Option<&str>) -> Self {
        let url = format!("wss://localhost:{}{path}", gateway.port());
        let mut request = url.into_client_request().unwrap();
        if let Some(subprotocol) = subprotocol {
            let value = subprotocol.parse().unwrap();
            request
                .headers_mut()
                .insert("Sec-WebSocket-Protocol", value);
        }
        let stream = tls(gateway).await;
        let (socket, response) = Box::pin(tokio_tungstenite::client_async(request, stream))
            .await
            .unwrap();
        Self { socket, response }
    }

    /// Upgrades on `/mqtt` over that connection.
    pub async fn over(stream: TlsStream<TcpStream>) -> Self {
        let mut request = "wss://localhost/mqtt".into_client_request().unwrap();
        let value = "mqtt".parse().unwrap();
        request
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", value);
        let (socket, response) = Box::pin(tokio_tungstenite::client_async(request, stream))
            .await
            .unwrap();
        Self { socket, response }
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

    /// Nothing but control frames comes for that long.
    pub async fn hears_nothing(&mut self, time: Duration) {
        if let Ok(message) = timeout(time, self.receive()).await {
            panic!("{message:02x?} came");
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
