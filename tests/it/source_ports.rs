//! Source ports run out, and more source addresses help. In a network namespace whose port range is cut to 1,000.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a scripted broker has no drain, and the figures are to be read"
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tungstenite::Message;
use tungstenite::client::IntoClientRequest;

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::process::Process;
use crate::support::{PATIENCE, eventually, packets, tools};

/// The kernel's own range in the namespace; everything that listens or binds by itself stays outside it.
const RANGE: &str = "20000 20999";
const PORTS: usize = 1000;

const GATEWAY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);
const BROKER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1883);

/// Clients leave from ports of their own choice, so that they need none of the range.
const CLIENT_PORT: u16 = 30_000;

#[tokio::test]
async fn one_source_address_carries_one_port_range_and_two_carry_two() {
    let script = format!(
        "{ip} link set lo up && echo {RANGE} >/proc/sys/net/ipv4/ip_local_port_range \
         && exec \"$0\" --exact source_ports::in_the_namespace --ignored --nocapture",
        ip = tools::ip().display()
    );
    let mut command = Command::new(tools::unshare());
    // Who is not root becomes it in a user namespace, where the system allows that.
    if !nix::unistd::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command
        .args(["--net", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap());
    let finished = Process::start(&command)
        .finish(Duration::from_secs(300))
        .await;
    assert!(
        finished.status.success(),
        "it needs a network namespace of its own: run the tests as root, or allow user namespaces \
         (kernel.unprivileged_userns_clone=1)\n{}\n{}",
        finished.stdout,
        finished.stderr
    );
    println!("{}", finished.stdout);
}

/// The other half of the test above.
#[tokio::test]
#[ignore = "runs in a network namespace: started by one_source_address_carries_one_port_range_and_two_carry_two"]
async fn in_the_namespace() {
    let broker = TcpListener::bind(BROKER).await.unwrap();
    let answering = tokio::spawn(async move {
        loop {
            let (stream, _) = broker.accept().await.unwrap();
            tokio::spawn(welcome(stream));
        }
    });
    // Not the same address twice: a killed gateway leaves its ports in TIME_WAIT.
    for (sources, expected) in [("127.0.0.2", PORTS), ("127.0.0.3, 127.0.0.4", 2 * PORTS)] {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("tidegate.yaml");
        let yaml = format!(
            "listeners: [{{address: \"{GATEWAY}\", plain: routes}}]\nadmin: {{address: \"{ADMIN}\"}}\nworkers: 2\n\
             routes: [{{path: /mqtt, pool: brokers}}]\nlimits: {{connections: 4000}}\n\
             pools: {{brokers: {{source_addresses: [{sources}], brokers: [{{url: \"mqtt://{BROKER}\"}}]}}}}\n"
        );
        std::fs::write(&file, yaml).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.arg("run").arg("-c").arg(&file);
        let mut gateway = Process::start(&command);
        gateway
            .wait_until_listening(&[GATEWAY, ADMIN], PATIENCE)
            .await
            .unwrap();

        let mut clients = Vec::new();
        let refused = loop {
            let (client, connack) = connect(clients.len(), &packets::connect("c", 600)).await;
            if connack != packets::connack(0) {
                break connack;
            }
            clients.push(client);
            assert!(clients.len() <= expected, "more than there are ports");
        };
        println!(
            "{sources}: {} sessions to one broker address",
            clients.len()
        );
        assert_eq!(clients.len(), expected, "{}", gateway.last_words());
        assert_eq!(refused, packets::connack(3));
        // MQTT 5: Server busy.
        let (_client, connack) = connect(clients.len() + 1, &packets::connect_v5("c", 600)).await;
        assert_eq!(connack, packets::connack_v5(0x89));

        let metrics = metrics().await;
        let failures = "cause=\"source_ports_exhausted\"} 2";
        assert!(
            metrics
                .lines()
                .any(|line| line.starts_with("tidegate_broker_failures_total")
                    && line.ends_with(failures)),
            "{metrics}"
        );
        let warnings = || {
            let log = gateway.stderr();
            let warnings = log
                .lines()
                .filter(|line| line.contains("WARN") && line.contains("source ports exhausted: "));
            warnings.count()
        };
        // A line is written by a thread of its own.
        eventually(async || warnings() > 0).await;
        let log = gateway.last_words();
        assert_eq!(warnings(), 1, "the second refusal came at once: {log}");
        gateway.kill();
    }
    answering.abort();
}

#[tokio::test]
async fn sessions_are_spread_over_the_source_addresses_of_the_brokers_family() {
    for (target, sources) in [
        ("127.0.0.1:0", ["127.0.0.2", "127.0.0.3"]),
        ("[::1]:0", ["::1", "::1"]),
    ] {
        let broker = TcpListener::bind(target).await.unwrap();
        let gateway = Gateway::start(&format!(
            "routes: [{{path: /mqtt, pool: brokers}}]\n\
             pools: {{brokers: {{source_addresses: [127.0.0.2, \"::1\", 127.0.0.3], \
             brokers: [{{url: \"mqtt://{}\"}}]}}}}\n",
            broker.local_addr().unwrap()
        ))
        .await;
        for source in sources {
            let accepting = async {
                let (stream, peer) = broker.accept().await.unwrap();
                tokio::spawn(welcome(stream));
                peer
            };
            let (_client, peer) = tokio::join!(Client::connected(&gateway, "c"), accepting);
            assert_eq!(peer.ip().to_string(), source);
        }
    }
}

/// The broker is well, and a session is joined as long as one of the addresses is right.
#[tokio::test]
async fn a_source_address_of_another_machine_is_named() {
    let broker = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("mqtt://{}", broker.local_addr().unwrap());
    let start = async |sources: &str| {
        Gateway::start(&format!(
            "routes: [{{path: /mqtt, pool: brokers}}]\n\
             pools: {{brokers: {{source_addresses: [{sources}], brokers: [{{url: \"{url}\"}}]}}}}\n"
        ))
        .await
    };
    let gateway = start("192.0.2.1").await;
    let mut client = Client::open(&gateway).await;
    client.send(&packets::connect("c", 60)).await;
    assert_eq!(client.receive().await, packets::connack(3));
    let labels = ["cause=\"source_address\""];
    gateway
        .metric_becomes("tidegate_broker_failures_total", &labels, 1.0)
        .await;

    let gateway = start("192.0.2.1, 127.0.0.2").await;
    for _ in 0..2 {
        let accepting = async {
            tokio::spawn(welcome(broker.accept().await.unwrap().0));
        };
        let (_client, ()) = tokio::join!(Client::connected(&gateway, "c"), accepting);
    }
}

/// A broker that says yes to CONNECT and keeps the session.
async fn welcome(mut stream: TcpStream) {
    let mut bytes = [0; 256];
    if matches!(stream.read(&mut bytes).await, Ok(read) if read > 0) {
        stream.write_all(&[0x20, 2, 0, 0]).await.unwrap();
    }
    while matches!(stream.read(&mut bytes).await, Ok(read) if read > 0) {}
}

type Plain = WebSocketStream<TcpStream>;

/// One session over plain ws, from an address and port of its own, and the answer to its CONNECT.
async fn connect(number: usize, packet: &[u8]) -> (Plain, Vec<u8>) {
    let number = u16::try_from(number).unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    // A killed gateway leaves the ports of its clients in TIME_WAIT.
    socket.set_reuseaddr(true).unwrap();
    let source = Ipv4Addr::new(127, 0, 1, 1);
    socket
        .bind(SocketAddr::from((source, CLIENT_PORT + number)))
        .unwrap();
    let stream = socket.connect(GATEWAY).await.unwrap();
    let mut request = "ws://localhost/mqtt".into_client_request().unwrap();
    request
        .headers_mut()
        .insert("Sec-WebSocket-Protocol", "mqtt".parse().unwrap());
    let (mut client, _) = tokio_tungstenite::client_async(request, stream)
        .await
        .unwrap();
    client.send(Message::binary(packet.to_vec())).await.unwrap();
    match timeout(PATIENCE, client.next()).await.unwrap() {
        Some(Ok(Message::Binary(connack))) => (client, connack.to_vec()),
        other => panic!("{other:?} instead of CONNACK"),
    }
}

async fn metrics() -> String {
    let mut stream = TcpStream::connect(ADMIN).await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
