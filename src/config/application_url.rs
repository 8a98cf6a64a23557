//! The URL of a web application's server: `http://` or `https://`, one of them behind `srv+`, or `http://` behind `unix+`.

use std::fmt;
use std::str::FromStr;

use super::model::{Lookup, Transport};
use super::server_url::server;
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
        let server = server(text, scheme, "each client's request carries its own")?;
        let is_socket = matches!(server.lookup, Lookup::Socket(_));
        if !is_socket && !matches!(server.path, "" | "/") {
            return Err(Fault::new("has a path").help(format!(
                "remove it; `path: {}` below `proxy` puts it in the place of the route's",
                server.path.split(['?', '#']).next().unwrap_or("/")
            )));
        }
        Ok(Self {
            text: match is_socket {
                true => text.to_owned(),
                false => text.trim_end_matches('/').to_owned(),
            },
            transport: server.transport,
            host: server.host,
            port: server.port,
            lookup: server.lookup,
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
