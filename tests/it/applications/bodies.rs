//! Bodies: where they end, how long they may be, and that nobody's stands in another's.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::{ask, field};
use crate::support::client::tls;
use crate::support::gateway::Gateway;
use crate::support::http2::Http2;
use crate::support::raw_http::{Answer, MORE_THAN_BUFFERS_HOLD, Request, rest};
use crate::support::scripted::{Scripted, with_body};

const FAILURES: &str = "tidegate_application_failures_total";

/// A request without a length, and these of its chunks.
async fn begin_in_chunks(client: &mut (impl AsyncWrite + Unpin), method: &str, chunks: &str) {
    let request = Request::new(method, "/api").with("Transfer-Encoding", "chunked");
    let text = request.text() + chunks;
    client.write_all(text.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn a_body_keeps_its_framing() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route()).await;
    let mut client = tls(&gateway).await;
    let request = Request::new("POST", "/api")
        .with("Content-Length", "5")
        .text()
        + "hello";
    client.write_all(request.as_bytes()).await.unwrap();
    let mut connection = application.accept().await;
    let head = connection.head().await;
    assert_eq!(field(&head, "content-length"), Some("5"));
    assert_eq!(field(&head, "transfer-encoding"), None);
    assert_eq!(connection.read(5).await, "hello");
    connection.say(&with_body("200 OK", "one")).await;
    assert_eq!(Answer::read(&mut client, true).await.body, "one");

    begin_in_chunks(&mut client, "PUT", "3\r\nabc\r\n0\r\n\r\n").await;
    let head = connection.head().await;
    assert_eq!(field(&head, "transfer-encoding"), Some("chunked"));
    assert_eq!(field(&head, "content-length"), None);
    assert_eq!(connection.read(13).await, "3\r\nabc\r\n0\r\n\r\n");
    connection.say(&with_body("200 OK", "two")).await;
    assert_eq!(Answer::read(&mut client, true).await.body, "two");

    // A POST without a body keeps its 0; a GET has none.
    for (method, length) in [("POST", Some("0")), ("GET", None)] {
        let request = Request::new(method, "/api");
        let request = length.map_or(request.clone(), |length| {
            request.with("Content-Length", length)
        });
        let answer = with_body("200 OK", "");
        let (_, head) = tokio::join!(request.ask(&mut client), connection.answer(&answer));
        assert_eq!(field(&head, "content-length"), length, "{method}");
        assert_eq!(field(&head, "transfer-encoding"), None, "{method}");
    }
}

#[tokio::test]
async fn a_body_over_http_2_without_a_length_goes_in_chunks() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route()).await;
    let mut client = Http2::connect(&gateway).await;
    for (length, expected) in [(None, "chunked"), (Some("3"), "")] {
        // Of a GET, too: a body is no less there for the method.
        for method in [Method::POST, Method::GET] {
            let mut request = client.get("/api").method(method);
            if let Some(length) = length {
                request = request.header("content-length", length);
            }
            let sending = async {
                let requests = client.begin(request).await;
                let (answer, mut outgoing) = requests;
                outgoing
                    .send_data(Bytes::from_static(b"abc"), true)
                    .unwrap();
                answer.await.unwrap()
            };
            let serving = async {
                let mut connection = application.accept().await;
                let head = connection.head().await;
                let body = match expected {
                    "chunked" => connection.read(13).await,
                    _ => connection.read(3).await,
                };
                connection
                    .say("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                    .await;
                (head, body)
            };
            let (answer, (head, body)) = tokio::join!(sending, serving);
            assert_eq!(answer.status(), 200);
            assert_eq!(
                field(&head, "transfer-encoding").unwrap_or_default(),
                expected
            );
            assert_eq!(field(&head, "content-length"), length);
            assert!(body == "abc" || body == "3\r\nabc\r\n0\r\n\r\n", "{body}");
        }
    }
}

#[tokio::test]
async fn a_request_cannot_hide_in_the_body_of_another() {
    let hidden = "GET /api/hidden HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let length = hidden.len().to_string();
    for fields in [
        vec![("Content-Length", "0"), ("Content-Length", &*length)],
        vec![("Transfer-Encoding", "chunked, identity")],
        vec![("Transfer-Encoding", "xchunked")],
        vec![
            ("Transfer-Encoding", "identity"),
            ("Content-Length", &*length),
        ],
        vec![("Content-Length", "+5")],
        vec![("Content-Length", "0x10")],
        vec![("Content-Length", "5,5"), ("Content-Length", "6")],
    ] {
        let application = Scripted::start().await;
        let gateway = Gateway::start(&application.route()).await;
        let mut client = tls(&gateway).await;
        let mut request = Request::new("POST", "/api");
        for (name, value) in &fields {
            request = request.with(name, value);
        }
        let text = request.text() + hidden;
        client.write_all(text.as_bytes()).await.unwrap();
        let answer = Answer::read(&mut client, true).await;
        assert_eq!(answer.status, 400, "{fields:?}");
        assert!(application.is_left_alone().await, "{fields:?}");
    }
}

/// What the two sides could read in two ways reaches the application in one: chunks, without the length that contradicts
/// them (RFC 9112 6.3); and the connection is not used again.
#[tokio::test]
async fn chunks_win_over_a_length_that_contradicts_them() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route()).await;
    let mut client = tls(&gateway).await;
    let request = Request::new("POST", "/api")
        .with("Content-Length", "4")
        .with("Transfer-Encoding", "chunked");
    client
        .write_all(format!("{}0\r\n\r\n", request.text()).as_bytes())
        .await
        .unwrap();
    let answered = Answer::read(&mut client, true);
    let serving = async {
        let mut connection = application.accept().await;
        let head = connection.head().await;
        connection.say(&with_body("200 OK", "")).await;
        head
    };
    tokio::select! {
        answer = answered => assert_eq!(answer.status, 400),
        head = serving => {
            assert_eq!(field(&head, "content-length"), None, "{head}");
            assert_eq!(field(&head, "transfer-encoding"), Some("chunked"), "{head}");
        }
    }
}

#[tokio::test]
async fn an_answer_ends_where_the_application_ends_it() {
    for (answer, body) in [
        // Chunks win over a length, which would cut the answer or swallow the next one.
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "hello",
        ),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello", "hello"),
        ("HTTP/1.0 200 OK\r\n\r\nhello", "hello"),
    ] {
        let application = Scripted::start().await;
        let gateway = Gateway::start(&application.route()).await;
        let mut client = tls(&gateway).await;
        let request = Request::get("/api").with("Connection", "close").text();
        client.write_all(request.as_bytes()).await.unwrap();
        let (connection, _) = application.answer(answer).await;
        drop(connection);
        let text = String::from_utf8(rest(&mut client).await).unwrap();
        assert!(
            !text.to_ascii_lowercase().contains("content-length"),
            "{text}"
        );
        assert!(
            text.ends_with(&format!("\r\n\r\n5\r\n{body}\r\n0\r\n\r\n")),
            "{text}"
        );
    }
}

#[tokio::test]
async fn connect_asks_for_a_proxy_and_this_is_none() {
    let application = Scripted::start().await;
    let yaml = application.route().replace("path: /api", "path: /");
    let gateway = Gateway::start(&yaml).await;
    for target in ["localhost:443", "/api"] {
        let mut client = tls(&gateway).await;
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: localhost:443\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let answer = Answer::read(&mut client, true).await;
        assert!(
            [400, 501].contains(&answer.status),
            "{target}: {}",
            answer.status
        );
    }
    assert!(application.is_left_alone().await);
}

#[tokio::test]
async fn http_1_0_has_no_chunks() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route()).await;
    let mut client = tls(&gateway).await;
    let request = Request::new("POST", "/api")
        .http_1_0()
        .with("Transfer-Encoding", "chunked");
    client
        .write_all(format!("{}0\r\n\r\n", request.text()).as_bytes())
        .await
        .unwrap();
    assert_eq!(Answer::read(&mut client, true).await.status, 400);
    assert!(application.is_left_alone().await);
    // An answer in chunks reaches a client that knows none by its end.
    let mut client = tls(&gateway).await;
    client
        .write_all(Request::get("/api").http_1_0().text().as_bytes())
        .await
        .unwrap();
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let (_connection, head) = application.answer(answer).await;
    assert!(head.starts_with("GET /api HTTP/1.1\r\n"), "{head}");
    let text = String::from_utf8(rest(&mut client).await).unwrap();
    assert!(text.ends_with("\r\n\r\nok"), "{text}");
}

#[tokio::test]
async fn a_body_that_is_too_long_is_a_413_and_one_that_fits_is_not() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route_with("request_body: 4B")).await;
    let request = Request::new("POST", "/api").with("Content-Length", "5");
    let answer = request.ask(&mut tls(&gateway).await).await;
    assert_eq!(answer.status, 413);
    assert!(application.is_left_alone().await);
    // Without a length it is seen on the way.
    let mut client = tls(&gateway).await;
    begin_in_chunks(&mut client, "POST", "3\r\nabc\r\n").await;
    let mut connection = application.accept().await;
    connection.head().await;
    assert_eq!(connection.read(8).await, "3\r\nabc\r\n");
    client.write_all(b"2\r\nde\r\n0\r\n\r\n").await.unwrap();
    let answer = Answer::read(&mut client, true).await;
    assert_eq!(answer.status, 413);
    connection.is_closed().await;
    gateway
        .metric_becomes(FAILURES, &["cause=\"too_large\""], 2.0)
        .await;
    let mut client = tls(&gateway).await;
    let request = Request::new("POST", "/api")
        .with("Content-Length", "4")
        .text();
    client
        .write_all(format!("{request}abcd").as_bytes())
        .await
        .unwrap();
    let answer = with_body("200 OK", "");
    let (answer, _) = tokio::join!(Answer::read(&mut client, true), application.answer(&answer));
    assert_eq!(answer.status, 200);
}

/// Nobody reads the rest of it: the reset that follows must not overtake the answer.
#[tokio::test]
async fn a_refusal_in_the_middle_of_an_upload_reaches_the_client() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route()).await;
    let length = (2 * MORE_THAN_BUFFERS_HOLD).to_string();
    let refusal = with_body("413 Content Too Large", "no more than 1 MB");
    for over_http_2 in [false, true] {
        let refusing = async {
            let mut connection = application.accept().await;
            connection.head().await;
            connection.read(1 << 16).await;
            connection.say(&refusal).await;
            connection.reset();
        };
        let much = vec![b'x'; 2 * MORE_THAN_BUFFERS_HOLD];
        let answer = if over_http_2 {
            let mut client = Http2::connect(&gateway).await;
            let request = client.get("/api").method(Method::POST);
            let (answer, mut outgoing) = client
                .begin(request.header("content-length", &length))
                .await;
            let sending = async {
                let mut data = Bytes::from(much);
                while !data.is_empty() {
                    outgoing.reserve_capacity(data.len());
                    let room = std::future::poll_fn(|cx| outgoing.poll_capacity(cx)).await;
                    let Some(Ok(room)) = room else { return };
                    let piece = data.split_to(room.min(data.len()));
                    if outgoing.send_data(piece, false).is_err() {
                        return;
                    }
                }
            };
            let (answer, (), ()) = tokio::join!(answer, sending, refusing);
            let answer = answer.unwrap();
            let status = answer.status().as_u16();
            let body = answer.into_body().data().await.unwrap().unwrap();
            (status, String::from_utf8(body.to_vec()).unwrap())
        } else {
            let client = tls(&gateway).await;
            let (mut reader, mut writer) = tokio::io::split(client);
            let head = Request::new("POST", "/api")
                .with("Content-Length", &length)
                .text();
            let sending = async {
                writer.write_all(head.as_bytes()).await.unwrap();
                // It may be cut short.
                drop(writer.write_all(&much).await);
            };
            let (answer, (), ()) = tokio::join!(Answer::read(&mut reader, true), sending, refusing);
            (answer.status, answer.body)
        };
        assert_eq!(
            answer,
            (413, "no more than 1 MB".to_owned()),
            "HTTP/2: {over_http_2}"
        );
    }
    assert_eq!(gateway.metric(FAILURES, &[]).await, 0.0);
}

/// The end of the request may come in a frame of its own: all of its bytes have been sent, and the application answers.
#[tokio::test]
async fn an_upload_over_http_2_has_ended_with_its_last_byte() {
    let application = Scripted::start().await;
    let yaml = application.route_with("timeouts: {stall: 200ms, head: 20s}");
    let gateway = Gateway::start(&yaml).await;
    let mut client = Http2::connect(&gateway).await;
    let answer = with_body("200 OK", "ok");
    let mut connection = None;
    for _ in 0..2 {
        let request = client
            .get("/api")
            .method(Method::POST)
            .header("content-length", "3");
        let (waiting, mut outgoing) = client.begin(request).await;
        outgoing
            .send_data(Bytes::from_static(b"abc"), false)
            .unwrap();
        // The same connection the second time: it was kept.
        let mut kept = match connection.take() {
            Some(kept) => kept,
            None => application.accept().await,
        };
        kept.head().await;
        assert_eq!(kept.read(3).await, "abc");
        outgoing.send_data(Bytes::new(), true).unwrap();
        let stalled = tokio::time::timeout(Duration::from_millis(400), kept.is_closed());
        assert!(stalled.await.is_err(), "the head was not waited for");
        kept.say(&answer).await;
        assert_eq!(waiting.await.unwrap().status(), 200);
        connection = Some(kept);
    }
}

#[tokio::test]
async fn an_application_of_http_1_0_loses_no_upload() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route_with("keep_alive: {idle: 1h}")).await;
    let mut client = tls(&gateway).await;
    let old = "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok";
    let request = Request::get("/api");
    let (answer, (mut first, _)) = tokio::join!(request.ask(&mut client), application.answer(old));
    assert!(answer.head.starts_with("HTTP/1.1 200"), "{}", answer.head);
    first.is_closed().await;
    begin_in_chunks(&mut client, "POST", "3\r\nabc\r\n0\r\n\r\n").await;
    let mut second = application.accept().await;
    second.head().await;
    assert_eq!(second.read(13).await, "3\r\nabc\r\n0\r\n\r\n");
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    for (method, answer, length) in [
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
            Some("1000"),
        ),
        ("HEAD", "HTTP/1.1 200 OK\r\n\r\n", None),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", None),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",
            None,
        ),
    ] {
        let application = Scripted::start().await;
        let gateway = Gateway::start(&application.route()).await;
        let mut client = tls(&gateway).await;
        client
            .write_all(Request::new(method, "/api").text().as_bytes())
            .await
            .unwrap();
        let (mut connection, _) = application.answer(answer).await;
        let first = Answer::read(&mut client, false).await;
        assert_eq!(first.header("content-length"), length, "{method} {answer}");
        assert_eq!(first.header("transfer-encoding"), None);
        // Both connections are whole.
        let request = Request::get("/api");
        let answer = with_body("200 OK", "next");
        let (second, _) = tokio::join!(request.ask(&mut client), connection.answer(&answer));
        assert_eq!(second.body, "next");
        let mut client = Http2::connect(&gateway).await;
        let request = client.get("/api").method(method);
        let again = first_line(&first);
        let (third, _) = tokio::join!(client.ask(request), connection.answer(&again));
        assert_eq!((third.status, &*third.body), (first.status, ""));
        assert_eq!(third.header("content-length"), length, "{method}");
    }
}

/// What the application said first, again.
fn first_line(answer: &Answer) -> String {
    let length = answer.header("content-length");
    let length = length.map(|length| format!("Content-Length: {length}\r\n"));
    format!(
        "HTTP/1.1 {} X\r\n{}\r\n",
        answer.status,
        length.unwrap_or_default()
    )
}

#[tokio::test]
async fn trailers_reach_a_client_over_http_2() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route()).await;
    let mut client = Http2::connect(&gateway).await;
    let request = client.get("/api");
    let answer =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n";
    let (sent, (mut connection, _)) =
        tokio::join!(client.send(request, true), application.answer(answer));
    let mut incoming = sent.unwrap().0.into_body();
    let mut body = Vec::new();
    while let Some(data) = incoming.data().await {
        body.extend_from_slice(&data.unwrap());
    }
    assert_eq!(body, b"ok");
    let trailers = incoming.trailers().await.unwrap().unwrap();
    assert_eq!(trailers.get("x-sum").unwrap(), "7");
    // The connection is kept as any other.
    let request = client.get("/api");
    let again = with_body("200 OK", "again");
    let (answer, _) = tokio::join!(client.ask(request), connection.answer(&again));
    assert_eq!(answer.body, "again");
}

#[tokio::test]
async fn a_client_that_waits_for_leave_hears_the_application() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route()).await;
    let request = Request::new("POST", "/api")
        .with("Content-Length", "4")
        .with("Expect", "100-continue")
        .text();
    // It may.
    let mut client = tls(&gateway).await;
    client.write_all(request.as_bytes()).await.unwrap();
    let mut connection = application.accept().await;
    assert_eq!(
        field(&connection.head().await, "expect"),
        Some("100-continue")
    );
    connection.say("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(Answer::read(&mut client, false).await.status, 100);
    client.write_all(b"body").await.unwrap();
    assert_eq!(connection.read(4).await, "body");
    connection.say(&with_body("200 OK", "thanks")).await;
    assert_eq!(Answer::read(&mut client, true).await.body, "thanks");
    // It may not: nothing of its body is asked for.
    let mut client = tls(&gateway).await;
    client.write_all(request.as_bytes()).await.unwrap();
    let (_refused, _) = tokio::join!(
        async {
            let answer = Answer::read(&mut client, true).await;
            assert_eq!(answer.status, 401, "{}", answer.head);
        },
        async {
            connection
                .answer(&with_body("401 Unauthorized", "who are you?"))
                .await
        }
    );
}

#[tokio::test]
async fn a_client_that_waits_for_leave_is_not_kept_by_an_application_that_knows_none() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route()).await;
    let mut client = tls(&gateway).await;
    let request = Request::new("POST", "/api")
        .with("Content-Length", "4")
        .with("Expect", "100-continue");
    client.write_all(request.text().as_bytes()).await.unwrap();
    let mut connection = application.accept().await;
    connection.head().await;
    assert_eq!(Answer::read(&mut client, false).await.status, 100);
    client.write_all(b"body").await.unwrap();
    assert_eq!(connection.read(4).await, "body");
}

#[tokio::test]
async fn early_hints_are_skipped() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route()).await;
    let answer = format!(
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n{}",
        with_body("200 OK", "page")
    );
    let (answer, _) = ask(&gateway, &application, &Request::get("/api"), &answer).await;
    assert_eq!((answer.status, &*answer.body), (200, "page"));
}

#[tokio::test]
async fn a_client_that_sends_no_more_of_its_body_is_told() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route_with("timeouts: {stall: 200ms}")).await;
    let mut client = tls(&gateway).await;
    let request = Request::new("POST", "/api")
        .with("Content-Length", "5")
        .text();
    client
        .write_all(format!("{request}abc").as_bytes())
        .await
        .unwrap();
    let mut connection = application.accept().await;
    connection.head().await;
    assert_eq!(connection.read(3).await, "abc");
    let answer = tokio::time::timeout(Duration::from_secs(10), Answer::read(&mut client, true));
    assert_eq!(answer.await.unwrap().status, 408);
    connection.is_closed().await;
    gateway
        .metric_becomes(FAILURES, &["cause=\"client_stalled\""], 1.0)
        .await;
}
