//! Log lines on standard error, as text or JSON, written by a thread of their own: a slow reader of the log never holds
//! a session up. Lines that find the queue full are dropped and counted.

use anyhow::Context;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, registry};

use crate::config::model::{Log, LogFormat};

/// Lines that may wait for the writer.
const QUEUE: usize = 16 * 1024;

/// Keeps the writer alive; dropping it writes what is queued.
pub struct Logging {
    _writer: WorkerGuard,
    dropped: ErrorCounter,
}

impl Logging {
    /// Installs the process's log. Fails when the filter cannot be read or a log is there already.
    pub fn install(log: &Log) -> anyhow::Result<Self> {
        let filter = log
            .level
            .parse::<Targets>()
            .with_context(|| format!("log.level `{}` cannot be read", log.level))?;
        let (writer, guard) = NonBlockingBuilder::default()
            .buffered_lines_limit(QUEUE)
            .lossy(true)
            .thread_name("log")
            .finish(std::io::stderr());
        let dropped = writer.error_counter();
        let colours = std::io::IsTerminal::is_terminal(&std::io::stderr())
            && std::env::var_os("NO_COLOR").is_none();
        let lines = fmt::layer().with_writer(writer);
        match log.format {
            LogFormat::Text => registry()
                .with(filter)
                .with(lines.with_ansi(colours))
                .try_init(),
            LogFormat::Json => registry()
                .with(filter)
                .with(lines.json().flatten_event(true))
                .try_init(),
        }
        .map_err(|error| anyhow::anyhow!(error))?;
        Ok(Self {
            _writer: guard,
            dropped,
        })
    }

    /// Lines dropped so far.
    pub fn dropped(&self) -> ErrorCounter {
        self.dropped.clone()
    }
}
