//! The PROXY protocol's header (HAProxy's proxy-protocol.txt, sections 2.1 and 2.2), written. No I/O.
//!
//! Never longer than `LONGEST`, and never with a control character in a text: brokers close on either without a word.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use proxy_header::{ProxiedAddress, ProxyHeader, SslInfo, Tlv};

use crate::config::announcement::ProxyVersion;

/// mosquitto 2.1 refuses more behind the first 16 bytes (`src/proxy_v2.c`); these are counted in.
pub const LONGEST: usize = 500;

/// Signature, command, family and length (2.2).
const FIXED: usize = 16;

/// The TLV of the checksum: type, length, value (2.2.3).
const CHECKSUM: usize = 7;

/// Of a DNS name (RFC 1035 2.3.4).
const LONGEST_AUTHORITY: usize = 253;

/// Twice the 64 characters of X.520's ub-common-name: they need not be ASCII.
const LONGEST_COMMON_NAME: usize = 128;

/// What a header tells.
#[derive(Debug, Clone)]
pub struct Header<'a> {
    /// The client.
    pub source: SocketAddr,
    /// What it connected to.
    pub destination: SocketAddr,
    pub alpn: Option<&'a [u8]>,
    /// The name that the client asked for.
    pub authority: Option<&'a str>,
    pub unique_id: Option<&'a [u8]>,
    /// `None` when the client came without TLS.
    pub tls: Option<Tls<'a>>,
}

/// How the client came over TLS.
#[derive(Debug, Clone)]
pub struct Tls<'a> {
    pub version: &'a str,
    pub cipher: &'a str,
    /// It showed a certificate, and that was verified.
    pub certificate: bool,
    /// Of that certificate.
    pub common_name: Option<&'a str>,
}

/// What a header left out, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeftOut {
    #[error("{0} has characters that a broker refuses")]
    Characters(&'static str),
    #[error("{0} is too long")]
    TooLong(&'static str),
    #[error("there is no room for {0}")]
    NoRoom(&'static str),
}

impl Header<'_> {
    /// The whole header, to be the first bytes of a connection in one write: mosquitto 2.1 reads its start once.
    pub fn encode(&self, version: ProxyVersion, left_out: &mut Vec<LeftOut>) -> Vec<u8> {
        match version {
            ProxyVersion::V1 => self.v1(),
            ProxyVersion::V2 => self.v2(0, left_out),
            ProxyVersion::V2Crc32c => {
                let mut bytes = self.v2(CHECKSUM, left_out);
                add_checksum(&mut bytes);
                bytes
            }
        }
    }

    /// Both addresses in one family: where one is IPv4 and the other is not, IPv4 is mapped (RFC 4291 2.5.5.2).
    fn addresses(&self) -> (SocketAddr, SocketAddr) {
        let (source, destination) = (canonical(self.source), canonical(self.destination));
        match source.is_ipv4() == destination.is_ipv4() {
            true => (source, destination),
            false => (mapped(source), mapped(destination)),
        }
    }

    fn v1(&self) -> Vec<u8> {
        let (source, destination) = self.addresses();
        let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        format!(
            "PROXY {family} {} {} {} {}\r\n",
            text(source.ip()),
            text(destination.ip()),
            source.port(),
            destination.port()
        )
        .into_bytes()
    }

    /// With so many bytes of the room left to whoever adds something.
    fn v2(&self, reserved: usize, left_out: &mut Vec<LeftOut>) -> Vec<u8> {
        let (source, destination) = self.addresses();
        let addresses = if source.is_ipv4() { 12 } else { 36 };
        let mut room = LONGEST - FIXED - addresses - reserved;
        let mut header = ProxyHeader::with_address(ProxiedAddress::stream(source, destination));
        // The most important first: who the client is, then what it asked for, then what helps to find its session.
        let tlvs = [
            ("the TLS TLV", self.ssl(left_out)),
            ("the server name", self.authority(left_out)),
            (
                "the unique id",
                self.unique_id.map(|id| Tlv::UniqueId(Cow::Borrowed(id))),
            ),
            (
                "the application protocol",
                self.alpn.map(|name| Tlv::Alpn(Cow::Borrowed(name))),
            ),
        ];
        for (name, tlv) in tlvs {
            let Some(tlv) = tlv else { continue };
            let mut bytes = Vec::with_capacity(64);
            tlv.encode(&mut bytes);
            match room.checked_sub(bytes.len()) {
                Some(left) => {
                    room = left;
                    header.append_tlv(tlv);
                }
                None => left_out.push(LeftOut::NoRoom(name)),
            }
        }
        let mut bytes = Vec::with_capacity(LONGEST);
        let encoded = header.encode_v2(&mut bytes);
        debug_assert!(encoded.is_ok(), "a Vec has room, and the length fits");
        bytes
    }

    fn authority(&self, left_out: &mut Vec<LeftOut>) -> Option<Tlv<'_>> {
        let name = sound(
            "the server name",
            self.authority?,
            LONGEST_AUTHORITY,
            left_out,
        )?;
        Some(Tlv::Authority(Cow::Borrowed(name)))
    }

    fn ssl(&self, left_out: &mut Vec<LeftOut>) -> Option<Tlv<'_>> {
        let tls = self.tls.as_ref()?;
        // CERT_SESS is what mosquitto 2.1 looks at; a resumed session keeps its certificate. 0: it was verified.
        let mut ssl = SslInfo::new(true, tls.certificate, tls.certificate, 0);
        ssl.append_tlv(Tlv::SslVersion(Cow::Borrowed(tls.version)));
        ssl.append_tlv(Tlv::SslCipher(Cow::Borrowed(tls.cipher)));
        // SECURITY: a broker may take it for the user name. Whole or not at all: a part of it is somebody else's.
        let common_name = tls.common_name.filter(|_| tls.certificate);
        if let Some(name) = common_name.and_then(|name| {
            sound(
                "the certificate's common name",
                name,
                LONGEST_COMMON_NAME,
                left_out,
            )
        }) {
            ssl.append_tlv(Tlv::SslCn(Cow::Borrowed(name)));
        }
        Some(Tlv::Ssl(ssl))
    }
}

/// Appends the TLV: the sum of the whole header, with zeros where the sum will stand.
fn add_checksum(header: &mut Vec<u8>) {
    header.extend_from_slice(&[0x03, 0, 4, 0, 0, 0, 0]);
    let length = u16::try_from(header.len() - FIXED).unwrap_or(u16::MAX);
    header[FIXED - 2..FIXED].copy_from_slice(&length.to_be_bytes());
    let at = header.len() - 4;
    let sum = crc32c(header);
    header[at..].copy_from_slice(&sum.to_be_bytes());
}

/// RFC 3720 B.4, bit by bit: a header is short and a table would not be.
pub fn crc32c(bytes: &[u8]) -> u32 {
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

/// The text, if a broker will take it. EMQX closes on a control character in one of these.
fn sound<'a>(
    what: &'static str,
    text: &'a str,
    longest: usize,
    left_out: &mut Vec<LeftOut>,
) -> Option<&'a str> {
    let fault = if text.chars().any(char::is_control) {
        LeftOut::Characters(what)
    } else if text.len() > longest {
        LeftOut::TooLong(what)
    } else {
        return (!text.is_empty()).then_some(text);
    };
    left_out.push(fault);
    None
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

/// Version 1 knows hexadecimal groups alone (2.1), and `Display` writes a mapped address with dots.
fn text(address: IpAddr) -> String {
    let IpAddr::V6(ip) = address else {
        return address.to_string();
    };
    match ip.to_ipv4_mapped() {
        Some(_) => {
            let groups = ip.segments();
            format!("::ffff:{:x}:{:x}", groups[6], groups[7])
        }
        None => ip.to_string(),
    }
}
