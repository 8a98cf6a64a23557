//! The load of one row on one gateway, and what the gateway spent meanwhile.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::accounts::{Family, Span, Spent};
use crate::clients::{Clients, Next, Outbox, Script, Tls};
use crate::poller::now;
use crate::rows::Load;
use crate::{site, wire};

/// Clients that shake hands at a time.
const AT_A_TIME: usize = 16;
/// New connections a second while a row is set up.
const RAMP: f64 = 2000.0;
/// Of how many connections at most the CONNACK is still to come while a row is set up.
const COMING: usize = 200;
/// How long the set-up may stand still.
const STUCK: u64 = 20_000_000_000;
const TURN: Duration = Duration::from_millis(5);

/// Where a row is put on.
pub struct Place {
    pub gateway: SocketAddr,
    pub family: Family,
    pub broker_tcp: SocketAddr,
    pub broker: u32,
}

/// How long.
#[derive(Clone, Copy)]
pub struct Times {
    pub warm_up: f64,
    pub seconds: f64,
}

/// What one run has shown.
pub struct Measured {
    pub units: u64,
    pub spent: Spent,
    /// Where messages have a time at which they are due: from then on, so a stall counts for all that it held up.
    pub latency: Option<Histogram<u64>>,
    /// Messages that did not come back, or came back wrong; connections that resumed no session though they should.
    pub amiss: u64,
}

pub fn run(load: Load, place: &Place, times: Times) -> crate::Result<Measured> {
    match load {
        Load::Handshakes(tls) => handshakes(tls, place, times),
        Load::Rate {
            clients,
            bytes,
            each,
        } => {
            let per_second = each * clients as f64;
            messages(clients, bytes, Pace::Rate(per_second), place, times)
        }
        Load::Window {
            clients,
            bytes,
            window,
        } => messages(clients, bytes, Pace::Window(window), place, times),
        Load::FanOut { subscribers, each } => fan_out(subscribers, each, place, times),
        Load::Files { bytes, version } => site::requests(bytes, version, place, times),
        Load::Idle { .. } => Err("idle sessions are held, not run".into()),
    }
}

fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

fn histogram() -> crate::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 120_000_000_000, 3)?)
}

#[derive(Default)]
struct Handshakes {
    measuring: bool,
    done: u64,
    resumed: u64,
    lost: Option<String>,
}

impl Script for Handshakes {
    fn opened(&mut self, _: usize, _: u64, resumed: bool, _: &mut Outbox) -> Next {
        if self.measuring {
            self.done += 1;
            self.resumed += u64::from(resumed);
        }
        Next::Again
    }

    fn packet(&mut self, _: usize, _: &[u8], _: &mut Outbox) {}

    fn lost(&mut self, _: usize, why: &str) {
        self.lost = Some(why.to_owned());
    }
}

fn handshakes(tls: Tls, place: &Place, times: Times) -> crate::Result<Measured> {
    let mut clients = Clients::new(place.gateway, tls)?;
    for _ in 0..AT_A_TIME {
        clients.add()?;
    }
    let mut script = Handshakes::default();
    let mut until = |script: &mut Handshakes, end: u64| -> crate::Result<()> {
        while now() < end {
            clients.turn(script, TURN)?;
            if let Some(why) = script.lost.take() {
                return Err(why.into());
            }
        }
        Ok(())
    };
    until(&mut script, now() + nanoseconds(times.warm_up))?;
    script.measuring = true;
    let span = Span::begin(&place.family, place.broker);
    until(&mut script, now() + nanoseconds(times.seconds))?;
    Ok(Measured {
        units: script.done,
        spent: span.end(),
        latency: None,
        amiss: match tls {
            Tls::Resumed => script.done - script.resumed,
            Tls::Full | Tls::PostQuantum => script.resumed,
        },
    })
}

/// What the clients of all other rows have in common.
struct Crowd {
    open: usize,
    /// Sent after CONNACK; a client is open when it is answered.
    subscription: Option<Vec<u8>>,
    /// A PUBLISH whose first eight bytes of payload are a time.
    message: Vec<u8>,
    bytes: usize,
    closed_loop: bool,
    measuring: bool,
    /// Latency is noted of messages due in between.
    from: u64,
    to: u64,
    received: u64,
    done: u64,
    noted: u64,
    wrong: u64,
    latency: Histogram<u64>,
    lost: Option<String>,
}

impl Crowd {
    fn new(topic: &str, bytes: usize) -> crate::Result<Self> {
        let payload: Vec<u8> = (0..bytes).map(|at| (at * 31 + 7) as u8).collect();
        Ok(Self {
            open: 0,
            subscription: None,
            message: wire::publish(topic, &payload),
            bytes,
            closed_loop: false,
            measuring: false,
            from: 0,
            to: 0,
            received: 0,
            done: 0,
            noted: 0,
            wrong: 0,
            latency: histogram()?,
            lost: None,
        })
    }

    /// The message that was due at `stamp`.
    fn message(&mut self, stamp: u64) -> &[u8] {
        let start = self.message.len() - self.bytes;
        self.message[start..start + 8].copy_from_slice(&stamp.to_le_bytes());
        &self.message
    }

    fn check(&mut self) -> crate::Result<()> {
        self.lost.take().map_or(Ok(()), |why| Err(why.into()))
    }

    /// Opens so many connections, so many a second.
    fn gather(&mut self, clients: &mut Clients, count: usize, ramp: f64) -> crate::Result<()> {
        let begin = now();
        let mut progress = (0, begin);
        while self.open < count {
            let due = 1 + ((now() - begin) as f64 / 1e9 * ramp) as usize;
            while clients.count() < due.min(count).min(self.open + COMING) {
                clients.add()?;
            }
            clients.turn(self, Duration::from_millis(1))?;
            self.check()?;
            if self.open > progress.0 {
                progress = (self.open, now());
            } else if now() - progress.1 > STUCK {
                return Err(format!("stuck at {} of {count} connections", self.open).into());
            }
        }
        Ok(())
    }

    /// Sets the time to be measured; answers when the first message is due.
    fn schedule(&mut self, times: Times) -> u64 {
        let begin = now() + 100_000_000;
        self.from = begin + nanoseconds(times.warm_up);
        self.to = self.from + nanoseconds(times.seconds);
        begin
    }
}

impl Script for Crowd {
    fn opened(&mut self, _: usize, _: u64, _: bool, out: &mut Outbox) -> Next {
        match &self.subscription {
            Some(subscription) => out.send(subscription),
            None => self.open += 1,
        }
        Next::Stay
    }

    fn packet(&mut self, _: usize, packet: &[u8], out: &mut Outbox) {
        if packet[0] >> 4 == wire::SUBACK {
            self.open += 1;
            return;
        }
        let payload = wire::published(packet).map(|(_, payload)| payload);
        let whole = payload.filter(|payload| payload.len() == self.bytes);
        let Some((stamp, _)) = whole.and_then(|payload| payload.split_first_chunk::<8>()) else {
            self.wrong += 1;
            return;
        };
        let (stamp, now) = (u64::from_le_bytes(*stamp), now());
        self.received += 1;
        self.done += u64::from(self.measuring);
        if (self.from..self.to).contains(&stamp) {
            self.noted += 1;
            self.latency
                .saturating_record(now.saturating_sub(stamp).max(1));
        }
        if self.closed_loop {
            let message = self.message(now);
            out.send(message);
        }
    }

    fn lost(&mut self, id: usize, why: &str) {
        self.lost = Some(format!("client {id}, {why}"));
    }
}

enum Pace {
    /// Messages a second, of all clients.
    Rate(f64),
    /// On their way, of each client.
    Window(usize),
}

fn messages(
    count: usize,
    bytes: usize,
    pace: Pace,
    place: &Place,
    times: Times,
) -> crate::Result<Measured> {
    let mut clients = Clients::new(place.gateway, Tls::Full)?;
    let mut crowd = Crowd::new("b/0001", bytes)?;
    crowd.gather(&mut clients, count, RAMP)?;
    let begin = crowd.schedule(times);
    let (gap, first) = match pace {
        Pace::Rate(per_second) => (Some(1e9 / per_second), 0),
        Pace::Window(window) => (None, window),
    };
    crowd.closed_loop = gap.is_none();
    for _ in 0..first {
        for id in 0..count {
            if let Some(out) = clients.outbox(id) {
                out.send(crowd.message(now()));
            }
        }
    }
    let (mut next, mut owed) = (0_u64, 0_u64);
    let mut send_due = |crowd: &mut Crowd, clients: &mut Clients, gap: f64| {
        loop {
            let due = begin + (next as f64 * gap) as u64;
            if due > now() || due >= crowd.to {
                return due;
            }
            if let Some(out) = clients.outbox(next as usize % count) {
                out.send(crowd.message(due));
                owed += u64::from(due >= crowd.from);
            }
            next += 1;
        }
    };
    let spent = measure(&mut crowd, &mut clients, place, |crowd, clients| {
        Ok(gap.map_or(u64::MAX, |gap| send_due(crowd, clients, gap)))
    })?;
    let done = crowd.done;
    let patience = now() + 1_000_000_000;
    while gap.is_some() && crowd.noted < owed && now() < patience {
        clients.turn(&mut crowd, TURN)?;
    }
    Ok(Measured {
        units: done,
        spent,
        amiss: crowd.wrong + if gap.is_some() { owed - crowd.noted } else { 0 },
        latency: gap.map(|_| crowd.latency),
    })
}

/// Runs to the end of the time to be measured. `send` sends what is due and answers when it wants to be asked again.
fn measure(
    crowd: &mut Crowd,
    clients: &mut Clients,
    place: &Place,
    mut send: impl FnMut(&mut Crowd, &mut Clients) -> crate::Result<u64>,
) -> crate::Result<Spent> {
    let mut span = None;
    while now() < crowd.to {
        if span.is_none() && now() >= crowd.from {
            span = Some(Span::begin(&place.family, place.broker));
            crowd.measuring = true;
        }
        let mut wake = send(crowd, clients)?.min(crowd.to);
        if span.is_none() {
            wake = wake.min(crowd.from);
        }
        let limit = Duration::from_nanos(wake.saturating_sub(now()));
        clients.turn(crowd, limit.min(TURN))?;
        crowd.check()?;
    }
    crowd.measuring = false;
    Ok(span.ok_or("no time to measure in")?.end())
}

fn fan_out(subscribers: usize, each: f64, place: &Place, times: Times) -> crate::Result<Measured> {
    let topic = format!("fan/{}", now());
    let mut crowd = Crowd::new(&topic, 64)?;
    crowd.subscription = Some(wire::subscribe(&topic));
    let mut publisher = TcpStream::connect(place.broker_tcp)?;
    publisher.set_nodelay(true)?;
    publisher.write_all(&wire::connect("publisher"))?;
    publisher.read_exact(&mut [0; 4])?;
    let mut clients = Clients::new(place.gateway, Tls::Full)?;
    crowd.gather(&mut clients, subscribers, RAMP)?;
    let begin = crowd.schedule(times);
    let mut published = 0_u64;
    let spent = measure(&mut crowd, &mut clients, place, |crowd, _| {
        loop {
            let due = begin + (published as f64 * 1e9 / each) as u64;
            if due > now() || due >= crowd.to {
                return Ok(due);
            }
            publisher.write_all(crowd.message(due))?;
            published += 1;
        }
    })?;
    let done = crowd.done;
    let owed = published * subscribers as u64;
    let patience = now() + 1_000_000_000;
    while crowd.received < owed && now() < patience {
        clients.turn(&mut crowd, TURN)?;
    }
    Ok(Measured {
        units: done,
        spent,
        amiss: crowd.wrong + owed.saturating_sub(crowd.received),
        latency: Some(crowd.latency),
    })
}

/// Sessions that stay until they are dropped.
pub struct Held {
    clients: Clients,
    crowd: Crowd,
}

/// Opens so many sessions, at `ramp` a second.
pub fn hold(gateway: SocketAddr, sessions: usize, ramp: f64) -> crate::Result<Held> {
    let mut clients = Clients::new(gateway, Tls::Full)?;
    let mut crowd = Crowd::new("idle", 8)?;
    crowd.gather(&mut clients, sessions, ramp)?;
    Ok(Held { clients, crowd })
}

impl Held {
    /// Listens for so long.
    pub fn wait(&mut self, time: Duration) -> crate::Result<()> {
        let end = now() + u64::try_from(time.as_nanos())?;
        while now() < end {
            self.clients.turn(&mut self.crowd, TURN)?;
            self.crowd.check()?;
        }
        Ok(())
    }

    /// All at once.
    pub fn leave(mut self) {
        self.clients.leave();
    }
}
