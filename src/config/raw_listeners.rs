//! What the file may say of who clients are: PROXY headers and certificates on a listener, and what a pool makes of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::names::FilePath;
use super::networks::Network;

/// Whether clients are offered HTTP/2.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Http2 {
    #[default]
    On,
    Off,
}

/// The PROXY protocol, versions 1 and 2, from load balancers in front.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ProxyHeaders {
    /// Networks of the load balancers. A connection from them must begin with a PROXY header; from any other address
    /// such a header is refused and never believed.
    #[schemars(length(min = 1))]
    pub trusted: Vec<Network>,
}

/// Certificates of clients (mutual TLS).
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ClientCertificates {
    /// Whether clients are asked for a certificate, and whether one without may come in.
    pub mode: ClientCertificateMode,
    /// PEM file of the CAs that clients' certificates must come from, intermediate CAs that sign revocation lists
    /// included. Needed unless `mode: off`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<FilePath>,
    /// Certificate revocation lists in PEM or DER, one for each CA; without any, nothing is ever revoked. A list that
    /// is out of date is still used.
    #[serde(default)]
    pub crl: Vec<FilePath>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ClientCertificateMode {
    /// Clients are not asked.
    Off,
    /// Clients are asked and may have none; one that is not valid is refused.
    Optional,
    /// Clients without a valid one are refused.
    Required,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum UserName {
    /// What the client sent.
    #[default]
    Client,
    /// The common name (CN) of its certificate.
    CertificateCommonName,
    /// The subject of its certificate as RFC 4514 writes it: `CN=device-1,O=Example`.
    CertificateSubject,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ClientId {
    /// What the client sent.
    #[default]
    Client,
    /// The common name (CN) of its certificate.
    CertificateCommonName,
}
