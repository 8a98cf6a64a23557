//! One MQTT session from the 101 to its end: CONNECT, a broker, the relay, the goodbye. Recorded once, whatever happens.

mod goodbye;
mod reading;

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use self::goodbye::{Ended, refused, say_goodbye};
use self::reading::Reading;
use super::connection::Arrival;
use super::names::renamed;
use super::outcome::{Phase, Reason, idle_limit};
use super::record::Record;
use super::relay::{Lane, Relay, Rules};
use crate::framing::{Limits, Masks, Output};
use crate::identity::Identity;
use crate::lifecycle::Membership;
use crate::mqtt::{self, Connect};
use crate::pool::{Joining, Pool, mask_seed};
use crate::stream::Stream;
use crate::telemetry::Direction;

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
        idle: match connect.keepalive {
            // Whatever its broker makes of it (mosquitto: 65535 seconds), it is pinged.
            0 => None,
            own => {
                let connack = joined.connack;
                let server = connack.and_then(|connack| connack.server_keepalive);
                idle_limit(server.unwrap_or(own), &timeouts)
            }
        },
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
