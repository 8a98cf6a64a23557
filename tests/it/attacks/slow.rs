//! Clients that take or give a little at a time.

use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use super::lab::{Attack, LARGE, Target};
use crate::http2::floods::{
    END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, WINDOW_UPDATE, frame, get_of,
};
use crate::support::raw_http::Request;

const LASTS: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_secs(1);

/// So that what waits too long is seen to end within the test.
const SHORT: &str = "timeouts: { request: 8s, write: 8s }";

pub(super) const HEADS: Attack = Attack {
    name: "slow heads",
    size: "2000 connections, a byte a second each",
    lasts: LASTS,
    yaml: SHORT,
    run: |target| Box::pin(at_once(target, 2000, slow_head)),
};

pub(super) const BODIES: Attack = Attack {
    name: "slow bodies",
    size: "2000 connections, a byte a second each",
    lasts: LASTS,
    yaml: SHORT,
    run: |target| Box::pin(at_once(target, 2000, slow_body)),
};

pub(super) const READERS: Attack = Attack {
    name: "slow readers",
    size: "1000 connections that ask for 64 MB, 100 bytes a second each",
    lasts: LASTS,
    yaml: SHORT,
    run: |target| Box::pin(at_once(target, 1000, slow_reader)),
};

pub(super) const STREAMS: Attack = Attack {
    name: "slow readers of streams",
    size: "100 connections, 100 streams of 64 MB each, a byte of window a second",
    lasts: LASTS,
    yaml: SHORT,
    run: |target| Box::pin(at_once(target, 100, slow_streams)),
};

/// All of them, each again when it was ended.
pub(super) async fn at_once<F: Future<Output = std::io::Result<()>> + 'static>(
    target: Target,
    count: usize,
    attack: fn(Target) -> F,
) {
    let attackers = (0..count).map(|_| async {
        loop {
            if attack(target.clone()).await.is_err() {
                sleep(PAUSE).await;
            }
        }
    });
    let _never: Vec<()> = futures_util::future::join_all(attackers).await;
}

async fn slow_head(target: Target) -> std::io::Result<()> {
    let mut stream = target.tls().await?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
        .await?;
    loop {
        stream.write_all(b"x").await?;
        sleep(PAUSE).await;
    }
}

async fn slow_body(target: Target) -> std::io::Result<()> {
    let mut stream = target.tls().await?;
    let head = Request::new("POST", "/").with("Content-Length", "1000000");
    stream.write_all(head.text().as_bytes()).await?;
    loop {
        stream.write_all(b"x").await?;
        sleep(PAUSE).await;
    }
}

async fn slow_reader(target: Target) -> std::io::Result<()> {
    let mut stream = target.tls().await?;
    SockRef::from(stream.get_ref().0).set_recv_buffer_size(4096)?;
    stream
        .write_all(Request::get(LARGE).text().as_bytes())
        .await?;
    loop {
        stream.read_exact(&mut [0; 100]).await?;
        sleep(PAUSE).await;
    }
}

async fn slow_streams(target: Target) -> std::io::Result<()> {
    let mut stream = target.http2().await?;
    stream.write_all(PREFACE).await?;
    // SETTINGS_INITIAL_WINDOW_SIZE is 1.
    stream
        .write_all(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1]))
        .await?;
    let ids: Vec<u32> = (0..100).map(|number| number * 2 + 1).collect();
    for id in &ids {
        let head = frame(HEADERS, END_STREAM | END_HEADERS, *id, &get_of(LARGE));
        stream.write_all(&head).await?;
    }
    let (mut reader, mut writer) = tokio::io::split(stream);
    let reading = async {
        let mut bytes = [0; 16 * 1024];
        while reader.read(&mut bytes).await? > 0 {}
        Ok(())
    };
    let writing = async {
        loop {
            for id in &ids {
                let more = frame(WINDOW_UPDATE, 0, *id, &1_u32.to_be_bytes());
                writer.write_all(&more).await?;
            }
            sleep(PAUSE).await;
        }
    };
    tokio::select! {
        ended = reading => ended,
        ended = writing => ended,
    }
}
