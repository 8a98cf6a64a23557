//! Once a second: what the supervisor and the metrics are told of how the process is.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::admin::Health;
use crate::admin::commands::Phase;
use crate::gateway::Gateway;
use crate::lifecycle::Supervisor;

const TICK: Duration = Duration::from_secs(1);

/// How often systemd's status line is written, where nothing happens.
const STATUS: Duration = Duration::from_secs(5);

/// Runs as long as the process; ends never.
pub(super) async fn run(
    gateway: &Gateway,
    health: &Health,
    supervisor: &Supervisor,
    phase: watch::Receiver<Phase>,
) {
    let mut tick = interval(supervisor.watchdog_interval().unwrap_or(TICK).min(TICK));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = Instant::now();
    loop {
        let now = tick.tick().await;
        let progress = gateway.drain.progress();
        let control = &gateway.metrics.control;
        control
            .waiting
            .set(i64::try_from(progress.waiting).unwrap_or(i64::MAX));
        control.seconds_left.set(progress.seconds());
        // A worker that is stuck is what the watchdog is for; this thread shows by being here that it is not.
        if supervisor.watchdog_interval().is_some() && health.is_live() {
            supervisor.watchdog();
        }
        let phase = *phase.borrow();
        if phase != Phase::Serving || now.duration_since(told) >= STATUS {
            told = now;
            supervisor.status(&status(gateway, phase));
        }
    }
}

/// One line: `41234 sessions, configuration 3`.
pub(super) fn status(gateway: &Gateway, phase: Phase) -> String {
    let progress = gateway.drain.progress();
    let sessions = progress.members;
    let left = match progress.waiting {
        0 => String::new(),
        waiting => format!(
            ", {waiting} are asked to leave, {:.0} s",
            progress.seconds().ceil()
        ),
    };
    let generation = gateway.metrics.control.generation.get();
    match phase {
        Phase::Serving => format!("{sessions} sessions{left}, configuration {generation}"),
        Phase::Announced => format!("not ready, {sessions} sessions"),
        Phase::Draining => format!("draining: {sessions} sessions{left}"),
        Phase::Drained => "drained".to_owned(),
    }
}
