//! Stopping: sessions are asked to leave at a pace, told why, and what does not leave is cut.

use std::time::Duration;

use tidegate::lifecycle::Ended;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Client;
use crate::support::broker::{Broker, Session};
use crate::support::eventually;
use crate::support::frames::{self, BINARY, FIN, Frame};
use crate::support::gateway::{Gateway, pool_of};
use crate::support::packets;

async fn gateway(broker: &Broker, drain: &str) -> Gateway {
    let pool = pool_of(&[broker.mqtt_url()]);
    Gateway::start(&format!("{pool}drain: {{{drain}}}\n")).await
}

async fn session(gateway: &Gateway, broker: &Broker) -> (Client, Session) {
    tokio::join!(Client::connected(gateway, "c1"), broker.welcome())
}

async fn session_v5(gateway: &Gateway, broker: &Broker) -> (Client, Session) {
    tokio::join!(Client::connected_v5(gateway, "c1"), broker.welcome())
}

/// Until the listener is gone.
async fn is_closed_to_new_connections(gateway: &Gateway) -> bool {
    let address = gateway.address(0);
    eventually(async || TcpStream::connect(address).await.is_err()).await
}

#[tokio::test]
async fn sessions_leave_evenly_at_the_rate() {
    const SESSIONS: usize = 20;
    let broker = Broker::start().await;
    let gateway = gateway(&broker, "rate: 20").await;
    let mut sessions = Vec::new();
    let mut clients = JoinSet::new();
    for _ in 0..SESSIONS {
        let (mut client, session) = session(&gateway, &broker).await;
        sessions.push(session);
        clients.spawn(async move { (client.closed().await.code, Instant::now()) });
    }
    let begun = Instant::now();
    gateway.stop();
    let mut ends = Vec::new();
    while let Some(left) = clients.join_next().await {
        let (code, at) = left.unwrap();
        assert_eq!(code, 1001);
        ends.push((at - begun).as_secs_f64());
    }
    // One every 50 ms. A busy machine may make one of them late, but not early.
    for (index, seconds) in ends.iter().enumerate() {
        let earliest = index as f64 / 20.0 - 0.02;
        assert!(*seconds >= earliest, "{index} left after {seconds} s");
    }
    assert!((0.9..5.0).contains(&ends[SESSIONS - 1]), "{ends:?}");
    let ended = gateway.ended().await;
    assert_eq!(ended, Ended { asked: 20, cut: 0 });
}

#[tokio::test]
async fn a_drained_client_is_told_in_its_version_and_its_broker_hears_no_disconnect() {
    let broker = Broker::start().await;
    let gateway = gateway(&broker, "rate: 1000").await;
    let (mut old, mut old_session) = session(&gateway, &broker).await;
    let (mut new, mut new_session) = session_v5(&gateway, &broker).await;
    gateway.stop();
    let closed = old.closed().await;
    assert_eq!((closed.code, closed.packets), (1001, vec![]));
    let closed = new.closed().await;
    let told = vec![vec![0xe0, 2, 0x8b, 0]];
    assert_eq!((closed.code, closed.packets), (1001, told));
    assert_eq!(old_session.rest().await, b"");
    assert_eq!(new_session.rest().await, b"");
    drop((old, new));
    assert_eq!(gateway.ended().await, Ended { asked: 2, cut: 0 });
}

#[tokio::test]
async fn a_packet_in_hand_towards_the_client_is_finished_first() {
    let broker = Broker::start().await;
    let gateway = gateway(&broker, "rate: 1000").await;
    let (mut client, mut session) = session_v5(&gateway, &broker).await;
    let others = others(&gateway, &broker).await;
    let publish = packets::publish("t", &[7; 5000]);
    let (first, rest) = publish.split_at(2500);
    session.send(first).await;
    let stream = client.socket.get_mut();
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.unwrap();
    gateway.stop();
    others.have_left(&gateway).await;
    session.send(rest).await;
    let mut payload = vec![0; publish.len()];
    let stream = client.socket.get_mut();
    stream.read_exact(&mut payload).await.unwrap();
    assert!(payload == publish);
    let told = frames::read(stream).await;
    assert_eq!(told, Frame::binary(&[0xe0, 2, 0x8b, 0]));
    assert_eq!(frames::read(stream).await.close_code(), 1001);
    drop(client);
    let ended = gateway.ended().await;
    assert_eq!((ended.asked, ended.cut), (1 + OTHERS, 0));
}

#[tokio::test]
async fn a_packet_in_hand_towards_the_broker_is_finished_first() {
    let broker = Broker::start().await;
    let gateway = gateway(&broker, "rate: 1000").await;
    let (mut client, mut session) = session(&gateway, &broker).await;
    let others = others(&gateway, &broker).await;
    let publish = packets::publish("t", &[7; 5000]);
    let frame = frames::masked(FIN | BINARY, &publish);
    let (first, rest) = frame.split_at(2500);
    client.send_raw(first).await;
    // `readable` may remember what came before.
    session.stream.peek(&mut [0]).await.unwrap();
    gateway.stop();
    others.have_left(&gateway).await;
    client.send_raw(rest).await;
    assert_eq!(session.receive().await, publish);
    assert_eq!(session.rest().await, b"");
    assert_eq!(client.closed().await.code, 1001);
    drop(client);
    let ended = gateway.ended().await;
    assert_eq!((ended.asked, ended.cut), (1 + OTHERS, 0));
}

/// Sessions without a packet in hand. When they have left, the one with a packet has most probably been asked as well:
/// the order is random, and the gateway says of no one that it was asked.
struct Others(Vec<(Client, Session)>);

const OTHERS: usize = 5;

async fn others(gateway: &Gateway, broker: &Broker) -> Others {
    let mut others = Vec::new();
    for _ in 0..OTHERS {
        others.push(session(gateway, broker).await);
    }
    Others(others)
}

impl Others {
    async fn have_left(self, gateway: &Gateway) {
        for (mut client, mut session) in self.0 {
            assert_eq!(client.closed().await.code, 1001);
            assert_eq!(session.rest().await, b"");
        }
        gateway.metric_becomes("tidegate_sessions", &[], 1.0).await;
    }
}

#[tokio::test]
async fn nothing_new_begins_in_a_drain() {
    let broker = Broker::start().await;
    let gateway = gateway(&broker, "rate: 1").await;
    let (first, _first_session) = session(&gateway, &broker).await;
    let (second, _second_session) = session(&gateway, &broker).await;
    // Upgraded before the drain, CONNECT in it.
    let mut late = Client::open(&gateway).await;
    assert_eq!(gateway.admin("/readyz").await.0, 200);
    gateway.stop();
    assert!(is_closed_to_new_connections(&gateway).await);
    assert_eq!(gateway.admin("/readyz").await.0, 503);
    assert_eq!(gateway.admin("/livez").await.0, 200);
    late.send(&packets::connect_v5("late", 60)).await;
    let closed = late.closed().await;
    assert_eq!(closed.packets, [packets::connack_v5(0x88)]);
    assert_eq!(closed.code, 1012);
    broker.is_left_alone(Duration::ZERO).await;
    // While the others are there: the process ends with the last of them.
    gateway.outcome("operator", "connect", "draining").await;
    drop((first, second, late));
}

#[tokio::test]
async fn what_has_not_left_at_drain_max_is_told_cut_and_counted() {
    let broker = Broker::start().await;
    let gateway = gateway(&broker, "rate: 1, max: 300ms").await;
    let mut kept = Vec::new();
    for _ in 0..5 {
        kept.push(session_v5(&gateway, &broker).await);
    }
    let begun = Instant::now();
    gateway.stop();
    let mut codes = Vec::new();
    for (client, session) in &mut kept {
        let closed = client.closed().await;
        assert_eq!(closed.packets, [[0xe0, 2, 0x8b, 0]]);
        codes.push(closed.code);
        assert_eq!(session.rest().await, b"");
    }
    assert_eq!(codes, [1001; 5]);
    let ended = gateway.ended().await;
    assert_eq!(ended.asked, 1);
    // The one that was asked may still wait for its client's Close; over HTTP/2 each connection has a task besides.
    assert!((4..=10).contains(&ended.cut), "{ended:?}");
    // In their turn the last would leave after four seconds.
    assert!(begun.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn a_second_stop_ends_at_once() {
    let broker = Broker::start().await;
    let gateway = gateway(&broker, "rate: 1").await;
    let mut kept = Vec::new();
    for _ in 0..5 {
        kept.push(session(&gateway, &broker).await);
    }
    gateway.stop();
    assert!(is_closed_to_new_connections(&gateway).await);
    let begun = Instant::now();
    gateway.stop();
    let ended = gateway.ended().await;
    // In their turn the last would leave after four seconds.
    assert!(begun.elapsed() < Duration::from_secs(3), "it took its time");
    assert!(ended.cut >= 2, "{ended:?}");
    for (client, session) in &mut kept {
        assert_eq!(session.rest().await, b"");
        assert_eq!(client.closed().await.code, 1001);
    }
}

#[tokio::test]
async fn connections_without_a_session_do_not_hold_a_drain_up() {
    let broker = Broker::start().await;
    let gateway = gateway(&broker, "rate: 1000, max: 20s").await;
    let mut idle = crate::support::client::tls(&gateway).await;
    let begun = Instant::now();
    gateway.stop();
    let ended = gateway.ended().await;
    let _end = idle.read(&mut [0]).await;
    assert_eq!(ended.asked, 0);
    assert!(begun.elapsed() < Duration::from_secs(15), "{ended:?}");
}
