//! How much may be there at once, and how large it may be: what is over a limit is refused in a way that its client
//! understands, counted, and takes nothing from the others.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::broker::Broker;
use crate::support::client::{Client, Closed, tls, try_tls};
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
    assert_eq!(rest(&mut third).await, b"");
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

#[tokio::test]
async fn a_connect_over_the_limit_is_closed_as_too_big() {
    let broker = Broker::start().await;
    let gateway = gateway_with("connect: 1KiB", &broker).await;
    let mut client = Client::open(&gateway).await;
    client.send(&packets::connect(&"c".repeat(1100), 60)).await;
    let closed = client.closed().await;
    assert_eq!(closed.code, 1009);
    assert_eq!(closed.reason, "MQTT CONNECT is over the limit");
    gateway
        .outcome("client", "connect", "connect_too_large")
        .await;

    let shorter = "c".repeat(900);
    let (_client, _session) = tokio::join!(Client::connected(&gateway, &shorter), broker.welcome());
}

#[tokio::test]
async fn a_packet_over_the_limit_is_told_mqtt_5_clients_in_mqtt() {
    let broker = Broker::start().await;
    let gateway = gateway_with("packet: 64KiB", &broker).await;
    let (mut client, mut session) =
        tokio::join!(Client::connected_v5(&gateway, "c"), broker.welcome());
    client.send(&packets::publish("t", &[0; 70_000])).await;
    let closed = client.closed().await;
    // DISCONNECT, Packet too large, no properties.
    assert_eq!(closed.packets, [[0xe0, 2, 0x95, 0]]);
    assert_eq!(closed.code, 1009);
    // Nothing of it reached the broker, nor a DISCONNECT: the Will is its to publish.
    assert_eq!(session.rest().await, b"");
    gateway.outcome("client", "relay", "packet_too_large").await;
}

#[tokio::test]
async fn a_packet_over_the_limit_closes_mqtt_3_clients_as_too_big() {
    let broker = Broker::start().await;
    let gateway = gateway_with("packet: 64KiB", &broker).await;
    let (mut client, mut session) =
        tokio::join!(Client::connected(&gateway, "c"), broker.welcome());
    let small = packets::publish("t", &[0; 65_000]);
    client.send(&small).await;
    assert_eq!(session.receive().await, small);
    client.send(&packets::publish("t", &[0; 70_000])).await;
    let closed = Closed {
        code: 1009,
        reason: "MQTT packet is over the limit".into(),
        packets: Vec::new(),
    };
    assert_eq!(client.closed().await, closed);
    assert_eq!(session.rest().await, b"");
    gateway.outcome("client", "relay", "packet_too_large").await;
}

#[tokio::test]
async fn a_client_id_over_the_limit_is_refused_in_connack() {
    let broker = Broker::start().await;
    let gateway = gateway_with("client_id: 23", &broker).await;
    let long = "c".repeat(24);
    for (connect, connack) in [
        (packets::connect(&long, 60), packets::connack(0x02)),
        (packets::connect_v5(&long, 60), packets::connack_v5(0x85)),
    ] {
        let mut client = Client::open(&gateway).await;
        client.send(&connect).await;
        let closed = client.closed().await;
        assert_eq!(closed.packets, [connack]);
        assert_eq!(
            (closed.code, closed.reason.as_str()),
            (1008, "the client id is too long")
        );
    }
    let labels = ["phase=\"connect\"", "why=\"bad_connect\""];
    let outcomes = "tidegate_outcomes_total";
    gateway.metric_becomes(outcomes, &labels, 2.0).await;

    let shorter = "c".repeat(23);
    let (_client, _session) = tokio::join!(Client::connected(&gateway, &shorter), broker.welcome());
}
