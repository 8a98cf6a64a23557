//! A new configuration takes the place of the old one, wholly or not at all. No session is dropped or changed by it: a
//! connection keeps the snapshot that it came under.
//!
//! The one thing that ends sessions is what the operator asks for by it: those of a broker that no pool has any more are
//! asked to leave, at the pace of every drain.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::reading::{Next, Refusal, alone, read};
use super::upgrade::Upgrade;
use super::watch::{Contents, Watcher};
use super::{changes, supervise};
use crate::acme::{Plan, TakeOver};
use crate::admin::Status;
use crate::admin::commands::{Command, Phase, Reloaded};
use crate::config::model::Dns;
use crate::config::{Config, Place, Problem, Problems, Source};
use crate::gateway::Gateway;
use crate::lifecycle::Supervisor;
use crate::pool::Pool;
use crate::telemetry::metrics::ByResult;

/// Files that belong together come one after the other (certbot: four links): a set that does not fit is looked at again
/// so often before it is refused.
const TRIES: u32 = 4;
const BETWEEN: Duration = Duration::from_secs(1);

/// What probes and look-ups follow.
#[derive(Debug, Clone)]
pub(super) struct InForce {
    pub(super) pools: Vec<Arc<Pool>>,
    pub(super) dns: Dns,
}

/// Knows the configuration that is in force, and takes the next one over.
pub(super) struct Reloader {
    pub(super) gateway: Arc<Gateway>,
    pub(super) supervisor: Arc<Supervisor>,
    pub(super) status: Arc<Status>,
    /// What is in force.
    pub(super) config: Config,
    /// The file to read again; `None` where the configuration has none.
    pub(super) source: Option<Source>,
    pub(super) read: Contents,
    pub(super) generation: u64,
    pub(super) in_force: watch::Sender<InForce>,
    pub(super) plans: watch::Sender<Plan>,
    pub(super) phase: watch::Receiver<Phase>,
}

impl Reloader {
    /// Does what is asked for, one thing after the other, until another process has taken over. Ends never.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut take_overs: mpsc::Receiver<TakeOver>,
        upgrade: Upgrade,
        handed_over: CancellationToken,
    ) {
        let mut watcher = Watcher::new();
        watcher.follow(self.watched());
        loop {
            // CANCEL: `recv` loses nothing, `changed` may be called again, `cancelled` only waits.
            tokio::select! {
                biased;
                // First: another upgrade that was asked for meanwhile would start a second successor.
                () = handed_over.cancelled() => break,
                Some(command) = commands.recv() => match command {
                    Command::Reload(answer) => {
                        let (reloaded, seen) = self.reload().await;
                        watcher.follow(seen);
                        drop(answer.send(reloaded));
                    }
                    Command::Upgrade(answer) => drop(answer.send(upgrade.run().await)),
                },
                () = watcher.changed() => {
                    let seen = self.reload_changed().await;
                    watcher.follow(seen);
                }
                Some(answer) = take_overs.recv() => drop(answer.send(self.show_stored().await)),
            }
        }
        // Whoever asks now hears that nobody is there.
        drop(commands);
        std::future::pending().await
    }

    fn watched(&self) -> Contents {
        match self.config.watch {
            true => self.read.clone(),
            false => Contents::new(),
        }
    }

    /// Answers what it has seen of the files: nothing is tried again before that changes.
    async fn reload_changed(&mut self) -> Contents {
        let mut left = TRIES;
        loop {
            left -= 1;
            match self.read().await {
                Ok(next) => {
                    self.supervisor.reloading();
                    let reloaded = self.take_over(next);
                    self.told(&reloaded, "changed files");
                    return self.watched();
                }
                Err(refusal) if left == 0 => {
                    let reloaded = self.refused(&refusal.problems);
                    self.told(&reloaded, "changed files");
                    return refusal.seen;
                }
                Err(refusal) => {
                    tracing::debug!(problems = %refusal.problems, "changed files do not fit together yet");
                    sleep(BETWEEN).await;
                }
            }
        }
    }

    async fn reload(&mut self) -> (Reloaded, Contents) {
        self.supervisor.reloading();
        let (reloaded, seen) = match self.read().await {
            Ok(next) => (self.take_over(next), self.watched()),
            Err(refusal) => (self.refused(&refusal.problems), refusal.seen),
        };
        self.told(&reloaded, "asked");
        let seen = match self.config.watch {
            true => seen,
            false => Contents::new(),
        };
        (reloaded, seen)
    }

    /// Reads everything, on a thread that may wait for a disk.
    async fn read(&self) -> Result<Next, Refusal> {
        let (gateway, old) = (Arc::clone(&self.gateway), self.config.clone());
        let source = self.source.clone();
        let known = self.read.iter().map(|(path, _)| path.clone()).collect();
        let reading = tokio::task::spawn_blocking(move || read(&gateway, &old, source, known));
        reading.await.unwrap_or_else(|error| {
            let problem = Problem::new(&Place::default(), format!("a bug: {error}"));
            Err(Refusal {
                problems: alone(PathBuf::new(), problem),
                seen: self.read.clone(),
            })
        })
    }

    /// A CA has issued: its part of what is shown is exchanged, and no other file is read. A mistake in one must not keep the
    /// certificate from being shown, nor a change be taken over that nobody has asked for.
    async fn show_stored(&self) -> bool {
        let (snapshot, config) = (self.gateway.snapshot.load_full(), self.config.clone());
        let renewing = tokio::task::spawn_blocking(move || {
            let shown = snapshot.shown.as_ref();
            shown.map(|shown| shown.renew(&config)).transpose()
        });
        let problem = match renewing.await {
            Ok(Ok(renewed)) => {
                if let Some((certificates, warnings)) = renewed {
                    for warning in warnings.iter().map(sentence) {
                        tracing::warn!("{warning}");
                    }
                    self.status.issued(&self.config, &certificates);
                }
                return true;
            }
            Ok(Err(problem)) => sentence(&problem),
            Err(error) => format!("a bug: {error}"),
        };
        tracing::error!(problem, "what is stored cannot be shown");
        false
    }

    fn take_over(&mut self, next: Next) -> Reloaded {
        let Next {
            loaded,
            source,
            built,
            read,
            plan,
        } = next;
        let changes = changes::told((&self.config, &self.read), (&loaded.config, &read));
        let warnings = loaded.warnings.iter().chain(&built.warnings);
        let warnings = warnings.map(sentence).collect();
        let old = self.gateway.snapshot.swap(Arc::new(built.snapshot));
        let new = self.gateway.snapshot.load_full();
        // Unless it was changed, what `tidegate drain --rate` asked for stays.
        if new.drain.rate != self.config.drain.rate {
            self.gateway.drain.set_rate(new.drain.rate);
        }
        // Nobody probes and resolves its brokers any more, and its routes are not what the operator wants.
        old.over.cancel();
        let (before, after) = (
            old.routes.pools_and_servers(),
            new.routes.pools_and_servers(),
        );
        self.part_with(&before, &after);
        self.in_force.send_replace(InForce {
            pools: after,
            dns: loaded.config.dns.clone(),
        });
        self.plans.send_if_modified(|old| {
            let differs = !old.is_same(&plan);
            if differs {
                *old = plan;
            }
            differs
        });
        self.status
            .configured(&loaded.config, new.routes.pools(), &built.certificates);
        self.generation += 1;
        self.gateway.metrics.control.in_force(self.generation);
        self.config = loaded.config;
        self.source = source;
        self.read = read;
        Reloaded {
            generation: self.generation,
            changes,
            warnings,
            problems: None,
        }
    }

    /// Brokers that no pool has any more: their sessions leave.
    fn part_with(&self, old: &[Arc<Pool>], new: &[Arc<Pool>]) {
        let brokers = |pools: &[Arc<Pool>]| -> Vec<_> {
            pools.iter().flat_map(|pool| pool.brokers()).collect()
        };
        let new = brokers(new);
        let known: HashSet<_> = new.iter().map(|broker| Arc::clone(&broker.label)).collect();
        for broker in &new {
            self.gateway.drain.welcome_group(broker.group());
        }
        for broker in brokers(old) {
            if known.contains(&broker.label) {
                continue;
            }
            broker.retire();
            let sessions = self.gateway.drain.ask_group(broker.group());
            if sessions > 0 {
                let progress = self.gateway.drain.progress();
                let seconds = progress.seconds();
                tracing::info!(
                    broker = &*broker.label,
                    sessions,
                    rate = progress.rate,
                    "the broker was taken out, its sessions are asked to leave, about {seconds:.1} s"
                );
            }
        }
    }

    fn refused(&self, problems: &Problems) -> Reloaded {
        self.gateway.metrics.control.last_successful.set(0);
        self.status
            .refused(problems.to_string().lines().map(str::to_owned).collect());
        Reloaded {
            generation: self.generation,
            changes: Vec::new(),
            warnings: Vec::new(),
            problems: Some(problems.to_string()),
        }
    }

    /// In the log, the metrics and to the supervisor, who must hear of the end of every reload.
    fn told(&self, reloaded: &Reloaded, why: &str) {
        let generation = reloaded.generation;
        let result = match &reloaded.problems {
            Some(problems) => {
                tracing::error!(
                    why,
                    generation,
                    "the configuration was refused, the old one goes on"
                );
                for line in problems.lines() {
                    tracing::error!("{line}");
                }
                "refused"
            }
            None => {
                for warning in &reloaded.warnings {
                    tracing::warn!("{warning}");
                }
                for change in &reloaded.changes {
                    tracing::info!(change, "changed");
                }
                let changes = reloaded.changes.len();
                tracing::info!(why, generation, changes, "configuration reloaded");
                "ok"
            }
        };
        let result = ByResult { result };
        self.gateway
            .metrics
            .control
            .reloads
            .get_or_create(&result)
            .inc();
        let status = supervise::status(&self.gateway, *self.phase.borrow());
        self.supervisor.ready(&match &reloaded.problems {
            None => status,
            Some(_) => format!("{status}; the last reload was refused: see the log"),
        });
    }
}

fn sentence(problem: &Problem) -> String {
    let key = &problem.place.key;
    let help = problem.help.as_deref();
    let help = help.map(|help| format!("; {help}")).unwrap_or_default();
    format!("{key}: {}{help}", problem.message)
}
