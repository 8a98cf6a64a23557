//! The body of a request on its way to an application: a piece is taken from the client when the application's connection
//! takes it, so a client sends no faster than its application reads.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use atomic_waker::AtomicWaker;
use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// As it comes from a client, by either version of HTTP.
#[derive(Debug)]
pub(in crate::gateway) enum RequestBody {
    Http1(Incoming),
    Http2(RecvStream),
}

impl From<Incoming> for RequestBody {
    fn from(body: Incoming) -> Self {
        Self::Http1(body)
    }
}

impl From<RecvStream> for RequestBody {
    fn from(body: RecvStream) -> Self {
        Self::Http2(body)
    }
}

/// Why a request could not be sent to its end. The client's doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UploadFault {
    /// It left, or its framing is broken.
    Broke,
    TooLarge,
}

/// What is known of a body beside it, while the connection to the application owns it.
#[derive(Debug, Default)]
pub(super) struct Upload {
    /// Pieces that were passed on, and the end.
    moved: AtomicU64,
    ended: AtomicBool,
    /// The application would take more, and the client has sent none.
    waits_for_client: AtomicBool,
    /// 0, or one more than an `UploadFault`.
    fault: AtomicU8,
    /// The client waits for "100 Continue" of the application (RFC 9110 10.1.1).
    held: AtomicBool,
    waker: AtomicWaker,
}

impl Upload {
    pub(super) fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    pub(super) fn waits_for_client(&self) -> bool {
        self.waits_for_client.load(Ordering::Relaxed)
    }

    pub(super) fn fault(&self) -> Option<UploadFault> {
        match self.fault.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(UploadFault::Broke),
            _ => Some(UploadFault::TooLarge),
        }
    }

    pub(super) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// Until `release`, the client is not told to go on.
    pub(super) fn hold(&self) {
        self.held.store(true, Ordering::Release);
    }

    pub(super) fn release(&self) {
        if self.held.swap(false, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    fn failed(&self, fault: UploadFault) {
        let number = match fault {
            UploadFault::Broke => 1,
            UploadFault::TooLarge => 2,
        };
        self.fault.store(number, Ordering::Relaxed);
    }

    fn move_on(&self, ended: bool) {
        self.moved.fetch_add(1, Ordering::Relaxed);
        self.waits_for_client.store(false, Ordering::Relaxed);
        if ended {
            self.ended.store(true, Ordering::Relaxed);
        }
    }
}

/// The body that a connection to an application sends.
#[derive(Debug)]
pub(super) struct Outgoing {
    source: Source,
    upload: Arc<Upload>,
    /// Bytes that may still come.
    left: u64,
}

#[derive(Debug)]
enum Source {
    Nothing,
    Http1(Incoming),
    /// With what is left of its Content-Length; the crate sees to it that the two agree (RFC 9113 8.1.1).
    Http2(RecvStream, Option<u64>),
}

impl Outgoing {
    /// At most `most` bytes of it.
    pub(super) fn new(body: RequestBody, headers: &HeaderMap, most: Option<u64>) -> Self {
        let source = match body {
            RequestBody::Http1(body) if body.is_end_stream() => Source::Nothing,
            RequestBody::Http1(body) => Source::Http1(body),
            RequestBody::Http2(body) if body.is_end_stream() => Source::Nothing,
            RequestBody::Http2(body) => match content_length(headers) {
                Some(0) => Source::Nothing,
                length => Source::Http2(body, length),
            },
        };
        let outgoing = Self {
            source,
            upload: Arc::default(),
            left: most.unwrap_or(u64::MAX),
        };
        outgoing
            .upload
            .ended
            .store(outgoing.is_end_stream(), Ordering::Relaxed);
        outgoing
    }

    pub(super) fn empty() -> Self {
        Self {
            source: Source::Nothing,
            upload: Arc::new(Upload {
                ended: AtomicBool::new(true),
                ..Upload::default()
            }),
            left: 0,
        }
    }

    pub(super) fn upload(&self) -> Arc<Upload> {
        Arc::clone(&self.upload)
    }
}

pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The operator hears of it by `Upload::fault`.
#[derive(Debug, thiserror::Error)]
#[error("the body of the request ended early")]
pub(super) struct EndedEarly;

impl Source {
    /// Trailers are left out: what was to follow them is checked by nobody (RFC 9110 6.5.1).
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, UploadFault>>> {
        match self {
            Self::Nothing => Poll::Ready(None),
            Self::Http1(body) => match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => Poll::Ready(frame.into_data().ok().map(Ok)),
                Some(Err(_)) => Poll::Ready(Some(Err(UploadFault::Broke))),
                None => Poll::Ready(None),
            },
            Self::Http2(body, left) => match ready!(body.poll_data(cx)) {
                Some(Ok(data)) => {
                    // It fails when the stream is over, which the next piece tells.
                    drop(body.flow_control().release_capacity(data.len()));
                    *left = left.map(|left| left.saturating_sub(data.len() as u64));
                    Poll::Ready(Some(Ok(data)))
                }
                Some(Err(_)) => Poll::Ready(Some(Err(UploadFault::Broke))),
                None => Poll::Ready(None),
            },
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = EndedEarly;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, EndedEarly>>> {
        let this = self.get_mut();
        if this.upload.is_held() {
            this.upload.waker.register(cx.waker());
            if this.upload.is_held() {
                return Poll::Pending;
            }
        }
        let fault = match this.source.poll(cx) {
            Poll::Pending => {
                this.upload.waits_for_client.store(true, Ordering::Relaxed);
                return Poll::Pending;
            }
            Poll::Ready(None) => {
                this.upload.move_on(true);
                return Poll::Ready(None);
            }
            Poll::Ready(Some(Ok(data))) => match this.left.checked_sub(data.len() as u64) {
                Some(left) => {
                    this.left = left;
                    this.upload.move_on(this.is_end_stream());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                None => UploadFault::TooLarge,
            },
            Poll::Ready(Some(Err(fault))) => fault,
        };
        this.upload.failed(fault);
        Poll::Ready(Some(Err(EndedEarly)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Nothing => true,
            Source::Http1(body) => body.is_end_stream(),
            // END_STREAM may come in a frame of its own, for which nobody waits.
            Source::Http2(body, left) => *left == Some(0) || body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Nothing => SizeHint::with_exact(0),
            Source::Http1(body) => body.size_hint(),
            Source::Http2(_, Some(left)) => SizeHint::with_exact(*left),
            Source::Http2(_, None) => SizeHint::default(),
        }
    }
}
