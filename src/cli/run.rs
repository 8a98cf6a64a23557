//! `tidegate run`: the operator's story. Load, bind, say every address, wait, drain, say how it ended.

use std::path::Path;
use std::process::ExitCode;

use crate::app::{App, StartError};
use crate::config::model::Speaks;
use crate::config::{self, Loaded, Place, Problem};
use crate::lifecycle::signals::Stop;
use crate::telemetry::logging::Logging;
#[cfg(feature = "otlp")]
use crate::telemetry::otlp::{Exporter, OtlpError, Settings};

pub(super) fn run(path: &Path) -> ExitCode {
    match config::load(path) {
        Ok(loaded) => serve(loaded, |_| {}),
        Err(problems) => super::bad_config(&problems),
    }
}

/// Serves a configuration until a signal. `bound` is called when every address is known.
pub(super) fn serve(loaded: Loaded, bound: impl FnOnce(&App)) -> ExitCode {
    let logging = match Logging::install(&loaded.config.log) {
        Ok(logging) => logging,
        Err(error) => return super::failed(&error),
    };
    raise_open_files();
    let app = match App::bind(loaded.config.clone()) {
        Ok(app) => app,
        Err(StartError::Problems(problems)) => {
            return match loaded.source.problems(problems) {
                Some(problems) => super::bad_config(&problems),
                None => ExitCode::FAILURE,
            };
        }
        Err(StartError::Listen(problems)) => {
            // The configuration is right, the machine is not: the next start may succeed.
            if let Some(problems) = loaded.source.problems(problems) {
                super::tell(&problems);
            }
            return ExitCode::FAILURE;
        }
        Err(error) => return super::failed(&error),
    };
    for warning in loaded.warnings.iter().chain(&app.warnings) {
        warn(&loaded.source.file, warning);
    }
    app.gateway().metrics.follow_log(logging.dropped());
    #[cfg(feature = "otlp")]
    let exporter = match exporter(&app) {
        Ok(exporter) => exporter,
        Err(error) => return super::failed(&error),
    };
    for (name, speaks, address) in app.addresses() {
        tracing::info!(name, %address, speaks = speaking(speaks), "listening");
    }
    if let Some(address) = app.admin_address() {
        tracing::info!(%address, "admin listening");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return super::failed(&error),
    };
    bound(&app);
    let ended = runtime.block_on(async {
        let stop = Stop::listen()?;
        app.run(stop).await.map_err(std::io::Error::other)
    });
    // Blocking work that is left must not hold the end up.
    runtime.shutdown_background();
    #[cfg(feature = "otlp")]
    drop(exporter);
    drop(logging);
    match ended {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => super::failed(&error),
    }
}

/// Where the environment names a collector.
#[cfg(feature = "otlp")]
fn exporter(app: &App) -> Result<Option<Exporter>, OtlpError> {
    let settings = Settings::from_environment()?;
    let metrics = &app.gateway().metrics;
    let start = |settings| Exporter::start(settings, std::sync::Arc::clone(metrics));
    Ok(settings.map(start).transpose()?.flatten())
}

/// In the log and in its format: a collector that reads JSON must be able to read this too.
fn warn(file: &Path, warning: &Problem) {
    let Place { key, line, column } = &warning.place;
    let place = format_args!("{}:{line}:{column}", file.display());
    let help = warning.help.as_deref();
    tracing::warn!(key, %place, help, "{}", warning.message);
}

fn speaking(speaks: Speaks) -> &'static str {
    match speaks {
        Speaks::Tls => "https and wss",
        Speaks::Plain => "http and ws",
        Speaks::PlainRedirect => "redirect to https",
    }
}

/// Containers and login shells start with a soft limit of 1024; the hard one is what the operator meant.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| hard));
    match raised {
        Ok(limit) => tracing::info!(limit, "open files"),
        Err(error) => tracing::warn!(%error, "the limit on open files cannot be raised"),
    }
}
