//! What HTTP answers: the upgrade and every way to get it wrong, hosts and paths, redirects, the site beside them.

use std::fs;

use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::broker::Broker;
use crate::support::client::{Client, tls};
use crate::support::gateway::{Gateway, site};
use crate::support::packets;
use crate::support::raw_http::{ACCEPT, Answer, MORE_THAN_BUFFERS_HOLD, Request, converse, rest};

/// A pool on `/mqtt` and a site on `/`, over TLS (the first listener), plainly and behind a redirect.
struct Served {
    gateway: Gateway,
    broker: Broker,
    _site: TempDir,
}

const PLAIN: usize = 1;
const REDIRECT: usize = 2;

impl Served {
    async fn start() -> Self {
        let broker = Broker::start().await;
        let (folder, root) = site();
        fs::write(root.join("404.html"), "<h1>lost</h1>").unwrap();
        let yaml = format!(
            "
listeners:
  - {{ address: \"127.0.0.1:0\" }}
  - {{ address: \"127.0.0.1:0\", name: plain, plain: routes }}
  - {{ address: \"127.0.0.1:0\", name: redirect, plain: redirect }}
routes:
  - {{ path: /mqtt, pool: brokers }}
  - {{ path: /old, redirect: {{ to: \"https://{{host}}/new{{path}}{{query}}\", status: 301 }} }}
  - {{ path: /, site: {{ root: {root:?}, not_found: 404.html }} }}
pools: {{ brokers: {{ brokers: [{{ url: \"{}\" }}] }} }}
",
            broker.mqtt_url()
        );
        Self {
            gateway: Gateway::start(&yaml).await,
            broker,
            _site: folder,
        }
    }

    async fn connect(&self, listener: usize) -> TcpStream {
        TcpStream::connect(self.gateway.address(listener))
            .await
            .unwrap()
    }

    async fn ask(&self, request: &Request) -> Answer {
        request.ask(&mut self.connect(PLAIN).await).await
    }

    async fn requests(&self, code: u16) -> f64 {
        let label = format!("code=\"{code}\"");
        self.gateway
            .metric("tidegate_http_requests_total", &[&label])
            .await
    }
}

/// Refused in a sentence: text, not cached, ended by a full stop or a question mark.
fn assert_sentence(answer: &Answer, status: u16, part: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.body.contains(part), "{answer:?}");
    let is_sentence = answer.body.ends_with(".\n") || answer.body.ends_with("?\n");
    assert!(is_sentence, "{answer:?}");
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn www_leads_to_the_bare_name_and_keeps_path_and_query() {
    let (_folder, root) = site();
    let yaml = format!(
        "
listeners: [{{ address: \"127.0.0.1:0\", plain: routes }}]
routes:
  - {{ host: www.example.com, redirect: {{ to: \"https://example.com{{path}}{{query}}\" }} }}
  - {{ path: /, site: {{ root: {root:?} }} }}
"
    );
    let gateway = Gateway::start(&yaml).await;
    let ask = async |host: &str, path: &str| {
        let mut stream = TcpStream::connect(gateway.address(0)).await.unwrap();
        let request = Request::get(path).instead("Host", host);
        request.ask(&mut stream).await
    };
    let answer = ask("www.example.com:80", "/a%20b?c=d").await;
    assert_eq!(answer.status, 308);
    assert_eq!(
        answer.header("location"),
        Some("https://example.com/a%20b?c=d")
    );
    assert_eq!(ask("example.com", "/").await.status, 200);
}

#[tokio::test]
async fn a_right_upgrade_is_answered_as_rfc_6455_says() {
    let served = Served::start().await;
    let answer = served.ask(&Request::upgrade("/mqtt")).await;
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    assert_eq!(answer.header("connection"), Some("Upgrade"));
    assert_eq!(answer.header("sec-websocket-accept"), Some(ACCEPT));
    assert_eq!(answer.header("sec-websocket-extensions"), None);
    assert_eq!(served.requests(101).await, 1.0);
}

#[tokio::test]
async fn a_get_without_upgrade_is_told_to_upgrade() {
    let served = Served::start().await;
    let sentence = "speaks MQTT over WebSocket: connect an MQTT client to it with wss://";
    for request in [
        Request::get("/mqtt"),
        Request::get("/mqtt/").with("Connection", "keep-alive"),
        Request::get("/mqtt?client=1"),
        // What nginx sends when `proxy_set_header Connection` is forgotten.
        Request::upgrade("/mqtt").instead("Connection", "close"),
        Request::upgrade("/mqtt").instead("Upgrade", "h2c"),
    ] {
        let answer = served.ask(&request).await;
        assert_sentence(&answer, 426, sentence);
        assert_eq!(answer.header("upgrade"), Some("websocket"));
    }
    assert_eq!(served.requests(426).await, 5.0);
}

#[tokio::test]
async fn a_head_of_the_pools_path_is_told_the_same_without_a_body() {
    let served = Served::start().await;
    let mut stream = served.connect(PLAIN).await;
    let answer = Request::new("HEAD", "/mqtt").ask(&mut stream).await;
    assert_eq!(answer.status, 426);
    // Whatever follows is the next answer.
    assert_eq!(Request::get("/").ask(&mut stream).await.status, 200);
}

#[tokio::test]
async fn an_upgrade_where_no_pool_is_asks_whether_the_pools_path_was_meant() {
    let served = Served::start().await;
    for path in ["/", "/ws", "/mqttx", "/mqt", "/MQTT", "/old"] {
        let answer = served.ask(&Request::upgrade(path)).await;
        assert_sentence(&answer, 404, "did you mean /mqtt?");
    }
    for path in ["/mqtt", "/mqtt/", "/mqtt/x", "/mqtt?x=1"] {
        let answer = served.ask(&Request::upgrade(path)).await;
        assert_eq!(answer.status, 101, "{path}");
    }
}

#[tokio::test]
async fn another_websocket_version_is_told_the_right_one() {
    let served = Served::start().await;
    let version = "Sec-WebSocket-Version";
    let right = Request::upgrade("/mqtt");
    for request in [
        right.clone().instead(version, "8"),
        right.clone().instead(version, "14"),
        right.clone().without(version),
    ] {
        let answer = served.ask(&request).await;
        assert_sentence(&answer, 426, "WebSocket version 13");
        assert_eq!(answer.header(version), Some("13"));
    }
}

#[tokio::test]
async fn a_key_that_is_none_is_refused() {
    let served = Served::start().await;
    let key = "Sec-WebSocket-Key";
    let right = Request::upgrade("/mqtt");
    for request in [
        right.clone().without(key),
        right.clone().instead(key, ""),
        right.clone().instead(key, "c2hvcnQ="),
        right.clone().instead(key, "????????????????????????"),
        right
            .clone()
            .instead(key, "dGhlIHNhbXBsZSBub25jZSB0b28gbG9uZw=="),
        right.clone().with(key, "AAAAAAAAAAAAAAAAAAAAAA=="),
    ] {
        let answer = served.ask(&request).await;
        assert_sentence(&answer, 400, "Sec-WebSocket-Key is missing, given twice");
    }
}

#[tokio::test]
async fn an_upgrade_by_another_method_is_refused_with_the_right_one() {
    let served = Served::start().await;
    for method in ["POST", "PUT", "HEAD", "DELETE"] {
        let mut stream = served.connect(PLAIN).await;
        let request = Request::upgrade("/mqtt").method(method);
        let answer = request.ask(&mut stream).await;
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.header("allow"), Some("GET"), "{method}");
    }
}

#[tokio::test]
async fn an_upgrade_by_http_1_0_is_refused_with_the_usual_cause() {
    let served = Served::start().await;
    let answer = served.ask(&Request::upgrade("/mqtt").http_1_0()).await;
    assert_sentence(&answer, 400, "proxy_http_version 1.1");
}

#[tokio::test]
async fn the_first_known_subprotocol_is_echoed_and_none_where_none_was_offered() {
    let served = Served::start().await;
    let name = "Sec-WebSocket-Protocol";
    for (offered, answered) in [
        (None, None),
        (Some("mqtt"), Some("mqtt")),
        (Some("mqttv3.1"), Some("mqttv3.1")),
        (Some("mqtt-v5"), Some("mqtt-v5")),
        (Some("mqttv3.1, mqtt"), Some("mqttv3.1")),
        (Some("chat,mqtt"), Some("mqtt")),
    ] {
        let mut request = Request::upgrade("/mqtt");
        if let Some(offered) = offered {
            request = request.with(name, offered);
        }
        let answer = served.ask(&request).await;
        assert_eq!(answer.status, 101, "{offered:?}");
        assert_eq!(answer.header(name), answered, "{offered:?}");
    }
    let in_two = Request::upgrade("/mqtt")
        .with(name, "chat")
        .with(name, "mqtt");
    assert_eq!(served.ask(&in_two).await.header(name), Some("mqtt"));
}

#[tokio::test]
async fn unknown_subprotocols_only_are_refused() {
    let served = Served::start().await;
    let request = Request::upgrade("/mqtt").with("Sec-WebSocket-Protocol", "chat, graphql-ws");
    let answer = served.ask(&request).await;
    assert_sentence(&answer, 400, "offer \"mqtt\", or none");
}

#[tokio::test]
async fn a_request_without_one_right_host_is_refused() {
    let served = Served::start().await;
    let right = Request::get("/");
    for request in [
        right.clone().without("Host"),
        right.clone().instead("Host", ""),
        right.clone().instead("Host", "a b"),
        right.clone().instead("Host", "evil\"<x>"),
        right.clone().instead("Host", "user@localhost"),
        right.clone().instead("Host", "localhost/path"),
        // RFC 9112 3.2: two of them are how one request is made to look like two.
        right.clone().with("Host", "other.example"),
        Request::upgrade("/mqtt").without("Host"),
    ] {
        let answer = served.ask(&request).await;
        assert_sentence(&answer, 400, "no valid Host header");
    }
}

#[tokio::test]
async fn a_request_head_over_the_limit_is_refused_and_closed() {
    let served = Served::start().await;
    let request = Request::get("/").with("Cookie", &"c".repeat(64 * 1024));
    let mut stream = served.connect(PLAIN).await;
    assert_eq!(request.ask(&mut stream).await.status, 431);
    assert_eq!(rest(&mut stream).await, b"");
    drop(stream);
    let mut stream = tls(&served.gateway).await;
    assert_eq!(request.ask(&mut stream).await.status, 431);
    drop(stream);
    let labels = ["who=\"client\"", "phase=\"http\"", "why=\"http\""];
    let outcomes = "tidegate_outcomes_total";
    served.gateway.metric_becomes(outcomes, &labels, 2.0).await;
}

/// Closing with bytes unread resets the connection, and a client that is still writing may lose the answer.
#[tokio::test]
async fn a_refused_request_is_read_to_its_end_so_that_the_answer_arrives() {
    let served = Served::start().await;
    let long = "x".repeat(MORE_THAN_BUFFERS_HOLD);
    let head = Request::get("/").with("Cookie", &long);
    let body = Request::new("POST", "/").with("Content-Length", &long.len().to_string());
    for (text, status) in [
        (head.text(), "431"),
        (body.text() + &long, "405"),
        ("not HTTP\r\n".repeat(MORE_THAN_BUFFERS_HOLD / 10), "400"),
    ] {
        let answer = converse(served.connect(PLAIN).await, &text).await.unwrap();
        let line = format!("HTTP/1.1 {status}");
        assert!(answer.starts_with(&line), "{answer}");
    }
}

#[tokio::test]
async fn a_request_that_is_not_http_is_refused_and_closed() {
    let served = Served::start().await;
    let mut stream = tls(&served.gateway).await;
    stream.write_all(b"GET / HTTP/9.9\r\n\r\n").await.unwrap();
    assert_eq!(Answer::read(&mut stream, true).await.status, 400);
    assert_eq!(rest(&mut stream).await, b"");
    drop(stream);
    served.gateway.outcome("client", "http", "http").await;
}

#[tokio::test]
async fn the_redirecting_listener_keeps_host_path_and_query() {
    let served = Served::start().await;
    let port = served.gateway.port();
    for (host, path, to) in [
        ("localhost", "/", format!("https://localhost:{port}/")),
        (
            "localhost:80",
            "/mqtt",
            format!("https://localhost:{port}/mqtt"),
        ),
        (
            "example.com:8080",
            "/a%20b/c?d=e&f=%3F",
            format!("https://example.com:{port}/a%20b/c?d=e&f=%3F"),
        ),
        ("[::1]:80", "/x", format!("https://[::1]:{port}/x")),
    ] {
        let mut stream = served.connect(REDIRECT).await;
        let request = Request::get(path).instead("Host", host);
        let answer = request.ask(&mut stream).await;
        assert_eq!(answer.status, 308);
        assert_eq!(answer.header("location"), Some(to.as_str()));
    }
}

#[tokio::test]
async fn the_redirecting_listener_serves_nothing_else() {
    let served = Served::start().await;
    let mut stream = served.connect(REDIRECT).await;
    let answer = Request::upgrade("/mqtt").ask(&mut stream).await;
    assert_eq!(answer.status, 308);
    let mut stream = served.connect(REDIRECT).await;
    let forged = Request::get("/").instead("Host", "evil.example/x?");
    assert_eq!(forged.ask(&mut stream).await.status, 400);
}

#[tokio::test]
async fn a_redirecting_route_fills_in_host_path_and_query() {
    let served = Served::start().await;
    let request = Request::get("/old/page?a=b").instead("Host", "example.com:1234");
    let answer = served.ask(&request).await;
    assert_eq!(answer.status, 301);
    let to = "https://example.com:1234/new/old/page?a=b";
    assert_eq!(answer.header("location"), Some(to));
}

#[tokio::test]
async fn the_site_is_served_beside_the_pool_over_tls() {
    let served = Served::start().await;
    let mut stream = tls(&served.gateway).await;
    let answer = Request::get("/").ask(&mut stream).await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, "<h1>the site</h1>")
    );
    // The same connection goes on.
    let answer = Request::get("/nowhere").ask(&mut stream).await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (404, "<h1>lost</h1>")
    );
    let answer = Request::new("HEAD", "/index.html").ask(&mut stream).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-length"), Some("17"));
    assert_eq!(Request::upgrade("/mqtt").ask(&mut stream).await.status, 101);
    assert_eq!(served.requests(200).await, 2.0);
    assert_eq!(served.requests(404).await, 1.0);
}

#[tokio::test]
async fn bytes_behind_the_upgrade_request_are_not_lost() {
    let served = Served::start().await;
    for encrypted in [false, true] {
        let connect = packets::connect("early", 60);
        let mut bytes = Request::upgrade("/mqtt").text().into_bytes();
        bytes.extend_from_slice(&masked(&connect));
        let mut plain = served.connect(PLAIN).await;
        let mut secure = tls(&served.gateway).await;
        let answering = async {
            if encrypted {
                secure.write_all(&bytes).await.unwrap();
                Answer::read(&mut secure, false).await
            } else {
                plain.write_all(&bytes).await.unwrap();
                Answer::read(&mut plain, false).await
            }
        };
        let (answer, session) = tokio::join!(answering, served.broker.session());
        assert_eq!(answer.status, 101);
        assert_eq!(session.connect, connect, "encrypted: {encrypted}");
    }
}

/// A binary frame as a client sends it (RFC 6455 5.2), shorter than 126 bytes.
fn masked(payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![0x82, 0x80 | u8::try_from(payload.len()).unwrap()];
    frame.extend_from_slice(&mask);
    frame.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

/// Pools on several hosts, without TLS, since the test's certificate covers none of them.
async fn hosts(brokers: &[&Broker; 3]) -> Gateway {
    let [exact, wildcard, any] = brokers.map(Broker::mqtt_url);
    Gateway::start(&format!(
        "
listeners: [{{ address: \"127.0.0.1:0\", plain: routes }}]
routes:
  - {{ path: /mqtt, pool: any }}
  - {{ host: \"*.example.com\", path: /mqtt, pool: wildcard }}
  - {{ host: a.example.com, path: /, pool: exact }}
  - {{ host: bare.example.org, path: /only, redirect: {{ to: \"https://x\" }} }}
pools:
  exact: {{ brokers: [{{ url: \"{exact}\" }}] }}
  wildcard: {{ brokers: [{{ url: \"{wildcard}\" }}] }}
  any: {{ brokers: [{{ url: \"{any}\" }}] }}
"
    ))
    .await
}

#[tokio::test]
async fn the_host_chooses_the_pool_exact_before_wildcard_before_any() {
    let brokers = [
        Broker::start().await,
        Broker::start().await,
        Broker::start().await,
    ];
    let [exact, wildcard, any] = &brokers;
    let gateway = hosts(&[exact, wildcard, any]).await;
    for (host, broker) in [
        ("a.example.com", exact),
        ("A.Example.COM:8443", exact),
        ("b.example.com", wildcard),
        ("example.com", any),
        ("c.b.example.com", any),
        ("127.0.0.1:80", any),
    ] {
        let mut stream = TcpStream::connect(gateway.address(0)).await.unwrap();
        let answer = Request::upgrade("/mqtt")
            .instead("Host", host)
            .ask(&mut stream)
            .await;
        assert_eq!(answer.status, 101, "{host}");
        let connect = packets::connect(host, 60);
        stream.write_all(&masked(&connect)).await.unwrap();
        assert_eq!(broker.session().await.connect, connect, "{host}");
    }
}

#[tokio::test]
async fn a_host_is_told_its_own_pools_paths() {
    let brokers = [
        Broker::start().await,
        Broker::start().await,
        Broker::start().await,
    ];
    let [exact, wildcard, any] = &brokers;
    let gateway = hosts(&[exact, wildcard, any]).await;
    let mut stream = TcpStream::connect(gateway.address(0)).await.unwrap();
    let lost = Request::upgrade("/ws").instead("Host", "example.net");
    assert_sentence(&lost.ask(&mut stream).await, 404, "did you mean /mqtt?");
    let nothing = Request::get("/ws").instead("Host", "example.net");
    assert_sentence(
        &nothing.ask(&mut stream).await,
        404,
        "Nothing is served here.",
    );
}

#[tokio::test]
async fn an_upgrade_in_a_drain_is_turned_away_to_come_again() {
    let broker = Broker::start().await;
    let gateway = Gateway::start(&format!(
        "listeners: [{{ address: \"127.0.0.1:0\", plain: routes }}]\n{}",
        crate::support::gateway::pool_of(&[broker.mqtt_url()])
    ))
    .await;
    // A session that keeps the drain running, and a connection that is in the middle of its request.
    let mut stream = TcpStream::connect(gateway.address(0)).await.unwrap();
    let text = Request::upgrade("/mqtt").text();
    let (head, tail) = text.split_at(40);
    stream.write_all(head.as_bytes()).await.unwrap();
    gateway
        .metric_becomes("tidegate_connections", &[], 1.0)
        .await;
    gateway.stop();
    assert!(
        crate::support::eventually(async || TcpStream::connect(gateway.address(0)).await.is_err())
            .await
    );
    stream.write_all(tail.as_bytes()).await.unwrap();
    let answer = Answer::read(&mut stream, true).await;
    assert_sentence(&answer, 503, "shutting down");
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn mqtt_over_the_upgraded_connection_reaches_the_broker() {
    let served = Served::start().await;
    let (_client, session) = tokio::join!(
        Client::connected(&served.gateway, "c1"),
        served.broker.welcome()
    );
    assert_eq!(session.connect, packets::connect("c1", 60));
}
