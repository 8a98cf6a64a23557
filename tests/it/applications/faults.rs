//! Applications that are gone, slow or broken: each has its status, its sentence and its count, and costs nobody else.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::ask;
use crate::support::client::tls;
use crate::support::gateway::Gateway;
use crate::support::http2::Http2;
use crate::support::journal::Journal;
use crate::support::raw_http::{Answer, Request, rest};
use crate::support::scripted::{Scripted, with_body};

const FAILURES: &str = "tidegate_application_failures_total";

fn is_plain_page(answer: &Answer, status: u16, words: &str) {
    assert_eq!(answer.status, status, "{}", answer.body);
    assert!(answer.body.contains(words), "{}", answer.body);
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

async fn failed(gateway: &Gateway, cause: &str) {
    let cause = format!("cause=\"{cause}\"");
    gateway
        .metric_becomes(FAILURES, &["application=\"/api\"", &cause], 1.0)
        .await;
}

/// An address that nobody listens on.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn an_application_that_is_not_there_is_a_502_and_a_warning() {
    let journal = Journal::open();
    let url = nobody().await;
    let gateway = Gateway::start(&format!("routes: [{{path: /api, proxy: \"{url}\"}}]\n")).await;
    for _ in 0..2 {
        let answer = Request::get("/api").ask(&mut tls(&gateway).await).await;
        is_plain_page(&answer, 502, "cannot be reached");
        assert!(!answer.body.contains("127.0.0.1"), "{}", answer.body);
    }
    gateway
        .metric_becomes(
            FAILURES,
            &["application=\"/api\"", "cause=\"refused\""],
            2.0,
        )
        .await;
    let requests = "tidegate_application_requests_total";
    gateway
        .metric_becomes(requests, &["code=\"5xx\""], 2.0)
        .await;
    journal
        .line(&[
            "WARN",
            "application=\"/api\"",
            "status=502",
            "connection refused",
        ])
        .await;
}

#[tokio::test]
async fn an_application_that_closes_without_a_word_is_a_502() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route()).await;
    let mut client = tls(&gateway).await;
    let request = Request::get("/api");
    let (answer, ()) = tokio::join!(request.ask(&mut client), async {
        let mut connection = application.accept().await;
        connection.head().await;
    });
    is_plain_page(&answer, 502, "without an answer");
    failed(&gateway, "closed").await;
    // The client's connection goes on.
    let answer = with_body("200 OK", "well");
    let (answer, _) = tokio::join!(request.ask(&mut client), application.answer(&answer));
    assert_eq!((answer.status, &*answer.body), (200, "well"));
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_a_502() {
    for answer in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\nX-Long: {}\r\n\r\n", "x".repeat(1 << 20)),
        format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-Many: 1\r\n".repeat(200)),
    ] {
        let application = Scripted::start().await;
        let gateway = Gateway::start(&application.route()).await;
        let mut client = tls(&gateway).await;
        let request = Request::get("/api");
        let (answer, ()) = tokio::join!(request.ask(&mut client), async {
            let mut connection = application.accept().await;
            connection.head().await;
            // The gateway may close before it has read all of it.
            drop(connection.stream.write_all(answer.as_bytes()).await);
            connection.is_closed().await;
        });
        is_plain_page(&answer, 502, "not HTTP");
        failed(&gateway, "garbage").await;
    }
}

#[tokio::test]
async fn an_upgrade_that_nobody_asked_for_is_a_502() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route()).await;
    let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nbytes";
    let (answer, _) = ask(&gateway, &application, &Request::get("/api"), answer).await;
    is_plain_page(&answer, 502, "WebSocket");
    failed(&gateway, "handshake").await;
}

#[tokio::test]
async fn an_application_that_does_not_answer_in_time_is_a_504() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route_with("timeouts: {head: 200ms}")).await;
    let mut client = tls(&gateway).await;
    let begun = Instant::now();
    let request = Request::get("/api");
    let (answer, ()) = tokio::join!(request.ask(&mut client), async {
        let mut connection = application.accept().await;
        connection.head().await;
        connection.say("HTTP/1.1 200 OK\r\n").await;
        connection.is_closed().await;
    });
    is_plain_page(&answer, 504, "in time");
    assert!(begun.elapsed() >= Duration::from_millis(200));
    failed(&gateway, "head_timeout").await;
}

#[tokio::test]
async fn a_connection_that_does_not_come_about_in_time_is_a_504() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    // Linux takes one more than the queue is long; what comes after that hears nothing.
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let _taken = TcpStream::connect(address).await.unwrap();
    let yaml = format!(
        "routes: [{{path: /api, proxy: {{to: \"http://{address}\", timeouts: {{connect: 200ms}}}}}}]\n"
    );
    let gateway = Gateway::start(&yaml).await;
    let answer = Request::get("/api").ask(&mut tls(&gateway).await).await;
    is_plain_page(&answer, 504, "in time");
    failed(&gateway, "connect_timeout").await;
}

#[tokio::test]
async fn an_answer_that_ends_early_ends_early_for_the_client_too() {
    for (head, cause) in [
        ("Content-Length: 10", "answer_broke"),
        ("Transfer-Encoding: chunked", "answer_broke"),
    ] {
        let application = Scripted::start().await;
        let gateway = Gateway::start(&application.route()).await;
        let mut client = tls(&gateway).await;
        client
            .write_all(Request::get("/api").text().as_bytes())
            .await
            .unwrap();
        let mut connection = application.accept().await;
        connection.head().await;
        connection
            .say(&format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n4\r\nab"))
            .await;
        let mut begin = [0; 64];
        let count = client.read(&mut begin).await.unwrap();
        assert!(begin[..count].starts_with(b"HTTP/1.1 200 OK"));
        drop(connection);
        let whole = String::from_utf8(rest(&mut client).await).unwrap();
        // Neither the length nor the last chunk is made up.
        assert!(!whole.contains("\r\n0\r\n") && whole.len() < 300, "{whole}");
        failed(&gateway, cause).await;
    }
}

#[tokio::test]
async fn an_answer_that_ends_early_resets_the_stream_over_http_2() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route()).await;
    let mut client = Http2::connect(&gateway).await;
    let request = client.get("/api");
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab";
    let (sent, (connection, _)) =
        tokio::join!(client.send(request, true), application.answer(answer));
    let (response, _outgoing) = sent.unwrap();
    drop(connection);
    let mut incoming = response.into_body();
    let mut ended = incoming.data().await.unwrap();
    while ended.is_ok() {
        ended = incoming.data().await.expect("the end was made up");
    }
    assert_eq!(
        ended.unwrap_err().reason(),
        Some(h2::Reason::INTERNAL_ERROR)
    );
    // The connection is well.
    let request = client.get("/api");
    let answer = with_body("200 OK", "well");
    let (answer, _) = tokio::join!(client.ask(request), application.answer(&answer));
    assert_eq!(answer.body, "well");
}

#[tokio::test]
async fn an_answer_that_stands_still_is_given_up() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route_with("timeouts: {stall: 200ms}")).await;
    let mut client = tls(&gateway).await;
    client
        .write_all(Request::get("/api").text().as_bytes())
        .await
        .unwrap();
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab";
    let (mut connection, _) = application.answer(answer).await;
    connection.is_closed().await;
    assert!(rest(&mut client).await.ends_with(b"ab"));
    failed(&gateway, "answer_stalled").await;
}
