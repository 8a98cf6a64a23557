//! What the sessions show: failures eject a broker.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{Load, answers, gateway, pool, residents, state_becomes};
use crate::support::client::Client;
use crate::support::crowd::{Crowd, Manners};
use crate::support::gateway::Gateway;
use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::{eventually, packets};

#[tokio::test]
async fn a_killed_broker_is_noticed_by_the_gateway_and_not_by_its_clients() {
    let mut dead = Mosquitto::start(Options::default()).await;
    let (one, two) = (
        Mosquitto::start(Options::default()).await,
        Mosquitto::start(Options::default()).await,
    );
    let urls = [dead.ws_url(), one.ws_url(), two.mqtt_url()];
    let gateway = Arc::new(Gateway::start(&pool("", &urls)).await);
    let mut residents = residents(&gateway, &urls[0]).await;
    let load = Load::start(&gateway);
    load.goes_on(20).await;
    dead.kill();
    state_becomes(&gateway, &urls[0], "ejected").await;
    load.goes_on(30).await;
    let (joined, refused) = load.end().await;
    assert_eq!(refused, 0, "of {joined}");
    for resident in &mut residents {
        assert!(answers(resident).await);
    }
    let noticed = gateway
        .metric("tidegate_broker_notice_seconds_sum", &[])
        .await;
    assert!(noticed < 5.0, "{noticed}");
}

#[tokio::test]
async fn a_hanging_broker_is_ejected_and_comes_back_when_it_goes_on() {
    let hanging = Mosquitto::start(Options::default()).await;
    let (one, two) = (
        Mosquitto::start(Options::default()).await,
        Mosquitto::start(Options::default()).await,
    );
    let urls = [hanging.ws_url(), one.ws_url(), two.mqtt_url()];
    let lines = "eject: { time: 300ms, longest: 600ms }, slow_start: 1s,";
    let gateway = Arc::new(Gateway::start(&pool(lines, &urls)).await);
    let mut residents = residents(&gateway, &urls[0]).await;
    let load = Load::start(&gateway);
    load.goes_on(10).await;
    hanging.hang();
    state_becomes(&gateway, &urls[0], "ejected").await;
    let noticed = gateway
        .metric("tidegate_broker_notice_seconds_sum", &[])
        .await;
    assert!(noticed < 5.0, "{noticed}");
    load.goes_on(20).await;
    hanging.go_on();
    state_becomes(&gateway, &urls[0], "up").await;
    load.goes_on(10).await;
    let (joined, refused) = load.end().await;
    assert_eq!(refused, 0, "of {joined}");
    for resident in &mut residents {
        assert!(answers(resident).await);
    }
}

#[tokio::test]
async fn brokers_that_fail_in_any_way_are_ejected_and_cost_no_client_its_session() {
    for (manners, cause) in [
        (Manners::Close, "closed"),
        (Manners::Hang, "connack_timeout"),
        (Manners::Refuse(3), "connack_elsewhere"),
    ] {
        let bad = Crowd::start(manners).await;
        let (one, two) = (
            Crowd::start(Manners::Welcome).await,
            Crowd::start(Manners::Welcome).await,
        );
        let gateway = Arc::new(gateway("", &[&bad, &one, &two]).await);
        let load = Load::start(&gateway);
        state_becomes(&gateway, &bad.url(), "ejected").await;
        load.goes_on(20).await;
        let (joined, refused) = load.end().await;
        assert_eq!(refused, 0, "{cause}: of {joined}");
        let cause = format!("cause=\"{cause}\"");
        let failures = gateway
            .metric("tidegate_broker_failures_total", &[&cause])
            .await;
        // Those that were on their way when it was ejected.
        assert!(
            (3.0..=3.0 + Load::CLIENTS as f64).contains(&failures),
            "{cause}: {failures}"
        );
        assert_eq!(
            gateway.metric("tidegate_broker_ejections_total", &[]).await,
            1.0
        );
    }
}

#[tokio::test]
async fn a_broker_that_hangs_longer_than_clients_wait_is_ejected_too() {
    let (hanging, well) = (
        Crowd::start(Manners::Hang).await,
        Crowd::start(Manners::Welcome).await,
    );
    let text = pool("", &[hanging.url(), well.url()]).replace("connack: 500ms", "connack: 1s");
    let gateway = Gateway::start(&text).await;
    let impatient = async || {
        let mut client = Client::open(&gateway).await;
        client.send(&packets::connect("impatient", 60)).await;
        let wait = Duration::from_millis(700);
        drop(timeout(wait, client.receive()).await);
        drop(client);
        gateway.metric("tidegate_broker_ejections_total", &[]).await == 1.0
    };
    assert!(eventually(impatient).await);
    let labels = ["cause=\"abandoned\""];
    assert!(
        gateway
            .metric("tidegate_broker_failures_total", &labels)
            .await
            >= 3.0
    );
}

/// By round robin it would be one of ten, and by few sessions a broker that is well again would stay out for long.
#[tokio::test]
async fn the_first_session_after_its_time_tries_an_ejected_broker() {
    let (ill, well) = (
        Crowd::start(Manners::Close).await,
        Crowd::start(Manners::Welcome).await,
    );
    let lines = "eject: { failures: 1, time: 1s, longest: 1s },";
    let gateway = gateway(lines, &[&ill, &well]).await;
    let mut kept = Vec::new();
    for round in 1..4 {
        ill.change(Manners::Close);
        let ejections = async || {
            kept.push(Client::connected(&gateway, "c").await);
            let metric = "tidegate_broker_ejections_total";
            gateway.metric(metric, &[]).await == f64::from(round)
        };
        assert!(eventually(ejections).await);
        ill.change(Manners::Welcome);
        let before = ill.welcomed();
        sleep(Duration::from_millis(1500)).await;
        kept.push(Client::connected(&gateway, "c").await);
        assert_eq!(ill.welcomed(), before + 1, "round {round}");
        state_becomes(&gateway, &ill.url(), "up").await;
    }
}

#[tokio::test]
async fn the_last_broker_is_never_ejected() {
    let only = Crowd::start(Manners::Hang).await;
    let gateway = gateway("eject: { failures: 1 },", &[&only]).await;
    for _ in 0..3 {
        let mut client = Client::open(&gateway).await;
        client.send(&packets::connect("c", 60)).await;
        assert_eq!(client.receive().await, packets::connack(3));
    }
    only.change(Manners::Welcome);
    Client::connected(&gateway, "c").await;
    assert_eq!(
        gateway.metric("tidegate_broker_ejections_total", &[]).await,
        0.0
    );
}

#[tokio::test]
async fn when_all_brokers_are_out_all_are_tried() {
    let (one, two) = (
        Crowd::start(Manners::Close).await,
        Crowd::start(Manners::Close).await,
    );
    // Nobody can say of these that they are well.
    let lines = "probe: { kind: mqtt, interval: 100ms, timeout: 100ms, fall: 1 },";
    let gateway = gateway(lines, &[&one, &two]).await;
    state_becomes(&gateway, &one.url(), "down").await;
    state_becomes(&gateway, &two.url(), "down").await;
    one.change(Manners::CloseOn("none".to_owned()));
    Client::connected(&gateway, "c").await;
}

#[tokio::test]
async fn a_client_cannot_have_brokers_ejected() {
    let poison = || Manners::CloseOn("poison".to_owned());
    let (one, two) = (Crowd::start(poison()).await, Crowd::start(poison()).await);
    let gateway = gateway("eject: { failures: 2 },", &[&one, &two]).await;
    for _ in 0..5 {
        let mut client = Client::open(&gateway).await;
        client.send(&packets::connect("poison", 60)).await;
        assert_eq!(client.receive().await, packets::connack(3));
    }
    assert_eq!(
        gateway.metric("tidegate_broker_ejections_total", &[]).await,
        0.0
    );
    let labels = ["cause=\"closed\""];
    let failures = gateway
        .metric("tidegate_broker_failures_total", &labels)
        .await;
    assert_eq!(failures, 10.0);
}
