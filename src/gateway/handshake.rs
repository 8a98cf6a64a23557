//! The TLS handshake of one client: its hello, its turn among the others of the worker, and what it fails of.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustls::PeerIncompatible;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::connection::{Arrival, End};
use super::outcome::{Phase, Reason, TlsCause};
use super::turns::{Turn, Turns};
use crate::certificates::{ClientTls, naming_refused};
use crate::stream::{read_away, reset_at_close};
use crate::telemetry::metrics::{ByListener, ByTlsCause};
use crate::tls::{self, Hello, ServerName, TlsStream};

pub(super) type Secured = (Box<TlsStream>, Option<ServerName>);

/// From the hello to the end of the handshake; `None` where its turn came too late, and where a CA came to see a proof.
pub(super) async fn handshake(
    mut tcp: TcpStream,
    begun: Vec<u8>,
    arrival: &Arrival,
    config: ClientTls,
    turns: &Arc<Turns>,
    deadline: Instant,
) -> Result<Option<Secured>, End> {
    let late = |_elapsed| (Phase::Tls, Reason::TlsTimeout);
    let hello = timeout_at(deadline, Hello::read(&mut tcp, begun)).await;
    let hello = hello
        .map_err(late)?
        .map_err(|error| (Phase::Tls, failed(arrival, cause(&error), error)))?;
    let Some(turn) = turn(&tcp, arrival, turns).await? else {
        return Ok(None);
    };
    let pending = arrival.gateway.challenges.pending();
    let proof = pending.filter(|pending| {
        hello
            .asked()
            .is_some_and(|asked| pending.is_asked_by(&asked))
    });
    let config = match &proof {
        Some(proof) => Arc::clone(&proof.tls),
        None => Arc::clone(config.for_one_that_says(&hello)),
    };
    let mut accepting = pin!(naming_refused(tls::accept(config, hello, tcp)));
    // Here is most of the work; with the first answer on its way the next one may begin.
    let answered = poll_fn(|cx| Poll::Ready(accepting.as_mut().poll(cx))).await;
    drop(turn);
    let accepted = match answered {
        Poll::Ready(accepted) => accepted,
        Poll::Pending => match timeout_at(deadline, accepting).await {
            Err(_) if proof.is_some() => return Ok(None),
            accepted => accepted.map_err(late)?,
        },
    };
    let (ended, refused) = accepted;
    if proof.is_some() {
        part_from_ca(ended.map_err(|(error, _)| error), arrival, deadline).await;
        return Ok(None);
    }
    let (error, mut tcp) = match ended {
        Ok(secured) => return Ok(Some(secured)),
        Err(failed) => failed,
    };
    let cause = cause(&error);
    if matches!(cause, TlsCause::ClientCertificate | TlsCause::NoCertificate) {
        // The alert says what is wrong, and a reset could overtake it.
        let_read(&mut tcp).await;
    }
    let more = match (cause, refused) {
        (_, Some(subject)) => Some(subject),
        (TlsCause::Policy, None) => Some("`tls.policy: compatible` would serve it".to_owned()),
        (_, None) => None,
    };
    let error = match more {
        Some(more) => std::io::Error::other(format!("{error} ({more})")),
        None => error,
    };
    Err((Phase::Tls, failed(arrival, cause, error)))
}

/// Behind a handshake with a proof there is nothing: no HTTP, and no client's end in logs and metrics.
async fn part_from_ca(ended: std::io::Result<Secured>, arrival: &Arrival, deadline: Instant) {
    let peer = arrival.peer;
    match ended {
        Ok((mut stream, name)) => {
            tracing::info!(%peer, name, "a CA was shown that the name leads here");
            if let Ok(Err(error)) = timeout_at(deadline, stream.shutdown()).await {
                tracing::debug!(%peer, %error, "the CA did not wait for the end");
            }
        }
        Err(error) => {
            tracing::info!(%peer, %error, "a CA broke off before it saw that the name leads here");
        }
    }
}

/// A client that waited for less is not asked whether it is still there: the question costs a call.
const WORTH_A_LOOK: Duration = Duration::from_millis(10);

/// Waits for a turn among the handshakes of this worker. `None` where the wait was too long.
async fn turn(tcp: &TcpStream, arrival: &Arrival, turns: &Arc<Turns>) -> Result<Option<Turn>, End> {
    let asked = Instant::now();
    let turn = turns.next(arrival.snapshot.limits.handshake_age).await;
    let labels = ByListener {
        listener: Arc::clone(&arrival.listener.name),
    };
    let waits = &arrival.gateway.metrics.tls_wait_seconds;
    let waited = asked.elapsed();
    waits.get_or_create(&labels).observe(waited.as_secs_f64());
    if turn.is_none() {
        turn_away(tcp, arrival, "handshake_age");
        return Ok(None);
    }
    if waited < WORTH_A_LOOK {
        return Ok(turn);
    }
    // Behind its hello a client waits for our answer: that nothing comes any more means that it has left.
    match SockRef::from(tcp).peek(&mut [MaybeUninit::uninit()]) {
        Ok(0) => Err((Phase::Tls, Reason::Vanished)),
        Ok(_) | Err(_) => Ok(turn),
    }
}

/// Without a word.
pub(super) fn turn_away(tcp: &TcpStream, arrival: &Arrival, reason: &'static str) {
    arrival.gateway.count_refusal(reason);
    reset_at_close(tcp);
}

pub(super) fn failed(arrival: &Arrival, cause: TlsCause, error: std::io::Error) -> Reason {
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
    if error
        .get_ref()
        .is_some_and(|inner| inner.is::<tls::NoCertificate>())
    {
        return TlsCause::NoCertificate;
    }
    match inner {
        Some(rustls::Error::AlertReceived(_)) => TlsCause::Alert,
        Some(rustls::Error::PeerIncompatible(
            PeerIncompatible::ExtendedMasterSecretExtensionRequired,
        )) => TlsCause::Policy,
        Some(rustls::Error::PeerIncompatible(_)) => TlsCause::NothingInCommon,
        Some(
            rustls::Error::InvalidCertificate(_)
            | rustls::Error::InvalidCertRevocationList(_)
            | rustls::Error::NoCertificatesPresented,
        ) => TlsCause::ClientCertificate,
        Some(rustls::Error::InvalidMessage(_) | rustls::Error::InappropriateMessage { .. }) => {
            TlsCause::Garbage
        }
        Some(_) => TlsCause::Other,
        None if error.kind() == std::io::ErrorKind::UnexpectedEof => TlsCause::Closed,
        None => TlsCause::Other,
    }
}

/// Closes, and takes what still comes for a while.
async fn let_read(tcp: &mut TcpStream) {
    const PATIENCE: Duration = Duration::from_secs(1);
    let closing = async {
        tcp.shutdown().await?;
        read_away(tcp).await
    };
    if let Ok(Err(error)) = timeout(PATIENCE, closing).await {
        tracing::debug!(%error, "the client left before it was told why");
    }
}
