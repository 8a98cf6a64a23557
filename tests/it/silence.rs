//! Clients that say nothing, at every stage: each is closed at its deadline, and no other client waits for it.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::support::broker::Broker;
use crate::support::client::{Client, tls, tls_to};
use crate::support::gateway::{Gateway, pool_of, site};
use crate::support::program::Program;
use crate::support::raw_http::{Request, rest};
use crate::support::{PATIENCE, frames, packets};

/// Long enough that an honest handshake on a busy machine is done before, far below every default.
const DEADLINE: Duration = Duration::from_millis(700);

/// A ClientHello that says it is 512 bytes long, and ends.
const HALF_A_HELLO: [u8; 9] = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc];

const PLAIN: usize = 1;

/// With this one timeout short and the others at their defaults.
async fn gateway_with(timeout: &str, broker: &Broker) -> Gateway {
    gateway(&format!("timeouts: {{ {timeout}: 700ms }}"), broker).await
}

async fn gateway(more: &str, broker: &Broker) -> Gateway {
    Gateway::start(&format!(
        "
listeners:
  - {{ address: \"127.0.0.1:0\" }}
  - {{ address: \"127.0.0.1:0\", name: plain, plain: routes }}
routes: [{{ path: /mqtt, pool: brokers }}]
pools: {{ brokers: {{ brokers: [{{ url: \"{}\" }}] }} }}
{more}
",
        broker.mqtt_url()
    ))
    .await
}

async fn tcp(gateway: &Gateway, listener: usize) -> TcpStream {
    TcpStream::connect(gateway.address(listener)).await.unwrap()
}

/// Runs `waiting` and asserts that it ended at the deadline: not before, and long before a default.
async fn at_the_deadline<T>(began: Instant, waiting: impl Future<Output = T>) -> T {
    let answer = waiting.await;
    let took = began.elapsed();
    assert!(took >= DEADLINE, "closed after {took:?}");
    assert!(took < Duration::from_secs(8), "closed after {took:?}");
    answer
}

#[tokio::test]
async fn silent_on_tcp_before_tls() {
    let broker = Broker::start().await;
    let gateway = gateway_with("tls", &broker).await;
    let began = Instant::now();
    let mut stream = tcp(&gateway, 0).await;
    assert_eq!(at_the_deadline(began, rest(&mut stream)).await, b"");
    gateway.outcome("client", "tls", "tls_timeout").await;
}

#[tokio::test]
async fn silent_in_the_middle_of_the_tls_handshake() {
    let broker = Broker::start().await;
    let gateway = gateway_with("tls", &broker).await;
    let began = Instant::now();
    let mut stream = tcp(&gateway, 0).await;
    stream.write_all(&HALF_A_HELLO).await.unwrap();
    assert_eq!(at_the_deadline(began, rest(&mut stream)).await, b"");
    gateway.outcome("client", "tls", "tls_timeout").await;
}

#[tokio::test]
async fn silent_after_the_tls_handshake() {
    let broker = Broker::start().await;
    let gateway = gateway_with("request", &broker).await;
    let began = Instant::now();
    let mut stream = tls(&gateway).await;
    assert_eq!(at_the_deadline(began, rest(&mut stream)).await, b"");
    gateway.outcome("client", "http", "request_timeout").await;
}

#[tokio::test]
async fn silent_on_a_plain_port() {
    let broker = Broker::start().await;
    let gateway = gateway_with("request", &broker).await;
    let began = Instant::now();
    let mut stream = tcp(&gateway, PLAIN).await;
    assert_eq!(at_the_deadline(began, rest(&mut stream)).await, b"");
    gateway.outcome("client", "http", "request_timeout").await;
}

#[tokio::test]
async fn silent_in_the_middle_of_the_request_head() {
    let broker = Broker::start().await;
    let gateway = gateway_with("request", &broker).await;
    let began = Instant::now();
    let mut stream = tls(&gateway).await;
    let half = b"GET /mqtt HTTP/1.1\r\nHost: loc";
    stream.write_all(half).await.unwrap();
    assert_eq!(at_the_deadline(began, rest(&mut stream)).await, b"");
    gateway.outcome("client", "http", "request_timeout").await;
}

/// A head that comes a byte at a time is not a silent client, and takes a place as long as it likes where only silence
/// is measured.
#[tokio::test]
async fn slow_in_the_request_head() {
    let broker = Broker::start().await;
    let gateway = gateway_with("request", &broker).await;
    let began = Instant::now();
    let (mut reader, mut writer) = tcp(&gateway, PLAIN).await.into_split();
    let dripping = async {
        let mut tick = tokio::time::interval(DEADLINE / 10);
        while writer.write_all(b"G").await.is_ok() {
            tick.tick().await;
        }
    };
    // CANCEL: the reader's end is what is waited for.
    at_the_deadline(began, async {
        tokio::select! {
            bytes = rest(&mut reader) => assert_eq!(bytes, b""),
            () = dripping => {}
        }
    })
    .await;
    gateway.outcome("client", "http", "request_timeout").await;
}

#[tokio::test]
async fn silent_between_two_requests() {
    let (_folder, root) = site();
    let gateway = Gateway::start(&format!(
        "routes: [{{ path: /, site: {{ root: {root:?} }} }}]\ntimeouts: {{ request: 700ms }}\n"
    ))
    .await;
    let mut stream = tls(&gateway).await;
    for _ in 0..3 {
        assert_eq!(Request::get("/").ask(&mut stream).await.status, 200);
    }
    let began = Instant::now();
    let bytes = rest(&mut stream).await;
    assert_eq!(bytes, b"");
    assert!(began.elapsed() < Duration::from_secs(8));
    gateway.outcome("client", "http", "request_timeout").await;
}

#[tokio::test]
async fn silent_after_the_101() {
    let broker = Broker::start().await;
    let gateway = gateway_with("connect", &broker).await;
    let began = Instant::now();
    let mut client = Client::open(&gateway).await;
    let closed = at_the_deadline(began, client.closed()).await;
    assert_eq!(closed.code, 1008);
    assert_eq!(closed.reason, "no MQTT CONNECT came in time");
    assert!(closed.packets.is_empty());
    gateway
        .outcome("client", "connect", "connect_timeout")
        .await;
}

#[tokio::test]
async fn silent_in_the_middle_of_connect() {
    let broker = Broker::start().await;
    let gateway = gateway_with("connect", &broker).await;
    let began = Instant::now();
    let mut client = Client::open(&gateway).await;
    let connect = packets::connect("half", 60);
    client.send(&connect[..connect.len() / 2]).await;
    let closed = at_the_deadline(began, client.closed()).await;
    assert_eq!((closed.code, closed.packets.len()), (1008, 0));
    gateway
        .outcome("client", "connect", "connect_timeout")
        .await;
    broker.is_left_alone(Duration::from_millis(50)).await;
}

/// WebSocket pings are not a CONNECT.
#[tokio::test]
async fn pings_do_not_prolong_the_wait_for_connect() {
    let broker = Broker::start().await;
    let gateway = gateway_with("connect", &broker).await;
    let began = Instant::now();
    let mut client = Client::open(&gateway).await;
    // Masked, empty.
    let ping = [0x89, 0x80, 1, 2, 3, 4];
    let closed = at_the_deadline(began, async {
        client.send_raw(&ping).await;
        client.closed().await
    })
    .await;
    assert_eq!(closed.code, 1008);
}

/// One worker, and a client stuck at every stage: the next one is served long before any deadline.
#[tokio::test]
async fn a_silent_client_at_every_stage_delays_no_other() {
    let broker = Broker::start().await;
    let long = "timeouts: { tls: 60s, request: 60s, connect: 60s }";
    let gateway = gateway(long, &broker).await;
    let serving = Box::pin(serve_beside_silent_clients(&gateway, &broker));
    let served = tokio::time::timeout(PATIENCE, serving).await;
    assert!(served.is_ok(), "it had to wait for others");
}

async fn serve_beside_silent_clients(gateway: &Gateway, broker: &Broker) {
    let on_tcp = tcp(gateway, 0).await;
    let mut in_tls = tcp(gateway, 0).await;
    in_tls.write_all(&HALF_A_HELLO).await.unwrap();
    let on_plain = tcp(gateway, PLAIN).await;
    let mut in_head = tcp(gateway, PLAIN).await;
    in_head.write_all(b"GET /mq").await.unwrap();
    let after_tls = tls(gateway).await;
    let after_101 = Client::open(gateway).await;
    let mut in_connect = Client::open(gateway).await;
    in_connect.send(&packets::connect("half", 60)[..5]).await;
    let connections = "tidegate_connections";
    gateway.metric_becomes(connections, &[], 7.0).await;

    let (mut client, mut session) =
        tokio::join!(Client::connected(gateway, "quick"), broker.welcome());
    client.send(&packets::publish("t", b"x")).await;
    assert_eq!(session.receive().await, packets::publish("t", b"x"));

    gateway.metric_becomes(connections, &[], 8.0).await;
    for stream in [&on_tcp, &in_tls, &on_plain, &in_head] {
        assert_is_open(stream);
    }
    for stream in [after_tls.get_ref().0, raw(&after_101), raw(&in_connect)] {
        assert_is_open(stream);
    }
}

fn raw(client: &Client) -> &TcpStream {
    client.socket.get_ref().get_ref().0
}

/// Neither its end nor a reset has come. Tickets of TLS 1.3 may have.
fn assert_is_open(stream: &TcpStream) {
    match stream.try_read(&mut [0; 4096]) {
        Ok(count) => assert!(count > 0, "closed"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
    }
}

/// Plain HTTP on the TLS port is answered; a client that then keeps its end open does not keep ours.
#[tokio::test]
async fn a_client_that_ignores_the_answer_to_plain_http_is_left() {
    let broker = Broker::start().await;
    let gateway = gateway("", &broker).await;
    let mut stream = tcp(&gateway, 0).await;
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    gateway.outcome("client", "tls", "plain_http_on_tls").await;
    assert!(!rest(&mut stream).await.is_empty());
    gateway
        .metric_becomes("tidegate_connections", &[], 0.0)
        .await;
}

/// A client that does not answer our Close is left after a moment.
#[tokio::test]
async fn a_client_that_ignores_the_goodbye_is_left() {
    let broker = Broker::start().await;
    let gateway = gateway_with("connect", &broker).await;
    let mut stream = tls(&gateway).await;
    assert_eq!(Request::upgrade("/mqtt").ask(&mut stream).await.status, 101);
    assert_eq!(stream.read_u8().await.unwrap(), 0x88);
    gateway
        .metric_becomes("tidegate_connections", &[], 0.0)
        .await;
    // Only now: dropped earlier, it would have been the client that left.
    drop(stream);
}

/// A virtual machine that was moved, a container without processor time: a client that owes one answer is asked again.
#[tokio::test]
async fn a_client_without_keepalive_outlives_that_the_gateway_was_held_up() {
    const PING_EVERY: Duration = Duration::from_secs(1);
    let broker = Broker::start().await;
    let program = Program::run(&format!(
        "{}timeouts: {{ ping: 1s }}\n",
        pool_of(&[broker.mqtt_url()])
    ))
    .await;
    let stream = tls_to(program.address(0), &program.authority.ca).await;
    let mut client = Client::over(stream).await;
    client.send(&packets::connect("c1", 0)).await;
    let mut session = broker.welcome().await;
    assert_eq!(client.receive().await, packets::connack(0));
    let stream = client.socket.get_mut();
    assert_eq!(frames::read(stream).await.opcode, frames::PING);
    program.process.signal("STOP");
    sleep(PING_EVERY * 7 / 2).await;
    program.process.signal("CONT");
    let ping = frames::read(stream).await;
    assert_eq!(ping.opcode, frames::PING);
    let pong = frames::masked(frames::FIN | frames::PONG, &ping.payload);
    stream.write_all(&pong).await.unwrap();
    stream.flush().await.unwrap();
    client.send(&packets::PINGREQ).await;
    assert_eq!(session.receive().await, packets::PINGREQ);
}
