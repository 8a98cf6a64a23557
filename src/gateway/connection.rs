//! One TCP connection: first byte → TLS → HTTP → perhaps a session. The table of contents of the data path.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::admission::Permit;
use super::first_bytes::{PLAIN_HTTP_ON_TLS, Spoken};
use super::outcome::{Phase, Reason, TlsCause};
use super::{Gateway, ListenerContext, Snapshot, http, session};
use crate::config::model::Speaks;
use crate::identity::Tls;
use crate::stream::{Stream, tune};
use crate::telemetry::metrics::{ByHandshake, ByListener, ByOutcome, ByTlsCause};

/// A connection as it was accepted.
#[derive(Debug)]
pub struct Arrival {
    /// The client: the TCP peer.
    pub peer: SocketAddr,
    /// What it connected to.
    pub local: SocketAddr,
    /// Known when the handshake is done; `None` without TLS.
    pub tls: Option<Tls>,
    pub began: Instant,
    pub listener: Arc<ListenerContext>,
    pub gateway: Arc<Gateway>,
    pub snapshot: Arc<Snapshot>,
    /// The thread that it lives on.
    pub worker: usize,
    pub permit: Permit,
}

/// Serves one connection to its end; a session goes on in a task of its own, so that what the handshake and HTTP needed
/// is given back.
pub async fn serve(stream: TcpStream, arrival: Arrival, handshake: Permit) {
    let gateway = Arc::clone(&arrival.gateway);
    let counted = Counted::new(&arrival);
    // CANCEL: a cut ends the connection where it stands; that is its meaning.
    let ended = tokio::select! {
        ended = Box::pin(talk(stream, arrival, handshake)) => ended,
        () = gateway.drain.cut() => Ok(None),
    };
    match ended {
        Ok(None) => {}
        Ok(Some(start)) => gateway.drain.spawn(session::run(start, counted)),
        Err((phase, reason)) => counted.record(phase, &reason),
    }
}

/// The connection's gauge, and the record of its end where no session has one.
#[derive(Debug)]
pub(super) struct Counted {
    peer: SocketAddr,
    listener: Arc<ListenerContext>,
    gateway: Arc<Gateway>,
}

impl Counted {
    fn new(arrival: &Arrival) -> Self {
        arrival.listener.connections.inc();
        Self {
            peer: arrival.peer,
            listener: Arc::clone(&arrival.listener),
            gateway: Arc::clone(&arrival.gateway),
        }
    }

    fn record(&self, phase: Phase, reason: &Reason) {
        let labels = ByOutcome {
            who: reason.who().name(),
            phase: phase.name(),
            why: reason.why(),
        };
        self.gateway.metrics.outcomes.get_or_create(&labels).inc();
        let (peer, listener) = (self.peer, &*self.listener.name);
        let (who, phase, why) = (labels.who, labels.phase, labels.why);
        if reason.is_told() {
            tracing::info!(%peer, listener, who, phase, why, "{reason}");
        } else {
            tracing::debug!(%peer, listener, who, phase, why, "{reason}");
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.listener.connections.dec();
        if std::thread::panicking() {
            self.gateway.metrics.panics.inc();
        }
    }
}

type End = (Phase, Reason);

/// To the end of HTTP; `Some` is what a session starts from.
async fn talk(
    tcp: TcpStream,
    mut arrival: Arrival,
    handshake: Permit,
) -> Result<Option<Box<session::Start>>, End> {
    // The options fail only on a connection that is already gone, which the next read tells.
    tune(&tcp).map_err(|error| (Phase::Tls, Reason::ClientIo(error)))?;
    let stream = match arrival.listener.speaks {
        Speaks::Tls => tls(tcp, &mut arrival).await?,
        Speaks::Plain | Speaks::PlainRedirect => plain(tcp, &arrival).await?,
    };
    http::serve(stream, arrival, handshake).await
}

/// Looks at the first byte without taking it. `None` when the deadline came first.
async fn first_byte(tcp: &TcpStream, deadline: Instant) -> Result<Option<Spoken>, Reason> {
    let mut byte = [0];
    match timeout_at(deadline, tcp.peek(&mut byte)).await {
        Ok(Ok(0)) => Err(Reason::Vanished),
        Ok(Ok(_)) => Ok(Some(Spoken::of(byte[0]))),
        Ok(Err(error)) => Err(Reason::ClientIo(error)),
        Err(_) => Ok(None),
    }
}

async fn plain(tcp: TcpStream, arrival: &Arrival) -> Result<Prefixed, End> {
    let deadline = arrival.began + arrival.snapshot.timeouts.request;
    let mistake = match first_byte(&tcp, deadline).await {
        Ok(Some(spoken)) => spoken.mistake_on_plain(),
        Ok(None) => Some(Reason::RequestTimeout),
        Err(reason) => Some(reason),
    };
    match mistake {
        Some(mistake) => Err((Phase::Http, mistake)),
        None => Ok(Prefixed::new(Stream::Plain(tcp))),
    }
}

async fn tls(mut tcp: TcpStream, arrival: &mut Arrival) -> Result<Prefixed, End> {
    let deadline = arrival.began + arrival.snapshot.timeouts.tls;
    let mistake = match first_byte(&tcp, deadline).await {
        Ok(Some(spoken)) => spoken.mistake_on_tls(),
        Ok(None) => Some(Reason::TlsTimeout),
        Err(reason) => Some(reason),
    };
    if let Some(mistake) = mistake {
        if matches!(mistake, Reason::PlainHttpOnTls) {
            answer_plain_http(&mut tcp).await;
        }
        return Err((Phase::Tls, mistake));
    }
    let Some(config) = &arrival.snapshot.tls else {
        let error = std::io::Error::other("no certificate in this configuration");
        return Err((Phase::Tls, failed(arrival, TlsCause::Other, error)));
    };
    let accepting = TlsAcceptor::from(Arc::clone(config)).accept(tcp);
    let stream = match timeout_at(deadline, accepting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err((Phase::Tls, failed(arrival, cause(&error), error))),
        Err(_) => return Err((Phase::Tls, Reason::TlsTimeout)),
    };
    let (_, session) = stream.get_ref();
    arrival.tls = Some(Tls::of(session));
    let metrics = &arrival.gateway.metrics;
    let labels = ByHandshake {
        listener: Arc::clone(&arrival.listener.name),
        version: match session.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "1.3",
            _ => "1.2",
        },
        resumed: match session.handshake_kind() {
            Some(rustls::HandshakeKind::Resumed) => "yes",
            _ => "no",
        },
    };
    metrics.tls_handshakes.get_or_create(&labels).inc();
    let by_listener = ByListener {
        listener: labels.listener,
    };
    let seconds = arrival.began.elapsed().as_secs_f64();
    metrics
        .tls_seconds
        .get_or_create(&by_listener)
        .observe(seconds);
    Prefixed::peeked(Stream::Tls(Box::new(TlsStream::from(stream))), arrival).await
}

fn failed(arrival: &Arrival, cause: TlsCause, error: std::io::Error) -> Reason {
    let labels = ByTlsCause {
        listener: Arc::clone(&arrival.listener.name),
        cause: cause.name(),
    };
    arrival
        .gateway
        .metrics
        .tls_failures
        .get_or_create(&labels)
        .inc();
    Reason::TlsFailed { cause, error }
}

fn cause(error: &std::io::Error) -> TlsCause {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::AlertReceived(_)) => TlsCause::Alert,
        Some(rustls::Error::PeerIncompatible(_)) => TlsCause::NothingInCommon,
        Some(rustls::Error::InvalidMessage(_) | rustls::Error::InappropriateMessage { .. }) => {
            TlsCause::Garbage
        }
        Some(_) => TlsCause::Other,
        None if error.kind() == std::io::ErrorKind::UnexpectedEof => TlsCause::Closed,
        None => TlsCause::Other,
    }
}

/// The request is read away first: closing with bytes unread would reset the connection, and the answer be lost.
async fn answer_plain_http(tcp: &mut TcpStream) {
    const PATIENCE: Duration = Duration::from_secs(1);
    let answering = async {
        let mut request = [0; 2048];
        let _read = tcp.read(&mut request).await?;
        tcp.write_all(PLAIN_HTTP_ON_TLS).await?;
        tcp.shutdown().await?;
        while tcp.read(&mut request).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    if let Ok(Err(error)) = timeout(PATIENCE, answering).await {
        tracing::debug!(%error, "the answer to plain HTTP on a TLS port was not taken");
    }
}

/// A stream with bytes that were read ahead.
#[derive(Debug)]
pub(super) struct Prefixed {
    prefix: Bytes,
    stream: Stream,
}

impl Prefixed {
    fn new(stream: Stream) -> Self {
        Self {
            prefix: Bytes::new(),
            stream,
        }
    }

    /// Reads the first bytes inside TLS ahead, to see whether they are HTTP at all.
    async fn peeked(mut stream: Stream, arrival: &Arrival) -> Result<Self, End> {
        let mut first = Vec::with_capacity(1024);
        let patience = arrival.snapshot.timeouts.request;
        match timeout(patience, stream.read_buf(&mut first)).await {
            Ok(Ok(0)) => return Err((Phase::Http, Reason::Vanished)),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err((Phase::Http, Reason::ClientIo(error))),
            Err(_) => return Err((Phase::Http, Reason::RequestTimeout)),
        }
        match Spoken::of(first[0]).mistake_inside_tls() {
            Some(mistake) => Err((Phase::Http, mistake)),
            None => Ok(Self {
                prefix: first.into(),
                stream,
            }),
        }
    }

    /// The stream, and what of the prefix was not read.
    pub(super) fn into_parts(self) -> (Stream, Bytes) {
        (self.stream, self.prefix)
    }
}

impl AsyncRead for Prefixed {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        if this.prefix.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buffer);
        }
        let count = this.prefix.len().min(buffer.remaining());
        buffer.put_slice(&this.prefix.split_to(count));
        if this.prefix.is_empty() {
            this.prefix = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
