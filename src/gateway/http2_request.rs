//! One request over HTTP/2: its answer within the client's windows, or the session that it becomes.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use atomic_waker::AtomicWaker;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::{Body as HttpBody, Frame};
use tokio::time::timeout_at;

use super::connection::PanicsCounted;
use super::http::{Answer, Becomes, Body, FilePlace, Requests, Upgraded, try_again};
use super::outcome::{Phase, Reason};
use super::progress::Progress;
use super::{application, session};
use crate::http2::{self, Chunk, Http2Stream};
use crate::stream::Stream;

/// The streams of a connection that are still served.
#[derive(Debug, Default)]
pub(super) struct Open {
    count: AtomicUsize,
    waker: AtomicWaker,
}

impl Open {
    pub(super) fn is_served(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// Wakes when nobody is served any more. Look afterwards, too.
    pub(super) fn wake(&self, waker: &Waker) {
        self.waker.register(waker);
    }
}

/// Held by whoever serves one.
#[derive(Debug)]
struct Serving(Arc<Open>);

impl Serving {
    fn new(open: &Arc<Open>) -> Self {
        open.count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(open))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.waker.wake();
        }
    }
}

/// One request of a connection.
pub(super) struct RequestStream {
    requests: Arc<Requests>,
    respond: SendResponse<Chunk>,
    /// For a client that takes too little of its answer.
    patience: Duration,
    serving: Serving,
}

impl RequestStream {
    pub(super) fn new(
        requests: &Arc<Requests>,
        respond: SendResponse<Chunk>,
        patience: Duration,
        open: &Arc<Open>,
    ) -> Self {
        Self {
            requests: Arc::clone(requests),
            respond,
            patience,
            serving: Serving::new(open),
        }
    }

    pub(super) async fn serve(mut self, mut request: Request<RecvStream>) {
        let gateway = Arc::clone(&self.requests.arrival.gateway);
        let panics = PanicsCounted(Arc::clone(&gateway));
        join_cookies(request.headers_mut());
        let method = request.method().clone();
        // CANCEL: a cut leaves the answer where it stands, and the stream is reset. A client that has reset it waits for
        // nothing: an application hears of that.
        let answer = tokio::select! {
            answer = self.requests.answer(request) => answer,
            _ = poll_fn(|cx| self.respond.poll_reset(cx)) => return,
            () = gateway.drain.cut() => return,
        };
        match answer {
            Answer::Response(response) => {
                // CANCEL: as above.
                tokio::select! {
                    () = Box::pin(self.answer(response, &method)) => {}
                    () = gateway.drain.cut() => {}
                }
            }
            Answer::Upgraded(response, upgraded) => {
                self.become_session(response, upgraded, panics).await;
            }
        }
    }

    async fn become_session(
        mut self,
        response: Response<Body>,
        upgraded: Upgraded<RecvStream>,
        panics: PanicsCounted,
    ) {
        let Upgraded { becomes, body } = upgraded;
        let arrival = &self.requests.arrival;
        let permit = match &becomes {
            // It opens a connection to a broker, as the session of any other connection does.
            Becomes::Session { .. } => {
                let most = arrival.snapshot.limits.connections.get();
                let Some(permit) = arrival.gateway.admission.connection(most) else {
                    arrival.gateway.count_refusal("connections");
                    let full = try_again("The gateway has as many connections as it may have.");
                    return self.answer(full, &Method::CONNECT).await;
                };
                Some(permit)
            }
            // It has one already.
            Becomes::WebSocket(_) => None,
        };
        let Some(outgoing) = self.begin(response.map(drop), false) else {
            return;
        };
        let stream = Stream::Http2(Box::new(Http2Stream::new(body, outgoing)));
        let arrival = self.requests.arrival.clone();
        let drain = &self.requests.arrival.gateway.drain;
        let held = (self.serving, permit, panics);
        match becomes {
            Becomes::Session { pool, identity } => {
                let start = Box::new(session::Start {
                    stream,
                    early: Vec::new(),
                    pool,
                    identity,
                    arrival,
                });
                drain.spawn(session::run(start, held));
            }
            Becomes::WebSocket(opened) => {
                let start = Box::new(application::Start {
                    client: stream,
                    early: Vec::new(),
                    opened,
                    arrival,
                });
                drain.spawn(application::run(start, held));
            }
        }
    }

    /// Sends the head. `None` where the client has gone.
    fn begin(&mut self, head: Response<()>, is_end: bool) -> Option<SendStream<Chunk>> {
        self.requests.count(Version::HTTP_2, head.status());
        self.respond
            .send_response(head, is_end)
            .map_err(|error| tracing::debug!(%error, "the client left before it was answered"))
            .ok()
    }

    async fn answer(&mut self, response: Response<Body>, method: &Method) {
        let (mut head, mut body) = response.into_parts();
        let _place = head.extensions.remove::<FilePlace>();
        complete(&mut head.headers, head.status, method, &body);
        let is_empty = method == Method::HEAD || body.is_end_stream();
        let Some(mut outgoing) = self.begin(Response::from_parts(head, ()), is_empty) else {
            return;
        };
        if is_empty {
            return;
        }
        let mut progress = Progress::new(self.patience);
        while let Some(frame) = next(&mut body, &mut outgoing).await {
            let data = match frame.map(Frame::into_data) {
                Ok(Ok(data)) => data,
                Ok(Err(frame)) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    // It fails when the client has gone.
                    drop(outgoing.send_trailers(trailers));
                    // The end of the body: a connection to an application is free again then.
                    drop(poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await);
                    return;
                }
                Err(error) => {
                    if !error.is::<application::Broken>() {
                        tracing::warn!(%error, "a file could not be read to its end");
                    }
                    outgoing.send_reset(h2::Reason::INTERNAL_ERROR);
                    return;
                }
            };
            let is_last = body.is_end_stream();
            match send(&mut outgoing, data, is_last, &mut progress).await {
                Ok(()) if is_last => return,
                Ok(()) => {}
                Err(reason @ Reason::ClientStalled) => {
                    outgoing.send_reset(h2::Reason::CANCEL);
                    self.requests.arrival.record(Phase::Http, &reason);
                    return;
                }
                Err(reason) => {
                    tracing::debug!(%reason, "the client left before its answer was sent");
                    return;
                }
            }
        }
        // It fails when the client has gone.
        drop(outgoing.send_data(Chunk::uncounted(Bytes::new()), true));
    }
}

type Piece = Result<Frame<Bytes>, Box<dyn std::error::Error + Send + Sync>>;

/// The next piece of an answer; `None` at its end, and when the client has reset the stream: it may be long until the next.
async fn next(body: &mut Body, outgoing: &mut SendStream<Chunk>) -> Option<Piece> {
    poll_fn(|cx| match outgoing.poll_reset(cx) {
        Poll::Ready(_) => Poll::Ready(None),
        Poll::Pending => Pin::new(&mut *body).poll_frame(cx),
    })
    .await
}

/// Sends as the client's windows allow.
async fn send(
    outgoing: &mut SendStream<Chunk>,
    mut data: Bytes,
    is_last: bool,
    progress: &mut Progress,
) -> Result<(), Reason> {
    let broke = |error| Reason::client_broke(http2::as_io(error));
    while !data.is_empty() {
        outgoing.reserve_capacity(data.len());
        while outgoing.capacity() == 0 {
            let room = poll_fn(|cx| outgoing.poll_capacity(cx));
            match timeout_at(progress.deadline(), room).await {
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(error))) => return Err(broke(error)),
                Ok(None) => return Err(Reason::Vanished),
                Err(_) => return Err(Reason::ClientStalled),
            }
        }
        let piece = data.split_to(outgoing.capacity().min(data.len()));
        progress.took(piece.len());
        let is_end = is_last && data.is_empty();
        outgoing
            .send_data(Chunk::uncounted(piece), is_end)
            .map_err(broke)?;
    }
    // The next piece may be long in coming, and that is not the client's fault.
    progress.nothing_waits();
    Ok(())
}

/// What hyper adds to an answer over HTTP/1.1.
/// To HEAD nothing is added: the body that is not sent has another length.
fn complete(headers: &mut HeaderMap, status: StatusCode, method: &Method, body: &Body) {
    let has_length = !status.is_informational()
        && method != Method::HEAD
        && status != StatusCode::NO_CONTENT
        && status != StatusCode::NOT_MODIFIED
        && !headers.contains_key(header::CONTENT_LENGTH);
    if has_length && let Some(length) = body.size_hint().exact() {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    headers.entry(header::DATE).or_insert_with(date);
}

/// Now, written once a second.
fn date() -> HeaderValue {
    thread_local! {
        static WRITTEN: RefCell<(u64, HeaderValue)> =
            const { RefCell::new((0, HeaderValue::from_static(""))) };
    }
    let now = SystemTime::now();
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    WRITTEN.with_borrow_mut(|(of, written)| {
        if *of != seconds
            && let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(now))
        {
            (*of, *written) = (seconds, date);
        }
        written.clone()
    })
}

/// A client may cut its cookies in pieces for HPACK; whoever reads them later expects one field (RFC 9113 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<_> = headers.get_all(header::COOKIE).iter().collect();
    if cookies.len() < 2 {
        return;
    }
    let joined = cookies
        .iter()
        .map(|cookie| cookie.as_bytes())
        .collect::<Vec<_>>()
        .join(&b"; "[..]);
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(header::COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_in_pieces_become_one_field() {
        let mut headers = HeaderMap::new();
        join_cookies(&mut headers);
        assert!(headers.is_empty());
        for (cookie, all) in [
            ("a=1", "a=1"),
            ("b=2", "a=1; b=2"),
            ("c=3", "a=1; b=2; c=3"),
        ] {
            headers.append(header::COOKIE, HeaderValue::from_static(cookie));
            join_cookies(&mut headers);
            let joined: Vec<_> = headers.get_all(header::COOKIE).iter().collect();
            assert_eq!(joined, [all]);
        }
    }
}
