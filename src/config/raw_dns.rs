//! What the file may say about name servers. Defaults stand here.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::names::Address;
use super::values::Span;

/// How the names of brokers are resolved.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Dns {
    /// Name servers, address and port: `10.96.0.10:53`. Those of `/etc/resolv.conf` unless set; then `/etc/hosts` and the
    /// search list count as well.
    pub servers: Vec<Address>,
    /// How long one look-up may take, every attempt of it.
    pub timeout: Span,
    /// A name is asked for again when its TTL is over, but not earlier than this. At least 100ms.
    pub shortest: Span,
    /// And not later than this.
    pub longest: Span,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            timeout: Span(Duration::from_secs(5)),
            shortest: Span(Duration::from_secs(5)),
            longest: Span(Duration::from_secs(30)),
        }
    }
}
