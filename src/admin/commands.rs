//! What the operator may ask of the running process: read the files again, drain, let a new process take over. `app` does it;
//! here it is asked, waited for and answered as JSON, which `tidegate reload` and the like read.
//!
//! SECURITY: whoever reaches the listener could end every session. So a command comes from this machine alone, whatever the
//! listener's address; and never from a browser, which on this machine does what pages from anywhere tell it: browsers send
//! `Origin` with every POST (Fetch 3.2), and nothing else does.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::config::values::Span;
use crate::lifecycle::Drain;

/// Commands that may wait; more are refused.
const QUEUE: usize = 8;

/// Longest wait for a drain in one request.
const MOST: Duration = Duration::from_secs(3600);

/// Asks the process. `app` holds the other end.
#[derive(Debug, Clone)]
pub struct Commands {
    commands: mpsc::Sender<Command>,
    drains: mpsc::Sender<Option<NonZeroU32>>,
    phase: watch::Receiver<Phase>,
    drain: Drain,
}

/// The other end.
#[derive(Debug)]
pub struct Commanded {
    pub commands: mpsc::Receiver<Command>,
    /// With the rate that is wished for.
    pub drains: mpsc::Receiver<Option<NonZeroU32>>,
    pub phase: watch::Sender<Phase>,
}

#[derive(Debug)]
pub enum Command {
    Reload(oneshot::Sender<Reloaded>),
    Upgrade(oneshot::Sender<Upgraded>),
}

/// How far a drain of the whole process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Serving,
    /// Not ready, and still accepting.
    Announced,
    Draining,
    Drained,
}

/// How a reload ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reloaded {
    /// Of the configuration that is in force now.
    pub generation: u64,
    /// Lines for people.
    pub changes: Vec<String>,
    pub warnings: Vec<String>,
    /// Every problem with its place, for people; the old configuration goes on. `None` when it was taken over.
    pub problems: Option<String>,
}

/// How the start of a new process ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Upgraded {
    /// The process that serves now; `None`: this one goes on.
    pub process: Option<u32>,
    /// For people.
    pub message: String,
}

/// How far a drain is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Draining {
    pub phase: Phase,
    pub sessions: usize,
    pub waiting: usize,
    pub rate: u32,
    /// Until the last of those that wait has its turn.
    pub seconds: f64,
}

/// Nobody is there who could do it: the process ends, or has handed over.
#[derive(Debug, thiserror::Error)]
#[error("the process takes no commands any more: it ends")]
pub struct Gone;

impl Commands {
    pub fn new(drain: Drain) -> (Self, Commanded) {
        let (commands, to_do) = mpsc::channel(QUEUE);
        let (drains, to_drain) = mpsc::channel(QUEUE);
        let (told, phase) = watch::channel(Phase::Serving);
        let asking = Self {
            commands,
            drains,
            phase,
            drain,
        };
        let commanded = Commanded {
            commands: to_do,
            drains: to_drain,
            phase: told,
        };
        (asking, commanded)
    }

    pub async fn reload(&self) -> Result<Reloaded, Gone> {
        self.ask(Command::Reload).await
    }

    pub async fn upgrade(&self) -> Result<Upgraded, Gone> {
        self.ask(Command::Upgrade).await
    }

    async fn ask<T>(&self, command: fn(oneshot::Sender<T>) -> Command) -> Result<T, Gone> {
        let (sender, answer) = oneshot::channel();
        // CANCEL: not in a `select`; the queue is short and each command ends.
        let sent = self.commands.send(command(sender)).await;
        sent.map_err(|_gone| Gone)?;
        answer.await.map_err(|_gone| Gone)
    }

    fn progress(&self) -> Draining {
        let progress = self.drain.progress();
        Draining {
            phase: *self.phase.borrow(),
            sessions: progress.members,
            waiting: progress.waiting,
            rate: progress.rate.get(),
            seconds: progress.seconds(),
        }
    }

    /// Begins a drain, or changes the rate of the one that runs, and waits for its end at most so long.
    async fn begin_drain(
        &self,
        rate: Option<NonZeroU32>,
        wait: Duration,
    ) -> Result<Draining, Gone> {
        self.drains.send(rate).await.map_err(|_gone| Gone)?;
        let mut phase = self.phase.clone();
        let begun = phase.wait_for(|phase| *phase != Phase::Serving).await;
        drop(begun.map_err(|_gone| Gone)?);
        let drained = phase.wait_for(|phase| *phase == Phase::Drained);
        // Over time, or the process has ended: what there is to say is said.
        drop(timeout(wait, drained).await);
        Ok(self.progress())
    }

    /// Answers a POST. `None` for a path that is no command.
    pub(super) async fn answer(
        &self,
        path: &str,
        query: &str,
        headers: &HeaderMap,
        peer: SocketAddr,
    ) -> Option<(StatusCode, String)> {
        let ask = Ask::of(path)?;
        if let Some(refusal) = refusal(headers, peer) {
            tracing::warn!(%peer, path, refusal, "a command was refused");
            return Some((StatusCode::FORBIDDEN, format!("{refusal}\n")));
        }
        tracing::info!(%peer, path, "command");
        let answered = match ask {
            Ask::Reload => self.reload().await.map(|reloaded| {
                let status = match reloaded.problems {
                    None => StatusCode::OK,
                    Some(_) => StatusCode::UNPROCESSABLE_ENTITY,
                };
                (status, json(&reloaded))
            }),
            Ask::Upgrade => self.upgrade().await.map(|upgraded| {
                let status = match upgraded.process {
                    Some(_) => StatusCode::OK,
                    None => StatusCode::INTERNAL_SERVER_ERROR,
                };
                (status, json(&upgraded))
            }),
            Ask::Drain => match drain_query(query) {
                Err(wrong) => return Some((StatusCode::BAD_REQUEST, format!("{wrong}\n"))),
                Ok((rate, wait)) => self.begin_drain(rate, wait).await.map(|draining| {
                    let status = match draining.phase {
                        Phase::Drained => StatusCode::OK,
                        Phase::Serving | Phase::Announced | Phase::Draining => StatusCode::ACCEPTED,
                    };
                    (status, json(&draining))
                }),
            },
        };
        let gone = |gone: Gone| (StatusCode::SERVICE_UNAVAILABLE, format!("{gone}\n"));
        Some(answered.unwrap_or_else(gone))
    }

    /// Answers a GET.
    pub(super) fn look(&self, path: &str) -> Option<String> {
        (path == "/drain").then(|| json(&self.progress()))
    }
}

#[derive(Debug, Clone, Copy)]
enum Ask {
    Reload,
    Upgrade,
    Drain,
}

impl Ask {
    fn of(path: &str) -> Option<Self> {
        match path {
            "/reload" => Some(Self::Reload),
            "/upgrade" => Some(Self::Upgrade),
            "/drain" => Some(Self::Drain),
            _ => None,
        }
    }
}

fn refusal(headers: &HeaderMap, peer: SocketAddr) -> Option<&'static str> {
    if !peer.ip().to_canonical().is_loopback() {
        return Some("commands are taken from this machine only (loopback)");
    }
    let from_browser = ["origin", "sec-fetch-site", "sec-fetch-mode"]
        .iter()
        .any(|name| headers.contains_key(*name));
    from_browser.then_some("commands are not taken from browsers")
}

/// `rate=200&wait=300s`
fn drain_query(query: &str) -> Result<(Option<NonZeroU32>, Duration), String> {
    let mut rate = None;
    let mut wait = Duration::ZERO;
    for part in query.split('&').filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some(("rate", text)) => match text.parse() {
                Ok(number) => rate = Some(number),
                Err(_) => return Err(format!("rate={text}: a whole number above 0 is wanted")),
            },
            Some(("wait", text)) => match text.parse::<Span>() {
                Ok(span) => wait = span.0.min(MOST),
                Err(fault) => return Err(format!("wait={text} {fault}")),
            },
            Some(_) | None => return Err(format!("{part}: only rate=N and wait=TIME are known")),
        }
    }
    Ok((rate, wait))
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).map_or_else(|error| error.to_string(), |text| text + "\n")
}
