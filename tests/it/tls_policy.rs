//! Which TLS is spoken with whom (`tls.policy`): clients of today and old ones, as GnuTLS can be made to play them.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ClientConfig, HandshakeKind, SupportedProtocolVersion};

use crate::support::PATIENCE;
use crate::support::client::{tls_as, tls_config};
use crate::support::gateway::{Gateway, site};
use crate::support::process::Process;
use crate::support::raw_http::Request;
use crate::support::tools;

/// TLS 1.2 as Android 5 speaks it: P-256, AES-128-GCM, and no Extended Master Secret (GnuTLS: session hash).
const ANDROID_5: &str = "NONE:+VERS-TLS1.2:+AEAD:+AES-128-GCM:+ECDHE-ECDSA:+ECDHE-RSA:+GROUP-SECP256R1:+COMP-NULL:+SIGN-ALL:+CTYPE-ALL:%NO_SESSION_HASH";

/// The same with it, as Android 6 does.
const ANDROID_6: &str = "NONE:+VERS-TLS1.2:+AEAD:+AES-128-GCM:+ECDHE-ECDSA:+ECDHE-RSA:+GROUP-SECP256R1:+COMP-NULL:+SIGN-ALL:+CTYPE-ALL";

/// Android 4.4 and older, TLS 1.2 switched on: no AEAD.
const ANDROID_4: &str = "NONE:+VERS-TLS1.2:+AES-128-CBC:+SHA1:+SHA256:+ECDHE-ECDSA:+ECDHE-RSA:+RSA:+GROUP-ALL:+COMP-NULL:+SIGN-ALL:+CTYPE-ALL";

async fn gateway(more: &str) -> (Gateway, tempfile::TempDir) {
    let (folder, root) = site();
    let yaml = format!("routes: [{{ path: /, site: {{ root: {root:?} }} }}]\n{more}\n");
    (Gateway::start(&yaml).await, folder)
}

/// What GnuTLS says of its handshake, as `(TLS1.2-X.509)-(ECDHE-SECP256R1)-(ECDSA-SHA256)-(AES-128-GCM)`; `None` where it
/// failed.
async fn agreed(to: SocketAddr, priority: &str) -> Option<String> {
    let mut command = Command::new(tools::gnutls_cli());
    command
        .args(["--insecure", "--sni-hostname", "localhost", "--priority"])
        .arg(priority)
        .args(["-p", &to.port().to_string(), &to.ip().to_string()]);
    let finished = Process::start(&command).finish(PATIENCE).await;
    let mut lines = finished.stdout.lines();
    let told = lines.find_map(|line| line.strip_prefix("- Description: "));
    assert!(
        told.is_some() || finished.stderr.contains("alert"),
        "{}{}",
        finished.stdout,
        finished.stderr
    );
    told.map(str::to_owned)
}

#[tokio::test]
async fn a_client_without_extended_master_secret_is_served_by_the_compatible_policy_alone() {
    for (yaml, is_served) in [("", false), ("tls: { policy: compatible }", true)] {
        let (gateway, _folder) = gateway(yaml).await;
        let to = gateway.address(0);
        assert_eq!(agreed(to, ANDROID_5).await.is_some(), is_served, "{yaml}");
        assert!(agreed(to, ANDROID_6).await.is_some(), "{yaml}");
        assert_eq!(agreed(to, ANDROID_4).await, None, "{yaml}");
        let failures = "tidegate_tls_failures_total";
        let refused = if is_served { 0.0 } else { 1.0 };
        gateway
            .metric_becomes(failures, &["cause=\"policy\""], refused)
            .await;
        gateway
            .metric_becomes(failures, &["cause=\"nothing_in_common\""], 1.0)
            .await;
    }
}

/// A certificate for localhost with a key of this kind; the chain is the certificate alone.
fn pair(folder: &std::path::Path, kind: &'static rcgen::SignatureAlgorithm) -> String {
    let name = format!("{kind:?}").replace(|letter: char| !letter.is_alphanumeric(), "");
    let key = KeyPair::generate_for(kind).unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let path = folder.join(format!("{name}.pem"));
    std::fs::write(&path, certificate.pem() + &key.serialize_pem()).unwrap();
    format!("{{ chain: {path:?}, key: {path:?} }}")
}

#[tokio::test]
async fn clients_that_know_ecdsa_get_that_certificate_and_others_the_rsa_one() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = [&rcgen::PKCS_RSA_SHA256, &rcgen::PKCS_ECDSA_P256_SHA256];
    let pairs = pairs.map(|kind| pair(folder.path(), kind)).join(", ");
    let (gateway, _folder) = gateway(&format!("certificates: [{pairs}]")).await;
    let rsa_alone = "-SIGN-ALL:+SIGN-RSA-SHA256:+SIGN-RSA-PSS-RSAE-SHA256";
    for (priority, signature) in [
        ("NORMAL".to_owned(), "(ECDSA-"),
        ("NORMAL:-VERS-TLS1.3".to_owned(), "(ECDSA-"),
        (format!("NORMAL:{rsa_alone}"), "(RSA-PSS-"),
        (format!("NORMAL:-VERS-TLS1.3:{rsa_alone}"), "(RSA-"),
        ("NORMAL:-VERS-TLS1.3:-ECDHE-ECDSA".to_owned(), "(RSA-"),
        (ANDROID_6.to_owned(), "(ECDSA-"),
        (format!("{ANDROID_6}:-ECDHE-ECDSA"), "(RSA-"),
    ] {
        let told = agreed(gateway.address(0), &priority).await;
        let told = told.unwrap_or_else(|| panic!("{priority} was refused"));
        assert!(told.contains(signature), "{priority}: {told}");
    }
}

/// A client that names these suites, in this order.
fn naming(
    gateway: &Gateway,
    version: &'static SupportedProtocolVersion,
    suites: &[CipherSuite],
) -> Arc<ClientConfig> {
    let config = tls_config(gateway.ca_file(), &[version]);
    let mut provider = rustls::crypto::CryptoProvider::clone(config.crypto_provider());
    let all = std::mem::take(&mut provider.cipher_suites);
    let named = suites.iter().flat_map(|suite| {
        let mut all = all.iter();
        all.find(|one| one.suite() == *suite).copied()
    });
    provider.cipher_suites = named.collect();
    crate::support::client::tls_config_by(provider, gateway.ca_file(), &[version])
}

/// This test runs where AES has instructions, as do all machines that build it.
#[tokio::test]
async fn aes_goes_first_unless_the_client_names_chacha20_before_all_else() {
    const AES: [CipherSuite; 2] = [
        CipherSuite::TLS13_AES_256_GCM_SHA384,
        CipherSuite::TLS13_AES_128_GCM_SHA256,
    ];
    const CHACHA: CipherSuite = CipherSuite::TLS13_CHACHA20_POLY1305_SHA256;
    const OLD_AES: CipherSuite = CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
    const OLD_CHACHA: CipherSuite = CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256;
    let (gateway, _folder) = gateway("").await;
    for (version, named, chosen) in [
        (&TLS13, &[AES[0], CHACHA, AES[1]][..], AES[1]),
        (&TLS13, &[CHACHA, AES[0], AES[1]], CHACHA),
        (&TLS12, &[OLD_AES, OLD_CHACHA], OLD_AES),
        (&TLS12, &[OLD_CHACHA, OLD_AES], OLD_CHACHA),
    ] {
        let config = naming(&gateway, version, named);
        let connecting = tls_as(gateway.address(0), "localhost", config);
        let stream = connecting.await.unwrap();
        let suite = stream.get_ref().1.negotiated_cipher_suite().unwrap();
        assert_eq!(suite.suite(), chosen, "{named:?}");
    }
}

/// A browser resumes two connections at once; a device has one, and who shows a ticket is given another for it.
#[tokio::test]
async fn a_new_browser_gets_two_tickets_and_all_others_one() {
    const CHACHA: CipherSuite = CipherSuite::TLS13_CHACHA20_POLY1305_SHA256;
    const AES: CipherSuite = CipherSuite::TLS13_AES_128_GCM_SHA256;
    const HTTP1_ONLY: &str = "listeners: [{ address: \"127.0.0.1:0\", http2: off }]";
    let tickets = async |gateway: &Gateway, config: &Arc<ClientConfig>| {
        let connecting = tls_as(gateway.address(0), "localhost", Arc::clone(config));
        let mut wire = connecting.await.unwrap();
        assert_eq!(Request::get("/").ask(&mut wire).await.status, 200);
        let tls = wire.get_ref().1;
        (tls.handshake_kind().unwrap(), tls.tls13_tickets_received())
    };
    let (full, resumed) = (HandshakeKind::Full, HandshakeKind::Resumed);
    for yaml in ["", HTTP1_ONLY] {
        let (gateway, _folder) = gateway(yaml).await;
        for suites in [[AES, CHACHA], [CHACHA, AES]] {
            let device = naming(&gateway, &TLS13, &suites);
            assert_eq!(tickets(&gateway, &device).await, (full, 1), "{suites:?}");
            assert_eq!(tickets(&gateway, &device).await, (resumed, 1));
            let mut browser = ClientConfig::clone(&naming(&gateway, &TLS13, &suites));
            browser.alpn_protocols = vec![b"http/1.1".to_vec()];
            let browser = Arc::new(browser);
            assert_eq!(tickets(&gateway, &browser).await, (full, 2), "{suites:?}");
            assert_eq!(tickets(&gateway, &browser).await, (resumed, 1));
        }
    }
}

/// What a client may say before it has heard the server can be said again by whoever records it.
#[tokio::test]
async fn nobody_may_send_early_data() {
    let (gateway, _folder) = gateway("").await;
    let mut config = ClientConfig::clone(&tls_config(gateway.ca_file(), &[&TLS13]));
    config.enable_early_data = true;
    let config = Arc::new(config);
    for is_known in [false, true] {
        let connecting = tls_as(gateway.address(0), "localhost", Arc::clone(&config));
        let mut stream = connecting.await.unwrap();
        let tls = stream.get_mut().1;
        let kind = tls.handshake_kind().unwrap();
        assert_eq!(kind == HandshakeKind::Resumed, is_known);
        assert!(tls.early_data().is_none() && !tls.is_early_data_accepted());
        assert_eq!(Request::get("/").ask(&mut stream).await.status, 200);
    }
}
