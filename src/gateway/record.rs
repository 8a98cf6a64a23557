//! What is logged and counted at the end of a session. Written on drop, so that no way out is missed.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use super::outcome::{Phase, Reason};
use super::session::Start;
use super::{Gateway, ListenerContext};
use crate::framing::Tally;
use crate::identity::UniqueId;
use crate::mqtt::{Connect, PacketType, Version};
use crate::pool::Joined;
use crate::telemetry::metrics::{ByListener, ByOutcome, ByPool, ByVersion, Name};
use crate::telemetry::{Ending, Notice, SessionSpan};

/// One session.
pub(super) struct Record {
    pub(super) gateway: Arc<Gateway>,
    client: SocketAddr,
    /// The proxy that the client came by.
    via: Option<SocketAddr>,
    /// The common name of its certificate.
    certificate: Option<String>,
    listener: Arc<ListenerContext>,
    pool: Name,
    unique_id: UniqueId,
    stages: Stages,
    told: bool,
    identities: bool,
    pub(super) version: Option<Version>,
    client_id: String,
    user_name: Option<String>,
    keepalive: u16,
    broker: Option<Name>,
    retries: usize,
    pub(super) phase: Phase,
    pub(super) reason: Option<Reason>,
    /// Up and down, once they are complete.
    pub(super) tallies: Option<Box<[Tally; 2]>>,
}

/// When each of them ended.
struct Stages {
    accepted: Instant,
    /// Our TLS handshake.
    secured: Option<Instant>,
    upgraded: Instant,
    connect: Option<Instant>,
    connack: Option<Instant>,
}

impl Record {
    pub(super) fn new(start: &Start) -> Self {
        let arrival = &start.arrival;
        let identities = arrival.snapshot.log.identities;
        Self {
            gateway: Arc::clone(&arrival.gateway),
            client: start.identity.address,
            via: (arrival.tcp_peer != start.identity.address).then_some(arrival.tcp_peer),
            certificate: identities
                .then(|| start.identity.common_name().map(str::to_owned))
                .flatten(),
            listener: Arc::clone(&arrival.listener),
            pool: Arc::clone(start.pool.name()),
            unique_id: start.identity.unique_id.clone(),
            stages: Stages {
                accepted: arrival.began,
                secured: arrival.secured,
                upgraded: Instant::now(),
                connect: None,
                connack: None,
            },
            told: arrival.snapshot.log.sessions,
            identities,
            version: None,
            client_id: String::new(),
            user_name: None,
            keepalive: 0,
            broker: None,
            retries: 0,
            phase: Phase::Connect,
            reason: None,
            tallies: None,
        }
    }

    pub(super) fn know(&mut self, connect: &Connect<'_>) {
        self.version = Some(connect.version);
        self.keepalive = connect.keepalive;
        if self.identities {
            connect.client_id.clone_into(&mut self.client_id);
            self.user_name = connect.user_name.map(str::to_owned);
        }
        let version = connect.version.name();
        self.gateway
            .metrics
            .connects
            .get_or_create(&ByVersion { version })
            .inc();
        let now = Instant::now();
        self.stages.connect = Some(now);
        let by_listener = ByListener {
            listener: Arc::clone(&self.listener.name),
        };
        let took = now.duration_since(self.stages.accepted);
        self.gateway
            .metrics
            .connect_seconds
            .get_or_create(&by_listener)
            .observe(took.as_secs_f64());
    }

    pub(super) fn joined(&mut self, joined: &Joined) {
        self.broker = Some(Arc::clone(&joined.seat.broker().label));
        self.retries = joined.retries;
        self.listener.sessions.inc();
        let now = Instant::now();
        self.stages.connack = Some(now);
        let took = now.duration_since(self.stages.connect.unwrap_or(self.stages.upgraded));
        let metrics = &self.gateway.metrics;
        metrics.joins.observe(took);
        metrics
            .join_seconds
            .get_or_create(&self.by_pool())
            .observe(took.as_secs_f64());
    }

    fn by_pool(&self) -> ByPool {
        ByPool {
            pool: Arc::clone(&self.pool),
        }
    }

    /// For people who look at the last ends.
    fn show(&self, reason: &Reason, labels: &ByOutcome, seconds: f64) {
        self.gateway.metrics.endings.add(Ending {
            number: 0,
            at: SystemTime::now(),
            notice: reason.notice(),
            who: labels.who,
            phase: labels.phase,
            why: labels.why,
            text: reason.to_string(),
            client: self.client,
            client_id: self.client_id.clone(),
            user_name: self.user_name.clone().unwrap_or_default(),
            listener: Arc::clone(&self.listener.name),
            pool: Some(Arc::clone(&self.pool)),
            broker: self.broker.clone(),
            seconds,
        });
    }

    /// For OpenTelemetry.
    fn span(&self, reason: &Reason, labels: &ByOutcome) -> SessionSpan {
        let (now, ended) = (Instant::now(), SystemTime::now());
        let at = |stage: Instant| ended - now.duration_since(stage);
        let stages = &self.stages;
        let [up, down] = self.tallies();
        SessionSpan {
            unique_id: self.unique_id.number(),
            accepted: at(stages.accepted),
            secured: stages.secured.map(at),
            upgraded: at(stages.upgraded),
            connect: stages.connect.map(at),
            connack: stages.connack.map(at),
            ended,
            who: labels.who,
            phase: labels.phase,
            why: labels.why,
            text: reason.to_string(),
            unusual: reason.notice() == Notice::Unusual,
            client: self.client,
            client_id: self.client_id.clone(),
            version: self.version.map(Version::name),
            listener: Arc::clone(&self.listener.name),
            pool: Arc::clone(&self.pool),
            broker: self.broker.clone(),
            retries: self.retries,
            up_bytes: up.bytes.iter().sum(),
            down_bytes: down.bytes.iter().sum(),
        }
    }

    fn tallies(&self) -> [Tally; 2] {
        self.tallies
            .as_deref()
            .map_or_else(Default::default, Clone::clone)
    }

    pub(super) fn finish(&mut self, reason: Reason) {
        self.reason = Some(reason);
    }

    /// `publish=3 pingreq=1`, and the bytes of all.
    fn packets(tally: &Tally) -> String {
        let mut text = String::new();
        for packet_type in PacketType::ALL {
            let count = tally.packets[packet_type.index()];
            if count > 0 {
                let bytes = tally.bytes[packet_type.index()];
                let space = if text.is_empty() { "" } else { " " };
                text.push_str(&format!("{space}{}={count}/{bytes}", packet_type.name()));
            }
        }
        text
    }
}

/// A client's own word must not write log lines, nor command a terminal. Both forms of the log escape what ASCII has for that;
/// JSON lets the rest through: controls of Latin-1, line separators, changes of direction.
fn legible(text: &str) -> Cow<'_, str> {
    let commands = |character: char| {
        matches!(
            character,
            '\u{7f}'..='\u{9f}'
                | '\u{61c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
        )
    };
    match text.contains(commands) {
        true => text.replace(commands, "\u{fffd}").into(),
        false => text.into(),
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let reason = self
            .reason
            .take()
            .unwrap_or(match std::thread::panicking() {
                true => Reason::Panicked,
                false => Reason::Cut,
            });
        let labels = ByOutcome {
            who: reason.who().name(),
            phase: self.phase.name(),
            why: reason.why(),
        };
        let metrics = &self.gateway.metrics;
        metrics.outcomes.get_or_create(&labels).inc();
        let seconds = self.stages.upgraded.elapsed().as_secs_f64();
        if self.broker.is_some() {
            self.listener.sessions.dec();
            metrics
                .session_seconds
                .get_or_create(&self.by_pool())
                .observe(seconds);
        }
        self.show(&reason, &labels, seconds);
        metrics.spans.offer(|| self.span(&reason, &labels));
        if !self.told {
            return;
        }
        let [up, down] = self.tallies();
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: "tidegate::session",
                    client = %self.client,
                    via = self.via.map(tracing::field::display),
                    session = %self.unique_id,
                    id = &*legible(&self.client_id),
                    user = &*legible(self.user_name.as_deref().unwrap_or("")),
                    certificate = self.certificate.as_deref().map(legible).as_deref(),
                    version = self.version.map_or("", Version::name),
                    keepalive = self.keepalive,
                    listener = &*self.listener.name,
                    pool = &*self.pool,
                    broker = self.broker.as_deref().unwrap_or(""),
                    retries = self.retries,
                    seconds = format_args!("{seconds:.3}"),
                    up = %Self::packets(&up),
                    down = %Self::packets(&down),
                    up_bytes = up.bytes.iter().sum::<u64>(),
                    down_bytes = down.bytes.iter().sum::<u64>(),
                    who = labels.who,
                    phase = labels.phase,
                    why = labels.why,
                    "{reason}"
                )
            };
        }
        match reason.level() {
            tracing::Level::ERROR => line!(error),
            tracing::Level::WARN => line!(warn),
            _ => line!(info),
        }
    }
}
