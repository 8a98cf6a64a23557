//! Which web pages may open WebSockets: the route's `origins`, over HTTP/1.1 and HTTP/2.

use crate::support::broker::Broker;
use crate::support::client::tls;
use crate::support::gateway::Gateway;
use crate::support::http2::Http2;
use crate::support::raw_http::{Answer, Request};

const EVIL: &str = "https://evil.example";

struct Served {
    gateway: Gateway,
    _broker: Broker,
}

impl Served {
    /// `/mqtt` with this beside its pool, `/open` without.
    async fn start(beside: &str) -> Self {
        let broker = Broker::start().await;
        let yaml = format!(
            "
routes:
  - {{ path: /mqtt, pool: brokers, {beside} }}
  - {{ path: /open, pool: brokers }}
trusted_proxies: [127.0.0.1]
pools: {{ brokers: {{ brokers: [{{ url: \"{}\" }}] }} }}
",
            broker.mqtt_url()
        );
        Self {
            gateway: Gateway::start(&yaml).await,
            _broker: broker,
        }
    }

    async fn http1(&self, path: &str, origin: Option<&str>) -> Answer {
        let mut request = Request::upgrade(path);
        if let Some(origin) = origin {
            request = request.with("Origin", origin);
        }
        request.ask(&mut tls(&self.gateway).await).await
    }

    /// Status and body of a refusal; nothing of the body of an acceptance, which is a session.
    async fn http2(&self, path: &str, origin: Option<&str>) -> (u16, String) {
        let mut connection = Http2::connect(&self.gateway).await;
        let mut request = connection.upgrade(path);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        let (response, _outgoing) = connection.send(request, false).await.unwrap();
        let status = response.status().as_u16();
        let mut body = Vec::new();
        let mut incoming = response.into_body();
        if status != 200 {
            while let Some(bytes) = incoming.data().await {
                body.extend_from_slice(&bytes.unwrap());
            }
        }
        (status, String::from_utf8(body).unwrap())
    }

    async fn refused(&self) -> f64 {
        let reason = ["reason=\"origin\""];
        self.gateway.metric("tidegate_refused_total", &reason).await
    }
}

#[tokio::test]
async fn pages_that_are_named_come_in_and_others_hear_why_not() {
    let served = Served::start("origins: [\"https://*.example.com\", \"null\"]").await;
    let fine = [
        None,
        Some("https://app.example.com"),
        Some("HTTPS://App.Example.com"),
        Some("null"),
    ];
    for origin in fine {
        assert_eq!(
            served.http1("/mqtt", origin).await.status,
            101,
            "{origin:?}"
        );
        assert_eq!(served.http2("/mqtt", origin).await.0, 200, "{origin:?}");
    }
    let strangers = [
        EVIL,
        "http://app.example.com",
        "https://example.com",
        "https://app.example.com.evil.example",
        "",
    ];
    for origin in strangers {
        let expected = format!("The origin {origin} is not among the `origins` of this route.\n");
        let answer = served.http1("/mqtt", Some(origin)).await;
        assert_eq!((answer.status, &answer.body), (403, &expected));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let answer = served.http2("/mqtt", Some(origin)).await;
        assert_eq!(answer, (403, expected));
    }
    assert_eq!(served.refused().await, 2.0 * strangers.len() as f64);
    let code = ["code=\"403\""];
    let answered = served.gateway.metric("tidegate_http_requests_total", &code);
    assert_eq!(answered.await, 2.0 * strangers.len() as f64);
}

#[tokio::test]
async fn a_route_without_origins_asks_nobody() {
    let served = Served::start("origins: []").await;
    assert_eq!(served.http1("/open", Some(EVIL)).await.status, 101);
    assert_eq!(served.http2("/open", Some(EVIL)).await.0, 200);
    assert_eq!(served.http1("/mqtt", Some(EVIL)).await.status, 403);
    assert_eq!(served.http1("/mqtt", None).await.status, 101);
}

#[tokio::test]
async fn clients_that_are_no_pages_come_in_unless_an_origin_is_required() {
    let served = Served::start("origins: [self], require_origin: true").await;
    let sentence = "The request has no Origin, and `require_origin` of this route asks for one.\n";
    let answer = served.http1("/mqtt", None).await;
    assert_eq!((answer.status, answer.body.as_str()), (403, sentence));
    let answer = served.http2("/mqtt", None).await;
    assert_eq!(answer, (403, sentence.to_owned()));
    assert_eq!(
        served
            .http1("/mqtt", Some("https://localhost"))
            .await
            .status,
        101
    );
}

#[tokio::test]
async fn self_is_the_page_of_the_host_that_is_asked() {
    let served = Served::start("origins: [self]").await;
    let port = served.gateway.port();
    // The client names the port over HTTP/2, and none over HTTP/1.1.
    let with_port = format!("https://localhost:{port}");
    assert_eq!(
        served
            .http1("/mqtt", Some("https://localhost"))
            .await
            .status,
        101
    );
    assert_eq!(served.http1("/mqtt", Some(&with_port)).await.status, 403);
    assert_eq!(served.http2("/mqtt", Some(&with_port)).await.0, 200);
    assert_eq!(
        served.http2("/mqtt", Some("https://localhost")).await.0,
        403
    );
    let insecure = served.http1("/mqtt", Some("http://localhost")).await;
    assert_eq!(insecure.status, 403);
    // A trusted proxy says that the client itself came without TLS.
    let behind = Request::upgrade("/mqtt")
        .with("Origin", "http://localhost")
        .with("X-Forwarded-For", "192.0.2.1")
        .with("X-Forwarded-Proto", "http");
    let answer = behind.ask(&mut tls(&served.gateway).await).await;
    assert_eq!(answer.status, 101);
}

#[tokio::test]
async fn an_origin_that_is_no_text_or_there_twice_is_refused_and_never_echoed_raw() {
    let served = Served::start("origins: [self]").await;
    let twice = Request::upgrade("/mqtt")
        .with("Origin", "https://localhost")
        .with("Origin", EVIL);
    let answer = twice.ask(&mut tls(&served.gateway).await).await;
    assert_eq!(answer.status, 403);
    assert!(answer.body.contains("more than one Origin"), "{answer:?}");
    let long = format!("https://{}", "é".repeat(3000));
    let answer = served.http1("/mqtt", Some(&long)).await;
    assert_eq!(answer.status, 403);
    assert!(answer.body.chars().count() < 300, "{answer:?}");
}

/// The check is for WebSockets: whoever opens the path in a browser is told what it is for.
#[tokio::test]
async fn a_request_that_is_no_websocket_is_answered_as_ever() {
    let served = Served::start("origins: [self]").await;
    let request = Request::get("/mqtt").with("Origin", EVIL);
    let answer = request.ask(&mut tls(&served.gateway).await).await;
    assert_eq!(answer.status, 426);
    assert_eq!(served.refused().await, 0.0);
}
