//! The operator's listener: probes and metrics, on the control thread, so that it answers while the data path is busy.

pub mod commands;
mod health;

pub use commands::Commands;
pub use health::Health;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Connections at once: a scraper, the probes, a person.
const CONNECTIONS: usize = 64;

/// For a request, and between two.
const PATIENCE: Duration = Duration::from_secs(30);

/// For the answers in hand at the end.
const FAREWELL: Duration = Duration::from_secs(2);

const OPENMETRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

const INDEX: &str = "Tidegate\n\
/livez     200 while the process works\n\
/readyz    200 when it takes new clients; 503 with what is pending\n\
/startupz  200 once it has started\n\
/metrics   Prometheus metrics (OpenMetrics text)\n\
/drain     how far a drain is; POST begins one (rate=N, wait=TIME)\n\
/reload    POST: reads the configuration and its files again\n\
/upgrade   POST: starts a new process, which takes over\n\
POST is taken from this machine only.\n";

/// Answers until `closing`; then finishes the answers in hand, which others may wait for.
pub async fn serve(
    listener: std::net::TcpListener,
    health: Arc<Health>,
    commands: Commands,
    closing: CancellationToken,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the admin listener cannot be used");
            return;
        }
    };
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        // CANCEL: `accept` and `join_next` lose nothing, `cancelled` only waits.
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = closing.cancelled() => break,
        };
        let (Ok((stream, peer)), Ok(place)) = (accepted, Arc::clone(&places).try_acquire_owned())
        else {
            // Full, or out of file descriptors: a moment, and not a busy loop.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (health, commands) = (Arc::clone(&health), commands.clone());
        let closing = closing.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let (health, commands) = (Arc::clone(&health), commands.clone());
                async move { Ok::<_, Infallible>(answer(&request, peer, &health, &commands).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), service);
            let mut connection = pin!(connection);
            // CANCEL: the connection is polled on, `cancelled` only waits.
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = closing.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "an admin connection broke");
            }
            drop(place);
        });
    }
    drop(listener);
    let answered = async { while connections.join_next().await.is_some() {} };
    if timeout(FAREWELL, answered).await.is_err() {
        tracing::debug!("admin connections were left unanswered");
    }
}

async fn answer(
    request: &Request<Incoming>,
    peer: SocketAddr,
    health: &Health,
    commands: &Commands,
) -> Response<Full<Bytes>> {
    let (path, query) = (request.uri().path(), request.uri().query());
    if request.method() == Method::POST {
        let query = query.unwrap_or_default();
        let answered = commands.answer(path, query, request.headers(), peer).await;
        if let Some((status, body)) = answered {
            return text(status, body);
        }
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD.\n");
        response
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    if let Some(state) = commands.look(path) {
        return text(StatusCode::OK, state);
    }
    match path {
        "/" => text(StatusCode::OK, INDEX),
        "/livez" | "/healthz" => probe(health.live()),
        "/readyz" => probe(health.ready()),
        "/startupz" => probe(health.started()),
        "/metrics" => match health.metrics() {
            Ok(metrics) => {
                let mut response = text(StatusCode::OK, metrics);
                response
                    .headers_mut()
                    .insert(header::CONTENT_TYPE, OPENMETRICS);
                response
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        _ => text(StatusCode::NOT_FOUND, INDEX),
    }
}

fn probe(pending: Vec<String>) -> Response<Full<Bytes>> {
    if pending.is_empty() {
        text(StatusCode::OK, "ok\n")
    } else {
        text(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {}\n", pending.join(", ")),
        )
    }
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, TEXT);
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
