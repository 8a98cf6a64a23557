//! Which certificate a client gets, and with which TLS.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, HandshakeKind, NamedGroup, ProtocolVersion, RootCertStore, version};
use tidegate::certificates;
use tidegate::config::model::TlsVersion;

use super::files::{Files, Made, authority, handshake, issued, params};

fn client(root: &Made, suites: impl Fn(&str) -> bool) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(rustls::pki_types::pem::PemObject::from_pem_slice(root.pem.as_bytes()).unwrap())
        .unwrap();
    let mut provider = aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .retain(|suite| suites(&format!("{:?}", suite.suite())));
    let versions = if provider
        .cipher_suites
        .iter()
        .any(|suite| suite.tls13().is_some())
    {
        &[&version::TLS13, &version::TLS12][..]
    } else {
        &[&version::TLS12][..]
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

/// `a.example` twice (RSA first, then ECDSA), `*.w.example` and `b.example`.
fn several(root: &Made) -> Files {
    let rsa = issued(params(&["a.example"]), root, &rcgen::PKCS_RSA_SHA256);
    let names: [&[&str]; 3] = [&["a.example"], &["*.w.example"], &["b.example"]];
    let mut files = Files::new().pair(
        &format!("{}{}", rsa.pem, root.pem),
        &rsa.key.serialize_pem(),
    );
    for names in names {
        let made = issued(params(names), root, &rcgen::PKCS_ECDSA_P256_SHA256);
        files = files.pair(
            &format!("{}{}", made.pem, root.pem),
            &made.key.serialize_pem(),
        );
    }
    files
}

fn leaf_of(files: &Files, index: usize) -> Vec<u8> {
    let chain = std::fs::read(&files.config.certificate_files().nth(index).unwrap().chain).unwrap();
    let leaf: rustls::pki_types::CertificateDer<'_> =
        rustls::pki_types::pem::PemObject::from_pem_slice(&chain).unwrap();
    leaf.to_vec()
}

#[test]
fn the_server_name_chooses_the_certificate() {
    let root = authority("Root", None);
    let files = several(&root);
    let server = certificates::server(&files.config, &certificates::Tickets::default())
        .unwrap()
        .tls
        .usual;
    let client = client(&root, |_| true);
    for (name, expected) in [
        ("a.example", 1),
        ("b.example", 3),
        ("c.w.example", 2),
        ("B.EXAMPLE", 3),
    ] {
        let (client, _) = handshake(&client, &server, name).unwrap();
        let leaf = &client.peer_certificates().unwrap()[0];
        assert_eq!(leaf.to_vec(), leaf_of(&files, expected), "{name}");
    }
}

#[test]
fn an_unknown_name_gets_the_first_certificate() {
    let root = authority("Root", None);
    let files = several(&root);
    let server = certificates::server(&files.config, &certificates::Tickets::default())
        .unwrap()
        .tls
        .usual;
    for name in ["elsewhere.test", "192.0.2.7"] {
        let error = handshake(&client(&root, |_| true), &server, name).unwrap_err();
        assert!(format!("{error:?}").contains("a.example"), "{error:?}");
    }
}

#[test]
fn a_client_without_ecdsa_gets_the_rsa_certificate() {
    let root = authority("Root", None);
    let files = several(&root);
    let server = certificates::server(&files.config, &certificates::Tickets::default())
        .unwrap()
        .tls
        .usual;
    let old = client(&root, |suite| suite.contains("ECDHE_RSA"));
    let (client, _) = handshake(&old, &server, "a.example").unwrap();
    assert_eq!(
        client.peer_certificates().unwrap()[0].to_vec(),
        leaf_of(&files, 0)
    );
}

#[test]
fn tls_is_1_3_post_quantum_http_2_and_resumed_once_known() {
    let root = authority("Root", None);
    let files = several(&root);
    let tls = certificates::server(&files.config, &certificates::Tickets::default())
        .unwrap()
        .tls
        .usual;
    let known = client(&root, |_| true);
    let (_, server) = handshake(&known, &tls, "b.example").unwrap();
    assert_eq!(server.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(server.alpn_protocol(), Some(&b"h2"[..]));
    let group = server.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
    let (client, _) = handshake(&known, &tls, "b.example").unwrap();
    assert_eq!(client.handshake_kind(), Some(HandshakeKind::Resumed));
    assert_eq!(tls.max_early_data_size, 0);
}

#[test]
fn tls_1_2_is_spoken_and_resumed_unless_the_policy_ends_it() {
    let root = authority("Root", None);
    let mut files = several(&root);
    let old = client(&root, |suite| suite.contains("ECDHE"));
    let tls = certificates::server(&files.config, &certificates::Tickets::default())
        .unwrap()
        .tls
        .usual;
    let (first, _) = handshake(&old, &tls, "b.example").unwrap();
    assert_eq!(first.protocol_version(), Some(ProtocolVersion::TLSv1_2));
    let (second, _) = handshake(&old, &tls, "b.example").unwrap();
    assert_eq!(second.handshake_kind(), Some(HandshakeKind::Resumed));
    files.config.tls.minimum = TlsVersion::Tls13;
    let tls = certificates::server(&files.config, &certificates::Tickets::default())
        .unwrap()
        .tls
        .usual;
    assert!(handshake(&old, &tls, "b.example").is_err());
}
