//! What `/status.json` says: docs/status.md describes it, a test compares. Names follow the nouns of the program; times are
//! Unix seconds, spans are seconds, sizes are bytes.
//!
//! INVARIANT: within one `schema` fields are added, never renamed, never given another meaning.

use serde::{Deserialize, Serialize};

/// The form of the answer.
pub const SCHEMA: u32 = 1;

/// The whole answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    pub schema: u32,
    /// Of the program.
    pub version: String,
    pub now: f64,
    pub started: f64,
    /// `ready`, `starting`, `draining` or `unwell`.
    pub state: String,
    /// What `/readyz` would say.
    pub pending: Vec<String>,
    pub configuration: Configuration,
    pub connections: Connections,
    pub sessions: u64,
    pub drain: Option<Drain>,
    pub process: Process,
    pub listeners: Vec<Listener>,
    pub pools: Vec<Pool>,
    pub certificates: Vec<Certificate>,
    pub outcomes: Vec<Outcome>,
    pub history: History,
}

/// The running configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Configuration {
    /// 1 at the start, one more with each reload.
    pub generation: u64,
    pub since: f64,
    /// The last reload, when it failed.
    pub refused: Option<Refused>,
}

/// A configuration that was not taken.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Refused {
    pub at: f64,
    pub problems: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Connections {
    pub open: u64,
    pub limit: u64,
    pub accepted: u64,
}

/// A drain that runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Drain {
    pub since: f64,
    /// Sessions when it began.
    pub sessions: u64,
    /// Sessions that are still there.
    pub left: u64,
    /// Sessions asked per second.
    pub rate: u32,
    /// At that rate.
    pub seconds_left: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Process {
    pub memory_bytes: Option<f64>,
    pub cpu_seconds: Option<f64>,
    pub open_files: Option<f64>,
    pub open_files_limit: Option<f64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Listener {
    pub name: String,
    pub address: String,
    /// `tls`, `plain` or `redirect`.
    pub speaks: String,
    pub connections: u64,
    pub accepted: u64,
    pub sessions: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pool {
    pub name: String,
    pub balance: String,
    pub sessions: u64,
    /// Sessions that wait for `connect_rate`.
    pub waiting: u64,
    pub brokers: Vec<Broker>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Broker {
    pub url: String,
    /// `up`, `ejected`, `down`, `draining` or `off`.
    pub state: String,
    pub since: f64,
    pub weight: u32,
    pub backup: bool,
    pub sessions: u64,
    pub max_sessions: Option<u64>,
    /// Of the pool's sessions, 0 to 1.
    pub share: f64,
    /// Of the weights of those that take sessions, 0 to 1; backups have none.
    pub weight_share: f64,
    /// Sessions joined since the start.
    pub joined: u64,
    pub last_error: Option<Trouble>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Trouble {
    pub at: f64,
    pub text: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Certificate {
    /// As the label `kind` of the metric; `revocation_list` too.
    pub kind: String,
    pub names: Vec<String>,
    pub issuer: String,
    pub file: String,
    pub not_after: f64,
}

/// One end of a connection or a session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// Counted from 1 since the start.
    pub number: u64,
    pub at: f64,
    /// False where clients bring such ends about every day.
    pub unusual: bool,
    pub who: String,
    pub phase: String,
    pub why: String,
    /// The sentence of the log.
    pub text: String,
    pub client: String,
    /// The client's own words: escape them.
    pub client_id: String,
    pub user_name: String,
    pub listener: String,
    pub pool: Option<String>,
    pub broker: Option<String>,
    /// How long it lasted.
    pub seconds: f64,
}

/// The last minutes, a column for each figure, the oldest first. All columns have the same length.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct History {
    /// From one row to the next.
    pub interval: f64,
    /// The number of the last row; ask with `?after=` for those behind it only.
    pub last: u64,
    pub at: Vec<f64>,
    pub connections: Vec<u64>,
    pub sessions: Vec<u64>,
    /// Per second.
    pub accepted: Vec<f64>,
    pub joined: Vec<f64>,
    pub packets_up: Vec<f64>,
    pub packets_down: Vec<f64>,
    pub bytes_up: Vec<f64>,
    pub bytes_down: Vec<f64>,
    /// Seconds from the end of CONNECT to CONNACK, of the last ten seconds; null when no session was joined.
    pub connack_p50: Vec<Option<f64>>,
    pub connack_p99: Vec<Option<f64>>,
}
