//! The body of an application's answer on its way to the client: each piece is passed on when it comes, and none is asked
//! for before the client has taken the one before it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Instant;

use super::Reporter;
use super::exchange::Alarm;
use super::failure::Failure;
use super::link::{Link, Shelf};
use super::request::Upload;
use crate::gateway::admission::Permit;
use crate::lifecycle::Membership;
use crate::pool::Seat;

/// The body that a client is sent. Dropped before its end, it takes the connection to the application with it: that is how
/// the application hears that the client has left.
#[derive(Debug)]
pub(in crate::gateway) struct Answer {
    incoming: Incoming,
    /// `None` when all of it is here.
    flow: Option<Box<Flow>>,
}

/// What moves a body, and what it holds until its end.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) link: Box<Link>,
    pub(super) shelf: Arc<Shelf>,
    /// How long the link may be kept; `None`: not at all.
    pub(super) idle: Option<Duration>,
    pub(super) upload: Arc<Upload>,
    pub(super) alarm: Alarm,
    /// Longest silence; `None` for event streams.
    pub(super) patience: Option<Duration>,
    /// An event stream's place in the drain, which it has to leave like a session.
    pub(super) membership: Option<Membership>,
    pub(super) seat: Seat,
    pub(super) reporter: Reporter,
    /// Of a request over HTTP/2, whose connection's own place stands for one connection to a server, not for many.
    pub(super) _permit: Option<Permit>,
    /// Since when nothing moves.
    pub(super) silent: Option<(Instant, u64)>,
}

/// The answer cannot be sent to its end: the client must see that, too.
#[derive(Debug, thiserror::Error)]
#[error("the web application's answer ended early")]
pub(in crate::gateway) struct Broken;

impl Answer {
    pub(super) fn new(incoming: Incoming, flow: Box<Flow>, cx: &mut Context<'_>) -> Self {
        let mut answer = Self {
            incoming,
            flow: Some(flow),
        };
        if answer.incoming.is_end_stream() {
            answer.finish(cx);
        }
        answer
    }

    /// All of it is here: the link may serve another request, unless this one's body is still on its way.
    fn finish(&mut self, cx: &mut Context<'_>) {
        let Some(flow) = self.flow.take() else {
            return;
        };
        if flow.upload.has_ended()
            && let Some(idle) = flow.idle
        {
            flow.shelf.put(flow.link, idle, cx);
        }
    }

    fn fail(&mut self, failure: &Failure) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(flow) = self.flow.take() {
            flow.reporter.broke(&flow.seat, failure);
        }
        Poll::Ready(Some(Err(Broken)))
    }
}

impl Flow {
    /// Ready when it has to end, and how.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Option<Failure>> {
        if let Some(membership) = &self.membership
            && membership.poll_asked(cx).is_ready()
        {
            return Poll::Ready(None);
        }
        let Some(patience) = self.patience else {
            return Poll::Pending;
        };
        let moved = self.upload.moved();
        let since = match self.silent {
            Some((since, at)) if at == moved => since,
            _ => Instant::now(),
        };
        self.silent = Some((since, moved));
        let late = match self.upload.has_ended() {
            false if self.upload.waits_for_client() => Failure::ClientStalled,
            _ => Failure::AnswerStalled,
        };
        self.alarm.poll(since + patience, cx).map(|()| Some(late))
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        let mut polled = false;
        loop {
            match Pin::new(&mut this.incoming).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some(flow) = &mut this.flow {
                        flow.silent = None;
                    }
                    if this.incoming.is_end_stream() {
                        this.finish(cx);
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                Poll::Ready(Some(Err(error))) => {
                    let fault = this.flow.as_ref().and_then(|flow| flow.upload.fault());
                    let failure = fault.map_or(Failure::AnswerBroke(error), Failure::from);
                    return this.fail(&failure);
                }
                Poll::Ready(None) => {
                    this.finish(cx);
                    return Poll::Ready(None);
                }
                Poll::Pending => {}
            }
            let Some(flow) = &mut this.flow else {
                return Poll::Pending;
            };
            if polled {
                break;
            }
            // Only now: the link reads what is asked for.
            polled = true;
            flow.link.poll(cx);
        }
        let ended = match &mut this.flow {
            Some(flow) => flow.poll_end(cx),
            None => Poll::Pending,
        };
        match ended {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(failure)) => this.fail(&failure),
            Poll::Ready(None) => {
                // An event stream that ends is opened again by its page.
                this.flow = None;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
