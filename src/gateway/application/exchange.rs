//! One request over one link, to the head of its answer. The caller's task moves both connections.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::failure::Failure;
use super::link::Link;
use super::request::{Outgoing, Upload};
use crate::config::model::ApplicationTimeouts;

/// A client that waits for "100 Continue" is told to go on after this long by ourselves: an application need not know of it
/// (RFC 9110 10.1.1), and curl waits as long.
const CONTINUE: Duration = Duration::from_secs(1);

/// A timer that is seldom moved: it is set when a deadline comes closer, and looked at again when it rings.
#[derive(Debug)]
pub(super) struct Alarm(Pin<Box<Sleep>>);

impl Alarm {
    pub(super) fn new(at: Instant) -> Self {
        Self(Box::pin(tokio::time::sleep_until(at)))
    }

    /// Ready when the deadline is over.
    pub(super) fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if deadline < self.0.deadline() {
                self.0.as_mut().reset(deadline);
            }
            if self.0.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            self.0.as_mut().reset(deadline);
        }
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) failure: Failure,
    /// The request, where no byte of it has left.
    pub(super) unsent: Option<Box<Request<Outgoing>>>,
}

/// Sends the request and waits for the head of the answer, while the body of the request goes on its way.
pub(super) async fn ask(
    link: &mut Link,
    request: Request<Outgoing>,
    upload: &Arc<Upload>,
    timeouts: &ApplicationTimeouts,
    alarm: &mut Alarm,
) -> Result<Response<Incoming>, Unanswered> {
    let begun = Instant::now();
    let (mut since, mut moved) = (begun, upload.moved());
    let mut answering = link.send(request);
    poll_fn(|cx| {
        // What the request needs is asked for first, so that the answer is seen in the same turn.
        link.poll(cx);
        if let Poll::Ready(answer) = answering.as_mut().poll(cx) {
            return Poll::Ready(answer.map_err(|mut error| {
                let unsent = error.take_message().map(Box::new);
                let failure = failure(error.into_error(), upload);
                Unanswered { failure, unsent }
            }));
        }
        if link.is_over() {
            return Poll::Ready(Err(Failure::Closed.into()));
        }
        let now = upload.moved();
        if now != moved {
            (since, moved) = (Instant::now(), now);
        }
        if upload.is_held() {
            if alarm.poll(begun + CONTINUE, cx).is_pending() {
                return Poll::Pending;
            }
            since = Instant::now();
            // It wakes this task, which then moves the body.
            upload.release();
            cx.waker().wake_by_ref();
        }
        let (patience, late) = match (upload.has_ended(), upload.waits_for_client()) {
            (true, _) => (timeouts.head, Failure::HeadTimeout),
            (false, true) => (timeouts.stall, Failure::ClientStalled),
            (false, false) => (timeouts.stall, Failure::RequestStalled),
        };
        alarm.poll(since + patience, cx).map(|()| Err(late.into()))
    })
    .await
}

impl From<Failure> for Unanswered {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            unsent: None,
        }
    }
}

fn failure(error: hyper::Error, upload: &Upload) -> Failure {
    match upload.fault() {
        Some(fault) => fault.into(),
        None if error.is_incomplete_message() || error.is_canceled() || error.is_closed() => {
            Failure::Closed
        }
        None if error.is_parse() => Failure::Garbage(error),
        None if was_reset(&error) => Failure::Closed,
        None => Failure::Io(error),
    }
}

/// It closed with bytes of the request unread: a fast application that is gone, or a request it did not want to hear.
fn was_reset(error: &hyper::Error) -> bool {
    use std::error::Error as _;
    let io = error
        .source()
        .and_then(|source| source.downcast_ref::<std::io::Error>());
    io.is_some_and(|io| {
        matches!(
            io.kind(),
            std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe
        )
    })
}
