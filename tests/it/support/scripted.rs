//! A web application that says what a test tells it to, byte by byte: for what no real one would do.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::PATIENCE;

pub struct Scripted {
    listener: TcpListener,
}

impl Scripted {
    pub async fn start() -> Self {
        Self::at("127.0.0.1:0").await
    }

    pub async fn at(address: &str) -> Self {
        Self {
            listener: TcpListener::bind(address).await.unwrap(),
        }
    }

    pub fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.authority())
    }

    pub fn authority(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    /// A gateway's route to it: `{path: /api, proxy: …}`.
    pub fn route(&self) -> String {
        format!("routes: [{{path: /api, proxy: \"{}\"}}]\n", self.url())
    }

    /// The same with more keys: `timeouts: {head: 1s}`.
    pub fn route_with(&self, more: &str) -> String {
        let url = self.url();
        format!("routes: [{{path: /api, proxy: {{to: \"{url}\", {more}}}}}]\n")
    }

    /// The next connection.
    pub async fn accept(&self) -> Connection {
        let accepting = timeout(PATIENCE, self.listener.accept());
        let (stream, _) = accepting.await.expect("nobody connects").unwrap();
        Connection { stream }
    }

    /// True when nobody has connected that was not accepted.
    pub async fn is_left_alone(&self) -> bool {
        timeout(Duration::from_millis(50), self.listener.accept())
            .await
            .is_err()
    }

    /// Accepts one connection, reads one request's head and answers; gives both.
    pub async fn answer(&self, answer: &str) -> (Connection, String) {
        let mut connection = self.accept().await;
        let head = connection.answer(answer).await;
        (connection, head)
    }
}

pub struct Connection {
    pub stream: TcpStream,
}

impl Connection {
    /// A request's head, and not a byte more.
    pub async fn head(&mut self) -> String {
        let reading = async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let byte = self.stream.read_u8().await;
                head.push(byte.unwrap_or_else(|error| {
                    panic!("{error} after {:?}", String::from_utf8_lossy(&head))
                }));
            }
            String::from_utf8(head).unwrap()
        };
        timeout(PATIENCE, reading).await.expect("no request came")
    }

    pub async fn read(&mut self, count: usize) -> String {
        let mut bytes = vec![0; count];
        timeout(PATIENCE, self.stream.read_exact(&mut bytes))
            .await
            .expect("no more came")
            .unwrap();
        String::from_utf8(bytes).unwrap()
    }

    pub async fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads a head, answers, and gives the head.
    pub async fn answer(&mut self, answer: &str) -> String {
        let head = self.head().await;
        self.say(answer).await;
        head
    }

    /// Waits until the gateway has closed it.
    pub async fn is_closed(&mut self) {
        let mut rest = Vec::new();
        let reading = timeout(PATIENCE, self.stream.read_to_end(&mut rest));
        drop(reading.await.expect("the gateway keeps the connection"));
    }

    /// Closes with a reset, as a process does that leaves bytes unread. What was said has left: loopback is that fast.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
}

/// An answer of this status with this body.
pub fn with_body(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
