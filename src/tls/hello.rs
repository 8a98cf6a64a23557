//! A client's first message (RFC 8446 4.1.2), read whole before anything is computed for it: one that is too long or never
//! ends costs its bytes and nothing else, and what it prefers is known before a configuration is chosen.

use std::{io, iter};

use rustls::server::Acceptor;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::server_name::ServerName;

/// As long as BoringSSL takes it. Two key shares, one of them post-quantum, and a ticket that holds a client's certificate
/// are some 4 KiB.
const LONGEST: usize = 16 * 1024;

/// With the heads of its records, of which there is one most often; some clients cut the message into many.
const LONGEST_WITH_HEADS: usize = LONGEST + 4 * 1024;

/// Read at once: a hello with a post-quantum share fits.
const USUAL: usize = 2048;

/// Type, version, length (RFC 8446 5.1).
const RECORD_HEAD: usize = 5;
const HANDSHAKE: u8 = 22;
const LONGEST_RECORD: usize = 1 << 14;

/// Type and length (RFC 8446 4).
const MESSAGE_HEAD: usize = 4;
const CLIENT_HELLO: u8 = 1;

/// Extensions (RFC 7301 3.1, RFC 8446 4.2).
const ALPN: u16 = 16;
const PRE_SHARED_KEY: u16 = 41;

/// The message's head, version and random.
const BEFORE_SESSION: usize = MESSAGE_HEAD + 2 + 32;

const CHACHA: [u16; 3] = [0x1303, 0xcca8, 0xcca9];

/// What a hello asks for.
#[derive(Debug)]
pub struct Asked {
    pub name: Option<ServerName>,
    /// ALPN (RFC 7301).
    pub protocols: Vec<Vec<u8>>,
}

/// The bytes of a hello, not yet shown to rustls. Whether they are right is rustls' to say.
#[derive(Debug, Default)]
pub struct Hello {
    bytes: Vec<u8>,
    /// Where the first record begins that has not come whole.
    next: usize,
    /// Bytes of the message in the records before it.
    come: usize,
    /// The message's head, which may come in pieces as well.
    head: [u8; MESSAGE_HEAD],
}

impl Hello {
    /// Takes it off the connection, of which `begun` was taken already. It has no deadline of its own.
    ///
    /// # Errors
    /// The connection ended or broke, or the message is too long.
    pub async fn read(tcp: &mut TcpStream, begun: Vec<u8>) -> io::Result<Self> {
        let mut hello = Self {
            bytes: begun,
            ..Self::default()
        };
        while !hello.is_whole()? {
            let room = LONGEST_WITH_HEADS.saturating_sub(hello.bytes.len());
            if room == 0 {
                return Err(too_long());
            }
            if hello.bytes.len() == hello.bytes.capacity() {
                hello.bytes.reserve(USUAL.min(room));
            }
            let mut some = (&mut *tcp).take(room as u64);
            if some.read_buf(&mut hello.bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(hello)
    }

    /// The client names ChaCha20 before all else, as those do whose processors have no instructions for AES.
    pub fn prefers_chacha(&self) -> bool {
        let record = self.bytes.get(RECORD_HEAD..).unwrap_or_default();
        first_suite(record).is_some_and(|suite| CHACHA.contains(&suite))
    }

    /// A second ticket would be for nothing: this client shows one, so another in its place is enough, though it be refused;
    /// or it names no application protocol, as no browser does, and has one connection at a time.
    pub fn needs_one_ticket(&self) -> bool {
        if self.next > 0 {
            // In several records, whose heads stand in between.
            return false;
        }
        let record = self.bytes.get(RECORD_HEAD..).unwrap_or_default();
        let mut shows_one = false;
        let mut names_protocol = false;
        let Some(extensions) = extensions(record) else {
            return false;
        };
        for extension in extensions {
            shows_one |= extension == PRE_SHARED_KEY;
            names_protocol |= extension == ALPN;
        }
        shows_one || !names_protocol
    }

    /// As rustls reads it; `None` where it cannot.
    pub fn asked(&self) -> Option<Asked> {
        let mut acceptor = Acceptor::default();
        let mut rest = self.bytes.as_slice();
        loop {
            // Nothing is read of a hello that is not whole.
            if acceptor.read_tls(&mut rest).ok()? == 0 {
                return None;
            }
            if let Some(accepted) = acceptor.accept().ok()? {
                let hello = accepted.client_hello();
                let protocols = hello.alpn().into_iter().flatten();
                return Some(Asked {
                    name: hello.server_name().map(str::to_owned),
                    protocols: protocols.map(<[u8]>::to_vec).collect(),
                });
            }
        }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Also of what is no hello: rustls says what is wrong with it.
    fn is_whole(&mut self) -> io::Result<bool> {
        while let Some(&[kind, _, _, high, low]) =
            self.bytes.get(self.next..self.next + RECORD_HEAD)
        {
            let length = usize::from(u16::from_be_bytes([high, low]));
            if kind != HANDSHAKE || length == 0 || length > LONGEST_RECORD {
                return Ok(true);
            }
            let begin = self.next + RECORD_HEAD;
            let payload = &self.bytes[begin..];
            let payload = payload.get(..length).unwrap_or(payload);
            for (to, byte) in self.head.iter_mut().skip(self.come).zip(payload) {
                *to = *byte;
            }
            let come = self.come + payload.len();
            if come >= MESSAGE_HEAD {
                let [kind, a, b, c] = self.head;
                let length = u32::from_be_bytes([0, a, b, c]);
                let length = MESSAGE_HEAD + usize::try_from(length).unwrap_or(usize::MAX);
                if kind != CLIENT_HELLO || come >= length {
                    return Ok(true);
                }
                if length > LONGEST {
                    return Err(too_long());
                }
            }
            if payload.len() < length {
                return Ok(false);
            }
            self.next = begin + length;
            self.come = come;
        }
        Ok(false)
    }
}

fn too_long() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        rustls::Error::InvalidMessage(rustls::InvalidMessage::HandshakePayloadTooLarge),
    )
}

/// Values that mean nothing are left out: clients send them so that servers go on expecting new ones (RFC 8701).
fn first_suite(message: &[u8]) -> Option<u16> {
    let session = usize::from(*message.get(BEFORE_SESSION)?);
    let rest = message.get(BEFORE_SESSION + 1 + session..)?;
    let (length, rest) = rest.split_first_chunk()?;
    let suites = rest.get(..usize::from(u16::from_be_bytes(*length)))?;
    let is_meant = |[high, low]: [u8; 2]| high != low || high & 0x0f != 0x0a;
    let (suites, _odd) = suites.as_chunks();
    let first = suites.iter().copied().find(|suite| is_meant(*suite))?;
    Some(u16::from_be_bytes(first))
}

/// The types of a message's extensions; `None` where the message is cut before they begin.
fn extensions(message: &[u8]) -> Option<impl Iterator<Item = u16>> {
    let session = message.get(BEFORE_SESSION..)?;
    let suites = behind(session, 1)?;
    let compressions = behind(suites, 2)?;
    let (length, list) = behind(compressions, 1)?.split_first_chunk()?;
    let mut list = list.get(..usize::from(u16::from_be_bytes(*length)))?;
    Some(iter::from_fn(move || {
        let (kind, content) = list.split_first_chunk()?;
        list = behind(content, 2).unwrap_or_default();
        Some(u16::from_be_bytes(*kind))
    }))
}

/// What stands behind a vector, whose length takes that many bytes (RFC 8446 3.4).
fn behind(bytes: &[u8], length: usize) -> Option<&[u8]> {
    let (length, content) = bytes.split_at_checked(length)?;
    let length = length
        .iter()
        .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    content.get(length..)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hello that names these suites, in records of that many bytes.
    fn hello(suites: &[u16], record: usize) -> Vec<u8> {
        hello_with(suites, &[], record)
    }

    /// And has extensions of these types, each longer than the one before.
    fn hello_with(suites: &[u16], extensions: &[u16], record: usize) -> Vec<u8> {
        let mut body = vec![0; 34];
        body.extend([2, 9, 9]);
        let count = u16::try_from(suites.len() * 2).unwrap();
        body.extend(count.to_be_bytes());
        body.extend(suites.iter().flat_map(|suite| suite.to_be_bytes()));
        body.extend([1, 0]);
        if !extensions.is_empty() {
            let lengths = (0..extensions.len()).map(|place| 4 + place * 150);
            let count = u16::try_from(lengths.sum::<usize>()).unwrap();
            body.extend(count.to_be_bytes());
        }
        for (place, extension) in extensions.iter().enumerate() {
            let length = u16::try_from(place * 150).unwrap();
            body.extend([extension.to_be_bytes(), length.to_be_bytes()].concat());
            body.extend(vec![PRE_SHARED_KEY.to_be_bytes()[1]; length.into()]);
        }
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        let mut message = vec![CLIENT_HELLO];
        message.extend(&length[1..]);
        message.extend(body);
        let records = message.chunks(record).flat_map(|piece| {
            let length = u16::try_from(piece.len()).unwrap().to_be_bytes();
            [&[HANDSHAKE, 3, 1][..], &length, piece].concat()
        });
        records.collect()
    }

    fn of(bytes: &[u8]) -> Hello {
        Hello {
            bytes: bytes.to_vec(),
            ..Hello::default()
        }
    }

    #[test]
    fn a_hello_is_whole_with_its_last_byte_however_it_is_cut() {
        for record in [1, 3, 4, 5, 40, 1000] {
            let bytes = hello(&[0x1301, 0x1302], record);
            let mut growing = Hello::default();
            for (at, byte) in bytes.iter().enumerate() {
                assert!(!growing.is_whole().unwrap(), "after {at} bytes of {record}");
                growing.bytes.push(*byte);
            }
            assert!(growing.is_whole().unwrap(), "{record}");
        }
    }

    #[test]
    fn what_is_no_hello_is_left_to_rustls_at_once() {
        for bytes in [
            &[23, 3, 3, 0, 1][..],
            &[HANDSHAKE, 3, 1, 0, 0],
            &[HANDSHAKE, 3, 1, 0xff, 0xff],
            &[HANDSHAKE, 3, 1, 0, 4, 2, 0, 0, 9],
            b"GET / HTTP/1.1",
        ] {
            assert!(of(bytes).is_whole().unwrap(), "{bytes:?}");
        }
    }

    #[test]
    fn a_hello_that_says_that_it_is_too_long_is_not_waited_for() {
        let longest = u16::try_from(LONGEST - MESSAGE_HEAD).unwrap();
        let [high, low] = longest.to_be_bytes();
        let head = |low| [HANDSHAKE, 3, 1, 0, 4, CLIENT_HELLO, 0, high, low];
        assert!(!of(&head(low)).is_whole().unwrap());
        assert!(of(&head(low + 1)).is_whole().is_err());
        assert!(
            of(&[HANDSHAKE, 3, 1, 0, 4, CLIENT_HELLO, 1, 0, 0])
                .is_whole()
                .is_err()
        );
    }

    #[test]
    fn one_ticket_is_for_whom_no_second_would_serve() {
        const SNI: u16 = 0;
        for (extensions, expected) in [
            (&[][..], false),
            (&[SNI], true),
            (&[SNI, ALPN, 43], false),
            (&[SNI, 43, PRE_SHARED_KEY], true),
            (&[ALPN, PRE_SHARED_KEY], true),
        ] {
            let whole = hello_with(&[0x1301], extensions, 1000);
            assert_eq!(of(&whole).needs_one_ticket(), expected, "{extensions:?}");
            // Its heads are no part of the message: nothing is read of one that is cut into records.
            let mut records = of(&hello_with(&[0x1301], extensions, 45));
            assert!(records.is_whole().unwrap() && !records.needs_one_ticket());
            // rustls has the word on what has not come whole.
            for end in 0..whole.len() {
                assert!(
                    !of(&whole[..end]).needs_one_ticket(),
                    "{end} of {extensions:?}"
                );
            }
        }
    }

    #[test]
    fn a_client_prefers_what_it_names_first() {
        for (suites, expected) in [
            (&[0x1303, 0x1301][..], true),
            (&[0x0a0a, 0xcca9, 0xc02b], true),
            (&[0xcca8], true),
            (&[0x1301, 0x1303], false),
            (&[0x1304, 0x1303], false),
            (&[0x0a1a, 0x1303], false),
            (&[], false),
        ] {
            assert_eq!(
                of(&hello(suites, 1000)).prefers_chacha(),
                expected,
                "{suites:x?}"
            );
        }
        let whole = hello(&[0x1303], 1000);
        for end in 0..BEFORE_SESSION + 8 {
            assert!(!of(&whole[..end]).prefers_chacha(), "{end} bytes");
        }
    }
}
