//! The body of an answer: a file that is read while it is sent, or a page held in memory.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tower_http::services::fs::ServeFileSystemResponseBody;

/// Sent by `SiteService`. An error is that of reading the file, and ends the response early.
pub enum Body {
    File(ServeFileSystemResponseBody),
    Page(Full<Bytes>),
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::File(file) => Pin::new(file).poll_frame(context),
            Self::Page(page) => Pin::new(page)
                .poll_frame(context)
                .map_err(|never| match never {}),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::File(file) => file.is_end_stream(),
            Self::Page(page) => page.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::File(file) => file.size_hint(),
            Self::Page(page) => page.size_hint(),
        }
    }
}
