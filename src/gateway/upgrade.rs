//! The check of an upgrade request (RFC 6455 4.2.1; over HTTP/2 RFC 8441 5) and the answer to it: the 101 or 200, or a
//! status and a sentence that names the mistake.

use h2::ext::Protocol;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode, Version};

use crate::websocket::derive_accept_key;

/// Subprotocols that clients are known to offer; all of them mean MQTT packets in binary frames.
const KNOWN: [&str; 9] = [
    "mqtt",
    "mqttv3.1",
    "mqttv3.1.1",
    "mqttv5",
    "mqttv5.0",
    "mqtt-v3",
    "mqtt-v3.1.1",
    "mqtt-v5",
    "mqtt-v5.0",
];

/// An upgrade that may be accepted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    /// The proof that the key was read; HTTP/2 has neither (RFC 8441 5).
    pub(super) accept: Option<String>,
    /// What to echo: the first token that the client offered and we know; `None` when it offered none, since a client
    /// must fail on one that it did not ask for (RFC 6455 4.1).
    pub(super) subprotocol: Option<&'static str>,
}

impl Accepted {
    pub(super) fn status(&self) -> StatusCode {
        match self.accept {
            Some(_) => StatusCode::SWITCHING_PROTOCOLS,
            None => StatusCode::OK,
        }
    }

    pub(super) fn add_headers(&self, headers: &mut HeaderMap) {
        if let Some(accept) = &self.accept
            && let Ok(accept) = HeaderValue::from_str(accept)
        {
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        }
        if let Some(subprotocol) = self.subprotocol {
            headers.insert(
                header::SEC_WEBSOCKET_PROTOCOL,
                HeaderValue::from_static(subprotocol),
            );
        }
    }
}

/// Why an upgrade is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    NotAnUpgrade,
    /// As `NotAnUpgrade`. HTTP/2 has no `Upgrade` header to answer with, and 426 is not allowed without (RFC 9113 8.2.2,
    /// RFC 9110 15.5.22).
    NotAnUpgradeOverHttp2,
    Method,
    HttpVersion,
    WebSocketVersion,
    WebSocketVersionOverHttp2,
    Key,
    Subprotocol,
    /// CONNECT as proxies are asked (RFC 9113 8.5).
    Proxy,
    /// Extended CONNECT for something else than a WebSocket (RFC 9220 3).
    Protocol,
}

impl Refusal {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::NotAnUpgrade | Self::WebSocketVersion => StatusCode::UPGRADE_REQUIRED,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::HttpVersion
            | Self::Key
            | Self::Subprotocol
            | Self::NotAnUpgradeOverHttp2
            | Self::WebSocketVersionOverHttp2 => StatusCode::BAD_REQUEST,
            Self::Proxy | Self::Protocol => StatusCode::NOT_IMPLEMENTED,
        }
    }

    pub(super) fn sentence(self) -> &'static str {
        match self {
            Self::NotAnUpgrade | Self::NotAnUpgradeOverHttp2 => {
                "This path speaks MQTT over WebSocket: connect an MQTT client to it with wss:// (or ws://), not a browser page or an HTTP client."
            }
            Self::Method => "A WebSocket handshake is a GET request (RFC 6455 4.1).",
            Self::HttpVersion => {
                "A WebSocket handshake needs HTTP/1.1 or newer (RFC 6455 4.1). Behind nginx: proxy_http_version 1.1."
            }
            Self::WebSocketVersion | Self::WebSocketVersionOverHttp2 => {
                "This server speaks WebSocket version 13 (RFC 6455 4.4)."
            }
            Self::Key => {
                "Sec-WebSocket-Key is missing, given twice or not 16 bytes in base64 (RFC 6455 4.1)."
            }
            Self::Subprotocol => {
                "None of the subprotocols in Sec-WebSocket-Protocol is MQTT: offer \"mqtt\", or none."
            }
            Self::Proxy => {
                "CONNECT without :protocol asks for a proxy, and this is none (RFC 9113 8.5)."
            }
            Self::Protocol => {
                "The only :protocol that is served here is \"websocket\" (RFC 8441 5)."
            }
        }
    }

    /// Headers that belong to the status.
    pub(super) fn add_headers(self, headers: &mut HeaderMap) {
        match self {
            Self::NotAnUpgrade => {
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            }
            Self::WebSocketVersion | Self::WebSocketVersionOverHttp2 => {
                headers.insert(
                    header::SEC_WEBSOCKET_VERSION,
                    HeaderValue::from_static("13"),
                );
            }
            Self::Method => {
                headers.insert(header::ALLOW, HeaderValue::from_static("GET"));
            }
            Self::HttpVersion
            | Self::Key
            | Self::Subprotocol
            | Self::NotAnUpgradeOverHttp2
            | Self::Proxy
            | Self::Protocol => {}
        }
    }
}

/// A CONNECT that is for no path of ours.
pub(super) fn not_served<B>(request: &Request<B>) -> Option<Refusal> {
    if request.method() != Method::CONNECT {
        return None;
    }
    match request.extensions().get::<Protocol>() {
        None => Some(Refusal::Proxy),
        Some(protocol) if protocol.as_str() != "websocket" => Some(Refusal::Protocol),
        Some(_) => None,
    }
}

/// True when the request asks for a WebSocket, whatever else is wrong with it.
pub(super) fn is_wanted<B>(request: &Request<B>) -> bool {
    match request.version() {
        Version::HTTP_2 => request.method() == Method::CONNECT && not_served(request).is_none(),
        _ => has_token(request.headers(), &header::UPGRADE, "websocket"),
    }
}

/// Checks a request to a pool's route.
pub(super) fn check<B>(request: &Request<B>) -> Result<Accepted, Refusal> {
    match request.version() {
        Version::HTTP_2 => check_http2(request),
        _ => check_http1(request),
    }
}

fn check_http1<B>(request: &Request<B>) -> Result<Accepted, Refusal> {
    let headers = request.headers();
    if !is_wanted(request) {
        return Err(Refusal::NotAnUpgrade);
    }
    if request.method() != Method::GET {
        return Err(Refusal::Method);
    }
    if request.version() < Version::HTTP_11 {
        return Err(Refusal::HttpVersion);
    }
    if !has_token(headers, &header::CONNECTION, "upgrade") {
        return Err(Refusal::NotAnUpgrade);
    }
    if !is_version_13(headers) {
        return Err(Refusal::WebSocketVersion);
    }
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let accept = match (keys.next(), keys.next()) {
        (Some(key), None) if is_key(key.as_bytes()) => derive_accept_key(key.as_bytes()),
        _ => return Err(Refusal::Key),
    };
    Ok(Accepted {
        accept: Some(accept),
        subprotocol: subprotocol(headers)?,
    })
}

fn check_http2<B>(request: &Request<B>) -> Result<Accepted, Refusal> {
    if !is_wanted(request) {
        return Err(Refusal::NotAnUpgradeOverHttp2);
    }
    if !is_version_13(request.headers()) {
        return Err(Refusal::WebSocketVersionOverHttp2);
    }
    Ok(Accepted {
        accept: None,
        subprotocol: subprotocol(request.headers())?,
    })
}

fn is_version_13(headers: &HeaderMap) -> bool {
    headers
        .get(header::SEC_WEBSOCKET_VERSION)
        .is_some_and(|version| version == "13")
}

fn subprotocol(headers: &HeaderMap) -> Result<Option<&'static str>, Refusal> {
    let mut offered = false;
    for token in tokens(headers, &header::SEC_WEBSOCKET_PROTOCOL) {
        if let Some(known) = KNOWN.iter().find(|known| **known == token) {
            return Ok(Some(known));
        }
        offered = true;
    }
    if offered {
        Err(Refusal::Subprotocol)
    } else {
        Ok(None)
    }
}

/// 16 bytes in base64: 22 digits and two signs of padding.
fn is_key(key: &[u8]) -> bool {
    use base64::Engine as _;
    use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
    // Some clients leave bits behind the last byte set; RFC 6455 does not ask to refuse them.
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
    );
    key.len() == 24 && LENIENT.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

pub(super) fn has_token(headers: &HeaderMap, name: &header::HeaderName, wanted: &str) -> bool {
    tokens(headers, name).any(|token| token.eq_ignore_ascii_case(wanted))
}

/// The comma-separated values of all headers of a name.
fn tokens<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(change: impl FnOnce(&mut http::request::Builder)) -> Result<Accepted, Refusal> {
        let mut builder = Request::builder()
            .uri("/mqtt")
            .header("Upgrade", "WebSocket")
            .header("Connection", "keep-alive, Upgrade")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        change(&mut builder);
        check(&builder.body(()).unwrap())
    }

    fn set(builder: &mut http::request::Builder, name: &'static str, value: &'static str) {
        let headers = builder.headers_mut().unwrap();
        headers.insert(name, HeaderValue::from_static(value));
    }

    #[test]
    fn the_example_of_rfc_6455_is_accepted() {
        let accepted = checked(|_| {}).unwrap();
        assert_eq!(
            accepted.accept.as_deref(),
            Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
        assert_eq!(accepted.subprotocol, None);
    }

    #[test]
    fn the_first_known_subprotocol_is_echoed_as_it_was_offered() {
        let of = |value| {
            checked(|request| set(request, "sec-websocket-protocol", value))
                .map(|accepted| accepted.subprotocol)
        };
        assert_eq!(of("mqtt"), Ok(Some("mqtt")));
        assert_eq!(of("mqttv3.1, mqtt"), Ok(Some("mqttv3.1")));
        assert_eq!(of("chat, mqtt-v5"), Ok(Some("mqtt-v5")));
        assert_eq!(of(""), Ok(None));
        assert_eq!(of("chat"), Err(Refusal::Subprotocol));
    }

    #[test]
    fn each_mistake_has_its_answer() {
        let with = |name, value| checked(|request| set(request, name, value)).unwrap_err();
        assert_eq!(with("upgrade", "h2c"), Refusal::NotAnUpgrade);
        assert_eq!(with("connection", "keep-alive"), Refusal::NotAnUpgrade);
        assert_eq!(
            with("sec-websocket-version", "8"),
            Refusal::WebSocketVersion
        );
        assert_eq!(with("sec-websocket-key", "c2hvcnQ="), Refusal::Key);
        assert_eq!(
            with("sec-websocket-key", "not base64 at all......."),
            Refusal::Key
        );
        let post = checked(|request| *request = std::mem::take(request).method(Method::POST));
        assert_eq!(post, Err(Refusal::Method));
        let old = checked(|request| *request = std::mem::take(request).version(Version::HTTP_10));
        assert_eq!(old, Err(Refusal::HttpVersion));
        let no_key =
            checked(|request| drop(request.headers_mut().unwrap().remove("sec-websocket-key")));
        assert_eq!(no_key, Err(Refusal::Key));
        let no_version = checked(|request| {
            drop(
                request
                    .headers_mut()
                    .unwrap()
                    .remove("sec-websocket-version"),
            )
        });
        assert_eq!(no_version, Err(Refusal::WebSocketVersion));
    }
}
