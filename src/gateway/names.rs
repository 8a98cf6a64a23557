//! The user name and client id that a broker sees in CONNECT, where they are not the client's own.

use super::outcome::Reason;
use crate::config::model::{ConnectClientId, ConnectUserName};
use crate::identity::Identity;
use crate::mqtt::{Connect, NewNames};
use crate::pool::Pool;

/// CONNECT as the broker is to see it, where it is not the client's own.
pub(super) fn renamed(
    pool: &Pool,
    identity: &Identity,
    packet: &[u8],
    connect: &Connect<'_>,
) -> Result<Option<Vec<u8>>, Reason> {
    let names = names(pool, identity)?;
    if names == NewNames::default() {
        return Ok(None);
    }
    // A name that MQTT cannot carry is no name.
    let renamed = names.rewrite(packet, connect);
    renamed.map(Some).ok_or(Reason::NotAuthorized)
}

/// The names that the client's certificate gives it, where the pool takes them from there.
///
/// SECURITY: a client without the name that is asked for has no session; it never falls back to its own word.
fn names<'a>(pool: &Pool, identity: &'a Identity) -> Result<NewNames<'a>, Reason> {
    let wanted = pool.connect_identity();
    let certificate = identity
        .tls
        .as_ref()
        .and_then(|tls| tls.certificate.as_ref());
    let common_name = || {
        let name = certificate.and_then(|certificate| certificate.common_name.as_deref());
        name.map(Some).ok_or(Reason::NotAuthorized)
    };
    let subject = || {
        let subject = certificate.map(|certificate| certificate.subject.as_str());
        let subject = subject.filter(|subject| !subject.is_empty());
        subject.map(Some).ok_or(Reason::NotAuthorized)
    };
    Ok(NewNames {
        user_name: match wanted.user_name {
            ConnectUserName::Client => None,
            ConnectUserName::CertificateCommonName => common_name()?,
            ConnectUserName::CertificateSubject => subject()?,
        },
        client_id: match wanted.client_id {
            ConnectClientId::Client => None,
            ConnectClientId::CertificateCommonName => common_name()?,
        },
    })
}
