//! What a probe is told in the configuration: a URL to ask, a name, a password that is never shown.

use std::fmt;
use std::str::FromStr;

use super::values::Fault;

/// The longest MQTT string (MQTT 5 1.5.4).
const MAX_MQTT_TEXT: usize = 65_535;

/// A text that is never shown.
///
/// SECURITY: neither `Debug` nor `Display` gives it away; `reveal` is for the one place that sends it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = Fault;

    /// Takes everything: a fault's message would quote it.
    fn from_str(text: &str) -> Result<Self, Fault> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("***")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("***")
    }
}

/// A client id or user name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MqttText(pub String);

impl FromStr for MqttText {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        if text.len() > MAX_MQTT_TEXT - 8 {
            return Err(Fault::new("is too long").help("at most 65527 bytes"));
        }
        if text.chars().any(char::is_control) {
            return Err(Fault::new("has a control character").help("write printable text"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for MqttText {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// `http://{host}:18083/path`, where `{host}` stands for the host of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeUrl {
    pub text: String,
    pub tls: bool,
    /// Without brackets; `None` for the broker's own.
    pub host: Option<String>,
    pub port: u16,
    /// With its query.
    pub path: String,
}

impl FromStr for ProbeUrl {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let fault = |message: &str| {
            Fault::new(message)
                .help("write `http://{host}:18083/api/v5/load_rebalance/availability_check`")
        };
        let (tls, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => return Err(fault("is not an http:// or https:// URL")),
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err(Fault::new("carries credentials").help("a probe sends none: remove them"));
        }
        let visible = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
        if !path.bytes().all(visible) {
            return Err(fault("has a character in its path that no URL may have"));
        }
        let (host, port) = host_and_port(authority).ok_or_else(|| fault("names no host"))?;
        let port = match port {
            None => [80, 443][usize::from(tls)],
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| fault("has a bad port"))?,
        };
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        let host = match host {
            "{host}" => None,
            host if !host.is_empty() && host.len() <= 253 && host.bytes().all(known) => {
                Some(host.to_ascii_lowercase())
            }
            _ => return Err(fault("names no host")),
        };
        Ok(Self {
            text: text.to_owned(),
            tls,
            host,
            port,
            path: match path {
                path if path.starts_with('/') => path.to_owned(),
                path => format!("/{path}"),
            },
        })
    }
}

fn host_and_port(authority: &str) -> Option<(&str, Option<&str>)> {
    let (host, behind) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    match behind {
        "" => Some((host, None)),
        _ => behind.strip_prefix(':').map(|port| (host, Some(port))),
    }
}

impl fmt::Display for ProbeUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probe_urls_are_taken_apart() {
        let url = |text: &str| {
            let url: ProbeUrl = text.parse().unwrap();
            (url.tls, url.host.unwrap_or_default(), url.port, url.path)
        };
        assert_eq!(
            url("http://{host}:18083/a?b=c"),
            (false, String::new(), 18083, "/a?b=c".into())
        );
        assert_eq!(url("https://A.b"), (true, "a.b".into(), 443, "/".into()));
        assert_eq!(
            url("http://[::1]:1?x"),
            (false, "::1".into(), 1, "/?x".into())
        );
        for text in [
            "",
            "ws://a",
            "http://",
            "http://u:p@a",
            "http://a:0",
            "http://a:x",
            "http://[::1",
            "http://a/ b",
            "http://a b/",
            "http://a/#b",
        ] {
            assert!(text.parse::<ProbeUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_secret_does_not_show_itself() {
        let secret: Secret = "hunter2".parse().unwrap();
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
    }
}
