//! Real clients through the gateway: what they see is what they see at the broker itself.

use std::fs;

use tempfile::TempDir;

use crate::support::clients::{assert_same_results, at_gateway};
use crate::support::gateway::Gateway;
use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::tools;

/// The access list of the two-way example: the client writes /p/client/upload and reads /p/client/download.
const TWO_WAY: &str = "user client
topic write /p/client/upload
topic read /p/client/download

user server
topic readwrite /p/client/upload
topic readwrite /p/client/download
";

#[tokio::test]
async fn mqttjs_gives_the_same_results_as_directly_at_the_broker() {
    let broker = Mosquitto::start(Options {
        users: &[("client", "123456")],
        ..Options::default()
    })
    .await;
    let gateway = Gateway::start(&pool_of(&broker.mqtt_url())).await;
    assert_same_results("mqttjs.mjs", &gateway, &broker.mqtt_url(), &[]).await;
}

#[tokio::test]
async fn pahojs_gives_the_same_results_as_directly_at_the_broker() {
    let broker = Mosquitto::start(Options {
        users: &[("client", "123456")],
        ..Options::default()
    })
    .await;
    let gateway = Gateway::start(&pool_of(&broker.ws_url())).await;
    assert_same_results("pahojs.mjs", &gateway, &broker.ws_url(), &[]).await;
}

#[tokio::test]
async fn paho_python_gives_the_same_results_as_directly_at_the_broker() {
    let broker = Mosquitto::start(Options {
        users: &[("client", "123456")],
        ..Options::default()
    })
    .await;
    let gateway = Gateway::start(&pool_of(&broker.mqtt_url())).await;
    assert_same_results("paho_python.py", &gateway, &broker.mqtt_url(), &[]).await;
}

#[tokio::test]
async fn two_way_example() {
    let users = [("client", "123456"), ("server", "123456")];
    let broker = Mosquitto::start(Options {
        users: &users,
        access_list: Some(TWO_WAY),
        ..Options::default()
    })
    .await;
    let gateway = Gateway::start(&pool_of(&broker.ws_url())).await;
    let port = broker.tcp_port().to_string();
    let python = tools::python();
    let server_side = ["--python", python.to_str().unwrap(), "--broker-port", &port];
    assert_eq!(
        at_gateway("two_way.mjs", &gateway, &server_side)
            .await
            .len(),
        4
    );
}

#[tokio::test]
async fn mini_program_front() {
    let broker = Mosquitto::start(Options::default()).await;
    // As phones meet it: the broker speaks wss with a certificate that nobody can check.
    let yaml = format!(
        "routes: [{{path: /mqtt, pool: brokers}}]\n\
         pools: {{brokers: {{brokers: [{{url: \"{}\"}}], tls: {{verify: false}}}}}}\n",
        broker.wss_url()
    );
    let gateway = Gateway::start(&yaml).await;
    assert_eq!(
        at_gateway("mini_program.mjs", &gateway, &["--versions", "4,5"])
            .await
            .len(),
        6
    );
}

#[tokio::test]
async fn chromium_page() {
    let broker = Mosquitto::start(Options::default()).await;
    let site = TempDir::with_prefix("tidegate-site-").unwrap();
    fs::copy(tools::client("page.html"), site.path().join("index.html")).unwrap();
    let script = tools::client("node_modules/mqtt/dist/mqtt.min.js");
    // Beside the route /mqtt on purpose: a path prefix ends at a slash.
    fs::copy(script, site.path().join("mqtt.min.js")).unwrap();
    let yaml = format!(
        "routes: [{{path: /mqtt, pool: brokers}}, {{path: /, site: {{root: \"{}\"}}}}]\n\
         pools: {{brokers: {{brokers: [{{url: \"{}\"}}]}}}}\n",
        site.path().display(),
        broker.ws_url()
    );
    let gateway = Gateway::start(&yaml).await;
    let chromium = tools::chromium();
    assert_eq!(
        at_gateway(
            "chromium.mjs",
            &gateway,
            &["--chromium", chromium.to_str().unwrap()]
        )
        .await
        .len(),
        8
    );
}

fn pool_of(url: &str) -> String {
    format!(
        "routes: [{{path: /mqtt, pool: brokers}}]\npools: {{brokers: {{brokers: [{{url: \"{url}\"}}]}}}}\n"
    )
}
