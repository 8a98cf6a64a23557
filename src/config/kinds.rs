//! What each kind of broker is like: a row of defaults, and what its own configuration must say. The only such table.
//!
//! No row turns the PROXY protocol on: a listener that does not expect it refuses every connection.

use super::model::{BrokerKind, ForwardedPort};

/// One row. Every value can be set by itself.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// As its makers write it.
    pub name: &'static str,
    /// Path of the WebSocket handshake.
    pub path: &'static str,
    pub subprotocol: &'static str,
    pub forwarded_port: ForwardedPort,
    /// Bytes of the request head that it takes.
    pub request_head: usize,
    /// What it must be told to believe the headers; `None` when it reads none.
    pub headers: Option<&'static [&'static str]>,
    /// What it must be told to expect PROXY; `None` when it cannot.
    pub proxy_protocol: Option<&'static [&'static str]>,
    /// What it must be told to take a client certificate's common name for the user name.
    pub certificate: Option<&'static str>,
}

/// What every broker is taken for until it is known better.
const GENERIC: Kind = Kind {
    name: "the broker",
    // EMQX, VerneMQ, HiveMQ, NanoMQ; mosquitto and Artemis take any.
    path: "/mqtt",
    // MQTT 5 6, 3.1.1 6: one token that all of them know. NanoMQ and mosquitto 2.1 compare the whole header with it.
    subprotocol: "mqtt",
    // The port that the client connected to, as nginx, HAProxy, Traefik and ALB mean it.
    forwarded_port: ForwardedPort::Listener,
    // Cowboy and Netty: 4 KiB to 8 KiB for a line or all; the smallest of the known ones.
    request_head: 4 << 10,
    headers: Some(&[]),
    proxy_protocol: Some(&[]),
    certificate: None,
};

/// `apps/emqx/src/emqx_schema.erl`, `emqx_ws_connection.erl`, `changes/6.0.3.en.md`.
const EMQX: Kind = Kind {
    name: "EMQX",
    // `proxy_port_header`: the client's own port; with another one, logs and the dashboard show nonsense.
    forwarded_port: ForwardedPort::Client,
    headers: Some(&[
        "up to 6.2 nothing: it reads X-Forwarded-For and X-Forwarded-Port from anyone; from 6.3 on, in emqx.conf:",
        "listeners.ws.<name>.websocket.proxy_address_header = \"x-forwarded-for\"",
        "listeners.ws.<name>.websocket.proxy_port_header = \"x-forwarded-port\"",
    ]),
    proxy_protocol: Some(&[
        "listeners.<tcp, ssl, ws or wss>.<name>.proxy_protocol = true",
        "it then wants the header within proxy_protocol_timeout (3s), and reads no X-Forwarded-For any more",
    ]),
    certificate: Some("mqtt.peer_cert_as_username = cn"),
    ..GENERIC
};

/// `src/http_serv.c`, `src/proxy_v2.c`, `lib/net_ws.c` of 2.1, and its man page.
const MOSQUITTO: Kind = Kind {
    name: "mosquitto",
    // The buffer for a request is `packet_buffer_size`, 4096, and must not be full.
    request_head: 3 << 10,
    // 2.0 has no option; 2.1 does not read them.
    headers: None,
    proxy_protocol: Some(&[
        "mosquitto 2.1 or newer, in the section of a listener without certfile (2.0 cannot):",
        "enable_proxy_protocol 2",
    ]),
    certificate: Some("require_certificate true and use_identity_as_username true"),
    ..GENERIC
};

/// `vmq_websocket.erl`, `vmq_proxy_xff.erl` and its schema.
const VERNEMQ: Kind = Kind {
    name: "VerneMQ",
    headers: Some(&[
        "listener.ws.<name>.proxy_xff_support = on",
        "listener.ws.<name>.proxy_xff_trusted_intermediate = <the IPv4 addresses of the gateway and of the proxies before it, with ; between them>",
        "with `certificate_header: x-ssl-client-cn`: proxy_xff_use_cn_as_username = on, proxy_xff_cn_header = x-ssl-client-cn",
    ]),
    proxy_protocol: Some(&["listener.<tcp or ws>.<name>.proxy_protocol = on"]),
    certificate: Some("proxy_protocol_use_cn_as_username = on (its default)"),
    ..GENERIC
};

/// `rabbit_web_mqtt_handler.erl`, `rabbit_web_mqtt_app.erl`.
const RABBITMQ: Kind = Kind {
    name: "RabbitMQ",
    // `web_mqtt.ws_path`
    path: "/ws",
    headers: None,
    proxy_protocol: Some(&[
        "web_mqtt.proxy_protocol = true (ws, wss)",
        "mqtt.proxy_protocol = true (mqtt, mqtts)",
    ]),
    ..GENERIC
};

/// `hivemq-community-edition` issue 184; docs.hivemq.com, user guide, PROXY protocol.
const HIVEMQ: Kind = Kind {
    name: "HiveMQ",
    headers: None,
    proxy_protocol: Some(&[
        "the Enterprise edition (Community cannot), in the listener's section:",
        "<proxy-protocol>true</proxy-protocol>",
    ]),
    ..GENERIC
};

/// NanoNNG `websocket.c`, `nmq_websocket.c`: neither found.
const NANOMQ: Kind = Kind {
    name: "NanoMQ",
    headers: None,
    proxy_protocol: None,
    ..GENERIC
};

/// Artemis' own documentation, `proxy-protocol.adoc`.
const ARTEMIS: Kind = Kind {
    name: "Artemis",
    headers: None,
    proxy_protocol: Some(&[
        "Artemis 2.43 or newer, on the acceptor: proxyProtocolEnabled=true (the header is mandatory then)",
    ]),
    ..GENERIC
};

impl BrokerKind {
    pub fn row(self) -> &'static Kind {
        match self {
            Self::Generic => &GENERIC,
            Self::Emqx => &EMQX,
            Self::Mosquitto => &MOSQUITTO,
            Self::Vernemq => &VERNEMQ,
            Self::Rabbitmq => &RABBITMQ,
            Self::Hivemq => &HIVEMQ,
            Self::Nanomq => &NANOMQ,
            Self::Artemis => &ARTEMIS,
        }
    }
}
