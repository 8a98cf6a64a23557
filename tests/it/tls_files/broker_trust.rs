//! Whom a pool trusts.

use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use tidegate::certificates;
use tidegate::config::Problem;
use tidegate::config::model::{BrokerTls, Transport, Trust};

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
    let server = certificates::server(&files.config).unwrap().tls;
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
