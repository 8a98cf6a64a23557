//! `tidegate run`: the operator's story. Load, bind, say every address, wait, drain, say how it ended.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::admin::Commands;
use crate::app::{App, Launch, StartError};
use crate::config::model::Speaks;
use crate::config::{self, Loaded, Place, Problem};
use crate::lifecycle::Supervisor;
use crate::lifecycle::inherited::Inherited;
use crate::lifecycle::signals::{Stop, Wish, Wishes};
use crate::telemetry::logging::Logging;
#[cfg(feature = "otlp")]
use crate::telemetry::otlp::{Exporter, OtlpError, Settings};

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    file: super::File,
    /// A file that holds the number of the serving process, also after an upgrade; not needed under systemd
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
}

pub(super) fn run(options: &Options) -> ExitCode {
    let pid_file = options.pid_file.as_deref();
    // Before anything of ours opens a descriptor.
    let inherited = Inherited::take();
    match config::load(&options.file.config) {
        Ok(loaded) => {
            let launch = Launch {
                source: Some(loaded.source.clone()),
                inherited,
                supervisor: Supervisor::from_environment(),
            };
            serve(loaded, launch, pid_file, |_| {})
        }
        Err(problems) => super::bad_config(&problems),
    }
}

/// Serves a configuration until a signal. `bound` is called when every address is known.
pub(super) fn serve(
    loaded: Loaded,
    launch: Launch,
    pid_file: Option<&Path>,
    bound: impl FnOnce(&App),
) -> ExitCode {
    let logging = match Logging::install(&loaded.config.log) {
        Ok(logging) => logging,
        Err(error) => return super::failed(&error),
    };
    raise_open_files();
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return super::failed(&error),
    };
    // Before any address is told: a signal that comes from then on is an order, and must not kill.
    let signals =
        runtime.block_on(async { Ok::<_, io::Error>((Stop::listen()?, Wishes::listen()?)) });
    let (stop, wishes) = match signals {
        Ok(signals) => signals,
        Err(error) => return super::failed(&error),
    };
    let app = match App::launch(loaded.config.clone(), launch) {
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
    bound(&app);
    let commands = app.commands();
    let served = || {
        if let Some(path) = pid_file {
            write_pid(path);
        }
    };
    // CANCEL: `obey` has no end of its own, and a wish that comes with the end is void.
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = app.run(stop, served) => ended,
            never = obey(wishes, commands) => match never {},
        }
    });
    if let Some(path) = pid_file {
        remove_pid(path);
    }
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

/// What signals wish besides the end. How it went is in the log.
async fn obey(mut wishes: Wishes, commands: Commands) -> Infallible {
    loop {
        let (name, obeyed) = match wishes.next().await {
            Wish::Reload => ("SIGHUP", commands.reload().await.map(drop)),
            Wish::Upgrade => ("SIGUSR2", commands.upgrade().await.map(drop)),
        };
        if let Err(gone) = obeyed {
            tracing::warn!(signal = name, "{gone}");
        }
    }
}

/// In one step: who reads it finds the old number or the new one.
fn write_pid(path: &Path) {
    let beside = path.with_extension("new");
    let written = std::fs::write(&beside, format!("{}\n", std::process::id()))
        .and_then(|()| std::fs::rename(&beside, path));
    if let Err(error) = written {
        tracing::error!(path = %path.display(), %error, "the PID file cannot be written");
    }
}

/// Only its own: a process that has taken over has written its number there.
fn remove_pid(path: &Path) {
    let own = std::process::id().to_string();
    let is_own = std::fs::read_to_string(path).is_ok_and(|text| text.trim() == own);
    if is_own && let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "the PID file cannot be removed");
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
