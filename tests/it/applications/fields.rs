//! Header fields: who the client is, and what belongs to one connection alone (RFC 9110 7.6.1).

use super::{ask, field};
use crate::support::gateway::Gateway;
use crate::support::http2::Http2;
use crate::support::raw_http::Request;
use crate::support::scripted::{Scripted, with_body};

#[tokio::test]
async fn an_application_is_told_who_the_client_is_and_by_nobody_else() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route()).await;
    let port = gateway.port().to_string();
    let request = Request::get("/api/me?x=1")
        .instead("Host", &format!("example.com:{port}"))
        .with("X-Forwarded-For", "6.6.6.6")
        .with("X-Forwarded-Server", "evil")
        .with("X_Forwarded_For", "6.6.6.6")
        .with("X-Real_IP", "6.6.6.6")
        .with("X-Forwarded-Host", "evil.example")
        .with("Forwarded", "for=6.6.6.6")
        .with("Proxy", "http://evil.example")
        .with("X-Mine", "mine");
    let (answer, head) = ask(
        &gateway,
        &application,
        &request,
        &with_body("200 OK", "hello"),
    )
    .await;
    assert_eq!((answer.status, &*answer.body), (200, "hello"));
    assert!(head.starts_with("GET /api/me?x=1 HTTP/1.1\r\n"), "{head}");
    assert!(
        !head.contains("6.6.6.6") && !head.contains("evil"),
        "{head}"
    );
    assert_eq!(field(&head, "x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(field(&head, "x-real-ip"), Some("127.0.0.1"));
    assert_eq!(field(&head, "x-forwarded-proto"), Some("https"));
    assert_eq!(field(&head, "x-forwarded-port"), Some(&*port));
    let host = format!("example.com:{port}");
    assert_eq!(field(&head, "x-forwarded-host"), Some(&*host));
    assert_eq!(field(&head, "host"), Some(&*host));
    assert_eq!(field(&head, "via"), Some("1.1 tidegate"));
    assert_eq!(field(&head, "x-mine"), Some("mine"));
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_about_its_client_and_its_host() {
    let application = Scripted::start().await;
    let yaml = application.route() + "trusted_proxies: [127.0.0.0/8]\n";
    let gateway = Gateway::start(&yaml).await;
    let request = Request::get("/api")
        .with("X-Forwarded-For", "6.6.6.6, 192.0.2.7")
        .with("X-Forwarded-Proto", "http")
        .with("X-Forwarded-Host", "www.example.com")
        .with("Via", "1.1 front");
    let (_, head) = ask(&gateway, &application, &request, &with_body("200 OK", "")).await;
    assert_eq!(
        field(&head, "x-forwarded-for"),
        Some("192.0.2.7, 127.0.0.1")
    );
    assert_eq!(field(&head, "x-real-ip"), Some("192.0.2.7"));
    assert_eq!(field(&head, "x-forwarded-proto"), Some("http"));
    assert_eq!(field(&head, "x-forwarded-host"), Some("www.example.com"));
    assert_eq!(head.matches("\r\nvia: ").count(), 2, "{head}");
}

/// The balancer ended TLS on 443 and speaks plain HTTP to another port.
#[tokio::test]
async fn a_trusted_proxy_is_believed_about_the_port_and_the_prefix() {
    for (told, port, prefix) in [
        (
            vec![
                ("X-Forwarded-Port", "443"),
                ("X-Forwarded-Prefix", "/front/"),
            ],
            Some("443"),
            "/front/api",
        ),
        (vec![], None, "/api"),
    ] {
        let application = Scripted::start().await;
        let yaml = application.route_with("path: strip") + "trusted_proxies: [127.0.0.0/8]\n";
        let gateway = Gateway::start(&yaml).await;
        let mut request = Request::get("/api")
            .with("X-Forwarded-For", "192.0.2.7")
            .with("X-Forwarded-Proto", "https");
        for (name, value) in told {
            request = request.with(name, value);
        }
        let (_, head) = ask(&gateway, &application, &request, &with_body("200 OK", "")).await;
        assert_eq!(field(&head, "x-forwarded-port"), port, "{head}");
        assert_eq!(field(&head, "x-forwarded-prefix"), Some(prefix), "{head}");
    }
}

#[tokio::test]
async fn what_belongs_to_one_connection_stays_there() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route()).await;
    let request = Request::get("/api")
        .with(
            "Connection",
            "keep-alive, X-Hop, content-length, host, upgrade",
        )
        .with("X-Hop", "1")
        .with("Keep-Alive", "timeout=9")
        .with("TE", "trailers, gzip")
        .with("Trailer", "X-Sum")
        .with("Upgrade", "h2c")
        .with("HTTP2-Settings", "AAMAAABkAAQAoAAAAAIAAAAA")
        .with("Proxy-Connection", "keep-alive")
        .with("Proxy-Authorization", "Basic eA==");
    let answer = "HTTP/1.1 200 OK\r\nConnection: X-Back\r\nX-Back: 1\r\nKeep-Alive: timeout=9\r\nX-End: 1\r\n\
                  Proxy-Authenticate: Basic\r\nTrailer: X-Sum\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nok";
    let (answer, head) = ask(&gateway, &application, &request, answer).await;
    for name in [
        "x-hop",
        "keep-alive",
        "te",
        "trailer",
        "upgrade",
        "http2-settings",
        "proxy-connection",
        "proxy-authorization",
        "connection",
        "transfer-encoding",
        "content-length",
    ] {
        assert_eq!(field(&head, name), None, "{head}");
    }
    assert!(field(&head, "host").is_some(), "{head}");
    for name in [
        "x-back",
        "keep-alive",
        "proxy-authenticate",
        "trailer",
        "upgrade",
    ] {
        assert_eq!(answer.header(name), None, "{}", answer.head);
    }
    assert_eq!((answer.header("x-end"), &*answer.body), (Some("1"), "ok"));
}

#[tokio::test]
async fn a_request_over_http_2_becomes_one_over_http_1_1() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route()).await;
    let mut client = Http2::connect(&gateway).await;
    let request = client
        .get("/api/x")
        .header("te", "trailers")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("expect", "100-continue");
    let answer = "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let (answer, (_connection, head)) =
        tokio::join!(client.ask(request), application.answer(answer));
    assert_eq!((answer.status, &*answer.body), (200, "ok"));
    assert_eq!(answer.header("connection"), None);
    assert!(head.starts_with("GET /api/x HTTP/1.1\r\n"), "{head}");
    assert_eq!(field(&head, "cookie"), Some("a=1; b=2"));
    assert_eq!(field(&head, "via"), Some("2.0 tidegate"));
    assert_eq!(field(&head, "te"), None);
    assert_eq!(field(&head, "expect"), None);
    let host = format!("localhost:{}", gateway.port());
    assert_eq!(field(&head, "host"), Some(&*host));
}

#[tokio::test]
async fn the_host_is_the_clients_the_applications_or_a_value() {
    for (host, expected) in [
        ("client", None),
        ("application", Some(String::new())),
        ("app.internal", Some("app.internal".to_owned())),
    ] {
        let application = Scripted::start().await;
        let gateway = Gateway::start(&application.route_with(&format!("host: {host}"))).await;
        let (_, head) = ask(
            &gateway,
            &application,
            &Request::get("/api"),
            &with_body("200 OK", ""),
        )
        .await;
        let expected = match expected {
            None => "localhost".to_owned(),
            Some(own) if own.is_empty() => application.authority(),
            Some(value) => value,
        };
        assert_eq!(field(&head, "host"), Some(&*expected), "{host}");
        assert_eq!(field(&head, "x-forwarded-host"), Some("localhost"));
    }
}

#[tokio::test]
async fn a_request_that_goes_round_in_a_circle_is_stopped() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route()).await;
    let mut request = Request::get("/api");
    for _ in 0..8 {
        request = request.with("Via", "1.1 tidegate");
    }
    let mut client = crate::support::client::tls(&gateway).await;
    let answer = request.ask(&mut client).await;
    assert_eq!(answer.status, 508);
    assert!(answer.body.contains("circle"), "{}", answer.body);
    assert!(application.is_left_alone().await);
    // Others are called something like it.
    let mut request = Request::get("/api");
    for _ in 0..8 {
        request = request.with("Via", "1.1 not-tidegate");
    }
    let (answer, _) = ask(&gateway, &application, &request, &with_body("200 OK", "")).await;
    assert_eq!(answer.status, 200);
    let failures = "tidegate_application_failures_total";
    gateway
        .metric_becomes(failures, &["cause=\"loop\""], 1.0)
        .await;
}
