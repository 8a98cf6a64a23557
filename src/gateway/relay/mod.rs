//! Packets of one side → frames or bytes of the other, until someone ends it. One future, polled by hand: it holds no
//! buffer while nothing is in flight, touches no timer for a packet, and allocates nothing for one.
//!
//! INVARIANT: only this module, through its outboxes, writes to an upgraded connection while the relay runs, and what it writes beside packets
//! (pongs, pings) stands between frames.

mod course;

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

pub(super) use self::course::Rules;
use self::course::{Course, Side};
use super::outbox::{Outbox, poll_behind_a_look};
use super::outcome::Reason;
use crate::framing::Translator;
use crate::lifecycle::{Drain, Membership};
use crate::mqtt::{ConnackFields, PacketType};
use crate::pool::Seat;
use crate::stream::Stream;
use crate::websocket::Opcode;

/// Bytes read at once. Shared by all sessions of a thread, since only one is polled at a time.
const READ: usize = 64 * 1024;

/// WebSocket pings that may stay unanswered (`timeouts.ping` apart) before the session ends.
const UNANSWERED: u8 = 2;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        read: vec![0; READ].into_boxed_slice(),
        written: Vec::with_capacity(READ + READ / 4),
    });
}

struct Scratch {
    read: Box<[u8]>,
    written: Vec<u8>,
}

/// One direction. Nothing is read of it while the far side has not taken what was read before.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) translator: Translator,
    outbox: Outbox,
    /// Bytes read and not translated: from before the relay, or behind a signal.
    unread: Vec<u8>,
}

impl Lane {
    pub(super) fn new(translator: Translator, waiting: Vec<u8>, unread: Vec<u8>) -> Self {
        Self {
            translator,
            outbox: Outbox::new(waiting),
            unread,
        }
    }

    /// What the far side has not taken.
    pub(super) fn take_waiting(&mut self) -> Vec<u8> {
        self.outbox.take()
    }
}

/// A session that a broker has taken.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) client: Stream,
    pub(super) broker: Stream,
    pub(super) up: Lane,
    pub(super) down: Lane,
    course: Course,
    timer: Pin<Box<Sleep>>,
    _seat: Seat,
}

impl Relay {
    pub(super) fn new(
        client: Stream,
        broker: Stream,
        mut up: Lane,
        mut down: Lane,
        rules: Rules,
        connack: Option<ConnackFields>,
        seat: Seat,
    ) -> Self {
        up.translator.forbid(PacketType::Connect);
        up.translator.watch(PacketType::Disconnect);
        down.translator.watch(PacketType::Disconnect);
        if connack.is_none() {
            down.translator.watch(PacketType::Connack);
        }
        let course = Course::new(rules, connack);
        let silence = rules.idle.unwrap_or(rules.timeouts.ping);
        Self {
            client,
            broker,
            up,
            down,
            timer: Box::pin(sleep_until(course.quiet_since + silence)),
            course,
            _seat: seat,
        }
    }

    /// Runs to the session's end.
    pub(super) async fn run(&mut self, membership: &Membership, drain: &Drain) -> Reason {
        let mut cut = pin!(drain.cut());
        let mut waits_for_cut = false;
        poll_fn(|cx| {
            // Waited for once: the task's waker stays with it. A look at a flag costs a packet less than asking again.
            if drain.is_cut() || !waits_for_cut && cut.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Reason::Cut);
            }
            waits_for_cut = true;
            // An asked member finishes the packets in hand, so it is asked again at every wake-up.
            let asked = membership.poll_asked(cx).is_ready();
            if asked && self.at_boundaries() {
                return Poll::Ready(Reason::Drained);
            }
            match self.poll(cx) {
                Poll::Ready(reason) => Poll::Ready(reason),
                Poll::Pending if asked && self.at_boundaries() => Poll::Ready(Reason::Drained),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    fn at_boundaries(&self) -> bool {
        self.up.translator.at_boundary()
            && self.up.outbox.is_sent()
            && self.down.translator.at_boundary()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        let moved = SCRATCH.with_borrow_mut(|scratch| {
            if self.course.takes_no_more {
                while self.step(Side::Broker, scratch, cx)? {}
                // What the client has not taken stands before the rest: `timeouts.write` bounds the wait.
                return match self.down.outbox.is_sent() {
                    true => Err(Reason::BrokerClosed),
                    false => Ok(()),
                };
            }
            // A side that waits for its socket is asked once in a turn: its waker is there. A side that moved is asked again.
            let (mut up, mut down) = (true, true);
            loop {
                up = up
                    && match self.step(Side::Client, scratch, cx) {
                        Err(Reason::BrokerClosed) if !self.course.leaving => {
                            self.course.takes_no_more = true;
                            poll_behind_a_look(cx);
                            return Ok(());
                        }
                        moved => moved?,
                    };
                // A client that said DISCONNECT hears no more: all that is left is that the broker hears of it.
                if self.course.leaving {
                    if self.up.outbox.is_sent() {
                        return Err(Reason::Disconnected);
                    }
                    // Once more while something moves: only a write that waits leaves a waker behind.
                    if up {
                        continue;
                    }
                    return Ok(());
                }
                // Unless the other side's ping is to be answered on it.
                down |= self.down.translator.owes();
                down = down && self.step(Side::Broker, scratch, cx)?;
                up |= down && self.up.translator.owes();
                if !up && !down {
                    return Ok(());
                }
            }
        });
        if let Err(reason) = moved {
            return Poll::Ready(self.course.name_the_end(reason));
        }
        self.watch_the_clock(cx)
    }

    /// As `Course::may_say_disconnect`.
    pub(super) fn may_say_disconnect(&self) -> bool {
        self.course.may_say_disconnect()
    }

    /// Moves what one read of `from` gives. True when something moved.
    fn step(
        &mut self,
        from: Side,
        scratch: &mut Scratch,
        cx: &mut Context<'_>,
    ) -> Result<bool, Reason> {
        let Self {
            client,
            broker,
            up,
            down,
            course,
            ..
        } = self;
        let (lane, back, source, sink, far) = match from {
            Side::Client => (up, down, client, broker, Side::Broker),
            Side::Broker => (down, up, broker, client, Side::Client),
        };
        match lane.outbox.poll_send(sink, cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Err(far.broke(error)),
            Poll::Pending => return Ok(false),
        }
        if course.leaving && from == Side::Client {
            // Nothing may follow DISCONNECT (MQTT 3.14.4).
            return Ok(false);
        }
        let Scratch { read, written } = scratch;
        written.clear();
        lane.translator.pay(written);
        let held = std::mem::take(&mut lane.unread);
        let mut input: &[u8] = if held.is_empty() {
            let mut buffer = ReadBuf::new(read);
            match Pin::new(source).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => return Err(from.ended()),
                Poll::Ready(Ok(())) => {
                    if from == Side::Client {
                        course.quiet_since = Instant::now();
                        course.pings = 0;
                    }
                    let count = buffer.filled().len();
                    &read[..count]
                }
                Poll::Ready(Err(error)) => return Err(from.broke(error)),
                Poll::Pending => &[],
            }
        } else {
            &held
        };
        if input.is_empty() && written.is_empty() {
            return Ok(false);
        }
        // A thousand pings in one read are heard one after the other where they stand: nothing is copied for them.
        let mut heard = Ok(());
        while heard.is_ok() && !(course.leaving && from == Side::Client) {
            heard = match lane.translator.translate(&mut input, written, usize::MAX) {
                Ok(None) => break,
                Ok(Some(signal)) => course.hear(from, signal, lane, back),
                Err(fault) => Err(from.faulted(fault)),
            };
        }
        // Before the end is looked at: it may stand behind the rest of a packet, and a goodbye must not land inside one.
        let write = lane.outbox.write(sink, written, cx);
        write.map_err(|error| far.broke(error))?;
        heard.map(|()| true)
    }

    /// The timer is set to the earliest deadline when one comes closer, and looked at again when it rings: a packet only
    /// notes when it came.
    fn watch_the_clock(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        loop {
            let deadline = self.deadline();
            if deadline < self.timer.deadline() {
                self.timer.as_mut().reset(deadline);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            let deadline = self.deadline();
            if deadline > now {
                self.timer.as_mut().reset(deadline);
                continue;
            }
            let write = self.course.rules.timeouts.write;
            let is_over = |since: Option<Instant>| since.is_some_and(|since| since + write <= now);
            if is_over(self.down.outbox.stalled_since()) {
                return Poll::Ready(Reason::ClientStalled);
            }
            if is_over(self.up.outbox.stalled_since()) {
                return Poll::Ready(Reason::BrokerStalled);
            }
            if self.course.rules.idle.is_some() {
                return Poll::Ready(Reason::Idle);
            }
            if self.course.pings >= UNANSWERED {
                return Poll::Ready(Reason::PingTimeout);
            }
            // The last one may still wait for the end of a long frame: then nothing was asked that could be answered.
            if !self.down.translator.owes() {
                self.course.pings += 1;
                self.down.translator.owe(Opcode::Ping, Vec::new());
            }
            // However late we are: who is asked has the whole time to answer.
            self.course.quiet_since = now;
            self.timer
                .as_mut()
                .reset(now + self.course.rules.timeouts.ping);
            // The ping is written at the next step; the client's socket may not wake us for it.
            cx.waker().wake_by_ref();
        }
    }

    fn deadline(&self) -> Instant {
        let write = self.course.rules.timeouts.write;
        let stalls = [&self.up, &self.down].map(|lane| lane.outbox.stalled_since());
        let stall = stalls
            .into_iter()
            .flatten()
            .map(|since| since + write)
            .min();
        let silence = match (self.course.rules.idle, self.up.outbox.stalled_since()) {
            // While the broker takes nothing the client is not read: its silence is ours.
            (_, Some(since)) => since + write,
            (Some(idle), None) => self.course.quiet_since + idle,
            (None, None) => self.course.quiet_since + self.course.rules.timeouts.ping,
        };
        stall.map_or(silence, |stall| stall.min(silence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an idle session holds of ours besides its task, its sockets and TLS. 1,256 bytes on x86-64, of which 472 for
    /// each lane (256 its tally): the ceiling leaves room for a field, not for a buffer.
    #[test]
    fn a_relay_is_small() {
        let (relay, lane) = (size_of::<Relay>(), size_of::<Lane>());
        assert!(relay <= 1280, "{relay} bytes, {lane} for each lane");
    }
}
