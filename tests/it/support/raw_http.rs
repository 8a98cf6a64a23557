//! HTTP written and read by hand, over TLS or without: a library would refuse to send what these tests must send.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;

/// The key of RFC 6455 1.3, and what must be answered to it.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Linux buffers up to 4 MiB at the sender and less at a receiver that does not read: whoever writes more is still writing
/// when the other side closes.
pub const MORE_THAN_BUFFERS_HOLD: usize = 8 << 20;

/// A request head that can be made wrong.
#[derive(Clone)]
pub struct Request {
    line: String,
    headers: Vec<(String, String)>,
}

impl Request {
    pub fn new(method: &str, path: &str) -> Self {
        Self {
            line: format!("{method} {path} HTTP/1.1"),
            headers: Vec::new(),
        }
        .with("Host", "localhost")
    }

    pub fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    /// A right WebSocket upgrade that offers no subprotocol.
    pub fn upgrade(path: &str) -> Self {
        Self::get(path)
            .with("Upgrade", "websocket")
            .with("Connection", "Upgrade")
            .with("Sec-WebSocket-Version", "13")
            .with("Sec-WebSocket-Key", KEY)
    }

    /// One header more.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(other, _)| other != name);
        self
    }

    /// The header with this value instead of its own.
    pub fn instead(self, name: &str, value: &str) -> Self {
        self.without(name).with(name, value)
    }

    pub fn method(mut self, method: &str) -> Self {
        self.line = self.line.replacen("GET", method, 1);
        self
    }

    pub fn http_1_0(mut self) -> Self {
        self.line = self.line.replace("HTTP/1.1", "HTTP/1.0");
        self
    }

    pub fn text(&self) -> String {
        let mut text = format!("{}\r\n", self.line);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text + "\r\n"
    }

    /// Sends it and reads the answer.
    pub async fn ask(&self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Answer {
        stream.write_all(self.text().as_bytes()).await.unwrap();
        let has_body = !self.line.starts_with("HEAD ");
        Answer::read(stream, has_body).await
    }
}

/// A response, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// Reads one response and not a byte more.
    pub async fn read(stream: &mut (impl AsyncRead + Unpin), has_body: bool) -> Self {
        let reading = async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let byte = stream.read_u8().await;
                let so_far = String::from_utf8_lossy(&head).into_owned();
                head.push(byte.unwrap_or_else(|error| panic!("{error} after {so_far:?}")));
            }
            let head = String::from_utf8(head).unwrap();
            let mut answer = Self {
                status: head.split(' ').nth(1).unwrap().parse().unwrap(),
                head,
                body: String::new(),
            };
            let length = answer.header("content-length").unwrap_or("0");
            if has_body {
                let mut body = vec![0; length.parse().unwrap()];
                stream.read_exact(&mut body).await.unwrap();
                answer.body = String::from_utf8(body).unwrap();
            }
            answer
        };
        timeout(PATIENCE, reading)
            .await
            .expect("no answer came in time")
    }

    /// The value of a header that is there once at most.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.head.lines().filter_map(|line| {
            let (other, value) = line.split_once(':')?;
            other.eq_ignore_ascii_case(name).then_some(value.trim())
        });
        let value = values.next();
        assert!(values.next().is_none(), "{name} twice in {}", self.head);
        value
    }
}

/// Writes a request and its own end while reading, as a client does that has much to say. An error where the connection
/// was reset: closing with bytes unread does that, and the answer may be lost.
pub async fn converse(stream: TcpStream, request: &str) -> io::Result<String> {
    let (mut reader, mut writer) = stream.into_split();
    let mut answer = String::new();
    let conversing = async {
        let (written, read) = tokio::join!(
            async {
                writer.write_all(request.as_bytes()).await?;
                writer.shutdown().await
            },
            reader.read_to_string(&mut answer)
        );
        written.and(read)
    };
    timeout(PATIENCE, conversing)
        .await
        .expect("no answer came in time")?;
    Ok(answer)
}

/// Reads to the end of the connection, FIN or reset.
pub async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let reading = stream.read_to_end(&mut bytes);
    drop(
        timeout(PATIENCE, reading)
            .await
            .expect("the connection was kept"),
    );
    bytes
}
