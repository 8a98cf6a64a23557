//! What the first byte of a connection says of the mistake that its client made: half of the questions of beginners are a
//! right protocol on the wrong port.

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::outcome::{Phase, Reason};
use super::proxy_header::{self, HeaderError};
use crate::stream::reset_at_close;

/// Read at once: a hello with a post-quantum share fits, and a usual request.
const USUAL: usize = 2048;

/// What a client speaks, by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoken {
    /// A handshake record (RFC 8446 5.1).
    Tls,
    /// A CONNECT (MQTT 2.1).
    Mqtt,
    /// A letter, as every HTTP method begins with.
    Http,
    Other,
}

impl Spoken {
    pub(super) fn of(byte: u8) -> Self {
        match byte {
            0x16 => Self::Tls,
            0x10 => Self::Mqtt,
            b'A'..=b'Z' => Self::Http,
            _ => Self::Other,
        }
    }

    /// On a port that expects TLS.
    pub(super) fn mistake_on_tls(self) -> Option<Reason> {
        match self {
            Self::Mqtt => Some(Reason::MqttOnTls),
            Self::Http => Some(Reason::PlainHttpOnTls),
            Self::Tls | Self::Other => None,
        }
    }

    /// On a port that expects HTTP without TLS.
    pub(super) fn mistake_on_plain(self) -> Option<Reason> {
        match self {
            Self::Tls => Some(Reason::TlsOnPlain),
            Self::Mqtt => Some(Reason::MqttOnHttp),
            Self::Http | Self::Other => None,
        }
    }

    /// Inside TLS, where HTTP is expected.
    pub(super) fn mistake_inside_tls(self) -> Option<Reason> {
        match self {
            Self::Mqtt => Some(Reason::MqttInTls),
            Self::Tls | Self::Http | Self::Other => None,
        }
    }
}

/// What a connection begins with, behind the PROXY header that it may have.
pub(super) struct Beginning {
    pub(super) spoken: Spoken,
    /// The first bytes, which are taken.
    pub(super) taken: Vec<u8>,
}

/// Takes the first bytes. `uninvited` is what a PROXY header means here.
pub(super) async fn beginning(
    tcp: &mut TcpStream,
    uninvited: HeaderError,
    deadline: Instant,
) -> Result<Beginning, (Phase, Reason)> {
    let failed = |error| (Phase::Tls, Reason::ClientIo(error));
    let late = |_elapsed| (Phase::Tls, Reason::TlsTimeout);
    // Who is silent takes no memory.
    let come = timeout_at(deadline, tcp.readable()).await.map_err(late)?;
    come.map_err(failed)?;
    let mut taken = Vec::with_capacity(USUAL);
    loop {
        let read = timeout_at(deadline, tcp.read_buf(&mut taken)).await;
        let count = read.map_err(late)?.map_err(failed)?;
        let (Some(first), 1..) = (taken.first(), count) else {
            return Err((Phase::Tls, Reason::Vanished));
        };
        // At most a few bytes say `None`, so there is always room for more.
        match proxy_header::begins(&taken) {
            Some(false) => {
                return Ok(Beginning {
                    spoken: Spoken::of(*first),
                    taken,
                });
            }
            Some(true) => {
                reset_at_close(tcp);
                return Err((Phase::ProxyHeader, uninvited.into()));
            }
            None => {}
        }
    }
}

/// The answer to plain HTTP on a TLS port: whoever typed the URL reads it in the browser.
pub(super) const PLAIN_HTTP_ON_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
Content-Type: text/plain; charset=utf-8\r\n\
Content-Length: 109\r\n\
Connection: close\r\n\
\r\n\
This port speaks TLS, the request came without it: the URL must begin with https:// or wss://, not http/ws.\r\n";

#[cfg(test)]
mod tests {
    use super::PLAIN_HTTP_ON_TLS;

    #[test]
    fn the_answer_is_as_long_as_it_says() {
        let text = std::str::from_utf8(PLAIN_HTTP_ON_TLS).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("Content-Length: {}", body.len())),
            "{}",
            body.len()
        );
    }
}
