//! A scripted broker over TCP or ws, for what real brokers cannot be made to do. Each connection is handed to the test.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tungstenite::Message;
use tungstenite::handshake::server::{Request, Response};

use super::PATIENCE;

/// A listener that a test answers for.
pub struct Broker {
    listener: TcpListener,
}

/// One connection of the gateway over plain TCP.
pub struct Session {
    pub stream: TcpStream,
    /// The first packet, whole.
    pub connect: Vec<u8>,
}

/// One connection of the gateway over ws.
pub struct WsSession {
    pub socket: WebSocketStream<TcpStream>,
    pub request: Request,
    pub connect: Vec<u8>,
}

impl Broker {
    pub async fn start() -> Self {
        Self {
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub fn mqtt_url(&self) -> String {
        format!("mqtt://{}", self.address())
    }

    pub fn ws_url(&self) -> String {
        format!("ws://{}/mqtt", self.address())
    }

    /// The next connection, nothing read.
    pub async fn accept(&self) -> TcpStream {
        let accepted = timeout(PATIENCE, self.listener.accept()).await;
        accepted
            .expect("the gateway did not come in time")
            .unwrap()
            .0
    }

    /// The next connection, however long it takes.
    pub async fn accept_any(&self) -> TcpStream {
        self.listener.accept().await.unwrap().0
    }

    /// Answers a connection's CONNECT with success. False when there is none: the connection ended.
    pub async fn take(stream: &mut TcpStream) -> bool {
        if stream.peek(&mut [0]).await.unwrap_or(0) == 0 {
            return false;
        }
        let connect = read_packet(stream).await;
        stream.write_all(success(&connect)).await.is_ok()
    }

    /// Nobody comes for that long.
    pub async fn is_left_alone(&self, time: Duration) {
        let accepted = timeout(time, self.listener.accept()).await;
        assert!(accepted.is_err(), "the gateway came");
    }

    /// The next connection with its CONNECT, unanswered.
    pub async fn session(&self) -> Session {
        let mut stream = self.accept().await;
        let connect = read_packet(&mut stream).await;
        Session { stream, connect }
    }

    /// The next connection, its CONNECT answered with success in its own version.
    pub async fn welcome(&self) -> Session {
        let mut session = self.session().await;
        let connack = success(&session.connect);
        session.stream.write_all(connack).await.unwrap();
        session
    }

    /// The next connection over ws, upgraded, with its CONNECT unanswered.
    pub async fn ws_session(&self) -> WsSession {
        let stream = self.accept().await;
        let mut seen = None;
        #[expect(clippy::result_large_err, reason = "tungstenite's own type")]
        let callback = |request: &Request, mut response: Response| {
            seen = Some(request.clone());
            let subprotocol = "mqtt".parse().unwrap();
            response
                .headers_mut()
                .insert("Sec-WebSocket-Protocol", subprotocol);
            Ok(response)
        };
        let mut socket = tokio_tungstenite::accept_hdr_async(stream, callback)
            .await
            .unwrap();
        let connect = match timeout(PATIENCE, socket.next()).await.unwrap() {
            Some(Ok(Message::Binary(bytes))) => bytes.to_vec(),
            other => panic!("{other:?} instead of CONNECT"),
        };
        WsSession {
            socket,
            request: seen.unwrap(),
            connect,
        }
    }

    /// The same, answered with success in its own version.
    pub async fn ws_welcome(&self) -> WsSession {
        let mut session = self.ws_session().await;
        let connack = Message::binary(success(&session.connect));
        session.socket.send(connack).await.unwrap();
        session
    }
}

impl Session {
    /// The next packet, whole.
    pub async fn receive(&mut self) -> Vec<u8> {
        read_packet(&mut self.stream).await
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Everything to the end of the connection.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let reading = self.stream.read_to_end(&mut rest);
        // A reset ends a connection as well as a FIN does.
        drop(
            timeout(PATIENCE, reading)
                .await
                .expect("the gateway kept the connection"),
        );
        rest
    }
}

/// The CONNACK that says yes in the version of a short CONNECT.
fn success(connect: &[u8]) -> &'static [u8] {
    match connect[8] {
        5 => &[0x20, 3, 0, 0, 0],
        _ => &[0x20, 2, 0, 0],
    }
}

async fn read_packet(stream: &mut TcpStream) -> Vec<u8> {
    let reading = async {
        let mut packet = vec![stream.read_u8().await.unwrap()];
        let mut length = 0_usize;
        for shift in [0, 7, 14, 21] {
            let byte = stream.read_u8().await.unwrap();
            packet.push(byte);
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let start = packet.len();
        packet.resize(start + length, 0);
        stream.read_exact(&mut packet[start..]).await.unwrap();
        packet
    };
    timeout(PATIENCE, reading)
        .await
        .expect("no packet came in time")
}
