//! A client that speaks HTTP/2: requests, WebSockets (RFC 8441) of one connection, and frames by hand for what no library
//! would send.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{Method, Request, Response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tungstenite::protocol::Role;

use super::client::{ClientOver, tls_offering};
use super::gateway::Gateway;
use super::raw_http::Answer;
use super::{PATIENCE, eventually};

/// One stream's window, and that of the connection: room for a stream that is not read beside many that are.
const STREAM_WINDOW: u32 = 65_535;
const CONNECTION_WINDOW: u32 = 64 << 20;

/// A connection.
pub struct Http2 {
    requests: SendRequest<Bytes>,
    port: u16,
}

impl Http2 {
    /// Over TLS that agreed on it.
    pub async fn connect(gateway: &Gateway) -> Self {
        Self::over(tls_offering(gateway, &[b"h2"]).await).await
    }

    pub async fn over(stream: TlsStream<TcpStream>) -> Self {
        let (tcp, tls) = stream.get_ref();
        assert_eq!(tls.alpn_protocol(), Some(&b"h2"[..]));
        let port = tcp.peer_addr().unwrap().port();
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        let (requests, connection) = builder.handshake(stream).await.unwrap();
        detach(async move {
            // How it ends is told by its streams.
            drop(connection.await);
        });
        // Its settings say whether WebSockets may be asked for.
        assert!(
            eventually(async || requests.is_extended_connect_protocol_enabled()).await,
            "the gateway does not speak RFC 8441"
        );
        Self { requests, port }
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    /// A right request for a WebSocket that offers no subprotocol.
    pub fn upgrade(&self, path: &str) -> http::request::Builder {
        Request::builder()
            .method(Method::CONNECT)
            .uri(self.url(path))
            .extension(Protocol::from_static("websocket"))
            .header("sec-websocket-version", "13")
    }

    pub fn get(&self, path: &str) -> http::request::Builder {
        Request::builder().uri(self.url(path))
    }

    /// Sends a request and waits for the head of its answer.
    pub async fn send(
        &mut self,
        request: http::request::Builder,
        is_whole: bool,
    ) -> Result<(Response<RecvStream>, SendStream<Bytes>), h2::Error> {
        let answering = async {
            let requests = self.requests.clone().ready().await?;
            self.requests = requests;
            let request = request.body(()).unwrap();
            let (answer, outgoing) = self.requests.send_request(request, is_whole)?;
            Ok((answer.await?, outgoing))
        };
        timeout(PATIENCE, answering)
            .await
            .expect("no answer came in time")
    }

    /// Sends the head of a request; its answer may be waited for while the body is sent.
    pub async fn begin(
        &mut self,
        request: http::request::Builder,
    ) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        let mut requests = self.requests.clone().ready().await.unwrap();
        let begun = requests.send_request(request.body(()).unwrap(), false);
        self.requests = requests;
        begun.unwrap()
    }

    /// Sends a request without a body and reads the answer.
    pub async fn ask(&mut self, request: http::request::Builder) -> Answer {
        self.asked(request, true).await
    }

    /// The same with a request that does not end, as one for a WebSocket.
    pub async fn ask_open(&mut self, request: http::request::Builder) -> Answer {
        self.asked(request, false).await
    }

    async fn asked(&mut self, request: http::request::Builder, is_whole: bool) -> Answer {
        let (response, _outgoing) = self.send(request, is_whole).await.unwrap();
        let (head, mut incoming) = response.into_parts();
        let mut body = Vec::new();
        while let Some(bytes) = timeout(PATIENCE, incoming.data()).await.unwrap() {
            let bytes = bytes.unwrap();
            body.extend_from_slice(&bytes);
            let flow = incoming.flow_control();
            flow.release_capacity(bytes.len()).unwrap();
        }
        let headers = head.headers.iter();
        let headers =
            headers.map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()));
        Answer {
            status: head.status.as_u16(),
            head: headers.collect(),
            body: String::from_utf8(body).unwrap(),
        }
    }

    /// Asks for the same so many times before the first answer is read; their statuses.
    pub async fn get_at_once(&mut self, path: &str, times: usize) -> Vec<u16> {
        let mut answers = Vec::new();
        for _ in 0..times {
            let requests = self.requests.clone().ready().await.unwrap();
            self.requests = requests;
            let request = self.get(path).body(()).unwrap();
            answers.push(self.requests.send_request(request, true).unwrap().0);
        }
        let mut statuses = Vec::new();
        for answer in answers {
            let answer = timeout(PATIENCE, answer).await.unwrap().unwrap();
            statuses.push(answer.status().as_u16());
            let mut incoming = answer.into_body();
            while let Some(bytes) = timeout(PATIENCE, incoming.data()).await.unwrap() {
                let flow = incoming.flow_control();
                flow.release_capacity(bytes.unwrap().len()).unwrap();
            }
        }
        statuses
    }

    /// A WebSocket on a stream of its own; panics unless it is accepted.
    pub async fn web_socket(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> WebSocketStream<Http2Stream> {
        let mut request = self.upgrade(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (response, outgoing) = self.send(request, false).await.unwrap();
        assert_eq!(response.status(), 200);
        let stream = Http2Stream::new(response.into_body(), outgoing);
        WebSocketStream::from_raw_socket(stream, Role::Client, None).await
    }

    /// A client of this connection, not yet connected.
    pub async fn client(&mut self) -> ClientOver<Http2Stream> {
        let headers = [("sec-websocket-protocol", "mqtt")];
        ClientOver {
            socket: Box::pin(self.web_socket("/mqtt", &headers)).await,
        }
    }
}

/// A stream as bytes both ways. Dropped, it ends its side as a TCP connection does.
pub struct Http2Stream {
    bytes: DuplexStream,
    reset: Option<oneshot::Sender<()>>,
}

impl Http2Stream {
    fn new(incoming: RecvStream, outgoing: SendStream<Bytes>) -> Self {
        // The windows bound what waits; this only hands over.
        let (bytes, inner) = tokio::io::duplex(4096);
        let (reset, is_reset) = oneshot::channel();
        detach(pump(incoming, outgoing, inner, is_reset));
        Self {
            bytes,
            reset: Some(reset),
        }
    }

    /// RST_STREAM.
    pub fn reset(mut self) {
        self.reset.take().unwrap().send(()).unwrap();
    }
}

async fn pump(
    mut incoming: RecvStream,
    mut outgoing: SendStream<Bytes>,
    bytes: DuplexStream,
    is_reset: oneshot::Receiver<()>,
) {
    let (mut from_test, mut to_test) = tokio::io::split(bytes);
    let up = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = from_test.read(&mut buffer).await {
            let mut data = Bytes::copy_from_slice(&buffer[..count]);
            while !data.is_empty() {
                outgoing.reserve_capacity(data.len());
                while outgoing.capacity() == 0 {
                    match std::future::poll_fn(|cx| outgoing.poll_capacity(cx)).await {
                        Some(Ok(_)) => {}
                        Some(Err(_)) | None => return,
                    }
                }
                let piece = data.split_to(outgoing.capacity().min(data.len()));
                if outgoing.send_data(piece, false).is_err() {
                    return;
                }
            }
        }
        let _ended = outgoing.send_data(Bytes::new(), true);
    };
    let down = async {
        let mut is_heard = true;
        while let Some(Ok(bytes)) = incoming.data().await {
            is_heard = is_heard && to_test.write_all(&bytes).await.is_ok();
            drop(incoming.flow_control().release_capacity(bytes.len()));
        }
        drop(to_test.shutdown().await);
    };
    let both = async { tokio::join!(up, down) };
    tokio::select! {
        _ = both => return,
        Ok(()) = is_reset => {}
    }
    outgoing.send_reset(h2::Reason::CANCEL);
}

#[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
fn detach(task: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(task));
}

impl AsyncRead for Http2Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().bytes).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Http2Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().bytes).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().bytes).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().bytes).poll_shutdown(cx)
    }
}
