//! The one pace that ends sessions: how even it is with many of them, who is told what, which Wills follow, and what begins it.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tungstenite::Message;

use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::crowd::{Crowd, Manners};
use crate::support::gateway::{Gateway, pool_of};
use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::packets;
use crate::support::program::{Program, tidegate};
use crate::support::{PATIENCE, eventually};

/// Both ends of thousands of connections are in this process.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

type Socket = WebSocketStream<TcpStream>;

/// A session over plain ws; CONNACK has said yes.
async fn plain(program: &Program, connect: Vec<u8>) -> Socket {
    let address = program.address(0);
    let stream = TcpStream::connect(address).await.unwrap();
    let opening = tokio_tungstenite::client_async(format!("ws://{address}/mqtt"), stream);
    let (mut socket, _) = Box::pin(opening).await.unwrap();
    socket.send(Message::binary(connect)).await.unwrap();
    match socket.next().await {
        Some(Ok(Message::Binary(answer))) if answer[3] == 0 => socket,
        other => panic!("{other:?} instead of CONNACK"),
    }
}

/// How it was ended: the packets and the close code.
async fn end_of(mut socket: Socket) -> (Vec<Vec<u8>>, u16) {
    let mut packets = Vec::new();
    loop {
        match socket.next().await {
            Some(Ok(Message::Binary(packet))) => packets.push(packet.to_vec()),
            Some(Ok(Message::Close(Some(frame)))) => return (packets, frame.code.into()),
            other => panic!("{other:?} instead of a Close"),
        }
    }
}

/// A broker that takes everybody, in either version.
async fn broker_for_all() -> (String, JoinSet<()>) {
    let broker = Broker::start().await;
    let url = broker.mqtt_url();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut sessions = JoinSet::new();
        loop {
            let mut stream = broker.accept_any().await;
            sessions.spawn(async move {
                if Broker::take(&mut stream).await {
                    let mut rest = [0; 64];
                    while matches!(stream.read(&mut rest).await, Ok(count) if count > 0) {}
                }
            });
        }
    });
    (url, tasks)
}

/// 0x9C with this reference.
fn sent_away(reference: &str) -> Vec<u8> {
    let length = u8::try_from(reference.len()).unwrap();
    let head = [0xe0, length + 5, 0x9c, length + 3, 0x1c, 0, length];
    [&head[..], reference.as_bytes()].concat()
}

#[tokio::test]
async fn two_thousand_sessions_at_two_hundred_a_second_take_ten_seconds_evenly() {
    const SESSIONS: usize = 2000;
    const RATE: usize = 200;
    raise_open_files();
    let (url, _broker) = broker_for_all().await;
    let program = Program::run(&format!(
        "listeners: [{{ address: \"127.0.0.1:0\", plain: routes }}]\n{}drain: {{ rate: {RATE}, server_reference: \"other.example.com:443\" }}\nlog: {{ sessions: false }}\n",
        pool_of(&[url])
    ))
    .await;
    let mut ends = JoinSet::new();
    for number in 0..SESSIONS {
        let id = format!("c{number}");
        let is_v5 = number % 2 == 0;
        let connect = match is_v5 {
            true => packets::connect_v5(&id, 600),
            false => packets::connect(&id, 600),
        };
        let socket = plain(&program, connect).await;
        ends.spawn(async move {
            let (told, code) = end_of(socket).await;
            (is_v5, told, code, Instant::now())
        });
    }
    program.process.signal("TERM");
    program
        .tells(&["draining, about 10.0 s", "sessions=2000"])
        .await;
    let mut times = Vec::new();
    while let Some(end) = ends.join_next().await {
        let (is_v5, told, code, at) = end.unwrap();
        assert_eq!(code, 1001);
        match is_v5 {
            true => assert_eq!(told, [sent_away("other.example.com:443")]),
            false => assert_eq!(told, Vec::<Vec<u8>>::new()),
        }
        times.push(at);
    }
    times.sort();
    // Each at its time: a wrong rate drifts away from it, and a burst each second would be a second off.
    let early_or_late = times.iter().enumerate().map(|(turn, at)| {
        let due = turn as f64 / RATE as f64;
        (*at - times[0]).as_secs_f64() - due
    });
    let (earliest, latest) = early_or_late.fold((f64::MAX, f64::MIN), |(least, most), off| {
        (least.min(off), most.max(off))
    });
    assert!(latest - earliest < 0.8, "from {earliest} s to {latest} s");
    let finished = program.process.finish(PATIENCE).await;
    assert!(
        finished.stderr.contains("drained asked=2000 cut=0"),
        "{}",
        finished.stderr
    );
}

/// What a subscriber at the broker hears, to a last message of its own.
async fn wills(watcher: &mut TcpStream) -> BTreeSet<String> {
    watcher
        .write_all(&packets::publish("will/end", b""))
        .await
        .unwrap();
    let mut heard = BTreeSet::new();
    loop {
        let mut head = [0; 2];
        timeout(PATIENCE, watcher.read_exact(&mut head))
            .await
            .unwrap()
            .unwrap();
        let mut body = vec![0; usize::from(head[1])];
        watcher.read_exact(&mut body).await.unwrap();
        let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let topic = String::from_utf8(body[2..2 + length].to_vec()).unwrap();
        if topic == "will/end" {
            return heard;
        }
        assert!(heard.insert(topic), "a Will was published twice");
    }
}

#[tokio::test]
async fn a_drain_publishes_the_wills_that_mqtt_says_and_no_others() {
    const EACH: usize = 10;
    let broker = Mosquitto::start(Options::default()).await;
    let mut watcher = TcpStream::connect(("127.0.0.1", broker.tcp_port()))
        .await
        .unwrap();
    watcher
        .write_all(&packets::connect("watcher", 60))
        .await
        .unwrap();
    watcher
        .write_all(&packets::subscribe("will/#"))
        .await
        .unwrap();
    watcher.read_exact(&mut [0; 4 + 5]).await.unwrap();
    let pool = pool_of(&[broker.mqtt_url()]);
    let gateway = Gateway::start(&format!("{pool}drain: {{ rate: 200 }}\n")).await;
    let mut expected = BTreeSet::new();
    let mut clients = Vec::new();
    for number in 0..EACH {
        let topic = |kind: &str| format!("will/{kind}/{number}");
        let id = |kind: &str| format!("{kind}{number}");
        for (kind, connect) in [
            ("old", packets::connect_with_will(&id("old"), &topic("old"))),
            (
                "new",
                packets::connect_v5_with_will(&id("new"), &topic("new"), 0),
            ),
            // MQTT 5 3.1.3.2.2: published when its delay has passed, if the client is not back by then.
            (
                "late",
                packets::connect_v5_with_will(&id("late"), &topic("late"), 300),
            ),
            // MQTT 3.1.2.5: removed by DISCONNECT.
            (
                "left",
                packets::connect_with_will(&id("left"), &topic("left")),
            ),
            ("none", packets::connect(&id("none"), 60)),
        ] {
            let mut client = Client::open(&gateway).await;
            client.send(&connect).await;
            assert_eq!(client.receive().await[3], 0);
            match kind {
                "left" => {
                    client.send(&[0xe0, 0]).await;
                    assert_eq!(client.closed().await.code, 1000);
                }
                "old" | "new" => {
                    expected.insert(topic(kind));
                    clients.push(client);
                }
                _ => clients.push(client),
            }
        }
    }
    assert_eq!(
        wills(&mut watcher).await,
        BTreeSet::new(),
        "before the drain"
    );
    gateway.stop();
    for client in &mut clients {
        assert_eq!(client.closed().await.code, 1001);
    }
    drop(clients);
    gateway.ended().await;
    let mut heard = BTreeSet::new();
    let all = eventually(async || {
        heard.extend(wills(&mut watcher).await);
        heard.len() >= expected.len()
    });
    assert!(all.await, "{heard:?}");
    assert_eq!(heard, expected);
}

#[tokio::test]
async fn sessions_of_their_age_are_asked_to_leave_in_the_words_of_mqtt() {
    let broker = Broker::start().await;
    let pool = pool_of(&[broker.mqtt_url()]);
    let gateway = Gateway::start(&format!(
        "{pool}drain: {{ max_session_age: 2s, close_code: 1012 }}\n"
    ))
    .await;
    let begun = Instant::now();
    let (mut new, mut session) =
        tokio::join!(Client::connected_v5(&gateway, "new"), broker.welcome());
    let (mut old, _session) = tokio::join!(Client::connected(&gateway, "old"), broker.welcome());
    let closed = new.closed().await;
    // 0xA0: Maximum connect time.
    assert_eq!(
        (closed.code, closed.packets),
        (1012, vec![vec![0xe0, 2, 0xa0, 0]])
    );
    assert_eq!(closed.reason, "the session is old, come again");
    assert_eq!(
        session.rest().await,
        b"",
        "the broker is not told DISCONNECT"
    );
    let closed = old.closed().await;
    assert_eq!((closed.code, closed.packets), (1012, vec![]));
    let took = begun.elapsed();
    assert!(
        took > Duration::from_millis(1600),
        "they left after {took:?}"
    );
    drop((new, old));
    gateway
        .metric_becomes("tidegate_outcomes_total", &["why=\"age\""], 2.0)
        .await;
    // Nothing else has changed: it goes on.
    let (_next, _session) = tokio::join!(Client::connected(&gateway, "next"), broker.welcome());
    assert_eq!(gateway.admin("/readyz").await.0, 200);
}

#[tokio::test]
async fn tidegate_drain_waits_is_hurried_and_leaves_the_process_for_its_supervisor() {
    let broker = Crowd::start(Manners::Welcome).await;
    let program = Program::run(&format!(
        "listeners: [{{ address: \"127.0.0.1:0\", plain: routes }}]\n{}drain: {{ rate: 1 }}\n",
        pool_of(&[broker.url()])
    ))
    .await;
    let mut ends = JoinSet::new();
    for number in 0..100 {
        let socket = plain(&program, packets::connect(&format!("c{number}"), 60)).await;
        ends.spawn(end_of(socket));
    }
    let begun = program.ask(&["drain"]).await;
    assert_eq!(begun.status.code(), Some(0), "{}", begun.stderr);
    program
        .admin
        .metric_becomes("tidegate_draining", &[], 1.0)
        .await;
    assert_eq!(program.admin.get("/readyz").await.0, 503);
    assert!(
        TcpStream::connect(program.address(0)).await.is_err(),
        "it still accepts"
    );
    let waiting = eventually(async || {
        program
            .admin
            .metric("tidegate_drain_left_seconds", &[])
            .await
            > 90.0
    });
    assert!(waiting.await, "a hundred sessions at one a second");
    // A second command is no second drain; it hurries the first.
    let waited = program.ask(&["drain", "--wait", "--rate", "500"]).await;
    assert_eq!(waited.status.code(), Some(0), "{}", waited.stderr);
    assert!(waited.stdout.contains("500 a second"), "{}", waited.stdout);
    assert!(
        waited
            .stdout
            .ends_with("the process stays until it is stopped"),
        "{}",
        waited.stdout
    );
    assert_eq!(ends.len(), 100);
    for end in ends.join_all().await {
        assert_eq!(end.1, 1001);
    }
    assert_eq!(program.admin.get("/livez").await.0, 200);
    assert!(
        program
            .admin
            .get("/drain")
            .await
            .1
            .contains("\"phase\":\"drained\"")
    );
    assert_eq!(
        program.admin.get("/readyz").await.0,
        503,
        "it has no listeners any more"
    );
    let upgraded = program.ask(&["upgrade"]).await;
    assert_eq!(upgraded.status.code(), Some(1), "{}", upgraded.stdout);
    assert!(
        upgraded.stderr.contains("start a new one"),
        "{}",
        upgraded.stderr
    );
    program.process.signal("TERM");
    assert_eq!(
        program.process.finish(PATIENCE).await.status.code(),
        Some(0)
    );
}

#[tokio::test]
async fn a_drain_that_was_hurried_keeps_its_rate_over_a_reload_and_says_it() {
    let broker = Crowd::start(Manners::Welcome).await;
    let yaml = |rate: u32| {
        format!(
            "watch: false\nlisteners: [{{ address: \"127.0.0.1:0\", plain: routes }}]\n{}drain: {{ rate: {rate} }}\n",
            pool_of(&[broker.url()])
        )
    };
    let program = Program::run(&yaml(1)).await;
    let _session = plain(&program, packets::connect("c", 60)).await;
    let _other = plain(&program, packets::connect("d", 60)).await;
    let is_told = async |rate: u32| {
        let shown = async || {
            let status: Value =
                serde_json::from_str(&program.admin.get("/status.json").await.1).unwrap();
            status["drain"]["rate"] == rate
        };
        let asked = program.admin.get("/drain").await.1;
        assert!(asked.contains(&format!("\"rate\":{rate},")), "{asked}");
        assert!(eventually(shown).await, "the status page says another rate");
    };
    assert_eq!(
        program.ask(&["drain", "--rate", "3"]).await.status.code(),
        Some(0)
    );
    program.rewrite(&yaml(1));
    assert_eq!(program.ask(&["reload"]).await.status.code(), Some(0));
    is_told(3).await;
    program.rewrite(&yaml(2));
    assert_eq!(program.ask(&["reload"]).await.status.code(), Some(0));
    is_told(2).await;
}

#[tokio::test]
async fn check_says_what_a_drain_needs_and_whether_there_is_so_much_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = |drain: &str| {
        let text = format!(
            "listeners: [{{ address: \"127.0.0.1:0\", plain: routes }}]\n{}limits: {{ connections: 10000 }}\ndrain: {{ {drain} }}\n",
            pool_of(&["mqtt://127.0.0.1:1".to_owned()])
        );
        std::fs::write(folder.path().join("tidegate.yaml"), text).unwrap();
    };
    let told = async |grace: &[&str]| {
        let finished = tidegate(
            folder.path(),
            &[&["check", "-c", "tidegate.yaml"], grace].concat(),
        )
        .await;
        assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
        finished.stdout + &finished.stderr
    };
    file("rate: 100, max: 200s");
    let text = told(&[]).await;
    assert!(text.contains("all of 10000 would need 100 s"), "{text}");
    assert!(
        text.contains("how long the supervisor waits is not known"),
        "{text}"
    );
    let text = told(&["--grace", "300s"]).await;
    assert!(
        text.contains("within the 300 s") && !text.contains("would do"),
        "{text}"
    );
    let text = told(&["--grace", "50s"]).await;
    assert!(text.contains("TOO LONG for the 50 s"), "{text}");
    assert!(
        text.contains("drain.rate 200 with a drain.max of 50 s would do"),
        "{text}"
    );
    file("rate: 100, max: 20s");
    let text = told(&["--grace", "50s"]).await;
    assert!(
        text.contains("not every session would have its turn"),
        "{text}"
    );
    file("rate: 100, max: 60s, grace: 30s");
    let text = told(&[]).await;
    assert!(
        text.contains("drain.grace") && text.contains("TOO LONG for the 30 s"),
        "{text}"
    );
}
