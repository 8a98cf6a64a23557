//! A web application behind a route: each request goes to one of its servers and each answer back, streamed both ways.
//!
//! The steps of a request stand in `Application::pass_on`. The client's task does all of them: it polls the connection to
//! the application beside its own, so nothing is handed from task to task, and a client that leaves takes its request with
//! it. hyper's connection is used, and not a client with a pool above it: that would have a task for each connection, and
//! connections that wander between workers.

mod answer;
mod asking;
mod exchange;
mod failure;
mod frames;
mod headers;
mod link;
mod path;
mod report;
mod request;
mod tunnel;
mod web_socket;
mod wire;

pub(super) use answer::{Answer, Broken};
pub(super) use request::RequestBody;
pub(super) use tunnel::{Opened, Start, run};
pub(super) use web_socket::{Opening, is_wanted};

use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue, RETRY_AFTER};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::Either;

use self::answer::Flow;
use self::asking::{Answered, Links};
use self::failure::Failure;
use self::headers::Sender;
use self::link::Shelf;
use self::path::Paths;
use self::report::Reporter;
use self::request::{Outgoing, Upload, content_length};
use super::admission::Permit;
use super::connection::Arrival;
use super::forwarded;
use super::http::{Body, sentence};
use crate::config::Problem;
use crate::config::model::{self, ApplicationPath, ApplicationTimeouts, HostHeader, KeepAlive};
use crate::pool::{Pool, Registry, Whence};
use crate::telemetry::Metrics;

/// An application that says how long it keeps a connection is believed, less the time that a request is on its way.
const MARGIN: Duration = Duration::from_secs(1);

/// A web application of one snapshot. Dropping it closes the connections that are kept for it.
#[derive(Debug)]
pub(super) struct Application {
    pool: Arc<Pool>,
    path: ApplicationPath,
    host: HostHeader,
    request_body: Option<u64>,
    timeouts: ApplicationTimeouts,
    keep_alive: KeepAlive,
    /// One for each worker.
    shelves: Box<[Arc<Shelf>]>,
    reporter: Reporter,
}

/// A request, beside itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) arrival: &'a Arrival,
    /// The path of its route.
    pub(super) route: &'a str,
    pub(super) host: &'a str,
}

impl Application {
    /// Reads the CA file, if it names one.
    pub(super) fn new(
        config: &model::Application,
        timeouts: model::Timeouts,
        workers: usize,
        metrics: &Metrics,
        registry: &Registry,
    ) -> Result<Self, Problem> {
        let pool = Arc::new(Pool::new(&config.servers, timeouts, metrics, registry)?);
        let shelf = |_| Shelf::new(config.keep_alive.connections);
        Ok(Self {
            reporter: Reporter::new(&pool, metrics),
            pool,
            path: config.path.clone(),
            host: config.host.clone(),
            request_body: config.request_body,
            timeouts: config.timeouts,
            keep_alive: config.keep_alive,
            shelves: (0..workers).map(shelf).collect(),
        })
    }

    /// Its servers.
    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The answer to one request. Its failures are answers, too.
    pub(super) async fn respond(
        &self,
        call: Call<'_>,
        request: Request<RequestBody>,
    ) -> Response<Body> {
        match self.pass_on(call, request).await {
            Ok(response) => response,
            Err(failure) => self.refuse(&call, &failure),
        }
    }

    async fn pass_on(
        &self,
        call: Call<'_>,
        request: Request<RequestBody>,
    ) -> Result<Response<Body>, Failure> {
        let (head, body) = request.into_parts();
        self.check(&head)?;
        let permit = permit(&call, head.version)?;
        let version = head.version;
        let outgoing = Outgoing::new(body, &head.headers, self.request_body);
        let upload = outgoing.upload();
        let (mut request, client) = self.request(&call, head, outgoing);
        let expects = headers::expects_continue(request.headers_mut(), version);
        if expects && !upload.has_ended() {
            upload.hold();
            let upload = Arc::clone(&upload);
            hyper::ext::on_informational(&mut request, move |answer| {
                if answer.status() == StatusCode::CONTINUE {
                    upload.release();
                }
            });
        }
        let answered = self
            .ask_one(&call, client, request, &upload, Links::KeptOrNew)
            .await?;
        if answered.response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Failure::WrongHandshake);
        }
        Ok(self.answer(&call, answered, upload, permit).await)
    }

    /// What no server is asked for.
    fn check(&self, head: &Parts) -> Result<(), Failure> {
        let length = content_length(&head.headers);
        if path::climbs(head.uri.path()) {
            return Err(Failure::Path);
        }
        if headers::goes_in_circles(&head.headers) {
            return Err(Failure::Loop);
        }
        match (length, self.request_body) {
            (Some(length), Some(most)) if length > most => Err(Failure::TooLarge),
            _ => Ok(()),
        }
    }

    /// The client's request as it is sent, and the client's address.
    fn request(&self, call: &Call<'_>, head: Parts, body: Outgoing) -> (Request<Outgoing>, IpAddr) {
        let Call { arrival, host, .. } = call;
        let trusted = &arrival.snapshot.trusted_proxies;
        let mut headers = head.headers;
        let client = forwarded::client(&headers, arrival.peer, trusted);
        let sender = Sender {
            whence: Whence {
                address: client.address,
                chain: client.chain.as_deref(),
                secure: client.secure.unwrap_or(arrival.tls.is_some()),
                local: arrival.local,
            },
            is_trusted: trusted.contains(arrival.peer.ip()),
            has_told_scheme: client.secure.is_some(),
            host,
            version: head.version,
        };
        let paths = Paths::new(call.route, &self.path);
        headers::to_application(&mut headers, &sender, &paths);
        headers::frame(&mut headers, &body);
        if let Ok(host) = HeaderValue::from_str(host) {
            headers.insert(HOST, host);
        }
        let mut request = Request::new(body);
        *request.uri_mut() = Uri::from(paths.of_application(&head.uri));
        // Over HTTP/2 a WebSocket is asked for by CONNECT.
        *request.method_mut() = match (head.version, head.method) {
            (Version::HTTP_2, Method::CONNECT) => Method::GET,
            (_, method) => method,
        };
        *request.headers_mut() = headers;
        (request, client.address.ip())
    }

    /// The answer as the client is sent it.
    async fn answer(
        &self,
        call: &Call<'_>,
        answered: Answered,
        upload: Arc<Upload>,
        permit: Option<Permit>,
    ) -> Response<Body> {
        let Answered {
            seat,
            link,
            response,
            own_host,
            alarm,
        } = answered;
        let (mut head, incoming) = response.into_parts();
        let idle = headers::keeps(&head.headers).map(|told| told.saturating_sub(MARGIN));
        let idle = idle.map_or(self.keep_alive.idle, |told| told.min(self.keep_alive.idle));
        // hyper would send the next request over this link as HTTP/1.0 does, without a body in chunks.
        let may_be_kept = head.version == Version::HTTP_11;
        let is_event_stream = is_event_stream(&head.headers);
        let membership = is_event_stream.then(|| {
            let membership = call.arrival.gateway.drain.join(None);
            membership.enter(seat.server().group());
            membership
        });
        // The version is of one connection, too.
        head.version = Version::HTTP_11;
        headers::drop_false_length(&mut head.headers, &incoming);
        self.rewrite(call, &mut head.headers, own_host.as_deref());
        let worker = call.arrival.worker;
        let Some(shelf) = self.shelves.get(worker).or(self.shelves.first()) else {
            return self.refuse(call, &Failure::NoServer("no worker"));
        };
        let flow = Flow {
            link,
            shelf: Arc::clone(shelf),
            idle: may_be_kept.then_some(idle),
            upload,
            alarm,
            patience: (!is_event_stream).then_some(self.timeouts.stall),
            membership,
            seat,
            reporter: self.reporter.clone(),
            _permit: permit,
            silent: None,
        };
        let mut parts = Some((incoming, Box::new(flow)));
        let answer = poll_fn(|cx| match parts.take() {
            Some((incoming, flow)) => Poll::Ready(Answer::new(incoming, flow, cx)),
            None => Poll::Pending,
        });
        Response::from_parts(head, Either::Right(Either::Right(answer.await)))
    }

    fn rewrite(&self, call: &Call<'_>, headers: &mut HeaderMap, own_host: Option<&str>) {
        let paths = Paths::new(call.route, &self.path);
        headers::to_client(headers, &paths, own_host.unwrap_or(call.host), call.host);
    }

    fn refuse(&self, call: &Call<'_>, failure: &Failure) -> Response<Body> {
        self.reporter.refused(call.arrival.peer, failure);
        let mut response = sentence(failure.status(), failure.sentence());
        if failure.retry_after() {
            let headers = response.headers_mut();
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// A request over HTTP/2 needs a connection of its own to the application, for which its client's place under the limit does
/// not stand.
fn permit(call: &Call<'_>, version: Version) -> Result<Option<Permit>, Failure> {
    if version != Version::HTTP_2 {
        return Ok(None);
    }
    let most = call.arrival.snapshot.limits.connections.get();
    let permit = call.arrival.gateway.admission.connection(most);
    permit.map(Some).ok_or(Failure::Connections)
}

/// It may be silent for as long as its page is open.
fn is_event_stream(headers: &HeaderMap) -> bool {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let media = value.and_then(|value| value.split(';').next());
    media.is_some_and(|media| media.trim().eq_ignore_ascii_case("text/event-stream"))
}
