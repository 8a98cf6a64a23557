//! CONNECT: taken in any framing and handed on unchanged; what is no CONNECT is answered in MQTT where there is an answer.

use std::time::Duration;

use super::Client;
use crate::support::broker::Broker;
use crate::support::client::Closed;
use crate::support::frames::{self, BINARY, CONTINUATION, FIN};
use crate::support::gateway::{Gateway, pool_of};
use crate::support::packets;

const CONNECT_V31: &[u8] = b"\x10\x10\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x02id";

/// With a Will, a user name, a password and properties, all of them to be left as they are.
const CONNECT_V5: &[u8] = b"\x10\x2e\x00\x04MQTT\x05\xc6\x00\x3c\x05\x11\x00\x00\x00\x0a\x00\x02id\
    \x05\x18\x00\x00\x00\x01\x00\x01t\x00\x03bye\x00\x04user\x00\x04\x00\xff\x0a!";

struct Scene {
    broker: Broker,
    gateway: Gateway,
    client: Client,
}

async fn scene() -> Scene {
    scene_with("").await
}

async fn scene_with(more: &str) -> Scene {
    let broker = Broker::start().await;
    let gateway = Gateway::start(&format!("{}{more}", pool_of(&[broker.mqtt_url()]))).await;
    let client = Client::open(&gateway).await;
    Scene {
        broker,
        gateway,
        client,
    }
}

#[tokio::test]
async fn every_version_reaches_the_broker_unchanged() {
    let v311 = packets::connect("c1", 60);
    for (packet, version) in [(CONNECT_V31, "3.1"), (&v311, "3.1.1"), (CONNECT_V5, "5")] {
        let mut scene = scene().await;
        scene.client.send(packet).await;
        assert_eq!(scene.broker.session().await.connect, packet);
        let label = format!("version=\"{version}\"");
        scene
            .gateway
            .metric_becomes("tidegate_connects_total", &[&label], 1.0)
            .await;
    }
}

#[tokio::test]
async fn connect_may_come_as_one_byte_and_the_rest() {
    let mut scene = scene().await;
    let connect = packets::connect("mqtt.js", 60);
    scene.client.send(&connect[..1]).await;
    scene.client.send(&connect[1..]).await;
    assert_eq!(scene.broker.session().await.connect, connect);
}

#[tokio::test]
async fn connect_may_come_byte_by_byte() {
    let mut scene = scene().await;
    for byte in CONNECT_V5 {
        scene.client.send(&[*byte]).await;
    }
    assert_eq!(scene.broker.session().await.connect, CONNECT_V5);
}

#[tokio::test]
async fn connect_may_come_as_a_fragmented_message_with_empty_frames_between() {
    let mut scene = scene().await;
    let mut bytes = frames::masked(BINARY, &CONNECT_V5[..3]);
    bytes.extend(frames::masked(CONTINUATION, b""));
    bytes.extend(frames::masked(CONTINUATION, &CONNECT_V5[3..20]));
    bytes.extend(frames::masked(FIN | CONTINUATION, &CONNECT_V5[20..]));
    scene.client.send_raw(&bytes).await;
    assert_eq!(scene.broker.session().await.connect, CONNECT_V5);
}

#[tokio::test]
async fn packets_behind_connect_in_its_frame_reach_the_broker_in_order_after_connack() {
    let mut scene = scene().await;
    let subscribe = b"\x82\x06\x00\x01\x00\x01t\x00";
    let publish = packets::publish("t", b"early");
    let mut frame = packets::connect("c1", 60);
    frame.extend_from_slice(subscribe);
    frame.extend_from_slice(&publish);
    scene.client.send(&frame).await;
    let mut session = scene.broker.session().await;
    assert_eq!(session.connect, packets::connect("c1", 60));
    session.send(&packets::connack(0)).await;
    assert_eq!(session.receive().await, subscribe);
    assert_eq!(session.receive().await, publish);
    assert_eq!(scene.client.receive().await, packets::connack(0));
}

#[tokio::test]
async fn nothing_behind_connect_is_sent_to_a_broker_before_its_connack() {
    let mut scene = scene().await;
    let mut frame = packets::connect("c1", 60);
    frame.extend_from_slice(&packets::PINGREQ);
    scene.client.send(&frame).await;
    let mut session = scene.broker.session().await;
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(100), session.stream.peek(&mut byte));
    assert!(early.await.is_err(), "it came before CONNACK");
    session.send(&packets::connack(0)).await;
    assert_eq!(session.receive().await, packets::PINGREQ);
}

/// No broker hears of it; the client gets these packets, then this Close.
async fn is_refused(packet: &[u8], more: &str, answer: &[&[u8]], code: u16, why: &str) {
    let mut scene = scene_with(more).await;
    scene.client.send(packet).await;
    let Closed {
        code: seen,
        packets,
        ..
    } = scene.client.closed().await;
    assert_eq!((packets, seen), (owned(answer), code), "{packet:02x?}");
    scene.gateway.outcome("client", "connect", why).await;
    scene.broker.is_left_alone(Duration::ZERO).await;
}

fn owned(packets: &[&[u8]]) -> Vec<Vec<u8>> {
    packets.iter().map(|packet| packet.to_vec()).collect()
}

#[tokio::test]
async fn a_first_packet_that_is_not_connect_is_answered_with_1002() {
    for packet in [
        packets::publish("t", b"x"),
        packets::PINGREQ.to_vec(),
        packets::DISCONNECT.to_vec(),
        packets::connack(0),
    ] {
        is_refused(&packet, "", &[], 1002, "not_connect").await;
    }
}

#[tokio::test]
async fn a_reserved_first_packet_is_malformed() {
    is_refused(&[0x00, 0x00], "", &[], 1002, "malformed").await;
}

#[tokio::test]
async fn a_remaining_length_of_five_bytes_is_malformed() {
    let broken = [0x10, 0x80, 0x80, 0x80, 0x80, 0x01];
    is_refused(&broken, "", &[], 1002, "malformed").await;
}

#[tokio::test]
async fn a_wrong_protocol_name_gets_no_connack() {
    let mut packet = packets::connect("c1", 60);
    packet[4] = b'X';
    is_refused(&packet, "", &[], 1002, "bad_connect").await;
}

#[tokio::test]
async fn an_unknown_protocol_level_is_named_in_connack() {
    let mut old = packets::connect("c1", 60);
    old[8] = 2;
    is_refused(&old, "", &[&packets::connack(0x01)], 1002, "bad_connect").await;
    let mut new = packets::connect_v5("c1", 60);
    new[8] = 6;
    is_refused(&new, "", &[&packets::connack_v5(0x84)], 1002, "bad_connect").await;
}

#[tokio::test]
async fn a_connect_whose_fields_run_over_its_end_is_malformed() {
    let mut packet = packets::connect_v5("c1", 60);
    let at = packet.len() - 3;
    packet[at] = 9;
    is_refused(
        &packet,
        "",
        &[&packets::connack_v5(0x81)],
        1002,
        "bad_connect",
    )
    .await;
    let mut packet = packets::connect("c1", 60);
    let at = packet.len() - 3;
    packet[at] = 9;
    is_refused(&packet, "", &[], 1002, "bad_connect").await;
}

#[tokio::test]
async fn a_client_id_over_the_limit_is_refused_in_connack() {
    let limits = "limits: {client_id: 8}\n";
    is_refused(
        &packets::connect("nine byte", 60),
        limits,
        &[&packets::connack(0x02)],
        1008,
        "bad_connect",
    )
    .await;
    is_refused(
        &packets::connect_v5("nine byte", 60),
        limits,
        &[&packets::connack_v5(0x85)],
        1008,
        "bad_connect",
    )
    .await;
    let mut scene = scene_with(limits).await;
    scene.client.send(&packets::connect("8 bytes!", 60)).await;
    scene.broker.session().await;
}

#[tokio::test]
async fn a_connect_over_the_limit_is_answered_with_1009_at_its_header() {
    let header = [0x10, 0x80, 0x80, 0x04];
    is_refused(
        &header,
        "limits: {connect: 64KiB}\n",
        &[],
        1009,
        "connect_too_large",
    )
    .await;
}

#[tokio::test]
async fn a_second_connect_ends_the_session() {
    let mut scene = scene().await;
    let connect = packets::connect_v5("c1", 60);
    scene.client.send(&connect).await;
    let mut session = scene.broker.welcome().await;
    assert_eq!(scene.client.receive().await, packets::connack_v5(0));
    scene.client.send(&connect).await;
    let closed = scene.client.closed().await;
    assert_eq!(closed.packets, [[0xe0, 2, 0x82, 0]], "protocol error");
    assert_eq!(closed.code, 1002);
    scene
        .gateway
        .outcome("client", "relay", "second_connect")
        .await;
    let heard = session.rest().await;
    assert!(!heard.ends_with(&packets::DISCONNECT), "{heard:02x?}");
}

#[tokio::test]
async fn a_client_that_says_nothing_is_closed_at_its_deadline() {
    let mut scene = scene_with("timeouts: {connect: 200ms}\n").await;
    let begun = tokio::time::Instant::now();
    scene.client.send(&packets::connect("slow", 60)[..5]).await;
    let closed = scene.client.closed().await;
    assert_eq!((closed.code, closed.packets), (1008, vec![]));
    assert!(begun.elapsed() < Duration::from_secs(5));
    scene
        .gateway
        .outcome("client", "connect", "connect_timeout")
        .await;
}

#[tokio::test]
async fn a_connect_may_be_as_long_as_the_limit_says() {
    let mut scene = scene_with("limits: {connect: 200KiB}\n").await;
    // A Will of 60,000 bytes and a password as long.
    let mut body = b"\x00\x04MQTT\x04\xc6\x00\x3c\x00\x02id\x00\x01t\xea\x60".to_vec();
    body.extend([7; 60_000]);
    body.extend_from_slice(b"\x00\x01u\xea\x60");
    body.extend([7; 60_000]);
    let mut connect = packets::publish("", &body);
    // The topic's length stands where a CONNECT has none.
    let start = connect.len() - body.len();
    connect.drain(start - 2..start);
    connect[0] = 0x10;
    let length = body.len();
    for (at, shift) in [(1, 0), (2, 7), (3, 14)] {
        let more = if at < 3 { 0x80 } else { 0 };
        connect[at] = u8::try_from(length >> shift & 0x7f).unwrap() | more;
    }
    scene.client.send(&connect).await;
    assert!(scene.broker.session().await.connect == connect);
}
