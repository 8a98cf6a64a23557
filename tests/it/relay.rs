//! Packets between a client and its broker: framing, transparency, back-pressure, time limits, and every way to end.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};
use tungstenite::Message;

use super::Client;
use crate::support::broker::{Broker, Session, WsSession};
use crate::support::frames::{self, BINARY, CONTINUATION, FIN, Frame, PING};
use crate::support::gateway::{Gateway, pool_of};
use crate::support::{PATIENCE, packets};

async fn tcp(more: &str) -> (Gateway, Client, Session) {
    let broker = Broker::start().await;
    let gateway = Gateway::start(&format!("{}{more}", pool_of(&[broker.mqtt_url()]))).await;
    let (client, session) = tokio::join!(Client::connected(&gateway, "c1"), broker.welcome());
    (gateway, client, session)
}

async fn tcp_v5(more: &str) -> (Gateway, Client, Session) {
    let broker = Broker::start().await;
    let gateway = Gateway::start(&format!("{}{more}", pool_of(&[broker.mqtt_url()]))).await;
    let (client, session) = tokio::join!(Client::connected_v5(&gateway, "c1"), broker.welcome());
    (gateway, client, session)
}

async fn ws(more: &str) -> (Gateway, Client, WsSession) {
    let broker = Broker::start().await;
    let gateway = Gateway::start(&format!("{}{more}", pool_of(&[broker.ws_url()]))).await;
    let (client, session) = tokio::join!(Client::connected(&gateway, "c1"), broker.ws_welcome());
    (gateway, client, session)
}

fn some_packets() -> Vec<Vec<u8>> {
    vec![
        packets::PINGRESP.to_vec(),
        packets::publish("t", b""),
        packets::publish("t", &[1; 119]),
        packets::publish("t", &[1; 121]),
        packets::publish("t", &[2; 70_000]),
        packets::PINGRESP.to_vec(),
    ]
}

#[tokio::test]
async fn each_packet_leaves_as_one_frame_towards_the_client_however_the_broker_cuts() {
    let all = some_packets().concat();
    for cut in [all.len(), 1, 2, 1000] {
        let (_gateway, mut client, mut session) = tcp("").await;
        let end = if cut < 10 { 600 } else { all.len() };
        let sending = async {
            for piece in all[..end].chunks(cut) {
                session.send(piece).await;
            }
            session.send(&all[end..]).await;
        };
        let receiving = async {
            for packet in some_packets() {
                let frame = frames::read(client.socket.get_mut()).await;
                assert!(frame == Frame::binary(&packet), "{} bytes", packet.len());
            }
        };
        tokio::join!(sending, receiving);
    }
}

#[tokio::test]
async fn each_packet_leaves_as_one_frame_towards_a_ws_broker_however_the_client_cuts() {
    let all = some_packets().concat();
    for cut in [all.len(), 1, 2, 1000] {
        let (_gateway, mut client, mut session) = ws("").await;
        let end = if cut < 10 { 600 } else { all.len() };
        let sending = async {
            for piece in all[..end].chunks(cut) {
                client.send(piece).await;
            }
            client.send(&[]).await;
            if end < all.len() {
                client.send(&all[end..]).await;
            }
        };
        let receiving = async {
            for packet in some_packets() {
                let frame = frames::read(session.socket.get_mut()).await;
                assert!(frame == Frame::binary(&packet), "{} bytes", packet.len());
            }
        };
        tokio::join!(sending, receiving);
    }
}

#[tokio::test]
async fn above_limits_frame_a_packet_leaves_as_fragments_of_one_message() {
    let packet = packets::publish("t", &[3; 2500]);
    let (_gateway, mut client, mut session) = ws("limits: {frame: 1KiB}\n").await;
    let fragment = |at: usize, opcode: u8, last: bool| Frame {
        last,
        opcode,
        payload: packet[at..packet.len().min(at + 1024)].to_vec(),
    };
    let fragments = [
        fragment(0, BINARY, false),
        fragment(1024, CONTINUATION, false),
        fragment(2048, CONTINUATION, true),
    ];
    session
        .socket
        .send(Message::binary(packet.clone()))
        .await
        .unwrap();
    client.send(&packet).await;
    for expected in &fragments {
        assert_eq!(&frames::read(client.socket.get_mut()).await, expected);
        assert_eq!(&frames::read(session.socket.get_mut()).await, expected);
    }
}

#[tokio::test]
async fn a_ping_of_a_ws_broker_is_answered_and_not_passed_on() {
    let (_gateway, mut client, mut session) = ws("").await;
    let ping = Message::Ping(b"are you there".to_vec().into());
    session.socket.send(ping).await.unwrap();
    let pong = timeout(PATIENCE, session.socket.next()).await.unwrap();
    let pong = pong.unwrap().unwrap();
    assert_eq!(pong, Message::Pong(b"are you there".to_vec().into()));
    let publish = packets::publish("t", b"");
    session
        .socket
        .send(Message::binary(publish.clone()))
        .await
        .unwrap();
    let next = frames::read(client.socket.get_mut()).await;
    assert_eq!(next, Frame::binary(&publish));
}

/// Packets of one direction, and the lengths into which their bytes are cut, in turn.
#[derive(Debug, Clone)]
struct Traffic {
    packets: Vec<Vec<u8>>,
    cuts: Vec<usize>,
}

fn traffic() -> impl Strategy<Value = Traffic> {
    let size = prop_oneof![
        0..4_usize,
        100..140_usize,
        16_370..16_400_usize,
        0..80_000_usize
    ];
    let packet = (size, any::<u8>()).prop_map(|(size, byte)| {
        let cycle = (0..=255_u8).cycle().skip(byte.into());
        let payload: Vec<u8> = cycle.take(size).collect();
        packets::publish("t", &payload)
    });
    let cut = prop_oneof![1..4_usize, 1..300_usize, 1..100_000_usize];
    let packets = prop::collection::vec(packet, 1..12);
    let cuts = prop::collection::vec(cut, 1..30);
    (packets, cuts).prop_map(|(packets, cuts)| Traffic { packets, cuts })
}

impl Traffic {
    fn bytes(&self) -> Vec<u8> {
        self.packets.concat()
    }

    /// The lengths repeat with the small ones left out after a round, or a stream of bytes would take for ever.
    fn pieces<'a>(&self, mut bytes: &'a [u8]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        for round in 0.. {
            for cut in &self.cuts {
                if bytes.is_empty() {
                    return pieces;
                }
                let cut = if round == 0 { *cut } else { cut + 5000 };
                let (piece, rest) = bytes.split_at(cut.min(bytes.len()));
                pieces.push(piece);
                bytes = rest;
            }
        }
        pieces
    }
}

/// Reads messages until as many bytes are there; each must be one of the packets.
async fn collect(
    stream: &mut (impl tokio::io::AsyncRead + Unpin),
    expected: &Traffic,
) -> Vec<Vec<u8>> {
    let mut messages: Vec<Vec<u8>> = Vec::new();
    let mut open = false;
    while open || messages.len() < expected.packets.len() {
        let frame = frames::read(stream).await;
        match frame.opcode {
            CONTINUATION => messages.last_mut().unwrap().extend(frame.payload),
            BINARY => messages.push(frame.payload),
            other => panic!("opcode {other}"),
        }
        open = !frame.last;
    }
    messages
}

/// Fixed seed: a failure is the same failure next time.
fn check(name: &str, test: impl Fn(Traffic, Traffic)) {
    let config = Config {
        cases: 24,
        failure_persistence: None,
        max_shrink_iters: 40,
        ..Config::default()
    };
    let seed = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, seed);
    let checked = runner.run(&(traffic(), traffic()), |(up, down)| {
        test(up, down);
        Ok(())
    });
    if let Err(error) = checked {
        panic!("{name}: {error}");
    }
}

fn block_on(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(test);
}

/// Both directions at once. The client cuts its bytes into frames and its frames into writes.
async fn client_side(client: &mut Client, up: &Traffic, down: &Traffic) {
    let bytes = up.bytes();
    let mut wire = Vec::new();
    for (at, piece) in up.pieces(&bytes).into_iter().enumerate() {
        // Every third message in two fragments, with a ping between them now and then.
        if at % 3 == 2 {
            let (first, second) = piece.split_at(piece.len() / 2);
            wire.extend(frames::masked(BINARY, first));
            wire.extend(frames::masked(FIN | CONTINUATION, second));
        } else {
            wire.extend(frames::masked(FIN | BINARY, piece));
        }
    }
    let (mut reader, mut writer) = tokio::io::split(client.socket.get_mut());
    let sending = async {
        for piece in down.pieces(&wire) {
            writer.write_all(piece).await.unwrap();
            writer.flush().await.unwrap();
        }
    };
    let receiving = collect(&mut reader, down);
    let ((), messages) = tokio::join!(sending, receiving);
    assert!(messages == down.packets, "one message is one packet");
}

#[test]
fn whatever_the_cuts_bytes_through_the_gateway_equal_what_was_sent_over_tcp() {
    check("tcp", |up, down| {
        block_on(async {
            let (_gateway, mut client, mut session) = tcp("limits: {frame: 16KiB}\n").await;
            let (sent, expected) = (down.bytes(), up.bytes());
            let broker_side = async {
                let (mut reader, mut writer) = session.stream.split();
                let sending = async {
                    for piece in down.pieces(&sent) {
                        writer.write_all(piece).await.unwrap();
                    }
                };
                let receiving = async {
                    let mut bytes = vec![0; expected.len()];
                    let reading = reader.read_exact(&mut bytes);
                    timeout(PATIENCE, reading).await.unwrap().unwrap();
                    bytes
                };
                let ((), bytes) = tokio::join!(sending, receiving);
                assert!(bytes == expected);
            };
            tokio::join!(client_side(&mut client, &up, &down), broker_side);
        });
    });
}

#[test]
fn whatever_the_cuts_bytes_through_the_gateway_equal_what_was_sent_over_ws() {
    check("ws", |up, down| {
        block_on(async {
            let (_gateway, mut client, mut session) = ws("limits: {frame: 16KiB}\n").await;
            let sent = down.bytes();
            let broker_side = async {
                let (mut reader, mut writer) = session.socket.get_mut().split();
                let sending = async {
                    for piece in down.pieces(&sent) {
                        let frame = frames::unmasked(FIN | BINARY, piece);
                        writer.write_all(&frame).await.unwrap();
                    }
                };
                let receiving = collect(&mut reader, &up);
                let ((), messages) = tokio::join!(sending, receiving);
                assert!(messages == up.packets, "one message is one packet");
            };
            tokio::join!(client_side(&mut client, &up, &down), broker_side);
        });
    });
}

/// What the broker can write before it stalls: nothing moves for this long.
const STALL: Duration = Duration::from_millis(500);

async fn write_until_stalled(session: &mut Session, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match timeout(STALL, session.stream.write(&bytes[written..])).await {
            Ok(count) => written += count.unwrap(),
            Err(_) => return written,
        }
    }
    written
}

#[tokio::test]
async fn a_slow_reader_stops_the_reading_of_its_broker_and_nobody_elses() {
    const MEGABYTE: usize = 1 << 20;
    let broker = Broker::start().await;
    let gateway = Gateway::before(&[broker.mqtt_url()]).await;
    let (mut slow, mut session) =
        tokio::join!(Client::connected(&gateway, "slow"), broker.welcome());
    let (mut other, mut others) =
        tokio::join!(Client::connected(&gateway, "other"), broker.welcome());
    let packet = packets::publish("t", &vec![7; MEGABYTE]);
    let all = packet.repeat(50);
    let resident = gateway.metric("process_resident_memory_bytes", &[]).await;
    let written = write_until_stalled(&mut session, &all).await;
    assert!(written < 40 * MEGABYTE, "{written} bytes found room");
    let grown = gateway.metric("process_resident_memory_bytes", &[]).await - resident;
    assert!(grown < 30e6, "{grown} bytes more are held");
    // The kernel holds what was written, not the gateway: the others go on.
    others.send(&packets::PINGRESP).await;
    assert_eq!(other.receive().await, packets::PINGRESP);
    other.send(&packets::PINGREQ).await;
    assert_eq!(others.receive().await, packets::PINGREQ);
    // The slow one's own packets go on as well.
    slow.send(&packets::PINGREQ).await;
    assert_eq!(session.receive().await, packets::PINGREQ);
    let rest = session.send(&all[written..]);
    let reading = async {
        for at in 0..50 {
            let frame = frames::read(slow.socket.get_mut()).await;
            assert!(frame == Frame::binary(&packet), "packet {at}");
        }
    };
    tokio::join!(rest, reading);
}

#[tokio::test]
async fn a_client_that_never_reads_again_is_closed_at_timeouts_write() {
    let (gateway, client, mut session) = tcp("timeouts: {write: 300ms}\n").await;
    let packet = packets::publish("t", &vec![7; 1 << 20]);
    let writing = async { while session.stream.write_all(&packet).await.is_ok() {} };
    timeout(PATIENCE, writing)
        .await
        .expect("it is never closed");
    gateway.outcome("client", "relay", "stalled").await;
    drop(client);
}

#[tokio::test]
async fn a_broker_that_never_reads_again_is_left_at_timeouts_write() {
    let (gateway, mut client, session) = tcp("timeouts: {write: 300ms}\n").await;
    let packet = frames::masked(FIN | BINARY, &packets::publish("t", &vec![7; 1 << 20]));
    let stream = client.socket.get_mut();
    let writing = async {
        // The gateway's goodbye may find no one reading; that it ends is what counts.
        while stream.write_all(&packet).await.is_ok() {}
    };
    timeout(PATIENCE, writing)
        .await
        .expect("it is never closed");
    gateway.outcome("broker", "relay", "stalled").await;
    drop(session);
}

async fn keepalive(seconds: u16, timeouts: &str) -> (Gateway, Client, Session) {
    let (_, gateway, client, session) = keepalive_since(seconds, timeouts).await;
    (gateway, client, session)
}

/// A client with this keepalive, and when the gateway's clock had not begun yet.
async fn keepalive_since(seconds: u16, timeouts: &str) -> (Instant, Gateway, Client, Session) {
    let broker = Broker::start().await;
    let pool = pool_of(&[broker.mqtt_url()]);
    let gateway = Gateway::start(&format!("{pool}timeouts: {{{timeouts}}}\n")).await;
    let mut client = Client::open(&gateway).await;
    let begun = Instant::now();
    client.send(&packets::connect("c1", seconds)).await;
    let session = broker.welcome().await;
    assert_eq!(client.receive().await, packets::connack(0));
    (begun, gateway, client, session)
}

#[tokio::test]
async fn silence_is_allowed_for_one_and_a_half_keepalives_and_the_margin() {
    let (begun, gateway, mut client, mut session) = keepalive_since(1, "idle_margin: 200ms").await;
    let closed = client.closed().await;
    let silent = begun.elapsed();
    assert_eq!((closed.code, closed.packets), (1008, vec![]));
    let limit = Duration::from_millis(1700);
    assert!(silent >= limit, "{silent:?}");
    assert!(silent < limit + Duration::from_secs(5), "{silent:?}");
    assert_eq!(session.rest().await, b"", "no DISCONNECT in its name");
    gateway.outcome("client", "relay", "idle").await;
}

#[tokio::test]
async fn anything_from_the_client_moves_the_idle_limit_and_nothing_from_the_broker_does() {
    let (gateway, mut client, mut session) = keepalive(1, "idle_margin: 200ms").await;
    let begun = Instant::now();
    let mut last = begun;
    let mut tick = tokio::time::interval(Duration::from_millis(400));
    for at in 0..6 {
        tick.tick().await;
        last = Instant::now();
        if at % 2 == 0 {
            client.send(&packets::PINGREQ).await;
            assert_eq!(session.receive().await, packets::PINGREQ);
        } else {
            client.send_raw(&frames::masked(FIN | PING, b"")).await;
        }
    }
    assert!(last - begun > Duration::from_millis(1900), "past the limit");
    let talking = async {
        loop {
            tick.tick().await;
            if session.stream.write_all(&packets::PINGRESP).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let closed = tokio::select! {
        closed = client.closed() => closed,
        () = talking => unreachable!("it talks for ever"),
    };
    assert_eq!(closed.code, 1008);
    assert!(last.elapsed() >= Duration::from_millis(1700));
    gateway.outcome("client", "relay", "idle").await;
}

#[tokio::test]
async fn without_keepalive_two_unanswered_pings_end_the_session() {
    let (begun, gateway, mut client, mut session) = keepalive_since(0, "ping: 200ms").await;
    let stream = client.socket.get_mut();
    for _ in 0..2 {
        assert_eq!(frames::read(stream).await.opcode, PING);
    }
    assert_eq!(frames::read(stream).await.close_code(), 1008);
    assert!(
        begun.elapsed() >= Duration::from_millis(600),
        "three times 200 ms"
    );
    assert_eq!(session.rest().await, b"");
    drop(client);
    gateway.outcome("client", "relay", "ping_timeout").await;
}

/// mosquitto answers a client without keepalive so, whose silence would be allowed for a day.
#[tokio::test]
async fn a_keepalive_of_the_broker_for_a_client_without_one_does_not_end_the_pings() {
    const CONNACK_WITH_65535: [u8; 8] = [0x20, 6, 0, 0, 3, 0x13, 0xff, 0xff];
    let broker = Broker::start().await;
    let pool = pool_of(&[broker.mqtt_url()]);
    let gateway = Gateway::start(&format!("{pool}timeouts: {{ping: 300ms}}\n")).await;
    let mut client = Client::open(&gateway).await;
    client.send(&packets::connect_v5("c1", 0)).await;
    let mut session = broker.session().await;
    session.send(&CONNACK_WITH_65535).await;
    assert_eq!(client.receive().await, CONNACK_WITH_65535);
    assert_eq!(frames::read(client.socket.get_mut()).await.opcode, PING);
}

#[tokio::test]
async fn without_keepalive_a_client_that_answers_pings_stays() {
    let (gateway, mut client, mut session) = keepalive(0, "ping: 500ms").await;
    let stream = client.socket.get_mut();
    for _ in 0..6 {
        let ping = frames::read(stream).await;
        assert_eq!(ping.opcode, PING);
        let pong = frames::masked(FIN | frames::PONG, &ping.payload);
        stream.write_all(&pong).await.unwrap();
        stream.flush().await.unwrap();
    }
    client.send(&packets::PINGREQ).await;
    assert_eq!(session.receive().await, packets::PINGREQ);
    let ended = gateway.metric("tidegate_outcomes_total", &[]).await;
    assert_eq!(ended, 0.0);
}

/// It closes with bytes unread, so that our next write fails: what it said stands before that.
#[tokio::test]
async fn the_last_words_of_a_broker_that_takes_no_more_reach_the_client() {
    const QUOTA_EXCEEDED: [u8; 4] = [0xe0, 2, 0x97, 0];
    for _ in 0..10 {
        let (_gateway, mut client, mut session) = tcp_v5("").await;
        let publish = packets::publish("t", &vec![7; 2 << 20]);
        let frame = frames::masked(FIN | BINARY, &publish);
        let publishing = client.send_raw(&frame);
        let broker = async {
            session.stream.read_exact(&mut [0; 4096]).await.unwrap();
            session.stream.write_all(&QUOTA_EXCEEDED).await.unwrap();
            drop(session);
        };
        tokio::join!(publishing, broker);
        let closed = client.closed().await;
        assert_eq!(closed.packets, [QUOTA_EXCEEDED]);
    }
}

#[tokio::test]
async fn a_client_that_vanishes_is_made_to_vanish_at_the_broker() {
    for reset in [false, true] {
        let (gateway, client, mut session) = tcp("").await;
        match reset {
            true => client.reset(),
            false => drop(client),
        }
        assert_eq!(session.rest().await, b"", "reset: {reset}");
        gateway.outcome("client", "relay", "vanished").await;
        gateway.metric_becomes("tidegate_sessions", &[], 0.0).await;
        gateway
            .metric_becomes("tidegate_connections", &[], 0.0)
            .await;
    }
}

#[tokio::test]
async fn what_a_client_sent_before_it_vanished_reaches_the_broker() {
    let (_gateway, mut client, mut session) = tcp("").await;
    let publish = packets::publish("t", &[7; 40_000]);
    client.send(&publish).await;
    drop(client);
    assert!(session.rest().await == publish);
}

#[tokio::test]
async fn a_disconnect_is_forwarded_as_it_is_and_answered_with_1000() {
    let with_reason = [0xe0, 2, 0x04, 0];
    for packet in [&packets::DISCONNECT[..], &with_reason] {
        let (gateway, mut client, mut session) = tcp_v5("").await;
        client.send(packet).await;
        assert_eq!(session.rest().await, packet);
        let closed = client.closed().await;
        assert_eq!((closed.code, closed.packets), (1000, vec![]));
        gateway.outcome("client", "relay", "disconnect").await;
    }
}

#[tokio::test]
async fn nothing_behind_a_disconnect_reaches_the_broker() {
    let (_gateway, mut client, mut session) = tcp("").await;
    let mut bytes = packets::DISCONNECT.to_vec();
    bytes.extend(packets::publish("t", b"too late"));
    client.send(&bytes).await;
    assert_eq!(session.rest().await, packets::DISCONNECT);
    assert_eq!(client.closed().await.code, 1000);
}

#[tokio::test]
async fn a_broker_that_closes_is_told_to_the_client_in_its_version() {
    let (gateway, mut client, session) = tcp("").await;
    drop(session);
    let closed = client.closed().await;
    assert_eq!((closed.code, closed.packets), (1011, vec![]));
    gateway.outcome("broker", "relay", "close").await;

    let (gateway, mut client, session) = tcp_v5("").await;
    drop(session);
    let closed = client.closed().await;
    let told = vec![vec![0xe0, 2, 0x8b, 0]];
    assert_eq!((closed.code, closed.packets), (1011, told));
    gateway.outcome("broker", "relay", "close").await;
}

#[tokio::test]
async fn a_broker_that_closes_inside_a_packet_ends_the_connection_without_another_word() {
    let (gateway, mut client, mut session) = tcp_v5("").await;
    session.send(&packets::publish("t", &[7; 500])[..100]).await;
    drop(session);
    let closed = client.closed().await;
    assert_eq!((closed.code, closed.packets), (1006, vec![]));
    gateway.outcome("broker", "relay", "close").await;
}

#[tokio::test]
async fn a_brokers_own_disconnect_is_forwarded_and_answered_with_1000() {
    let (gateway, mut client, mut session) = tcp_v5("").await;
    let taken_over = vec![0xe0, 2, 0x8e, 0];
    session.send(&taken_over).await;
    drop(session);
    let closed = client.closed().await;
    assert_eq!((closed.code, closed.packets), (1000, vec![taken_over]));
    gateway.outcome("broker", "relay", "disconnect").await;
}

#[tokio::test]
async fn a_close_frame_of_a_ws_broker_ends_the_session_as_its_close_does() {
    let (gateway, mut client, mut session) = ws("").await;
    session.socket.close(None).await.unwrap();
    assert_eq!(client.closed().await.code, 1011);
    gateway.outcome("broker", "relay", "close").await;
}

#[tokio::test]
async fn a_packet_over_the_limit_is_answered_with_0x95_and_1009() {
    let limits = "limits: {packet: 10KiB}\n";
    let (gateway, mut client, mut session) = tcp_v5(limits).await;
    let publish = packets::publish("t", &[7; 10 << 10]);
    // Its header is enough.
    client.send(&publish[..3]).await;
    let closed = client.closed().await;
    assert_eq!(closed.packets, [[0xe0, 2, 0x95, 0]]);
    assert_eq!(closed.code, 1009);
    assert_eq!(session.rest().await, b"");
    gateway.outcome("client", "relay", "packet_too_large").await;

    let (gateway, mut client, mut session) = tcp(limits).await;
    session.send(&publish).await;
    assert_eq!(client.closed().await.code, 1011);
    gateway.outcome("broker", "relay", "protocol").await;
}

#[tokio::test]
async fn packets_and_bytes_are_counted_by_type_and_direction() {
    let (gateway, mut client, mut session) = tcp("").await;
    let publish = packets::publish("t", &[7; 100]);
    for _ in 0..3 {
        client.send(&publish).await;
        assert_eq!(session.receive().await, publish);
    }
    session.send(&packets::PINGRESP).await;
    assert_eq!(client.receive().await, packets::PINGRESP);
    for (metric, direction, packet_type, value) in [
        ("tidegate_packets_total", "up", "publish", 3.0),
        (
            "tidegate_packet_bytes_total",
            "up",
            "publish",
            3.0 * publish.len() as f64,
        ),
        ("tidegate_packets_total", "up", "connect", 1.0),
        ("tidegate_packets_total", "down", "connack", 1.0),
        ("tidegate_packets_total", "down", "pingresp", 1.0),
    ] {
        let labels = [
            &*format!("direction=\"{direction}\""),
            &*format!("type=\"{packet_type}\""),
        ];
        gateway.metric_becomes(metric, &labels, value).await;
    }
}

#[tokio::test]
async fn a_client_that_is_not_read_is_not_held_silent() {
    let packet = frames::masked(FIN | BINARY, &packets::publish("t", &vec![7; 1 << 20]));
    let (gateway, mut client, session) = keepalive(0, "ping: 500ms, write: 3s").await;
    let stream = client.socket.get_mut();
    let writing = async { while stream.write_all(&packet).await.is_ok() {} };
    timeout(PATIENCE, writing)
        .await
        .expect("it is never closed");
    gateway.outcome("broker", "relay", "stalled").await;
    drop(session);
}

#[tokio::test]
async fn a_broker_that_heard_disconnect_is_let_close_first() {
    let (_gateway, mut client, mut session) = tcp("").await;
    client.send(&packets::DISCONNECT).await;
    assert_eq!(session.receive().await, packets::DISCONNECT);
    assert_eq!(client.closed().await.code, 1000);
    let mut byte = [0];
    let begun = Instant::now();
    let end = timeout(Duration::from_millis(100), session.stream.read(&mut byte));
    // Half a second is its patience; a test that was held up sees only the end of it.
    assert!(
        end.await.is_err() || begun.elapsed() > Duration::from_millis(300),
        "the gateway keeps the TIME_WAIT"
    );
    assert_eq!(session.rest().await, b"", "but it does not wait for ever");
}
