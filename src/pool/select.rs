//! From what is known of the brokers to a seat at one of them, or to the reason why there is none.
//!
//! First the brokers that are up, by the pool's rule; a backup only when none of them is left; one that is ejected or
//! down only when no backup is left either: a session had rather try it than be refused. `down: true`, weight 0 and a
//! broker that drains are never taken.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use tokio::time::{Instant, sleep};

use super::choose::{Candidate, Rule, choose, warm_up};
use super::health::Condition;
use super::queue::Waiting;
use super::{Broker, Joining, Members, Pool, Seat};
use crate::config::model::Balance;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{ByPool, ByPoolReason};

/// Brokers are left, but they have as many sessions as they may have, or get them as fast as they may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    MaxSessions,
    QueueFull,
    QueueAge,
}

impl Busy {
    /// The label in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::MaxSessions => "max_sessions",
            Self::QueueFull => "queue_full",
            Self::QueueAge => "queue_age",
        }
    }
}

/// Which brokers are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tier {
    First,
    Backup,
    LastResort,
}

/// So long, and in the queue.
type Wait<'a> = Option<(Duration, Waiting<'a>)>;

/// A seat at a broker.
struct Selected<'a> {
    seat: Seat,
    tier: Tier,
    wait: Wait<'a>,
}

/// A client's address as a key. IPv6: its /64, within which clients change their address all the time (RFC 8981).
pub(super) fn address_key(address: IpAddr) -> [u8; 16] {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => {
            let mut octets = address.octets();
            octets[8..].fill(0);
            octets
        }
    }
}

impl Pool {
    /// The rule for one session. Without an id there is nothing to come back to, so nothing is lost by the broker that
    /// has most room; by address, all clients behind one carrier's NAT would be at one broker.
    pub(super) fn rule<'a>(&self, joining: &Joining<'a>, address: &'a [u8; 16]) -> Rule<'a> {
        let named = |name: &'a str| match name {
            "" => Rule::LeastSessions,
            name => Rule::Key(name.as_bytes()),
        };
        match self.balance {
            Balance::RoundRobin => Rule::RoundRobin,
            Balance::LeastSessions => Rule::LeastSessions,
            Balance::RandomOfTwo => Rule::RandomOfTwo,
            Balance::ClientAddress => Rule::Key(address),
            Balance::ClientId => named(joining.client_id),
            Balance::UserName => named(joining.user_name.unwrap_or_default()),
        }
    }

    /// A seat at a broker that is none of `tried`, when its turn has come. `Err(None)`: no broker is left.
    pub(super) async fn seat(
        &self,
        rule: Rule<'_>,
        tried: &[Arc<Broker>],
        until: Instant,
        metrics: &Metrics,
    ) -> Result<Seat, Option<Busy>> {
        loop {
            let now = Instant::now();
            let patience = until.saturating_duration_since(now);
            let selected = self
                .select(rule, tried, now, patience)
                .inspect_err(|busy| {
                    if let Some(busy) = busy {
                        let labels = ByPoolReason {
                            pool: Arc::clone(&self.name),
                            reason: busy.name(),
                        };
                        metrics.brokers.queue_refused.get_or_create(&labels).inc();
                    }
                })?;
            let Some((wait, waiting)) = selected.wait else {
                return Ok(selected.seat);
            };
            let by_pool = ByPool {
                pool: Arc::clone(&self.name),
            };
            metrics
                .brokers
                .queue_seconds
                .get_or_create(&by_pool)
                .observe(wait.as_secs_f64());
            sleep(wait).await;
            drop(waiting);
            // It may have been ejected while the session waited for it.
            let up = selected.seat.broker.state.condition() == Condition::Up;
            if up || selected.seat.trying || selected.tier == Tier::LastResort {
                return Ok(selected.seat);
            }
        }
    }

    fn select(
        &self,
        rule: Rule<'_>,
        tried: &[Arc<Broker>],
        now: Instant,
        patience: Duration,
    ) -> Result<Selected<'_>, Option<Busy>> {
        let mut busy = None;
        let mut random = Rng::new();
        let members = self.members();
        for tier in [Tier::First, Tier::Backup, Tier::LastResort] {
            // Who is told "busy" comes again in a moment; a broker that is out would cost it that moment.
            if tier == Tier::LastResort && busy.is_some() {
                break;
            }
            let (mut all, trying) = self.candidates(&members, tier, tried, now);
            // Whose time out is over is tried by the next session, by one at a time. None waits for it, nor leaves its own
            // broker for it.
            for at in 0..all.len() {
                let broker = &members.brokers[at];
                let is_due = trying[at] && all[at].open && !rule.is_sticky();
                if is_due
                    && broker.state.places.wait(now, broker.connect_rate).is_zero()
                    && let Ok((seat, wait)) = self.place(broker, true, now, patience)
                {
                    return Ok(Selected { seat, tier, wait });
                }
            }
            let mut warm = all.clone();
            if !rule.is_sticky() && tier != Tier::LastResort {
                warm_up(&mut warm, &mut random);
            }
            // The cold ones too, when the others have no room.
            while let Some(at) = self
                .next(&members, rule, &warm, now, &mut random)
                .or_else(|| self.next(&members, rule, &all, now, &mut random))
            {
                match self.place(&members.brokers[at], trying[at], now, patience) {
                    Ok((seat, wait)) => return Ok(Selected { seat, tier, wait }),
                    Err(why) => busy = why.or(busy),
                }
                (warm[at].open, all[at].open) = (false, false);
            }
        }
        Err(busy)
    }

    /// The brokers as the choice sees them, those of the tier open; and which of them would be tried.
    fn candidates(
        &self,
        members: &Members,
        tier: Tier,
        tried: &[Arc<Broker>],
        now: Instant,
    ) -> (Vec<Candidate>, Vec<bool>) {
        let look = |broker: &Arc<Broker>| {
            let (condition, due, warmth) = broker.state.look(now, self.slow_start);
            let of_tier = match tier {
                Tier::First => !broker.backup && (condition == Condition::Up || due),
                Tier::Backup => broker.backup && (condition == Condition::Up || due),
                Tier::LastResort => matches!(condition, Condition::Ejected | Condition::Down),
            };
            let tried = tried.iter().any(|tried| tried.label == broker.label);
            let candidate = Candidate {
                open: of_tier && broker.takes_sessions() && !tried,
                weight: broker.weight,
                sessions: broker.state.sessions(),
                warmth,
                seed: broker.seed,
            };
            (candidate, due && tier != Tier::LastResort)
        };
        members.brokers.iter().map(look).unzip()
    }

    /// The next by the rule. Whoever does not need one broker takes those that have a place soonest.
    fn next(
        &self,
        members: &Members,
        rule: Rule<'_>,
        candidates: &[Candidate],
        now: Instant,
        random: &mut Rng,
    ) -> Option<usize> {
        let mut turns = members.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let has_rate = members.brokers.iter().any(|broker| broker.connect_rate > 0);
        if !has_rate || rule.is_sticky() {
            return choose(rule, candidates, &mut turns, random);
        }
        let wait = |at: usize| {
            let broker = &members.brokers[at];
            broker.state.places.wait(now, broker.connect_rate)
        };
        let waits: Vec<Option<Duration>> = candidates
            .iter()
            .enumerate()
            .map(|(at, candidate)| candidate.open.then(|| wait(at)))
            .collect();
        let soonest = waits.iter().flatten().min().copied();
        let mut soon = candidates.to_vec();
        for (candidate, wait) in soon.iter_mut().zip(waits) {
            candidate.open = wait.is_some() && wait == soonest;
        }
        choose(rule, &soon, &mut turns, random)
    }

    /// A seat, and how long to wait for it. `Err(None)`: another session is trying it.
    fn place(
        &self,
        broker: &Arc<Broker>,
        trying: bool,
        now: Instant,
        patience: Duration,
    ) -> Result<(Seat, Wait<'_>), Option<Busy>> {
        let full = broker
            .max_sessions
            .is_some_and(|max| broker.state.sessions() >= max);
        let seat = Seat::take(broker, trying).ok_or(full.then_some(Busy::MaxSessions))?;
        let places = &broker.state.places;
        let rate = broker.connect_rate;
        if places.take(now, rate, Duration::ZERO).is_some() {
            return Ok((seat, None));
        }
        let waiting = self.queue.enter().ok_or(Some(Busy::QueueFull))?;
        let wait = places
            .take(now, rate, patience)
            .ok_or(Some(Busy::QueueAge))?;
        Ok((seat, Some((wait, waiting))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_changes_its_address_in_its_network_keeps_its_key() {
        let key = |text: &str| address_key(text.parse().unwrap());
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_ne!(key("192.0.2.2"), key("192.0.2.1"));
    }
}
