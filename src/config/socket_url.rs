//! What stands behind `unix+`: the path of a socket and, for ws, a `:` and the path that the broker is asked for, as nginx
//! writes it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::model::Transport;
use super::values::Fault;

/// `sun_path` has 108 bytes, the 0 at its end included (unix(7)).
const LONGEST: usize = 107;

/// The socket, and what follows it from its `/` on.
pub(super) fn socket(transport: Transport, rest: &str) -> Result<(PathBuf, &str), Fault> {
    let example = match transport {
        Transport::Ws | Transport::Wss => "write `unix+ws:///run/broker/ws.sock:/mqtt`",
        Transport::Mqtt | Transport::Mqtts => "write `unix+mqtt:///run/mosquitto/mqtt.sock`",
        Transport::Http | Transport::Https => "write `unix+http:///run/app.sock`",
    };
    if transport.is_tls() {
        return Err(Fault::new("speaks TLS on a Unix socket").help(
            match transport {
                Transport::Https => "write `unix+http://`: what passes it does not leave the machine",
                _ => "write `unix+ws://` or `unix+mqtt://`: what passes it does not leave the machine",
            },
        ));
    }
    let (socket, path) = match rest.split_once(':') {
        Some((socket, path)) => (socket, Some(path)),
        None => (rest, None),
    };
    if !socket.starts_with('/') {
        return Err(Fault::new("names no absolute path").help(example));
    }
    if socket.ends_with('/') || socket.contains(['?', '#']) {
        return Err(Fault::new("names no socket").help(example));
    }
    match path {
        Some(_) if matches!(transport, Transport::Http) => {
            return Err(Fault::new("has something behind the socket").help(
                "remove it: a path for the application is `path` below `proxy`; a `:` in the socket's own path is `%3A`",
            ));
        }
        Some(_) if !transport.is_websocket() => {
            return Err(Fault::new("has something behind the socket").help(
                "a socket has no port and MQTT no path: remove it; a `:` in the socket's own path is `%3A`",
            ));
        }
        Some(path) if !path.starts_with(['/', '?']) => {
            return Err(
                Fault::new("has something other than a path behind the socket").help(example),
            );
        }
        Some(_) | None => {}
    }
    let socket = decoded(socket).ok_or_else(|| {
        Fault::new("has a `%` that encodes nothing").help("write `%25` for a `%`")
    })?;
    if socket.len() > LONGEST {
        return Err(Fault::new(format!(
            "names a socket whose path has {} bytes",
            socket.len()
        ))
        .help(format!(
            "the system takes at most {LONGEST}: give the broker a shorter path, or link to it"
        )));
    }
    Ok((
        PathBuf::from(OsString::from_vec(socket)),
        path.unwrap_or_default(),
    ))
}

/// RFC 3986 2.1. A 0 ends a path, and so is none of it.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2)?;
        let is_hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let byte = u8::from_str_radix(digits, 16).ok();
        bytes.push(byte.filter(|byte| is_hexadecimal && *byte != 0)?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(transport: Transport, rest: &str) -> Option<(String, &str)> {
        let (path, asked) = socket(transport, rest).ok()?;
        Some((path.to_str()?.to_owned(), asked))
    }

    #[test]
    fn a_socket_ends_at_the_colon() {
        let of = |rest| read(Transport::Ws, rest).unwrap();
        assert_eq!(
            of("/run/a.sock:/mqtt?x=1:2"),
            ("/run/a.sock".to_owned(), "/mqtt?x=1:2")
        );
        assert_eq!(of("/run/a.sock"), ("/run/a.sock".to_owned(), ""));
        assert_eq!(of("/run/a%3Ab%20c:/").0, "/run/a:b c");
        assert_eq!(
            read(Transport::Mqtt, "/run/a.sock").unwrap().0,
            "/run/a.sock"
        );
    }

    #[test]
    fn what_can_be_no_socket_is_refused() {
        for rest in [
            "run/a.sock",
            "",
            "/run/",
            "/run/a.sock:1883",
            "/run/a%.sock",
            "/a%+1",
            "/a%00",
            "/a#b",
        ] {
            assert!(read(Transport::Ws, rest).is_none(), "{rest}");
        }
        assert!(read(Transport::Mqtt, "/run/a.sock:/mqtt").is_none());
        assert!(read(Transport::Wss, "/run/a.sock:/mqtt").is_none());
        let long = format!("/{}", "a".repeat(LONGEST));
        assert!(read(Transport::Mqtt, &long).is_none());
        assert!(read(Transport::Mqtt, &long[..LONGEST]).is_some());
    }
}
