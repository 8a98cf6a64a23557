//! HTTP/2 without what its requests mean (RFC 9113, RFC 8441): a connection with bounds on everything that its client can
//! make it hold or do, and a stream of it that a session reads and writes like a connection of its own.

mod chunk;
mod gather;
mod stream;
#[cfg(test)]
mod tests;
mod watch;

use std::io;
use std::sync::Arc;

use h2::server;
use tokio::io::{AsyncRead, AsyncWrite};

pub use self::chunk::Chunk;
pub use self::stream::Http2Stream;
pub use self::watch::{Watch, Watched};

/// What a client may send on one stream before it is read: a session reads 64 KiB at once, so more would only wait here.
const STREAM_WINDOW: u32 = 64 * 1024 - 1;

/// What a stream may hand over before the socket has taken it.
const UNSENT: usize = 64 * 1024;

/// What h2 may hold of small frames that no session has taken, each counted as 256 bytes: some thirty thousand. A turn of the
/// connection's task brings four thousand at most, so a burst is no flood.
const SMALL_FRAMES: usize = 8 * 1024 * 1024;

/// Streams that the client has reset before they were accepted, and those that we reset for its mistakes. Browsers make
/// none of either (CVE-2023-44487, CVE-2025-8671).
const RESET_BEFORE_ACCEPTED: usize = 20;
const RESET_FOR_MISTAKES: usize = 100;

/// Streams that we have reset and whose last frames may still come.
const RESET_BY_US: usize = 50;

/// One client's connection.
pub type Connection<T> = server::Connection<Watched<T>, Chunk>;

/// What a client may have at once.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub streams: u32,
    /// A request's head, decoded.
    pub head: usize,
}

/// Speaks HTTP/2's preface. `unsent`: bytes that the stream took and its socket did not.
///
/// INVARIANT: the connection's window is the sum of its streams' windows, so that a stream that nobody reads holds up no
/// other.
///
/// # Errors
/// The client's connection broke, or its preface is none.
pub async fn accept<T>(
    stream: T,
    unsent: fn(&T) -> usize,
    bounds: Bounds,
) -> Result<(Connection<T>, Arc<Watch>), h2::Error>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let (stream, watch) = Watched::new(stream, unsent);
    let connection = server::Builder::new()
        .enable_connect_protocol()
        .max_concurrent_streams(bounds.streams)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW.saturating_mul(bounds.streams))
        .max_send_buffer_size(UNSENT)
        .data_frame_budget(SMALL_FRAMES)
        .max_header_list_size(u32::try_from(bounds.head).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(RESET_BEFORE_ACCEPTED)
        .max_local_error_reset_streams(Some(RESET_FOR_MISTAKES))
        .max_concurrent_reset_streams(RESET_BY_US)
        .handshake(stream)
        .await?;
    Ok((connection, watch))
}

/// As if the stream were a connection of its own: a reset is a reset, and the end of the connection is everyone's.
pub fn as_io(error: h2::Error) -> io::Error {
    if error.is_io() {
        return match error.into_io() {
            Some(error) => error,
            None => io::ErrorKind::BrokenPipe.into(),
        };
    }
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}
