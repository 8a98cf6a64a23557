//! The operator's listener: probes, metrics and the status page, on the control thread, so that it answers while the data
//! path is busy.

pub mod commands;
mod door;
mod health;
mod history;
mod page;
pub mod report;
mod shown;
mod status;

pub use commands::Commands;
pub use health::Health;
pub use status::{Listener, Status};

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
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::telemetry::plain;

/// Connections at once: a scraper, the probes, a person.
const CONNECTIONS: usize = 64;

/// For a request, and between two.
const PATIENCE: Duration = Duration::from_secs(30);

/// For the answers in hand at the end.
const FAREWELL: Duration = Duration::from_secs(2);

const OPENMETRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const PLAIN_METRICS: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

const INDEX: &str = "Tidegate\n\
/             the status page, also at /status\n\
/status.json  the same for programs\n\
/livez        200 while the process works\n\
/readyz       200 when it takes new clients; 503 with what is pending\n\
/startupz     200 once it has started\n\
/metrics      Prometheus metrics\n\
/drain        how far a drain is; POST begins one (rate=N, wait=TIME)\n\
/reload       POST: reads the configuration and its files again\n\
/upgrade      POST: starts a new process, which takes over\n\
POST is taken from this machine only.\n";

/// Answers until `closing`; then finishes the answers in hand, which others may wait for.
pub async fn serve(
    listener: std::net::TcpListener,
    status: Arc<Status>,
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
    let mut second = interval(history::INTERVAL);
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // CANCEL: `accept`, `join_next` and `tick` lose nothing, `cancelled` only waits.
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            _ = second.tick() => {
                status.look();
                continue;
            }
            () = closing.cancelled() => break,
        };
        let (Ok((stream, peer)), Ok(place)) = (accepted, Arc::clone(&places).try_acquire_owned())
        else {
            // Full, or out of file descriptors: a moment, and not a busy loop.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (status, commands) = (Arc::clone(&status), commands.clone());
        let closing = closing.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let (status, commands) = (Arc::clone(&status), commands.clone());
                async move { Ok::<_, Infallible>(answer(&request, peer, &status, &commands).await) }
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
    status: &Status,
    commands: &Commands,
) -> Response<Full<Bytes>> {
    let (path, query) = (request.uri().path(), request.uri().query());
    let health = &status.health;
    // Probes come by whatever name, and their answers are nobody's secret.
    match path {
        "/livez" | "/healthz" => return probe(health.live()),
        "/readyz" => return probe(health.ready()),
        "/startupz" => return probe(health.started()),
        _ => {}
    }
    if let Err(refusal) = door::check(request.headers(), &status.hosts()) {
        return text(StatusCode::FORBIDDEN, refusal.sentence());
    }
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
        "/" | "/status" => status_page(),
        "/status.json" => status_json(request, status),
        "/metrics" => match status.metrics() {
            Ok(metrics) if wants_plain(request) => typed(plain(&metrics), PLAIN_METRICS),
            Ok(metrics) => typed(metrics, OPENMETRICS),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        _ => text(StatusCode::NOT_FOUND, INDEX),
    }
}

/// Prometheus asks for OpenMetrics first and takes plain text too; who knows only text, or is a browser, says so.
fn wants_plain(request: &Request<Incoming>) -> bool {
    let accept = request.headers().get(header::ACCEPT);
    let accept = accept.and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| {
        accept.contains("text/") && !accept.contains("application/openmetrics-text")
    })
}

fn status_page() -> Response<Full<Bytes>> {
    let mut response = typed(page::PAGE, HTML);
    let headers = response.headers_mut();
    if let Some(policy) = page::POLICY.as_ref() {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy.clone());
    }
    let sameorigin = HeaderValue::from_static("same-origin");
    headers.insert("cross-origin-opener-policy", sameorigin);
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    response
}

fn status_json(request: &Request<Incoming>, status: &Status) -> Response<Full<Bytes>> {
    let query = request.uri().query().unwrap_or_default();
    let after = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("after="));
    let after = after.and_then(|number| number.parse().ok()).unwrap_or(0);
    match serde_json::to_string(&status.report(after)) {
        Ok(json) => typed(json + "\n", JSON),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
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
    let mut response = typed(text, TEXT);
    *response.status_mut() = status;
    response
}

fn typed(body: impl Into<Bytes>, content_type: HeaderValue) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // SECURITY: another site's page must not read it, not even as what it is not.
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    let same_origin = HeaderValue::from_static("same-origin");
    headers.insert("cross-origin-resource-policy", same_origin);
    response
}
