//! What the operator sees: log lines, metrics.

pub mod logging;
pub mod metrics;
mod brokers;
mod control;
mod process;
mod traffic;

pub use metrics::Metrics;
pub use traffic::{Counters, Direction, Traffic};
