//! Each mistake in the files has a message that names it, at the key that named the file.

use std::fs;
use std::time::SystemTime;

use base64::Engine;
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tidegate::certificates;
use tidegate::config::model::Speaks;

use super::files::{DAY, Files, Made, authority, files, issued, mode, params, self_signed};

const P256: &rcgen::SignatureAlgorithm = &rcgen::PKCS_ECDSA_P256_SHA256;

fn good() -> Made {
    self_signed(params(&["example.com"]))
}

#[test]
fn a_good_pair_has_no_warning_and_a_report() {
    let made = self_signed(params(&["example.com", "192.0.2.1", "WWW.example.com"]));
    let files = Files::of(&made.pem, &made.key.serialize_pem());
    let loaded = certificates::server(&files.config, &certificates::Tickets::default()).unwrap();
    assert_eq!(loaded.warnings, []);
    let report = &loaded.certificates[0];
    assert_eq!(
        report.names,
        ["example.com", "www.example.com", "192.0.2.1"]
    );
    assert_eq!(report.key, "ECDSA P-256");
    assert_eq!(report.chain_length, 1);
    assert!(report.not_after > SystemTime::now() + 99 * DAY);
    assert_eq!(report.path, files.first().chain);
}

#[test]
fn certificate_and_key_may_share_a_file() {
    let made = good();
    let mut both = Files::new();
    let path = both.write(
        "both.pem",
        format!("{}{}", made.key.serialize_pem(), made.pem).as_bytes(),
    );
    both.config.certificates.push(files(0, path.clone(), path));
    assert!(certificates::server(&both.config, &certificates::Tickets::default()).is_ok());
}

#[test]
fn what_stands_in_a_file_instead_is_named() {
    let made = good();
    let key = made.key.serialize_pem();
    let csr = params(&["example.com"])
        .serialize_request(&made.key)
        .unwrap()
        .pem()
        .unwrap();
    let chains: [(&str, &str); 6] = [
        (&key, "this is a private key"),
        (&csr, "this is a certificate signing request (CSR)"),
        (" \n", "the file is empty"),
        ("hello", "the file has no PEM block (-----BEGIN …-----)"),
        (
            "-----BEGIN DH PARAMETERS-----\nAAAA\n-----END DH PARAMETERS-----\n",
            "this is a PEM block of another kind",
        ),
        (
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "this is an encrypted private key",
        ),
    ];
    for (chain, expected) in chains {
        assert_eq!(
            Files::of(chain, &key).problem(),
            format!("certificates[0].chain: no certificate in chain0.pem: {expected}")
        );
    }
    let keys: [(&str, &str); 3] = [
        (
            &made.pem,
            "no private key in key0.pem: this is a certificate",
        ),
        ("", "no private key in key0.pem: the file is empty"),
        (
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            "no private key in key0.pem: this is a public key",
        ),
    ];
    for (key, expected) in keys {
        assert_eq!(
            Files::of(&made.pem, key).problem(),
            format!("certificates[0].key: {expected}")
        );
    }
}

#[test]
fn encrypted_keys_are_told_in_both_forms() {
    let made = good();
    let new = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    for key in [new, old] {
        let files = Files::of(&made.pem, key);
        assert_eq!(
            files.problem(),
            "certificates[0].key: the private key in key0.pem is encrypted"
        );
        assert!(
            files.problems()[0]
                .help
                .as_ref()
                .unwrap()
                .starts_with("openssl pkey")
        );
    }
}

#[test]
fn binary_files_are_told_from_text() {
    let made = good();
    let der = CertificateDer::from_pem_slice(made.pem.as_bytes()).unwrap();
    let mut files = Files::of("", &made.key.serialize_pem());
    let binary = files.write("cert.der", &der);
    files.first_mut().chain = binary;
    assert_eq!(
        files.problem(),
        "certificates[0].chain: no certificate in cert.der: this is binary (DER), not PEM"
    );
    assert!(
        files.problems()[0]
            .help
            .as_ref()
            .unwrap()
            .contains("openssl x509 -inform der")
    );
    let bundle = files.write("cert.pfx", &[0x30, 0x82, 0x0a, 0, 2, 1, 3, 0x30]);
    files.first_mut().chain = bundle;
    assert_eq!(
        files.problem(),
        "certificates[0].chain: no certificate in cert.pfx: this is a PKCS#12 bundle (.p12, .pfx), not PEM"
    );
}

#[test]
fn damaged_and_missing_files_are_problems_all_at_once() {
    let made = good();
    let mut files = Files::of(&made.pem.replace("-----END", "-----ENT"), "").pair(
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        &made.key.serialize_pem(),
    );
    files.first_mut().key = "/nowhere/key.pem".into();
    let problems = files.problems();
    let keys: Vec<&str> = problems.iter().map(|one| one.place.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "certificates[0].chain",
            "certificates[0].key",
            "certificates[1].chain"
        ]
    );
    assert!(problems[0].message.contains("is damaged PEM"));
    assert_eq!(problems[1].message, "no such file: /nowhere/key.pem");
    assert!(problems[2].message.contains("is damaged: it is not X.509"));
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let files = Files::of(&good().pem, &KeyPair::generate().unwrap().serialize_pem());
    assert_eq!(
        files.problem(),
        "certificates[0].key: the private key in key0.pem does not belong to the certificate in chain0.pem (example.com)"
    );
}

#[test]
fn the_right_key_among_several_is_found() {
    let made = good();
    let other = KeyPair::generate().unwrap().serialize_pem();
    let files = Files::of(&made.pem, &format!("{other}{}", made.key.serialize_pem()));
    assert!(certificates::server(&files.config, &certificates::Tickets::default()).is_ok());
}

#[test]
fn a_chain_in_the_wrong_order_says_which_is_the_leaf() {
    let root = authority("Root", None);
    let middle = authority("Middle", Some(&root));
    let leaf = issued(params(&["example.com"]), &middle, P256);
    let files = Files::of(
        &format!("{}{}", middle.pem, leaf.pem),
        &leaf.key.serialize_pem(),
    );
    assert_eq!(
        files.problem(),
        "certificates[0].chain: chain0.pem: wrong order: the first certificate is CN=Middle, the server's own certificate (example.com) is number 2"
    );
    let files = Files::of(
        &format!("{}{}{}", leaf.pem, root.pem, middle.pem),
        &leaf.key.serialize_pem(),
    );
    assert_eq!(
        files.problem(),
        "certificates[0].chain: chain0.pem: wrong order: certificate 1 (example.com) was issued by certificate 3 (CN=Middle), which must follow it"
    );
}

#[test]
fn a_missing_intermediate_is_a_warning() {
    let root = authority("Root", None);
    let middle = authority("Middle", Some(&root));
    let leaf = issued(params(&["example.com"]), &middle, P256);
    let key = leaf.key.serialize_pem();
    let expected = "certificates[0].chain: the intermediate certificate (CN=Middle) is missing in chain0.pem: it works in desktop browsers and fails on Android and in WeChat";
    assert_eq!(Files::of(&leaf.pem, &key).warning(), expected);
    assert_eq!(
        Files::of(&format!("{}{}", leaf.pem, root.pem), &key).warning(),
        expected
    );
    let whole = Files::of(&format!("{}{}", leaf.pem, middle.pem), &key);
    assert_eq!(
        certificates::server(&whole.config, &certificates::Tickets::default())
            .unwrap()
            .warnings,
        []
    );
}

#[test]
fn validity_is_checked_against_the_clock() {
    let made = good();
    let files = Files::of(&made.pem, &made.key.serialize_pem());
    let at = |when| certificates::server_at(&files.config, &certificates::Tickets::default(), when);
    let now = SystemTime::now();
    // The other names of the gateway are served.
    let expired = at(now + 101 * DAY).unwrap().warnings;
    assert!(expired[0].message.contains(" expired on 20"), "{expired:?}");
    let early = at(now - 2 * DAY).unwrap_err();
    assert!(
        early[0].message.contains(" is not valid before 20"),
        "{early:?}"
    );
    let soon = at(now + 87 * DAY).unwrap().warnings;
    assert!(soon[0].message.contains(" expires on 20"), "{soon:?}");
    assert_eq!(at(now + 85 * DAY).unwrap().warnings, []);
}

#[test]
fn an_expired_intermediate_is_a_warning() {
    let root = authority("Root", None);
    let mut old = params(&[]);
    old.distinguished_name
        .push(rcgen::DnType::CommonName, "Old");
    old.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    old.not_before = (SystemTime::now() - 9 * DAY).into();
    old.not_after = (SystemTime::now() - 8 * DAY).into();
    let old = issued(old, &root, P256);
    let leaf = issued(params(&["example.com"]), &old, P256);
    let files = Files::of(
        &format!("{}{}", leaf.pem, old.pem),
        &leaf.key.serialize_pem(),
    );
    let warning = files.warning();
    assert!(
        warning.contains("the intermediate certificate (CN=Old) in chain0.pem expired on"),
        "{warning}"
    );
}

#[test]
fn a_certificate_without_names_is_refused() {
    let made = self_signed(params(&[]));
    assert_eq!(
        Files::of(&made.pem, &made.key.serialize_pem()).problem(),
        "certificates[0].chain: the certificate in chain0.pem has no subject alternative name; clients ignore its common name"
    );
}

#[test]
fn every_host_of_a_route_must_be_covered() {
    let made = self_signed(params(&["example.com", "*.example.com", "192.0.2.1"]));
    let key = made.key.serialize_pem();
    let good = ["example.com", "a.example.com", "*.example.com", "192.0.2.1"];
    let covered = good
        .iter()
        .fold(Files::of(&made.pem, &key), |files, host| files.route(host));
    assert!(certificates::server(&covered.config, &certificates::Tickets::default()).is_ok());
    for host in ["example.org", "a.b.example.com", "*.example.org", "com"] {
        assert_eq!(
            Files::of(&made.pem, &key)
                .route("example.com")
                .route(host)
                .problem(),
            format!(
                "routes[1]: the certificate does not cover host {host}; names it has: example.com, *.example.com, 192.0.2.1"
            )
        );
    }
    let other = self_signed(params(&["example.net"]));
    let two = Files::of(&made.pem, &key).pair(&other.pem, &other.key.serialize_pem());
    assert_eq!(
        two.route("example.org").problem(),
        "routes[0]: no certificate covers host example.org; names they have: example.com, *.example.com, 192.0.2.1, example.net"
    );
    let mut plain = Files::of(&made.pem, &key).route("example.org");
    plain.config.listeners[0].speaks = Speaks::Plain;
    assert!(certificates::server(&plain.config, &certificates::Tickets::default()).is_ok());
}

#[test]
fn a_key_that_everyone_can_read_is_a_warning() {
    let made = good();
    let files = Files::of(&made.pem, &made.key.serialize_pem());
    mode(&files.first().key, 0o644);
    assert_eq!(
        files.warning(),
        "certificates[0].key: everyone on this machine can read the private key key0.pem (mode 0644)"
    );
    mode(&files.first().key, 0o640);
    assert_eq!(
        certificates::server(&files.config, &certificates::Tickets::default())
            .unwrap()
            .warnings,
        []
    );
}

#[test]
fn unusual_certificates_are_warnings() {
    let mut ca = params(&["example.com"]);
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = self_signed(ca);
    assert!(
        Files::of(&ca.pem, &ca.key.serialize_pem())
            .warning()
            .contains("is a CA certificate")
    );
    let root = authority("Root", None);
    let odd = issued(params(&["example.com"]), &root, &rcgen::PKCS_ED25519);
    let files = Files::of(
        &format!("{}{}", odd.pem, root.pem),
        &odd.key.serialize_pem(),
    );
    assert!(
        files
            .warning()
            .contains("Ed25519 key, which no browser accepts")
    );
}

#[test]
fn a_small_rsa_key_is_refused() {
    let weak = fs::read_to_string("tests/fixtures/tls/rsa1024.pem").unwrap();
    let problems = Files::of(&weak, &good().key.serialize_pem()).problems();
    let message = "the certificate in ";
    assert!(
        problems.iter().any(|one| one.message.starts_with(message)
            && one
                .message
                .ends_with("has an RSA key of 1024 bits; clients want 2048")),
        "{problems:?}"
    );
}

/// rcgen cannot sign with SHA-1: a certificate that claims it has the same shape.
#[test]
fn a_signature_with_sha1_is_a_warning() {
    const SHA256_WITH_RSA: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
    let mut root = self_signed_rsa();
    let leaf = issued(params(&["old.test"]), &root, P256);
    let mut der: Vec<u8> = CertificateDer::from_pem_slice(leaf.pem.as_bytes())
        .unwrap()
        .to_vec();
    while let Some(at) = der.windows(9).position(|bytes| bytes == SHA256_WITH_RSA) {
        der[at + 8] = 0x05;
    }
    let base64 = base64::engine::general_purpose::STANDARD.encode(&der);
    let pem = format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n");
    root.pem.insert_str(0, &pem);
    let warning = Files::of(&root.pem, &leaf.key.serialize_pem()).warning();
    assert!(
        warning.contains("old.test in chain0.pem is signed with SHA-1"),
        "{warning}"
    );
}

fn self_signed_rsa() -> Made {
    let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let params = params(&["ca.test"]);
    let pem = params.self_signed(&key).unwrap().pem();
    Made { pem, key, params }
}
