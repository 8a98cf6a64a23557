//! One MQTT session from the 101 to its end: CONNECT, a broker, the relay, the goodbye. Recorded once, whatever happens.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::Gateway;
use super::connection::Arrival;
use super::names::renamed;
use super::outcome::{Phase, Reason, idle_limit};
use super::record::Record;
use super::relay::{Lane, Relay, Rules};
use crate::framing::{Fault, Input, Limits, Masks, Output, Signal, Translator};
use crate::identity::Identity;
use crate::lifecycle::Membership;
use crate::mqtt::{self, Connack, Connect, ConnectError, PacketType, Version};
use crate::pool::{Joining, Pool, mask_seed};
use crate::stream::Stream;
use crate::telemetry::{Counters, Direction};
use crate::websocket::{Control, FrameReader, Opcode, Peer, close, control, data_header};

/// Bytes that a client may send behind its CONNECT before the broker has answered it.
const AHEAD: usize = 16 * 1024;

/// Longest CONNACK, DISCONNECT or AUTH. They are short.
const WATCHED: u64 = 64 * 1024;

/// What a session begins with.
#[derive(Debug)]
pub struct Start {
    pub(super) stream: Stream,
    /// Bytes that came behind the upgrade request.
    pub(super) early: Vec<u8>,
    pub(super) pool: Arc<Pool>,
    pub(super) identity: Box<Identity>,
    pub(super) arrival: Arrival,
}

/// Serves one session to its end. `held` is given back then.
pub(super) async fn run<H>(start: Box<Start>, held: H) {
    let gateway = Arc::clone(&start.arrival.gateway);
    let membership = gateway
        .drain
        .join(start.arrival.snapshot.drain.max_session_age);
    let mut record = Box::new(Record::new(&start));
    // CANCEL: a cut drops a session that has no broker yet where it stands.
    let opened = tokio::select! {
        biased;
        opened = Box::pin(open(start, &mut record, &membership)) => opened,
        () = gateway.drain.cut() => {
            record.reason = Some(Reason::Cut);
            return;
        }
    };
    let ended = match opened {
        Ok(relay) => serve(relay, &mut record, &membership).await,
        Err(ended) => *ended,
    };
    Box::pin(say_goodbye(ended, record, &gateway)).await;
    drop(held);
}

/// A client that is to be told how its session ended.
struct Ended {
    client: Stream,
    /// To be written first.
    pending: Vec<u8>,
    /// No packet is half written: MQTT may say something.
    at_packet_boundary: bool,
    /// No frame is half written: a Close may follow.
    at_frame_boundary: bool,
    /// The broker, where it is to be let finish.
    broker: Option<Stream>,
    reason: Reason,
}

async fn serve(mut relay: Box<Relay>, record: &mut Record, membership: &Membership) -> Ended {
    record.phase = Phase::Relay;
    let reason = match relay.run(membership, &record.gateway.drain).await {
        Reason::Drained => Reason::asked(membership.asked()),
        reason => reason,
    };
    record.tallies = Some(Box::new([
        relay.up.translator.tally,
        relay.down.translator.tally,
    ]));
    let let_finish = matches!(reason, Reason::Disconnected);
    Ended {
        at_packet_boundary: relay.down.translator.at_boundary() && relay.may_say_disconnect(),
        at_frame_boundary: relay.down.translator.at_frame_boundary(),
        pending: relay.down.take_waiting(),
        client: relay.client,
        broker: let_finish.then_some(relay.broker),
        reason,
    }
}

/// From the 101 to a broker that took the session.
async fn open(
    start: Box<Start>,
    record: &mut Record,
    membership: &Membership,
) -> Result<Box<Relay>, Box<Ended>> {
    let Start {
        mut stream,
        early,
        pool,
        identity,
        arrival,
    } = *start;
    let limits = arrival.snapshot.limits;
    let timeouts = arrival.snapshot.timeouts;
    let traffic = &arrival.gateway.metrics.traffic;
    let mut reading = Reading::new(
        early,
        limits.connect,
        traffic.counters(arrival.worker, Direction::Up),
    );
    let deadline = Instant::now() + timeouts.connect;
    let packet = match timeout_at(deadline, reading.connect(&mut stream)).await {
        Ok(Ok(packet)) => packet,
        Ok(Err(reason)) => return Err(refused(stream, reason, None)),
        Err(_) => return Err(refused(stream, Reason::ConnectTimeout, None)),
    };
    let connect = match Connect::read(&packet, limits.client_id) {
        Ok(connect) => connect,
        Err(error) => {
            let version = mqtt::version_of(&packet);
            return Err(refused(stream, Reason::Connect(error), version));
        }
    };
    let renamed = match renamed(&pool, &identity, &packet, &connect) {
        Ok(renamed) => renamed,
        Err(reason) => {
            record.know(&connect);
            return Err(refused(stream, reason, Some(connect.version)));
        }
    };
    // From here on the client is who its broker takes it for.
    let packet = renamed.as_deref().unwrap_or(&packet);
    let Ok(connect) = Connect::read(packet, usize::MAX) else {
        return Err(refused(stream, Reason::NotAuthorized, None));
    };
    record.know(&connect);
    if arrival.gateway.drain.is_refusing() {
        return Err(refused(stream, Reason::Draining, Some(connect.version)));
    }
    record.phase = Phase::Join;
    let packet_limits = Limits {
        packet: limits.packet as u64,
        frame: limits.frame as u64,
        watched: WATCHED,
    };
    let joining = Joining {
        client: &identity,
        client_id: connect.client_id,
        user_name: connect.user_name,
        connect: packet,
        version: connect.version,
        output: Output::Frames,
        limits: packet_limits,
        counters: traffic.counters(arrival.worker, Direction::Down),
    };
    let joined = {
        let joining = pool.join(&joining, &arrival.gateway.metrics);
        // CANCEL: `ahead` keeps what it read; an attempt at a broker that is dropped closes its connection.
        tokio::select! {
            joined = joining => joined.map_err(Reason::NoBroker),
            reason = reading.ahead(&mut stream) => Err(reason),
        }
    };
    let joined = match joined {
        Ok(joined) => joined,
        Err(reason) => return Err(refused(stream, reason, Some(connect.version))),
    };
    record.joined(&joined);
    membership.enter(joined.seat.broker().group());
    let mut up = reading.translator;
    up.enter_session(packet_limits, joined.output, Masks::new(mask_seed()));
    let rules = Rules {
        version: connect.version,
        idle: idle_limit(
            joined
                .connack
                .and_then(|connack| connack.server_keepalive)
                .unwrap_or(connect.keepalive),
            &timeouts,
        ),
        timeouts,
    };
    Ok(Box::new(Relay::new(
        stream,
        joined.stream,
        Lane::new(up, Vec::new(), reading.unread),
        Lane::new(joined.down, joined.written, joined.unread),
        rules,
        joined.connack,
        joined.seat,
    )))
}

/// Before CONNACK: MQTT's answer where there is one.
fn refused(client: Stream, reason: Reason, version: Option<Version>) -> Box<Ended> {
    let mut pending = Vec::new();
    let connack = version
        .zip(reason.mqtt())
        .and_then(|(version, code)| Connack::refuse(version, code));
    if let Some(packet) = connack {
        data_header(
            &mut pending,
            Opcode::Binary,
            true,
            packet.len() as u64,
            None,
        );
        pending.extend_from_slice(&packet);
    }
    Box::new(Ended {
        client,
        pending,
        at_packet_boundary: true,
        at_frame_boundary: true,
        broker: None,
        reason,
    })
}

/// The client's bytes until a broker has the session.
struct Reading {
    translator: Translator,
    unread: Vec<u8>,
}

impl Reading {
    fn new(early: Vec<u8>, longest: usize, counters: Counters) -> Self {
        let limits = Limits {
            packet: longest as u64,
            frame: u64::MAX,
            watched: longest as u64,
        };
        let input = Input::Frames(FrameReader::new(Peer::Client));
        let mut translator =
            Translator::new(input, Output::Stream, limits, Masks::new(0), counters);
        translator.watch(PacketType::Connect);
        Self {
            translator,
            unread: early,
        }
    }

    /// Reads until the first packet is whole. CONNECT may come in any framing: MQTT.js sends one byte and then the rest.
    async fn connect(&mut self, client: &mut Stream) -> Result<Vec<u8>, Reason> {
        let mut written = Vec::new();
        loop {
            let mut input = &self.unread[..];
            let signal = self
                .translator
                .translate(&mut input, &mut written, usize::MAX);
            let used = self.unread.len() - input.len();
            self.unread.drain(..used);
            let other = PacketType::ALL.iter().find(|packet_type| {
                **packet_type != PacketType::Connect
                    && self.translator.tally.packets[packet_type.index()] > 0
            });
            if let Some(other) = other {
                return Err(Reason::Connect(ConnectError::NotConnect(*other)));
            }
            match signal.map_err(|fault| match fault {
                Fault::TooLarge(_) => Reason::ConnectTooLarge,
                Fault::Frame(violation) => Reason::Violation(violation),
                Fault::Packet(malformed) => Reason::Malformed(malformed),
                Fault::Forbidden(_) => Reason::SecondConnect,
            })? {
                Some(Signal::Packet(_, packet)) => return Ok(packet),
                Some(Signal::Control(Control::Close(code))) => {
                    return Err(Reason::ClientClosed(code.into()));
                }
                Some(Signal::Control(Control::Ping(payload))) => {
                    let mut pong = Vec::new();
                    control(&mut pong, Opcode::Pong, &payload, None);
                    client
                        .write_all(&pong)
                        .await
                        .map_err(Reason::client_broke)?;
                    client.flush().await.map_err(Reason::client_broke)?;
                }
                Some(Signal::Control(Control::Pong)) => {}
                None => self.read(client).await?,
            }
        }
    }

    /// Reads what the client sends before its broker has answered, up to a bound; ready only when the client is gone.
    async fn ahead(&mut self, client: &mut Stream) -> Reason {
        while self.unread.len() < AHEAD {
            if let Err(reason) = self.read(client).await {
                return reason;
            }
            // A browser that leaves says so and then waits: its connection stays.
            if let Some(code) = self.translator.close_ahead(&self.unread) {
                return Reason::ClientClosed(code.into());
            }
        }
        std::future::pending().await
    }

    async fn read(&mut self, client: &mut Stream) -> Result<(), Reason> {
        match client.read_buf(&mut self.unread).await {
            Ok(0) => Err(Reason::Vanished),
            Ok(_) => Ok(()),
            Err(error) => Err(Reason::client_broke(error)),
        }
    }
}

/// Tells the client why, in MQTT where a packet boundary allows it and in a Close frame, then lets both sides go.
///
/// The record is written before: the session is over, and what follows is courtesy.
async fn say_goodbye(ended: Ended, mut record: Box<Record>, gateway: &Gateway) {
    /// For our last bytes; for the client's answer to them.
    const PATIENCE: Duration = Duration::from_secs(2);
    let Ended {
        mut client,
        mut pending,
        at_packet_boundary,
        at_frame_boundary,
        broker,
        reason,
    } = ended;
    // How sessions end that the operator ends is his last word, and not that of the time when they began.
    let farewell = reason.is_farewell().then(|| gateway.snapshot.load_full());
    let drain = farewell.as_ref().map(|snapshot| &snapshot.drain);
    if at_packet_boundary && record.phase == Phase::Relay {
        let reference = drain
            .filter(|_| reason.is_stop())
            .and_then(|drain| drain.server_reference.as_deref());
        if let Some(packet) = last_packet(&reason, record.version, reference) {
            let length = packet.len() as u64;
            data_header(&mut pending, Opcode::Binary, true, length, None);
            pending.extend_from_slice(&packet);
        }
    }
    if at_frame_boundary && let Some((code, text)) = reason.close() {
        let code = drain.map_or(code, |drain| drain.close_code.into());
        close(&mut pending, code, text, None);
    }
    let heard = !matches!(reason, Reason::Vanished | Reason::ClientIo(_));
    let answered = matches!(reason, Reason::ClientClosed(_));
    record.finish(reason);
    drop(record);
    let farewell = async {
        client.gather();
        client.write_all(&pending).await?;
        client.shutdown().await?;
        // The client closes in its turn; closing first with bytes unread would reset what it has not yet read.
        if !answered {
            let mut rest = [0; 1024];
            while client.read(&mut rest).await? > 0 {}
        }
        Ok::<_, std::io::Error>(())
    };
    let farewell = async {
        if heard && let Ok(Err(error)) = timeout(PATIENCE, farewell).await {
            tracing::trace!(%error, "the client left before the goodbye");
        }
    };
    let broker = async {
        if let Some(broker) = broker {
            wait_for_end(broker).await;
        }
    };
    let goodbye = async { tokio::join!(farewell, broker) };
    // CANCEL: the first poll has written what is written without waiting; a cut waits for nobody.
    tokio::select! {
        biased;
        _ = goodbye => {}
        () = gateway.drain.cut() => {}
    }
}

/// MQTT 5's DISCONNECT, where there is one to say.
fn last_packet(
    reason: &Reason,
    version: Option<Version>,
    reference: Option<&str>,
) -> Option<Vec<u8>> {
    let (code, version) = reason.mqtt().zip(version)?;
    match reference {
        Some(reference) => mqtt::send_away(version, reference),
        None => mqtt::disconnect(version, code).map(Vec::from),
    }
}

/// A broker that was told DISCONNECT closes by itself, and so keeps the TIME_WAIT.
async fn wait_for_end(mut broker: Stream) {
    const PATIENCE: Duration = Duration::from_millis(500);
    let mut rest = [0; 1024];
    let reading = async { while matches!(broker.read(&mut rest).await, Ok(count) if count > 0) {} };
    drop(timeout(PATIENCE, reading).await);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, F: Future>(_: fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    /// What an idle session holds besides the relay, which is in a box of its own: 968 bytes of task and 712 of record
    /// (512 its tallies) on x86-64.
    #[test]
    fn the_task_of_a_session_is_small() {
        let task = size_of_future(run::<crate::gateway::connection::Counted>);
        let record = size_of::<Record>();
        assert!(task + record <= 1792, "{task} bytes, its record {record}");
    }
}
