//! Ten thousand that do nothing, in each stage of a connection.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::iter;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::lab::{Attack, Target};
use crate::http2::floods::{PREFACE, SETTINGS, frame};
use crate::support::http2::Http2;
use crate::support::packets;

const COUNT: usize = 10_000;
const SESSIONS_EACH: usize = 200;
const LASTS: Duration = Duration::from_secs(40);

/// The deadlines are as long as they are, and there is room for them and for others.
const ROOM: &str = "limits: { connections: 15000 }";

pub(super) const TCP: Attack = Attack {
    name: "idle TCP",
    size: "10000 connections that say nothing",
    lasts: LASTS,
    yaml: ROOM,
    run: |target| {
        Box::pin(hold(target, |target| async move {
            TcpStream::connect(target.address).await
        }))
    },
};

pub(super) const TLS: Attack = Attack {
    name: "idle TLS",
    size: "10000 connections that say nothing behind the handshake",
    lasts: LASTS,
    yaml: ROOM,
    run: |target| Box::pin(hold(target, |target| async move { target.tls().await })),
};

pub(super) const HTTP2: Attack = Attack {
    name: "idle HTTP/2",
    size: "10000 connections without a stream",
    lasts: LASTS,
    yaml: ROOM,
    run: |target| {
        Box::pin(hold(target, |target| async move {
            let mut stream = target.http2().await?;
            stream.write_all(PREFACE).await?;
            stream.write_all(&frame(SETTINGS, 0, 0, b"")).await?;
            stream.read_u8().await?;
            Ok(stream)
        }))
    },
};

pub(super) const MQTT: Attack = Attack {
    name: "idle MQTT sessions",
    size: "9000 sessions over 45 HTTP/2 connections",
    lasts: LASTS,
    yaml: ROOM,
    run: |target| Box::pin(sessions(target)),
};

async fn hold<T, F: Future<Output = std::io::Result<T>>>(target: Target, open: fn(Target) -> F) {
    let opening = iter(0..COUNT)
        .map(|_| open(target.clone()))
        .buffer_unordered(32);
    let _held: Vec<_> = opening.collect().await;
    std::future::pending().await
}

async fn sessions(target: Target) {
    let mut held = Vec::new();
    for _ in 0..COUNT * 9 / 10 / SESSIONS_EACH {
        let mut connection = Http2::over(target.http2().await.unwrap()).await;
        for _ in 0..SESSIONS_EACH {
            let mut client = connection.client().await;
            client.send(&packets::connect("idle", 600)).await;
            assert_eq!(client.receive().await, packets::connack(0));
            held.push(client);
        }
    }
    sleep(LASTS).await;
}
