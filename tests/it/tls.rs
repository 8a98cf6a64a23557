//! TLS as a client meets it: versions, the certificate for its name, resumption, the key exchange.

use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, NamedGroup, ProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::client::{tls, tls_as, tls_config};
use crate::support::gateway::{Gateway, site};
use crate::support::raw_http::Request;

async fn gateway(more: &str) -> (Gateway, tempfile::TempDir) {
    let (folder, root) = site();
    let yaml = format!("routes: [{{ path: /, site: {{ root: {root:?} }} }}]\n{more}\n");
    (Gateway::start(&yaml).await, folder)
}

/// Connects and is served; tickets come with the answer.
async fn served(gateway: &Gateway, config: &Arc<ClientConfig>) -> TlsStream<TcpStream> {
    let mut stream = tls_as(gateway.address(0), "localhost", Arc::clone(config))
        .await
        .unwrap();
    assert_eq!(Request::get("/").ask(&mut stream).await.status, 200);
    stream
}

async fn handshakes(gateway: &Gateway, version: &str, resumed: &str) -> f64 {
    let labels = [
        format!("version=\"{version}\""),
        format!("resumed=\"{resumed}\""),
    ];
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    gateway
        .metric("tidegate_tls_handshakes_total", &labels)
        .await
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_spoken() {
    let (gateway, _folder) = gateway("").await;
    for (version, protocol, label) in [
        (&TLS12, ProtocolVersion::TLSv1_2, "1.2"),
        (&TLS13, ProtocolVersion::TLSv1_3, "1.3"),
    ] {
        let config = tls_config(gateway.ca_file(), &[version]);
        let stream = served(&gateway, &config).await;
        assert_eq!(stream.get_ref().1.protocol_version(), Some(protocol));
        assert_eq!(handshakes(&gateway, label, "no").await, 1.0);
    }
    let seconds = "tidegate_tls_handshake_seconds_count";
    assert_eq!(gateway.metric(seconds, &[]).await, 2.0);
}

#[tokio::test]
async fn a_minimum_of_1_3_refuses_1_2() {
    let (gateway, _folder) = gateway("tls: { minimum: \"1.3\" }").await;
    let old = tls_config(gateway.ca_file(), &[&TLS12]);
    let refused = tls_as(gateway.address(0), "localhost", old).await;
    assert!(refused.is_err());
    gateway.outcome("client", "tls", "tls_failed").await;
    let labels = ["cause=\"nothing_in_common\""];
    let failures = "tidegate_tls_failures_total";
    gateway.metric_becomes(failures, &labels, 1.0).await;
    served(&gateway, &tls_config(gateway.ca_file(), &[&TLS13])).await;
}

#[tokio::test]
async fn a_known_client_resumes() {
    let (gateway, _folder) = gateway("").await;
    for (version, label) in [(&TLS12, "1.2"), (&TLS13, "1.3")] {
        let config = tls_config(gateway.ca_file(), &[version]);
        let first = served(&gateway, &config).await;
        assert_ne!(
            first.get_ref().1.handshake_kind(),
            Some(HandshakeKind::Resumed)
        );
        let second = served(&gateway, &config).await;
        assert_eq!(
            second.get_ref().1.handshake_kind(),
            Some(HandshakeKind::Resumed)
        );
        assert_eq!(handshakes(&gateway, label, "no").await, 1.0);
        assert_eq!(handshakes(&gateway, label, "yes").await, 1.0);
    }
}

#[tokio::test]
async fn the_key_exchange_is_post_quantum() {
    let (gateway, _folder) = gateway("").await;
    let stream = tls(&gateway).await;
    let group = stream.get_ref().1.negotiated_key_exchange_group();
    assert_eq!(
        group.map(|group| group.name()),
        Some(NamedGroup::X25519MLKEM768)
    );
}

#[tokio::test]
async fn http_1_1_is_agreed_on_with_clients_that_ask() {
    let (gateway, _folder) = gateway("").await;
    let mut config = ClientConfig::clone(&tls_config(gateway.ca_file(), &[&TLS13]));
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()];
    let stream = served(&gateway, &Arc::new(config)).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
}

/// Two certificates of two authorities: a client that trusts only one of them connects by that one's name alone.
#[tokio::test]
async fn the_name_that_a_client_asks_for_chooses_the_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let made = ["one.example", "two.example"].map(|name| {
        let names = [name.to_owned()];
        tidegate::certificates::dev::dev(&folder.path().join(name), &names).unwrap()
    });
    let pairs: Vec<String> = made
        .iter()
        .map(|files| format!("{{ chain: {:?}, key: {:?} }}", files.certificate, files.key))
        .collect();
    let (gateway, _folder) = gateway(&format!("certificates: [{}]", pairs.join(", "))).await;
    for (trusted, name, is_served) in [
        (0, "one.example", true),
        (1, "two.example", true),
        (0, "two.example", false),
        (1, "one.example", false),
    ] {
        let config = tls_config(&made[trusted].ca, rustls::DEFAULT_VERSIONS);
        let connected = tls_as(gateway.address(0), name, config).await;
        assert_eq!(
            connected.is_ok(),
            is_served,
            "{name} by authority {trusted}"
        );
    }
}
