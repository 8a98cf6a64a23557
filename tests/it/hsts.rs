//! Strict-Transport-Security: with every answer that comes over TLS, with none that does not.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use crate::support::broker::Broker;
use crate::support::client::tls;
use crate::support::gateway::{Gateway, site};
use crate::support::http2::Http2;
use crate::support::raw_http::{Answer, Request};

const NAME: &str = "strict-transport-security";
const YEAR: &str = "max-age=31536000; includeSubDomains; preload";

async fn start(hsts: &str) -> (Gateway, Broker, tempfile::TempDir) {
    let broker = Broker::start().await;
    let (folder, root) = site();
    let yaml = format!(
        "
listeners:
  - {{ address: \"127.0.0.1:0\" }}
  - {{ address: \"127.0.0.1:0\", name: plain, plain: routes }}
  - {{ address: \"127.0.0.1:0\", name: redirect, plain: redirect }}
trusted_proxies: [127.0.0.1]
tls: {hsts}
routes:
  - {{ path: /mqtt, pool: brokers }}
  - {{ path: /old, redirect: {{ to: /new }} }}
  - {{ path: /, site: {{ root: {root:?} }} }}
pools: {{ brokers: {{ brokers: [{{ url: \"{}\" }}] }} }}
",
        broker.mqtt_url()
    );
    (Gateway::start(&yaml).await, broker, folder)
}

async fn plainly(address: SocketAddr, request: &Request) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    request.ask(&mut stream).await
}

#[tokio::test]
async fn every_answer_over_tls_says_it_and_no_other() {
    let all = "{ hsts: { max_age: 365d, include_subdomains: true, preload: true } }";
    let (gateway, _broker, _site) = start(all).await;
    let requests = [
        (Request::get("/"), 200),
        (Request::get("/nothing"), 404),
        (Request::get("/old"), 308),
        (Request::get("/mqtt"), 426),
        (Request::upgrade("/mqtt"), 101),
        (Request::get("/").without("Host"), 400),
    ];
    for (request, status) in &requests {
        let answer = request.ask(&mut tls(&gateway).await).await;
        assert_eq!((answer.status, answer.header(NAME)), (*status, Some(YEAR)));
        let answer = plainly(gateway.address(1), request).await;
        assert_eq!((answer.status, answer.header(NAME)), (*status, None));
        let answer = plainly(gateway.address(2), request).await;
        assert_eq!(answer.header(NAME), None);
    }
    let mut connection = Http2::connect(&gateway).await;
    for (path, status) in [("/", 200), ("/nothing", 404), ("/old", 308)] {
        let request = connection.get(path);
        let answer = connection.ask(request).await;
        assert_eq!((answer.status, answer.header(NAME)), (status, Some(YEAR)));
    }
}

/// Behind a balancer that ends TLS, and says so.
#[tokio::test]
async fn a_client_that_came_to_a_trusted_proxy_by_tls_is_told() {
    let (gateway, _broker, _site) = start("{ hsts: { max_age: 1h } }").await;
    let of = |proto| {
        Request::get("/")
            .with("X-Forwarded-For", "192.0.2.1")
            .with("X-Forwarded-Proto", proto)
    };
    let answer = plainly(gateway.address(1), &of("https")).await;
    assert_eq!(answer.header(NAME), Some("max-age=3600"));
    let answer = plainly(gateway.address(1), &of("http")).await;
    assert_eq!(answer.header(NAME), None);
    let answer = of("http").ask(&mut tls(&gateway).await).await;
    assert_eq!(answer.header(NAME), None);
}

#[tokio::test]
async fn nothing_is_said_unless_it_is_asked_for() {
    let (gateway, _broker, _site) = start("{}").await;
    let answer = Request::get("/").ask(&mut tls(&gateway).await).await;
    assert_eq!((answer.status, answer.header(NAME)), (200, None));
}
