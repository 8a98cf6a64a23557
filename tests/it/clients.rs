//! Real clients through the gateway: what they see is what they see at the broker itself.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use crate::support::clients::{assert_same_results, at_gateway};
use crate::support::gateway::Gateway;
use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::process::Process;
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
    let gateway = beside(&site, &broker).await;
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

/// A gateway with a page and a broker.
async fn beside(site: &TempDir, broker: &Mosquitto) -> Gateway {
    let yaml = format!(
        "routes: [{{path: /mqtt, pool: brokers}}, {{path: /, site: {{root: \"{}\"}}}}]\n\
         pools: {{brokers: {{brokers: [{{url: \"{}\"}}]}}}}\n",
        site.path().display(),
        broker.ws_url()
    );
    Gateway::start(&yaml).await
}

/// Firefox takes WebSockets over HTTP/2 where they are offered (RFC 8441), too. It has no protocol that shows its sockets, so
/// the gateway tells: two sessions are there, and no request came by HTTP/1.1.
#[tokio::test]
async fn firefox_carries_its_sessions_over_the_pages_http2() {
    let broker = Mosquitto::start(Options::default()).await;
    let site = TempDir::with_prefix("tidegate-site-").unwrap();
    fs::write(site.path().join("index.html"), TWO_SESSIONS).unwrap();
    let gateway = beside(&site, &broker).await;
    let home = TempDir::with_prefix("tidegate-firefox-").unwrap();
    let profile = home.path().to_str().unwrap();
    let database = format!("sql:{profile}");
    let trust = |arguments: &[&str]| {
        let mut certutil = Command::new(tools::certutil());
        certutil.args(["-d", &database]).args(arguments);
        assert!(certutil.status().unwrap().success());
    };
    trust(&["-N", "--empty-password"]);
    let authority = gateway.ca_file().to_str().unwrap();
    trust(&["-A", "-n", "ca", "-t", "C,,", "-i", authority]);
    fs::write(home.path().join("user.js"), STAYS_AT_HOME).unwrap();
    let url = format!("https://localhost:{}/", gateway.port());
    let mut command = Command::new(tools::firefox());
    command
        .args(["--headless", "--no-remote", "--profile", profile, &url])
        .env("HOME", profile);
    let mut firefox = Process::start(&command);
    gateway.metric_becomes("tidegate_sessions", &[], 2.0).await;
    let requests = "tidegate_http_requests_total";
    let by_http2 = [r#"version="2""#, r#"code="200""#];
    assert!(gateway.metric(requests, &by_http2).await >= 3.0);
    assert_eq!(gateway.metric(requests, &[r#"version="1.1""#]).await, 0.0);
    firefox.kill();
}

/// CONNECT of MQTT 3.1.1, a clean session without a keepalive, twice.
const TWO_SESSIONS: &str = "<!doctype html><title>Two sessions</title><script>
for (const id of [49, 50]) {
  const socket = new WebSocket(`wss://${location.host}/mqtt`, 'mqtt');
  const connect = [0x10, 13, 0, 4, 77, 81, 84, 84, 4, 2, 0, 0, 0, 1, id];
  socket.onopen = () => socket.send(new Uint8Array(connect));
}
</script>";

/// What Firefox asks of its makers' servers otherwise.
const STAYS_AT_HOME: &str = r#"
user_pref("app.normandy.enabled", false);
user_pref("app.update.auto", false);
user_pref("browser.safebrowsing.update.enabled", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("security.OCSP.enabled", 0);
user_pref("services.settings.server", "http://127.0.0.1:9/");
"#;

fn pool_of(url: &str) -> String {
    format!(
        "routes: [{{path: /mqtt, pool: brokers}}]\npools: {{brokers: {{brokers: [{{url: \"{url}\"}}]}}}}\n"
    )
}
