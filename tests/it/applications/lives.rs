//! How long things live: an event stream beside a drain, a request beside a reload, and a request whose client has left.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::field;
use crate::support::PATIENCE;
use crate::support::client::tls;
use crate::support::gateway::Gateway;
use crate::support::http2::Http2;
use crate::support::program::Program;
use crate::support::raw_http::{Answer, MORE_THAN_BUFFERS_HOLD, Request, rest};
use crate::support::scripted::{Scripted, with_body};

const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Reads until the text is there.
async fn read_until(client: &mut (impl AsyncReadExt + Unpin), text: &str) {
    let mut read = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&read).contains(text) {
            read.push(client.read_u8().await.unwrap());
        }
    };
    timeout(PATIENCE, reading).await.expect("it did not come");
}

#[tokio::test]
async fn each_event_of_a_stream_passes_at_once_and_silence_is_no_fault() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route_with("timeouts: {stall: 100ms}")).await;
    let mut client = tls(&gateway).await;
    client
        .write_all(Request::get("/api").text().as_bytes())
        .await
        .unwrap();
    let (mut connection, _) = application.answer(EVENTS).await;
    for number in 0..3 {
        let event = format!("data: {number}\n\n");
        connection
            .say(&format!("{:x}\r\n{event}\r\n", event.len()))
            .await;
        // The next one is not sent before this one was read.
        read_until(&mut client, &event).await;
        let silence = timeout(
            std::time::Duration::from_millis(150),
            connection.is_closed(),
        );
        assert!(
            silence.await.is_err(),
            "an event stream was cut for its silence"
        );
    }
}

#[tokio::test]
async fn the_application_hears_that_a_client_has_left() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route()).await;
    // Before the head of the answer, and behind it; over either version of HTTP.
    for answer in ["", EVENTS] {
        let mut client = tls(&gateway).await;
        client
            .write_all(Request::get("/api").text().as_bytes())
            .await
            .unwrap();
        let (mut connection, _) = application.answer(answer).await;
        if !answer.is_empty() {
            read_until(&mut client, "\r\n\r\n").await;
        }
        drop(client);
        connection.is_closed().await;

        let mut client = Http2::connect(&gateway).await;
        let request = client.get("/api");
        let (waiting, mut outgoing) = client.begin(request).await;
        let (mut connection, _) = application.answer(answer).await;
        if !answer.is_empty() {
            assert_eq!(waiting.await.unwrap().status(), 200);
        }
        outgoing.send_reset(h2::Reason::CANCEL);
        connection.is_closed().await;
    }
}

/// It costs the gateway nothing but buffers of a few sizes, and holds the application no longer than `timeouts.write`.
#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answer_frees_the_application() {
    let application = Scripted::start().await;
    let yaml = application.route() + "timeouts: {write: 300ms}\n";
    let gateway = Gateway::start(&yaml).await;
    let much = "x".repeat(2 * MORE_THAN_BUFFERS_HOLD);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", much.len());
    let mut client = tls(&gateway).await;
    client
        .write_all(Request::get("/api").text().as_bytes())
        .await
        .unwrap();
    let (mut connection, _) = application.answer(&head).await;
    assert!(connection.stream.write_all(much.as_bytes()).await.is_err());

    let mut client = Http2::connect(&gateway).await;
    let request = client.get("/api");
    let (waiting, _outgoing) = client.begin(request).await;
    let (mut connection, _) = application.answer(&head).await;
    let _unread = waiting.await.unwrap();
    assert!(connection.stream.write_all(much.as_bytes()).await.is_err());
}

#[tokio::test]
async fn a_drain_lets_a_request_finish_and_ends_event_streams_in_their_turn() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route()).await;
    let (mut slow, mut events) = (tls(&gateway).await, tls(&gateway).await);
    slow.write_all(Request::get("/api/slow").text().as_bytes())
        .await
        .unwrap();
    let (mut slow_connection, _) = application.answer("").await;
    events
        .write_all(Request::get("/api/events").text().as_bytes())
        .await
        .unwrap();
    let (mut event_connection, _) = application.answer(EVENTS).await;
    read_until(&mut events, "\r\n\r\n").await;
    gateway.stop();
    // A whole answer: the page opens the stream again, elsewhere.
    let end = rest(&mut events).await;
    assert!(
        end.ends_with(b"0\r\n\r\n"),
        "{}",
        String::from_utf8_lossy(&end)
    );
    event_connection.is_closed().await;
    slow_connection.say(&with_body("200 OK", "done")).await;
    assert_eq!(Answer::read(&mut slow, true).await.body, "done");
    drop(slow);
    assert_eq!(gateway.ended().await.cut, 0);
}

#[tokio::test]
async fn a_reload_lets_requests_finish_where_they_are_and_closes_what_was_kept() {
    let (old, new) = (Scripted::start().await, Scripted::start().await);
    let program = Program::run(&old.route()).await;
    let connect = || crate::support::client::tls_to(program.address(0), &program.authority.ca);
    let answer = with_body("200 OK", "old");
    let mut first = connect().await;
    let request = Request::get("/api");
    let (_, (mut kept, _)) = tokio::join!(request.ask(&mut first), old.answer(&answer));
    drop(first);
    let mut slow = connect().await;
    slow.write_all(request.text().as_bytes()).await.unwrap();
    kept.head().await;
    // A second one, to be idle when the reload comes.
    let mut second = connect().await;
    let (_, (mut idle, _)) = tokio::join!(request.ask(&mut second), old.answer(&answer));
    drop(second);
    program.rewrite(&new.route());
    program.tells(&["configuration reloaded"]).await;
    let mut third = connect().await;
    let now = with_body("200 OK", "new");
    let (answer, _) = tokio::join!(request.ask(&mut third), new.answer(&now));
    assert_eq!(answer.body, "new");
    kept.say(&with_body("200 OK", "late")).await;
    assert_eq!(Answer::read(&mut slow, true).await.body, "late");
    drop(slow);
    idle.is_closed().await;
    kept.is_closed().await;
}

#[tokio::test]
async fn a_request_over_http_2_takes_a_place_under_the_limit() {
    let application = Scripted::start().await;
    let yaml = application.route() + "limits: {connections: 2}\n";
    let gateway = Gateway::start(&yaml).await;
    let mut client = Http2::connect(&gateway).await;
    let request = client.get("/api");
    let (waiting, _outgoing) = client.begin(request).await;
    let mut connection = application.accept().await;
    let head = connection.head().await;
    assert!(field(&head, "host").is_some());
    let request = client.get("/api");
    let refused = client.ask(request).await;
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (503, Some("1"))
    );
    connection.say(&with_body("200 OK", "")).await;
    assert_eq!(waiting.await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_web_socket_over_http_2_has_its_place_before_the_application_is_asked() {
    let application = Scripted::start().await;
    let yaml = application.route() + "limits: {connections: 1}\n";
    let gateway = Gateway::start(&yaml).await;
    let mut client = Http2::connect(&gateway).await;
    let request = client.upgrade("/api");
    let refused = client.ask_open(request).await;
    assert_eq!(refused.status, 503);
    assert!(application.is_left_alone().await);
}
