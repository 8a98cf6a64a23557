//! What a new configuration changes: in words for the operator, and what of it a running process cannot do.

use std::collections::BTreeMap;

use super::watch::Contents;
use crate::config::model::{Action, Config, Listener, Trust};
use crate::config::{self, Loaded, Place, Problem, Source};

/// What an operator can do about what a reload cannot.
const REMEDY: &str = "`tidegate upgrade` takes it over without refusing a connection; where the process is the container, restart it";

/// More lines are of no use to anybody.
const TOLD: usize = 50;

/// The file itself, and every file that it names and that is read once.
pub(super) fn files(config: &Config, source: Option<&Source>) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    if let Some(source) = source {
        files.push(source.file.clone());
        files.extend(source.secrets());
    }
    for pair in config.certificate_files() {
        files.extend([pair.chain.clone(), pair.key.clone()]);
    }
    let asked = config.listeners.iter();
    for asked in asked.filter_map(|listener| listener.client_certificates.as_ref()) {
        files.push(asked.ca.clone());
        files.extend(asked.crl.iter().map(|list| list.path.clone()));
    }
    files.extend(config.tls.ticket_keys.iter().map(|file| file.path.clone()));
    let applications = config
        .routes
        .iter()
        .filter_map(|route| match &route.action {
            Action::Application(application) => Some(&application.servers),
            Action::Pool(_) | Action::Site(_) | Action::Redirect(_) => None,
        });
    for pool in config.pools.iter().chain(applications) {
        if let Trust::Ca(ca) = &pool.tls.trust {
            files.push(ca.clone());
        }
        if let Some(pair) = &pool.tls.certificate {
            files.extend([pair.chain.clone(), pair.key.clone()]);
        }
    }
    files.sort();
    files.dedup();
    files
}

/// What the running process is bound to: every difference is a problem.
pub(super) fn unmovable(old: &Config, new: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut problem = |place: &Place, message: String| {
        problems.push(Problem::new(place, message).help(REMEDY));
    };
    for listener in &new.listeners {
        if !old.listeners.iter().any(|known| is_same(known, listener)) {
            let (name, address) = (&listener.name, listener.address);
            problem(
                &listener.place,
                format!(
                    "a reload cannot open or change a listener: `{name}` at {address}, or what it speaks, is new"
                ),
            );
        }
    }
    for listener in &old.listeners {
        if !new.listeners.iter().any(|known| is_same(known, listener)) {
            let (name, address) = (&listener.name, listener.address);
            problem(
                &at("listeners"),
                format!("a reload cannot close a listener: `{name}` at {address} is gone"),
            );
        }
    }
    let address = |config: &Config| config.admin.as_ref().map(|admin| admin.address);
    if address(old) != address(new) {
        let place = new.admin.as_ref().map(|admin| admin.place.clone());
        let old = address(old).map(|old| format!(" (`tidegate upgrade --admin {old}` reaches it)"));
        let message = format!(
            "a reload cannot move the admin listener{}",
            old.unwrap_or_default()
        );
        problem(&place.unwrap_or_else(|| at("admin")), message);
    }
    if old.workers != new.workers {
        let message = format!(
            "a reload cannot change the number of workers, which is {}",
            old.workers
        );
        problem(&at("workers"), message);
    }
    if (&old.log.level, old.log.format) != (&new.log.level, new.log.format) {
        let message = "a reload cannot change the level or the format of the log".to_owned();
        problem(&at("log"), message);
    }
    problems
}

fn is_same(a: &Listener, b: &Listener) -> bool {
    (&a.name, a.address, a.speaks) == (&b.name, b.address, b.speaks)
}

fn at(key: &str) -> Place {
    Place {
        key: key.to_owned(),
        ..Place::default()
    }
}

/// Puts the listeners into the order of the running ones: connections know theirs by its place.
pub(super) fn in_running_order(old: &Config, mut loaded: Loaded) -> Loaded {
    let place = |listener: &Listener| {
        let running = old.listeners.iter();
        running.clone().position(|known| is_same(known, listener))
    };
    loaded.config.listeners.sort_by_key(place);
    loaded
}

/// One line for each difference.
pub(super) fn told(old: (&Config, &Contents), new: (&Config, &Contents)) -> Vec<String> {
    let (before, after) = (config::settings(old.0), config::settings(new.0));
    let mut lines = Vec::new();
    for (key, value) in &after {
        match before.get(key) {
            None => lines.push(format!("{key}: {value} (new)")),
            Some(was) if was != value => lines.push(format!("{key}: {was} -> {value}")),
            Some(_) => {}
        }
    }
    let gone = before.keys().filter(|key| !after.contains_key(*key));
    lines.extend(gone.map(|key| format!("{key}: removed")));
    let read: BTreeMap<_, _> = old
        .1
        .iter()
        .map(|(path, content)| (path, content))
        .collect();
    for (path, content) in new.1 {
        if read.get(path).is_some_and(|was| *was != content) {
            lines.push(format!("{}: new content", path.display()));
        }
    }
    if lines.len() > TOLD {
        let more = lines.len() - TOLD;
        lines.truncate(TOLD);
        lines.push(format!("and {more} more"));
    }
    lines
}
