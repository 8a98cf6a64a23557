//! What HTTP/2 answers: the same site, redirects and sentences as HTTP/1.1, and every way to get a WebSocket wrong.

use std::fs;
use std::future::poll_fn;

use h2::ext::Protocol;
use http::{Method, Request};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::support::PATIENCE;
use crate::support::broker::Broker;
use crate::support::client::tls_offering;
use crate::support::gateway::{Gateway, site};
use crate::support::http2::Http2;
use crate::support::packets;
use crate::support::raw_http::{self, Answer};

struct Served {
    gateway: Gateway,
    broker: Broker,
    _site: TempDir,
}

impl Served {
    async fn start(more: &str) -> Self {
        let broker = Broker::start().await;
        let (folder, root) = site();
        fs::write(root.join("large.bin"), vec![b'x'; 3_000_000]).unwrap();
        let yaml = format!(
            "
routes:
  - {{ path: /mqtt, pool: brokers }}
  - {{ path: /old, redirect: {{ to: \"https://{{host}}/new{{path}}{{query}}\", status: 301 }} }}
  - {{ path: /, site: {{ root: {root:?} }} }}
pools: {{ brokers: {{ brokers: [{{ url: \"{}\" }}] }} }}
{more}
",
            broker.mqtt_url()
        );
        Self {
            gateway: Gateway::start(&yaml).await,
            broker,
            _site: folder,
        }
    }

    async fn connect(&self) -> Http2 {
        Http2::connect(&self.gateway).await
    }
}

fn assert_sentence(answer: &Answer, status: u16, part: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.body.contains(part), "{answer:?}");
    let plain = Some("text/plain; charset=utf-8");
    assert_eq!(answer.header("content-type"), plain);
    // Connection-specific fields make a response malformed (RFC 9113 8.2.2).
    for name in ["connection", "upgrade", "transfer-encoding", "keep-alive"] {
        assert_eq!(answer.header(name), None, "{answer:?}");
    }
}

#[tokio::test]
async fn the_site_is_served_with_length_and_date() {
    let served = Served::start("").await;
    let mut client = served.connect().await;
    let answer = client.ask(client.get("/")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, "<h1>the site</h1>");
    assert_eq!(answer.header("content-length"), Some("17"));
    assert!(answer.header("date").unwrap().ends_with(" GMT"));
    let head = client.ask(client.get("/").method(Method::HEAD)).await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.header("content-length"), Some("17"));
    let etag = answer.header("etag").unwrap();
    let again = client.get("/").header("if-none-match", etag);
    let again = client.ask(again).await;
    assert_eq!((again.status, again.body.as_str()), (304, ""));
    assert_eq!(again.header("content-length"), None);
    let labels = ["version=\"2\"", "code=\"200\""];
    let counted = served
        .gateway
        .metric("tidegate_http_requests_total", &labels);
    assert_eq!(counted.await, 2.0);
}

#[tokio::test]
async fn a_file_larger_than_every_window_arrives_whole() {
    let served = Served::start("").await;
    let mut client = served.connect().await;
    let answer = client.ask(client.get("/large.bin")).await;
    assert_eq!(answer.body.len(), 3_000_000);
    assert!(answer.body.bytes().all(|byte| byte == b'x'));
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answer_is_reset_and_its_siblings_are_not() {
    let served = Served::start("timeouts: { write: 200ms }").await;
    let mut client = served.connect().await;
    let (response, _outgoing) = client.send(client.get("/large.bin"), true).await.unwrap();
    let mut body = response.into_body();
    served.gateway.outcome("client", "http", "stalled").await;
    // What the window held came; the rest never does.
    let mut taken = 0;
    let end = loop {
        match timeout(PATIENCE, body.data()).await.unwrap() {
            Some(Ok(bytes)) => taken += bytes.len(),
            other => break other,
        }
    };
    let reset = end.expect("it ended as if it were whole").unwrap_err();
    assert_eq!(reset.reason(), Some(h2::Reason::CANCEL));
    assert_eq!(taken, 65_535);
    assert_eq!(client.ask(client.get("/")).await.status, 200);
}

/// The answer does not wait for the body, and the connection lives on.
#[tokio::test]
async fn a_body_that_nobody_reads_is_stopped() {
    let served = Served::start("").await;
    let mut client = served.connect().await;
    let post = client.get("/").method(Method::POST);
    let (response, mut outgoing) = client.send(post, false).await.unwrap();
    assert_eq!(response.status(), 405);
    let reset = poll_fn(|cx| outgoing.poll_reset(cx));
    let reset = timeout(PATIENCE, reset).await.expect("it may go on");
    assert_eq!(reset.unwrap(), h2::Reason::NO_ERROR);
    assert_eq!(client.ask(client.get("/")).await.status, 200);
}

#[tokio::test]
async fn redirects_and_lost_paths_are_as_over_http_1() {
    let served = Served::start("").await;
    let mut client = served.connect().await;
    let moved = client.ask(client.get("/old/x?y=1")).await;
    assert_eq!(moved.status, 301);
    let location = moved.header("location").unwrap();
    assert!(location.ends_with("/new/old/x?y=1"), "{location}");
    let lost = client.ask(client.get("/nothing")).await;
    assert_eq!(lost.status, 404);
    let not_a_file = client.ask(client.get("/").method(Method::POST)).await;
    assert_eq!(not_a_file.status, 405);
}

#[tokio::test]
async fn a_get_of_the_pools_path_is_told_what_is_there() {
    let served = Served::start("").await;
    let mut client = served.connect().await;
    let answer = client.ask(client.get("/mqtt")).await;
    assert_sentence(&answer, 400, "speaks MQTT over WebSocket");
}

#[tokio::test]
async fn a_web_socket_elsewhere_asks_whether_the_pools_path_was_meant() {
    let served = Served::start("").await;
    let mut client = served.connect().await;
    for path in ["/", "/ws", "/mqttx", "/old"] {
        let answer = client.ask(client.upgrade(path)).await;
        assert_sentence(&answer, 404, "did you mean /mqtt?");
    }
}

#[tokio::test]
async fn another_websocket_version_is_told_the_right_one() {
    let served = Served::start("").await;
    let mut client = served.connect().await;
    for version in [Some("8"), None] {
        let mut request = client.upgrade("/mqtt");
        let headers = request.headers_mut().unwrap();
        headers.remove("sec-websocket-version");
        if let Some(version) = version {
            request = request.header("sec-websocket-version", version);
        }
        let answer = client.ask(request).await;
        assert_sentence(&answer, 400, "WebSocket version 13");
        assert_eq!(answer.header("sec-websocket-version"), Some("13"));
    }
}

#[tokio::test]
async fn another_protocol_and_a_proxy_are_not_implemented() {
    let served = Served::start("").await;
    let mut client = served.connect().await;
    let udp = Protocol::from_static("connect-udp");
    let answer = client.ask(client.upgrade("/mqtt").extension(udp)).await;
    assert_sentence(&answer, 501, "\"websocket\"");
    let proxied = Request::builder()
        .method(Method::CONNECT)
        .uri("example.com:443");
    let answer = client.ask(proxied).await;
    assert_sentence(&answer, 501, "asks for a proxy");
}

#[tokio::test]
async fn a_host_that_differs_from_the_authority_is_refused() {
    let served = Served::start("").await;
    let mut client = served.connect().await;
    let answer = client
        .ask(client.get("/").header("host", "other.example"))
        .await;
    assert_sentence(&answer, 400, ":authority");
}

#[tokio::test]
async fn a_right_web_socket_is_answered_200_with_the_subprotocol_it_offered() {
    let served = Served::start("").await;
    let mut client = served.connect().await;
    let name = "sec-websocket-protocol";
    for (offered, answered) in [
        (None, None),
        (Some("mqtt"), Some("mqtt")),
        (Some("mqttv3.1, mqtt"), Some("mqttv3.1")),
    ] {
        let mut request = client.upgrade("/mqtt");
        if let Some(offered) = offered {
            request = request.header(name, offered);
        }
        let (response, _outgoing) = client.send(request, false).await.unwrap();
        assert_eq!(response.status(), 200);
        let echoed = response.headers().get(name);
        assert_eq!(echoed.map(|value| value.to_str().unwrap()), answered);
        assert_eq!(response.headers().get("sec-websocket-accept"), None);
    }
    let chat = client.upgrade("/mqtt").header(name, "chat");
    let answer = client.ask(chat).await;
    assert_sentence(&answer, 400, "None of the subprotocols");
}

#[tokio::test]
async fn the_page_and_sessions_share_one_connection() {
    let served = Served::start("").await;
    let mut connection = served.connect().await;
    assert_eq!(connection.ask(connection.get("/")).await.status, 200);
    let mut sessions = Vec::new();
    for number in 0..3 {
        let mut client = connection.client().await;
        let connect = packets::connect(&format!("c{number}"), 60);
        client.send(&connect).await;
        let session = served.broker.welcome().await;
        assert_eq!(client.receive().await, packets::connack(0));
        sessions.push((client, session));
    }
    assert_eq!(connection.ask(connection.get("/")).await.status, 200);
    let gateway = &served.gateway;
    gateway
        .metric_becomes("tidegate_connections", &[], 1.0)
        .await;
    gateway.metric_becomes("tidegate_sessions", &[], 3.0).await;
    for (client, session) in &mut sessions {
        client.send(&packets::PINGREQ).await;
        assert_eq!(session.receive().await, packets::PINGREQ);
    }
}

#[tokio::test]
async fn each_session_takes_a_place_under_the_limit_on_connections() {
    let served = Served::start("limits: { connections: 2 }").await;
    let mut connection = served.connect().await;
    let first = connection.client().await;
    let answer = connection.ask(connection.upgrade("/mqtt")).await;
    assert_sentence(&answer, 503, "as many connections as it may have");
    assert_eq!(answer.header("retry-after"), Some("1"));
    let gateway = &served.gateway;
    let label = "reason=\"connections\"";
    gateway
        .metric_becomes("tidegate_refused_total", &[label], 1.0)
        .await;
    drop(first);
    gateway.outcome("client", "connect", "vanished").await;
    let _second = connection.client().await;
}

#[tokio::test]
async fn http2_off_offers_http_1_only() {
    let listeners = "listeners:\n\
        - { address: \"127.0.0.1:0\", http2: off }\n\
        - { address: \"127.0.0.1:0\" }";
    let served = Served::start(listeners).await;
    let mut stream = tls_offering(&served.gateway, &[b"h2", b"http/1.1"]).await;
    let agreed = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    assert_eq!(agreed.as_deref(), Some(&b"http/1.1"[..]));
    let request = raw_http::Request::get("/");
    assert_eq!(request.ask(&mut stream).await.status, 200);
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_one_without_a_request_is_counted() {
    let served = Served::start("timeouts: { request: 1s }").await;
    let mut used = served.connect().await;
    let gateway = &served.gateway;
    assert_eq!(used.ask(used.get("/")).await.status, 200);
    gateway
        .metric_becomes("tidegate_connections", &[], 0.0)
        .await;
    assert_eq!(gateway.metric("tidegate_outcomes_total", &[]).await, 0.0);
    let _silent = served.connect().await;
    gateway.outcome("client", "http", "request_timeout").await;
}

#[tokio::test]
async fn a_connection_with_a_session_is_not_idle() {
    let served = Served::start("timeouts: { request: 1s }").await;
    let mut connection = served.connect().await;
    let mut client = connection.client().await;
    client.send(&packets::connect("c", 60)).await;
    let mut session = served.broker.welcome().await;
    assert_eq!(client.receive().await, packets::connack(0));
    // One that came later has been closed for its silence.
    let _silent = served.connect().await;
    let gateway = &served.gateway;
    gateway.outcome("client", "http", "request_timeout").await;
    client.send(&packets::PINGREQ).await;
    assert_eq!(session.receive().await, packets::PINGREQ);
    drop(client);
    gateway
        .metric_becomes("tidegate_connections", &[], 0.0)
        .await;
}

#[tokio::test]
async fn a_drain_lets_idle_connections_go_and_refuses_new_sessions() {
    let served = Served::start("drain: { announce: 0s, max: 10s }").await;
    let mut idle = served.connect().await;
    assert_eq!(idle.ask(idle.get("/")).await.status, 200);
    served.gateway.stop();
    let ended = served.gateway.ended().await;
    assert_eq!(ended.cut, 0);
    let refused = idle.send(idle.upgrade("/mqtt"), true).await;
    assert!(refused.is_err());
}
