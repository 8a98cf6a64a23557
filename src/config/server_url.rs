//! What the URLs of brokers and of web applications have in common: a scheme, perhaps behind `srv+` or `unix+`, and the place
//! of the server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::model::{Lookup, Transport};
use super::socket_url::socket;
use super::values::Fault;

pub(super) struct Server<'a> {
    pub(super) transport: Transport,
    /// Without brackets; behind `srv+` the name of the SRV records, behind `unix+` this machine.
    pub(super) host: String,
    /// 0 behind `srv+` and `unix+`.
    pub(super) port: u16,
    pub(super) lookup: Lookup,
    /// Path, query and fragment, as written.
    pub(super) path: &'a str,
}

/// How one of the two writes them.
pub(super) struct Form {
    /// Reads a scheme that is allowed; answers what stands behind it.
    pub(super) scheme: fn(&str) -> Result<(Transport, &str), Fault>,
    /// Where credentials come from: a URL must not carry any.
    pub(super) credentials: &'static str,
    /// What is said where a path stands between these two and none may: host and port, path.
    pub(super) refuse_path: Option<fn(&str, &str) -> Fault>,
    /// What to write in the place of a host that is none, …
    pub(super) hosts: &'static str,
    /// … of an IPv6 address without brackets,
    pub(super) ipv6: &'static str,
    /// … of a name that SRV records cannot have.
    pub(super) services: &'static str,
}

impl Form {
    /// # Errors
    /// What is wrong, and what to write.
    pub(super) fn read<'a>(&self, text: &'a str) -> Result<Server<'a>, Fault> {
        let behind = |prefix: &str| {
            let begins = text.get(..prefix.len())?.eq_ignore_ascii_case(prefix);
            begins.then(|| &text[prefix.len()..])
        };
        let (srv, unix) = (behind("srv+"), behind("unix+"));
        let (transport, rest) = (self.scheme)(srv.or(unix).unwrap_or(text))?;
        if !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            let fault = Fault::new("has a character that a URL cannot carry");
            return Err(match self.refuse_path {
                Some(_) if unix.is_none() => fault,
                _ => fault.help("percent-encode it: `%20` for a space"),
            });
        }
        if unix.is_some() {
            let (socket, path) = socket(transport, rest)?;
            return Ok(Server {
                transport,
                host: "localhost".to_owned(),
                port: 0,
                lookup: Lookup::Socket(socket),
                path,
            });
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            let help = format!("remove them: {}", self.credentials);
            return Err(Fault::new("carries credentials").help(help));
        }
        if let Some(refuse) = self.refuse_path
            && !matches!(path, "" | "/")
        {
            return Err(refuse(authority, path));
        }
        let (host, port) = self.host_and_port(authority)?;
        Ok(Server {
            transport,
            lookup: self.lookup(srv.is_some(), &host, port)?,
            host,
            port: match srv {
                Some(_) => 0,
                None => port.unwrap_or(transport.port()),
            },
            path,
        })
    }

    fn lookup(&self, is_srv: bool, host: &str, port: Option<u16>) -> Result<Lookup, Fault> {
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
        if address.is_some()
            || !is_service(service)
            || !is_service(protocol)
            || labels.next().is_none()
        {
            return Err(Fault::new("is no name of SRV records").help(self.services));
        }
        Ok(Lookup::Services)
    }

    fn host_and_port(&self, authority: &str) -> Result<(String, Option<u16>), Fault> {
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, behind) = rest
                    .split_once(']')
                    .ok_or_else(|| Fault::new("has an unclosed `[`"))?;
                host.parse::<Ipv6Addr>()
                    .map_err(|_error| Fault::new("has no IPv6 address between the brackets"))?;
                let port =
                    match behind {
                        "" => None,
                        _ => Some(behind.strip_prefix(':').ok_or_else(|| {
                            Fault::new("has something other than a port behind `]`")
                        })?),
                    };
                (host, port)
            }
            None => match authority.split_once(':') {
                Some((_, port)) if port.contains(':') => {
                    return Err(Fault::new("has an IPv6 address without brackets").help(self.ipv6));
                }
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        if host.is_empty() || host.len() > 253 || !host.bytes().all(known) {
            return Err(Fault::new("names no host").help(self.hosts));
        }
        // RFC 3696 2: the last label of a name is not all digits.
        let last = host.trim_end_matches('.').rsplit('.').next();
        let is_number = last.is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
        if is_number && host.parse::<IpAddr>().is_err() {
            return Err(
                Fault::new("has a host that is neither a name nor an IPv4 address")
                    .help(self.hosts),
            );
        }
        let port = match port {
            None => None,
            Some(port) => match port.parse::<u16>() {
                Ok(port) if port > 0 => Some(port),
                Ok(_) | Err(_) => {
                    return Err(
                        Fault::new("has a bad port").help("a port is a number from 1 to 65535")
                    );
                }
            },
        };
        Ok((host.to_ascii_lowercase(), port))
    }
}
