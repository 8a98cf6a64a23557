//! HTTP/2 on one connection: requests go where those of HTTP/1.1 go, accepted upgrades become sessions beside them.
//!
//! The connection's task moves the bytes of all its streams and lives as long as they do; each request and each session
//! has a task of its own. It sends no PING: nothing waits here without a deadline, and a peer that is gone is TCP's to
//! notice (`stream::tune`).

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::RecvStream;
use h2::server::SendResponse;
use http::Request;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::connection::{Arrival, Counted};
use super::http::Requests;
use super::http2_request::{Open, RequestStream};
use super::outcome::{Phase, Reason};
use super::prefixed::Prefixed;
use crate::config::model::Timeouts;
use crate::http2::{self, Bounds, Chunk, Connection, Watch};
use crate::lifecycle::Drain;

/// For our last frames, and for the client's closing.
const GOODBYE: Duration = Duration::from_secs(2);

/// During a drain: for the client's answer to GOAWAY, when nothing else is open; and after a cut, for the goodbyes of
/// sessions to leave.
const HURRY: Duration = Duration::from_secs(1);

/// A connection that agreed on HTTP/2.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) stream: Prefixed,
    pub(super) arrival: Arrival,
}

/// Serves one connection to its end, and to that of its last session.
pub(super) async fn run(start: Box<Start>, counted: Counted) {
    if let Err(reason) = Box::pin(serve(*start)).await {
        counted.record(Phase::Http, &reason);
    }
}

async fn serve(start: Start) -> Result<(), Reason> {
    let snapshot = Arc::clone(&start.arrival.snapshot);
    let drain = start.arrival.gateway.drain.clone();
    let bounds = Bounds {
        streams: snapshot.limits.streams,
        head: snapshot.limits.request_head,
    };
    let deadline = Instant::now() + snapshot.timeouts.request;
    let accepting = http2::accept(start.stream, Prefixed::unsent, bounds);
    // CANCEL: a cut ends the connection where it stands.
    let (connection, watch) = tokio::select! {
        accepted = timeout_at(deadline, accepting) => match accepted {
            Ok(accepted) => accepted.map_err(broke)?,
            Err(_) => return Err(Reason::RequestTimeout),
        },
        () = drain.cut() => return Ok(()),
    };
    let now = Instant::now();
    let mut driver = Driver {
        connection,
        watch,
        requests: Arc::new(Requests::new(start.arrival)),
        open: Arc::default(),
        timeouts: snapshot.timeouts,
        idle_since: Some(now),
        asked: false,
        ending: None,
        timer: Box::pin(sleep_until(deadline)),
    };
    driver.run(&snapshot.over, &drain).await
}

/// How a connection ended that h2 ended.
fn broke(error: h2::Error) -> Reason {
    if error.is_io() {
        return Reason::client_broke(http2::as_io(error));
    }
    match error.reason() {
        // The client's own GOAWAY: it is leaving.
        _ if error.is_remote() => Reason::Vanished,
        Some(h2::Reason::ENHANCE_YOUR_CALM) => Reason::Http2Flood,
        _ => Reason::Http2(error),
    }
}

/// Moves the bytes of one connection, hands its streams out, and decides when it is over.
struct Driver {
    connection: Connection<Prefixed>,
    watch: Arc<Watch>,
    requests: Arc<Requests>,
    open: Arc<Open>,
    timeouts: Timeouts,
    /// Since when nobody is served; `None` while somebody is.
    idle_since: Option<Instant>,
    /// At least one request came.
    asked: bool,
    /// Our last frames are leaving: until when they may, and how it ends.
    ending: Option<(Instant, Option<Reason>)>,
    timer: Pin<Box<Sleep>>,
}

impl Driver {
    /// `over` says when no more streams are to begin.
    async fn run(&mut self, over: &CancellationToken, drain: &Drain) -> Result<(), Reason> {
        let mut over = pin!(over.cancelled());
        let mut closing = pin!(drain.closing());
        let mut cut = pin!(drain.cut());
        let (mut is_told, mut is_drained, mut is_closing, mut is_cut) = (false, false, false, None);
        poll_fn(|cx| {
            is_told = is_told || over.as_mut().poll(cx).is_ready();
            // Of a drain behind a reload: it waits for no first request.
            is_drained = is_drained || is_told && closing.as_mut().poll(cx).is_ready();
            // Where nobody is to be refused, the first request is still waited for.
            if is_told && !is_closing && (drain.is_refusing() || self.asked) {
                is_closing = true;
                self.connection.graceful_shutdown();
            }
            if is_cut.is_none() && cut.as_mut().poll(cx).is_ready() {
                is_cut = Some(Instant::now() + HURRY);
            }
            self.open.wake(cx.waker());
            self.watch.begin_turn();
            if let Poll::Ready(ended) = self.poll_streams(cx) {
                return Poll::Ready(ended);
            }
            if self.watch.end_turn()
                && let Poll::Ready(ended) = self.poll_streams(cx)
            {
                return Poll::Ready(ended);
            }
            let now = Instant::now();
            let is_served = self.open.is_served();
            self.idle_since = match self.idle_since {
                _ if is_served => None,
                since => since.or(Some(now)),
            };
            if let Some(deadline) = is_cut
                && (deadline <= now || !is_served && !self.connection.has_streams())
            {
                return Poll::Ready(Ok(()));
            }
            self.watch_the_clock(is_closing, is_cut, cx)
        })
        .await
    }

    /// Everything that can move without waiting. Ready when the connection is over.
    fn poll_streams(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        loop {
            if self.watch.is_flooded() && self.ending.is_none() {
                self.end(h2::Reason::ENHANCE_YOUR_CALM, Some(Reason::Http2Flood));
            }
            match self.connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) if self.ending.is_none() => {
                    self.asked = true;
                    self.serve(request, respond);
                }
                // Nobody hears what they are answered.
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(Err(self.ended().unwrap_or_else(|| broke(error))));
                }
                Poll::Ready(None) => {
                    return Poll::Ready(self.ended().map_or(Ok(()), Err));
                }
                Poll::Pending if self.watch.is_flooded() && self.ending.is_none() => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Says GOAWAY and lets nobody begin.
    fn end(&mut self, code: h2::Reason, reason: Option<Reason>) {
        self.connection.abrupt_shutdown(code);
        self.ending = Some((Instant::now() + GOODBYE, reason));
    }

    fn ended(&mut self) -> Option<Reason> {
        self.ending.as_mut().and_then(|(_, reason)| reason.take())
    }

    fn watch_the_clock(
        &mut self,
        is_closing: bool,
        cut: Option<Instant>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Reason>> {
        loop {
            let stalled = self.watch.blocked_since();
            let stalled = stalled.map(|since| since + self.timeouts.write);
            let patience = match is_closing {
                true => HURRY.min(self.timeouts.request),
                false => self.timeouts.request,
            };
            let idle = self.idle_since.map(|since| since + patience);
            let ending = self.ending.as_ref().map(|(deadline, _)| *deadline);
            let closing = self.watch.closing_since();
            let closing = closing.map(|since| since + self.linger());
            let now = Instant::now();
            let is_over = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now);
            if is_over(ending) {
                return Poll::Ready(self.ended().map_or(Ok(()), Err));
            }
            if is_over(closing) {
                // The next turn says how it ended.
                self.watch.leave();
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if is_over(stalled) {
                return Poll::Ready(Err(Reason::ClientStalled));
            }
            if is_over(idle) && ending.is_none() {
                let reason = (!self.asked && !is_closing).then_some(Reason::RequestTimeout);
                self.end(h2::Reason::NO_ERROR, reason);
                // GOAWAY is written at the next turn.
                cx.waker().wake_by_ref();
                continue;
            }
            let idle = idle.filter(|_| ending.is_none());
            let earliest = [ending, closing, stalled, idle, cut]
                .into_iter()
                .flatten()
                .min();
            let Some(deadline) = earliest else {
                return Poll::Pending;
            };
            if deadline != self.timer.deadline() {
                self.timer.as_mut().reset(deadline);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if is_over(cut) {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// How long the client may take to close in its turn.
    fn linger(&self) -> Duration {
        // A drain does not wait for clients that have their answers.
        match self.requests.arrival.gateway.drain.is_closing() {
            true => Duration::ZERO,
            false => GOODBYE,
        }
    }

    fn serve(&self, request: Request<RecvStream>, respond: SendResponse<Chunk>) {
        let patience = self.timeouts.write;
        let stream = RequestStream::new(&self.requests, respond, patience, &self.open);
        let drain = &self.requests.arrival.gateway.drain;
        drain.spawn(stream.serve(request));
    }
}
