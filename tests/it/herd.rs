//! More hellos at once than there is time for: some are answered, the others are turned away before anything is computed for
//! them, and whoever comes later finds the door open.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256};
use rustls::ClientConnection;

use crate::support::PATIENCE;
use crate::support::client::tls_config;
use crate::support::gateway::{Gateway, site};

/// Each costs the gateway a signature by RSA, half a millisecond and more.
const HERD: usize = 60;

/// With a certificate that is dear to sign for.
async fn gateway(more: &str) -> (Gateway, tempfile::TempDir) {
    let (folder, root) = site();
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = certificate.self_signed(&key).unwrap();
    let path = folder.path().join("rsa.pem");
    std::fs::write(&path, certificate.pem() + &key.serialize_pem()).unwrap();
    let yaml = format!(
        "routes: [{{ path: /, site: {{ root: {root:?} }} }}]\ncertificates: [{{ chain: {path:?}, key: {path:?} }}]\n{more}\n"
    );
    (Gateway::start(&yaml).await, folder)
}

/// The first flight of so many clients.
fn hellos(ca: &Path) -> Vec<Vec<u8>> {
    let config = tls_config(ca, rustls::DEFAULT_VERSIONS);
    let hello = || {
        let name = "localhost".try_into().unwrap();
        let mut client = ClientConnection::new(Arc::clone(&config), name).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        hello
    };
    (0..HERD).map(|_| hello()).collect()
}

/// All of them connected, and then all say hello.
fn rush(gateway: &Gateway) -> Vec<TcpStream> {
    let hellos = hellos(gateway.ca_file());
    let connect = |_| TcpStream::connect(gateway.address(0)).unwrap();
    let mut clients: Vec<TcpStream> = (0..HERD).map(connect).collect();
    for (client, hello) in clients.iter_mut().zip(hellos) {
        client.write_all(&hello).unwrap();
    }
    clients
}

/// Whether the gateway's answer begins.
fn is_answered(mut client: TcpStream) -> bool {
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    match client.read(&mut [0; 5]) {
        Ok(count) => {
            assert_ne!(count, 0, "turned away, but without a reset");
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            false
        }
    }
}

async fn refused(gateway: &Gateway, reason: &str) -> f64 {
    let label = format!("reason=\"{reason}\"");
    gateway.metric("tidegate_refused_total", &[&label]).await
}

#[tokio::test]
async fn hellos_that_have_waited_too_long_are_turned_away() {
    let (gateway, _folder) = gateway("limits: { handshake_age: 2ms }").await;
    let answered = rush(&gateway).into_iter().map(is_answered);
    let answered = answered.filter(|is_answered| *is_answered).count();
    assert!((1..HERD).contains(&answered), "{answered} of {HERD}");
    let turned_away = refused(&gateway, "handshake_age").await;
    assert_eq!(turned_away, (HERD - answered) as f64);
    gateway
        .metric_becomes("tidegate_tls_wait_seconds_count", &[], HERD as f64)
        .await;
    // The herd is gone.
    let (mut client, hello) = (
        TcpStream::connect(gateway.address(0)).unwrap(),
        hellos(gateway.ca_file()).pop().unwrap(),
    );
    client.write_all(&hello).unwrap();
    assert!(is_answered(client));
}

#[tokio::test]
async fn a_herd_that_can_be_served_in_time_is_served_whole() {
    let (gateway, _folder) = gateway("limits: { handshake_age: 60s }").await;
    assert!(rush(&gateway).into_iter().all(is_answered));
    assert_eq!(refused(&gateway, "handshake_age").await, 0.0);
}

#[tokio::test]
async fn nothing_is_computed_for_clients_that_have_left_while_they_waited() {
    let (gateway, _folder) = gateway("limits: { handshake_age: 60s }").await;
    let clients = rush(&gateway);
    for client in &clients {
        client.shutdown(std::net::Shutdown::Write).unwrap();
    }
    gateway
        .metric_becomes("tidegate_connections", &[], 0.0)
        .await;
    let labels = ["phase=\"tls\"", "why=\"vanished\""];
    let left = gateway.metric("tidegate_outcomes_total", &labels).await;
    assert!(left > 0.0, "all were answered");
}
