//! The PROXY header (HAProxy's proxy-protocol.txt, versions 1 and 2) that a load balancer sends before anything else.
//!
//! SECURITY: it is read from trusted networks only, and there it must come; nowhere is it guessed. Not one byte behind it
//! is taken. Whoever may send it may name any client, so a header that is wrong in any way ends the connection.

use std::net::{IpAddr, SocketAddr};

use proxy_header::{ParseConfig, Protocol, ProxyHeader, SslInfo};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::outcome::Reason;
use crate::identity::{Certificate, Tls};

const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes that tell a header from everything else.
pub(super) const TELLING: usize = V2.len();

/// The longest line of version 1, its end included (proxy-protocol.txt 2.1).
const LONGEST_V1: usize = 107;

/// Signature, version and command, family, length.
const V2_START: usize = 16;

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

/// What a trusted proxy says of a connection.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The client and what it connected to; `None` where the proxy speaks for itself (a health check) or does not know.
    pub(super) addresses: Option<(SocketAddr, SocketAddr)>,
    /// How the client came to the proxy.
    pub(super) tls: Option<Tls>,
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

/// A whole header.
fn parse(header: &[u8]) -> Result<Told, HeaderError> {
    match header.starts_with(V1) {
        true => check_v1(header)?,
        false if is_local(header)? => return Ok(Told::default()),
        false => check_v2(header)?,
    }
    let (parsed, used) = ProxyHeader::parse(header, ParseConfig::default())
        .map_err(|_error| HeaderError::Malformed)?;
    if used != header.len() {
        return Err(HeaderError::Malformed);
    }
    let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let addresses = match parsed.proxied_address() {
        Some(named) if named.protocol == Protocol::Stream => {
            Some((plain(named.source), plain(named.destination)))
        }
        Some(_) => return Err(HeaderError::Family),
        None => None,
    };
    let authority = parsed.authority().and_then(server_name);
    let tls = parsed
        .ssl()
        .filter(SslInfo::client_ssl)
        .map(|ssl| tls(&ssl, authority));
    Ok(Told { addresses, tls })
}

fn check_v1(line: &[u8]) -> Result<(), HeaderError> {
    let known = [
        &b"PROXY TCP4 "[..],
        b"PROXY TCP6 ",
        b"PROXY UNKNOWN\r",
        b"PROXY UNKNOWN ",
    ];
    if !known.iter().any(|start| line.starts_with(start)) {
        return Err(HeaderError::Family);
    }
    // Rust reads `+443` as a number, the protocol does not.
    match line.contains(&b'+') {
        true => Err(HeaderError::Malformed),
        false => Ok(()),
    }
}

/// LOCAL: the connection is the proxy's own, most often a health check. Everything else in the header is to be ignored.
fn is_local(header: &[u8]) -> Result<bool, HeaderError> {
    match header[12] {
        0x20 => Ok(true),
        0x21 => Ok(false),
        _other => Err(HeaderError::Malformed),
    }
}

/// Family, TLVs and their checksum.
fn check_v2(header: &[u8]) -> Result<(), HeaderError> {
    const CRC32C: u8 = 0x03;
    let addresses = match header[13] {
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        0x31 => 216,
        _other => return Err(HeaderError::Family),
    };
    let mut at = V2_START + addresses;
    if at > header.len() {
        return Err(HeaderError::Malformed);
    }
    while at < header.len() {
        let start = header.get(at..at + 3).ok_or(HeaderError::Malformed)?;
        let value = at + 3;
        at = value + usize::from(u16::from_be_bytes([start[1], start[2]]));
        let bytes = header.get(value..at).ok_or(HeaderError::Malformed)?;
        if start[0] == CRC32C {
            let told =
                <[u8; 4]>::try_from(bytes).map_err(|_wrong_length| HeaderError::Malformed)?;
            let mut zeroed = header.to_vec();
            zeroed[value..at].fill(0);
            if crc32c(&zeroed) != u32::from_be_bytes(told) {
                return Err(HeaderError::Checksum);
            }
        }
    }
    Ok(())
}

/// RFC 3720 B.4, bit by bit: a header is short and a table would not be.
fn crc32c(bytes: &[u8]) -> u32 {
    const REVERSED_POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            let carry = sum & 1;
            sum >>= 1;
            if carry == 1 {
                sum ^= REVERSED_POLYNOMIAL;
            }
        }
    }
    !sum
}

/// SECURITY: a name that a TLS client could not have sent goes nowhere.
fn server_name(name: &str) -> Option<String> {
    let fits = (1..=253).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    (fits || name.parse::<IpAddr>().is_ok()).then(|| name.to_ascii_lowercase())
}

/// How the client came to the proxy, and whom its certificate named if the proxy verified one.
fn tls(ssl: &SslInfo<'_>, server_name: Option<String>) -> Tls {
    const VERSIONS: [&str; 4] = ["TLSv1.3", "TLSv1.2", "TLSv1.1", "TLSv1"];
    let version = ssl.version().unwrap_or_default();
    let verified = ssl.verify() == 0 && (ssl.client_cert_conn() || ssl.client_cert_sess());
    let common_name = ssl
        .cn()
        .filter(|name| verified && !name.is_empty() && !name.chars().any(char::is_control));
    Tls {
        version: VERSIONS
            .into_iter()
            .find(|known| *known == version)
            .unwrap_or("unknown"),
        cipher: "unknown",
        server_name,
        alpn: None,
        certificate: common_name.map(|name| Certificate {
            common_name: Some(name.to_owned()),
            subject: crate::certificates::subject_of(name),
            names: Vec::new(),
            serial: String::new(),
            der: Vec::new(),
        }),
    }
}

impl From<HeaderError> for Reason {
    fn from(error: HeaderError) -> Self {
        Self::ProxyHeader(error)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_checksum_is_that_of_rfc_3720() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

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

    proptest! {
        #[test]
        fn no_header_panics(version in any::<bool>(), rest in prop::collection::vec(any::<u8>(), 4..300)) {
            let mut header = if version { V1.to_vec() } else { V2.to_vec() };
            header.extend_from_slice(&rest);
            let _told = parse(&header);
        }

        #[test]
        fn no_tlv_panics(rest in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut header = V2.to_vec();
            header.extend_from_slice(&[0x21, 0x00]);
            header.extend_from_slice(&u16::try_from(rest.len()).unwrap().to_be_bytes());
            header.extend_from_slice(&rest);
            let _told = parse(&header);
        }
    }
}
