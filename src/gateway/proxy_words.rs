//! What a whole PROXY header says: addresses, and of TLS what the proxy saw. Pure.

use std::net::{IpAddr, SocketAddr};

use proxy_header::{ParseConfig, Protocol, ProxyHeader, SslInfo};

use super::proxy_header::{HeaderError, V1, V2_START};
use crate::identity::{Certificate, Tls, UniqueId};
use crate::proxy_protocol::crc32c;

/// What a trusted proxy says of a connection.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The client and what it connected to; `None` where the proxy speaks for itself (a health check) or does not know.
    pub(super) addresses: Option<(SocketAddr, SocketAddr)>,
    /// How the client came to the proxy.
    pub(super) tls: Option<Tls>,
    /// What the proxy calls the connection.
    pub(super) unique_id: Option<UniqueId>,
}

/// A whole header.
pub(super) fn parse(header: &[u8]) -> Result<Told, HeaderError> {
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
    let unique_id = parsed.unique_id().and_then(UniqueId::told);
    Ok(Told {
        addresses,
        tls,
        unique_id,
    })
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::gateway::proxy_header::V2;

    use super::*;

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
