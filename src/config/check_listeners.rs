//! Checks what listeners believe about their clients: PROXY headers, certificates, trusted proxies.

use super::check::Findings;
use super::model::{
    ClientCertificates, ConnectClientId, ConnectIdentity, ConnectUserName, CrlFile, Listener, Pool,
    Speaks,
};
use super::networks::{Network, Networks};
use super::raw_listeners as raw;

/// The networks below `key`.
pub(super) fn networks(raw: &[Network], key: &str, findings: &mut Findings<'_>) -> Networks {
    for (index, network) in raw.iter().enumerate() {
        if network.0.prefix_len() == 0 {
            findings.warning(
                &format!("{key}[{index}]"),
                format!("`{network}` trusts everyone: any client can claim any address"),
                "name the networks of your own load balancers",
            );
        }
    }
    Networks(raw.iter().map(|network| network.0).collect())
}

/// Whether a listener offers it.
pub(super) fn http2(
    raw: raw::Http2,
    speaks: Speaks,
    key: &str,
    findings: &mut Findings<'_>,
) -> bool {
    let is_on = raw == raw::Http2::On;
    if is_on && speaks != Speaks::Tls && findings.places.has(key) {
        findings.problem(
            key,
            "a listener with `plain` speaks HTTP/1.1 only",
            "remove `http2`: browsers speak it within TLS, and balancers can speak HTTP/1.1",
        );
    }
    is_on && speaks == Speaks::Tls
}

/// `None` for a listener that does not ask.
pub(super) fn client_certificates(
    raw: raw::ClientCertificates,
    speaks: Speaks,
    key: &str,
    findings: &mut Findings<'_>,
) -> Option<ClientCertificates> {
    let required = match raw.mode {
        raw::ClientCertificateMode::Off => return None,
        raw::ClientCertificateMode::Optional => false,
        raw::ClientCertificateMode::Required => true,
    };
    if speaks != Speaks::Tls {
        findings.problem(
            key,
            "a listener with `plain` sees no certificates",
            "remove `plain`, or let whoever ends TLS ask for them and send them by `proxy_protocol`",
        );
    }
    let Some(ca) = raw.ca else {
        findings.problem(
            key,
            "`ca` is missing: whose certificates are to be believed?",
            "name a PEM file with the CAs that issue your clients' certificates",
        );
        return None;
    };
    let crl = raw
        .crl
        .into_iter()
        .enumerate()
        .map(|(index, file)| CrlFile {
            path: file.0.into(),
            place: findings.places.of(&format!("{key}.crl[{index}]")),
        });
    Some(ClientCertificates {
        required,
        ca: ca.0.into(),
        crl: crl.collect(),
        ca_place: findings.places.of(&format!("{key}.ca")),
    })
}

/// What a pool makes of a certificate.
pub(super) fn connect_identity(
    user_name: raw::UserName,
    client_id: raw::ClientId,
) -> ConnectIdentity {
    ConnectIdentity {
        user_name: match user_name {
            raw::UserName::Client => ConnectUserName::Client,
            raw::UserName::CertificateCommonName => ConnectUserName::CertificateCommonName,
            raw::UserName::CertificateSubject => ConnectUserName::CertificateSubject,
        },
        client_id: match client_id {
            raw::ClientId::Client => ConnectClientId::Client,
            raw::ClientId::CertificateCommonName => ConnectClientId::CertificateCommonName,
        },
    }
}

/// A pool that needs certificates which no client will ever have shown.
pub(super) fn certificates_nobody_asks_for(
    listeners: &[Listener],
    pools: &[Pool],
    findings: &mut Findings<'_>,
) {
    // A trusted proxy that ended TLS tells the common name in its header.
    let somebody_knows = listeners.iter().any(|listener| {
        listener.client_certificates.is_some() || listener.proxy_protocol.is_some()
    });
    for pool in pools
        .iter()
        .filter(|pool| !somebody_knows && pool.connect_identity.needs_certificate())
    {
        findings.warning(
            &pool.place.key,
            "takes identities from certificates, but no listener asks clients for one: everyone is refused",
            "add `client_certificates` to a listener",
        );
    }
}
