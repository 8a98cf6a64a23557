//! HTTPS to the CA: a connection for each request, over the same TLS as everything else, under a deadline.
//!
//! An order takes some twelve requests every few weeks: keeping connections is worth nothing here.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::net::NetError;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::schedule;
use crate::tls::{self, TlsStream};

/// For one request, the connection included.
const PATIENCE: Duration = Duration::from_secs(30);

/// For one address, so that one that does not answer leaves time for the next.
const CONNECT: Duration = Duration::from_secs(5);

/// Far above a chain of certificates.
const LONGEST_BODY: usize = 1024 * 1024;

const USER_AGENT: &str = concat!("tidegate/", env!("CARGO_PKG_VERSION"), " instant-acme");

/// Why there was no answer that ACME knows.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpFailure {
    #[error("{0} is not an https:// URL")]
    NotHttps(Uri),
    #[error("the CA's name {name} cannot be resolved: {source}")]
    Resolve { name: String, source: NetError },
    #[error("the CA at {host} cannot be reached: {source}")]
    Connect { host: String, source: io::Error },
    #[error("TLS with the CA at {host} failed: {source}")]
    Tls { host: String, source: io::Error },
    #[error("HTTP with the CA failed: {0}")]
    Http(#[from] hyper::Error),
    #[error("the CA's answer broke off: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("the CA answers HTTP {0}")]
    Status(StatusCode),
    #[error("the CA at {host} gave no answer within {} s", PATIENCE.as_secs())]
    TooLong { host: String },
}

/// What the CA has said of when to come again, since it was asked for last.
#[derive(Debug, Clone, Default)]
pub(super) struct RetryAfter(Arc<Mutex<Option<SystemTime>>>);

impl RetryAfter {
    pub(super) fn take(&self) -> Option<SystemTime> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// RFC 9110 10.2.3: seconds or a date.
    fn note(&self, value: &HeaderValue) {
        let Ok(text) = value.to_str() else { return };
        let now = SystemTime::now();
        let at = match text.trim().parse::<u64>() {
            Ok(seconds) => Some(now + Duration::from_secs(seconds).min(schedule::LONGEST)),
            Err(_) => httpdate::HttpDate::from_str(text)
                .ok()
                .map(SystemTime::from),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }
}

#[derive(Debug)]
pub(super) struct Https {
    tls: Arc<ClientConfig>,
    retry_after: RetryAfter,
}

impl Https {
    pub(super) fn new(tls: Arc<ClientConfig>, retry_after: RetryAfter) -> Self {
        Self { tls, retry_after }
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>>;

impl HttpClient for Https {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Answering {
        let (tls, retry_after) = (Arc::clone(&self.tls), self.retry_after.clone());
        Box::pin(async move {
            let host = request.uri().host().unwrap_or_default().to_owned();
            let is_get = request.method() == Method::GET;
            let answer = timeout(PATIENCE, Box::pin(exchange(tls, request))).await;
            let answer = answer.unwrap_or_else(|_| Err(HttpFailure::TooLong { host }));
            let (parts, body) = answer.map_err(other)?.into_parts();
            if parts.status.is_client_error() || parts.status.is_server_error() {
                if let Some(value) = parts.headers.get(header::RETRY_AFTER) {
                    retry_after.note(value);
                }
                match serde_json::from_slice::<Problem>(&body) {
                    // Whoever sent a GET does not look at the status.
                    Ok(problem) if is_get => return Err(Error::Api(problem)),
                    Ok(_) => {}
                    Err(_) => return Err(other(HttpFailure::Status(parts.status))),
                }
            }
            Ok(BytesResponse {
                parts,
                body: Box::new(body),
            })
        })
    }
}

fn other(failure: HttpFailure) -> Error {
    Error::Other(Box::new(failure))
}

async fn exchange(
    tls: Arc<ClientConfig>,
    mut request: Request<BodyWrapper<Bytes>>,
) -> Result<Response<Bytes>, HttpFailure> {
    let url = std::mem::take(request.uri_mut());
    let (Some("https"), Some(authority)) = (url.scheme_str(), url.authority()) else {
        return Err(HttpFailure::NotHttps(url));
    };
    let stream = connect(tls, authority.host(), url.port_u16().unwrap_or(443)).await?;
    // No URL has an authority that no header can hold.
    if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
        request.headers_mut().insert(header::HOST, host);
    }
    let agent = HeaderValue::from_static(USER_AGENT);
    request.headers_mut().insert(header::USER_AGENT, agent);
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path
        .parse()
        .map_err(|_invalid| HttpFailure::NotHttps(url.clone()))?;

    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, LONGEST_BODY).collect().await;
        let body = body.map_err(HttpFailure::Body)?.to_bytes();
        Ok(Response::from_parts(parts, body))
    };
    tokio::pin!(connection, answer);
    // CANCEL: a connection that ended may have brought the answer; it is not used again either way.
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = &mut connection => {
            ended?;
            answer.await
        }
    }
}

/// By the resolver of all names here, and the system's name servers: they were not asked for more than brokers.
async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, NetError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let mut builder = TokioResolver::builder_tokio()?;
    builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    let found = builder.build()?.lookup_ip(host).await?;
    Ok(found
        .iter()
        .map(|address| SocketAddr::new(address, port))
        .collect())
}

async fn connect(
    tls: Arc<ClientConfig>,
    host: &str,
    port: u16,
) -> Result<Box<TlsStream>, HttpFailure> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = resolve(bare, port).await;
    let addresses = addresses.map_err(|source| HttpFailure::Resolve {
        name: bare.to_owned(),
        source,
    })?;
    let failed = |source| HttpFailure::Connect {
        host: format!("{host}:{port}"),
        source,
    };
    let mut first = None;
    for address in addresses {
        let connected = match timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(connected) => connected,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        match connected {
            Ok(tcp) => {
                let failed = |source| HttpFailure::Tls {
                    host: format!("{host}:{port}"),
                    source,
                };
                let name = ServerName::try_from(bare.to_owned());
                let name = name.map_err(|error| failed(io::Error::other(error)))?;
                return tls::connect(tls, name, tcp).await.map_err(failed);
            }
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(failed(
        first.unwrap_or_else(|| io::ErrorKind::NotFound.into()),
    ))
}
