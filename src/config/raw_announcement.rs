//! What a pool may say about telling its brokers who a client is. No logic: `check_announcement` decides.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::names::Token;
use super::values::Fault;

/// Headers that tell ws and wss brokers who the client is.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Forwarded {
    /// Send `X-Forwarded-For`, `X-Real-IP`, `X-Forwarded-Proto` and `X-Forwarded-Port`. Clients' own are dropped.
    pub enabled: bool,
    /// What `X-Forwarded-Port` carries; `client` for kind `emqx`, `listener` for all others unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<ForwardedPort>,
}

impl Default for Forwarded {
    fn default() -> Self {
        Self {
            enabled: true,
            port: None,
        }
    }
}

#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ForwardedPort {
    /// The port that the client connected to.
    Listener,
    /// The client's own port, as EMQX means it.
    Client,
}

/// A PROXY header, the first bytes of each connection to a broker.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ProxyProtocol {
    /// None.
    #[default]
    Off,
    /// One line of text with the addresses.
    V1,
    /// Binary: the addresses, and how the client came over TLS with which certificate.
    V2,
    /// `v2` with a checksum, which a reader that knows it must check.
    V2Crc32c,
}

/// Headers of the client's upgrade that go along to ws and wss brokers.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Headers {
    /// Their names; none unless set. Not those that the gateway sends itself: `x-forwarded-*`, `x-real-ip`,
    /// `forwarded`, `host`, `sec-*` and the like.
    pub pass: Vec<Token>,
}

/// Cookies of the client's upgrade that go along to ws and wss brokers.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Cookies {
    /// Their names; none unless set.
    pub pass: Vec<Token>,
}

/// The path that ws and wss brokers are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerPath {
    /// `keep`: what the client asked for, with its query.
    Keep,
    Fixed(String),
}

impl FromStr for BrokerPath {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        if text == "keep" {
            return Ok(Self::Keep);
        }
        if !text.starts_with('/') {
            return Err(Fault::new("is not a path")
                .help("write a path that begins with `/`, or `keep` for the client's own"));
        }
        if text.contains('#') || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Fault::new("has a character that a path cannot carry")
                .help("percent-encode it: `%20` for a space"));
        }
        Ok(Self::Fixed(text.to_owned()))
    }
}

impl fmt::Display for BrokerPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep => out.write_str("keep"),
            Self::Fixed(path) => out.write_str(path),
        }
    }
}

/// An IP address of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceAddress(pub IpAddr);

impl FromStr for SourceAddress {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let fault = Fault::new("is not an IP address");
        match text.parse::<IpAddr>() {
            Ok(address) if address.is_unspecified() || address.is_multicast() => {
                Err(Fault::new("is not one address of this machine")
                    .help("name each address by itself: 10.0.0.5"))
            }
            Ok(address) => Ok(Self(address)),
            Err(_) if text.contains('/') => {
                Err(fault.help("name each address by itself, without a prefix length"))
            }
            Err(_) => Err(fault.help("write 10.0.0.5 or \"2001:db8::5\", without a port")),
        }
    }
}

impl fmt::Display for SourceAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}
