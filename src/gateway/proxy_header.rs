//! The PROXY header (HAProxy's proxy-protocol.txt, versions 1 and 2) that a load balancer sends before anything else.
//!
//! SECURITY: it is read from trusted networks only, and there it must come; nowhere is it guessed. Not one byte behind it
//! is taken. Whoever may send it may name any client, so a header that is wrong in any way ends the connection.

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::outcome::Reason;
use super::proxy_words::{Told, parse};

pub(super) const V1: &[u8] = b"PROXY ";
pub(super) const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest line of version 1, its end included (proxy-protocol.txt 2.1).
const LONGEST_V1: usize = 107;

/// Signature, version and command, family, length.
pub(super) const V2_START: usize = 16;

/// More than any sender has to tell: a client certificate in DER is the largest that is known. The format allows 64 KiB.
const LONGEST_V2: usize = 4096;

/// What is wrong with the beginning of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("PROXY protocol from an address that is not in listeners[..].proxy_protocol.trusted")]
    Untrusted,
    #[error(
        "PROXY protocol on a listener without proxy_protocol: set its `trusted` to the networks of the load balancers"
    )]
    Unexpected,
    #[error("a second PROXY header: one of the load balancers in front must not add its own")]
    Second,
    #[error(
        "no PROXY header from an address in listeners[..].proxy_protocol.trusted: does the load balancer send it?"
    )]
    Missing,
    #[error("no complete PROXY header came in time (timeouts.tls)")]
    Late,
    #[error("the connection ended inside the PROXY header")]
    Truncated,
    #[error(
        "the PROXY header is longer than {LONGEST_V1} bytes (version 1) or {LONGEST_V2} (version 2)"
    )]
    TooLong,
    #[error("the checksum of the PROXY header is wrong")]
    Checksum,
    #[error("the PROXY header has an address family that is not known for TCP")]
    Family,
    #[error("the PROXY header is malformed")]
    Malformed,
}

impl HeaderError {
    /// The label in metrics and logs.
    pub fn why(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::Unexpected => "unexpected",
            Self::Second => "second",
            Self::Missing => "missing",
            Self::Late => "timeout",
            Self::Truncated => "truncated",
            Self::TooLong => "too_long",
            Self::Checksum => "checksum",
            Self::Family => "family",
            Self::Malformed => "malformed",
        }
    }
}

/// Whether a connection that begins so begins with a header; `None` while more bytes must tell.
pub(super) fn begins(bytes: &[u8]) -> Option<bool> {
    let may_be = |signature: &[u8]| {
        let common = bytes.len().min(signature.len());
        bytes[..common] == signature[..common]
    };
    match (may_be(V1), may_be(V2)) {
        (true, _) if bytes.len() >= V1.len() => Some(true),
        (_, true) if bytes.len() >= V2.len() => Some(true),
        (false, false) => Some(false),
        _undecided => None,
    }
}

/// Reads the header and nothing behind it.
pub(super) async fn read(tcp: &mut TcpStream, deadline: Instant) -> Result<Told, Reason> {
    let mut reading = Reading {
        tcp,
        deadline,
        header: Vec::with_capacity(256),
    };
    while begins(&reading.header) != Some(true) {
        // Both signatures are shorter than the shortest header, so this takes nothing that is behind one.
        let missing = if reading.header.starts_with(b"P") {
            V1.len()
        } else {
            V2.len()
        };
        match reading.some(missing).await {
            // A balancer that only looks whether the port is open.
            Err(Reason::ProxyHeader(HeaderError::Truncated)) if reading.header.is_empty() => {
                return Err(Reason::Vanished);
            }
            other => other?,
        }
        if begins(&reading.header) == Some(false) {
            return Err(HeaderError::Missing.into());
        }
    }
    match reading.header.starts_with(V1) {
        true => reading.line().await?,
        false => reading.block().await?,
    }
    Ok(parse(&reading.header)?)
}

struct Reading<'a> {
    tcp: &'a mut TcpStream,
    deadline: Instant,
    header: Vec<u8>,
}

impl Reading<'_> {
    /// Takes at least one byte, up to that many in all.
    async fn some(&mut self, upto: usize) -> Result<(), Reason> {
        let have = self.header.len();
        self.header.resize(upto.max(have + 1), 0);
        let read = timeout_at(self.deadline, self.tcp.read(&mut self.header[have..])).await;
        let count = match read {
            Ok(Ok(count)) => count,
            Ok(Err(error)) => return Err(Reason::ClientIo(error)),
            Err(_) => {
                self.header.truncate(have);
                return Err(HeaderError::Late.into());
            }
        };
        self.header.truncate(have + count);
        match count {
            0 => Err(HeaderError::Truncated.into()),
            _ => Ok(()),
        }
    }

    /// Version 1: to the end of the line. What is behind it is seen, but not taken.
    async fn line(&mut self) -> Result<(), Reason> {
        let mut ahead = [0; LONGEST_V1];
        while !self.header.ends_with(b"\n") {
            let left = LONGEST_V1 - self.header.len();
            if left == 0 {
                return Err(HeaderError::TooLong.into());
            }
            let peeked = timeout_at(self.deadline, self.tcp.peek(&mut ahead[..left])).await;
            let count = match peeked {
                Ok(Ok(0)) => return Err(HeaderError::Truncated.into()),
                Ok(Ok(count)) => count,
                Ok(Err(error)) => return Err(Reason::ClientIo(error)),
                Err(_) => return Err(HeaderError::Late.into()),
            };
            let end = ahead[..count].iter().position(|byte| *byte == b'\n');
            let take = self.header.len() + end.map_or(count, |end| end + 1);
            while self.header.len() < take {
                self.some(take).await?;
            }
        }
        Ok(())
    }

    /// Version 2: its length stands in it.
    async fn block(&mut self) -> Result<(), Reason> {
        while self.header.len() < V2_START {
            self.some(V2_START).await?;
        }
        let length = V2_START + usize::from(u16::from_be_bytes([self.header[14], self.header[15]]));
        if length > LONGEST_V2 {
            return Err(HeaderError::TooLong.into());
        }
        while self.header.len() < length {
            self.some(length).await?;
        }
        Ok(())
    }
}

impl From<HeaderError> for Reason {
    fn from(error: HeaderError) -> Self {
        Self::ProxyHeader(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_is_told_as_soon_as_it_can_be() {
        for (bytes, expected) in [
            (&b""[..], None),
            (b"P", None),
            (b"PROX", None),
            (b"PO", Some(false)),
            (b"PROXY ", Some(true)),
            (b"\r\n\r\n", None),
            (b"\r\nG", Some(false)),
            (b"\r\n\r\n\0\r\nQUIT\n", Some(true)),
            (b"\x16", Some(false)),
        ] {
            assert_eq!(begins(bytes), expected, "{bytes:?}");
        }
    }
}
