//! Clients that take an answer, or give a request, a little at a time: they are let go, and those that are merely slow are not.

use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};
use tokio_rustls::client::TlsStream;

use crate::http2::floods::{
    END_HEADERS, END_STREAM, HEADERS, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE, frame, get_of,
};
use crate::support::PATIENCE;
use crate::support::client::tls;
use crate::support::gateway::{Gateway, site};
use crate::support::raw_http::{MORE_THAN_BUFFERS_HOLD, Request};

const LARGE: &str = "/large.bin";
const TICK: Duration = Duration::from_millis(20);

async fn gateway(more: &str) -> (Gateway, tempfile::TempDir) {
    let (folder, root) = site();
    std::fs::write(root.join(&LARGE[1..]), vec![7; MORE_THAN_BUFFERS_HOLD]).unwrap();
    let yaml = format!("routes: [{{ path: /, site: {{ root: {root:?} }} }}]\n{more}\n");
    (Gateway::start(&yaml).await, folder)
}

/// Asks for the large file, and has little room for it.
async fn asked(gateway: &Gateway) -> TlsStream<TcpStream> {
    let mut stream = tls(gateway).await;
    SockRef::from(stream.get_ref().0)
        .set_recv_buffer_size(4096)
        .unwrap();
    let request = Request::get(LARGE).text();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answer_is_let_go() {
    let (gateway, _folder) = gateway("timeouts: { write: 300ms }").await;
    let _stream = asked(&gateway).await;
    gateway.outcome("client", "http", "stalled").await;
    gateway
        .metric_becomes("tidegate_connections", &[], 0.0)
        .await;
}

#[tokio::test]
async fn a_client_that_takes_a_little_at_a_time_is_let_go() {
    let (gateway, _folder) = gateway("timeouts: { write: 300ms }").await;
    let mut stream = asked(&gateway).await;
    let mut tick = interval(TICK);
    let taking = async {
        while stream.read_exact(&mut [0; 50]).await.is_ok() {
            tick.tick().await;
        }
    };
    tokio::select! {
        () = taking => {}
        () = gateway.outcome("client", "http", "stalled") => {}
    }
    gateway.outcome("client", "http", "stalled").await;
}

#[tokio::test]
async fn a_client_that_is_merely_slow_gets_all_of_it() {
    let (gateway, _folder) = gateway("timeouts: { write: 1s }").await;
    let mut stream = tls(&gateway).await;
    let request = Request::get(LARGE).text();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut tick = interval(TICK);
    let mut piece = vec![0; 64 * 1024];
    let (mut taken, mut took) = (0, 1);
    while taken < MORE_THAN_BUFFERS_HOLD && took > 0 {
        took = timeout(PATIENCE, stream.read(&mut piece))
            .await
            .unwrap()
            .unwrap();
        taken += took;
        tick.tick().await;
    }
    assert!(taken >= MORE_THAN_BUFFERS_HOLD, "{taken}");
    assert_eq!(gateway.metric("tidegate_outcomes_total", &[]).await, 0.0);
}

/// Its window opens by a byte at a time, so there is always a little to send.
#[tokio::test]
async fn a_stream_that_is_read_a_byte_at_a_time_is_reset() {
    let (gateway, _folder) = gateway("timeouts: { write: 300ms }").await;
    let mut raw = Raw::connect(&gateway).await;
    raw.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1])).await;
    let head = frame(HEADERS, END_STREAM | END_HEADERS, 1, &get_of(LARGE));
    raw.send(&head).await;
    let mut tick = interval(TICK);
    let reset = async {
        loop {
            raw.send(&frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes()))
                .await;
            let next = raw.next().await.expect("the connection ended");
            if next.kind == RST_STREAM {
                return next;
            }
            tick.tick().await;
        }
    };
    let reset = timeout(PATIENCE, reset)
        .await
        .expect("it is served for ever");
    assert_eq!(
        (reset.stream, reset.payload),
        (1, vec![0, 0, 0, 8]),
        "CANCEL"
    );
    gateway.outcome("client", "http", "stalled").await;
}

/// Each is an open file and a piece of it: a client that takes none of many would have them all.
#[tokio::test]
async fn one_connection_is_sent_sixteen_files_at_a_time() {
    let (gateway, _folder) = gateway("timeouts: { request: 500ms }").await;
    let mut raw = Raw::connect(&gateway).await;
    raw.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1])).await;
    let stream = |number: u32| 2 * number + 1;
    for number in 0..17 {
        let head = get_of(LARGE);
        let head = frame(HEADERS, END_STREAM | END_HEADERS, stream(number), &head);
        raw.send(&head).await;
    }
    // `:status` 200 is a byte of the static table.
    let (mut begun, mut later) = (Vec::new(), None);
    while later.is_none() {
        let next = raw.next().await.expect("the connection ended");
        match next.payload.first() {
            Some(0x88) if next.kind == HEADERS => begun.push(next.stream),
            _ if next.kind == HEADERS => later = Some(next.stream),
            _ => {}
        }
    }
    assert_eq!((begun.len(), later), (16, Some(stream(16))));
    // Whoever is sent all of one has room for another.
    raw.send(&frame(RST_STREAM, 0, stream(0), &8_u32.to_be_bytes()))
        .await;
    let head = frame(
        HEADERS,
        END_STREAM | END_HEADERS,
        stream(17),
        &get_of(LARGE),
    );
    raw.send(&head).await;
    let answered = loop {
        let next = raw.next().await.expect("the connection ended");
        if next.kind == HEADERS {
            break (next.stream, next.payload[0]);
        }
    };
    assert_eq!(answered, (stream(17), 0x88));
}

/// The site takes no body, so none is waited for.
#[tokio::test]
async fn a_body_that_comes_a_byte_at_a_time_is_not_waited_for() {
    let (gateway, _folder) = gateway("").await;
    let mut stream = tls(&gateway).await;
    let head = Request::new("POST", "/").with("Content-Length", "1000000");
    stream.write_all(head.text().as_bytes()).await.unwrap();
    let mut tick = interval(TICK);
    let giving = async {
        while stream.write_all(b"x").await.is_ok() {
            tick.tick().await;
        }
    };
    timeout(PATIENCE, giving)
        .await
        .expect("it may go on for ever");
    gateway
        .metric_becomes("tidegate_connections", &[], 0.0)
        .await;
}
