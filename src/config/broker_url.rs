//! A broker's URL: `ws://`, `wss://`, `mqtt://` or `mqtts://`, or one of them behind `srv+`, or `ws://` or `mqtt://` behind
//! `unix+`. Carries no credentials: those travel in CONNECT.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::model::{Lookup, Transport};
use super::socket_url::socket;
use super::values::Fault;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    /// As written.
    pub text: String,
    pub transport: Transport,
    /// Without brackets; behind `srv+` the name of the SRV records, behind `unix+` this machine.
    pub host: String,
    /// 0 behind `srv+` and `unix+`.
    pub port: u16,
    pub lookup: Lookup,
    /// Path and query; `None` where the URL names none.
    pub path: Option<String>,
}

impl FromStr for BrokerUrl {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let behind = |prefix: &str| {
            let begins = text.get(..prefix.len())?.eq_ignore_ascii_case(prefix);
            begins.then(|| &text[prefix.len()..])
        };
        let (srv, unix) = (behind("srv+"), behind("unix+"));
        let (transport, rest) = scheme(srv.or(unix).unwrap_or(text))?;
        if !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Fault::new("has a character that a URL cannot carry")
                .help("percent-encode it: `%20` for a space"));
        }
        if unix.is_some() {
            let (socket, path) = socket(transport, rest)?;
            return Ok(Self {
                text: text.to_owned(),
                transport,
                host: "localhost".to_owned(),
                port: 0,
                lookup: Lookup::Socket(socket),
                path: path_of(transport, path)?,
            });
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err(Fault::new("carries credentials").help(
                "remove them: each client's CONNECT carries its own user name and password",
            ));
        }
        let (host, port) = host_and_port(authority)?;
        let lookup = lookup(srv.is_some(), &host, port)?;
        Ok(Self {
            text: text.to_owned(),
            transport,
            host,
            lookup,
            port: match srv {
                Some(_) => 0,
                None => port.unwrap_or(transport.port()),
            },
            path: path_of(transport, path)?,
        })
    }
}

pub(super) fn lookup(is_srv: bool, host: &str, port: Option<u16>) -> Result<Lookup, Fault> {
    let address = host.parse::<IpAddr>().ok();
    if !is_srv {
        return Ok(match address {
            Some(address) => Lookup::Nothing(vec![address]),
            // RFC 6761 6.3: never asked of a name server.
            None if host == "localhost" => {
                Lookup::Nothing(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
            }
            None => Lookup::Addresses,
        });
    }
    if port.is_some() {
        return Err(Fault::new("has a port").help("remove it: SRV records carry the port"));
    }
    let mut labels = host.split('.');
    let (service, protocol) = (labels.next(), labels.next());
    let is_service = |label: Option<&str>| label.is_some_and(|label| label.starts_with('_'));
    if address.is_some() || !is_service(service) || !is_service(protocol) || labels.next().is_none()
    {
        return Err(Fault::new("is no name of SRV records")
            .help("write `srv+ws://_ws._tcp.emqx-headless.default.svc.cluster.local/mqtt`"));
    }
    Ok(Lookup::Services)
}

fn scheme(text: &str) -> Result<(Transport, &str), Fault> {
    let Some((scheme, rest)) = text.split_once("://") else {
        let socket = text.strip_prefix("unix:").unwrap_or(text);
        if socket.starts_with('/') {
            return Err(Fault::new("has no scheme").help(format!(
                "write `unix+ws://{socket}:/mqtt` for WebSocket or `unix+mqtt://{socket}` for MQTT on a Unix socket"
            )));
        }
        let shown = if text.contains(' ') {
            "10.0.0.1:8083"
        } else {
            text
        };
        return Err(Fault::new("has no scheme").help(format!(
            "write `ws://{shown}` for WebSocket or `mqtt://{shown}` for MQTT over TCP"
        )));
    };
    let meant = match scheme.to_ascii_lowercase().as_str() {
        "ws" => return Ok((Transport::Ws, rest)),
        "wss" => return Ok((Transport::Wss, rest)),
        "mqtt" => return Ok((Transport::Mqtt, rest)),
        "mqtts" => return Ok((Transport::Mqtts, rest)),
        "http" => "ws",
        "https" => "wss",
        "tcp" => "mqtt",
        "ssl" | "tls" | "tcps" | "mqtt+ssl" => "mqtts",
        "unix" | "mqtt+unix" => "unix+mqtt",
        "ws+unix" | "http+unix" => "unix+ws",
        _ => return Err(Fault::new("has an unknown scheme").help("allowed: ws, wss, mqtt, mqtts")),
    };
    Err(
        Fault::new(format!("has the scheme `{scheme}`")).help(format!(
            "did you mean `{meant}://`? allowed: ws, wss, mqtt, mqtts"
        )),
    )
}

pub(super) fn host_and_port(authority: &str) -> Result<(String, Option<u16>), Fault> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, behind) = rest
                .split_once(']')
                .ok_or_else(|| Fault::new("has an unclosed `[`"))?;
            host.parse::<Ipv6Addr>()
                .map_err(|_error| Fault::new("has no IPv6 address between the brackets"))?;
            let port = match behind {
                "" => None,
                _ => Some(
                    behind
                        .strip_prefix(':')
                        .ok_or_else(|| Fault::new("has something other than a port behind `]`"))?,
                ),
            };
            (host, port)
        }
        None => match authority.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err(Fault::new("has an IPv6 address without brackets")
                    .help("write `ws://[2001:db8::1]:8083/mqtt`"));
            }
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    if host.is_empty() || host.len() > 253 || !host.bytes().all(known) {
        return Err(Fault::new("names no host")
            .help("write `ws://10.0.0.1:8083/mqtt` or `ws://emqx.internal:8083/mqtt`"));
    }
    let port = match port {
        None => None,
        Some(port) => match port.parse::<u16>() {
            Ok(port) if port > 0 => Some(port),
            Ok(_) | Err(_) => {
                return Err(Fault::new("has a bad port").help("a port is a number from 1 to 65535"));
            }
        },
    };
    Ok((host.to_ascii_lowercase(), port))
}

fn path_of(transport: Transport, path: &str) -> Result<Option<String>, Fault> {
    if path.contains('#') {
        return Err(Fault::new("has a fragment").help("remove `#` and what stands behind it"));
    }
    if !transport.is_websocket() {
        return match path {
            "" | "/" => Ok(None),
            _ => Err(Fault::new("has a path")
                .help("MQTT over TCP knows no paths: remove it, or use `ws://` or `wss://`")),
        };
    }
    Ok(match path {
        "" => None,
        _ if path.starts_with('?') => Some(format!("/{path}")),
        _ => Some(path.to_owned()),
    })
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<BrokerUrl, Fault> {
        text.parse()
    }

    #[test]
    fn what_has_to_be_asked_is_in_the_url() {
        let lookup = |text: &str| read(text).unwrap().lookup;
        assert!(matches!(lookup("ws://[::1]:8083/mqtt"), Lookup::Nothing(list) if list.len() == 1));
        assert!(matches!(lookup("mqtt://LocalHost"), Lookup::Nothing(list) if list.len() == 2));
        assert_eq!(lookup("ws://emqx.internal/mqtt"), Lookup::Addresses);
        for scheme in ["ws", "wss", "mqtt", "mqtts", "WSS"] {
            let url = format!("srv+{scheme}://_ws._tcp.emqx.internal");
            assert_eq!(lookup(&url), Lookup::Services, "{url}");
        }
    }

    #[test]
    fn what_can_be_no_name_of_srv_records_is_refused() {
        for host in ["emqx.internal", "_ws._tcp", "_ws.emqx.internal", "10.0.0.1"] {
            let fault = read(&format!("srv+ws://{host}/mqtt"));
            assert!(fault.is_err(), "{host}");
        }
        assert!(read("srv+ws://_ws._tcp.emqx.internal:8083/mqtt").is_err());
        assert!(read("srv+http://_ws._tcp.emqx.internal/mqtt").is_err());
    }
}
