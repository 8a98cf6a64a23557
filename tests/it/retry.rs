//! Until CONNACK a broker that fails is invisible to the client: the next one gets the same CONNECT.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Client;
use crate::support::broker::{Broker, Session};
use crate::support::dns::NameServer;
use crate::support::frames::{self, FIN};
use crate::support::gateway::{Gateway, pool_of};
use crate::support::packets;

/// Long enough for a busy machine where nothing hangs, short enough to wait for where something does.
const SHORT: &str = "timeouts: {broker_connect: 1s, connack: 1s, join: 10s}\n";

/// A gateway before the one that fails and the one that does not. Which of them is asked first is the gateway's choice.
struct Pair {
    bad: Broker,
    good: Broker,
    gateway: Gateway,
}

impl Pair {
    async fn new(url: fn(&Broker) -> String, more: &str) -> Self {
        let (bad, good) = (Broker::start().await, Broker::start().await);
        let urls = [url(&bad), good.mqtt_url()];
        let gateway = Gateway::start(&format!("{}{more}", pool_of(&urls))).await;
        Self { bad, good, gateway }
    }

    /// Two sessions, of which exactly one meets the broker that fails: it is made to fail by `fail`. Both clients see one
    /// CONNACK, and the good broker the CONNECT of both.
    async fn fails(self, connect: &[u8], cause: &str, fail: impl AsyncFn(TcpStream)) {
        let Self { bad, good, gateway } = self;
        let clients = async {
            for _ in 0..2 {
                let mut client = Client::open(&gateway).await;
                client.send(connect).await;
                let connack = client.receive().await;
                assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:02x?}");
                client.send(&packets::PINGREQ).await;
                assert_eq!(client.receive().await, packets::PINGRESP, "one CONNACK");
            }
        };
        let failing = async {
            fail(bad.accept().await).await;
        };
        let working = async {
            for _ in 0..2 {
                let mut session = good.welcome().await;
                assert_eq!(session.connect, connect);
                assert_eq!(session.receive().await, packets::PINGREQ);
                session.send(&packets::PINGRESP).await;
            }
        };
        tokio::join!(clients, failing, working);
        let failures = "tidegate_broker_failures_total";
        let cause = format!("cause=\"{cause}\"");
        gateway.metric_becomes(failures, &[&cause], 1.0).await;
        assert_eq!(gateway.metric(failures, &[]).await, 1.0);
    }
}

async fn read_connect(stream: &mut TcpStream, connect: &[u8]) {
    let mut packet = vec![0; connect.len()];
    stream.read_exact(&mut packet).await.unwrap();
    assert_eq!(packet, connect);
}

/// Until the gateway has turned away.
async fn until_left(mut stream: TcpStream) {
    let mut rest = Vec::new();
    drop(stream.read_to_end(&mut rest).await);
}

#[tokio::test]
async fn a_broker_that_refuses_the_port_is_passed_over() {
    let Pair { bad, good, gateway } = Pair::new(Broker::mqtt_url, "").await;
    drop(bad);
    for id in ["c1", "c2"] {
        let (_client, session) = tokio::join!(Client::connected(&gateway, id), good.welcome());
        assert_eq!(session.connect, packets::connect(id, 60));
    }
    let failures = "tidegate_broker_failures_total";
    let refused = gateway.metric(failures, &["cause=\"refused\""]).await;
    assert_eq!(refused, 1.0);
}

#[tokio::test]
async fn a_broker_that_closes_before_connack_is_passed_over() {
    let connect = packets::connect("c1", 60);
    let pair = Pair::new(Broker::mqtt_url, "").await;
    pair.fails(&connect, "closed", async |mut stream| {
        read_connect(&mut stream, &connect).await;
    })
    .await;
}

#[tokio::test]
async fn a_broker_that_resets_before_connack_is_passed_over() {
    let connect = packets::connect("c1", 60);
    let pair = Pair::new(Broker::mqtt_url, "").await;
    // Closing with CONNECT unread resets the connection.
    pair.fails(&connect, "closed", async |stream| {
        stream.readable().await.unwrap();
        stream.set_zero_linger().unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_broker_that_hangs_is_passed_over_in_time() {
    let connect = packets::connect("c1", 60);
    let pair = Pair::new(Broker::mqtt_url, SHORT).await;
    pair.fails(&connect, "connack_timeout", async |mut stream| {
        read_connect(&mut stream, &connect).await;
        until_left(stream).await;
    })
    .await;
}

#[tokio::test]
async fn a_broker_that_answers_garbage_is_passed_over() {
    for garbage in [
        &b"\x00\x00"[..],
        b"\x30\x80\x80\x80\x80\x01",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x15\x03\x03\x00\x02\x02\x28",
        // A packet, but not CONNACK; and a CONNACK that is too short to be one.
        b"\xd0\x00",
        b"\x20\x01\x00",
    ] {
        let connect = packets::connect("c1", 60);
        let pair = Pair::new(Broker::mqtt_url, SHORT).await;
        let cause = match garbage {
            // It reads as the header of a longer packet.
            [b'H', ..] => "connack_timeout",
            _ => "protocol",
        };
        pair.fails(&connect, cause, async |mut stream| {
            read_connect(&mut stream, &connect).await;
            stream.write_all(garbage).await.unwrap();
            until_left(stream).await;
        })
        .await;
    }
}

#[tokio::test]
async fn a_connack_that_asks_for_another_broker_is_followed() {
    let v311 = packets::connect("c1", 60);
    let v5 = packets::connect_v5("c1", 60);
    let mut cases = vec![(&v311, packets::connack(0x03))];
    cases.extend([0x88, 0x89, 0x9c, 0x9d, 0x9f].map(|code| (&v5, packets::connack_v5(code))));
    for (connect, connack) in &cases {
        let pair = Pair::new(Broker::mqtt_url, "").await;
        pair.fails(connect, "connack_elsewhere", async |mut stream| {
            read_connect(&mut stream, connect).await;
            stream.write_all(connack).await.unwrap();
            until_left(stream).await;
        })
        .await;
    }
}

#[tokio::test]
async fn a_connack_that_refuses_the_client_is_not_retried_and_reaches_it() {
    let v311 = packets::connect("c1", 60);
    let v5 = packets::connect_v5("c1", 60);
    for (connect, connack) in [
        (&v311, packets::connack(0x05)),
        (&v311, packets::connack(0x04)),
        (&v5, packets::connack_v5(0x87)),
        (&v5, packets::connack_v5(0x86)),
    ] {
        let (one, other) = (Broker::start().await, Broker::start().await);
        let gateway = Gateway::before(&[one.mqtt_url(), other.mqtt_url()]).await;
        let mut client = Client::open(&gateway).await;
        client.send(connect).await;
        let refuse = async |broker: &Broker| {
            let mut session = broker.session().await;
            session.send(&connack).await;
        };
        let unasked = tokio::select! {
            () = refuse(&one) => &other,
            () = refuse(&other) => &one,
        };
        let closed = client.closed().await;
        assert_eq!((closed.packets, closed.code), (vec![connack.clone()], 1000));
        drop(client);
        unasked.is_left_alone(Duration::ZERO).await;
        gateway.outcome("broker", "relay", "refused").await;
        let code = format!("code=\"{}\"", connack[3]);
        let counted = gateway.metric("tidegate_connacks_total", &[&code]).await;
        assert_eq!(counted, 1.0);
    }
}

#[tokio::test]
async fn no_broker_left_is_said_in_connack_and_with_1013() {
    for (connect, connack) in [
        (packets::connect("c1", 60), packets::connack(0x03)),
        (packets::connect_v5("c1", 60), packets::connack_v5(0x88)),
    ] {
        let brokers = [Broker::start().await, Broker::start().await];
        let urls = brokers.each_ref().map(Broker::mqtt_url);
        drop(brokers);
        let gateway = Gateway::before(&urls).await;
        let mut client = Client::open(&gateway).await;
        client.send(&connect).await;
        let closed = client.closed().await;
        assert_eq!((closed.packets, closed.code), (vec![connack], 1013));
        drop(client);
        gateway.outcome("broker", "join", "no_broker").await;
        let failures = "tidegate_broker_failures_total";
        assert_eq!(gateway.metric(failures, &[]).await, 2.0, "each once");
    }
}

#[tokio::test]
async fn the_time_for_all_attempts_is_bounded() {
    let brokers = [Broker::start().await, Broker::start().await];
    let urls = brokers.each_ref().map(Broker::mqtt_url);
    let timeouts = "timeouts: {connack: 10s, join: 300ms}\n";
    let gateway = Gateway::start(&format!("{}{timeouts}", pool_of(&urls))).await;
    let mut client = Client::open(&gateway).await;
    client.send(&packets::connect("c1", 60)).await;
    let closed = client.closed().await;
    assert_eq!(closed.packets, [packets::connack(0x03)]);
    assert_eq!(closed.code, 1013);
}

#[tokio::test]
async fn a_ws_broker_that_does_not_upgrade_is_passed_over() {
    let answers: [(&[u8], &str); 8] = [
        (
            b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
            "handshake_status",
        ),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "handshake_status"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            "handshake_status",
        ),
        // TLS alert; MQTT; an upgrade to another key.
        (b"\x15\x03\x03\x00\x02\x02\x28", "handshake"),
        (b"\x20\x02\x00\x00", "handshake"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            "handshake",
        ),
        // Closed without an answer, and silence.
        (b"", "handshake"),
        (b"HTTP/1.1 101", "connect_timeout"),
    ];
    for (answer, cause) in answers {
        let pair = Pair::new(Broker::ws_url, SHORT).await;
        let connect = packets::connect("c1", 60);
        pair.fails(&connect, cause, async |mut stream| {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut head).await.unwrap();
            }
            stream.write_all(answer).await.unwrap();
            if !answer.is_empty() {
                until_left(stream).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_ws_broker_that_closes_instead_of_connack_is_passed_over() {
    let pair = Pair::new(Broker::ws_url, SHORT).await;
    let connect = packets::connect("c1", 60);
    pair.fails(&connect, "closed", async |stream| {
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        socket.close(None).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_passed_over() {
    let good = Broker::start().await;
    let urls = [
        "mqtt://no-such-host.invalid:1883".to_owned(),
        good.mqtt_url(),
    ];
    let names = NameServer::start(0).await;
    let dns = format!("dns: {{servers: [\"{}\"]}}\n", names.address());
    let gateway = Gateway::start(&format!("{}{dns}", pool_of(&urls))).await;
    for id in ["c1", "c2"] {
        tokio::join!(Client::connected(&gateway, id), good.welcome());
    }
    let failures = "tidegate_discovery_failures_total";
    let cause = ["cause=\"nxdomain\""];
    gateway.metric_becomes(failures, &cause, 1.0).await;
}

/// A client whose CONNECT a broker has and does not answer.
async fn hanging() -> (Gateway, Client, Session) {
    let broker = Broker::start().await;
    let gateway = Gateway::before(&[broker.mqtt_url()]).await;
    let mut client = Client::open(&gateway).await;
    client.send(&packets::connect("c1", 60)).await;
    let session = broker.session().await;
    (gateway, client, session)
}

#[tokio::test]
async fn a_client_that_vanishes_while_the_join_hangs_is_noticed() {
    let (gateway, client, mut session) = hanging().await;
    drop(client);
    assert_eq!(session.rest().await, b"");
    gateway.outcome("client", "join", "vanished").await;
}

#[tokio::test]
async fn a_client_that_closes_while_the_join_hangs_is_noticed() {
    let (gateway, mut client, mut session) = hanging().await;
    let close = frames::masked(FIN | frames::CLOSE, &[0x03, 0xe9]);
    client.send_raw(&close).await;
    assert_eq!(session.rest().await, b"");
    assert_eq!(client.closed().await.code, 1001);
    gateway.outcome("client", "join", "close").await;
}

#[tokio::test]
async fn an_authentication_exchange_before_connack_passes_through() {
    let broker = Broker::start().await;
    let gateway = Gateway::before(&[broker.mqtt_url()]).await;
    let mut client = Client::open(&gateway).await;
    client.send(&packets::connect_v5("c1", 60)).await;
    let mut session = broker.session().await;
    let challenge = b"\xf0\x08\x18\x06\x15\x00\x03abc";
    let answer = b"\xf0\x0b\x18\x09\x15\x00\x03abc\x16\x00\x00";
    for _ in 0..2 {
        session.send(challenge).await;
        assert_eq!(client.receive().await, challenge);
        client.send(answer).await;
        assert_eq!(session.receive().await, answer);
    }
    session.send(&packets::connack_v5(0)).await;
    assert_eq!(client.receive().await, packets::connack_v5(0));
    client.send(&packets::PINGREQ).await;
    assert_eq!(session.receive().await, packets::PINGREQ);
}

#[tokio::test]
async fn a_refusal_after_an_authentication_exchange_is_the_brokers() {
    let broker = Broker::start().await;
    let gateway = Gateway::before(&[broker.mqtt_url()]).await;
    let mut client = Client::open(&gateway).await;
    client.send(&packets::connect_v5("c1", 60)).await;
    let mut session = broker.session().await;
    session.send(b"\xf0\x08\x18\x06\x15\x00\x03abc").await;
    session.send(&packets::connack_v5(0x87)).await;
    drop(session);
    let closed = client.closed().await;
    assert_eq!(closed.packets[1], packets::connack_v5(0x87));
    assert_eq!(closed.code, 1000);
    gateway.outcome("broker", "relay", "refused").await;
}

#[tokio::test]
async fn server_keep_alive_in_connack_replaces_the_clients() {
    let challenge = b"\xf0\x08\x18\x06\x15\x00\x03abc";
    let connack = b"\x20\x06\x00\x00\x03\x13\x00\x01";
    for exchange in [&b""[..], challenge] {
        let broker = Broker::start().await;
        let urls = [broker.mqtt_url()];
        let gateway = Gateway::start(&format!(
            "{}timeouts: {{idle_margin: 0s}}\n",
            pool_of(&urls)
        ))
        .await;
        let mut client = Client::open(&gateway).await;
        client.send(&packets::connect_v5("c1", 3600)).await;
        let mut session = broker.session().await;
        session.send(exchange).await;
        session.send(connack).await;
        let closed = client.closed().await;
        assert_eq!(closed.packets.last().unwrap(), &[0xe0, 2, 0x8d, 0]);
        assert_eq!(closed.code, 1008);
        assert_eq!(
            session.rest().await,
            b"",
            "the Will is the broker's to send"
        );
        gateway.outcome("client", "relay", "idle").await;
    }
}
