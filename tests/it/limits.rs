//! How much may be there at once: what is over a limit is refused, counted, and takes nothing from the others.

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::broker::Broker;
use crate::support::client::{Client, tls, try_tls};
use crate::support::gateway::{Gateway, pool_of};
use crate::support::packets;
use crate::support::raw_http::{Answer, Request, rest};

async fn gateway_with(limits: &str, broker: &Broker) -> Gateway {
    let pool = pool_of(&[broker.mqtt_url()]);
    Gateway::start(&format!("{pool}limits: {{ {limits} }}\n")).await
}

async fn tcp(gateway: &Gateway) -> TcpStream {
    TcpStream::connect(gateway.address(0)).await.unwrap()
}

/// One that has sent the first byte of a handshake.
async fn begun(gateway: &Gateway) -> TcpStream {
    let mut stream = tcp(gateway).await;
    stream.write_all(&[22]).await.unwrap();
    stream
}

async fn is_refused(gateway: &Gateway, reason: &str, count: f64) {
    let mut one_too_many = tcp(gateway).await;
    // Ours is the first word in TLS: an end without one is the refusal.
    assert_eq!(rest(&mut one_too_many).await, b"");
    let label = format!("reason=\"{reason}\"");
    gateway
        .metric_becomes("tidegate_refused_total", &[&label], count)
        .await;
}

#[tokio::test]
async fn the_connection_that_is_one_too_many_is_closed_at_once() {
    let broker = Broker::start().await;
    let gateway = gateway_with("connections: 2", &broker).await;
    // A session holds its place as any other connection does.
    let (client, _session) = tokio::join!(Client::connected(&gateway, "first"), broker.welcome());
    let silent = tcp(&gateway).await;
    gateway
        .metric_becomes("tidegate_connections", &[], 2.0)
        .await;
    is_refused(&gateway, "connections", 1.0).await;
    is_refused(&gateway, "connections", 2.0).await;

    drop(silent);
    gateway
        .metric_becomes("tidegate_connections", &[], 1.0)
        .await;
    let (_second, _session) = tokio::join!(Client::connected(&gateway, "second"), broker.welcome());
    is_refused(&gateway, "connections", 3.0).await;

    drop(client);
    gateway
        .metric_becomes("tidegate_connections", &[], 1.0)
        .await;
    let (_third, _session) = tokio::join!(Client::connected(&gateway, "third"), broker.welcome());
}

#[tokio::test]
async fn stuck_handshakes_fill_their_limit_and_leave_sessions_alone() {
    let broker = Broker::start().await;
    let gateway = gateway_with("handshakes: 2", &broker).await;
    let (mut client, mut session) =
        tokio::join!(Client::connected(&gateway, "first"), broker.welcome());
    // Who has said nothing takes no place.
    let silent = [tcp(&gateway).await, tcp(&gateway).await];
    let stuck = [begun(&gateway).await, begun(&gateway).await];
    gateway
        .metric_becomes("tidegate_connections", &[], 5.0)
        .await;
    // A byte comes before the refusal: the two are in time for their places.
    let mut third = begun(&gateway).await;
    let end = third.read(&mut [0]).await.unwrap_err();
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    let refused = ["reason=\"handshakes\""];
    gateway
        .metric_becomes("tidegate_refused_total", &refused, 1.0)
        .await;
    assert!(try_tls(&gateway).await.is_err());
    client.send(&packets::PINGREQ).await;
    assert_eq!(session.receive().await, packets::PINGREQ);

    drop((stuck, silent));
    gateway
        .metric_becomes("tidegate_connections", &[], 1.0)
        .await;
    let (_second, _session) = tokio::join!(Client::connected(&gateway, "second"), broker.welcome());
}

#[tokio::test]
async fn a_handshake_that_is_done_makes_room() {
    let broker = Broker::start().await;
    let gateway = gateway_with("handshakes: 1", &broker).await;
    let mut slow = tls(&gateway).await;
    let text = Request::get("/mqtt").text();
    let (head, tail) = text.split_at(9);
    slow.write_all(head.as_bytes()).await.unwrap();
    let (_client, _session) = tokio::join!(Client::connected(&gateway, "next"), broker.welcome());
    slow.write_all(tail.as_bytes()).await.unwrap();
    assert_eq!(Answer::read(&mut slow, true).await.status, 426);
}
