//! The right protocol on the wrong port: each mistake is closed, counted, and named in a sentence that the person who made
//! it, or the operator, can read. The log is the real program's.

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::tls_to;
use crate::support::packets;
use crate::support::program::Program;
use crate::support::raw_http::{MORE_THAN_BUFFERS_HOLD, Request, converse, rest};

const PORTS: &str = "
listeners:
  - { address: \"127.0.0.1:0\", name: tls }
  - { address: \"127.0.0.1:0\", name: plain, plain: routes }
  - { address: \"127.0.0.1:0\", name: redirect, plain: redirect }
routes: [{path: /mqtt, pool: brokers}]
pools: {brokers: {brokers: [{url: \"mqtt://127.0.0.1:1\"}]}}
";
const TLS: usize = 0;
const PLAIN: usize = 1;
const REDIRECT: usize = 2;

/// The first bytes of a ClientHello.
const CLIENT_HELLO: [u8; 6] = [0x16, 3, 1, 0, 0xc8, 1];

/// Says it and reads to the end.
async fn say(program: &Program, listener: usize, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(program.address(listener)).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    rest(&mut stream).await
}

#[tokio::test]
async fn plain_http_on_a_tls_port_is_answered_with_the_mistake() {
    let program = Program::run(PORTS).await;
    let mut stream = TcpStream::connect(program.address(TLS)).await.unwrap();
    let answer = Request::get("/mqtt").ask(&mut stream).await;
    assert_eq!(answer.status, 400);
    assert!(
        answer.body.contains("must begin with https:// or wss://"),
        "{answer:?}"
    );
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(rest(&mut stream).await, b"");
    let admin = program.admin;
    admin.outcome("client", "tls", "plain_http_on_tls").await;
    let line = program.tells(&["plain HTTP on a TLS port"]).await;
    let peer = format!("peer={}", stream.local_addr().unwrap());
    assert!(
        line.contains(&peer) && line.contains("listener=\"tls\""),
        "{line}"
    );
}

#[tokio::test]
async fn the_answer_to_plain_http_on_a_tls_port_survives_a_long_request() {
    let program = Program::run(PORTS).await;
    let stream = TcpStream::connect(program.address(TLS)).await.unwrap();
    let request = Request::get("/").with("Cookie", &"c".repeat(MORE_THAN_BUFFERS_HOLD));
    let answer = converse(stream, &request.text()).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[tokio::test]
async fn mqtt_on_a_tls_port_is_closed_and_named() {
    let program = Program::run(PORTS).await;
    assert_eq!(say(&program, TLS, &packets::connect("c", 60)).await, b"");
    program.admin.outcome("client", "tls", "mqtt_on_tls").await;
    let words = ["MQTT without TLS and WebSocket", "listener=\"tls\""];
    program.tells(&words).await;
}

/// Their connections leave nothing behind: a fleet on the wrong port comes again and again.
#[tokio::test]
async fn whom_nothing_is_answered_is_reset() {
    let program = Program::run(PORTS).await;
    for (listener, said) in [
        (TLS, &packets::connect("c", 60)[..]),
        (TLS, b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n"),
        (PLAIN, &CLIENT_HELLO),
    ] {
        let mut stream = TcpStream::connect(program.address(listener)).await.unwrap();
        stream.write_all(said).await.unwrap();
        let end = stream.read(&mut [0]).await.unwrap_err();
        assert_eq!(end.kind(), ErrorKind::ConnectionReset, "{said:?}");
    }
}

#[tokio::test]
async fn mqtt_inside_tls_is_closed_and_named() {
    let program = Program::run(PORTS).await;
    let mut stream = tls_to(program.address(TLS), &program.authority.ca).await;
    stream.write_all(&packets::connect("c", 60)).await.unwrap();
    assert_eq!(rest(&mut stream).await, b"");
    program.admin.outcome("client", "http", "mqtt_in_tls").await;
    program
        .tells(&["must begin with wss:// and not mqtts://"])
        .await;
}

#[tokio::test]
async fn tls_on_a_plain_port_is_closed_and_named() {
    let program = Program::run(PORTS).await;
    assert_eq!(say(&program, PLAIN, &CLIENT_HELLO).await, b"");
    program
        .admin
        .outcome("client", "http", "tls_on_plain")
        .await;
    let words = ["TLS on a plain port", "listener=\"plain\""];
    program.tells(&words).await;
}

#[tokio::test]
async fn tls_on_a_redirecting_port_is_closed_and_named() {
    let program = Program::run(PORTS).await;
    assert_eq!(say(&program, REDIRECT, &CLIENT_HELLO).await, b"");
    program
        .admin
        .outcome("client", "http", "tls_on_plain")
        .await;
    program
        .tells(&["TLS on a plain port", "listener=\"redirect\""])
        .await;
}

#[tokio::test]
async fn mqtt_on_an_http_port_is_closed_and_named() {
    let program = Program::run(PORTS).await;
    assert_eq!(say(&program, PLAIN, &packets::connect("c", 60)).await, b"");
    program
        .admin
        .outcome("client", "http", "mqtt_on_http")
        .await;
    let words = [
        "must begin with ws:// and not mqtt://",
        "listener=\"plain\"",
    ];
    program.tells(&words).await;
}

#[tokio::test]
async fn a_client_that_does_not_trust_the_certificate_is_named() {
    let program = Program::run(PORTS).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let other = crate::support::authority::Authority::make(elsewhere.path());
    let refused = crate::support::client::try_tls_to(program.address(TLS), &other.ca).await;
    assert!(refused.is_err());
    program.admin.outcome("client", "tls", "tls_failed").await;
    let labels = ["cause=\"alert\"", "listener=\"tls\""];
    let failures = "tidegate_tls_failures_total";
    program.admin.metric_becomes(failures, &labels, 1.0).await;
    program.tells(&["the TLS handshake failed", "alert"]).await;
}
