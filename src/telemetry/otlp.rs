//! Sends the spans of sessions to an OpenTelemetry collector (OTLP 1.x over HTTP, protobuf), in a thread of its own.
//!
//! A collector that is slow or gone costs spans, never a session: a batch that cannot be sent is dropped and counted.

use std::env;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use tokio::net::TcpStream;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Metrics;
use super::spans::SessionSpan;

/// Spans of one request.
const BATCH: usize = 512;

/// How long a span waits for others.
const GATHER: Duration = Duration::from_secs(1);

/// For one request, the connection included.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where to, by the variables that every OpenTelemetry exporter knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    endpoint: Uri,
    service: String,
}

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT `{0}` is not a URL")]
    NoUrl(String),
    #[error(
        "OTEL_EXPORTER_OTLP_ENDPOINT `{0}`: only http:// is spoken; let a collector on this machine go on over TLS"
    )]
    NotHttp(String),
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl Settings {
    /// `None` where the environment names no collector.
    pub fn from_environment() -> Result<Option<Self>, OtlpError> {
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let traces = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        let all = variable("OTEL_EXPORTER_OTLP_ENDPOINT");
        let service = variable("OTEL_SERVICE_NAME").unwrap_or_else(|| "tidegate".to_owned());
        // The OTLP exporter specification: one is taken as it is, to the other the path of the signal is added.
        let endpoint =
            traces.or_else(|| all.map(|all| format!("{}/v1/traces", all.trim_end_matches('/'))));
        endpoint
            .map(|endpoint| Self::new(endpoint, service))
            .transpose()
    }

    fn new(endpoint: String, service: String) -> Result<Self, OtlpError> {
        let Ok(url) = endpoint.parse::<Uri>() else {
            return Err(OtlpError::NoUrl(endpoint));
        };
        if url.scheme_str() != Some("http") || url.host().is_none() {
            return Err(OtlpError::NotHttp(endpoint));
        }
        Ok(Self {
            endpoint: url,
            service,
        })
    }
}

/// The exporter's thread. Dropping it sends what is queued, within `PATIENCE`.
#[derive(Debug)]
pub struct Exporter {
    ending: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Exporter {
    /// Takes the spans of this process from here on.
    pub fn start(settings: Settings, metrics: Arc<Metrics>) -> Result<Option<Self>, OtlpError> {
        let Some(spans) = metrics.spans.take() else {
            return Ok(None);
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        tracing::info!(endpoint = %settings.endpoint, "exporting a span for each session");
        let ending = CancellationToken::new();
        let ended = ending.clone();
        let thread = thread::Builder::new()
            .name("otlp".to_owned())
            .spawn(move || runtime.block_on(export(spans, &settings, &metrics, &ended)))?;
        Ok(Some(Self {
            ending,
            thread: Some(thread),
        }))
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.ending.cancel();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the exporter of spans panicked: a bug, please report it");
        }
    }
}

async fn export(
    mut spans: Receiver<SessionSpan>,
    settings: &Settings,
    metrics: &Metrics,
    ending: &CancellationToken,
) {
    let mut failing = false;
    let mut batch = Vec::with_capacity(BATCH);
    while !spans.is_closed() || !spans.is_empty() {
        // CANCEL: `recv_many` takes nothing when it loses, `cancelled` only waits.
        tokio::select! {
            _ = spans.recv_many(&mut batch, BATCH) => {}
            () = ending.cancelled(), if !spans.is_closed() => spans.close(),
        }
        // More may come; the end does not wait for it.
        let gather = async {
            while batch.len() < BATCH && !batch.is_empty() {
                let room = BATCH - batch.len();
                if spans.recv_many(&mut batch, room).await == 0 {
                    return;
                }
            }
        };
        tokio::select! {
            _ = timeout(GATHER, gather) => {}
            () = ending.cancelled() => spans.close(),
        }
        if batch.is_empty() {
            continue;
        }
        let count = batch.len();
        let request = encode(batch.drain(..), settings);
        match timeout(PATIENCE, send(settings, request)).await {
            Ok(Ok(())) => {
                metrics.spans.count("exported", count);
                if std::mem::take(&mut failing) {
                    tracing::info!("the collector takes spans again");
                }
            }
            failed => {
                metrics.spans.count("failed", count);
                let why = match failed {
                    Ok(Err(why)) => why.to_string(),
                    _ => "no answer in time".to_owned(),
                };
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(endpoint = %settings.endpoint, %why, "spans cannot be exported");
                }
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("cannot connect: {0}")]
    Connect(#[source] std::io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("{0}")]
    Request(#[from] http::Error),
    #[error("HTTP {0}")]
    Status(u16),
}

async fn send(settings: &Settings, body: Bytes) -> Result<(), SendError> {
    let url = &settings.endpoint;
    let host = url.host().unwrap_or_default();
    let port = url.port_u16().unwrap_or(80);
    let address = (host.trim_start_matches('[').trim_end_matches(']'), port);
    let tcp = TcpStream::connect(address)
        .await
        .map_err(SendError::Connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(tcp)).await?;
    let path = url
        .path_and_query()
        .map_or("/v1/traces", |path| path.as_str());
    let request = Request::post(path)
        .header(header::HOST, format!("{host}:{port}"))
        .header(header::CONTENT_TYPE, "application/x-protobuf")
        .body(Full::new(body))?;
    let answer = sender.send_request(request);
    tokio::pin!(connection, answer);
    // CANCEL: a connection that ended may have brought the answer; it is not used again either way.
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer?,
        ended = &mut connection => {
            ended?;
            answer.await?
        }
    };
    match answer.status() {
        status if status.is_success() => Ok(()),
        status => Err(SendError::Status(status.as_u16())),
    }
}

fn encode(spans: impl Iterator<Item = SessionSpan>, settings: &Settings) -> Bytes {
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![
                    text("service.name", &settings.service),
                    text("service.version", env!("CARGO_PKG_VERSION")),
                    number("process.pid", u64::from(std::process::id())),
                ],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "tidegate".to_owned(),
                    ..InstrumentationScope::default()
                }),
                spans: spans.map(span).collect(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    request.encode_to_vec().into()
}

/// docs/tracing.md describes it.
fn span(session: SessionSpan) -> Span {
    let mut attributes = vec![
        text("network.protocol.name", "mqtt"),
        text("client.address", &session.client.ip().to_string()),
        number("client.port", u64::from(session.client.port())),
        text("tidegate.listener", &session.listener),
        text("tidegate.pool", &session.pool),
        text("tidegate.who", session.who),
        text("tidegate.phase", session.phase),
        text("tidegate.why", session.why),
        number("tidegate.retries", session.retries as u64),
        number("tidegate.up_bytes", session.up_bytes),
        number("tidegate.down_bytes", session.down_bytes),
    ];
    let optional = [
        ("network.protocol.version", session.version),
        ("tidegate.broker", session.broker.as_deref()),
        ("messaging.client.id", Some(session.client_id.as_str())),
        ("error.type", session.unusual.then_some(session.why)),
    ];
    let known = optional
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)));
    attributes.extend(
        known
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| text(key, value)),
    );
    let stages = [
        ("tls", session.secured),
        ("upgrade", Some(session.upgraded)),
        ("connect", session.connect),
        ("connack", session.connack),
    ];
    let event = |(name, at): (&str, Option<SystemTime>)| {
        Some(Event {
            time_unix_nano: nanos(at?),
            name: name.to_owned(),
            ..Event::default()
        })
    };
    Span {
        trace_id: session.unique_id.to_be_bytes().to_vec(),
        // 1 at least: a span id of zeroes is none.
        span_id: fastrand::u64(1..).to_be_bytes().to_vec(),
        name: "session".to_owned(),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: nanos(session.accepted),
        end_time_unix_nano: nanos(session.ended),
        attributes,
        events: stages.into_iter().filter_map(event).collect(),
        status: session.unusual.then(|| Status {
            code: StatusCode::Error.into(),
            message: session.text,
        }),
        ..Span::default()
    }
}

fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: u64) -> KeyValue {
    attribute(
        key,
        Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)),
    )
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_is_spoken() {
        let settings = |url: &str| Settings::new(url.to_owned(), "s".to_owned());
        assert!(settings("http://127.0.0.1:4318/v1/traces").is_ok());
        for url in [
            "https://collector:4318",
            "127.0.0.1:4318",
            "/v1/traces",
            "http://",
        ] {
            assert!(settings(url).is_err(), "{url}");
        }
    }
}
