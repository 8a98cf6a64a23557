//! Networks that are believed: an IP address with the length of its prefix, or one address alone.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::values::Fault;

/// Bits in front of an IPv4 address that is written as IPv6, `::ffff:10.0.0.1` (RFC 4291 2.5.5.2).
const MAPPED_PREFIX: u8 = 96;

/// `10.0.0.0/8`, `2001:db8::/32`; a bare address is a network of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(pub IpNet);

/// Everyone who is believed in one matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(pub Vec<IpNet>);

impl Networks {
    /// `address` in its plain form: an IPv4 address that came by an IPv6 socket is an IPv4 address here.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl FromStr for Network {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let network = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_not_alone) => text.parse::<IpNet>().map_err(|_error| {
                Fault::new("is not a network")
                    .help("write `10.0.0.0/8`, `2001:db8::/32`, or one address; names are not looked up here")
            })?,
        };
        if network.addr() != network.network() {
            let meant = network.trunc();
            // SECURITY: whoever wrote it meant something narrower or wider than what it says.
            return Err(
                Fault::new("has address bits behind its prefix").help(format!(
                    "write `{meant}` for the whole network, `{}` for the one address",
                    network.addr()
                )),
            );
        }
        if let IpNet::V6(mapped) = network
            && let Some(address) = mapped.addr().to_ipv4_mapped()
            && let Some(prefix) = mapped.prefix_len().checked_sub(MAPPED_PREFIX)
        {
            return Err(
                Fault::new("is IPv4 written as IPv6").help(format!("write `{address}/{prefix}`"))
            );
        }
        Ok(Self(network))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            return self.0.addr().fmt(out);
        }
        self.0.fmt(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_client_of_an_ipv6_socket_is_in_its_network() {
        let networks = Networks(vec!["10.0.0.0/8".parse().unwrap()]);
        assert!(networks.contains("10.1.2.3".parse().unwrap()));
        assert!(networks.contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!networks.contains("11.0.0.1".parse().unwrap()));
    }

    #[test]
    fn unclear_networks_are_refused() {
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "lb.internal",
            "::ffff:10.0.0.0/104",
            "10.0.0.0/-1",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
        for text in [
            "10.0.0.0/8",
            "10.0.0.1",
            "2001:db8::/32",
            "::1",
            "0.0.0.0/0",
        ] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
    }
}
