//! A client's hello, and what a client may send behind its handshake: bounded in length, in time and in number.

use std::time::Duration;

use rustls::ClientConfig;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::PATIENCE;
use crate::support::client::{tls_as, tls_config};
use crate::support::gateway::{Gateway, site};
use crate::support::raw_http::{Request, rest};

async fn gateway(more: &str) -> (Gateway, tempfile::TempDir) {
    let (folder, root) = site();
    let yaml = format!("routes: [{{ path: /, site: {{ root: {root:?} }} }}]\n{more}\n");
    (Gateway::start(&yaml).await, folder)
}

/// The head of a record and of a hello in it that is `length` bytes long.
fn hello_of(length: u32) -> Vec<u8> {
    let [_, a, b, c] = length.to_be_bytes();
    vec![22, 3, 1, 0x40, 0, 1, a, b, c]
}

#[tokio::test]
async fn a_hello_in_many_small_records_is_understood() {
    let (gateway, _folder) = gateway("").await;
    for version in [&TLS12, &TLS13] {
        let mut config = ClientConfig::clone(&tls_config(gateway.ca_file(), &[version]));
        config.max_fragment_size = Some(32);
        let connecting = tls_as(gateway.address(0), "localhost", config.into());
        let mut stream = connecting.await.unwrap();
        assert_eq!(Request::get("/").ask(&mut stream).await.status, 200);
    }
}

#[tokio::test]
async fn a_hello_that_is_too_long_is_refused_by_its_head() {
    let (gateway, _folder) = gateway("").await;
    let mut stream = TcpStream::connect(gateway.address(0)).await.unwrap();
    stream.write_all(&hello_of(20_000)).await.unwrap();
    rest(&mut stream).await;
    gateway.outcome("client", "tls", "tls_failed").await;
    let labels = ["cause=\"garbage\""];
    let failures = "tidegate_tls_failures_total";
    gateway.metric_becomes(failures, &labels, 1.0).await;
}

/// Six bytes on the wire for one of the hello.
#[tokio::test]
async fn a_hello_in_records_of_one_byte_each_ends_at_its_bound() {
    let (gateway, _folder) = gateway("").await;
    let stream = TcpStream::connect(gateway.address(0)).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let message = [&hello_of(16_000)[5..], &[0; 16_000]].concat();
    let records = message.iter().flat_map(|byte| [22, 3, 1, 0, 1, *byte]);
    let records: Vec<u8> = records.collect();
    let (_written, read) = tokio::join!(writer.write_all(&records), rest(&mut reader));
    assert_eq!(read, b"");
    gateway.outcome("client", "tls", "tls_failed").await;
}

#[tokio::test]
async fn a_hello_that_comes_byte_by_byte_ends_at_its_deadline() {
    let (gateway, _folder) = gateway("timeouts: { tls: 500ms }").await;
    let mut stream = TcpStream::connect(gateway.address(0)).await.unwrap();
    stream.write_all(&hello_of(500)).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let dripping = async {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        while writer.write_all(&[0]).await.is_ok() {
            tick.tick().await;
        }
    };
    let ended = timeout(PATIENCE, async {
        tokio::join!(dripping, rest(&mut reader))
    });
    ended.await.expect("it may go on for ever");
    gateway.outcome("client", "tls", "tls_timeout").await;
}

/// Each makes us derive keys, and answer.
#[tokio::test]
async fn a_flood_of_key_updates_ends_the_connection() {
    let (gateway, _folder) = gateway("").await;
    let config = tls_config(gateway.ca_file(), &[&TLS13]);
    let connecting = tls_as(gateway.address(0), "localhost", config);
    let mut stream = connecting.await.unwrap();
    assert_eq!(Request::get("/").ask(&mut stream).await.status, 200);
    let ended = timeout(PATIENCE, async {
        for _ in 0..1000 {
            stream.get_mut().1.refresh_traffic_keys().unwrap();
            if stream.flush().await.is_err() {
                break;
            }
        }
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await
    });
    ended.await.expect("it was borne").unwrap_err();
    gateway
        .metric_becomes("tidegate_connections", &[], 0.0)
        .await;
}
