//! What a broker is told about a client: the PROXY header, and the headers of the upgrade.

use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::config::announcement::{Announcement, ProxyVersion};
use crate::config::model::{Forwarded, ForwardedPort};
use crate::identity::Identity;
use crate::proxy_protocol::{Header, Tls};

/// The PROXY header of one client.
pub fn announce(client: &Identity, version: ProxyVersion) -> Vec<u8> {
    let unique_id = client.unique_id.bytes();
    let common_name = client.common_name();
    let tls = client.tls.as_ref();
    // rustls says TLS13_…, everyone else TLS_… (RFC 8446 B.4).
    let cipher = tls.map(|tls| tls.cipher.replacen("TLS13_", "TLS_", 1));
    let header = Header {
        source: client.address,
        destination: client.local,
        alpn: tls.and_then(|tls| tls.alpn.as_deref()),
        authority: tls.and_then(|tls| tls.server_name.as_deref()),
        unique_id: Some(&unique_id),
        tls: tls.map(|tls| Tls {
            version: tls.version,
            cipher: cipher.as_deref().unwrap_or_default(),
            certificate: tls.certificate.is_some(),
            common_name,
        }),
    };
    let mut left_out = Vec::new();
    let bytes = header.encode(version, &mut left_out);
    for what in left_out {
        tracing::debug!(client = %client.address, session = %client.unique_id, "left out of the PROXY header: {what}");
    }
    bytes
}

/// The headers that the gateway answers for.
pub(super) fn own_headers(
    head: &mut String,
    forwarded: Forwarded,
    announcement: &Announcement,
    client: &Identity,
) {
    if forwarded.enabled {
        forwarded_headers(head, forwarded, client);
    }
    let Some(name) = &announcement.certificate_header else {
        return;
    };
    let Some(common_name) = client.common_name() else {
        return;
    };
    // SECURITY: whole or not at all, and never a line of its own.
    if common_name.chars().any(char::is_control) || common_name.trim() != common_name {
        tracing::debug!(client = %client.address, "a common name with odd characters is not sent in a header");
        return;
    }
    line(head, name, common_name);
}

fn forwarded_headers(head: &mut String, forwarded: Forwarded, client: &Identity) {
    let whence = Whence {
        address: client.address,
        chain: client.forwarded_for.as_deref(),
        secure: client.secure,
        local: client.local,
    };
    forwarded_fields(forwarded, &whence, |name, value| line(head, name, value));
}

/// Where a client comes from, as far as headers tell it.
#[derive(Debug)]
pub struct Whence<'a> {
    pub address: SocketAddr,
    /// The client and the proxies behind it; `None` where there is no proxy.
    pub chain: Option<&'a str>,
    pub secure: bool,
    /// What it connected to.
    pub local: SocketAddr,
}

/// Name and value of each header that tells it.
pub fn forwarded_fields(
    forwarded: Forwarded,
    client: &Whence<'_>,
    mut tell: impl FnMut(&'static str, &str),
) {
    // Bare addresses, the client's first: EMQX and VerneMQ read that one, and cannot with a port behind it.
    let address = client.address.ip().to_canonical().to_string();
    tell("X-Forwarded-For", client.chain.unwrap_or(&address));
    tell("X-Real-IP", &address);
    tell(
        "X-Forwarded-Proto",
        if client.secure { "https" } else { "http" },
    );
    let port = match forwarded.port {
        ForwardedPort::Listener => client.local.port(),
        ForwardedPort::Client => client.address.port(),
    };
    // 0: a trusted proxy named an address without one.
    if port != 0 {
        tell("X-Forwarded-Port", &port.to_string());
    }
}

/// The headers and cookies that the client sent and that may go along, as far as there is room.
pub(super) fn passed_headers(head: &mut String, announcement: &Announcement, client: &Identity) {
    /// The line that ends the head.
    const END: usize = 2;
    let mut pass = |name: &str, value: &str| {
        let length = name.len() + value.len() + ": \r\n".len();
        if head.len() + length + END > announcement.request_head {
            tracing::debug!(client = %client.address, session = %client.unique_id, header = name, "not passed on: no room in the request head (request_head)");
        } else {
            line(head, name, value);
        }
    };
    for name in &announcement.headers {
        for value in client.headers.get_all(name) {
            // HTTP allows other bytes, brokers do not all.
            match value.to_str() {
                Ok(value) => pass(name, value),
                Err(_) => {
                    tracing::debug!(client = %client.address, header = name, "not passed on: it is not ASCII")
                }
            }
        }
    }
    let cookies: Vec<&str> = client
        .headers
        .get_all(http::header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .map(str::trim)
        .filter(|cookie| {
            let name = cookie.split_once('=').map_or(*cookie, |(name, _)| name);
            announcement.cookies.iter().any(|known| known == name)
        })
        .collect();
    if !cookies.is_empty() {
        pass("Cookie", &cookies.join("; "));
    }
}

fn line(head: &mut String, name: &str, value: &str) {
    let written = write!(head, "{name}: {value}\r\n");
    debug_assert!(written.is_ok(), "writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::identity::UniqueId;

    fn told(port: ForwardedPort) -> String {
        let forwarded = Forwarded {
            enabled: true,
            port,
        };
        let client = Identity {
            address: "192.0.2.7:0".parse().unwrap(),
            local: "198.51.100.1:443".parse().unwrap(),
            forwarded_for: Some("192.0.2.7, 10.0.0.1".to_owned()),
            tls: None,
            secure: false,
            host: None,
            path: "/mqtt".to_owned(),
            headers: HeaderMap::new(),
            unique_id: UniqueId::random(),
        };
        let mut head = String::new();
        forwarded_headers(&mut head, forwarded, &client);
        head
    }

    #[test]
    fn trusted_proxies_stand_behind_the_client() {
        assert_eq!(
            told(ForwardedPort::Listener),
            "X-Forwarded-For: 192.0.2.7, 10.0.0.1\r\nX-Real-IP: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n\
             X-Forwarded-Port: 443\r\n"
        );
    }

    #[test]
    fn a_port_that_nobody_knows_is_not_told() {
        assert!(!told(ForwardedPort::Client).contains("X-Forwarded-Port"));
    }
}
