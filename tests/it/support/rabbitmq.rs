//! A real RabbitMQ with its MQTT and web-MQTT plugins: a node, an epmd and folders of its own, on free loopback ports.
//!
//! It knows no MQTT 5, and grants QoS 1 to whoever asks for 2. It takes some ten seconds to start, so the tests that
//! run at the same time share one.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::support::process::{Process, free_addresses};
use crate::support::tools;

/// Erlang boots slowly on a machine that runs other tests.
const DEADLINE: Duration = Duration::from_secs(120);

const ATTEMPTS: usize = 3;

static SHARED: Mutex<Weak<RabbitMq>> = Mutex::const_new(Weak::new());

/// A running node; it ends with its last user.
pub struct RabbitMq {
    // The order matters: the node goes before the epmd that it is registered with.
    node: Process,
    _epmd: Process,
    web_mqtt: SocketAddr,
    mqtt: SocketAddr,
    _folder: TempDir,
}

impl RabbitMq {
    /// The node that other tests are using, or a new one.
    pub async fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().await;
        if let Some(running) = shared.upgrade() {
            return running;
        }
        let started = Arc::new(Self::start(false).await);
        *shared = Arc::downgrade(&started);
        started
    }

    pub fn ws_url(&self) -> String {
        format!("ws://{}/ws", self.web_mqtt)
    }

    pub fn mqtt_url(&self) -> String {
        format!("mqtt://{}", self.mqtt)
    }

    /// A node of the caller's own, whose listeners for MQTT want a PROXY header.
    pub async fn behind_proxy() -> Self {
        Self::start(true).await
    }

    /// The last lines of the node's log.
    pub fn log(&self) -> String {
        self.node.last_words()
    }

    async fn start(proxy_protocol: bool) -> Self {
        let mut last_error = String::new();
        for _ in 0..ATTEMPTS {
            match Self::try_start(proxy_protocol).await {
                Ok(started) => return started,
                Err(error) if error.contains("eaddrinuse") || error.contains("already in use") => {
                    last_error = error
                }
                Err(error) => panic!("{error}"),
            }
        }
        panic!("{ATTEMPTS} sets of free ports were all taken: {last_error}");
    }

    async fn try_start(proxy_protocol: bool) -> Result<Self, String> {
        let folder = TempDir::with_prefix("tidegate-rabbitmq-").unwrap();
        let [epmd_at, distribution, amqp, mqtt, web_mqtt] = free_addresses();
        write_configuration(folder.path(), amqp, mqtt, web_mqtt, proxy_protocol);

        // In the foreground and ours; left to itself, Erlang starts one as a daemon that outlives everything.
        let port = epmd_at.port().to_string();
        let mut epmd = Process::start(Command::new(tools::epmd()).args([
            "-address",
            "127.0.0.1",
            "-port",
            port.as_str(),
        ]));
        epmd.wait_until_listening(&[epmd_at], DEADLINE).await?;

        let mut command = Command::new(tools::rabbitmq_server());
        command
            .env("HOME", folder.path())
            .env("ERL_EPMD_PORT", &port)
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODENAME", format!("tidegate{port}@localhost"))
            .env("RABBITMQ_DIST_PORT", distribution.port().to_string())
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-kernel inet_dist_use_interface {127,0,0,1}",
            )
            .env("RABBITMQ_MNESIA_BASE", folder.path().join("mnesia"))
            .env("RABBITMQ_LOG_BASE", folder.path().join("log"))
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_CONFIG_FILE", folder.path().join("rabbitmq.conf"))
            .env(
                "RABBITMQ_ADVANCED_CONFIG_FILE",
                folder.path().join("none.config"),
            )
            .env("RABBITMQ_CONF_ENV_FILE", folder.path().join("env.conf"))
            .env(
                "RABBITMQ_ENABLED_PLUGINS_FILE",
                folder.path().join("enabled_plugins"),
            );
        let mut node = Process::start(&command);
        node.wait_until_listening(&[mqtt, web_mqtt], DEADLINE)
            .await?;
        Ok(Self {
            node,
            _epmd: epmd,
            web_mqtt,
            mqtt,
            _folder: folder,
        })
    }
}

fn write_configuration(
    folder: &Path,
    amqp: SocketAddr,
    mqtt: SocketAddr,
    web_mqtt: SocketAddr,
    proxy_protocol: bool,
) {
    let text = format!(
        "listeners.tcp.1 = {amqp}\n\
         mqtt.listeners.tcp.1 = {mqtt}\n\
         mqtt.allow_anonymous = true\n\
         mqtt.default_user = guest\n\
         mqtt.default_pass = guest\n\
         web_mqtt.tcp.ip = {}\n\
         web_mqtt.tcp.port = {}\n\
         mqtt.proxy_protocol = {proxy_protocol}\n\
         web_mqtt.proxy_protocol = {proxy_protocol}\n",
        web_mqtt.ip(),
        web_mqtt.port()
    );
    fs::write(folder.join("rabbitmq.conf"), text).unwrap();
    fs::write(folder.join("env.conf"), "").unwrap();
    fs::write(
        folder.join("enabled_plugins"),
        "[rabbitmq_mqtt,rabbitmq_web_mqtt].\n",
    )
    .unwrap();
}
