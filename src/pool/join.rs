//! Joining a session to a broker: choose, connect, forward CONNECT, wait for CONNACK; on any failure before it, the next
//! broker. The client sees none of this: its CONNECT is kept until a CONNACK is there.

use std::fmt;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::select::{Busy, address_key};
use super::{Broker, Failure, Pool, Seat};
use crate::framing::{Limits, Output, Translator};
use crate::identity::Identity;
use crate::mqtt::{ConnackFields, Version};
use crate::stream::Stream;
use crate::telemetry::metrics::Name;
use crate::telemetry::{Counters, Metrics};

/// One session's wish.
#[derive(Debug)]
pub struct Joining<'a> {
    pub client: &'a Identity,
    pub client_id: &'a str,
    pub user_name: Option<&'a str>,
    /// The whole CONNECT packet.
    pub connect: &'a [u8],
    pub version: Version,
    /// How packets leave towards the client.
    pub output: Output,
    pub limits: Limits,
    /// Of the direction down.
    pub counters: Counters,
}

/// A broker took the session, or answered in a way that only the client can act on.
#[derive(Debug)]
pub struct Joined {
    pub seat: Seat,
    pub stream: Stream,
    /// Packets from the broker to the client.
    pub down: Translator,
    /// Bytes for the client: CONNACK, or the AUTH that asks for more.
    pub written: Vec<u8>,
    /// Bytes from the broker that are not yet translated.
    pub unread: Vec<u8>,
    /// `None` when the broker began an authentication exchange (MQTT 5 4.12): its CONNACK is still to come.
    pub connack: Option<ConnackFields>,
    /// Brokers that were tried before this one.
    pub retries: usize,
    /// How packets leave towards this broker.
    pub output: Output,
}

/// No broker took the session.
#[derive(Debug)]
pub struct JoinError {
    pub attempts: Vec<(Name, Failure)>,
    /// The time for all attempts was over (`timeouts.join`).
    pub late: bool,
    /// Brokers were left, but had no room.
    pub busy: Option<Busy>,
    /// No name of a broker has an address yet.
    pub unresolved: bool,
}

impl JoinError {
    /// The brokers may be well, but none has room, or the gateway has no source port left towards any of them.
    pub fn is_crowded(&self) -> bool {
        let of_ports = |(_, failure): &(Name, Failure)| matches!(failure, Failure::SourcePorts);
        self.busy.is_some() || (!self.attempts.is_empty() && self.attempts.iter().all(of_ports))
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "no broker took the session")?;
        for (at, (broker, failure)) in self.attempts.iter().enumerate() {
            write!(
                out,
                "{}{broker}: {failure}",
                if at == 0 { ": " } else { "; " }
            )?;
        }
        let busy = match self.busy {
            None => "",
            Some(Busy::MaxSessions) => {
                "; those that are left have all the sessions they may have (max_sessions)"
            }
            Some(Busy::QueueFull) => {
                "; too many others wait for those that are left (connect_rate, queue.length)"
            }
            Some(Busy::QueueAge) => {
                "; none of those that are left has a place soon enough (connect_rate, queue.age)"
            }
        };
        out.write_str(busy)?;
        if self.attempts.is_empty() && self.busy.is_none() && !self.unresolved && !self.late {
            out.write_str(
                ": each is draining, as its probe says, or switched off (down, weight 0)",
            )?;
        }
        if self.unresolved {
            out.write_str(": no name of a broker has an address yet (dns)")?;
        }
        if self.late {
            write!(out, "; no time left for another (timeouts.join)")?;
        }
        Ok(())
    }
}

impl std::error::Error for JoinError {}

impl Pool {
    /// Tries each broker at most once.
    pub async fn join(
        &self,
        joining: &Joining<'_>,
        metrics: &Metrics,
    ) -> Result<Joined, JoinError> {
        let now = Instant::now();
        let (deadline, patience) = (now + self.timeouts.join, now + self.queue.age);
        let address = address_key(joining.client.address.ip());
        let rule = self.rule(joining, &address);
        let mut tried: Vec<Arc<Broker>> = Vec::new();
        let mut begins = Vec::new();
        let mut error = JoinError {
            attempts: Vec::new(),
            late: false,
            busy: None,
            unresolved: self.members().brokers.is_empty(),
        };
        loop {
            let seat = self.seat(rule, &tried, patience, metrics);
            let seat = match timeout_at(deadline, seat).await {
                Ok(Ok(seat)) => seat,
                Ok(Err(busy)) => return Err(JoinError { busy, ..error }),
                Err(_) => {
                    return Err(JoinError {
                        late: true,
                        ..error
                    });
                }
            };
            let begun = Instant::now();
            let broker = Arc::clone(&seat.broker);
            let attempt = self.attempt(seat, joining, metrics);
            let failure = match timeout_at(deadline, attempt).await {
                Ok(Ok(mut joined)) => {
                    joined.retries = tried.len();
                    self.blame_suspects(&tried, &begins, &error);
                    return Ok(joined);
                }
                Ok(Err(failure)) => failure,
                Err(_) => {
                    return Err(JoinError {
                        late: true,
                        ..error
                    });
                }
            };
            self.note(&broker, begun, &failure);
            error.attempts.push((Arc::clone(&broker.label), failure));
            begins.push(begun);
            tried.push(broker);
        }
    }

    fn note(&self, broker: &Broker, begun: Instant, failure: &Failure) {
        tracing::debug!(pool = %self.name, broker = %broker.label, %failure, "broker failed before CONNACK");
        broker.state.series.failed(failure.cause());
        broker.state.trouble(failure);
        if !is_ours(failure) && !may_be_the_clients(failure) {
            self.blame(broker, begun, failure);
        }
    }

    /// Another broker took the session: so it was not the client's fault that these did not.
    ///
    /// SECURITY: whoever sends CONNECT packets that brokers close upon could otherwise have one after the other ejected.
    fn blame_suspects(&self, tried: &[Arc<Broker>], begins: &[Instant], error: &JoinError) {
        for ((broker, begun), (_, failure)) in tried.iter().zip(begins).zip(&error.attempts) {
            if may_be_the_clients(failure) {
                self.blame(broker, *begun, failure);
            }
        }
    }
}

/// The gateway's own trouble: it says nothing about the broker.
fn is_ours(failure: &Failure) -> bool {
    matches!(failure, Failure::SourcePorts | Failure::SourceAddress(..))
}

/// A broker in good health may answer so to what one client sent.
fn may_be_the_clients(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::Handshake(_)
            | Failure::Closed
            | Failure::Io(_)
            | Failure::NotConnack(_)
            | Failure::Garbage(_)
            | Failure::BrokenConnack
            | Failure::Elsewhere(_)
    )
}
