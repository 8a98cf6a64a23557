//! The sections that every file can leave out: limits, timeouts, drain, log. Their defaults stand here and nowhere else.

use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::model::LogFormat;
use super::names::LogFilter;
use super::probe_values::MqttText;
use super::values::{Count, Size, Span};

/// Bounds on what clients may take.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    /// Connections in all. `auto`: half of what the hard limit on open files leaves, since each takes two.
    pub connections: Count,
    /// TLS handshakes in flight: from a client's first byte to the end of its handshake.
    pub handshakes: Count,
    /// How long a client's hello may wait for a processor. One that has waited longer is turned away before anything is
    /// computed for it: its client has given up, or soon will.
    pub handshake_age: Span,
    /// Requests and sessions at the same time on one HTTP/2 connection; each session also takes one of `connections`. 1 to
    /// 10000.
    #[schemars(range(min = 1, max = 10000))]
    pub streams: u32,
    /// One HTTP request head. 8KiB to 1MiB.
    pub request_head: Size,
    /// The CONNECT packet. At least 256 bytes, at most `packet`.
    pub connect: Size,
    /// Any later packet, either way. At most 268435460 bytes, where MQTT itself ends.
    pub packet: Size,
    /// Payload of one WebSocket frame that we send; a longer packet leaves in fragments of one message. At least
    /// 1KiB, at most `packet`.
    pub frame: Size,
    /// The client id, and the user name. At most 65535 bytes.
    pub client_id: Size,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: Count::Auto,
            handshakes: Count::Exactly(4096),
            handshake_age: seconds(2),
            streams: 256,
            request_head: Size(16 << 10),
            connect: Size(64 << 10),
            packet: Size(256 << 20),
            frame: Size(16 << 20),
            client_id: Size(65_535),
        }
    }
}

/// How long anything may wait.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Timeouts {
    /// From accept to the end of the TLS handshake.
    pub tls: Span,
    /// For a whole HTTP request head; also the wait for the next request on a kept connection.
    pub request: Span,
    /// From the answer to the upgrade to the end of the CONNECT packet.
    pub connect: Span,
    /// One broker: name look-up, TCP, TLS and WebSocket handshake.
    pub broker_connect: Span,
    /// One broker: from forwarding CONNECT to CONNACK.
    pub connack: Span,
    /// All brokers tried for one session.
    pub join: Span,
    /// Added to 1.5 × the client's keepalive before a silent client is closed.
    pub idle_margin: Span,
    /// Interval of WebSocket pings to clients that connected with keepalive 0.
    pub ping: Span,
    /// A peer that takes no byte for this long while there are some for it is closed; of an HTTP answer it must take 16KiB.
    pub write: Span,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tls: seconds(10),
            request: seconds(10),
            connect: seconds(10),
            broker_connect: seconds(2),
            connack: seconds(5),
            join: seconds(15),
            idle_margin: seconds(10),
            ping: seconds(30),
            write: seconds(60),
        }
    }
}

/// How sessions are ended by the operator: on a stop, in an upgrade, when their broker is taken out, when they are old. All of
/// it shares one pace.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Drain {
    /// From "not ready" to the end of accepting, so that load balancers notice.
    pub announce: Span,
    /// Sessions ended per second.
    pub rate: NonZeroU32,
    /// After this long the rest is cut.
    pub max: Span,
    /// Close code of a drain: 1001 (going away) or 1012 (service restart).
    #[schemars(range(min = 1001, max = 1012))]
    pub close_code: u16,
    /// Where MQTT 5 clients are sent when the gateway stops: DISCONNECT 0x9C with this Server Reference in the place of
    /// 0x8B. `other.example.com:443`; what clients make of it is theirs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_reference: Option<MqttText>,
    /// Sessions of this age are asked to leave, up to a fifth earlier so that they do not leave together; any age unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_session_age: Option<Span>,
    /// What the supervisor grants before it kills (`TimeoutStopSec`, `terminationGracePeriodSeconds`), for `tidegate check` to
    /// compare with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace: Option<Span>,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            announce: seconds(0),
            rate: NonZeroU32::MIN.saturating_add(499),
            max: seconds(60),
            close_code: 1001,
            server_reference: None,
            max_session_age: None,
            grace: None,
        }
    }
}

fn seconds(count: u64) -> Span {
    Span(Duration::from_secs(count))
}

/// What is logged.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log {
    /// `off`, `error`, `warn`, `info`, `debug` or `trace`; also per module: `info,tidegate::gateway=debug`.
    pub level: LogFilter,
    /// One line of text or one JSON object per event.
    pub format: LogFormat,
    /// One line for each session that ended.
    pub sessions: bool,
    /// Client ids and user names in log lines.
    pub identities: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: LogFilter("info".to_owned()),
            format: LogFormat::Text,
            sessions: true,
            identities: true,
        }
    }
}
