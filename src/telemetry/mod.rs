//! What the operator sees: log lines, metrics, the last outcomes.

pub mod logging;
pub mod metrics;
pub mod acme;
mod applications;
mod brokers;
mod control;
mod endings;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod process;
mod spans;
mod spread;
mod text_format;
mod traffic;

pub use endings::{Ending, Endings, Notice};
pub use metrics::Metrics;
pub use spans::{SessionSpan, Spans};
pub use spread::{Counts, Spread};
pub use text_format::plain;
pub use traffic::{Counters, Direction, Traffic};
