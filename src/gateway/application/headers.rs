//! The fields of a message that goes through: those of one connection end here (RFC 9110 7.6.1), and who the client is says
//! the gateway.

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_LOCATION, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue,
    LOCATION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{Uri, Version};
use hyper::body::{Body, Incoming};

use super::path::Paths;
use super::request::Outgoing;
use crate::config::model::{Forwarded, ForwardedPort};
use crate::pool::{Whence, forwarded_fields};

/// What proxies call themselves in `Via`.
const PSEUDONYM: &str = "tidegate";

/// A request that came through as many gateways goes round in a circle.
const MOST_HOPS: usize = 8;

const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// Of one connection, named in `Connection` or not; and what CGI programs would take for the address of a proxy of theirs
/// (`Proxy`, CVE-2016-5385).
const OF_ONE_CONNECTION: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Takes out what belongs to the connection that the message came by.
pub(super) fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        // SECURITY: a client could have fields taken out that the application relies on, and one that names the length
        // would shift where the message ends.
        .filter(|name| *name != HOST && *name != CONTENT_LENGTH)
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in OF_ONE_CONNECTION {
        headers.remove(name);
    }
    // HTTP2-Settings is only ever there with an upgrade to h2c, which ends here, too (RFC 9113 3.1).
    headers.remove("http2-settings");
}

/// A field that only the gateway may write. Readers that turn `-` into `_` make both the same (CGI, WSGI, Rack).
fn is_ours(name: &HeaderName) -> bool {
    let name = name.as_str();
    let is = |other: &str| {
        name.len() == other.len()
            && name
                .bytes()
                .zip(other.bytes())
                .all(|(a, b)| a == b || a == b'_' && b == b'-')
    };
    let begins = |prefix: &str| {
        name.get(..prefix.len()).is_some_and(|begin| {
            begin
                .bytes()
                .zip(prefix.bytes())
                .all(|(a, b)| a == b || a == b'_' && b == b'-')
        })
    };
    begins("x-forwarded-") || ["forwarded", "x-real-ip"].iter().any(|ours| is(ours))
}

/// Who sends a request, and as what.
pub(super) struct Sender<'a> {
    pub(super) whence: Whence<'a>,
    /// The peer may say by which host its client came.
    pub(super) is_trusted: bool,
    /// A trusted proxy has: the port that the client came to is not ours.
    pub(super) has_told_scheme: bool,
    pub(super) host: &'a str,
    pub(super) version: Version,
}

/// Makes the client's fields the application's.
pub(super) fn to_application(headers: &mut HeaderMap, sender: &Sender<'_>, paths: &Paths<'_>) {
    strip(headers);
    let mut told = |name: &HeaderName| {
        let told = headers.remove(name);
        told.filter(|_| sender.is_trusted)
    };
    let (host, port) = (told(&X_FORWARDED_HOST), told(&X_FORWARDED_PORT));
    let in_front = told(&X_FORWARDED_PREFIX);
    let ours: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_ours(name))
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
    let forwarded = Forwarded {
        enabled: true,
        port: ForwardedPort::Listener,
    };
    forwarded_fields(forwarded, &sender.whence, |name, value| {
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_str(value),
        ) {
            headers.insert(name, value);
        }
    });
    match port {
        Some(port) => drop(headers.insert(X_FORWARDED_PORT, port)),
        None if sender.has_told_scheme => drop(headers.remove(X_FORWARDED_PORT)),
        None => {}
    }
    if let Some(host) = host.or_else(|| HeaderValue::from_str(sender.host).ok()) {
        headers.insert(X_FORWARDED_HOST, host);
    }
    let in_front = in_front.as_ref().and_then(|prefix| prefix.to_str().ok());
    let prefix = match (in_front, paths.told_prefix()) {
        (None, None) => None,
        (in_front, ours) => Some(format!(
            "{}{}",
            in_front.unwrap_or_default().trim_end_matches('/'),
            ours.unwrap_or_default()
        )),
    };
    if let Some(Ok(prefix)) = prefix.as_deref().map(HeaderValue::from_str) {
        headers.insert(X_FORWARDED_PREFIX, prefix);
    }
    // RFC 9110 7.6.3: whoever passes a request on says so.
    headers.append(
        VIA,
        HeaderValue::from_static(match sender.version {
            Version::HTTP_2 => "2.0 tidegate",
            Version::HTTP_10 => "1.0 tidegate",
            _ => "1.1 tidegate",
        }),
    );
}

/// True when it came through gateways like this one too often.
pub(super) fn goes_in_circles(headers: &HeaderMap) -> bool {
    let values = headers
        .get_all(VIA)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let hops = values.flat_map(|value| value.split(','));
    let ours = hops.filter(|hop| hop.split_whitespace().nth(1) == Some(PSEUDONYM));
    ours.count() >= MOST_HOPS
}

/// Says where the body ends.
///
/// SECURITY: by the body and not by what the client wrote, or a request could hide in another's body (RFC 9112 11.2).
pub(super) fn frame(headers: &mut HeaderMap, body: &Outgoing) {
    if body.is_end_stream() {
        // `Content-Length: 0` of a POST is worth keeping; any other length would be a lie.
        if headers
            .get(CONTENT_LENGTH)
            .is_some_and(|length| length != "0")
        {
            headers.remove(CONTENT_LENGTH);
        }
        return;
    }
    match body.size_hint().exact() {
        Some(length) => drop(headers.insert(CONTENT_LENGTH, HeaderValue::from(length))),
        None => {
            headers.remove(CONTENT_LENGTH);
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
}

/// The client waits for leave to send its body. Over HTTP/2 nobody is told, and nobody need wait (RFC 9110 10.1.1).
pub(super) fn expects_continue(headers: &mut HeaderMap, version: Version) -> bool {
    let expects = headers
        .get(EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if expects && version != Version::HTTP_11 {
        headers.remove(EXPECT);
        return false;
    }
    expects
}

/// Fields of a WebSocket's handshake with the application (RFC 6455 4.1). Over HTTP/2 the client has sent no key.
pub(super) fn ask_for_web_socket(headers: &mut HeaderMap, key: Option<&str>) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Some(Ok(key)) = key.map(HeaderValue::from_str) {
        headers.insert(SEC_WEBSOCKET_KEY, key);
    }
}

/// Fields of the answer that accepts one. It has no body, and over HTTP/2 a length would end the stream.
pub(super) fn accept_web_socket(headers: &mut HeaderMap, version: Version) {
    headers.remove(CONTENT_LENGTH);
    if version == Version::HTTP_2 {
        headers.remove(SEC_WEBSOCKET_ACCEPT);
        return;
    }
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// An answer in chunks, or one that ends with the connection, has no other length.
///
/// SECURITY: one that is written beside chunks would end the answer elsewhere for the client (RFC 9112 6.3).
pub(super) fn drop_false_length(headers: &mut HeaderMap, body: &Incoming) {
    if body.size_hint().exact().is_none() {
        headers.remove(CONTENT_LENGTH);
    }
}

/// Makes the application's fields the client's. `own` is the host that the application was asked by.
pub(super) fn to_client(headers: &mut HeaderMap, paths: &Paths<'_>, own: &str, host: &str) {
    strip(headers);
    for name in [LOCATION, CONTENT_LOCATION] {
        let Some(place) = headers.get(&name).and_then(|place| place.to_str().ok()) else {
            continue;
        };
        if let Some(place) = place_of_client(place, paths, own, host)
            && let Ok(place) = HeaderValue::from_str(&place)
        {
            headers.insert(name, place);
        }
    }
}

/// A place as the client must ask for it. An application that is called by its own name sends clients there, and one that
/// does not know the route's path leaves it out. `None` where nothing is to be changed.
fn place_of_client(place: &str, paths: &Paths<'_>, own: &str, host: &str) -> Option<String> {
    if place.starts_with('/') && !place.starts_with("//") {
        return paths.of_client(place);
    }
    let uri: Uri = place.parse().ok()?;
    let authority = uri.authority()?.as_str();
    let scheme = uri.scheme_str()?;
    // `https://app` and `https://app:443` are one.
    let usual = match scheme {
        "https" => ":443",
        _ => ":80",
    };
    let bare = |host: &str| {
        host.strip_suffix(usual)
            .unwrap_or(host)
            .to_ascii_lowercase()
    };
    let is = |other: &str| bare(authority) == bare(other);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let fragment = place
        .split_once('#')
        .map(|(_, fragment)| format!("#{fragment}"));
    let fragment = fragment.as_deref().unwrap_or_default();
    if is(host) {
        // The client's own: only the path is to be exchanged.
        let path = paths.of_client(path)?;
        return Some(format!("{scheme}://{authority}{path}{fragment}"));
    }
    if !is(own) {
        return None;
    }
    let path = paths.of_client(path).unwrap_or_else(|| path.to_owned());
    Some(path + fragment)
}

/// How long the application keeps an idle connection, as far as it says: `Keep-Alive: timeout=5`.
pub(super) fn keeps(headers: &HeaderMap) -> Option<std::time::Duration> {
    let value = headers.get("keep-alive")?.to_str().ok()?;
    let mut parts = value
        .split(',')
        .filter_map(|part| part.trim().split_once('='));
    let (_, seconds) = parts.find(|(name, _)| name.eq_ignore_ascii_case("timeout"))?;
    seconds
        .trim()
        .parse()
        .ok()
        .map(std::time::Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        headers
    }

    #[test]
    fn what_connection_names_goes_but_not_what_says_where_a_message_ends() {
        let mut headers = map(&[
            ("connection", "x-one, Content-Length, host"),
            ("connection", "x-two"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("te", "trailers"),
            ("content-length", "5"),
            ("host", "example.com"),
        ]);
        strip(&mut headers);
        assert_eq!(
            headers,
            map(&[("content-length", "5"), ("host", "example.com")])
        );
    }

    #[test]
    fn ours_are_known_by_either_spelling() {
        for name in [
            "x-forwarded-for",
            "x_forwarded_for",
            "x-forwarded_port",
            "x_real_ip",
            "forwarded",
        ] {
            assert!(is_ours(&HeaderName::from_static(name)), "{name}");
        }
        for name in ["x-forwarded", "x-real-ip2", "forwarded-for", "x-request-id"] {
            assert!(!is_ours(&HeaderName::from_static(name)), "{name}");
        }
    }

    #[test]
    fn a_keep_alive_time_is_read() {
        let seconds = |value| keeps(&map(&[("keep-alive", value)])).map(|time| time.as_secs());
        assert_eq!(seconds("timeout=5"), Some(5));
        assert_eq!(seconds("max=100, Timeout=15"), Some(15));
        assert_eq!(seconds("max=100"), None);
    }
}
