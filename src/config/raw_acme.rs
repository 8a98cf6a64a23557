//! What the file may say of certificates, ordered ones among them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::acme_values::{Directory, DomainName, Email};
use super::names::{FilePath, Label};
use super::probe_values::Secret;

/// A certificate chain and its private key, or names that a CA is asked for.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Certificate {
    /// PEM file: the certificate, then every intermediate.
    pub chain: Option<FilePath>,
    /// PEM file: the private key. May be the same file as `chain`.
    pub key: Option<FilePath>,
    /// DNS names of one certificate that is ordered from a CA and renewed, by the section `acme`: instead of `chain` and
    /// `key`. The CA connects to port 443 of each name, which must lead to a TLS listener of this file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acme: Vec<DomainName>,
}

/// Who issues the certificates with `acme` (RFC 8555), and where they are kept.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Acme {
    /// `true`: you agree to the terms of the CA. Nothing is ordered without.
    pub agree_tos: Option<bool>,
    /// Where the CA reaches you. Some send no mail any more.
    pub email: Option<Email>,
    /// The CA: `letsencrypt`, `letsencrypt-staging` to rehearse (nobody trusts its certificates), or the URL of a directory.
    #[serde(default = "lets_encrypt")]
    pub directory: Directory,
    /// Folder for the account's key, certificates and their keys; made with mode 0700. Keep it: CAs limit how often a
    /// certificate is issued again. Replicas may share it. `acme` below `$STATE_DIRECTORY` where systemd sets that, else
    /// `/var/lib/tidegate/acme`.
    pub state: Option<FilePath>,
    /// PEM file of the CAs that the directory's own certificate must come from; the system's unless set.
    pub ca: Option<FilePath>,
    /// External account binding, for CAs that want to know their customers.
    pub eab: Option<Eab>,
    /// Which of the CA's kinds of certificates: `classic`, `tlsserver` and `shortlived` at Let's Encrypt. The CA's choice
    /// unless set.
    pub profile: Option<Label>,
}

fn lets_encrypt() -> Directory {
    Directory("letsencrypt".to_owned())
}

/// External account binding (RFC 8555 7.3.4); used once, when the account is made.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Eab {
    /// The key's name, from the CA.
    pub key_id: Secret,
    /// The key itself in base64url, from the CA. Best `${file:/run/secrets/eab}`.
    pub mac_key: Secret,
}
