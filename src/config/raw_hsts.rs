//! What the file may say of HSTS.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::Span;

/// Browsers that came once over TLS come by nothing else for so long (HSTS, RFC 6797): to every host of this gateway, and with
/// every answer. It cannot be taken back before it ends: begin with a short time.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Hsts {
    /// How long; 0s makes browsers forget it.
    pub max_age: Span,
    /// For all names below that of the host, too, whoever serves them.
    #[serde(default)]
    pub include_subdomains: bool,
    /// For the list that browsers are shipped with: needs a `max_age` of 365d and `include_subdomains`, and asking for at
    /// hstspreload.org. It takes months to leave.
    #[serde(default)]
    pub preload: bool,
}
