//! Who the client is behind HTTP proxies, and whether it came over TLS: `X-Forwarded-For` and `X-Forwarded-Proto`, or
//! `Forwarded` (RFC 7239), read from the right.
//!
//! SECURITY: the first address from the right that is not a trusted proxy is the client. Everything to the left of it is
//! what that client claims, and is dropped here: brokers such as EMQX take the leftmost address for the client.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::FORWARDED;

use crate::config::networks::Networks;

const X_FORWARDED_FOR: &str = "x-forwarded-for";
const X_FORWARDED_PROTO: &str = "x-forwarded-proto";

/// Who came, as far as it can be believed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Client {
    /// Port 0 where no proxy told one.
    pub(super) address: SocketAddr,
    /// The client, then every proxy behind it, the last one whom we saw ourselves; `None` when there is none.
    pub(super) chain: Option<String>,
    /// Whether it came over TLS; `None` where no proxy tells.
    pub(super) secure: Option<bool>,
}

/// `peer` is who sent the request; only a trusted one is asked for whom.
pub(super) fn client(headers: &HeaderMap, peer: SocketAddr, trusted: &Networks) -> Client {
    let nobody = Client {
        address: peer,
        chain: None,
        secure: None,
    };
    if !trusted.contains(peer.ip()) {
        return nobody;
    }
    let of = |hops: Vec<Option<Hop>>| walk(hops, trusted);
    let (plain, standard) = (of(x_forwarded_for(headers)), of(forwarded(headers)));
    let is_standard = plain.is_empty();
    let path = match (plain.is_empty(), standard.is_empty()) {
        (true, true) => return nobody,
        (false, true) => plain,
        (true, false) => standard,
        // SECURITY: a proxy writes one of them and lets a client's forgery of the other pass. Where they name two clients,
        // nothing tells which one is forged.
        (false, false)
            if plain.last().map(|hop| hop.address) != standard.last().map(|hop| hop.address) =>
        {
            return nobody;
        }
        (false, false) => plain,
    };
    let Some(client) = path.last() else {
        return nobody;
    };
    let address = SocketAddr::new(client.address, client.port);
    let mut chain: Vec<String> = path
        .iter()
        .rev()
        .map(|hop| hop.address.to_string())
        .collect();
    chain.push(peer.ip().to_canonical().to_string());
    Client {
        address,
        chain: Some(chain.join(", ")),
        // SECURITY: who writes `Forwarded` alone lets a client's `X-Forwarded-Proto` pass.
        secure: match is_standard {
            true => client.secure,
            false => proto(headers, path.len()),
        },
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hop {
    address: IpAddr,
    port: u16,
    /// `proto=` of the same element.
    secure: Option<bool>,
}

/// The hops that can be believed, from the right; the last one is the client. An entry that is no address ends the walk,
/// and so does the first address that is nobody's proxy.
fn walk(hops: Vec<Option<Hop>>, trusted: &Networks) -> Vec<Hop> {
    let mut path = Vec::new();
    for hop in hops.into_iter().rev().map_while(|hop| hop) {
        path.push(hop);
        if !trusted.contains(hop.address) {
            break;
        }
    }
    path
}

/// `X-Forwarded-Proto` of the proxy that is so many hops away, which the client itself came to. Most proxies write one
/// value for it in the place of all others, some append their own.
///
/// SECURITY: what stands further to the left is the client's.
fn proto(headers: &HeaderMap, hops: usize) -> Option<bool> {
    let values = headers.get_all(X_FORWARDED_PROTO).iter();
    let told: Vec<Option<bool>> = values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|value| is_secure(std::str::from_utf8(value).ok()?))
        .collect();
    match told[..] {
        [only] => only,
        _ => *told.get(told.len().checked_sub(hops)?)?,
    }
}

fn is_secure(proto: &str) -> Option<bool> {
    let proto = proto.trim();
    let is = |names: [&str; 2]| names.iter().any(|name| proto.eq_ignore_ascii_case(name));
    if is(["https", "wss"]) {
        Some(true)
    } else {
        is(["http", "ws"]).then_some(false)
    }
}

/// From left to right; `None` for an entry that cannot be read.
fn x_forwarded_for(headers: &HeaderMap) -> Vec<Option<Hop>> {
    let values = headers.get_all(X_FORWARDED_FOR).iter();
    let entries = values.flat_map(|value| {
        let entries = value.as_bytes().split(|byte| *byte == b',');
        entries.map(|entry| hop(std::str::from_utf8(entry).ok()?.trim()))
    });
    entries.collect()
}

fn forwarded(headers: &HeaderMap) -> Vec<Option<Hop>> {
    let mut hops = Vec::new();
    for value in headers.get_all(FORWARDED) {
        let text = String::from_utf8_lossy(value.as_bytes());
        // SECURITY: `for=6.6.6.6;x="` of a client would swallow what the proxy writes behind it. Proxies close their quotes,
        // so an odd one is a client's, and without escapes an even number of them cannot shift what is quoted.
        if text.contains('\\') || text.matches('"').count() % 2 == 1 {
            hops.push(None);
            continue;
        }
        for element in split(&text, ',') {
            let value = |wanted: &str| {
                let mut pairs = split(element, ';').filter_map(|pair| pair.trim().split_once('='));
                let (_, value) =
                    pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted))?;
                Some(value.trim().trim_matches('"'))
            };
            hops.push(value("for").and_then(hop).map(|hop| Hop {
                secure: value("proto").and_then(is_secure),
                ..hop
            }));
        }
    }
    hops
}

/// Splits outside of quoted strings (RFC 9110 5.6.4).
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |letter: char| {
        quoted ^= letter == '"';
        letter == separator && !quoted
    })
}

/// `192.0.2.1`, `192.0.2.1:5678`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:5678`.
fn hop(text: &str) -> Option<Hop> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    let address = match bare.parse::<IpAddr>() {
        Ok(address) => SocketAddr::new(address, 0),
        Err(_not_bare) => text.parse::<SocketAddr>().ok()?,
    };
    Some(Hop {
        address: address.ip().to_canonical(),
        port: address.port(),
        secure: None,
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn trusted() -> Networks {
        Networks(vec![
            "10.0.0.0/8".parse().unwrap(),
            "2001:db8:1::/48".parse().unwrap(),
        ])
    }

    fn seen(peer: &str, headers: &[(&'static str, &str)]) -> (String, Option<String>) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                HeaderName::from_static(name),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        let client = client(&map, SocketAddr::new(peer.parse().unwrap(), 7), &trusted());
        (client.address.to_string(), client.chain)
    }

    fn by_proxy(headers: &[(&'static str, &str)]) -> (String, String) {
        let (client, chain) = seen("10.0.0.1", headers);
        (client, chain.unwrap_or_default())
    }

    fn is(client: &str, chain: &str) -> (String, String) {
        (client.to_owned(), chain.to_owned())
    }

    #[test]
    fn a_stranger_is_believed_nothing() {
        let headers = [("x-forwarded-for", "6.6.6.6"), ("forwarded", "for=6.6.6.6")];
        assert_eq!(
            seen("192.0.2.1", &headers),
            ("192.0.2.1:7".to_owned(), None)
        );
        assert_eq!(seen("10.0.0.1", &[]), ("10.0.0.1:7".to_owned(), None));
    }

    #[test]
    fn the_client_is_the_first_from_the_right_that_is_no_proxy() {
        let of = |value| by_proxy(&[("x-forwarded-for", value)]);
        assert_eq!(of("192.0.2.1"), is("192.0.2.1:0", "192.0.2.1, 10.0.0.1"));
        assert_eq!(
            of("6.6.6.6, 192.0.2.1"),
            is("192.0.2.1:0", "192.0.2.1, 10.0.0.1")
        );
        assert_eq!(
            of("6.6.6.6,192.0.2.1 , 10.0.0.9"),
            is("192.0.2.1:0", "192.0.2.1, 10.0.0.9, 10.0.0.1")
        );
        assert_eq!(
            of("10.0.0.8, 10.0.0.9"),
            is("10.0.0.8:0", "10.0.0.8, 10.0.0.9, 10.0.0.1")
        );
        assert_eq!(
            of("192.0.2.1:5678"),
            is("192.0.2.1:5678", "192.0.2.1, 10.0.0.1")
        );
        assert_eq!(
            of("[2001:db8::1]:5678"),
            is("[2001:db8::1]:5678", "2001:db8::1, 10.0.0.1")
        );
        assert_eq!(
            of("2001:db8::1, 2001:db8:1::5"),
            is("[2001:db8::1]:0", "2001:db8::1, 2001:db8:1::5, 10.0.0.1")
        );
        assert_eq!(
            of("::ffff:192.0.2.1"),
            is("192.0.2.1:0", "192.0.2.1, 10.0.0.1")
        );
    }

    #[test]
    fn several_headers_are_one_list() {
        let headers = [
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-for", "192.0.2.1"),
        ];
        assert_eq!(by_proxy(&headers), is("192.0.2.1:0", "192.0.2.1, 10.0.0.1"));
    }

    #[test]
    fn an_entry_that_is_no_address_ends_the_walk() {
        let of = |value| by_proxy(&[("x-forwarded-for", value)]);
        assert_eq!(
            of("6.6.6.6, unknown, 10.0.0.9"),
            is("10.0.0.9:0", "10.0.0.9, 10.0.0.1")
        );
        assert_eq!(of("6.6.6.6, "), is("10.0.0.1:7", ""));
        assert_eq!(of("6.6.6.6, 10.0.0.256"), is("10.0.0.1:7", ""));
        assert_eq!(of("é, 10.0.0.9"), is("10.0.0.9:0", "10.0.0.9, 10.0.0.1"));
    }

    #[test]
    fn the_standard_header_is_read_too() {
        let of = |value| by_proxy(&[("forwarded", value)]);
        assert_eq!(
            of("for=192.0.2.1"),
            is("192.0.2.1:0", "192.0.2.1, 10.0.0.1")
        );
        assert_eq!(
            of(r#"for=6.6.6.6, FOR="[2001:db8::1]:4711";proto=https;by=_gw, for=10.0.0.9"#),
            is("[2001:db8::1]:4711", "2001:db8::1, 10.0.0.9, 10.0.0.1")
        );
        assert_eq!(
            of(r#"for=6.6.6.6, for=192.0.2.1;host="a,b;for=6.6.6.6""#),
            is("192.0.2.1:0", "192.0.2.1, 10.0.0.1")
        );
        assert_eq!(of("for=192.0.2.1, for=_hidden"), is("10.0.0.1:7", ""));
        assert_eq!(of("for=192.0.2.1, proto=https"), is("10.0.0.1:7", ""));
    }

    #[test]
    fn a_trusted_proxy_says_whether_the_client_came_over_tls() {
        let of = |peer: &str, headers: &[(&'static str, &str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
                map.append(HeaderName::from_static(name), value);
            }
            let peer = SocketAddr::new(peer.parse().unwrap(), 7);
            client(&map, peer, &trusted()).secure
        };
        let plain = |hops: &'static str, proto: &'static str| {
            let headers = [("x-forwarded-for", hops), ("x-forwarded-proto", proto)];
            of("10.0.0.1", &headers)
        };
        assert_eq!(plain("192.0.2.1", "https"), Some(true));
        assert_eq!(plain("192.0.2.1", "HTTP"), Some(false));
        assert_eq!(plain("192.0.2.1", "gopher"), None);
        // One proxy for all of them, or each of them.
        assert_eq!(plain("192.0.2.1, 10.0.0.9", "https"), Some(true));
        assert_eq!(plain("192.0.2.1, 10.0.0.9", "https, http"), Some(true));
        // The client's own word stands to the left.
        assert_eq!(plain("6.6.6.6, 192.0.2.1", "https, http"), Some(false));
        assert_eq!(plain("192.0.2.1, 10.0.0.9, 10.0.0.8", "https, http"), None);
        let standard = [(
            "forwarded",
            "for=6.6.6.6;proto=http, for=192.0.2.1;proto=https",
        )];
        assert_eq!(of("10.0.0.1", &standard), Some(true));
        let forged = [
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "https"),
        ];
        assert_eq!(of("192.0.2.9", &forged), None);
        // A proxy that writes `Forwarded` lets the other header pass.
        let forged = [
            ("forwarded", "for=192.0.2.1"),
            ("x-forwarded-proto", "https"),
        ];
        assert_eq!(of("10.0.0.1", &forged), None);
    }

    #[test]
    fn of_two_headers_that_disagree_neither_is_believed() {
        let headers = [
            ("x-forwarded-for", "192.0.2.1"),
            ("forwarded", "for=6.6.6.6"),
        ];
        assert_eq!(by_proxy(&headers), is("10.0.0.1:7", ""));
        let headers = [
            ("x-forwarded-for", "192.0.2.1"),
            ("forwarded", "for=192.0.2.1"),
        ];
        assert_eq!(by_proxy(&headers), is("192.0.2.1:0", "192.0.2.1, 10.0.0.1"));
    }

    proptest! {
        /// Whatever a client writes, the entry that the proxy appended decides.
        #[test]
        fn nothing_to_the_left_of_the_client_matters(forged in "[ -~]{0,60}|[for=6.;\"\\\\, ]{0,20}") {
            let expected = is("192.0.2.1:0", "192.0.2.1, 10.0.0.1");
            prop_assert_eq!(&by_proxy(&[("x-forwarded-for", &format!("{forged}, 192.0.2.1"))]), &expected);
            for own in ["for=192.0.2.1", "for=\"192.0.2.1\";host=\"a\""] {
                let seen = by_proxy(&[("forwarded", &format!("{forged}, {own}"))]);
                // Unbalanced quotes and escapes make it unreadable, never another client's.
                prop_assert!(seen == expected || seen == is("10.0.0.1:7", ""), "{:?}", seen);
            }
        }
    }
}
