//! Brokers that die, hang, refuse or are evacuated, and come back: no client is to see it.

mod one_of_three;
mod passive;
mod probes;
mod slow_start;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::SinkExt;
use tokio::task::JoinSet;
use tungstenite::Message;

use crate::support::client::Client;
use crate::support::crowd::Crowd;
use crate::support::gateway::Gateway;
use crate::support::{eventually, packets};

/// A pool with these lines in front of these brokers; `connack` is short, so that hanging costs little.
pub(super) fn pool(lines: &str, urls: &[String]) -> String {
    let brokers: Vec<String> = urls
        .iter()
        .map(|url| format!("{{ url: \"{url}\" }}"))
        .collect();
    format!(
        "routes: [{{ path: /mqtt, pool: p }}]\n\
         timeouts: {{ connack: 500ms, broker_connect: 500ms }}\n\
         pools: {{ p: {{ {lines} brokers: [{}] }} }}\n",
        brokers.join(", ")
    )
}

pub(super) async fn gateway(lines: &str, brokers: &[&Crowd]) -> Gateway {
    let urls: Vec<String> = brokers.iter().map(|broker| broker.url()).collect();
    Gateway::start(&pool(lines, &urls)).await
}

pub(super) async fn state_becomes(gateway: &Gateway, url: &str, state: &str) {
    let labels = [format!("broker=\"{url}\""), format!("state=\"{state}\"")];
    let labels = [labels[0].as_str(), labels[1].as_str()];
    gateway
        .metric_becomes("tidegate_broker_state", &labels, 1.0)
        .await;
}

/// Clients that come and go until they are told to stop.
pub(super) struct Load {
    tasks: JoinSet<()>,
    stop: Arc<AtomicBool>,
    joined: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
}

impl Load {
    pub(super) const CLIENTS: usize = 4;

    pub(super) fn start(gateway: &Arc<Gateway>) -> Self {
        let mut load = Self {
            tasks: JoinSet::new(),
            stop: Arc::default(),
            joined: Arc::default(),
            refused: Arc::default(),
        };
        for number in 0..Self::CLIENTS {
            let (gateway, stop) = (Arc::clone(gateway), Arc::clone(&load.stop));
            let (joined, refused) = (Arc::clone(&load.joined), Arc::clone(&load.refused));
            load.tasks.spawn(async move {
                let id = format!("load-{number}");
                while !stop.load(Ordering::Relaxed) {
                    let mut client = Client::open(&gateway).await;
                    client.send(&packets::connect(&id, 60)).await;
                    match client.receive().await == packets::connack(0) {
                        true => joined.fetch_add(1, Ordering::Relaxed),
                        false => refused.fetch_add(1, Ordering::Relaxed),
                    };
                    // A broker that was killed has just ended it, or it leaves.
                    let goodbye = Message::binary(packets::DISCONNECT.to_vec());
                    drop(client.socket.send(goodbye).await);
                }
            });
        }
        load
    }

    /// That many more clients have joined.
    pub(super) async fn goes_on(&self, more: usize) {
        let target = self.joined.load(Ordering::Relaxed) + more;
        let joined = async || self.joined.load(Ordering::Relaxed) >= target;
        assert!(eventually(joined).await, "clients join no more");
    }

    /// Stops, and answers how many joined and how many did not.
    pub(super) async fn end(mut self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        (
            self.joined.load(Ordering::Relaxed),
            self.refused.load(Ordering::Relaxed),
        )
    }
}

pub(super) async fn answers(client: &mut Client) -> bool {
    client.send(&packets::PINGREQ).await;
    client.receive().await == packets::PINGRESP
}

/// Sessions that stay, until two brokers beside the first have one each; with the broker of each told by its metric.
pub(super) async fn residents(gateway: &Gateway, without: &str) -> Vec<Client> {
    let mut residents = Vec::new();
    let mut at_it = 0.0;
    while residents.len() < 4 {
        let client = Client::connected(gateway, &format!("resident-{}", residents.len())).await;
        let label = format!("broker=\"{without}\"");
        let now = gateway
            .metric("tidegate_sessions_joined_total", &[&label])
            .await;
        match now > at_it {
            // The broker's that is about to go: dropped.
            true => at_it = now,
            false => residents.push(client),
        }
    }
    residents
}
