//! The URL of a web application's server: `http://` or `https://`, one of them behind `srv+`, or `http://` behind `unix+`.

use std::fmt;
use std::str::FromStr;

use super::model::{Lookup, Transport};
use super::server_url::Form;
use super::values::Fault;

const FORM: Form = Form {
    scheme,
    credentials: "each client's request carries its own",
    refuse_path: Some(refuse_path),
    hosts: "write `http://10.0.0.1:3000` or `http://app.internal:3000`",
    ipv6: "write `http://[2001:db8::1]:3000`",
    services: "write `srv+http://_http._tcp.app.default.svc.cluster.local`",
};

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
        let server = FORM.read(text)?;
        Ok(Self {
            text: text.trim_end_matches('/').to_owned(),
            transport: server.transport,
            host: server.host,
            port: server.port,
            lookup: server.lookup,
        })
    }
}

fn refuse_path(host: &str, path: &str) -> Fault {
    if host.is_empty() && path.starts_with('/') {
        let help = format!("for a Unix socket write `unix+http://{path}`");
        return Fault::new("names no host").help(help);
    }
    let fault = Fault::new("has a path");
    match path.split(['?', '#']).next() {
        None | Some("") => fault.help("remove it: each client's request carries its own"),
        Some(path) => fault.help(format!(
            "remove it; `path: {path}` below `proxy` puts it in the place of the route's"
        )),
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
