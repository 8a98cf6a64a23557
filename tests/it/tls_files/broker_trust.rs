//! Whom a pool trusts.

use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use tidegate::certificates;
use tidegate::config::Problem;
use tidegate::config::model::{BrokerTls, CertificateFiles, Transport, Trust};

use super::files::{Files, authority, handshake, issued, params, place};

fn broker(trust: Trust, transport: Transport) -> Result<Arc<ClientConfig>, Problem> {
    let tls = BrokerTls {
        trust,
        server_name: None,
        certificate: None,
        place: place("pools.b.tls"),
    };
    certificates::broker(&tls, transport)
}

#[test]
fn a_client_certificate_needs_its_own_key() {
    let root = authority("Root", None);
    // As certificates of clients often are: without any alternative name.
    let one = issued(params(&[]), &root, &rcgen::PKCS_ECDSA_P256_SHA256);
    let other = issued(params(&[]), &root, &rcgen::PKCS_ECDSA_P256_SHA256);
    let files = Files::new();
    let chain = files.write("client.pem", one.pem.as_bytes());
    let right = files.write("client.key", one.key.serialize_pem().as_bytes());
    let wrong = files.write("other.key", other.key.serialize_pem().as_bytes());
    let with = |key: &Path| {
        let tls = BrokerTls {
            trust: Trust::System,
            server_name: None,
            certificate: Some(CertificateFiles {
                chain: chain.clone(),
                chain_place: place("pools.b.tls.certificate"),
                key: key.to_owned(),
                key_place: place("pools.b.tls.key"),
            }),
            place: place("pools.b.tls"),
        };
        certificates::broker(&tls, Transport::Wss)
    };
    assert!(with(&right).unwrap().client_auth_cert_resolver.has_certs());
    let problem = with(&wrong).unwrap_err();
    assert_eq!(problem.place.key, "pools.b.tls.key");
    assert!(
        problem
            .message
            .contains("does not belong to the certificate"),
        "{}",
        problem.message
    );
    let problem = with(Path::new("/nowhere/client.key")).unwrap_err();
    assert_eq!(problem.message, "no such file: /nowhere/client.key");
}

fn ca(path: &Path) -> Trust {
    Trust::Ca(path.to_owned())
}

#[test]
fn a_broker_is_verified_against_the_ca_of_its_pool() {
    let root = authority("Root", None);
    let leaf = issued(
        params(&["broker.example"]),
        &root,
        &rcgen::PKCS_ECDSA_P256_SHA256,
    );
    let files = Files::of(
        &format!("{}{}", leaf.pem, root.pem),
        &leaf.key.serialize_pem(),
    );
    let server = certificates::server(&files.config, &certificates::Tickets::default())
        .unwrap()
        .tls
        .usual;
    let right = files.write("ca.pem", root.pem.as_bytes());
    let wrong = files.write("other.pem", authority("Other", None).pem.as_bytes());
    let connect = |trust, name| handshake(&broker(trust, Transport::Mqtts).unwrap(), &server, name);
    assert!(connect(ca(&right), "broker.example").is_ok());
    assert!(connect(ca(&right), "other.example").is_err());
    assert!(connect(ca(&wrong), "broker.example").is_err());
    assert!(connect(Trust::System, "broker.example").is_err());
    assert!(connect(Trust::Anyone, "other.example").is_ok());
}

#[test]
fn only_wss_offers_an_application_protocol() {
    let offered = |transport| {
        broker(Trust::Anyone, transport)
            .unwrap()
            .alpn_protocols
            .clone()
    };
    assert_eq!(offered(Transport::Wss), [b"http/1.1".to_vec()]);
    assert!(offered(Transport::Mqtts).is_empty());
}

#[test]
fn a_ca_file_without_a_certificate_is_a_problem() {
    let files = Files::new();
    let empty = files.write("ca.pem", b"");
    let problem = broker(ca(&empty), Transport::Wss).unwrap_err();
    assert_eq!(problem.place.key, "pools.b.tls");
    assert!(
        problem.message.ends_with("ca.pem: the file is empty"),
        "{}",
        problem.message
    );
    let problem = broker(ca(Path::new("/nowhere/ca.pem")), Transport::Wss).unwrap_err();
    assert_eq!(problem.message, "no such file: /nowhere/ca.pem");
}
