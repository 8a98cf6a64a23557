//! What a pool may say about choosing a broker and about the health of its brokers. Defaults stand here.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::model::ProbeKind;
use super::probe_values::{MqttText, ProbeUrl, Secret};
use super::values::Span;

#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Balance {
    /// Smooth weighted round robin.
    #[default]
    RoundRobin,
    /// The broker with the fewest sessions of this gateway for its weight.
    LeastSessions,
    /// Two are drawn by weight, the one with fewer sessions for its weight is taken: for many gateways in front of the
    /// same brokers, which do not know each other's sessions.
    RandomOfTwo,
    /// The same client address finds the same broker (IPv6: the same /64).
    ClientAddress,
    /// The same client id finds the same broker, on every gateway and after every restart; adding or removing a broker
    /// moves only its share. Clients without an id go by `least_sessions`.
    ClientId,
    /// The same for the user name; clients without one go by `least_sessions`.
    UserName,
}

/// What becomes of the sessions of an address that a broker's name no longer has.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum OnRemoved {
    /// They go on until they end.
    #[default]
    Keep,
    /// They are asked to leave at `drain.rate`, once two answers in a row lack the address.
    Drain,
}

/// Sessions that wait because every broker has taken its `connect_rate`.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Queue {
    /// Sessions that may wait at a time; the next one is told that the server is busy. 0 lets none wait.
    pub length: u32,
    /// How long each may wait. At most 1m.
    pub age: Span,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            length: 1000,
            age: seconds(2),
        }
    }
}

/// When a broker that fails sessions is left out. The last one that is left never is.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Eject {
    /// Failures in a row before CONNACK; 0 never ejects.
    pub failures: u32,
    /// How long it is left out; then one session tries it, and each time that fails doubles it.
    pub time: Span,
    /// Where doubling ends.
    pub longest: Span,
}

impl Default for Eject {
    fn default() -> Self {
        Self {
            failures: 3,
            time: seconds(10),
            longest: seconds(300),
        }
    }
}

/// Asks brokers how they are, whether or not sessions come, over the transport that sessions use.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Probe {
    /// How brokers are asked.
    pub kind: ProbeKind,
    /// From one probe of a broker to the next, give or take a tenth. At least 100ms.
    pub interval: Span,
    /// How long one probe may take.
    pub timeout: Span,
    /// Good probes in a row that bring a broker back.
    #[schemars(range(min = 1))]
    pub rise: u32,
    /// Failed probes in a row that take it out.
    #[schemars(range(min = 1))]
    pub fall: u32,
    /// Kind `mqtt`: how its client ids begin; eight random characters follow, so that no two gateways take each other's
    /// session over.
    pub client_id: MqttText,
    /// Kind `mqtt`: sent in CONNECT. Without it a broker that refuses the probe for want of a user is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_name: Option<MqttText>,
    /// Kind `mqtt`: never printed; write `${file:/run/secrets/probe}` or `${PROBE_PASSWORD}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Kind `http`: what is asked; `{host}` stands for the broker's own. 2xx is well, 503 takes no new sessions, as
    /// EMQX's `http://{host}:18083/api/v5/load_rebalance/availability_check` says while a node is evacuated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<ProbeUrl>,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            kind: ProbeKind::Off,
            interval: seconds(5),
            timeout: seconds(2),
            rise: 2,
            fall: 3,
            client_id: MqttText("tidegate-probe-".to_owned()),
            user_name: None,
            password: None,
            url: None,
        }
    }
}

pub(super) fn slow_start() -> Span {
    seconds(30)
}

fn seconds(count: u64) -> Span {
    Span(Duration::from_secs(count))
}
