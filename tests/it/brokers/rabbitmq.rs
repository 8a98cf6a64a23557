//! RabbitMQ's web-MQTT: Cowboy, the web server that EMQX uses too.

use crate::support::clients::{assert_same_results, at_broker};
use crate::support::gateway::Gateway;
use crate::support::rabbitmq::RabbitMq;

/// No MQTT 5, and QoS 2 is granted as 1.
const SUITE: [&str; 4] = ["--versions", "3,4", "--max-qos", "1"];

/// What web-MQTT of 3.10 does wrong, though the same broker's tcp listener is right: it closes instead of answering a
/// wrong password, and publishes the Will of a client that said DISCONNECT.
const WEB_FAULTS: [&str; 4] = [
    "--without",
    "wrong password",
    "--without",
    "no will after DISCONNECT",
];

#[tokio::test]
async fn rabbitmq_web_mqtt_over_ws() {
    let broker = RabbitMq::shared().await;
    let gateway = Gateway::start(&pool_of(&broker.ws_url())).await;
    assert_same_results(
        "mqttjs.mjs",
        &gateway,
        &broker.ws_url(),
        &[SUITE, WEB_FAULTS].concat(),
    )
    .await;
}

/// The suite itself is right.
#[tokio::test]
async fn rabbitmq_directly() {
    let broker = RabbitMq::shared().await;
    let quick = [&SUITE[..], &["--only", "3.1.1"]].concat();
    assert_eq!(
        at_broker("mqttjs.mjs", &broker.mqtt_url(), &quick)
            .await
            .len(),
        14
    );
    let quick = [&quick[..], &WEB_FAULTS].concat();
    assert_eq!(
        at_broker("mqttjs.mjs", &broker.ws_url(), &quick)
            .await
            .len(),
        12
    );
}

fn pool_of(url: &str) -> String {
    format!(
        "routes: [{{path: /mqtt, pool: brokers}}]\npools: {{brokers: {{brokers: [{{url: \"{url}\"}}]}}}}\n"
    )
}
