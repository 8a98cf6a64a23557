//! Which server answers a request: one after the other is tried until one can be reached, and over which connection.

use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Poll;

use http::header::{HOST, HeaderValue};
use http::{Request, Response};
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, timeout};

use super::exchange::{Alarm, Unanswered, ask};
use super::failure::Failure;
use super::link::Link;
use super::request::{Outgoing, Upload};
use super::{Application, Call};
use crate::config::model::HostHeader;
use crate::pool::{Broker, Busy, Seat};

/// A server that answers.
pub(super) struct Answered {
    pub(super) seat: Seat,
    pub(super) link: Box<Link>,
    pub(super) response: Response<Incoming>,
    /// The `Host` that it was asked by, where that is not the client's.
    pub(super) own_host: Option<String>,
    pub(super) alarm: Alarm,
}

/// Which connections may carry a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    KeptOrNew,
    /// One that carries a WebSocket is gone for others.
    New,
}

impl Application {
    /// Asks one server after the other until one can be reached, each at most once: nothing of the request has left until
    /// then. After that only a connection that was kept too long is forgiven.
    pub(super) async fn ask_one(
        &self,
        call: &Call<'_>,
        client: IpAddr,
        mut request: Request<Outgoing>,
        upload: &Arc<Upload>,
        mut links: Links,
    ) -> Result<Answered, Failure> {
        let began = Instant::now();
        let mut alarm = Alarm::new(began + self.timeouts.head);
        let mut tried = Vec::new();
        let mut last = None;
        loop {
            let metrics = &call.arrival.gateway.metrics;
            let mut seat = match self.pool.server(client, &tried, metrics).await {
                Ok(seat) if last.is_none() || began.elapsed() < self.timeouts.head => seat,
                Ok(_) => return Err(last.unwrap_or(Failure::ConnectTimeout)),
                Err(busy) => return Err(last.unwrap_or_else(|| self.nobody(busy))),
            };
            let begun = Instant::now();
            let mut link = match self.link(&seat, call.arrival.worker, links).await {
                Ok(link) => link,
                Err(failure) => {
                    self.reporter.attempt_failed(&seat, begun, &failure);
                    tried.push(Arc::clone(seat.server()));
                    last = Some(failure);
                    continue;
                }
            };
            let own_host = self.host_of(seat.server());
            if let Some(Ok(host)) = own_host.as_deref().map(HeaderValue::from_str) {
                request.headers_mut().insert(HOST, host);
            }
            let spare = link.is_reused.then(|| spare(&request)).flatten();
            match ask(&mut link, request, upload, &self.timeouts, &mut alarm).await {
                Ok(response) => {
                    seat.answered();
                    self.reporter.answered(response.status(), begun);
                    return Ok(Answered {
                        seat,
                        link,
                        response,
                        own_host,
                        alarm,
                    });
                }
                // It was closed just as it was taken, before anything was written.
                Err(Unanswered {
                    unsent: Some(unsent),
                    ..
                }) if link.is_reused => request = *unsent,
                Err(Unanswered {
                    failure: Failure::Closed | Failure::Io(_),
                    ..
                }) if let Some(spare) = spare => {
                    // Once: a request that makes the application close would otherwise do so over every kept one.
                    (request, links) = (spare, Links::New);
                }
                Err(Unanswered { failure, .. }) => {
                    self.reporter.blame(&seat, begun, &failure);
                    return Err(failure);
                }
            }
        }
    }

    async fn link(&self, seat: &Seat, worker: usize, links: Links) -> Result<Box<Link>, Failure> {
        let label = &seat.server().label;
        if links == Links::KeptOrNew
            && let Some(shelf) = self.shelves.get(worker)
            && let Some(link) = poll_fn(|cx| Poll::Ready(shelf.take(label, cx))).await
        {
            return Ok(link);
        }
        let stream = match timeout(self.timeouts.connect, seat.dial()).await {
            Ok(dialled) => dialled.map_err(Failure::Connect)?,
            Err(_) => return Err(Failure::ConnectTimeout),
        };
        self.reporter.connected();
        Link::new(stream, Arc::clone(label))
            .await
            .map_err(Failure::Io)
    }

    /// `None` for the client's.
    fn host_of(&self, server: &Broker) -> Option<String> {
        match &self.host {
            HostHeader::Client => None,
            HostHeader::Broker => Some(server.own_host()),
            HostHeader::Fixed(host) => Some(host.clone()),
        }
    }

    fn nobody(&self, busy: Option<Busy>) -> Failure {
        Failure::NoServer(match busy {
            Some(_) => "each has as many requests as it may have (max_requests)",
            None if self.pool.is_unresolved() => "no name of a server has an address yet (dns)",
            None => "each is down",
        })
    }
}

/// A second copy of a request that may be sent twice (RFC 9110 9.2.2).
fn spare(request: &Request<Outgoing>) -> Option<Request<Outgoing>> {
    if !request.method().is_idempotent() || !request.body().is_end_stream() {
        return None;
    }
    let mut spare = Request::new(Outgoing::empty());
    *spare.method_mut() = request.method().clone();
    *spare.uri_mut() = request.uri().clone();
    *spare.headers_mut() = request.headers().clone();
    Some(spare)
}
