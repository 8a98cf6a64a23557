//! The URL of a web application's server: `http://` or `https://`, one of them behind `srv+`, or `http://` behind `unix+`.

use std::fmt;
use std::str::FromStr;

use super::broker_url::{host_and_port, lookup};
use super::model::{Lookup, Transport};
use super::socket_url::socket;
use super::values::Fault;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationUrl {
    /// As written.
    pub text: String,
    /// `Http` or `Https`.
    pub transport: Transport,
    /// Without brackets; behind `srv+` the name of the SRV records, behind `unix+` this machine.
    pub host: String,
    /// 0 behind `srv+` and `unix+`.
    pub port: u16,
    pub lookup: Lookup,
}

impl FromStr for ApplicationUrl {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let behind = |prefix: &str| {
            let begins = text.get(..prefix.len())?.eq_ignore_ascii_case(prefix);
            begins.then(|| &text[prefix.len()..])
        };
        let (srv, unix) = (behind("srv+"), behind("unix+"));
        let (transport, rest) = scheme(srv.or(unix).unwrap_or(text))?;
        if !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Fault::new("has a character that a URL cannot carry"));
        }
        if unix.is_some() {
            let (socket, _) = socket(transport, rest)?;
            return Ok(Self {
                text: text.to_owned(),
                transport,
                host: "localhost".to_owned(),
                port: 0,
                lookup: Lookup::Socket(socket),
            });
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err(Fault::new("carries credentials")
                .help("remove them: each client's request carries its own"));
        }
        if !matches!(path, "" | "/") {
            return Err(Fault::new("has a path").help(format!(
                "remove it; `path: {}` below `proxy` puts it in the place of the route's",
                path.split(['?', '#']).next().unwrap_or("/")
            )));
        }
        let (host, port) = host_and_port(authority)?;
        Ok(Self {
            text: text.trim_end_matches('/').to_owned(),
            transport,
            lookup: lookup(srv.is_some(), &host, port)?,
            host,
            port: match srv {
                Some(_) => 0,
                None => port.unwrap_or(transport.port()),
            },
        })
    }
}

fn scheme(text: &str) -> Result<(Transport, &str), Fault> {
    const ALLOWED: &str = "allowed: http, https";
    let Some((scheme, rest)) = text.split_once("://") else {
        let socket = text.strip_prefix("unix:").unwrap_or(text);
        let meant = match socket.starts_with('/') {
            true => format!("unix+http://{socket}"),
            false => format!("http://{text}"),
        };
        return Err(Fault::new("has no scheme").help(format!("write `{meant}`")));
    };
    let meant = match scheme.to_ascii_lowercase().as_str() {
        "http" => return Ok((Transport::Http, rest)),
        "https" => return Ok((Transport::Https, rest)),
        "ws" => "http",
        "wss" => "https",
        "unix" | "http+unix" => "unix+http",
        "mqtt" | "mqtts" => {
            return Err(Fault::new(format!("has the scheme `{scheme}`")).help(
                "brokers stand in a pool: `pool: NAME`; a web application speaks http or https",
            ));
        }
        _ => return Err(Fault::new("has an unknown scheme").help(ALLOWED)),
    };
    Err(
        Fault::new(format!("has the scheme `{scheme}`")).help(format!(
            "did you mean `{meant}://`? {ALLOWED}; WebSockets pass through both"
        )),
    )
}

impl fmt::Display for ApplicationUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}
