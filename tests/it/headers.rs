//! What a ws broker is told in the upgrade request, and whom a broker over TLS must be.

use std::path::Path;
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tungstenite::Message;
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::server::Request;
use tungstenite::http::{HeaderMap, HeaderName};

use crate::support::authority::Authority;
use crate::support::broker::Broker;
use crate::support::client::{Client, tls};
use crate::support::gateway::Gateway;
use crate::support::packets;

fn pool(url: &str, more: &str) -> String {
    format!(
        "routes: [{{path: /mqtt, pool: brokers}}]\n\
         pools:\n  brokers:\n    brokers: [{{url: \"{url}\"}}]\n{more}"
    )
}

/// The request that a broker gets from a client that sends these headers too, and the client's own address.
async fn request(broker: &Broker, gateway: &Gateway, more: &[(&str, &str)]) -> (Request, u16) {
    let url = format!("wss://localhost:{}/mqtt?token=secret", gateway.port());
    let mut request = url.into_client_request().unwrap();
    let offered = "mqttv3.1, mqtt".parse().unwrap();
    let headers = request.headers_mut();
    headers.insert("Sec-WebSocket-Protocol", offered);
    for (name, value) in more {
        let name: HeaderName = name.parse().unwrap();
        headers.insert(name, value.parse().unwrap());
    }
    let stream = tls(gateway).await;
    let port = stream.get_ref().0.local_addr().unwrap().port();
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream)
        .await
        .unwrap();
    let connect = packets::connect("c1", 60);
    let joining = async {
        socket.send(Message::binary(connect.clone())).await.unwrap();
        socket.next().await.unwrap().unwrap()
    };
    let (connack, session) = tokio::join!(joining, broker.ws_welcome());
    assert_eq!(connack.into_data(), packets::connack(0));
    assert_eq!(session.connect, connect);
    (session.request, port)
}

fn all<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    let values = headers.get_all(name).iter();
    values.map(|value| value.to_str().unwrap()).collect()
}

fn length(request: &Request) -> usize {
    let headers = request.headers().iter();
    let headers: usize = headers
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    "GET  HTTP/1.1\r\n\r\n".len() + request.uri().to_string().len() + headers
}

#[tokio::test]
async fn a_broker_gets_few_headers_whatever_the_client_sends() {
    let broker = Broker::start().await;
    let gateway = Gateway::start(&pool(&broker.ws_url(), "")).await;
    let cookie = "c".repeat(6 << 10);
    let (request, _) = request(
        &broker,
        &gateway,
        &[
            ("Cookie", &cookie),
            ("Authorization", "Basic c2VjcmV0"),
            ("Origin", "https://example.com"),
            ("User-Agent", "test"),
            ("X-Custom", "value"),
            ("Sec-WebSocket-Extensions", "permessage-deflate"),
        ],
    )
    .await;
    let mut names: Vec<&str> = request.headers().keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "connection",
            "host",
            "sec-websocket-key",
            "sec-websocket-protocol",
            "sec-websocket-version",
            "upgrade",
            "x-forwarded-for",
            "x-forwarded-port",
            "x-forwarded-proto",
            "x-real-ip",
        ]
    );
    assert_eq!(all(request.headers(), "sec-websocket-protocol"), ["mqtt"]);
    assert_eq!(all(request.headers(), "sec-websocket-version"), ["13"]);
    assert!(length(&request) < 1024, "{} bytes", length(&request));
}

#[tokio::test]
async fn the_clients_address_replaces_what_the_client_says_of_itself() {
    let broker = Broker::start().await;
    let gateway = Gateway::start(&pool(&broker.ws_url(), "")).await;
    let lies = [
        ("X-Forwarded-For", "10.9.8.7"),
        ("X-Forwarded-Proto", "gopher"),
        ("X-Forwarded-Port", "70"),
        ("X-Real-IP", "10.9.8.7"),
        ("X_Forwarded_For", "10.9.8.7"),
        ("X_Real_IP", "10.9.8.7"),
        ("Forwarded", "for=10.9.8.7"),
    ];
    let (request, _) = request(&broker, &gateway, &lies).await;
    let headers = request.headers();
    assert_eq!(all(headers, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(all(headers, "x-real-ip"), ["127.0.0.1"]);
    assert_eq!(all(headers, "x-forwarded-proto"), ["https"]);
    let port = gateway.port().to_string();
    assert_eq!(all(headers, "x-forwarded-port"), [port]);
    let said = format!("{headers:?}");
    assert!(!said.contains("10.9.8.7"), "{said}");
}

#[tokio::test]
async fn the_forwarded_port_may_be_the_clients_own() {
    let broker = Broker::start().await;
    let more = "    forwarded: {port: client}\n";
    let gateway = Gateway::start(&pool(&broker.ws_url(), more)).await;
    let (request, port) = request(&broker, &gateway, &[]).await;
    let port = port.to_string();
    assert_eq!(all(request.headers(), "x-forwarded-port"), [port]);
}

#[tokio::test]
async fn nothing_is_said_of_the_client_where_forwarded_is_off() {
    let broker = Broker::start().await;
    let more = "    forwarded: {enabled: false}\n";
    let gateway = Gateway::start(&pool(&broker.ws_url(), more)).await;
    let lies = [("X-Forwarded-For", "10.9.8.7"), ("X-Real-IP", "10.9.8.7")];
    let (request, _) = request(&broker, &gateway, &lies).await;
    let said = format!("{:?}", request.headers());
    assert!(!said.contains("x-forwarded") && !said.contains("x-real-ip"));
}

#[tokio::test]
async fn the_host_header_is_the_brokers_the_clients_or_a_fixed_one() {
    let broker = Broker::start().await;
    for (more, host) in [
        ("", broker.address().to_string()),
        ("    host: client\n", "shop.example.com".to_owned()),
        ("    host: emqx.internal\n", "emqx.internal".to_owned()),
    ] {
        let gateway = Gateway::start(&pool(&broker.ws_url(), more)).await;
        let own = [("Host", "shop.example.com")];
        let (request, _) = request(&broker, &gateway, &own).await;
        assert_eq!(all(request.headers(), "host"), [host], "{more}");
    }
}

#[tokio::test]
async fn a_clients_host_that_is_no_name_is_not_passed_on() {
    let broker = Broker::start().await;
    let gateway = Gateway::start(&pool(&broker.ws_url(), "    host: client\n")).await;
    let long = "h".repeat(6 << 10);
    let (request, _) = request(&broker, &gateway, &[("Host", &long)]).await;
    assert!(length(&request) < 1024, "{} bytes", length(&request));
    let own = broker.address().to_string();
    assert_eq!(all(request.headers(), "host"), [own]);
}

#[tokio::test]
async fn path_and_query_are_those_of_the_brokers_url() {
    let broker = Broker::start().await;
    for (path, asked) in [
        ("/mqtt", "/mqtt"),
        ("/ws/v1?tenant=a&b=%20", "/ws/v1?tenant=a&b=%20"),
        ("", "/mqtt"),
        ("/", "/"),
    ] {
        let url = format!("ws://{}{path}", broker.address());
        let gateway = Gateway::start(&pool(&url, "")).await;
        let (request, _) = request(&broker, &gateway, &[]).await;
        assert_eq!(request.uri().to_string(), asked, "{url}");
    }
}

#[tokio::test]
async fn the_subprotocol_is_the_pools() {
    let broker = Broker::start().await;
    let more = "    subprotocol: mqttv3.1\n";
    let gateway = Gateway::start(&pool(&broker.ws_url(), more)).await;
    let mut client = Client::open(&gateway).await;
    client.send(&packets::connect("c1", 60)).await;
    let mut stream = broker.accept().await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_buf(&mut head).await.unwrap();
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let offers: Vec<&str> = head
        .lines()
        .filter_map(|line| line.strip_prefix("sec-websocket-protocol: "))
        .collect();
    assert_eq!(offers, ["mqttv3.1"]);
}

/// What a TLS listener needs, and a broker behind it.
struct TlsBroker {
    broker: Broker,
    acceptor: TlsAcceptor,
    authority: Authority,
    _folder: TempDir,
}

impl TlsBroker {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::make(folder.path());
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&authority.chain)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let key = PrivateKeyDer::from_pem_file(&authority.key).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Self {
            broker: Broker::start().await,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            authority,
            _folder: folder,
        }
    }

    fn url(&self, scheme: &str, path: &str) -> String {
        format!("{scheme}://{}{path}", self.broker.address())
    }

    /// Joins one session; answers the server name that the gateway asked for.
    async fn joins_over_wss(&self, gateway: &Gateway) -> Option<String> {
        let serving = async {
            let stream = self.acceptor.accept(self.broker.accept().await);
            let stream = stream.await.unwrap();
            let name = stream.get_ref().1.server_name().map(str::to_owned);
            let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
            let connect = socket.next().await.unwrap().unwrap();
            assert_eq!(connect.into_data(), packets::connect("c1", 60));
            let connack = Message::binary(packets::connack(0));
            socket.send(connack).await.unwrap();
            name
        };
        tokio::join!(serving, Client::connected(gateway, "c1")).0
    }

    /// The handshake fails, and the client is told that there is no broker.
    async fn is_refused(&self, gateway: &Gateway) {
        let serving = async {
            let stream = self.acceptor.accept(self.broker.accept().await);
            assert!(stream.await.is_err(), "the gateway trusts it");
        };
        let mut client = Client::open(gateway).await;
        client.send(&packets::connect("c1", 60)).await;
        let (closed, ()) = tokio::join!(client.closed(), serving);
        assert_eq!(closed.packets, [packets::connack(0x03)]);
        let failures = "tidegate_broker_failures_total";
        assert_eq!(gateway.metric(failures, &["cause=\"tls\""]).await, 1.0);
    }
}

fn trust(ca: &Path, more: &str) -> String {
    format!("    tls: {{ca: {ca:?}{more}}}\n")
}

#[tokio::test]
async fn a_wss_broker_is_trusted_by_its_ca() {
    let server = TlsBroker::start().await;
    let more = trust(&server.authority.ca, "");
    let gateway = Gateway::start(&pool(&server.url("wss", "/mqtt"), &more)).await;
    assert_eq!(
        server.joins_over_wss(&gateway).await,
        None,
        "an address is no name"
    );
}

#[tokio::test]
async fn the_server_name_of_the_pool_is_asked_for_and_checked() {
    let server = TlsBroker::start().await;
    let url = server.url("wss", "/mqtt");
    let more = trust(&server.authority.ca, ", server_name: localhost");
    let gateway = Gateway::start(&pool(&url, &more)).await;
    let asked = server.joins_over_wss(&gateway).await;
    assert_eq!(asked.as_deref(), Some("localhost"));

    let more = trust(&server.authority.ca, ", server_name: other.example.com");
    let gateway = Gateway::start(&pool(&url, &more)).await;
    server.is_refused(&gateway).await;
}

#[tokio::test]
async fn a_wrong_ca_is_refused() {
    let server = TlsBroker::start().await;
    let folder = tempfile::tempdir().unwrap();
    let other = Authority::make(folder.path()).ca;
    for scheme in ["wss", "mqtts"] {
        let url = server.url(scheme, if scheme == "wss" { "/mqtt" } else { "" });
        let gateway = Gateway::start(&pool(&url, &trust(&other, ""))).await;
        server.is_refused(&gateway).await;
    }
}

#[tokio::test]
async fn verify_false_trusts_anyone() {
    let server = TlsBroker::start().await;
    let more = "    tls: {verify: false}\n";
    let gateway = Gateway::start(&pool(&server.url("wss", "/mqtt"), more)).await;
    server.joins_over_wss(&gateway).await;
}

#[tokio::test]
async fn an_mqtts_broker_gets_mqtt_inside_tls() {
    let server = TlsBroker::start().await;
    let more = trust(&server.authority.ca, "");
    let gateway = Gateway::start(&pool(&server.url("mqtts", ""), &more)).await;
    let publish = packets::publish("t", b"up");
    let serving = async {
        let stream = server.broker.accept().await;
        let mut stream = server.acceptor.accept(stream).await.unwrap();
        let mut connect = vec![0; packets::connect("c1", 60).len()];
        stream.read_exact(&mut connect).await.unwrap();
        assert_eq!(connect, packets::connect("c1", 60));
        stream.write_all(&packets::connack(0)).await.unwrap();
        let mut packet = vec![0; publish.len()];
        stream.read_exact(&mut packet).await.unwrap();
        assert_eq!(packet, publish);
        stream.write_all(&packet).await.unwrap();
    };
    let talking = async {
        let mut client = Client::connected(&gateway, "c1").await;
        client.send(&publish).await;
        assert_eq!(client.receive().await, publish);
    };
    tokio::join!(serving, talking);
}
