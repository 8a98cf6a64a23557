//! What a client may do in WebSocket frames, and the Close code for what it may not (RFC 6455).

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Client;
use crate::support::broker::Broker;
use crate::support::frames::{self, BINARY, CLOSE, CONTINUATION, FIN, Frame, PING, PONG, TEXT};
use crate::support::gateway::Gateway;
use crate::support::packets;

/// Sends the bytes instead of a CONNECT and as the second frame of a session: the answer is the same.
async fn is_answered(bytes: &[u8], code: u16, why: &str) {
    let broker = Broker::start().await;
    let gateway = Gateway::before(&[broker.mqtt_url()]).await;
    let mut client = Client::open(&gateway).await;
    client.send_raw(bytes).await;
    let answer = frames::read(client.socket.get_mut()).await;
    assert_eq!(answer.close_code(), code, "before CONNECT: {answer:?}");
    gateway.outcome("client", "connect", why).await;

    let (mut client, mut session) =
        tokio::join!(Client::connected(&gateway, "c1"), broker.welcome());
    client.send_raw(bytes).await;
    let answer = frames::read(client.socket.get_mut()).await;
    assert_eq!(answer.close_code(), code, "in a session: {answer:?}");
    gateway.outcome("client", "relay", why).await;
    assert_eq!(session.rest().await, b"", "the broker hears nothing of it");
}

#[tokio::test]
async fn a_text_frame_is_answered_with_1003() {
    is_answered(&frames::masked(FIN | TEXT, b"hello"), 1003, "text_frame").await;
}

#[tokio::test]
async fn reserved_bits_are_answered_with_1002() {
    for bit in [0x40, 0x20, 0x10] {
        is_answered(
            &frames::masked(FIN | bit | BINARY, b"\xc0\x00"),
            1002,
            "websocket",
        )
        .await;
    }
}

#[tokio::test]
async fn a_reserved_opcode_is_answered_with_1002() {
    for opcode in [0x3, 0xb] {
        is_answered(&frames::masked(FIN | opcode, b""), 1002, "websocket").await;
    }
}

#[tokio::test]
async fn an_unmasked_frame_is_answered_with_1002() {
    is_answered(
        &frames::unmasked(FIN | BINARY, &packets::PINGREQ),
        1002,
        "websocket",
    )
    .await;
}

#[tokio::test]
async fn a_control_frame_over_125_bytes_is_answered_with_1002() {
    is_answered(&frames::masked(FIN | PING, &[b'x'; 126]), 1002, "websocket").await;
}

#[tokio::test]
async fn a_fragmented_control_frame_is_answered_with_1002() {
    is_answered(&frames::masked(PING, b"x"), 1002, "websocket").await;
}

#[tokio::test]
async fn a_close_code_that_must_not_be_sent_is_answered_with_1002() {
    for payload in [&[0x03, 0xed][..], &[0x03, 0xee], &[0, 1], &[0x03]] {
        is_answered(&frames::masked(FIN | CLOSE, payload), 1002, "websocket").await;
    }
}

#[tokio::test]
async fn a_close_reason_that_is_not_utf8_is_answered_with_1007() {
    is_answered(
        &frames::masked(FIN | CLOSE, b"\x03\xe8\xff\xfe"),
        1007,
        "websocket",
    )
    .await;
}

#[tokio::test]
async fn a_continuation_of_nothing_is_answered_with_1002() {
    is_answered(
        &frames::masked(FIN | CONTINUATION, b"\xc0\x00"),
        1002,
        "websocket",
    )
    .await;
}

#[tokio::test]
async fn a_message_inside_a_message_is_answered_with_1002() {
    let mut bytes = frames::masked(BINARY, b"");
    bytes.extend(frames::masked(FIN | BINARY, b""));
    is_answered(&bytes, 1002, "websocket").await;
}

#[tokio::test]
async fn a_length_that_is_not_in_its_shortest_form_is_answered_with_1002() {
    is_answered(
        &[FIN | BINARY, 0x80 | 126, 0, 2, 0, 0, 0, 0, 0xc0, 0],
        1002,
        "websocket",
    )
    .await;
}

#[tokio::test]
async fn packets_before_a_violation_reach_the_broker() {
    let broker = Broker::start().await;
    let gateway = Gateway::before(&[broker.mqtt_url()]).await;
    let (mut client, mut session) =
        tokio::join!(Client::connected(&gateway, "c1"), broker.welcome());
    let publish = packets::publish("last", b"words");
    let mut bytes = frames::masked(FIN | BINARY, &publish);
    bytes.extend(frames::masked(FIN | TEXT, b"hello"));
    client.send_raw(&bytes).await;
    assert_eq!(client.closed().await.code, 1003);
    assert_eq!(session.rest().await, publish);
}

#[tokio::test]
async fn a_ping_is_answered_before_connect_and_in_a_session() {
    let broker = Broker::start().await;
    let gateway = Gateway::before(&[broker.mqtt_url()]).await;
    let mut client = Client::open(&gateway).await;
    let pong = |payload: &[u8]| Frame {
        last: true,
        opcode: PONG,
        payload: payload.to_vec(),
    };
    for payload in [&b""[..], b"before", &[7; 125]] {
        client.send_raw(&frames::masked(FIN | PING, payload)).await;
        assert_eq!(frames::read(client.socket.get_mut()).await, pong(payload));
    }
    client.send(&packets::connect("c1", 60)).await;
    let mut session = broker.welcome().await;
    assert_eq!(client.receive().await, packets::connack(0));
    for payload in [&b""[..], b"within", &[7; 125]] {
        client.send_raw(&frames::masked(FIN | PING, payload)).await;
        assert_eq!(frames::read(client.socket.get_mut()).await, pong(payload));
    }
    // Between the fragments of a message too (RFC 6455 5.4).
    let publish = packets::publish("t", b"in two fragments");
    let (first, second) = publish.split_at(5);
    client.send_raw(&frames::masked(BINARY, first)).await;
    client.send_raw(&frames::masked(FIN | PING, b"amid")).await;
    assert_eq!(frames::read(client.socket.get_mut()).await, pong(b"amid"));
    client
        .send_raw(&frames::masked(FIN | CONTINUATION, second))
        .await;
    assert_eq!(session.receive().await, publish);
}

#[tokio::test]
async fn a_pong_waits_for_the_end_of_the_frame_in_hand() {
    let broker = Broker::start().await;
    let gateway = Gateway::before(&[broker.mqtt_url()]).await;
    let (mut client, mut session) =
        tokio::join!(Client::connected(&gateway, "c1"), broker.welcome());
    let large = packets::publish("large", &vec![9; 300_000]);
    let (first, rest) = large.split_at(150_000);
    session.send(first).await;
    let mut head = [0; 10];
    client.socket.get_mut().read_exact(&mut head).await.unwrap();
    assert_eq!(
        head[..2],
        [FIN | BINARY, 127],
        "one frame, and it has begun"
    );
    client.send_raw(&frames::masked(FIN | PING, b"now")).await;
    // What comes up behind the ping shows that the ping has been read.
    client.send(&packets::PINGREQ).await;
    assert_eq!(session.receive().await, packets::PINGREQ);
    session.send(rest).await;
    let stream = client.socket.get_mut();
    let mut payload = vec![0; large.len()];
    stream.read_exact(&mut payload).await.unwrap();
    assert!(payload == large, "something stands inside the frame");
    let pong = frames::read(stream).await;
    assert_eq!((pong.opcode, &pong.payload[..]), (PONG, &b"now"[..]));
}

#[tokio::test]
async fn a_pong_from_the_client_is_not_answered() {
    let broker = Broker::start().await;
    let gateway = Gateway::before(&[broker.mqtt_url()]).await;
    let (mut client, mut session) =
        tokio::join!(Client::connected(&gateway, "c1"), broker.welcome());
    client.send_raw(&frames::masked(FIN | PONG, b"")).await;
    client.send(&packets::PINGREQ).await;
    assert_eq!(session.receive().await, packets::PINGREQ);
    session.send(&packets::PINGRESP).await;
    let next = frames::read(client.socket.get_mut()).await;
    assert_eq!(next, Frame::binary(&packets::PINGRESP));
}

#[tokio::test]
async fn a_close_without_disconnect_is_echoed_and_the_broker_hears_none() {
    for (payload, echo) in [
        (&[0x03, 0xe8][..], 1000),
        (&[0x03, 0xe9], 1001),
        (b"\x0f\xa0bye", 4000),
        (&[], 1000),
    ] {
        let broker = Broker::start().await;
        let gateway = Gateway::before(&[broker.mqtt_url()]).await;
        let (mut client, mut session) =
            tokio::join!(Client::connected(&gateway, "c1"), broker.welcome());
        client.send_raw(&frames::masked(FIN | CLOSE, payload)).await;
        let answer = frames::read(client.socket.get_mut()).await;
        assert_eq!(answer.close_code(), echo);
        assert_eq!(session.rest().await, b"", "no DISCONNECT in its name");
        gateway.outcome("client", "relay", "close").await;
    }
}

#[tokio::test]
async fn a_close_before_connect_is_echoed() {
    let broker = Broker::start().await;
    let gateway = Gateway::before(&[broker.mqtt_url()]).await;
    let mut client = Client::open(&gateway).await;
    client
        .send_raw(&frames::masked(FIN | CLOSE, &[0x03, 0xe8]))
        .await;
    let answer = frames::read(client.socket.get_mut()).await;
    assert_eq!(answer.close_code(), 1000);
    gateway.outcome("client", "connect", "close").await;
    broker.is_left_alone(Duration::from_millis(50)).await;
}

#[tokio::test]
async fn frames_of_one_byte_at_a_time_are_understood() {
    let broker = Broker::start().await;
    let gateway = Gateway::before(&[broker.mqtt_url()]).await;
    let (mut client, mut session) =
        tokio::join!(Client::connected(&gateway, "c1"), broker.welcome());
    let publish = packets::publish("t", &[5; 200]);
    for byte in frames::masked(FIN | BINARY, &publish) {
        let stream = client.socket.get_mut();
        stream.write_all(&[byte]).await.unwrap();
        stream.flush().await.unwrap();
    }
    assert_eq!(session.receive().await, publish);
}

#[tokio::test]
async fn the_rest_of_a_packet_before_a_brokers_garbage_reaches_the_client_whole() {
    let broker = Broker::start().await;
    let gateway = Gateway::before(&[broker.mqtt_url()]).await;
    let (mut client, mut session) =
        tokio::join!(Client::connected(&gateway, "c1"), broker.welcome());
    let publish = packets::publish("t", &[7; 5000]);
    let (first, rest) = publish.split_at(2500);
    session.send(first).await;
    // Its frame has begun when its header is here.
    let mut head = [0; 4];
    client.socket.get_mut().read_exact(&mut head).await.unwrap();
    let mut bytes = rest.to_vec();
    bytes.push(0x00);
    session.send(&bytes).await;
    let mut payload = vec![0; publish.len()];
    let stream = client.socket.get_mut();
    stream.read_exact(&mut payload).await.unwrap();
    assert!(payload == publish);
    assert_eq!(frames::read(stream).await.close_code(), 1011);
    gateway.outcome("broker", "relay", "protocol").await;
}
