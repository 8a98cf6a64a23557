//! One TCP connection: PROXY header → first byte → TLS → HTTP → perhaps a session. The table of contents of the data path.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::CommonState;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::admission::Permit;
use super::first_bytes::{Beginning, PLAIN_HTTP_ON_TLS, beginning};
use super::handshake::{failed, handshake, turn_away};
use super::outcome::{Phase, Reason, TlsCause};
use super::prefixed::Prefixed;
use super::proxy_header::HeaderError;
use super::turns::Turns;
use super::{
    Gateway, ListenerContext, ListenerRules, Snapshot, application, http1, http2, proxy_header,
    session,
};
use crate::certificates::{has_ended, holder};
use crate::config::model::Speaks;
use crate::identity::{Tls, UniqueId};
use crate::stream::{Stream, read_away, reset_at_close};
use crate::telemetry::Ending;
use crate::telemetry::metrics::{ByHandshake, ByListener, ByOutcome};

/// A connection as it was accepted.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The client: the TCP peer, or whom its PROXY header names.
    pub peer: SocketAddr,
    pub tcp_peer: SocketAddr,
    /// What it connected to.
    pub local: SocketAddr,
    /// Known when the handshake is done, or from the PROXY header of a proxy that ended TLS; `None` without TLS.
    pub tls: Option<Tls>,
    /// From a PROXY header.
    pub unique_id: Option<UniqueId>,
    /// The end of our TLS handshake.
    pub secured: Option<Instant>,
    pub began: Instant,
    pub listener: Arc<ListenerContext>,
    pub gateway: Arc<Gateway>,
    pub snapshot: Arc<Snapshot>,
    /// The thread that it lives on.
    pub worker: usize,
}

/// Serves one connection to its end; a session goes on in a task of its own, so that what the handshake and HTTP needed
/// is given back.
pub async fn serve(stream: TcpStream, arrival: Arrival, permit: Permit, turns: Arc<Turns>) {
    let gateway = Arc::clone(&arrival.gateway);
    let mut counted = Counted::new(&arrival, permit);
    // CANCEL: a cut ends the connection where it stands; that is its meaning.
    let ended = tokio::select! {
        ended = Box::pin(talk(stream, arrival, &turns, &mut counted)) => ended,
        () = gateway.drain.cut() => Ok(Next::End),
    };
    match ended {
        Ok(Next::End) => {}
        Ok(Next::Http1(http1::Next::Session(start))) => {
            gateway.drain.spawn(session::run(start, counted));
        }
        Ok(Next::Http1(http1::Next::WebSocket(start))) => {
            gateway.drain.spawn(application::run(start, counted));
        }
        Ok(Next::Http2(start)) => gateway.drain.spawn(http2::run(start, counted)),
        Err((phase, reason)) => counted.record(phase, &reason),
    }
}

/// What a connection becomes when its handshake, and HTTP/1.1, are over.
enum Next {
    End,
    Http1(http1::Next),
    Http2(Box<http2::Start>),
}

/// The connection's gauge and its place under the limit, to the end of the goodbye; and the record of its end where no
/// session has one.
#[derive(Debug)]
pub(super) struct Counted {
    peer: SocketAddr,
    began: Instant,
    listener: Arc<ListenerContext>,
    gateway: Arc<Gateway>,
    _permit: Permit,
    _panics: PanicsCounted,
}

/// A panic of the task that holds it is counted.
#[derive(Debug)]
pub(super) struct PanicsCounted(pub(super) Arc<Gateway>);

impl Drop for PanicsCounted {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.metrics.panics.inc();
        }
    }
}

impl Counted {
    fn new(arrival: &Arrival, permit: Permit) -> Self {
        arrival.listener.connections.inc();
        Self {
            peer: arrival.peer,
            began: arrival.began,
            listener: Arc::clone(&arrival.listener),
            gateway: Arc::clone(&arrival.gateway),
            _permit: permit,
            _panics: PanicsCounted(Arc::clone(&arrival.gateway)),
        }
    }

    pub(super) fn record(&self, phase: Phase, reason: &Reason) {
        let Self {
            gateway, listener, ..
        } = self;
        record(gateway, listener, self.peer, self.began, phase, reason);
    }
}

/// The end of what never became a session.
fn record(
    gateway: &Gateway,
    listener: &ListenerContext,
    peer: SocketAddr,
    began: Instant,
    phase: Phase,
    reason: &Reason,
) {
    let labels = ByOutcome {
        who: reason.who().name(),
        phase: phase.name(),
        why: reason.why(),
    };
    gateway.metrics.outcomes.get_or_create(&labels).inc();
    gateway.metrics.endings.add(Ending {
        number: 0,
        at: SystemTime::now(),
        notice: reason.notice(),
        who: labels.who,
        phase: labels.phase,
        why: labels.why,
        text: reason.to_string(),
        client: peer,
        client_id: String::new(),
        user_name: String::new(),
        listener: Arc::clone(&listener.name),
        pool: None,
        broker: None,
        seconds: began.elapsed().as_secs_f64(),
    });
    let listener = &*listener.name;
    let (who, phase, why) = (labels.who, labels.phase, labels.why);
    if reason.is_told() {
        tracing::info!(%peer, listener, who, phase, why, "{reason}");
    } else {
        tracing::debug!(%peer, listener, who, phase, why, "{reason}");
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.listener.connections.dec();
    }
}

impl Arrival {
    /// What the configuration that it came under says of its listener.
    fn rules(&self) -> Option<&ListenerRules> {
        self.snapshot.listeners.get(self.listener.index)
    }

    /// The end of one request of several.
    pub(super) fn record(&self, phase: Phase, reason: &Reason) {
        let Self {
            gateway, listener, ..
        } = self;
        record(gateway, listener, self.peer, self.began, phase, reason);
    }
}

pub(super) type End = (Phase, Reason);

/// To the end of HTTP/1.1, or to the beginning of HTTP/2.
async fn talk(
    mut tcp: TcpStream,
    mut arrival: Arrival,
    turns: &Arc<Turns>,
    counted: &mut Counted,
) -> Result<Next, End> {
    let deadline = arrival.began + arrival.snapshot.timeouts.tls;
    if must_begin_with_proxy_header(&arrival) {
        let told = proxy_header::read(&mut tcp, deadline).await;
        let told = told.map_err(|reason| (Phase::ProxyHeader, reason))?;
        if let Some((client, local)) = told.addresses {
            (arrival.peer, arrival.local) = (client, local);
            counted.peer = client;
        }
        arrival.tls = told.tls;
        arrival.unique_id = told.unique_id;
    }
    let stream = match arrival.listener.speaks {
        Speaks::Tls => secure(tcp, &mut arrival, turns, deadline).await?,
        Speaks::Plain | Speaks::PlainRedirect => Some(plain(tcp, &arrival).await?),
    };
    let Some(stream) = stream else {
        return Ok(Next::End);
    };
    if stream.speaks_http2() {
        return Ok(Next::Http2(Box::new(http2::Start { stream, arrival })));
    }
    let next = http1::serve(stream, arrival).await?;
    Ok(next.map_or(Next::End, Next::Http1))
}

fn must_begin_with_proxy_header(arrival: &Arrival) -> bool {
    let trusted = arrival
        .rules()
        .and_then(|rules| rules.proxy_protocol.as_ref());
    trusted.is_some_and(|trusted| trusted.contains(arrival.tcp_peer.ip()))
}

/// SECURITY: a header that was not asked for is never believed, and never taken for a broken request either: whoever set
/// the load balancer up must learn what is missing here.
fn uninvited_header(arrival: &Arrival) -> HeaderError {
    let expects = arrival
        .rules()
        .is_some_and(|rules| rules.proxy_protocol.is_some());
    match expects {
        true if must_begin_with_proxy_header(arrival) => HeaderError::Second,
        true => HeaderError::Untrusted,
        false => HeaderError::Unexpected,
    }
}

async fn plain(mut tcp: TcpStream, arrival: &Arrival) -> Result<Prefixed, End> {
    let request = arrival.began + arrival.snapshot.timeouts.request;
    let beginning = beginning(&mut tcp, uninvited_header(arrival), request).await;
    let Beginning { spoken, taken } =
        beginning.map_err(|(phase, reason)| match (phase, reason) {
            (Phase::Tls, Reason::TlsTimeout) => (Phase::Http, Reason::RequestTimeout),
            (Phase::Tls, reason) => (Phase::Http, reason),
            end => end,
        })?;
    match spoken.mistake_on_plain() {
        Some(mistake) => {
            reset_at_close(&tcp);
            Err((Phase::Http, mistake))
        }
        None => Ok(Prefixed::new(Stream::Plain(tcp), taken)),
    }
}

/// To the first bytes inside TLS. `None` for a client that there is no room or no time for: it is turned away without a word,
/// which costs nothing.
async fn secure(
    mut tcp: TcpStream,
    arrival: &mut Arrival,
    turns: &Arc<Turns>,
    deadline: Instant,
) -> Result<Option<Prefixed>, End> {
    let Beginning { spoken, taken } =
        beginning(&mut tcp, uninvited_header(arrival), deadline).await?;
    if let Some(mistake) = spoken.mistake_on_tls() {
        match mistake {
            Reason::PlainHttpOnTls => answer_plain_http(&mut tcp).await,
            _ => reset_at_close(&tcp),
        }
        return Err((Phase::Tls, mistake));
    }
    let Some(config) = arrival.rules().and_then(|rules| rules.tls.clone()) else {
        reset_at_close(&tcp);
        let error = std::io::Error::other("no certificate in this configuration");
        return Err((Phase::Tls, failed(arrival, TlsCause::Other, error)));
    };
    // A place for what has begun to speak, until it is done: who is silent takes no room in a handshake.
    let most = arrival.snapshot.limits.handshakes.get();
    let Some(place) = arrival.gateway.admission.handshake(most) else {
        turn_away(&tcp, arrival, "handshakes");
        return Ok(None);
    };
    let secured = handshake(tcp, taken, arrival, config, turns, deadline).await?;
    let Some((stream, server_name)) = secured else {
        return Ok(None);
    };
    drop(place);
    if resumes_too_late(stream.agreed()) {
        let error = std::io::Error::other("its certificate has ended since it was verified");
        return Err((
            Phase::Tls,
            failed(arrival, TlsCause::ClientCertificate, error),
        ));
    }
    arrival.tls = Some(how(stream.agreed(), server_name, arrival.tls.take()));
    arrival.secured = Some(Instant::now());
    count(arrival, stream.agreed());
    let patience = arrival.snapshot.timeouts.request;
    Prefixed::peeked(Stream::Tls(stream), patience)
        .await
        .map(Some)
}

/// SECURITY: a ticket carries the certificate that was verified, and each resumption is given a new ticket: without this
/// look a client could go on for ever with a certificate that has ended.
fn resumes_too_late(agreed: &CommonState) -> bool {
    let is_resumed = agreed.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
    let certificate = agreed.peer_certificates().and_then(<[_]>::first);
    is_resumed && certificate.is_some_and(|certificate| has_ended(certificate))
}

/// How the client came; `told` by a proxy that ended the client's TLS and began its own, which knows what ours does not show.
fn how(agreed: &CommonState, server_name: Option<String>, told: Option<Tls>) -> Tls {
    let certificate = agreed.peer_certificates().and_then(<[_]>::first);
    let mut tls = Tls::of(
        agreed,
        server_name,
        certificate.and_then(|certificate| holder(certificate)),
    );
    if let Some(told) = told {
        // SECURITY: the handshake that we saw was the proxy's own. Its certificate must not become every client's.
        tls.server_name = told.server_name.or(tls.server_name);
        tls.certificate = told.certificate;
    }
    tls
}

/// A finished handshake.
fn count(arrival: &Arrival, agreed: &CommonState) {
    let metrics = &arrival.gateway.metrics;
    let labels = ByHandshake {
        listener: Arc::clone(&arrival.listener.name),
        version: match agreed.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "1.3",
            _ => "1.2",
        },
        resumed: match agreed.handshake_kind() {
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
}

/// What there is more of the request is read away, so that the answer arrives.
async fn answer_plain_http(tcp: &mut TcpStream) {
    const PATIENCE: Duration = Duration::from_secs(1);
    let answering = async {
        tcp.write_all(PLAIN_HTTP_ON_TLS).await?;
        tcp.shutdown().await?;
        read_away(tcp).await
    };
    if let Ok(Err(error)) = timeout(PATIENCE, answering).await {
        tracing::debug!(%error, "the answer to plain HTTP on a TLS port was not taken");
    }
}
