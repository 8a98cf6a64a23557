//! How large packets and names may be: what is over a limit is refused in a way that its client understands, and counted.

use super::Client;
use crate::support::broker::Broker;
use crate::support::client::Closed;
use crate::support::gateway::{Gateway, pool_of};
use crate::support::packets;

async fn gateway_with(limits: &str, broker: &Broker) -> Gateway {
    let pool = pool_of(&[broker.mqtt_url()]);
    Gateway::start(&format!("{pool}limits: {{ {limits} }}\n")).await
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
