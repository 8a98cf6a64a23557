//! Asks the admin listener of a gateway that runs on this machine, or wherever `--admin` says.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{self, Problems};

/// Where the configuration is unless somebody says otherwise.
pub(super) const CONFIGURATION: &str = "/etc/tidegate/tidegate.yaml";

/// Where the admin listener is unless a configuration says otherwise.
const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// For the connection, and between two reads.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest answer: 200 brokers in each of some hundred pools have room in it.
const LONGEST: u64 = 64 * 1024 * 1024;

/// Whom to ask.
#[derive(Debug, clap::Args)]
pub(super) struct Whom {
    /// The admin listener [default: that of the configuration, or 127.0.0.1:9090]
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// The configuration that names it [default: /etc/tidegate/tidegate.yaml, if it is there]
    #[arg(short, long = "config", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Silence {
    #[error("the configuration cannot be used")]
    Configuration(#[from] Problems),
    #[error("this configuration has `admin: off`: nobody can ask the gateway")]
    Off,
    #[error(
        "nothing answers on {address}: {error}\nIs the gateway running? `admin.address` of its configuration is where to ask: name the file with -c, or the address with --admin."
    )]
    Nobody {
        address: SocketAddr,
        #[source]
        error: io::Error,
    },
    #[error(
        "{0} answers, but not as Tidegate's admin listener does: does another program have the port?"
    )]
    Stranger(SocketAddr),
}

/// Status code and body.
pub(super) type Answer = (u16, String);

impl Whom {
    pub(super) fn address(&self) -> Result<SocketAddr, Silence> {
        if let Some(address) = self.admin {
            return Ok(address);
        }
        let address = match &self.config {
            Some(file) => configured(file)?,
            // Somebody who may not read the configuration may still ask.
            None => match configured(Path::new(CONFIGURATION)) {
                Err(Silence::Configuration(_)) => ADDRESS,
                other => other?,
            },
        };
        Ok(reachable(address))
    }
}

fn configured(file: &Path) -> Result<SocketAddr, Silence> {
    // With mistakes in it, which the process has refused, it goes on where it was.
    config::admin_address(file)?.ok_or(Silence::Off)
}

/// What listens on every address is asked on the one that is always there.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// GET.
pub(super) fn ask(address: SocketAddr, path: &str) -> Result<Answer, Silence> {
    let text = get(address, path).map_err(|error| Silence::Nobody { address, error })?;
    parse(&text).ok_or(Silence::Stranger(address))
}

fn get(address: SocketAddr, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer)?;
    Ok(answer)
}

/// The admin listener sends bodies whole, with their length.
fn parse(answer: &[u8]) -> Option<Answer> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let code = head.strip_prefix("HTTP/1.1 ")?.split(' ').next()?;
    Some((code.parse().ok()?, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_listens_everywhere_is_asked_on_loopback() {
        for (listens, asked) in [
            ("0.0.0.0:9090", "127.0.0.1:9090"),
            ("[::]:9091", "[::1]:9091"),
            ("10.0.0.7:80", "10.0.0.7:80"),
        ] {
            assert_eq!(reachable(listens.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
