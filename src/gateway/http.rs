//! What a request is answered, whatever version of HTTP it came by: each goes to its route.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::header::{self, HeaderValue, STRICT_TRANSPORT_SECURITY};
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body_util::{Either, Full};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::application::{self, Application, Call, Opened, Opening, RequestBody};
use super::connection::Arrival;
use super::routes::{Route, Target};
use super::upgrade::Refusal;
use super::{forwarded, origin, upgrade};
use crate::config::model::{Hsts, OriginPolicy, Redirect, Speaks};
use crate::config::origins::Asked;
use crate::identity::{Identity, UniqueId};
use crate::pool::Pool;
use crate::site::{self, redirects};
use crate::telemetry::metrics::ByCode;

pub(super) type Body = Either<Full<Bytes>, Either<site::Body, application::Answer>>;

/// An upgrade that may be accepted.
#[derive(Debug)]
pub(super) struct Upgraded<B> {
    pub(super) becomes: Becomes,
    /// The request's; over HTTP/2 it is what the session reads.
    pub(super) body: B,
}

/// What goes on where HTTP ends.
#[derive(Debug)]
pub(super) enum Becomes {
    Session {
        pool: Arc<Pool>,
        identity: Box<Identity>,
    },
    /// A WebSocket of a web application.
    WebSocket(Box<Opened>),
}

/// What a request leads to.
pub(super) enum Answer<B> {
    Response(Response<Body>),
    /// The response that accepts, and what a session starts from.
    Upgraded(Response<Body>, Upgraded<B>),
}

/// What the requests of one connection share.
#[derive(Debug)]
pub(super) struct Requests {
    pub(super) arrival: Arrival,
    /// The first request is there.
    begun: AtomicBool,
    files: Arc<Semaphore>,
}

/// Files of a site that one connection is sent at a time: each is open, and a piece of it is in memory, for as long as the client
/// takes. A browser asks for some dozens at once and shares its line among them anyway.
const FILES_AT_ONCE: usize = 16;

/// One of them, held until the answer is sent.
#[derive(Debug, Clone)]
pub(super) struct FilePlace(#[expect(dead_code, reason = "it is held")] Arc<OwnedSemaphorePermit>);

impl Requests {
    pub(super) fn new(arrival: Arrival) -> Self {
        Self {
            arrival,
            begun: AtomicBool::new(false),
            files: Arc::new(Semaphore::new(FILES_AT_ONCE)),
        }
    }

    /// The first request is there.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    pub(super) async fn answer<B: Into<RequestBody>>(&self, request: Request<B>) -> Answer<B> {
        self.begun.store(true, Ordering::Relaxed);
        let hsts = self.hsts(request.headers());
        let mut answer = self.route(request).await;
        let (Answer::Response(response) | Answer::Upgraded(response, _)) = &mut answer;
        if let Some(hsts) = hsts {
            let headers = response.headers_mut();
            headers.entry(STRICT_TRANSPORT_SECURITY).or_insert(hsts);
        }
        answer
    }

    /// RFC 6797 7.2: said over TLS alone.
    fn hsts(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let hsts = self.arrival.snapshot.hsts.as_ref()?;
        self.is_secure(headers).then(|| hsts.clone())
    }

    /// The client came by TLS: to us, or to a proxy that is believed.
    fn is_secure(&self, headers: &HeaderMap) -> bool {
        let told = self.client(headers).secure;
        told.unwrap_or(self.arrival.tls.is_some())
    }

    /// A request that is answered so.
    pub(super) fn count(&self, version: Version, status: StatusCode) {
        let labels = ByCode {
            listener: Arc::clone(&self.arrival.listener.name),
            version: match version {
                Version::HTTP_2 => "2",
                Version::HTTP_10 => "1.0",
                _ => "1.1",
            },
            code: status.as_u16(),
        };
        let metrics = &self.arrival.gateway.metrics;
        metrics.http_requests.get_or_create(&labels).inc();
    }

    async fn route<B: Into<RequestBody>>(&self, request: Request<B>) -> Answer<B> {
        let Some(host) = host(&request) else {
            return Answer::Response(sentence(
                StatusCode::BAD_REQUEST,
                match request.version() {
                    Version::HTTP_2 => {
                        "The request has no valid :authority, or a Host header that differs (RFC 9113 8.3.1)."
                    }
                    _ => "The request has no valid Host header (RFC 9112 3.2).",
                },
            ));
        };
        if self.arrival.listener.speaks == Speaks::PlainRedirect {
            return Answer::Response(self.to_https(host, &request));
        }
        if let Some(refusal) = upgrade::not_served(&request) {
            return Answer::Response(refused(refusal));
        }
        let routes = &self.arrival.snapshot.routes;
        let wants_upgrade = upgrade::is_wanted(&request);
        let name = without_port(host);
        let Some(route) = routes.choose(Some(name), request.uri().path()) else {
            return Answer::Response(match wants_upgrade {
                true => self.lost_upgrade(name),
                false => sentence(StatusCode::NOT_FOUND, "Nothing is served here."),
            });
        };
        if wants_upgrade && let Some(why) = self.refused_page(&route.origins, host, &request) {
            return Answer::Response(sentence(StatusCode::FORBIDDEN, why));
        }
        let Route { path, target, .. } = route;
        match target {
            Target::Pool(pool) => self.upgrade(pool, host.to_owned(), request),
            Target::Application(application) => {
                let host = host.to_owned();
                let call = Call {
                    arrival: &self.arrival,
                    route: path,
                    host: &host,
                };
                Box::pin(self.pass_on(application, call, request)).await
            }
            Target::Site(_) | Target::Redirect(_) if wants_upgrade => {
                Answer::Response(self.lost_upgrade(name))
            }
            Target::Site(site) => {
                let host = host.to_owned();
                let places = Arc::clone(&self.files).acquire_owned();
                let patience = self.arrival.snapshot.timeouts.request;
                let Ok(Ok(place)) = timeout(patience, places).await else {
                    let why = "This connection is sent as many files as it may be.";
                    return Answer::Response(try_again(why));
                };
                let response = site.respond(path, &host, request).await;
                let mut response = response.map(|body| Either::Right(Either::Left(body)));
                let extensions = response.extensions_mut();
                extensions.insert(FilePlace(Arc::new(place)));
                Answer::Response(response)
            }
            Target::Redirect(redirect) => Answer::Response(redirected(redirect, host, &request)),
        }
    }

    /// A WebSocket of a page that the route does not let in.
    fn refused_page<B>(
        &self,
        policy: &OriginPolicy,
        host: &str,
        request: &Request<B>,
    ) -> Option<String> {
        let secure = self.is_secure(request.headers());
        let why = origin::refused(policy, request, Asked { host, secure })?;
        tracing::debug!(peer = %self.arrival.peer, why, "upgrade refused");
        self.arrival.gateway.count_refusal("origin");
        Some(why)
    }

    fn client(&self, headers: &HeaderMap) -> forwarded::Client {
        let trusted = &self.arrival.snapshot.trusted_proxies;
        forwarded::client(headers, self.arrival.peer, trusted)
    }

    async fn pass_on<B: Into<RequestBody>>(
        &self,
        application: &Application,
        call: Call<'_>,
        request: Request<B>,
    ) -> Answer<B> {
        if !application::is_wanted(&request) {
            return Answer::Response(application.respond(call, request.map(Into::into)).await);
        }
        if self.arrival.gateway.drain.is_refusing() {
            return Answer::Response(try_again("The gateway is shutting down."));
        }
        let (head, body) = request.into_parts();
        match application.open(call, head).await {
            Opening::Response(response) => Answer::Response(response),
            Opening::Opened(response, opened) => {
                let becomes = Becomes::WebSocket(opened);
                Answer::Upgraded(response, Upgraded { becomes, body })
            }
        }
    }

    fn upgrade<B>(&self, pool: &Arc<Pool>, host: String, request: Request<B>) -> Answer<B> {
        let accepted = match upgrade::check(&request) {
            Ok(accepted) => accepted,
            Err(refusal) => {
                tracing::debug!(peer = %self.arrival.peer, ?refusal, "upgrade refused");
                return Answer::Response(refused(refusal));
            }
        };
        if self.arrival.gateway.drain.is_refusing() {
            return Answer::Response(try_again("The gateway is shutting down."));
        }
        let mut response = Response::new(Either::Left(Full::default()));
        *response.status_mut() = accepted.status();
        accepted.add_headers(response.headers_mut());
        let (parts, body) = request.into_parts();
        let client = self.client(&parts.headers);
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
            // A connection over HTTP/2 has many sessions: its own id names none of them.
            unique_id: match parts.version {
                Version::HTTP_2 => None,
                _ => self.arrival.unique_id.clone(),
            }
            .unwrap_or_else(UniqueId::random),
        };
        let becomes = Becomes::Session {
            pool: Arc::clone(pool),
            identity: Box::new(identity),
        };
        Answer::Upgraded(response, Upgraded { becomes, body })
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

    fn to_https(&self, host: &str, request: &Request<impl Sized>) -> Response<Body> {
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

/// The value of Strict-Transport-Security.
pub(super) fn hsts(hsts: Hsts) -> Option<HeaderValue> {
    let mut value = format!("max-age={}", hsts.max_age.as_secs());
    if hsts.include_subdomains {
        value.push_str("; includeSubDomains");
    }
    if hsts.preload {
        value.push_str("; preload");
    }
    HeaderValue::try_from(value).ok()
}

fn redirected(redirect: &Redirect, host: &str, request: &Request<impl Sized>) -> Response<Body> {
    let uri = request.uri();
    let asked = redirects::Asked {
        host,
        path: uri.path(),
        query: uri.query(),
    };
    let (Some(location), Ok(status)) = (
        redirects::location(redirect, asked, ""),
        StatusCode::from_u16(redirect.status),
    ) else {
        return sentence(StatusCode::BAD_REQUEST, "The request cannot be redirected.");
    };
    let to = location.to_str().unwrap_or("the Location of this answer");
    let mut response = sentence(status, format!("Go to {to}"));
    response.headers_mut().insert(header::LOCATION, location);
    response
}

/// The host that the request is for, with its port. SECURITY: only what a host may consist of, since it goes into
/// `Location` and to brokers; and only one, or something in front might go by the other (RFC 9112 3.2).
fn host(request: &Request<impl Sized>) -> Option<&str> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = match (request.uri().authority(), hosts.next(), hosts.next()) {
        (_, _, Some(_)) => return None,
        (Some(authority), Some(host), _)
            if request.version() == Version::HTTP_2 && authority.as_str() != host =>
        {
            return None;
        }
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

fn refused(refusal: Refusal) -> Response<Body> {
    let mut response = sentence(refusal.status(), refusal.sentence());
    refusal.add_headers(response.headers_mut());
    response
}

/// Nothing is wrong with the request but its time.
pub(super) fn try_again(why: &'static str) -> Response<Body> {
    let mut response = sentence(StatusCode::SERVICE_UNAVAILABLE, why);
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// A plain answer: one sentence that a person can act on.
pub(super) fn sentence(status: StatusCode, text: impl Into<String>) -> Response<Body> {
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
