//! Brokers on Unix sockets: sessions, probes and identity go there as they go over TCP, and what is wrong has a name.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use futures_util::{SinkExt, StreamExt};
use proxy_header::{ParseConfig, ProxyHeader};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tungstenite::Message;
use tungstenite::handshake::server::{Request, Response};

use crate::support::client::{Client, tcp_from, tls_over};
use crate::support::clients::assert_same_results;
use crate::support::gateway::{Gateway, pool_of};
use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::{PATIENCE, packets};

/// Not the gateway's own, which would prove nothing.
const CLIENT: &str = "127.0.0.5";

/// A scripted broker on a socket of its own.
struct Broker {
    listener: UnixListener,
    folder: TempDir,
}

impl Broker {
    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        Self {
            listener: UnixListener::bind(socket_in(&folder)).unwrap(),
            folder,
        }
    }

    fn socket(&self) -> PathBuf {
        socket_in(&self.folder)
    }

    async fn accept(&self) -> UnixStream {
        let accepted = timeout(PATIENCE, self.listener.accept()).await;
        accepted
            .expect("the gateway did not come in time")
            .unwrap()
            .0
    }
}

fn socket_in(folder: &TempDir) -> PathBuf {
    folder.path().join("ws.sock")
}

async fn gateway(url: &str, keys: &str) -> Gateway {
    Gateway::start(&format!(
        "routes: [{{ path: /mqtt, pool: p }}]\npools: {{ p: {{ {keys} brokers: [{{ url: \"{url}\" }}] }} }}\n"
    ))
    .await
}

/// Reads a PROXY header of version 2 and nothing behind it.
async fn proxy_header(stream: &mut UnixStream) -> ProxyHeader<'static> {
    let mut header = vec![0; 16];
    stream.read_exact(&mut header).await.unwrap();
    let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
    header.resize(16 + length, 0);
    stream.read_exact(&mut header[16..]).await.unwrap();
    let (parsed, _) = ProxyHeader::parse(&header, ParseConfig::default()).unwrap();
    parsed.into_owned()
}

#[tokio::test]
async fn a_real_mosquitto_on_a_socket_is_a_broker_like_any_other() {
    let broker = Mosquitto::start(Options::default()).await;
    let gateway = Gateway::start(&pool_of(&[broker.unix_url()])).await;
    assert_same_results("mqttjs.mjs", &gateway, &broker.mqtt_url(), &[]).await;
    let label = format!("broker=\"{}\"", broker.unix_url());
    let joined = gateway
        .metric("tidegate_sessions_joined_total", &[&label])
        .await;
    assert!(joined > 0.0);
}

#[tokio::test]
async fn a_probe_of_a_real_mosquitto_on_a_socket_goes_there_too() {
    let broker = Mosquitto::start(Options::default()).await;
    let probe = "probe: { kind: mqtt, interval: 100ms, timeout: 200ms, rise: 2, fall: 2 },";
    let gateway = gateway(&broker.unix_url(), probe).await;
    broker.says(&["tidegate-probe-"]).await;
    broker.hang();
    let down = ["state=\"down\""];
    gateway
        .metric_becomes("tidegate_broker_state", &down, 1.0)
        .await;
    broker.go_on();
    gateway
        .metric_becomes("tidegate_broker_state", &down, 0.0)
        .await;
}

#[tokio::test]
async fn ws_on_a_socket_has_the_path_behind_the_colon_and_the_client_in_both_announcements() {
    let broker = Broker::start();
    let url = format!("unix+ws://{}:/mqtt?a=b", broker.socket().display());
    let gateway = gateway(&url, "proxy_protocol: v2,").await;
    let serving = async {
        let mut stream = broker.accept().await;
        let header = proxy_header(&mut stream).await;
        let mut seen = None;
        #[expect(clippy::result_large_err, reason = "tungstenite's own type")]
        let callback = |request: &Request, mut response: Response| {
            seen = Some(request.clone());
            let subprotocol = "mqtt".parse().unwrap();
            response
                .headers_mut()
                .insert("Sec-WebSocket-Protocol", subprotocol);
            Ok(response)
        };
        let mut socket = tokio_tungstenite::accept_hdr_async(stream, callback)
            .await
            .unwrap();
        let connect = socket.next().await.unwrap().unwrap();
        assert_eq!(connect.into_data(), packets::connect("c1", 60));
        let connack = Message::binary(packets::connack(0));
        socket.send(connack).await.unwrap();
        (header, seen.unwrap(), socket)
    };
    let connecting = async {
        let tcp = tcp_from(CLIENT.parse().unwrap(), gateway.address(0)).await;
        let address = tcp.local_addr().unwrap();
        let stream = tls_over(&gateway, tcp).await.unwrap();
        let headers = [("Sec-WebSocket-Protocol", "mqtt")];
        let mut client = Client::open_over(stream, "/mqtt", &headers).await;
        client.send(&packets::connect("c1", 60)).await;
        assert_eq!(client.receive().await, packets::connack(0));
        (client, address)
    };
    let ((header, request, _socket), (_client, address)) = tokio::join!(serving, connecting);
    assert_eq!(request.uri(), "/mqtt?a=b");
    assert_eq!(request.headers()["host"], "localhost");
    assert_eq!(request.headers()["x-forwarded-for"], CLIENT);
    let told = header.proxied_address().unwrap();
    assert_eq!(
        (told.source, told.destination),
        (address, gateway.address(0))
    );
}

/// mosquitto 2.1 closes on LOCAL, so a probe names itself; a socket's ends have no addresses.
#[tokio::test]
async fn a_probe_on_a_socket_says_that_it_comes_from_this_machine() {
    let broker = Broker::start();
    let url = format!("unix+mqtt://{}", broker.socket().display());
    let probe = "proxy_protocol: v2, probe: { kind: mqtt, interval: 100ms },";
    let gateway = gateway(&url, probe).await;
    let mut stream = broker.accept().await;
    let header = proxy_header(&mut stream).await;
    let told = header.proxied_address().unwrap();
    assert!(told.source.ip().is_loopback() && told.destination.ip().is_loopback());
    let mut connect = [0; 128];
    let count = stream.read(&mut connect).await.unwrap();
    assert!(count > 0 && connect[0] == 0x10, "{connect:?}");
    stream.write_all(&packets::connack(0)).await.unwrap();
    let ok = ["result=\"ok\""];
    gateway
        .metric_becomes("tidegate_probes_total", &ok, 1.0)
        .await;
}

/// TCP would wait for room in a busy broker's queue by itself; a Unix socket answers EAGAIN at once.
#[tokio::test]
async fn a_broker_that_is_slow_to_accept_fails_nobody() {
    let folder = TempDir::new().unwrap();
    let path = socket_in(&folder);
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&socket2::SockAddr::unix(&path).unwrap())
        .unwrap();
    // One waits in the queue; the next is told to come again.
    socket.listen(0).unwrap();
    socket.set_nonblocking(true).unwrap();
    let listener = UnixListener::from_std(std::os::unix::net::UnixListener::from(socket)).unwrap();
    let filler = [
        UnixStream::connect(&path).await,
        UnixStream::connect(&path).await,
    ];
    assert!(filler[0].is_ok() && filler[1].is_err(), "{filler:?}");
    let gateway = gateway(&format!("unix+mqtt://{}", path.display()), "").await;
    let mut client = Client::open(&gateway).await;
    client.send(&packets::connect("c1", 60)).await;
    // The CONNECT has arrived, and with it the attempt at the full queue has begun.
    gateway
        .metric_becomes("tidegate_connects_total", &[], 1.0)
        .await;
    drop(listener.accept().await.unwrap());
    let (mut stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    let mut connect = [0; 64];
    assert!(stream.read(&mut connect).await.unwrap() > 0);
    stream.write_all(&packets::connack(0)).await.unwrap();
    assert_eq!(client.receive().await, packets::connack(0));
    let failures = gateway.metric("tidegate_broker_failures_total", &[]).await;
    assert_eq!(failures, 0.0);
}

#[tokio::test]
async fn what_is_wrong_with_a_socket_is_named() {
    let folder = TempDir::new().unwrap();
    let dead = folder.path().join("dead.sock");
    drop(UnixListener::bind(&dead).unwrap());
    let absent = folder.path().join("absent.sock");
    for (socket, cause, part) in [
        (
            &*dead,
            "socket",
            "a server that died leaves its socket behind",
        ),
        (&*absent, "socket", "is it running"),
    ] {
        fails(socket, cause, part).await;
    }
    // Root may write anywhere.
    if !nix::unistd::geteuid().is_root() {
        let closed = Broker::start();
        let none = std::fs::Permissions::from_mode(0o000);
        std::fs::set_permissions(closed.socket(), none).unwrap();
        fails(&closed.socket(), "socket", "the gateway's user").await;
    }
}

async fn fails(socket: &Path, cause: &str, part: &str) {
    let journal = crate::support::journal::Journal::open();
    let gateway = gateway(&format!("unix+mqtt://{}", socket.display()), "").await;
    let mut client = Client::open(&gateway).await;
    client.send(&packets::connect("c1", 60)).await;
    assert_eq!(client.receive().await, packets::connack(3));
    let name = socket.file_name().unwrap().to_str().unwrap();
    journal
        .line(&["no broker took the session", name, part])
        .await;
    let label = format!("cause=\"{cause}\"");
    let failures = gateway
        .metric("tidegate_broker_failures_total", &[&label])
        .await;
    assert_eq!(failures, 1.0);
}
