//! A connection to one server of an application, which carries one request at a time; and the idle ones that are kept.
//!
//! INVARIANT: a link belongs to the worker that made it. Whoever holds it polls it: no task stands between the client's
//! connection and the application's, and a link that nobody polls reads nothing, which is the back-pressure.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep};

use super::request::Outgoing;
use super::wire::{Deaf, Wire};
use crate::stream::Stream;
use crate::telemetry::metrics::Name;

/// Read at once and held for one link: also the longest head of an answer.
const BUFFER: usize = 64 * 1024;

/// Fields in the head of an answer, as many as hyper's server takes.
const HEADERS: usize = 100;

/// How soon an idle link that the application has closed is let go.
const TICK: Duration = Duration::from_secs(1);

type Answering = Pin<
    Box<dyn Future<Output = Result<Response<Incoming>, TrySendError<Request<Outgoing>>>> + Send>,
>;

pub(super) struct Link {
    sender: http1::SendRequest<Outgoing>,
    connection: http1::Connection<TokioIo<Wire>, Outgoing>,
    deaf: Deaf,
    over: bool,
    /// By its server's label.
    pub(super) server: Name,
    /// It has carried a request before: it may be closing just now.
    pub(super) is_reused: bool,
}

impl Link {
    pub(super) async fn new(stream: Stream, server: Name) -> Result<Box<Self>, hyper::Error> {
        let (wire, deaf) = Wire::new(stream);
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(BUFFER)
            .max_headers(HEADERS)
            .handshake(TokioIo::new(wire))
            .await?;
        Ok(Box::new(Self {
            sender,
            connection,
            deaf,
            over: false,
            server,
            is_reused: false,
        }))
    }

    /// Moves bytes both ways.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        // How it ended is told to whoever waits for an answer, or for the rest of one.
        self.over = self.over || self.connection.poll_without_shutdown(cx).is_ready();
    }

    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// The answer needs the link polled.
    pub(super) fn send(&mut self, request: Request<Outgoing>) -> Answering {
        Box::pin(self.sender.try_send_request(request))
    }

    /// Another request may be sent.
    fn is_free(&self) -> bool {
        !self.over && !self.deaf.is_deaf() && self.sender.is_ready()
    }

    /// The stream, once a 101 has ended HTTP on it, and what came behind it.
    pub(super) fn into_stream(self) -> (Stream, Bytes) {
        let parts = self.connection.into_parts();
        (parts.io.into_inner().into_inner(), parts.read_buf)
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Link")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

/// The idle links of one worker. Dropping it closes them.
#[derive(Debug)]
pub(super) struct Shelf {
    most: usize,
    links: Mutex<Links>,
}

#[derive(Debug, Default)]
struct Links {
    /// The one that was used last is the last.
    kept: Vec<Kept>,
    /// Somebody looks for those that were closed, or are too old.
    is_watched: bool,
}

#[derive(Debug)]
struct Kept {
    link: Box<Link>,
    until: Instant,
}

impl Shelf {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            links: Mutex::default(),
        })
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The link to the server that was used last, so that those too many grow old. Looked at first: it may be over.
    pub(super) fn take(&self, server: &Name, cx: &mut Context<'_>) -> Option<Box<Link>> {
        let mut links = self.links();
        let now = Instant::now();
        while let Some(at) = links
            .kept
            .iter()
            .rposition(|kept| kept.link.server == *server)
        {
            let Kept { mut link, until } = links.kept.swap_remove(at);
            link.poll(cx);
            if link.is_free() && until > now {
                link.is_reused = true;
                return Some(link);
            }
        }
        None
    }

    /// Keeps a link whose answer was read to its end; one that cannot be used again is closed, and so is the oldest of too
    /// many.
    pub(super) fn put(self: &Arc<Self>, mut link: Box<Link>, idle: Duration, cx: &mut Context<'_>) {
        // The connection must see the end, too.
        link.poll(cx);
        if !link.is_free() || self.most == 0 {
            return;
        }
        let mut links = self.links();
        if links.kept.len() >= self.most {
            links.kept.remove(0);
        }
        links.kept.push(Kept {
            link,
            until: Instant::now() + idle,
        });
        if !links.is_watched {
            links.is_watched = true;
            watch(Arc::downgrade(self));
        }
    }

    /// Lets go of those that are over. False when none is left, and nobody is needed to look again.
    fn tidy(&self, cx: &mut Context<'_>) -> bool {
        let mut links = self.links();
        let now = Instant::now();
        links.kept.retain_mut(|kept| {
            kept.link.poll(cx);
            kept.link.is_free() && kept.until > now
        });
        links.is_watched = !links.kept.is_empty();
        links.is_watched
    }
}

/// Once a second rather than at each request's end: that would be a switch of tasks for each of them.
#[expect(
    clippy::disallowed_methods,
    reason = "it serves no client, and ends with the shelf or when that is empty"
)]
fn watch(shelf: Weak<Shelf>) {
    drop(tokio::spawn(async move {
        loop {
            sleep(TICK).await;
            let Some(shelf) = shelf.upgrade() else {
                return;
            };
            let more = std::future::poll_fn(|cx| Poll::Ready(shelf.tidy(cx))).await;
            if !more {
                return;
            }
        }
    }));
}
