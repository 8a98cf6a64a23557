//! mosquitto over each of the four ways a gateway reaches a broker.

use crate::support::clients::{assert_same_results, at_broker, at_gateway};
use crate::support::gateway::Gateway;
use crate::support::mosquitto::{Mosquitto, Options};

/// What mosquitto's own ws listener can send in one message.
const BINARY_OVER_WS: [&str; 2] = ["--binary", "100000"];

#[tokio::test]
async fn mosquitto_over_ws() {
    let broker = Mosquitto::start(Options::default()).await;
    let gateway = Gateway::start(&pool_of(&broker.ws_url())).await;
    assert_same_results("mqttjs.mjs", &gateway, &broker.ws_url(), &BINARY_OVER_WS).await;
}

#[tokio::test]
async fn mosquitto_over_wss() {
    let broker = Mosquitto::start(Options::default()).await;
    let gateway = Gateway::start(&trusting_pool_of(&broker.wss_url(), &broker)).await;
    assert_same_results("mqttjs.mjs", &gateway, &broker.ws_url(), &BINARY_OVER_WS).await;
}

#[tokio::test]
async fn mosquitto_over_tcp() {
    let broker = Mosquitto::start(Options::default()).await;
    let gateway = Gateway::start(&pool_of(&broker.mqtt_url())).await;
    assert_same_results("mqttjs.mjs", &gateway, &broker.mqtt_url(), &[]).await;
}

#[tokio::test]
async fn mosquitto_over_tls() {
    let broker = Mosquitto::start(Options::default()).await;
    let gateway = Gateway::start(&trusting_pool_of(&broker.mqtts_url(), &broker)).await;
    assert_same_results("mqttjs.mjs", &gateway, &broker.mqtt_url(), &[]).await;
}

#[tokio::test]
async fn sixty_four_megabytes_in_one_packet_cross_unchanged() {
    let broker = Mosquitto::start(Options::default()).await;
    let gateway = Gateway::start(&pool_of(&broker.mqtt_url())).await;
    let large = ["--versions", "4,5", "--large", "--only", "64 MB"];
    assert_same_results("mqttjs.mjs", &gateway, &broker.mqtt_url(), &large).await;
}

/// The suite itself is right: without this, two equal failures could look like success.
#[tokio::test]
async fn mosquitto_directly_over_every_listener() {
    let broker = Mosquitto::start(Options {
        users: &[("client", "123456")],
        ..Options::default()
    })
    .await;
    let ca = broker.ca_file().to_str().unwrap();
    for url in [
        broker.mqtt_url(),
        broker.mqtts_url(),
        broker.ws_url(),
        broker.wss_url(),
    ] {
        let lines = at_broker("mqttjs.mjs", &url, &["--only", "qos 2", "--ca", ca]).await;
        assert_eq!(lines.len(), 3, "{lines:?}");
    }
}

#[tokio::test]
async fn a_dead_broker_costs_no_client_its_connection() {
    let mut dead = Mosquitto::start(Options::default()).await;
    let living = Mosquitto::start(Options::default()).await;
    let gateway = Gateway::start(&format!(
        "routes: [{{path: /mqtt, pool: brokers}}]\n\
         pools: {{brokers: {{brokers: [{{url: \"{}\"}}, {{url: \"{}\"}}]}}}}\n",
        dead.mqtt_url(),
        living.mqtt_url()
    ))
    .await;
    dead.kill();
    assert_eq!(
        at_gateway("mqttjs.mjs", &gateway, &["--only", " qos "])
            .await
            .len(),
        15
    );
}

fn pool_of(url: &str) -> String {
    format!(
        "routes: [{{path: /mqtt, pool: brokers}}]\npools: {{brokers: {{brokers: [{{url: \"{url}\"}}]}}}}\n"
    )
}

fn trusting_pool_of(url: &str, broker: &Mosquitto) -> String {
    let ca = broker.ca_file().display();
    format!(
        "routes: [{{path: /mqtt, pool: brokers}}]\n\
         pools: {{brokers: {{brokers: [{{url: \"{url}\"}}], tls: {{ca: \"{ca}\", verify: true, server_name: localhost}}}}}}\n"
    )
}
