//! Connections to the application that are kept: used again, not too long, and forgiven when they have just gone.

use tokio::io::AsyncWriteExt;

use super::ask;
use crate::support::client::tls;
use crate::support::gateway::Gateway;
use crate::support::raw_http::{Answer, Request};
use crate::support::scripted::{Scripted, with_body};

const CONNECTS: &str = "tidegate_application_connects_total";

#[tokio::test]
async fn requests_share_connections_whoever_sends_them() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route()).await;
    let answer = with_body("200 OK", "ok");
    let (_, (mut connection, _)) = tokio::join!(
        async { Request::get("/api").ask(&mut tls(&gateway).await).await },
        application.answer(&answer)
    );
    for _ in 0..3 {
        let (answer, _) = tokio::join!(
            async { Request::get("/api").ask(&mut tls(&gateway).await).await },
            connection.answer(&answer)
        );
        assert_eq!(answer.body, "ok");
    }
    gateway
        .metric_becomes(CONNECTS, &["application=\"/api\""], 1.0)
        .await;
}

#[tokio::test]
async fn none_is_kept_beyond_its_time_or_where_none_is_wanted() {
    for more in ["keep_alive: {idle: 1ms}", "keep_alive: {connections: 0}"] {
        let application = Scripted::start().await;
        let gateway = Gateway::start(&application.route_with(more)).await;
        let answer = with_body("200 OK", "ok");
        let ((_, mut connection), _) = tokio::join!(
            async {
                let (connection, head) = application.answer(&answer).await;
                (head, connection)
            },
            async { Request::get("/api").ask(&mut tls(&gateway).await).await }
        );
        connection.is_closed().await;
    }
}

#[tokio::test]
async fn what_the_application_says_of_its_patience_is_heeded() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route_with("keep_alive: {idle: 1h}")).await;
    // Less a second for the way: none is left.
    let answer = "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 0\r\n\r\n";
    let (_, (mut connection, _)) = tokio::join!(
        async { Request::get("/api").ask(&mut tls(&gateway).await).await },
        application.answer(answer)
    );
    connection.is_closed().await;
}

/// The application closes just as the request comes: nothing was answered, and a GET may be sent again.
#[tokio::test]
async fn a_kept_connection_that_has_gone_costs_an_idempotent_request_nothing() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route()).await;
    let answer = with_body("200 OK", "ok");
    let (_, mut connection) = ask_and_keep(&gateway, &application, &answer).await;
    let mut client = tls(&gateway).await;
    client
        .write_all(Request::get("/api").text().as_bytes())
        .await
        .unwrap();
    connection.head().await;
    connection.reset();
    let (answer, _) = tokio::join!(Answer::read(&mut client, true), application.answer(&answer));
    assert_eq!(answer.body, "ok");
    gateway
        .metric_becomes(CONNECTS, &["application=\"/api\""], 2.0)
        .await;
    let failures = gateway
        .metric("tidegate_application_failures_total", &[])
        .await;
    assert_eq!(failures, 0.0);
}

/// A request that makes the application close every connection it comes by does so twice and no more.
#[tokio::test]
async fn a_request_is_sent_again_once() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route()).await;
    let answer = with_body("200 OK", "ok");
    // Three connections at a time, which are kept.
    let (mut clients, mut kept) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let mut client = tls(&gateway).await;
        client
            .write_all(Request::get("/api").text().as_bytes())
            .await
            .unwrap();
        kept.push(application.accept().await);
        clients.push(client);
    }
    for (client, connection) in clients.iter_mut().zip(&mut kept) {
        connection.answer(&answer).await;
        assert_eq!(Answer::read(client, true).await.status, 200);
    }
    let (mut last, mut new) = (kept.pop().unwrap(), None);
    let request = Request::get("/api");
    let (answer, ()) = tokio::join!(request.ask(&mut clients[0]), async {
        last.head().await;
        last.reset();
        let mut second = application.accept().await;
        second.head().await;
        second.reset();
        new = Some(());
    });
    assert_eq!((answer.status, new), (502, Some(())));
    assert!(application.is_left_alone().await);
}

/// It may have been done before the connection went: doing it twice is not for a gateway to decide (RFC 9110 9.2.2).
#[tokio::test]
async fn a_post_is_never_sent_twice() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route()).await;
    let answer = with_body("200 OK", "ok");
    let (_, mut connection) = ask_and_keep(&gateway, &application, &answer).await;
    let mut client = tls(&gateway).await;
    let request = Request::new("POST", "/api").with("Content-Length", "0");
    client.write_all(request.text().as_bytes()).await.unwrap();
    connection.head().await;
    drop(connection);
    let answer = Answer::read(&mut client, true).await;
    assert_eq!(answer.status, 502);
    assert!(application.is_left_alone().await);
}

/// It is not reused, and not taken for one that has gone: what began to be answered is not asked again.
#[tokio::test]
async fn a_new_connection_that_closes_is_not_tried_again() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route()).await;
    let mut client = tls(&gateway).await;
    let request = Request::get("/api");
    let (answer, ()) = tokio::join!(request.ask(&mut client), async {
        application.accept().await.head().await;
    });
    assert_eq!(answer.status, 502);
    assert!(application.is_left_alone().await);
}

#[tokio::test]
async fn a_connection_that_was_closed_while_it_was_kept_is_not_used() {
    let application = Scripted::start().await;
    let gateway = Gateway::start(&application.route()).await;
    let answer = with_body("200 OK", "ok");
    let (_, mut connection) = ask_and_keep(&gateway, &application, &answer).await;
    connection.stream.shutdown().await.unwrap();
    connection.is_closed().await;
    let request = Request::new("POST", "/api").with("Content-Length", "0");
    let (answer, _) = ask(&gateway, &application, &request, &answer).await;
    assert_eq!(answer.status, 200);
}

async fn ask_and_keep(
    gateway: &Gateway,
    application: &Scripted,
    answer: &str,
) -> (Answer, crate::support::scripted::Connection) {
    let mut client = tls(gateway).await;
    let request = Request::get("/api");
    let (answer, (connection, _)) =
        tokio::join!(request.ask(&mut client), application.answer(answer));
    (answer, connection)
}
