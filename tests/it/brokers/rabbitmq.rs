//! RabbitMQ's web-MQTT: Cowboy, the web server that EMQX uses too.

use crate::support::clients::{assert_same_results, at_broker};
use crate::support::gateway::Gateway;
use crate::support::rabbitmq::RabbitMq;

/// No MQTT 5, and QoS 2 is granted as 1.
const SUITE: [&str; 4] = ["--versions", "3,4", "--max-qos", "1"];

#[tokio::test]
async fn rabbitmq_web_mqtt_over_ws() {
    let broker = RabbitMq::shared().await;
    let gateway = Gateway::start(&pool_of(&broker.ws_url())).await;
    assert_same_results("mqttjs.mjs", &gateway, &broker.mqtt_url(), &SUITE).await;
}

/// The suite itself is right.
#[tokio::test]
async fn rabbitmq_directly() {
    let broker = RabbitMq::shared().await;
    for url in [broker.mqtt_url(), broker.ws_url()] {
        let lines = at_broker(
            "mqttjs.mjs",
            &url,
            &[&SUITE[..], &["--only", "3.1.1 qos"]].concat(),
        )
        .await;
        assert_eq!(lines.len(), 3, "{lines:?}");
    }
}

fn pool_of(url: &str) -> String {
    format!(
        "routes: [{{path: /mqtt, pool: brokers}}]\npools: {{brokers: {{brokers: [{{url: \"{url}\"}}]}}}}\n"
    )
}
