//! Which broker a client comes to, through the front door.

use crate::support::client::Client;
use crate::support::crowd::{Crowd, Manners};
use crate::support::gateway::Gateway;
use crate::support::packets;

/// A pool with these lines, and these brokers with their own.
async fn gateway(pool: &str, brokers: &[(&Crowd, &str)]) -> Gateway {
    let brokers: Vec<String> = brokers
        .iter()
        .map(|(broker, more)| format!("{{ url: \"{}\"{more} }}", broker.url()))
        .collect();
    Gateway::start(&format!(
        "routes: [{{ path: /mqtt, pool: p }}]\npools: {{ p: {{ {pool} brokers: [{}] }} }}\n",
        brokers.join(", ")
    ))
    .await
}

async fn crowds<const COUNT: usize>() -> [Crowd; COUNT] {
    let mut crowds = Vec::new();
    for _ in 0..COUNT {
        crowds.push(Crowd::start(Manners::Welcome).await);
    }
    crowds.try_into().unwrap_or_else(|_| unreachable!())
}

/// What a client is told in CONNACK.
async fn answer(gateway: &Gateway, connect: &[u8]) -> Vec<u8> {
    let mut client = Client::open(gateway).await;
    client.send(connect).await;
    client.receive().await
}

#[tokio::test]
async fn a_client_id_finds_the_same_broker_through_every_gateway() {
    let brokers = crowds::<5>().await;
    let forward: Vec<_> = brokers.iter().map(|broker| (broker, "")).collect();
    let backward: Vec<_> = brokers.iter().rev().map(|broker| (broker, "")).collect();
    let one = gateway("balance: client_id,", &forward).await;
    let two = gateway("balance: client_id,", &backward).await;
    for number in 0..30 {
        let id = format!("device-{number}");
        Client::connected(&one, &id).await;
        Client::connected(&two, &id).await;
        let knowing = brokers.iter().filter(|broker| broker.knows(&id)).count();
        assert_eq!(knowing, 1, "{id}");
    }
    assert!(
        brokers
            .iter()
            .filter(|broker| broker.welcomed() > 0)
            .count()
            > 1
    );
}

#[tokio::test]
async fn a_client_whose_broker_fails_goes_to_its_next_and_comes_back() {
    let brokers = crowds::<3>().await;
    let each: Vec<_> = brokers.iter().map(|broker| (broker, "")).collect();
    let gateway = gateway("balance: client_id,", &each).await;
    Client::connected(&gateway, "c").await;
    let home = brokers.iter().find(|broker| broker.knows("c")).unwrap();
    home.change(Manners::Close);
    Client::connected(&gateway, "c").await;
    Client::connected(&gateway, "c").await;
    let second: Vec<_> = brokers.iter().map(Crowd::welcomed).collect();
    assert!(second.contains(&1) && second.contains(&2), "{second:?}");
    home.change(Manners::Welcome);
    Client::connected(&gateway, "c").await;
    assert_eq!(home.welcomed(), 2);
}

#[tokio::test]
async fn clients_without_an_id_go_where_there_is_most_room() {
    let [a, b, c] = crowds::<3>().await;
    let brokers = [(&a, ""), (&b, ", weight: 2"), (&c, ", weight: 3")];
    let gateway = gateway("balance: client_id,", &brokers).await;
    let mut clients = Vec::new();
    for _ in 0..12 {
        clients.push(Client::connected(&gateway, "").await);
    }
    assert_eq!([a, b, c].map(|broker| broker.welcomed()), [2, 4, 6]);
}

#[tokio::test]
async fn an_address_finds_the_same_broker() {
    let [a, b, c] = crowds::<3>().await;
    let gateway = gateway("balance: client_address,", &[(&a, ""), (&b, ""), (&c, "")]).await;
    for number in 0..6 {
        Client::connected(&gateway, &format!("c{number}")).await;
    }
    let mut welcomed = [a, b, c].map(|broker| broker.welcomed());
    welcomed.sort_unstable();
    assert_eq!(welcomed, [0, 0, 6]);
}

#[tokio::test]
async fn least_sessions_counts_those_that_are_there() {
    let [a, b] = crowds::<2>().await;
    let gateway = gateway("balance: least_sessions,", &[(&a, ""), (&b, "")]).await;
    let mut clients = Vec::new();
    for number in 0..6 {
        clients.push(Client::connected(&gateway, &format!("c{number}")).await);
    }
    assert_eq!((a.welcomed(), b.welcomed()), (3, 3));
    drop(clients);
    gateway.metric_becomes("tidegate_sessions", &[], 0.0).await;
}

#[tokio::test]
async fn a_backup_takes_sessions_only_when_no_other_is_left() {
    let [first, backup] = crowds::<2>().await;
    let gateway = gateway("", &[(&first, ""), (&backup, ", backup: true")]).await;
    for number in 0..4 {
        Client::connected(&gateway, &format!("c{number}")).await;
    }
    assert_eq!((first.welcomed(), backup.welcomed()), (4, 0));
    first.change(Manners::Close);
    Client::connected(&gateway, "c4").await;
    assert_eq!(backup.welcomed(), 1);
    first.change(Manners::Welcome);
    Client::connected(&gateway, "c5").await;
    assert_eq!((first.welcomed(), backup.welcomed()), (5, 1));
}

#[tokio::test]
async fn a_broker_that_is_down_or_without_weight_takes_none() {
    let [up, down, light] = crowds::<3>().await;
    let brokers = [(&up, ""), (&down, ", down: true"), (&light, ", weight: 0")];
    for balance in [
        "round_robin",
        "least_sessions",
        "random_of_two",
        "client_id",
    ] {
        let gateway = gateway(&format!("balance: {balance},"), &brokers).await;
        for number in 0..4 {
            Client::connected(&gateway, &format!("c{number}")).await;
        }
        gateway
            .metric_becomes("tidegate_broker_state", &["state=\"off\""], 1.0)
            .await;
    }
    assert_eq!(
        (up.welcomed(), down.welcomed(), light.welcomed()),
        (16, 0, 0)
    );
    // Not even as the last resort.
    let gateway = gateway("", &brokers).await;
    up.change(Manners::Close);
    let told = answer(&gateway, &packets::connect("c", 60)).await;
    assert_eq!(told, packets::connack(3));
    assert_eq!((down.welcomed(), light.welcomed()), (0, 0));
}

#[tokio::test]
async fn full_brokers_are_busy_until_a_session_leaves() {
    let [a, b] = crowds::<2>().await;
    let brokers = [(&a, ", max_sessions: 1"), (&b, ", max_sessions: 2")];
    let gateway = gateway("", &brokers).await;
    let mut clients = Vec::new();
    for number in 0..3 {
        clients.push(Client::connected(&gateway, &format!("c{number}")).await);
    }
    assert_eq!((a.welcomed(), b.welcomed()), (1, 2));
    let told = answer(&gateway, &packets::connect("c", 60)).await;
    assert_eq!(told, packets::connack(3));
    let told = answer(&gateway, &packets::connect_v5("c", 60)).await;
    assert_eq!(told[..4], packets::connack_v5(0x89)[..4]);
    let labels = ["reason=\"max_sessions\""];
    gateway
        .metric_becomes("tidegate_queue_refused_total", &labels, 2.0)
        .await;
    clients.pop();
    gateway.metric_becomes("tidegate_sessions", &[], 2.0).await;
    Client::connected(&gateway, "c3").await;
}

#[tokio::test]
async fn sessions_wait_for_a_place_and_no_longer_than_they_may() {
    let broker = Crowd::start(Manners::Welcome).await;
    let waiting = gateway("connect_rate: 10, queue: { age: 10s },", &[(&broker, "")]).await;
    // Two come at once, the others a tenth of a second apart.
    let all = (0..6).map(|number| {
        let waiting = &waiting;
        async move { Client::connected(waiting, &format!("c{number}")).await }
    });
    futures_util::future::join_all(all).await;
    let waited = waiting.metric("tidegate_queue_seconds_count", &[]).await;
    assert!((1.0..=5.0).contains(&waited), "{waited}");
    assert_eq!(waiting.metric("tidegate_queue_sessions", &[]).await, 0.0);

    let hasty = gateway("connect_rate: 1, queue: { age: 0s },", &[(&broker, "")]).await;
    Client::connected(&hasty, "first").await;
    let told = answer(&hasty, &packets::connect_v5("second", 60)).await;
    assert_eq!(told[..4], packets::connack_v5(0x89)[..4]);
    hasty.outcome("broker", "join", "busy").await;
}

#[tokio::test]
async fn a_broker_may_have_a_rate_of_its_own() {
    let [slow, fast] = crowds::<2>().await;
    let pool = "queue: { length: 0 },";
    let brokers = [(&slow, ", connect_rate: 1"), (&fast, "")];
    let gateway = gateway(pool, &brokers).await;
    let begun = tokio::time::Instant::now();
    for number in 0..40 {
        Client::connected(&gateway, &format!("c{number}")).await;
    }
    let most = 2.0 + begun.elapsed().as_secs_f64();
    let slow_has = slow.welcomed();
    assert!(slow_has >= 1 && slow_has as f64 <= most, "{slow_has}");
    assert_eq!(slow_has + fast.welcomed(), 40);
}

#[tokio::test]
async fn who_has_no_home_takes_the_broker_that_has_a_place() {
    let [a, b] = crowds::<2>().await;
    let pool = "connect_rate: 1, queue: { length: 0 },";
    let gateway = gateway(pool, &[(&a, ""), (&b, "")]).await;
    Client::connected(&gateway, "c0").await;
    Client::connected(&gateway, "c1").await;
    assert_eq!((a.welcomed(), b.welcomed()), (1, 1));
}
