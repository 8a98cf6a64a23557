//! HTTP/1.1 on one connection: an accepted upgrade ends HTTP and starts a session.

use std::convert::Infallible;
use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::connection::Arrival;
use super::http::{Answer, Becomes, Body, Requests};
use super::outcome::{Phase, Reason};
use super::prefixed::Prefixed;
use super::progress::Paced;
use super::{Gateway, application, session};
use crate::stream::Stream;

/// hyper's own floor for its read buffer.
const SMALLEST_HEAD: usize = 8 * 1024;

/// What the requests of the connection share.
#[derive(Debug)]
struct Serving {
    requests: Requests,
    /// The upgrade that was answered with 101.
    upgraded: Mutex<Option<Becomes>>,
}

impl Serving {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let version = request.version();
        let response = match self.requests.answer(request).await {
            Answer::Response(response) => response,
            Answer::Upgraded(response, upgraded) => {
                let mut becomes = self.upgraded.lock().unwrap_or_else(PoisonError::into_inner);
                *becomes = Some(upgraded.becomes);
                response
            }
        };
        self.requests.count(version, response.status());
        response
    }
}

/// What a connection becomes that leaves HTTP.
pub(super) enum Next {
    Session(Box<session::Start>),
    WebSocket(Box<application::Start>),
}

/// Serves requests until the connection ends or becomes something else.
pub(super) async fn serve(
    stream: Prefixed,
    arrival: Arrival,
) -> Result<Option<Next>, (Phase, Reason)> {
    let snapshot = Arc::clone(&arrival.snapshot);
    let gateway = Arc::clone(&arrival.gateway);
    let serving = Arc::new(Serving {
        requests: Requests::new(arrival),
        upgraded: Mutex::new(None),
    });
    let service = {
        let serving = Arc::clone(&serving);
        service_fn(move |request: Request<Incoming>| -> Answering {
            let serving = Arc::clone(&serving);
            Box::pin(async move { Ok(serving.answer(request).await) })
        })
    };
    let stream = Paced::new(stream, snapshot.timeouts.write);
    let mut connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(snapshot.timeouts.request)
        .max_buf_size(snapshot.limits.request_head.max(SMALLEST_HEAD))
        .serve_connection(TokioIo::new(stream), service);
    let mut over = pin!(snapshot.over.cancelled());
    let mut closing = pin!(gateway.drain.closing());
    let (mut is_closing, mut is_drained, mut asked_to_close) = (false, false, false);
    // The stream must be had back after the 101, so the connection is polled and not awaited.
    let served = poll_fn(|cx| {
        is_closing = is_closing || over.as_mut().poll(cx).is_ready();
        // Of a drain behind a reload: it waits for no first request.
        is_drained = is_drained || is_closing && closing.as_mut().poll(cx).is_ready();
        loop {
            // hyper would close a connection on which nothing has come yet: where nobody is to be refused, the first request
            // is still waited for.
            let may_close = gateway.drain.is_refusing() || serving.requests.has_begun();
            if is_closing && !asked_to_close && may_close {
                asked_to_close = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            let polled = connection.poll_without_shutdown(cx);
            let begun_now = is_closing && !asked_to_close && serving.requests.has_begun();
            if polled.is_ready() || !begun_now {
                return polled;
            }
        }
    })
    .await;
    let parts = connection.into_parts();
    drop(parts.service);
    let (mut stream, unread) = parts.io.into_inner().into_inner().into_parts();
    if let Err(error) = served {
        let reason = http_error(error);
        if matches!(reason, Reason::Http(_)) {
            // hyper has answered it.
            shut(&mut stream, &gateway).await;
        }
        return Err((Phase::Http, reason));
    }
    // HTTP is over and its futures are gone, so this is the only holder.
    let upgraded = Arc::into_inner(serving).and_then(|serving| {
        let upgraded = serving
            .upgraded
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        upgraded.map(|upgraded| (upgraded, serving.requests.arrival))
    });
    let Some((upgraded, arrival)) = upgraded else {
        shut(&mut stream, &gateway).await;
        return Ok(None);
    };
    let early = [&parts.read_buf[..], &unread[..]].concat();
    Ok(Some(match upgraded {
        Becomes::Session { pool, identity } => Next::Session(Box::new(session::Start {
            stream,
            early,
            pool,
            identity,
            arrival,
        })),
        Becomes::WebSocket(opened) => Next::WebSocket(Box::new(application::Start {
            client: stream,
            early,
            opened,
            arrival,
        })),
    }))
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

fn http_error(error: hyper::Error) -> Reason {
    if error.is_timeout() {
        Reason::RequestTimeout
    } else if is_stalled(&error) {
        Reason::ClientStalled
    } else if error.is_incomplete_message() {
        Reason::Vanished
    } else {
        Reason::Http(error)
    }
}

/// Of writing, by our clock or by the kernel's (`stream::tune`).
fn is_stalled(error: &hyper::Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref());
    source.is_some_and(|error: &io::Error| error.kind() == io::ErrorKind::TimedOut)
}

/// Says goodbye and reads away what the client still sends: closing with bytes unread would reset the connection, and the
/// answer be lost. A client that does not leave in time is left.
async fn shut(stream: &mut Stream, gateway: &Gateway) {
    const PATIENCE: Duration = Duration::from_secs(2);
    let leaving = async {
        stream.shutdown().await?;
        let mut rest = [0; 1024];
        // A drain does not wait for clients that have their answer.
        while !gateway.drain.is_closing() && stream.read(&mut rest).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    if let Ok(Err(error)) = timeout(PATIENCE, leaving).await {
        tracing::debug!(%error, "the client was gone before its connection was closed");
    }
}
