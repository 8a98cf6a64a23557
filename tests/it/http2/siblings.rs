//! Streams of one connection do not wait for each other; a connection that takes nothing ends.
//!
//! `TIDEGATE_ROUNDS=500 cargo test --profile demo --test it -- --nocapture none_of_two_hundred` measures for longer and says the
//! figures.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::support::broker::{Broker, Session};
use crate::support::client::Http2Client;
use crate::support::crowd::{Crowd, Manners};
use crate::support::gateway::{Gateway, pool_of};
use crate::support::http2::Http2;
use crate::support::raw_http::MORE_THAN_BUFFERS_HOLD;
use crate::support::{PATIENCE, packets};

const SESSIONS: usize = 200;
/// Set where the figures are wanted: on a machine that does nothing else.
fn wished_rounds() -> Option<usize> {
    let wished = std::env::var("TIDEGATE_ROUNDS").ok();
    wished.map(|count| count.parse().unwrap())
}

async fn connected(connection: &mut Http2, client_id: &str) -> Http2Client {
    let mut client = connection.client().await;
    client.send(&packets::connect(client_id, 60)).await;
    assert_eq!(client.receive().await, packets::connack(0), "{client_id}");
    client
}

async fn joined(connection: &mut Http2, broker: &Broker, id: &str) -> (Http2Client, Session) {
    tokio::join!(connected(connection, id), broker.welcome())
}

/// Writes until nothing is taken any more.
async fn fill(stream: &mut TcpStream, bytes: &[u8]) -> usize {
    let mut taken = 0;
    while let Ok(written) = timeout(Duration::from_millis(300), stream.write(bytes)).await {
        taken += written.unwrap();
        assert!(taken < 2 * MORE_THAN_BUFFERS_HOLD, "it is all taken");
    }
    taken
}

/// Each asks and is answered, ten times unless other wished; how long that took, each.
async fn round_trips(clients: Vec<Http2Client>) -> (Vec<Http2Client>, Vec<Duration>) {
    let rounds = wished_rounds().unwrap_or(10);
    let mut tasks = JoinSet::new();
    for mut client in clients {
        tasks.spawn(async move {
            let mut times = Vec::with_capacity(rounds);
            for _ in 0..rounds {
                let began = Instant::now();
                client.send(&packets::PINGREQ).await;
                assert_eq!(client.receive().await, packets::PINGRESP);
                times.push(began.elapsed());
            }
            (client, times)
        });
    }
    let all = timeout(PATIENCE, tasks.join_all()).await;
    let (mut clients, mut times) = (Vec::new(), Vec::new());
    for (client, took) in all.expect("a sibling waits") {
        clients.push(client);
        times.extend(took);
    }
    times.sort();
    (clients, times)
}

/// The 99th of a hundred.
fn p99(times: &[Duration]) -> Duration {
    times[times.len() * 99 / 100]
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "the figures, for whoever wishes them")]
async fn a_session_that_is_not_read_holds_up_none_of_two_hundred() {
    let crowd = Crowd::start(Manners::Welcome).await;
    let slow_broker = Broker::start().await;
    let gateway = Gateway::start(&format!(
        "routes: [{{path: /mqtt, pool: crowd}}, {{path: /slow, pool: slow}}]\n\
         pools: {{crowd: {{brokers: [{{url: \"{}\"}}]}}, slow: {{brokers: [{{url: \"{}\"}}]}}}}\n",
        crowd.url(),
        slow_broker.mqtt_url()
    ))
    .await;
    let mut connection = Http2::connect(&gateway).await;
    let mut clients = Vec::new();
    for number in 1..SESSIONS {
        clients.push(connected(&mut connection, &format!("c{number}")).await);
    }
    let (clients, before) = round_trips(clients).await;

    // The two hundredth is sent more than every buffer on the way holds, and reads nothing; nor is it read by its broker.
    let mut slow = Http2Client {
        socket: connection.web_socket("/slow", &[]).await,
    };
    slow.send(&packets::connect("slow", 60)).await;
    let mut session = slow_broker.welcome().await;
    assert_eq!(slow.receive().await, packets::connack(0));
    let mut publish = packets::publish("t", &vec![1; MORE_THAN_BUFFERS_HOLD]);
    publish.truncate(MORE_THAN_BUFFERS_HOLD);
    let taken = fill(&mut session.stream, &publish).await;
    assert!(taken > 128 * 1024, "{taken}: not even the windows are full");

    let (clients, beside) = round_trips(clients).await;
    let (before, beside) = (p99(&before), p99(&beside));
    if let Some(rounds) = wished_rounds() {
        println!("{rounds} rounds: p99 {before:?} before, {beside:?} beside one that is not read");
    }
    // A stall would be forever; this allows a machine that is held up.
    let bound = before * 10 + Duration::from_secs(2);
    assert!(beside < bound, "p99 of {before:?} became {beside:?}");
    assert_eq!(clients.len(), SESSIONS - 1);
    // And it was alive all the time.
    let mut head = [0; 10];
    slow.socket.get_mut().read_exact(&mut head).await.unwrap();
}

/// The window of a stream opens only by what the session takes, that of the connection is the sum of all.
#[tokio::test]
async fn a_broker_that_does_not_read_holds_up_its_own_client_only() {
    let broker = Broker::start().await;
    let gateway = Gateway::start(&pool_of(&[broker.mqtt_url()])).await;
    let mut connection = Http2::connect(&gateway).await;
    let (mut stuck, mut unread) = joined(&mut connection, &broker, "stuck").await;
    let (mut free, mut session) = joined(&mut connection, &broker, "free").await;
    let publish = packets::publish("t", &[7; 60_000]);
    let count = 2 * MORE_THAN_BUFFERS_HOLD / publish.len();
    let sending = async {
        for _ in 0..count {
            stuck.send(&publish).await;
        }
    };
    tokio::pin!(sending);
    // Until nothing moves any more: every buffer on the way is full.
    let (mut before, mut taken) = (-1.0, 0.0);
    while before < taken {
        let held = timeout(Duration::from_millis(300), &mut sending).await;
        assert!(
            held.is_err(),
            "all was taken for a broker that reads nothing"
        );
        before = taken;
        taken = gateway
            .metric("tidegate_packet_bytes_total", &["direction=\"up\""])
            .await;
    }
    for _ in 0..100 {
        free.send(&packets::PINGREQ).await;
        assert_eq!(session.receive().await, packets::PINGREQ);
    }
    let receiving = async {
        for _ in 0..count {
            assert!(unread.receive().await == publish);
        }
    };
    tokio::join!(receiving, sending);
}

#[tokio::test]
async fn a_connection_that_takes_nothing_ends() {
    let broker = Broker::start().await;
    let more = "timeouts: { write: 300ms }\n";
    let yaml = format!("{}{more}", pool_of(&[broker.mqtt_url()]));
    let gateway = Gateway::start(&yaml).await;
    let mut stopped = super::floods::Raw::connect(&gateway).await;
    // Its windows are as large as can be; it reads none of what fills the socket.
    stopped.open_wide().await;
    let mut session = broker.welcome().await;
    let publish = packets::publish("t", &vec![1; MORE_THAN_BUFFERS_HOLD * 4]);
    let writing = session.stream.write_all(&publish);
    let written = timeout(PATIENCE, writing).await;
    drop(written);
    gateway.outcome("client", "http", "stalled").await;
    gateway
        .metric_becomes("tidegate_connections", &[], 0.0)
        .await;
}
