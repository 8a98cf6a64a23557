//! PROXY headers of load balancers: believed from those who are trusted, named as a mistake from everyone else.

use std::io::{Read, Write};
use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tungstenite::Message;

use crate::support::PATIENCE;
use crate::support::broker::Broker;
use crate::support::emqx::{Emqx, Speaks};
use crate::support::gateway::{Gateway, pool_of};
use crate::support::journal::Journal;
use crate::support::packets;

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const TCP4: &[u8] = b"\xc0\x00\x02\x01\xcb\x00\x71\x07\x30\x39\x01\xbb"; // 192.0.2.1:12345 → 203.0.113.7:443

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut header = V2.to_vec();
    header.extend_from_slice(&[command, family]);
    header.extend_from_slice(&u16::try_from(rest.len()).unwrap().to_be_bytes());
    header.extend_from_slice(rest);
    header
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[kind][..], &length, value].concat()
}

fn tcp6() -> Vec<u8> {
    let client: std::net::Ipv6Addr = "2001:db8::1".parse().unwrap();
    let local: std::net::Ipv6Addr = "2001:db8::2".parse().unwrap();
    [&client.octets()[..], &local.octets(), b"\x30\x39\x01\xbb"].concat()
}

/// The header that HAProxy's documentation of the checksum asks for, of one that has a zero in its place.
fn with_checksum(mut header: Vec<u8>, at: usize) -> Vec<u8> {
    let mut sum = u32::MAX;
    for byte in &header {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = sum >> 1 ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    header[at..at + 4].copy_from_slice(&(!sum).to_be_bytes());
    header
}

/// A plain and a TLS listener that trust `network`.
async fn gateway(network: &str, broker: &Broker, more: &str) -> Gateway {
    let trusted = format!("proxy_protocol: {{trusted: [\"{network}\"]}}");
    let listeners = format!(
        "listeners: [{{address: \"127.0.0.1:0\", {trusted}}}, {{address: \"127.0.0.1:0\", plain: routes, {trusted}}}, \
         {{address: \"127.0.0.1:0\", plain: routes, name: bare}}, {{address: \"127.0.0.1:0\", name: bare-tls}}]\n"
    );
    Gateway::start(&format!("{listeners}{}{more}", pool_of(&[broker.ws_url()]))).await
}

const TLS: usize = 0;
const PLAIN: usize = 1;
const BARE: usize = 2;
const BARE_TLS: usize = 3;

async fn dial(address: SocketAddr) -> TcpStream {
    let tcp = TcpStream::connect(address).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    tcp
}

/// Upgrades and connects behind the header; gives the head that the broker saw.
async fn head_at_broker(
    gateway: &Gateway,
    broker: &Broker,
    header: &[u8],
) -> tungstenite::handshake::server::Request {
    let mut tcp = dial(gateway.address(PLAIN)).await;
    tcp.write_all(header).await.unwrap();
    let (mut socket, _) = Box::pin(tokio_tungstenite::client_async("ws://localhost/mqtt", tcp))
        .await
        .unwrap();
    socket
        .send(Message::binary(packets::connect("c", 60)))
        .await
        .unwrap();
    let session = broker.ws_welcome().await;
    assert!(matches!(socket.next().await, Some(Ok(Message::Binary(_)))));
    session.request
}

fn address_of(request: &tungstenite::handshake::server::Request) -> &str {
    request.headers()["x-forwarded-for"].to_str().unwrap()
}

#[tokio::test]
async fn every_header_of_a_trusted_proxy_names_its_client() {
    let broker = Broker::start().await;
    let gateway = gateway("127.0.0.0/8", &broker, "").await;
    let mapped: std::net::Ipv6Addr = "::ffff:192.0.2.1".parse().unwrap();
    let mapped = [&mapped.octets()[..], &mapped.octets(), b"\x30\x39\x01\xbb"].concat();
    let checked = [TCP4, &tlv(5, b"unique"), &tlv(3, &[0; 4]), &tlv(4, &[0; 9])].concat();
    let at = 16 + 12 + 3 + 6 + 3;
    for (header, client) in [
        (
            b"PROXY TCP4 192.0.2.1 203.0.113.7 12345 443\r\n".to_vec(),
            "192.0.2.1",
        ),
        (
            b"PROXY TCP6 2001:db8::1 2001:db8::2 12345 443\r\n".to_vec(),
            "2001:db8::1",
        ),
        (
            b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:203.0.113.7 12345 443\r\n".to_vec(),
            "192.0.2.1",
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (
            b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n".to_vec(),
            "127.0.0.1",
        ),
        (v2(0x21, 0x11, TCP4), "192.0.2.1"),
        (v2(0x21, 0x21, &tcp6()), "2001:db8::1"),
        (v2(0x21, 0x21, &mapped), "192.0.2.1"),
        (v2(0x21, 0x00, &[]), "127.0.0.1"),
        (v2(0x21, 0x31, &[b'u'; 216]), "127.0.0.1"),
        (with_checksum(v2(0x21, 0x11, &checked), at), "192.0.2.1"),
        // LOCAL: the proxy speaks for itself, and what else it says is to be ignored.
        (v2(0x20, 0x00, &[]), "127.0.0.1"),
        (v2(0x20, 0x11, TCP4), "127.0.0.1"),
        (v2(0x20, 0x7f, b"anything"), "127.0.0.1"),
    ] {
        let seen = head_at_broker(&gateway, &broker, &header).await;
        assert_eq!(address_of(&seen), client, "{header:?}");
    }
}

#[tokio::test]
async fn a_header_may_come_byte_by_byte() {
    let broker = Broker::start().await;
    let gateway = gateway("127.0.0.1", &broker, "").await;
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for header in [
        b"PROXY TCP4 192.0.2.1 203.0.113.7 12345 443\r\n".to_vec(),
        v2(0x21, 0x11, &[TCP4, &tlv(2, b"a.example")].concat()),
    ] {
        let mut tcp = dial(gateway.address(PLAIN)).await;
        for byte in header.iter().chain(request) {
            tcp.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    }
}

#[tokio::test]
async fn a_header_and_the_client_hello_may_come_in_one_segment() {
    let broker = Broker::start().await;
    let gateway = gateway("127.0.0.1", &broker, "").await;
    for header in [
        b"PROXY TCP6 2001:db8::1 2001:db8::2 12345 443\r\n".to_vec(),
        v2(0x21, 0x21, &tcp6()),
    ] {
        let address = gateway.address(TLS);
        let client = crate::support::client::trusting(&gateway);
        let talking = tokio::task::spawn_blocking(move || {
            let name = "localhost".try_into().unwrap();
            let mut tls = rustls::ClientConnection::new(client, name).unwrap();
            let mut segment = header;
            tls.write_tls(&mut segment).unwrap();
            let mut tcp = std::net::TcpStream::connect(address).unwrap();
            tcp.set_read_timeout(Some(PATIENCE)).unwrap();
            tcp.write_all(&segment).unwrap();
            let mut stream = rustls::Stream::new(&mut tls, &mut tcp);
            let mut said = b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                .to_vec();
            let connect = packets::connect("one", 60);
            said.extend_from_slice(&[
                0x82,
                0x80 | u8::try_from(connect.len()).unwrap(),
                0,
                0,
                0,
                0,
            ]);
            said.extend_from_slice(&connect);
            stream.write_all(&said).unwrap();
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).unwrap();
            (answer, tls, tcp)
        });
        let session = broker.ws_welcome().await;
        assert_eq!(address_of(&session.request), "2001:db8::1");
        assert_eq!(
            &timeout(PATIENCE, talking).await.unwrap().unwrap().0,
            b"HTTP/1.1 101"
        );
    }
}

/// Says it, stops speaking, and waits for the end of the connection. Answers who it was.
async fn refused(address: SocketAddr, bytes: &[u8]) -> SocketAddr {
    let mut tcp = dial(address).await;
    let client = tcp.local_addr().unwrap();
    tcp.write_all(bytes).await.unwrap();
    tcp.shutdown().await.unwrap();
    let mut answer = Vec::new();
    // A reset ends it as well as a FIN does.
    drop(
        timeout(PATIENCE, tcp.read_to_end(&mut answer))
            .await
            .expect("the gateway kept the connection"),
    );
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    client
}

#[tokio::test]
async fn what_is_wrong_with_a_header_is_named() {
    let broker = Broker::start().await;
    let full = v2(0x21, 0x11, TCP4);
    let long_line = [
        b"PROXY UNKNOWN ".to_vec(),
        vec![b'x'; 120],
        b"\r\n".to_vec(),
    ]
    .concat();
    let wrong_sum = v2(0x21, 0x11, &[TCP4, &tlv(3, b"\0\0\0\x01")].concat());
    let short_sum = v2(0x21, 0x11, &[TCP4, &tlv(3, b"\0\0\0")].concat());
    let cut_tlv = v2(0x21, 0x11, &[TCP4, &[5, 0, 9, 1]].concat());
    let cases: &[(&str, &[&[u8]])] = &[
        (
            "truncated",
            &[
                &full[..full.len() - 1],
                &full[..13],
                &full[..3],
                b"PROXY TCP4 192.0.2.1",
                b"PR",
            ],
        ),
        ("too_long", &[&long_line, &v2(0x21, 0x11, &[0; 5000])]),
        ("checksum", &[&wrong_sum]),
        (
            "family",
            &[
                &v2(0x21, 0x12, TCP4),
                &v2(0x21, 0x41, TCP4),
                b"PROXY UDP4 192.0.2.1 203.0.113.7 1 2\r\n",
                b"PROXY UNKNOWNS\r\n",
                b"PROXY \r\n",
            ],
        ),
        (
            "malformed",
            &[
                &v2(0x21, 0x11, &TCP4[..11]),
                &v2(0x11, 0x11, TCP4),
                &v2(0x22, 0x11, TCP4),
                &short_sum,
                &cut_tlv,
                b"PROXY TCP4 192.0.2.1 203.0.113.7 65536 443\r\n",
                b"PROXY TCP4 192.0.2.1 203.0.113.7 +1 443\r\n",
                b"PROXY TCP4 2001:db8::1 2001:db8::2 1 443\r\n",
                b"PROXY TCP4 192.0.2.256 203.0.113.7 1 443\r\n",
                b"PROXY TCP4 192.0.2.1 203.0.113.7 1 443\n",
            ],
        ),
        // A trusted proxy that does not send it.
        (
            "missing",
            &[
                b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                b"POST / HTTP/1.1\r\n\r\n",
                b"\r\n\r\nGET /",
                &[0x16, 3, 1, 0, 5],
            ],
        ),
        // Two load balancers, one behind the other.
        (
            "second",
            &[
                &[&full[..], &full].concat(),
                &[&full[..], b"PROXY UNKNOWN\r\n"].concat(),
            ],
        ),
    ];
    for (why, headers) in cases {
        let gateway = gateway("127.0.0.1", &broker, "").await;
        for header in *headers {
            refused(gateway.address(PLAIN), header).await;
            refused(gateway.address(TLS), header).await;
        }
        let labels = [
            "who=\"client\"",
            "phase=\"proxy_header\"",
            &format!("why=\"{why}\""),
        ];
        let both = 2.0 * headers.len() as f64;
        gateway
            .metric_becomes("tidegate_outcomes_total", &labels, both)
            .await;
    }
}

#[tokio::test]
async fn a_header_from_a_stranger_is_a_named_mistake() {
    let journal = Journal::open();
    let broker = Broker::start().await;
    let gateway = gateway("10.0.0.0/8", &broker, "").await;
    let headers = [
        b"PROXY TCP4 192.0.2.1 203.0.113.7 12345 443\r\n".to_vec(),
        v2(0x21, 0x11, TCP4),
    ];
    for header in &headers {
        for (listener, sentence) in [
            (
                PLAIN,
                "PROXY protocol from an address that is not in listeners[..].proxy_protocol.trusted",
            ),
            (
                TLS,
                "PROXY protocol from an address that is not in listeners[..].proxy_protocol.trusted",
            ),
            (BARE, "PROXY protocol on a listener without proxy_protocol"),
            (
                BARE_TLS,
                "PROXY protocol on a listener without proxy_protocol",
            ),
        ] {
            let client = refused(gateway.address(listener), header).await;
            journal.line(&[sentence, &format!("peer={client}")]).await;
        }
    }
    for why in ["untrusted", "unexpected"] {
        let labels = ["phase=\"proxy_header\"", &format!("why=\"{why}\"")];
        gateway
            .metric_becomes("tidegate_outcomes_total", &labels, 4.0)
            .await;
    }
}

#[tokio::test]
async fn a_strangers_header_is_known_byte_by_byte_too() {
    let broker = Broker::start().await;
    let gateway = gateway("10.0.0.0/8", &broker, "").await;
    for listener in [PLAIN, TLS, BARE, BARE_TLS] {
        let mut tcp = dial(gateway.address(listener)).await;
        for byte in b"PROXY " {
            tcp.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut answer = Vec::new();
        drop(
            timeout(PATIENCE, tcp.read_to_end(&mut answer))
                .await
                .unwrap(),
        );
        assert!(answer.is_empty());
    }
    let labels = ["phase=\"proxy_header\""];
    gateway
        .metric_becomes("tidegate_outcomes_total", &labels, 4.0)
        .await;
}

#[tokio::test]
async fn what_only_looks_like_a_header_is_served() {
    let broker = Broker::start().await;
    let gateway = gateway("10.0.0.0/8", &broker, "").await;
    for method in ["P", "PROPFIND", "PUT", "\r\nGET"] {
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let mut tcp = dial(gateway.address(BARE)).await;
        for byte in request.as_bytes() {
            tcp.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 404"), "{method}: {answer}");
    }
}

#[tokio::test]
async fn a_silent_trusted_proxy_is_let_go_in_time() {
    let broker = Broker::start().await;
    let gateway = gateway("127.0.0.1", &broker, "timeouts: {tls: 100ms}\n").await;
    for begun in [&b""[..], b"PROXY TCP4 ", &V2[..7]] {
        let mut tcp = dial(gateway.address(TLS)).await;
        // It may be closed already.
        drop(tcp.write_all(begun).await);
        let mut answer = Vec::new();
        drop(
            timeout(PATIENCE, tcp.read_to_end(&mut answer))
                .await
                .expect("the gateway kept the connection"),
        );
    }
    let labels = ["phase=\"proxy_header\"", "why=\"timeout\""];
    gateway
        .metric_becomes("tidegate_outcomes_total", &labels, 3.0)
        .await;
}

#[tokio::test]
async fn health_checks_of_a_load_balancer_are_quiet() {
    let journal = Journal::open();
    // Ports come again: other tests' clients may have had the same.
    let before = String::from_utf8(journal.all()).unwrap();
    let broker = Broker::start().await;
    let gateway = gateway("127.0.0.1", &broker, "").await;
    let mut ports = Vec::new();
    for begun in [&b""[..], &v2(0x20, 0x00, &[]), b"PROXY UNKNOWN\r\n"] {
        let mut tcp = dial(gateway.address(TLS)).await;
        ports.push(format!("peer={}", tcp.local_addr().unwrap()));
        tcp.write_all(begun).await.unwrap();
        tcp.shutdown().await.unwrap();
        let mut answer = Vec::new();
        drop(
            timeout(PATIENCE, tcp.read_to_end(&mut answer))
                .await
                .unwrap(),
        );
    }
    gateway
        .metric_becomes("tidegate_outcomes_total", &["why=\"vanished\""], 3.0)
        .await;
    let said = String::from_utf8(journal.all()).unwrap();
    for peer in ports {
        let lines = [&before, &said].map(|text| text.matches(&peer).count());
        assert_eq!(lines[0], lines[1], "{peer}\n{said}");
    }
}

#[tokio::test]
async fn the_log_tells_the_client_and_the_proxy() {
    let journal = Journal::open();
    let broker = Broker::start().await;
    let gateway = gateway("127.0.0.1", &broker, "").await;
    let mut tcp = dial(gateway.address(PLAIN)).await;
    let proxy = tcp.local_addr().unwrap();
    tcp.write_all(&v2(0x21, 0x11, TCP4)).await.unwrap();
    let (mut socket, _) = Box::pin(tokio_tungstenite::client_async("ws://localhost/mqtt", tcp))
        .await
        .unwrap();
    socket
        .send(Message::binary(packets::connect("behind-a-balancer", 60)))
        .await
        .unwrap();
    let _session = broker.ws_welcome().await;
    assert!(matches!(socket.next().await, Some(Ok(Message::Binary(_)))));
    socket
        .send(Message::binary(packets::DISCONNECT.to_vec()))
        .await
        .unwrap();
    let line = journal
        .line(&["behind-a-balancer", "tidegate::session"])
        .await;
    assert!(line.contains("client=192.0.2.1:12345"), "{line}");
    assert!(line.contains(&format!("via={proxy}")), "{line}");
}

#[tokio::test]
async fn what_a_proxy_calls_a_connection_is_its_name_in_the_log_and_at_the_broker() {
    let journal = Journal::open();
    let emqx = Emqx::start(Speaks::Mqtt, true, None).await;
    let gateway = Gateway::start(&format!(
        "listeners: [{{address: \"127.0.0.1:0\", plain: routes, proxy_protocol: {{trusted: [127.0.0.1]}}}}]\n\
         certificates: []\nroutes: [{{path: /mqtt, pool: brokers}}]\n\
         pools: {{brokers: {{proxy_protocol: v2, brokers: [{{url: \"{}\"}}]}}}}\n",
        emqx.url()
    ))
    .await;
    let long = [b'x'; 129];
    for (name, id, shown) in [
        (
            &b"7F000001:E0B2_5F000001:01BB"[..],
            "readable",
            Some("7F000001:E0B2_5F000001:01BB"),
        ),
        (b"\xff\x00 \n", "binary", Some("ff00200a")),
        (&long, "too-long", None),
        (b"", "empty", None),
    ] {
        let header = v2(0x21, 0x11, &[TCP4, &tlv(5, name)].concat());
        let connecting = async {
            let mut tcp = dial(gateway.address(0)).await;
            tcp.write_all(&header).await.unwrap();
            let opening = tokio_tungstenite::client_async("ws://localhost/mqtt", tcp);
            let (mut socket, _) = Box::pin(opening).await.unwrap();
            let connect = Message::binary(packets::connect(id, 60));
            socket.send(connect).await.unwrap();
            assert!(matches!(socket.next().await, Some(Ok(Message::Binary(_)))));
        };
        let (known, ()) = tokio::join!(emqx.serve(), connecting);
        let bytes = known.unwrap().proxy;
        let (header, _) = ProxyHeader::parse(&bytes, ParseConfig::default()).unwrap();
        let told = header.unique_id().unwrap();
        let line = journal.line(&[&format!("id=\"{id}\""), "session="]).await;
        match shown {
            Some(shown) => {
                assert_eq!(told, name);
                assert!(line.contains(&format!("session={shown} ")), "{line}");
            }
            // Another is made.
            None => {
                let own = std::str::from_utf8(told).unwrap();
                assert_eq!(own.len(), 32);
                assert!(line.contains(&format!("session={own} ")), "{line}");
            }
        }
    }
}

#[tokio::test]
async fn a_proxy_that_ended_tls_tells_whom_it_verified() {
    let broker = Broker::start().await;
    let gateway = gateway("127.0.0.1", &broker, "").await;
    let ssl = |verify: u8, name: &[u8]| {
        let inner = [tlv(0x21, b"TLSv1.3"), tlv(0x22, name)].concat();
        let ssl = [&[0x07, 0, 0, 0, verify][..], &inner].concat();
        v2(
            0x21,
            0x11,
            &[TCP4, &tlv(2, b"mqtt.example"), &tlv(0x20, &ssl)].concat(),
        )
    };
    let seen = head_at_broker(&gateway, &broker, &ssl(0, b"device-1")).await;
    assert_eq!(seen.headers()["x-forwarded-proto"], "https");
    let named = Gateway::start(&format!(
        "listeners: [{{address: \"127.0.0.1:0\", proxy_protocol: {{trusted: [127.0.0.1]}}}}, \
         {{address: \"127.0.0.1:0\", plain: routes, proxy_protocol: {{trusted: [127.0.0.1]}}}}]\n\
         routes: [{{path: /mqtt, pool: brokers}}]\n\
         pools: {{brokers: {{user_name: certificate_common_name, brokers: [{{url: \"{}\"}}]}}}}\n",
        broker.ws_url()
    ))
    .await;
    for (header, welcome) in [
        (ssl(0, b"device-1"), true),
        (ssl(1, b"device-1"), false),
        (ssl(0, b"dev\0ice"), false),
    ] {
        let mut tcp = dial(named.address(PLAIN)).await;
        tcp.write_all(&header).await.unwrap();
        let (mut socket, _) = Box::pin(tokio_tungstenite::client_async("ws://localhost/mqtt", tcp))
            .await
            .unwrap();
        socket
            .send(Message::binary(packets::connect("c", 60)))
            .await
            .unwrap();
        if welcome {
            let session = broker.ws_welcome().await;
            assert_eq!(
                session.connect,
                packets::connect_as("c", 60, "device-1", None)
            );
        }
        let answer = timeout(PATIENCE, socket.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        let code = if welcome { 0 } else { 5 };
        assert_eq!(answer, Message::binary(packets::connack(code)));
    }
}
