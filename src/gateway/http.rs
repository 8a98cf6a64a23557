//! HTTP on one connection: each request goes to its route; an accepted upgrade ends HTTP and starts a session.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::admission::Permit;
use super::connection::Arrival;
use super::outcome::{Phase, Reason};
use super::prefixed::Prefixed;
use super::routes::{Route, Target};
use super::{Gateway, forwarded, session, upgrade};
use crate::config::model::{Redirect, Speaks};
use crate::identity::{Identity, UniqueId};
use crate::pool::Pool;
use crate::site;
use crate::stream::Stream;
use crate::telemetry::metrics::ByCode;

type Body = Either<Full<Bytes>, site::Body>;

/// hyper's own floor for its read buffer.
const SMALLEST_HEAD: usize = 8 * 1024;

/// An upgrade that was answered with 101.
#[derive(Debug)]
struct Upgraded {
    pool: Arc<Pool>,
    identity: Box<Identity>,
}

/// What the requests of one connection share.
#[derive(Debug)]
struct Requests {
    arrival: Arrival,
    /// The place of a handshake in flight, until the first request is there.
    handshake: Mutex<Option<Permit>>,
    upgraded: Mutex<Option<Upgraded>>,
}

/// Serves requests until the connection ends or becomes a session.
pub(super) async fn serve(
    stream: Prefixed,
    arrival: Arrival,
    handshake: Permit,
) -> Result<Option<Box<session::Start>>, (Phase, Reason)> {
    let snapshot = Arc::clone(&arrival.snapshot);
    let gateway = Arc::clone(&arrival.gateway);
    let requests = Arc::new(Requests {
        arrival,
        handshake: Mutex::new(Some(handshake)),
        upgraded: Mutex::new(None),
    });
    let service = {
        let requests = Arc::clone(&requests);
        service_fn(move |request: Request<Incoming>| -> Answering {
            let requests = Arc::clone(&requests);
            Box::pin(async move { Ok(requests.answer(request).await) })
        })
    };
    let mut connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(snapshot.timeouts.request)
        .max_buf_size(snapshot.limits.request_head.max(SMALLEST_HEAD))
        .serve_connection(TokioIo::new(stream), service);
    let mut closing = pin!(gateway.drain.closing());
    let (mut is_closing, mut asked_to_close) = (false, false);
    // The stream must be had back after the 101, so the connection is polled and not awaited.
    let served = poll_fn(|cx| {
        is_closing = is_closing || closing.as_mut().poll(cx).is_ready();
        loop {
            // hyper would close a connection on which nothing has come yet: where nobody is to be refused, the first request
            // is still waited for.
            let may_close = gateway.drain.is_refusing() || requests.has_begun();
            let is_asked = is_closing && !asked_to_close && may_close;
            if is_asked {
                asked_to_close = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            let polled = connection.poll_without_shutdown(cx);
            let begun_now = is_closing && !asked_to_close && requests.has_begun();
            if polled.is_ready() || !begun_now {
                return polled;
            }
        }
    })
    .await;
    let parts = connection.into_parts();
    drop(parts.service);
    let (mut stream, unread) = parts.io.into_inner().into_parts();
    if let Err(error) = served {
        let reason = http_error(error);
        if matches!(reason, Reason::Http(_)) {
            // hyper has answered it.
            shut(&mut stream, &gateway).await;
        }
        return Err((Phase::Http, reason));
    }
    // HTTP is over and its futures are gone, so this is the only holder.
    let requests = Arc::into_inner(requests);
    let upgraded = requests.and_then(|requests| {
        let upgraded = requests
            .upgraded
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        upgraded.map(|upgraded| (upgraded, requests.arrival))
    });
    let Some((upgraded, arrival)) = upgraded else {
        shut(&mut stream, &gateway).await;
        return Ok(None);
    };
    let early = [&parts.read_buf[..], &unread[..]].concat();
    Ok(Some(Box::new(session::Start {
        stream,
        early,
        pool: upgraded.pool,
        identity: upgraded.identity,
        arrival,
    })))
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

fn http_error(error: hyper::Error) -> Reason {
    if error.is_timeout() {
        Reason::RequestTimeout
    } else if error.is_incomplete_message() {
        Reason::Vanished
    } else {
        Reason::Http(error)
    }
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
        Ok::<_, std::io::Error>(())
    };
    if let Ok(Err(error)) = timeout(PATIENCE, leaving).await {
        tracing::debug!(%error, "the client was gone before its connection was closed");
    }
}

impl Requests {
    /// The first request is there.
    fn has_begun(&self) -> bool {
        let handshake = self.handshake.lock();
        handshake.unwrap_or_else(PoisonError::into_inner).is_none()
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        drop(
            self.handshake
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        let response = self.route(request).await;
        let labels = ByCode {
            listener: Arc::clone(&self.arrival.listener.name),
            code: response.status().as_u16(),
        };
        self.arrival
            .gateway
            .metrics
            .http_requests
            .get_or_create(&labels)
            .inc();
        response
    }

    async fn route(&self, request: Request<Incoming>) -> Response<Body> {
        let Some(host) = host(&request) else {
            return sentence(
                StatusCode::BAD_REQUEST,
                "The request has no valid Host header (RFC 9112 3.2).",
            );
        };
        if self.arrival.listener.speaks == Speaks::PlainRedirect {
            return self.to_https(host, &request);
        }
        let routes = &self.arrival.snapshot.routes;
        let wants_upgrade = upgrade::is_wanted(request.headers());
        let name = without_port(host);
        let Some(Route { path, target, .. }) = routes.choose(Some(name), request.uri().path())
        else {
            return match wants_upgrade {
                true => self.lost_upgrade(name),
                false => sentence(StatusCode::NOT_FOUND, "Nothing is served here."),
            };
        };
        match target {
            Target::Pool(pool) => self.upgrade(pool, host.to_owned(), request),
            Target::Site(_) | Target::Redirect(_) if wants_upgrade => self.lost_upgrade(name),
            Target::Site(site) => site.respond(path, request).await.map(Either::Right),
            Target::Redirect(redirect) => redirected(redirect, host, &request),
        }
    }

    fn upgrade(
        &self,
        pool: &Arc<Pool>,
        host: String,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let (parts, _body) = request.into_parts();
        let accepted = match upgrade::check(&parts) {
            Ok(accepted) => accepted,
            Err(refusal) => {
                tracing::debug!(peer = %self.arrival.peer, ?refusal, "upgrade refused");
                let mut response = sentence(refusal.status(), refusal.sentence());
                refusal.add_headers(response.headers_mut());
                return response;
            }
        };
        if self.arrival.gateway.drain.is_refusing() {
            let mut response = sentence(
                StatusCode::SERVICE_UNAVAILABLE,
                "The gateway is shutting down.",
            );
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            return response;
        }
        let mut response = Response::new(Either::Left(Full::default()));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        let Ok(accept) = HeaderValue::from_str(&accepted.accept) else {
            return sentence(StatusCode::BAD_REQUEST, upgrade::Refusal::Key.sentence());
        };
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        if let Some(subprotocol) = accepted.subprotocol {
            headers.insert(
                header::SEC_WEBSOCKET_PROTOCOL,
                HeaderValue::from_static(subprotocol),
            );
        }
        let trusted = &self.arrival.snapshot.trusted_proxies;
        let client = forwarded::client(&parts.headers, self.arrival.peer, trusted);
        let identity = Identity {
            address: client.address,
            local: self.arrival.local,
            forwarded_for: client.chain,
            secure: client.secure.unwrap_or(self.arrival.tls.is_some()),
            tls: self.arrival.tls.clone(),
            host: Some(host),
            path: parts
                .uri
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_owned(),
            headers: parts.headers,
            unique_id: self
                .arrival
                .unique_id
                .clone()
                .unwrap_or_else(UniqueId::random),
        };
        let upgraded = Upgraded {
            pool: Arc::clone(pool),
            identity: Box::new(identity),
        };
        *self.upgraded.lock().unwrap_or_else(PoisonError::into_inner) = Some(upgraded);
        response
    }

    /// An upgrade where no pool is.
    fn lost_upgrade(&self, host: &str) -> Response<Body> {
        let paths: Vec<_> = self
            .arrival
            .snapshot
            .routes
            .pool_paths(Some(host))
            .collect();
        let text = match paths.as_slice() {
            [] => "No WebSocket is served for this host.".to_owned(),
            paths => format!(
                "No WebSocket is served on this path, did you mean {}?",
                paths.join(" or ")
            ),
        };
        sentence(StatusCode::NOT_FOUND, text)
    }

    fn to_https(&self, host: &str, request: &Request<Incoming>) -> Response<Body> {
        let port = match self.arrival.listener.https_port {
            443 => String::new(),
            port => format!(":{port}"),
        };
        let redirect = Redirect {
            to: format!("https://{}{port}{{path}}{{query}}", without_port(host)),
            status: StatusCode::PERMANENT_REDIRECT.as_u16(),
        };
        redirected(&redirect, host, request)
    }
}

fn redirected(redirect: &Redirect, host: &str, request: &Request<Incoming>) -> Response<Body> {
    let uri = request.uri();
    let query = uri
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    let to = redirect
        .to
        .replace("{host}", host)
        .replace("{path}", uri.path())
        .replace("{query}", &query);
    let (Ok(location), Ok(status)) = (
        HeaderValue::from_str(&to),
        StatusCode::from_u16(redirect.status),
    ) else {
        return sentence(StatusCode::BAD_REQUEST, "The request cannot be redirected.");
    };
    let mut response = sentence(status, format!("Go to {to}"));
    response.headers_mut().insert(header::LOCATION, location);
    response
}

/// The host that the request is for, with its port. SECURITY: only what a host may consist of, since it goes into
/// `Location` and to brokers; and only one, or something in front might go by the other (RFC 9112 3.2).
fn host(request: &Request<Incoming>) -> Option<&str> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = match (request.uri().authority(), hosts.next(), hosts.next()) {
        (_, _, Some(_)) => return None,
        (Some(authority), _, None) => authority.as_str(),
        (None, Some(host), None) => host.to_str().ok()?,
        // HTTP/1.0 knows no Host.
        (None, None, None) if request.version() == Version::HTTP_10 => return Some("localhost"),
        (None, None, None) => return None,
    };
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:[]%".contains(&byte);
    (!host.is_empty() && host.bytes().all(is_host)).then_some(host)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() =>
        {
            name
        }
        Some(_) | None => host,
    }
}

/// A plain answer: one sentence that a person can act on.
fn sentence(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut text: String = text.into();
    text.push('\n');
    let mut response = Response::new(Either::Left(Full::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}
