//! The bytes of an application's WebSocket, from its handshake to its end. One future, polled by hand, that holds no buffer
//! while nothing is in flight.
//!
//! Nothing is read from a side while the other takes nothing. Silence is no fault: a page may wait for hours, and a peer
//! that is gone is TCP's to notice (`stream::tune`); a peer that is there and takes nothing ends it (`timeouts.write`).
//! A drain says Close between two frames of the application.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout};

use super::exchange::Alarm;
use super::frames::Frames;
use super::report::{OpenWebSocket, Reporter};
use crate::gateway::admission::Permit;
use crate::gateway::connection::Arrival;
use crate::gateway::outbox::{Outbox, poll_behind_a_look};
use crate::lifecycle::{Drain, Membership};
use crate::pool::Seat;
use crate::stream::{Stream, read_away};
use crate::websocket::close;

/// Bytes read at once. Shared by all WebSockets of a thread, since only one is polled at a time.
const READ: usize = 64 * 1024;

/// For the other side, when one has ended its own.
const GOODBYE: Duration = Duration::from_secs(2);

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into_boxed_slice());
}

/// The application's side.
#[derive(Debug)]
pub(in crate::gateway) struct Opened {
    pub(super) stream: Stream,
    /// What came behind its 101.
    pub(super) early: Bytes,
    pub(super) web_socket: OpenWebSocket,
    pub(super) reporter: Reporter,
    pub(super) seat: Seat,
    /// Of one over HTTP/2.
    pub(super) permit: Option<Permit>,
}

/// What a WebSocket of an application begins with.
#[derive(Debug)]
pub(in crate::gateway) struct Start {
    pub(in crate::gateway) client: Stream,
    /// What came behind the client's handshake.
    pub(in crate::gateway) early: Vec<u8>,
    pub(in crate::gateway) opened: Box<Opened>,
    pub(in crate::gateway) arrival: Arrival,
}

/// How one ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Client,
    Application,
    ClientStalled,
    ApplicationStalled,
    Drained,
    Cut,
}

impl End {
    /// The label in metrics.
    fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Application => "application",
            Self::ClientStalled => "client_stalled",
            Self::ApplicationStalled => "application_stalled",
            Self::Drained => "drain",
            Self::Cut => "cut",
        }
    }
}

/// Carries one to its end. `held` is given back then.
pub(in crate::gateway) async fn run<H>(start: Box<Start>, held: H) {
    let Start {
        client,
        early,
        opened,
        arrival,
    } = *start;
    let Opened {
        stream,
        early: answered,
        web_socket,
        reporter,
        seat,
        permit,
    } = *opened;
    let (drain, peer) = (arrival.gateway.drain.clone(), arrival.peer);
    let snapshot = Arc::clone(&arrival.snapshot);
    let gateway = Arc::clone(&arrival.gateway);
    // What else the handshake needed is given back.
    drop(arrival);
    let membership = drain.join(snapshot.drain.max_session_age);
    membership.enter(seat.server().group());
    let began = Instant::now();
    let mut tunnel = Tunnel {
        client,
        application: stream,
        up: Lane::new(early),
        down: Lane::new(answered.into()),
        frames: Frames::default(),
        write: snapshot.timeouts.write,
        takes_no_more: false,
        ended: None,
        alarm: None,
    };
    tunnel.frames.walk(tunnel.down.outbox.waiting());
    let end = tunnel.run(&membership, &drain).await;
    reporter.web_socket_ended(end.name());
    if snapshot.log.sessions {
        tracing::info!(
            application = reporter.name(),
            server = &*seat.server().label,
            %peer,
            seconds = began.elapsed().as_secs_f64(),
            bytes_up = tunnel.up.moved,
            bytes_down = tunnel.down.moved,
            ended_by = end.name(),
            "web socket ended"
        );
    }
    drop(web_socket);
    let code = match end {
        End::Drained => Some(Some(gateway.snapshot.load().drain.close_code)),
        // A client that still sends would be reset, and lose what the application said last.
        End::Application if tunnel.takes_no_more || !tunnel.down.closed => Some(None),
        _ => None,
    };
    if let Some(code) = code {
        Box::pin(tunnel.say_goodbye(code, &drain)).await;
    }
    drop((permit, held));
}

/// One direction.
#[derive(Debug)]
struct Lane {
    outbox: Outbox,
    /// The near side says no more; and the far side has been told.
    ended: bool,
    closed: bool,
    moved: u64,
}

impl Lane {
    fn new(early: Vec<u8>) -> Self {
        Self {
            moved: early.len() as u64,
            outbox: Outbox::new(early),
            ended: false,
            closed: false,
        }
    }

    /// Moves what one read gives. True when something moved.
    fn step(
        &mut self,
        from: &mut Stream,
        to: &mut Stream,
        scratch: &mut [u8],
        see: impl FnOnce(&[u8]),
        cx: &mut Context<'_>,
    ) -> Result<bool, Side> {
        match self.outbox.poll_send(to, cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return Err(Side::Far),
            Poll::Pending => return Ok(false),
        }
        if self.ended {
            if !self.closed {
                self.closed = Pin::new(to).poll_shutdown(cx).is_ready();
            }
            return Ok(false);
        }
        let mut buffer = ReadBuf::new(scratch);
        match Pin::new(from).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return Err(Side::Near),
            Poll::Pending => return Ok(false),
        }
        let read = buffer.filled();
        self.ended = read.is_empty();
        self.moved += read.len() as u64;
        see(read);
        let write = self.outbox.write(to, read, cx);
        write.map_err(|_gone| Side::Far)?;
        Ok(true)
    }
}

/// Of a lane.
#[derive(Debug, Clone, Copy)]
enum Side {
    Near,
    Far,
}

#[derive(Debug)]
struct Tunnel {
    client: Stream,
    application: Stream,
    up: Lane,
    down: Lane,
    /// Of the application.
    frames: Frames,
    /// `timeouts.write`
    write: Duration,
    /// A write to the application failed: what it said before is read, and then it is over.
    takes_no_more: bool,
    /// Who ended its side first, and when.
    ended: Option<(Instant, End)>,
    /// Made when there is something to wait for.
    alarm: Option<Alarm>,
}

impl Tunnel {
    async fn run(&mut self, membership: &Membership, drain: &Drain) -> End {
        let mut cut = pin!(drain.cut());
        poll_fn(|cx| {
            if cut.as_mut().poll(cx).is_ready() {
                return Poll::Ready(End::Cut);
            }
            // An asked member finishes the frame in hand, so it is asked again at every wake-up.
            let asked = membership.poll_asked(cx).is_ready();
            if asked && self.at_boundary() {
                return Poll::Ready(End::Drained);
            }
            match self.poll(cx) {
                Poll::Pending if asked && self.at_boundary() => Poll::Ready(End::Drained),
                polled => polled,
            }
        })
        .await
    }

    fn at_boundary(&self) -> bool {
        self.frames.at_boundary() && self.down.outbox.is_empty()
    }

    /// Tells the client, with a Close of ours if one is due, and waits a moment for its own closing.
    async fn say_goodbye(&mut self, code: Option<u16>, drain: &Drain) {
        let mut last = self.down.outbox.take();
        if let Some(code) = code
            && self.frames.may_close()
        {
            close(&mut last, code.into(), "", None);
        }
        let client = &mut self.client;
        let farewell = async {
            client.end_with(&last).await?;
            read_away(client).await
        };
        let farewell = async {
            if let Ok(Err(error)) = timeout(GOODBYE, farewell).await {
                tracing::trace!(%error, "the client left before the goodbye");
            }
        };
        // CANCEL: a cut waits for nobody.
        tokio::select! {
            biased;
            () = farewell => {}
            () = drain.cut() => {}
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if let Err(end) = SCRATCH.with_borrow_mut(|scratch| self.step(scratch, cx)) {
            // Who left first has ended it, however the other goes.
            return Poll::Ready(self.ended.map_or(end, |(_, first)| first));
        }
        let end = match (self.up.ended, self.down.ended) {
            (true, _) => Some(End::Client),
            (false, true) => Some(End::Application),
            (false, false) => None,
        };
        if let (None, Some(end)) = (self.ended, end) {
            self.ended = Some((Instant::now(), end));
        }
        if let Some((_, end)) = self.ended
            && self.up.closed
            && self.down.closed
        {
            return Poll::Ready(end);
        }
        self.watch_the_clock(cx)
    }

    fn step(&mut self, scratch: &mut [u8], cx: &mut Context<'_>) -> Result<(), End> {
        let Self {
            client,
            application,
            up,
            down,
            frames,
            takes_no_more,
            ..
        } = self;
        loop {
            let up_moved = match *takes_no_more {
                true => Ok(false),
                false => up.step(client, application, scratch, |_| {}, cx),
            };
            let walk = |bytes: &[u8]| frames.walk(bytes);
            let down_moved = down.step(application, client, scratch, walk, cx);
            match (up_moved, down_moved) {
                (Err(Side::Near), _) | (_, Err(Side::Far)) => return Err(End::Client),
                (_, Err(Side::Near)) => return Err(End::Application),
                (Err(Side::Far), Ok(_)) => {
                    *takes_no_more = true;
                    poll_behind_a_look(cx);
                    return Ok(());
                }
                (Ok(false), Ok(false)) if *takes_no_more && down.outbox.is_sent() => {
                    return Err(End::Application);
                }
                (Ok(false), Ok(false)) => return Ok(()),
                (Ok(_), Ok(_)) => {}
            }
        }
    }

    fn watch_the_clock(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let stalled = |lane: &Lane, end| {
            let since = lane.outbox.stalled_since()?;
            Some((since + self.write, end))
        };
        let deadlines = [
            stalled(&self.down, End::ClientStalled),
            stalled(&self.up, End::ApplicationStalled),
            self.ended.map(|(since, end)| (since + GOODBYE, end)),
        ];
        let earliest = deadlines.into_iter().flatten().min_by_key(|(at, _)| *at);
        let Some((deadline, end)) = earliest else {
            return Poll::Pending;
        };
        let alarm = self.alarm.get_or_insert_with(|| Alarm::new(deadline));
        alarm.poll(deadline, cx).map(|()| end)
    }
}
