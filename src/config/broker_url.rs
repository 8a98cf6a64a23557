//! A broker's URL: `ws://`, `wss://`, `mqtt://` or `mqtts://`, or one of them behind `srv+`, or `ws://` or `mqtt://` behind
//! `unix+`. Carries no credentials: those travel in CONNECT.

use std::fmt;
use std::str::FromStr;

use super::model::{Lookup, Transport};
use super::server_url::Form;
use super::values::Fault;

const FORM: Form = Form {
    scheme,
    credentials: "each client's CONNECT carries its own user name and password",
    refuse_path: None,
    hosts: "write `ws://10.0.0.1:8083/mqtt` or `ws://emqx.internal:8083/mqtt`",
    ipv6: "write `ws://[2001:db8::1]:8083/mqtt`",
    services: "write `srv+ws://_ws._tcp.emqx-headless.default.svc.cluster.local/mqtt`",
};

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
        let server = FORM.read(text)?;
        Ok(Self {
            text: text.to_owned(),
            path: path_of(server.transport, server.path)?,
            transport: server.transport,
            host: server.host,
            port: server.port,
            lookup: server.lookup,
        })
    }
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
