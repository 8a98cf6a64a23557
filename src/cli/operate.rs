//! `tidegate reload`, `drain` and `upgrade`: ask the running process over its admin listener, wait, say how it went.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde::de::DeserializeOwned;

use super::ask::reachable;
use crate::admin::commands::{Draining, Phase, Reloaded, Upgraded};
use crate::config::values::Span;
use crate::config::{self, Problems};

/// For the connection, on this machine.
const CONNECT: Duration = Duration::from_secs(5);

/// Longer than any command that does not wait by itself: a new process has 30 s to be ready.
const ANSWER: Duration = Duration::from_secs(60);

/// How long one request waits for the end of a drain; then the next one does.
const WAIT: Duration = Duration::from_secs(5);

/// Which process.
#[derive(Debug, clap::Args)]
pub(super) struct Process {
    /// The configuration that it runs with: the admin listener is read from it
    #[arg(
        short,
        long = "config",
        value_name = "FILE",
        default_value = "/etc/tidegate/tidegate.yaml"
    )]
    config: PathBuf,
    /// Where its admin listener is, in the place of what the configuration says
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
}

/// How fast, and whether to wait.
#[derive(Debug, clap::Args)]
pub(super) struct DrainOptions {
    #[command(flatten)]
    process: Process,
    /// Return when the last session has left
    #[arg(long)]
    wait: bool,
    /// Sessions per second, in the place of drain.rate; also for a drain that runs
    #[arg(long, value_name = "N")]
    rate: Option<NonZeroU32>,
}

impl Process {
    fn address(&self) -> anyhow::Result<SocketAddr> {
        let address = match self.admin {
            Some(address) => address,
            None => self.configured()?,
        };
        Ok(reachable(address))
    }

    fn configured(&self) -> anyhow::Result<SocketAddr> {
        config::admin_address(&self.config)?.with_context(|| {
            let file = self.config.display();
            format!("{file} says `admin: off`: use signals (SIGHUP, SIGTERM, SIGUSR2)")
        })
    }

    /// Status and body.
    fn ask(&self, method: &str, path: &str) -> anyhow::Result<(u16, String)> {
        let address = self.address()?;
        let failed = || {
            format!(
                "no answer from the admin listener at {address}: does Tidegate run there? (--admin, -c)"
            )
        };
        exchange(address, method, path).with_context(failed)
    }

    fn post<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let (status, body) = self.ask("POST", path)?;
        read(status, &body)
    }
}

fn exchange(address: SocketAddr, method: &str, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT)?;
    stream.set_read_timeout(Some(ANSWER))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the answer is not HTTP")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((status.context("the answer is not HTTP")?, body.to_owned()))
}

fn read<T: DeserializeOwned>(status: u16, body: &str) -> anyhow::Result<T> {
    serde_json::from_str(body).map_err(|_not_json| anyhow!("HTTP {status}: {}", body.trim()))
}

pub(super) fn reload(process: &Process) -> ExitCode {
    match process.post::<Reloaded>("/reload") {
        Ok(reloaded) => tell_reload(&reloaded),
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    let Some(problems) = error.downcast_ref::<Problems>() else {
        return super::failed(&format!("{error:#}"));
    };
    let code = super::bad_config(problems);
    eprintln!(
        "nobody was asked: name the file that the process runs with (-c), or its admin listener (--admin ADDRESS)"
    );
    code
}

fn tell_reload(reloaded: &Reloaded) -> ExitCode {
    let generation = reloaded.generation;
    if let Some(problems) = &reloaded.problems {
        eprint!("{problems}");
        eprintln!("refused: configuration {generation} goes on as it was");
        return ExitCode::from(super::BAD_CONFIG);
    }
    for warning in &reloaded.warnings {
        eprintln!("warning: {warning}");
    }
    for change in &reloaded.changes {
        println!("  {change}");
    }
    let what = match reloaded.changes.len() {
        0 => "nothing has changed".to_owned(),
        1 => "1 change".to_owned(),
        count => format!("{count} changes"),
    };
    println!("reloaded: configuration {generation} is in force, {what}");
    ExitCode::SUCCESS
}

pub(super) fn upgrade(process: &Process) -> ExitCode {
    match process.post::<Upgraded>("/upgrade") {
        Ok(Upgraded {
            process: Some(_),
            message,
        }) => {
            println!("{message}");
            ExitCode::SUCCESS
        }
        Ok(upgraded) => super::failed(&format!(
            "not upgraded: {}; the old process goes on",
            upgraded.message
        )),
        Err(error) => failed(&error),
    }
}

pub(super) fn drain(options: &DrainOptions) -> ExitCode {
    match try_drain(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn try_drain(options: &DrainOptions) -> anyhow::Result<()> {
    let rate = options.rate.map(|rate| format!("rate={rate}"));
    let mut draining: Draining = options
        .process
        .post(&format!("/drain?{}", rate.unwrap_or_default()))?;
    tell_drain(&draining);
    while options.wait && draining.phase != Phase::Drained {
        let path = format!("/drain?wait={}", Span(WAIT));
        match options.process.post(&path) {
            Ok(now) => draining = now,
            // It was stopped meanwhile, and ends when it is drained.
            Err(error) if draining.phase == Phase::Serving => bail!(error),
            Err(_ended) => {
                println!("the process has ended");
                return Ok(());
            }
        }
        tell_drain(&draining);
    }
    Ok(())
}

fn tell_drain(draining: &Draining) {
    let Draining {
        sessions,
        rate,
        seconds,
        ..
    } = draining;
    match draining.phase {
        Phase::Serving => println!("serving, {sessions} sessions"),
        Phase::Announced => println!("not ready; {sessions} sessions"),
        Phase::Draining => {
            println!("draining: {sessions} sessions left, {rate} a second, about {seconds:.0} s")
        }
        Phase::Drained => println!("drained; the process stays until it is stopped"),
    }
}
