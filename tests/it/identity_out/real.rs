//! What real brokers know of a client, and what `tidegate check` says that they must be told.

use std::process::Command;

use tempfile::TempDir;

use super::{V4_CLIENT, V6_CLIENT, connected, gateway};
use crate::support::client::Client;
use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::packets;
use crate::support::process::Process;
use crate::support::rabbitmq::RabbitMq;
use crate::support::{PATIENCE, eventually};

/// The log line of RabbitMQ for a client, `(127.0.0.5:40000 -> 127.0.0.1:443, client id: …)`.
#[tokio::test]
async fn rabbitmq_knows_the_true_client_over_ws_and_tcp() {
    let broker = RabbitMq::behind_proxy().await;
    for url in [broker.ws_url(), broker.mqtt_url()] {
        for version in ["v1", "v2", "v2_crc32c"] {
            let keys = format!("kind: rabbitmq, proxy_protocol: {version}");
            let gateway = gateway(&url, &keys).await;
            for source in [V4_CLIENT, V6_CLIENT] {
                let (_client, address) = connected(&gateway, source, &[]).await;
                // RabbitMQ writes IPv6 in brackets here and without them there.
                let shown = format!("{}:{} -> ", address.ip(), address.port());
                let logged =
                    eventually(async || broker.log().replace(['[', ']'], "").contains(&shown))
                        .await;
                assert!(logged, "no {shown} over {url}, {version}: {}", broker.log());
            }
        }
    }
}

/// 2.0 has no PROXY protocol and reads no header: its log has the gateway's address for every client. Only 2.1 can know
/// better (`enable_proxy_protocol`), which the next test has.
#[tokio::test]
async fn mosquitto_2_0_sees_the_gateway_whatever_it_is_told() {
    let broker = Mosquitto::start(Options::default()).await;
    for url in [broker.ws_url(), broker.mqtt_url()] {
        let gateway = gateway(&url, "kind: mosquitto").await;
        let (_client, _address) = connected(&gateway, V4_CLIENT, &[]).await;
        let logged = eventually(async || broker.log().contains("New client connected from")).await;
        assert!(logged, "{}", broker.log());
        assert!(!broker.log().contains(V4_CLIENT), "{}", broker.log());
    }
}

/// mosquitto 2.1: `New client connected from 127.0.0.5:40000 as c1 (…)`.
#[tokio::test]
async fn mosquitto_2_1_knows_the_true_client_over_ws_tcp_and_unix() {
    for (version, sent) in [(1, "v1"), (2, "v2"), (2, "v2_crc32c")] {
        let broker = Mosquitto::start(Options {
            proxy_protocol: Some(version),
            ..Options::default()
        })
        .await;
        // Not over TLS: mosquitto refuses to have both on one listener.
        for url in [broker.mqtt_url(), broker.ws_url(), broker.unix_url()] {
            let keys = format!("kind: mosquitto, proxy_protocol: {sent}");
            let gateway = gateway(&url, &keys).await;
            for source in [V4_CLIENT, V6_CLIENT] {
                let (_client, address) = connected(&gateway, source, &[]).await;
                let from = format!("{}:{} as c1", address.ip(), address.port());
                broker.says(&["New client connected from", &from]).await;
            }
        }
    }
}

#[tokio::test]
async fn a_broker_that_wants_a_certificate_gets_the_pools() {
    let broker = Mosquitto::start(Options {
        wants_certificate: true,
        ..Options::default()
    })
    .await;
    let authority = broker.authority();
    let (ca, chain, key) = (&authority.ca, &authority.chain, &authority.key);
    for url in [broker.mqtts_url(), broker.wss_url()] {
        let keys = format!(
            "kind: mosquitto, tls: {{server_name: localhost, ca: {ca:?}, certificate: {chain:?}, key: {key:?}}}"
        );
        let with = gateway(&url, &keys).await;
        let (_client, _address) = connected(&with, V4_CLIENT, &[]).await;

        let keys = format!("kind: mosquitto, tls: {{server_name: localhost, ca: {ca:?}}}");
        let without = gateway(&url, &keys).await;
        let mut client = Client::open(&without).await;
        client.send(&packets::connect("c1", 60)).await;
        assert_eq!(client.receive().await, packets::connack(3), "{url}");
    }
}

#[tokio::test]
async fn check_says_what_the_broker_must_be_told() {
    let folder = TempDir::new().unwrap();
    let cases = [
        (
            "emqx, proxy_protocol: v2",
            "listeners.<tcp, ssl, ws or wss>.<name>.proxy_protocol = true",
        ),
        (
            "emqx",
            "listeners.ws.<name>.websocket.proxy_address_header = \"x-forwarded-for\"",
        ),
        ("rabbitmq", "web_mqtt.proxy_protocol = true"),
        ("mosquitto, proxy_protocol: v2", "enable_proxy_protocol 2"),
        ("vernemq", "listener.ws.<name>.proxy_xff_support = on"),
        ("artemis, proxy_protocol: v1", "proxyProtocolEnabled=true"),
        ("hivemq", "<proxy-protocol>true</proxy-protocol>"),
        ("nanomq", "NanoMQ reads none from headers"),
    ];
    for (kind, option) in cases {
        let file = folder.path().join("tidegate.yaml");
        let yaml = format!(
            "listeners: [{{address: \"127.0.0.1:0\", plain: routes}}]\nroutes: [{{pool: brokers}}]\n\
             pools: {{brokers: {{kind: {kind}, brokers: [{{url: \"ws://127.0.0.1:8083\"}}]}}}}\n"
        );
        std::fs::write(&file, yaml).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.arg("check").arg("-c").arg(&file);
        let finished = Process::start(&command).finish(PATIENCE).await;
        assert!(finished.status.success(), "{kind}: {}", finished.stderr);
        assert!(
            finished.stdout.contains(option),
            "{kind}: {}",
            finished.stdout
        );
    }
}
