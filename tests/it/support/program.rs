//! The real binary: its command line, its log, its exit code.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::admin::Admin;
use super::authority::Authority;
use super::gateway::completed;
use super::process::{Finished, Process};
use super::{PATIENCE, eventually};

/// `tidegate` with these arguments in this folder, not started.
pub fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(arguments).current_dir(folder);
    command
}

/// Runs it to its end.
pub async fn tidegate(folder: &Path, arguments: &[&str]) -> Finished {
    Process::start(&command(folder, arguments))
        .finish(PATIENCE)
        .await
}

/// A running `tidegate run`, ready.
pub struct Program {
    pub process: Process,
    pub admin: Admin,
    pub authority: Authority,
    listeners: Vec<SocketAddr>,
    _folder: TempDir,
}

impl Program {
    /// Starts from a configuration that may leave out what `Gateway::start` allows; ports must be 0.
    pub async fn run(yaml: &str) -> Self {
        Self::run_with(yaml, &[]).await
    }

    /// The same, with these variables in its environment.
    pub async fn run_with(yaml: &str, environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::make(folder.path());
        let file = folder.path().join("tidegate.yaml");
        std::fs::write(&file, completed(yaml, &authority)).unwrap();
        let mut run = command(folder.path(), &["run", "-c", "tidegate.yaml"]);
        run.envs(environment.iter().copied());
        let process = Process::start(&run);
        let mut admin = None;
        let started = eventually(async || {
            admin = process.stderr().lines().find_map(admin_address);
            match admin {
                Some(address) => Admin(address).get("/readyz").await.0 == 200,
                None => false,
            }
        })
        .await;
        assert!(started, "{}", process.last_words());
        let log = process.stderr();
        Self {
            admin: Admin(admin.unwrap()),
            listeners: log.lines().filter_map(listener_address).collect(),
            process,
            authority,
            _folder: folder,
        }
    }

    /// Of the listener at that place in the configuration.
    pub fn address(&self, listener: usize) -> SocketAddr {
        self.listeners[listener]
    }

    /// Waits for a log line with all of these words in it and answers it.
    pub async fn tells(&self, words: &[&str]) -> String {
        let mut found = None;
        eventually(async || {
            let log = self.process.stderr();
            found = log
                .lines()
                .find(|line| words.iter().all(|word| line.contains(word)))
                .map(str::to_owned);
            found.is_some()
        })
        .await;
        found.unwrap_or_else(|| panic!("no line with {words:?}\n{}", self.process.last_words()))
    }
}

fn admin_address(line: &str) -> Option<SocketAddr> {
    let is_it = line.contains("admin listening");
    is_it.then(|| address(line)).flatten()
}

fn listener_address(line: &str) -> Option<SocketAddr> {
    let is_it = line.contains("listening") && !line.contains("admin listening");
    is_it.then(|| address(line)).flatten()
}

/// In text and in JSON.
fn address(line: &str) -> Option<SocketAddr> {
    let is_not_of_it = |letter: char| letter == '"' || letter.is_whitespace();
    let (_, rest) = line
        .split_once(" address=")
        .or_else(|| line.split_once("\"address\":\""))?;
    rest.split(is_not_of_it).next()?.parse().ok()
}
