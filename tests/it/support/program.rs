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
    folder: TempDir,
}

impl Program {
    /// Starts from a configuration that may leave out what `Gateway::start` allows; ports must be 0.
    pub async fn run(yaml: &str) -> Self {
        Self::start(yaml, |command| command).await
    }

    /// The same, with these variables in its environment.
    #[cfg(feature = "otlp")]
    pub async fn run_with(yaml: &str, environment: &[(&str, &str)]) -> Self {
        Self::start(yaml, |mut command| {
            command.envs(environment.iter().copied());
            command
        })
        .await
    }

    /// The same as the child of another program: its command line, which `tidegate run …` is added to.
    pub async fn run_under(wrapper: &[&str], yaml: &str) -> Self {
        Self::start(yaml, |alone| match wrapper {
            [] => alone,
            [program, arguments @ ..] => {
                let mut wrapped = Command::new(program);
                wrapped
                    .args(arguments)
                    .arg(alone.get_program())
                    .args(alone.get_args());
                if let Some(folder) = alone.get_current_dir() {
                    wrapped.current_dir(folder);
                }
                wrapped
            }
        })
        .await
    }

    /// The same, with a command that was made from the usual one.
    pub async fn start(yaml: &str, adapt: impl FnOnce(Command) -> Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::make(folder.path());
        let file = folder.path().join("tidegate.yaml");
        std::fs::write(&file, completed(yaml, &authority)).unwrap();
        let command = command(folder.path(), &["run", "-c", "tidegate.yaml"]);
        let process = Process::start(&adapt(command));
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
            folder,
        }
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Puts another configuration in the place of its own, in one step.
    pub fn rewrite(&self, yaml: &str) {
        let beside = self.folder().join("next.yaml");
        std::fs::write(&beside, completed(yaml, &self.authority)).unwrap();
        std::fs::rename(beside, self.folder().join("tidegate.yaml")).unwrap();
    }

    /// Asks it by the command line: `reload`, `drain --wait`.
    pub async fn ask(&self, arguments: &[&str]) -> Finished {
        let admin = self.admin.0.to_string();
        let more = ["-c", "tidegate.yaml", "--admin", &admin];
        tidegate(self.folder(), &[arguments, &more].concat()).await
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

/// Where the admin listener is, by its line of the log.
pub fn admin_address(line: &str) -> Option<SocketAddr> {
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
