//! What the tests stand on: the gateway under test, real brokers, real clients, and the processes they are; a scripted
//! broker and a client that may say anything, for the faults that real ones cannot be made to show.

pub mod admin;
pub mod authority;
pub mod broker;
pub mod ca;
pub mod client;
pub mod clients;
pub mod frames;
pub mod crowd;
pub mod emqx;
pub mod devices;
pub mod dns;
pub mod echo;
pub mod gateway;
pub mod http2;
pub mod journal;
pub mod mosquitto;
pub mod packets;
pub mod process;
pub mod program;
pub mod rabbitmq;
pub mod raw_http;
pub mod scripted;
pub mod tools;

use std::time::Duration;

/// How long a test waits for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Asks until the answer is yes, or patience is over.
pub async fn eventually(mut condition: impl AsyncFnMut() -> bool) -> bool {
    let asking = async {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        while !condition().await {
            tick.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.is_ok()
}
