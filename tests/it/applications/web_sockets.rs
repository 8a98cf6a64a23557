//! WebSockets of the application: their bytes pass, over HTTP/1.1 and over HTTP/2, and nobody cuts them for their silence.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::{ask, field};
use crate::support::client::tls;
use crate::support::gateway::Gateway;
use crate::support::http2::Http2;
use crate::support::journal::Journal;
use crate::support::raw_http::{ACCEPT, Answer, MORE_THAN_BUFFERS_HOLD, Request};
use crate::support::scripted::{Connection, Scripted, with_body};
use crate::support::{PATIENCE, eventually};

const OPEN: &str = "tidegate_application_web_sockets";
const ENDS: &str = "tidegate_application_web_socket_ends_total";
const FAILURES: &str = "tidegate_application_failures_total";

fn accepted(accept: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\nX-Mine: 1\r\n\
         Content-Length: 0\r\n\r\n"
    )
}

/// Accepts one handshake as an application does, with these bytes behind it.
async fn accept(application: &Scripted, early: &str) -> (Connection, String) {
    let mut connection = application.accept().await;
    let head = connection.head().await;
    let key = field(&head, "sec-websocket-key").unwrap_or_default();
    let answer = accepted(&tidegate::websocket::derive_accept_key(key.as_bytes()));
    connection.say(&(answer + early)).await;
    (connection, head)
}

/// A client's WebSocket with these bytes of the application's behind its 101, and the application's end of it.
async fn opened(
    gateway: &Gateway,
    application: &Scripted,
    early: &str,
) -> (TlsStream<TcpStream>, Connection) {
    let mut client = tls(gateway).await;
    let connection = opened_over(&mut client, application, early).await;
    (client, connection)
}

async fn opened_over(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    application: &Scripted,
    early: &str,
) -> Connection {
    let request = Request::upgrade("/api").text();
    client.write_all(request.as_bytes()).await.unwrap();
    let (connection, _) = accept(application, early).await;
    assert_eq!(Answer::read(client, false).await.status, 101);
    connection
}

async fn ended(gateway: &Gateway, cause: &str) {
    gateway
        .metric_becomes(ENDS, &[&format!("cause=\"{cause}\"")], 1.0)
        .await;
    gateway
        .metric_becomes(OPEN, &["application=\"/api\""], 0.0)
        .await;
}

#[tokio::test]
async fn bytes_pass_both_ways_those_that_come_early_too() {
    let journal = Journal::open();
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route()).await;
    let mut client = tls(&gateway).await;
    let request = Request::upgrade("/api/chat?room=1")
        .with("Sec-WebSocket-Protocol", "chat, other")
        .with("Sec-WebSocket-Extensions", "permessage-deflate")
        .with("Origin", "https://localhost");
    client
        .write_all((request.text() + "early up").as_bytes())
        .await
        .unwrap();
    let (mut connection, head) = accept(&application, "early down").await;
    assert!(
        head.starts_with("GET /api/chat?room=1 HTTP/1.1\r\n"),
        "{head}"
    );
    for (name, value) in [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat, other"),
        ("sec-websocket-extensions", "permessage-deflate"),
        ("origin", "https://localhost"),
        ("x-real-ip", "127.0.0.1"),
    ] {
        assert_eq!(field(&head, name), Some(value), "{head}");
    }
    let answer = Answer::read(&mut client, false).await;
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("sec-websocket-accept"), Some(ACCEPT));
    assert_eq!(answer.header("sec-websocket-protocol"), Some("chat"));
    assert_eq!(answer.header("x-mine"), Some("1"));
    let mut early = [0; 10];
    client.read_exact(&mut early).await.unwrap();
    assert_eq!(&early, b"early down");
    assert_eq!(connection.read(8).await, "early up");
    gateway
        .metric_becomes(OPEN, &["application=\"/api\""], 1.0)
        .await;
    client.write_all(b"up").await.unwrap();
    assert_eq!(connection.read(2).await, "up");
    // The application says goodbye and closes: the client hears both.
    connection.say("bye").await;
    connection.stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    timeout(PATIENCE, client.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(rest, b"bye");
    drop(client);
    ended(&gateway, "application").await;
    journal
        .line(&[
            "web socket ended",
            "application=\"/api\"",
            "bytes_up=10",
            "bytes_down=13",
        ])
        .await;
}

#[tokio::test]
async fn a_client_over_http_2_becomes_one_over_http_1_1() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route()).await;
    let mut client = Http2::connect(&gateway).await;
    let request = client
        .upgrade("/api/chat")
        .header("sec-websocket-protocol", "chat");
    let (sent, (mut connection, head)) =
        tokio::join!(client.send(request, false), accept(&application, "early"));
    assert!(head.starts_with("GET /api/chat HTTP/1.1\r\n"), "{head}");
    for (name, value) in [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat"),
        ("via", "2.0 tidegate"),
    ] {
        assert_eq!(field(&head, name), Some(value), "{head}");
    }
    let (response, mut outgoing) = sent.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.headers().get("sec-websocket-protocol").unwrap(),
        "chat"
    );
    for name in ["sec-websocket-accept", "upgrade", "connection"] {
        assert!(response.headers().get(name).is_none(), "{name}");
    }
    let mut incoming = response.into_body();
    assert_eq!(incoming.data().await.unwrap().unwrap(), "early");
    outgoing
        .send_data(Bytes::from_static(b"up"), false)
        .unwrap();
    assert_eq!(connection.read(2).await, "up");
    connection.say("down").await;
    assert_eq!(incoming.data().await.unwrap().unwrap(), "down");
    // The client's end is the application's.
    outgoing.send_data(Bytes::new(), true).unwrap();
    connection.is_closed().await;
    drop(connection);
    ended(&gateway, "client").await;
}

#[tokio::test]
async fn an_application_that_refuses_is_heard() {
    for (status, over_http_2) in [("403 Forbidden", 403), ("200 OK", 502)] {
        let application = Scripted::start().await;
        let gateway = Gateway::start(&application.route()).await;
        let refusal = with_body(status, "not you");
        let (answer, _) = ask(&gateway, &application, &Request::upgrade("/api"), &refusal).await;
        assert_eq!(answer.status.to_string(), status[..3]);
        assert_eq!(answer.body, "not you");
        // A 2xx accepts there (RFC 8441 5), which the application did not.
        let mut client = Http2::connect(&gateway).await;
        let request = client.upgrade("/api");
        let (answer, _) = tokio::join!(client.ask_open(request), application.answer(&refusal));
        assert_eq!(answer.status, over_http_2);
        assert_eq!(gateway.metric(OPEN, &[]).await, 0.0);
    }
}

#[tokio::test]
async fn an_answer_that_did_not_read_the_key_accepts_nothing() {
    for answer in [
        accepted("bm90IHRoZSBhbnN3ZXIgdG8ga2V5"),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
            .to_owned(),
        accepted(ACCEPT).replace("WebSocket\r", "h2c\r"),
    ] {
        let application = Scripted::start().await;
        let gateway = Gateway::start(&application.route()).await;
        let (answer, _) = ask(&gateway, &application, &Request::upgrade("/api"), &answer).await;
        assert_eq!(answer.status, 502);
        gateway
            .metric_becomes(FAILURES, &["cause=\"handshake\""], 1.0)
            .await;
    }
}

/// A request whose end the two sides could see in two places is no WebSocket's.
#[tokio::test]
async fn an_upgrade_with_a_body_is_a_request_like_any_other() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route()).await;
    let request = Request::upgrade("/api").with("Content-Length", "4");
    let mut client = tls(&gateway).await;
    client
        .write_all((request.text() + "body").as_bytes())
        .await
        .unwrap();
    let mut connection = application.accept().await;
    let head = connection.head().await;
    assert_eq!(field(&head, "upgrade"), None, "{head}");
    assert_eq!(field(&head, "connection"), None, "{head}");
    assert_eq!(connection.read(4).await, "body");
    connection.say(&with_body("200 OK", "plain")).await;
    assert_eq!(Answer::read(&mut client, true).await.body, "plain");
}

#[tokio::test]
async fn silence_is_no_fault() {
    let application = Scripted::start().await;
    let yaml = application.route_with("timeouts: {head: 1s, stall: 1s}")
        + "timeouts: {request: 1s, write: 1s}\n";
    let gateway = Gateway::start(&yaml).await;
    let (mut client, mut connection) = opened(&gateway, &application, "").await;
    let cut = timeout(Duration::from_millis(2500), connection.is_closed());
    assert!(cut.await.is_err(), "it was cut");
    connection.say("still here").await;
    let mut read = [0; 10];
    client.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"still here");
}

#[tokio::test]
async fn a_side_that_takes_nothing_holds_up_the_other_and_is_ended() {
    for cause in ["client_stalled", "application_stalled"] {
        let application = Scripted::start().await;
        let yaml = application.route() + "timeouts: {write: 300ms}\n";
        let gateway = Gateway::start(&yaml).await;
        let (mut client, mut connection) = opened(&gateway, &application, "").await;
        let much = vec![b'x'; 2 * MORE_THAN_BUFFERS_HOLD];
        // It does not get all of it away: nobody holds it.
        let written = match cause {
            "client_stalled" => connection.stream.write_all(&much).await,
            _ => client.write_all(&much).await,
        };
        assert!(written.is_err(), "{cause}: somebody held 16 MiB");
        ended(&gateway, cause).await;
    }
}

/// It closes with bytes unread, so that our next write fails: what it said stands before that, and no reset behind it, though
/// the client goes on sending.
#[tokio::test]
async fn the_last_words_of_an_application_that_takes_no_more_reach_the_client() {
    let application = Scripted::start().await;
    let plain = "listeners: [{ address: \"127.0.0.1:0\", plain: routes }]\n";
    let gateway = Gateway::start(&(plain.to_owned() + &application.route())).await;
    for _ in 0..10 {
        let mut client = TcpStream::connect(gateway.address(0)).await.unwrap();
        let mut connection = opened_over(&mut client, &application, "").await;
        let last = async {
            connection.read(4096).await;
            connection.say("last words").await;
            drop(connection);
        };
        let (mut reading, mut writing) = client.split();
        let sending = async {
            let much = vec![b'x'; MORE_THAN_BUFFERS_HOLD];
            writing.write_all(&much).await.unwrap();
            writing.shutdown().await.unwrap();
        };
        let mut said = Vec::new();
        let hearing = async {
            let end = timeout(PATIENCE, reading.read_to_end(&mut said)).await;
            end.expect("it was not ended").expect("it was reset");
        };
        tokio::join!(last, sending, hearing);
        assert_eq!(said, b"last words");
    }
}

#[tokio::test]
async fn a_drain_ends_them_in_their_turn_behind_the_frame_in_hand() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route()).await;
    // Behind the 101 a frame of five bytes, of which two are there.
    let early = "\u{1}\u{5}ab";
    let (mut client, mut connection) = opened(&gateway, &application, early).await;
    gateway.metric_becomes(OPEN, &[], 1.0).await;
    gateway.stop();
    gateway.metric_becomes("tidegate_draining", &[], 1.0).await;
    gateway
        .metric_becomes("tidegate_drain_waiting_sessions", &[], 0.0)
        .await;
    connection.say("cde").await;
    connection.is_closed().await;
    let mut rest = Vec::new();
    timeout(PATIENCE, client.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    // The frame, and Close with 1001.
    assert_eq!(rest, b"\x01\x05abcde\x88\x02\x03\xe9");
    let ended = gateway.ended().await;
    assert_eq!((ended.asked, ended.cut), (1, 0));
}

#[tokio::test]
async fn one_holds_its_place_under_the_limit_of_connections() {
    let application = Scripted::start().await;
    let yaml = application.route() + "limits: {connections: 1}\n";
    let gateway = Gateway::start(&yaml).await;
    let (client, _connection) = opened(&gateway, &application, "").await;
    assert!(crate::support::client::try_tls(&gateway).await.is_err());
    drop(client);
    let free = eventually(async || crate::support::client::try_tls(&gateway).await.is_ok());
    assert!(free.await);
}
