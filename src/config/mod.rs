//! YAML → checked values. Opens the configuration file and the `${file:…}` secrets it names, nothing else; no sockets.
//!
//! Every mistake of a file is reported in one run: `tree` reads, `expand` fills in variables, `structure` compares
//! with the schema of the `raw` types, `check` makes the `model` that the program works with.
//! Relative paths in the file are relative to the working directory of the process.

pub mod model;
pub mod acme;
pub mod announcement;
pub mod kinds;
pub mod problem;
pub mod reference;
mod print;
mod print_applications;
mod print_pools;
mod print_site;
mod tree;
mod expand;
mod structure;
mod leaf;
mod schema;
mod suggest;
mod raw;
mod raw_acme;
mod raw_admin;
mod raw_announcement;
mod raw_applications;
mod raw_bounds;
mod raw_dns;
mod raw_hsts;
mod raw_pools;
mod raw_site;
mod raw_listeners;
mod scalar;
pub mod values;
pub mod networks;
pub mod origins;
mod names;
mod broker_url;
mod application_url;
mod server_url;
mod socket_url;
pub mod probe_values;
mod acme_values;
mod check;
mod check_pools;
mod check_health;
mod check_announcement;
mod check_acme;
mod check_applications;
mod check_bounds;
mod check_dns;
mod check_listeners;
mod check_site;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub use model::Config;
pub use print::{print, settings};
pub use problem::{Place, Problem, Problems};

use check::{Findings, check};
use structure::Structure;

/// A configuration that may be used.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    /// Suspicious, but possible.
    pub warnings: Vec<Problem>,
    pub source: Source,
}

/// The text that a configuration came from: what a `Place` points into.
#[derive(Debug, Clone)]
pub struct Source {
    pub file: PathBuf,
    pub text: String,
}

impl Source {
    /// Problems found by whoever used the configuration, shown as its own are. `None` where there are none.
    pub fn problems(&self, mut list: Vec<Problem>) -> Option<Problems> {
        list.sort_by_key(|problem| (problem.place.line, problem.place.column));
        (!list.is_empty()).then(|| Problems {
            file: self.file.clone(),
            text: self.text.clone(),
            list,
        })
    }
}

/// Reads and checks a file. Blocks; for start-up and reload.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    parse(path, &read(path)?)
}

fn read(path: &Path) -> Result<String, Problems> {
    std::fs::read_to_string(path).map_err(|error| Problems {
        file: path.to_owned(),
        text: String::new(),
        list: vec![Problem::new(
            &Place::default(),
            format!("cannot be read: {error}"),
        )],
    })
}

/// Checks a text with the variables of the process; `file_name` is for messages alone.
pub fn parse(file_name: &Path, text: &str) -> Result<Loaded, Problems> {
    parse_with(file_name, text, &|name| std::env::var(name).ok())
}

/// Checks a text with the given variables.
pub fn parse_with(
    file_name: &Path,
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Problems> {
    let source = Source {
        file: file_name.to_owned(),
        text: text.to_owned(),
    };
    let (config, problems, warnings) = examine(text, environment);
    match (source.problems(problems), config) {
        (Some(problems), _) => Err(problems),
        (None, Some(config)) => Ok(Loaded {
            config,
            warnings,
            source,
        }),
        (None, None) => Err(Problems {
            file: source.file,
            text: source.text,
            list: vec![Problem::new(&Place::default(), "cannot be understood")],
        }),
    }
}

/// Where the process that runs with this file listens for its operator: the file may have mistakes, which is what the
/// operator is about to hear. `None` for `admin: off`.
///
/// # Errors
/// It cannot be read, is no YAML, or what it says of `admin` cannot be understood here: any process may be meant.
pub fn admin_address(path: &Path) -> Result<Option<SocketAddr>, Problems> {
    let usual = raw_admin::AdminListener::default().address;
    let text = read(path)?;
    let mut tree = tree::read(&text).map_err(|problem| Problems {
        file: path.to_owned(),
        text: text.clone(),
        list: vec![problem],
    })?;
    let mut problems = Vec::new();
    expand::expand(
        &mut tree,
        "",
        &|name| std::env::var(name).ok(),
        &mut problems,
    );
    let admin = tree.below("admin");
    if admin.and_then(tree::Node::text) == Some("off") {
        return Ok(None);
    }
    let address = admin.and_then(|admin| admin.below("address"));
    let address = match address {
        None => Some(usual.0),
        Some(address) => address.text().and_then(|text| text.parse().ok()),
    };
    problems.retain(|problem| problem.place.key.starts_with("admin"));
    if address.is_none() && problems.is_empty() {
        let place = Place::default();
        problems.push(Problem::new(
            &place,
            "`admin.address` is no address and port",
        ));
    }
    match problems.is_empty() {
        true => Ok(address),
        false => Err(Problems {
            file: path.to_owned(),
            text,
            list: problems,
        }),
    }
}

impl Source {
    /// The files whose text stands in the place of `${file:…}`.
    pub fn secrets(&self) -> impl Iterator<Item = PathBuf> {
        let parts = self.text.split("${file:").skip(1);
        parts.filter_map(|part| Some(part.split_once('}')?.0.into()))
    }
}

fn examine(
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> (Option<Config>, Vec<Problem>, Vec<Problem>) {
    let mut tree = match tree::read(text) {
        Ok(tree) => tree,
        Err(problem) => return (None, vec![problem], Vec::new()),
    };
    let mut problems = Vec::new();
    expand::expand(&mut tree, "", environment, &mut problems);
    let schema = schema();
    let mut structure = structure::walk(&tree, &schema);
    problems.append(&mut structure.problems);
    let (config, findings) = fit(&structure, &problems, environment);
    problems.extend(findings.problems);
    (config, problems, findings.warnings)
}

/// The checks behind the structure. Where that has problems, only those that are not their consequence are kept.
fn fit<'a>(
    structure: &'a Structure,
    problems: &[Problem],
    environment: &dyn Fn(&str) -> Option<String>,
) -> (Option<Config>, Findings<'a>) {
    let mut findings = Findings {
        places: &structure.places,
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    let Some(value) = &structure.value else {
        return (None, findings);
    };
    match serde_json::from_value(value.clone()) {
        Ok(raw) => {
            // systemd.exec(5): where a service may keep what it must not lose.
            let state_directory = environment("STATE_DIRECTORY");
            let config = check(raw, state_directory.as_deref(), &mut findings);
            findings
                .problems
                .retain(|problem| !structure.concerns(problem));
            (Some(config), findings)
        }
        Err(error) => {
            if problems.is_empty() {
                findings
                    .problems
                    .push(Problem::new(&Place::default(), error.to_string()));
            }
            (None, findings)
        }
    }
}

/// The JSON Schema of the file, for editors: what `schema_of_types` says, written down by a test, so that the program
/// carries the text and not what makes it.
pub const SCHEMA: &str = include_str!("schema.json");

fn schema() -> Value {
    serde_json::from_str(SCHEMA).expect("a test compares the file with what serde_json wrote")
}

/// `SCHEMA`, from the types in `raw`.
pub fn schema_of_types() -> Value {
    let mut schema = schemars::schema_for!(raw::Config).to_value();
    schema["title"] = "Tidegate configuration".into();
    schema
}
