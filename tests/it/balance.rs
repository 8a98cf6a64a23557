//! Which broker a session goes to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinSet;

use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::gateway::Gateway;

/// Takes every session, counts it and keeps it.
fn welcoming(broker: Broker, tasks: &mut JoinSet<()>) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tasks.spawn(async move {
        let mut kept = Vec::new();
        loop {
            let mut stream = broker.accept_any().await;
            kept.push(Broker::take(&mut stream).await.then(|| {
                counted.fetch_add(1, Ordering::Relaxed);
                stream
            }));
        }
    });
    count
}

async fn weighted(weights: &[u32]) -> (Gateway, Vec<Arc<AtomicUsize>>, JoinSet<()>) {
    let mut tasks = JoinSet::new();
    let mut counts = Vec::new();
    let mut lines = Vec::new();
    for weight in weights {
        let broker = Broker::start().await;
        lines.push(format!(
            "{{url: \"{}\", weight: {weight}}}",
            broker.mqtt_url()
        ));
        counts.push(welcoming(broker, &mut tasks));
    }
    let yaml = format!(
        "routes: [{{path: /mqtt, pool: brokers}}]\npools: {{brokers: {{brokers: [{}]}}}}\n",
        lines.join(", ")
    );
    (Gateway::start(&yaml).await, counts, tasks)
}

fn read(counts: &[Arc<AtomicUsize>]) -> Vec<usize> {
    let read = |count: &Arc<AtomicUsize>| count.load(Ordering::Relaxed);
    counts.iter().map(read).collect()
}

#[tokio::test]
async fn weights_1_2_3_give_exactly_1_2_3_of_60_sessions() {
    let (gateway, counts, _tasks) = weighted(&[1, 2, 3]).await;
    let mut clients = Vec::new();
    for id in 0..60 {
        clients.push(Client::connected(&gateway, &format!("c{id}")).await);
    }
    assert_eq!(read(&counts), [10, 20, 30]);
    for metric in ["tidegate_sessions_joined_total", "tidegate_sessions"] {
        assert_eq!(gateway.metric(metric, &[]).await, 60.0, "{metric}");
    }
}

#[tokio::test]
async fn weights_hold_for_clients_that_come_all_at_once() {
    let (gateway, counts, _tasks) = weighted(&[1, 2, 3]).await;
    let ids: Vec<String> = (0..60).map(|id| format!("c{id}")).collect();
    let connecting = ids.iter().map(|id| Client::connected(&gateway, id));
    let clients = futures_util::future::join_all(connecting).await;
    assert_eq!(clients.len(), 60);
    assert_eq!(read(&counts), [10, 20, 30]);
}

#[tokio::test]
async fn weight_0_gets_none() {
    let (gateway, counts, _tasks) = weighted(&[0, 1]).await;
    for id in 0..10 {
        Client::connected(&gateway, &format!("c{id}")).await;
    }
    assert_eq!(read(&counts), [0, 10]);
}

#[tokio::test]
async fn a_broker_killed_while_clients_connect_costs_no_client_its_attempt() {
    let mut tasks = JoinSet::new();
    let mut dying = JoinSet::new();
    let (stays, dies) = (Broker::start().await, Broker::start().await);
    let gateway = Gateway::before(&[stays.mqtt_url(), dies.mqtt_url()]).await;
    let stayed = welcoming(stays, &mut tasks);
    let died = welcoming(dies, &mut dying);
    let mut clients = Vec::new();
    for id in 0..40 {
        let id_text = format!("c{id}");
        let connected = Client::connected(&gateway, &id_text);
        if id == 20 {
            // Listener and every connection, some of them perhaps between CONNECT and CONNACK.
            let killing = async {
                tokio::task::yield_now().await;
                dying.shutdown().await;
            };
            clients.push(tokio::join!(connected, killing).0);
        } else {
            clients.push(connected.await);
        }
    }
    let (stayed, died) = (stayed.load(Ordering::Relaxed), died.load(Ordering::Relaxed));
    assert!(stayed >= 29 && (10..=11).contains(&died), "{stayed} {died}");
}
