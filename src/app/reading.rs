//! A configuration and every file that it names, read again: everything that the next one needs, with nothing changed yet.

use std::path::PathBuf;

use super::changes;
use super::watch::{Contents, contents};
use crate::acme::{self, Plan};
use crate::config::{self, Config, Loaded, Place, Problem, Problems, Source};
use crate::gateway::{Built, Gateway, Snapshot};

/// Everything read, nothing changed.
pub(super) struct Next {
    pub(super) loaded: Loaded,
    pub(super) source: Option<Source>,
    pub(super) built: Built,
    pub(super) read: Contents,
    pub(super) plan: Plan,
}

/// Why nothing was taken over, and the files that would have been.
pub(super) struct Refusal {
    pub(super) problems: Problems,
    pub(super) seen: Contents,
}

/// Builds a whole snapshot beside the one in force. `known` are the files that are in force. Blocks.
pub(super) fn read(
    gateway: &Gateway,
    old: &Config,
    source: Option<Source>,
    known: Vec<PathBuf>,
) -> Result<Next, Refusal> {
    // Before they are read: what changes in between is found to be different.
    let seen = contents(known);
    let loaded = match source {
        Some(source) => match config::load(&source.file) {
            Ok(loaded) => changes::in_running_order(old, loaded),
            // What it names is not known: the files that are in force stand for it.
            Err(problems) => return Err(Refusal { problems, seen }),
        },
        None => Loaded {
            config: old.clone(),
            warnings: Vec::new(),
            source: Source {
                file: "the configuration".into(),
                text: String::new(),
            },
        },
    };
    let has_file = !loaded.source.text.is_empty();
    let from = has_file.then(|| loaded.source.clone());
    let read = contents(changes::files(&loaded.config, from.as_ref()));
    let mut problems = changes::unmovable(old, &loaded.config);
    let prepared = acme::prepare(&loaded.config, acme::Access::Make);
    let mut warnings = prepared.unwrap_or_else(|problem| {
        problems.push(problem);
        Vec::new()
    });
    let plan = Plan::of(&loaded.config);
    let built = build(gateway, &loaded.config).map(|mut built| {
        built.warnings.append(&mut warnings);
        built
    });
    let built = built.map_err(|found| problems.extend(found));
    match (loaded.source.problems(problems), built) {
        (None, Ok(built)) => Ok(Next {
            source: from,
            loaded,
            built,
            read,
            plan,
        }),
        (Some(problems), _) => Err(Refusal {
            problems,
            seen: read,
        }),
        (None, Err(())) => {
            let problem = Problem::new(&Place::default(), "cannot be built");
            Err(Refusal {
                problems: alone(loaded.source.file, problem),
                seen: read,
            })
        }
    }
}

fn build(gateway: &Gateway, config: &Config) -> Result<Built, Vec<Problem>> {
    let (metrics, brokers) = (&gateway.metrics, &gateway.brokers);
    Snapshot::build(config, metrics, brokers, &gateway.tickets, &gateway.drain)
}

pub(super) fn alone(file: PathBuf, problem: Problem) -> Problems {
    Problems {
        file,
        text: String::new(),
        list: vec![problem],
    }
}
