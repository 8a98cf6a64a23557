//! The WebSocket handshake with a broker (RFC 6455 4.1): one token, no extensions, few headers. Brokers close without a
//! word on a large head, so nothing of the client's goes along but what the broker must know.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::announce::{own_headers, passed_headers};
use super::{Broker, HandshakeFailure, Pool};
use crate::config::announcement::AskedPath;
use crate::config::model::HostHeader;
use crate::identity::Identity;
use crate::stream::Stream;
use crate::websocket::{derive_accept_key, generate_key};

/// Longest head of an answer.
const HEAD: usize = 8 * 1024;

/// Longest name (RFC 1035 2.3.4) and a port: a client's `Host` over that is none.
const HOST: usize = 253 + ":65535".len();

/// Upgrades the stream. Answers the bytes that came behind the answer's head.
pub(super) async fn upgrade(
    pool: &Pool,
    broker: &Broker,
    client: &Identity,
    stream: &mut Stream,
) -> Result<Vec<u8>, HandshakeFailure> {
    let key = generate_key();
    let request = request(pool, broker, client, &key);
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(HandshakeFailure::Io)?;
    stream.flush().await.map_err(HandshakeFailure::Io)?;
    let mut head = Vec::with_capacity(512);
    loop {
        let read = stream
            .read_buf(&mut head)
            .await
            .map_err(|error| match error.kind() {
                // A broker that closes with our request unread sends a reset.
                std::io::ErrorKind::ConnectionReset => HandshakeFailure::Closed,
                _ => HandshakeFailure::Io(error),
            })?;
        if read == 0 {
            return Err(HandshakeFailure::Closed);
        }
        if let Some(end) = check(&head, &key, &pool.subprotocol)? {
            return Ok(head.split_off(end));
        }
        if head.len() > HEAD {
            return Err(HandshakeFailure::TooLong);
        }
    }
}

fn request(pool: &Pool, broker: &Broker, client: &Identity, key: &str) -> String {
    let host = match &pool.host {
        HostHeader::Broker => broker.own_host(),
        HostHeader::Client => client
            .host
            .clone()
            .filter(|host| host.len() <= HOST)
            .unwrap_or_else(|| broker.own_host()),
        HostHeader::Fixed(host) => host.clone(),
    };
    let mut head = format!(
        "GET {} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: {}\r\n",
        path(pool, broker, client),
        pool.subprotocol
    );
    own_headers(&mut head, pool.forwarded, &pool.announcement, client);
    passed_headers(&mut head, &pool.announcement, client);
    head.push_str("\r\n");
    head
}

/// What the broker is asked for. A path that would fill the head is not kept: the broker would close, and look ill.
/// SECURITY: nor is one that climbs out of its route (`/mqtt/../admin`).
fn path<'a>(pool: &Pool, broker: &'a Broker, client: &'a Identity) -> &'a str {
    const LONGEST: usize = 1024;
    match pool.announcement.path {
        AskedPath::Broker | AskedPath::Fixed(_) => &broker.path,
        AskedPath::Client if client.path.len() <= LONGEST && !climbs(&client.path) => &client.path,
        AskedPath::Client => {
            tracing::debug!(client = %client.address, length = client.path.len(), "the path is too long or climbs, and is not kept");
            &broker.path
        }
    }
}

/// True for a path with a segment `..`, in any spelling that a server may undo (RFC 3986 3.3, 6.2.2).
fn climbs(path: &str) -> bool {
    let path = path.split('?').next().unwrap_or_default();
    let plain = path
        .to_ascii_lowercase()
        .replace("%2e", ".")
        .replace("%2f", "/");
    plain.split(['/', '\\']).any(|segment| segment == "..")
}

/// `None` while the head is incomplete, else the place of its end.
fn check(head: &[u8], key: &str, subprotocol: &str) -> Result<Option<usize>, HandshakeFailure> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let end = match response.parse(head) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => {
            return Err(HandshakeFailure::NotHttp(
                head.first().copied().unwrap_or(0),
            ));
        }
    };
    match response.code {
        Some(101) => {}
        code => return Err(HandshakeFailure::Status(code.unwrap_or(0))),
    }
    let value = |name: &str| {
        let header = response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok().map(str::trim)
    };
    if !value("Upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")) {
        return Err(HandshakeFailure::Header("Upgrade"));
    }
    if value("Sec-WebSocket-Accept") != Some(&derive_accept_key(key.as_bytes())) {
        return Err(HandshakeFailure::Header("Sec-WebSocket-Accept"));
    }
    if value("Sec-WebSocket-Extensions").is_some() {
        return Err(HandshakeFailure::Header("Sec-WebSocket-Extensions"));
    }
    // A broker that names none has not refused: some never answer the header.
    match value("Sec-WebSocket-Protocol") {
        Some(chosen) if chosen != subprotocol => {
            Err(HandshakeFailure::Subprotocol(chosen.to_owned()))
        }
        Some(_) | None => Ok(Some(end)),
    }
}

#[cfg(test)]
mod tests {
    use super::climbs;

    #[test]
    fn a_path_that_climbs_out_of_its_route_is_known() {
        for path in [
            "/mqtt/../admin",
            "/mqtt/%2E%2e/admin",
            "/mqtt/.%2e",
            "/mqtt%2f..%2Fadmin",
            "/mqtt/..\\a",
        ] {
            assert!(climbs(path), "{path}");
        }
        for path in [
            "/mqtt",
            "/mqtt/a..b/...",
            "/mqtt/.well-known",
            "/mqtt?next=/../a",
        ] {
            assert!(!climbs(path), "{path}");
        }
    }
}
