//! One attempt at one broker: connect, WebSocket handshake, CONNECT, CONNACK. Sessions and probes go the same way.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::{Broker, Failure, Joined, Joining, Pool, Seat, connect, handshake};
use crate::framing::{Input, Limits, Masks, Output, Signal, Translator};
use crate::identity::Identity;
use crate::mqtt::{ConnackFields, PacketType, Version};
use crate::stream::Stream;
use crate::telemetry::metrics::{ByConnack, ByPool};
use crate::telemetry::{Counters, Metrics};
use crate::websocket::{FrameReader, Opcode, Peer, data_header, xor};

/// How a broker's first packet is to be read.
pub(super) struct Reading {
    pub version: Version,
    pub output: Output,
    pub limits: Limits,
    pub counters: Counters,
}

pub(super) struct Answer {
    down: Translator,
    written: Vec<u8>,
    unread: Vec<u8>,
    /// `None` for AUTH.
    pub connack: Option<ConnackFields>,
}

/// A wait for a broker. When it is dropped before its end, the client has left, or the time for all attempts is over;
/// when it was half over by then, the broker has hung. Clients that wait for less time than `timeouts` could otherwise
/// never show that it does.
struct Patience<'a> {
    pool: &'a Pool,
    broker: &'a Broker,
    begun: Instant,
    whole: Duration,
    over: bool,
}

impl<'a> Patience<'a> {
    fn begin(pool: &'a Pool, broker: &'a Broker, whole: Duration) -> Self {
        Self {
            pool,
            broker,
            begun: Instant::now(),
            whole,
            over: false,
        }
    }
}

impl Drop for Patience<'_> {
    fn drop(&mut self) {
        if !self.over && self.begun.elapsed() >= self.whole / 2 {
            self.broker.state.series.failed("abandoned");
            let why = "it hung until the session gave up";
            self.pool.blame(self.broker, self.begun, &why);
        }
    }
}

impl Pool {
    pub(super) async fn attempt(
        &self,
        mut seat: Seat,
        joining: &Joining<'_>,
        metrics: &Metrics,
    ) -> Result<Joined, Failure> {
        let by_pool = ByPool {
            pool: Arc::clone(&self.name),
        };
        let broker = Arc::clone(&seat.broker);
        let mut patience = Patience::begin(self, &broker, self.timeouts.broker_connect);
        let connected = timeout(patience.whole, self.open(&broker, Some(joining.client))).await;
        patience.over = true;
        let (mut stream, early) = connected.map_err(|_elapsed| Failure::ConnectTimeout)??;
        metrics
            .broker_connect_seconds
            .get_or_create(&by_pool)
            .observe(patience.begun.elapsed().as_secs_f64());
        seat.connected();
        let reading = Reading {
            version: joining.version,
            output: joining.output,
            limits: joining.limits,
            counters: joining.counters.clone(),
        };
        let mut patience = Patience::begin(self, &broker, self.timeouts.connack);
        let answer = reading.answer(&mut stream, early, joining.connect, &broker);
        let answer = timeout(patience.whole, answer).await;
        patience.over = true;
        let answer = answer.map_err(|_elapsed| Failure::ConnackTimeout)??;
        metrics
            .connack_seconds
            .get_or_create(&by_pool)
            .observe(patience.begun.elapsed().as_secs_f64());
        if let Some(connack) = answer.connack {
            self.count_connack(connack.code, metrics);
            if connack.asks_for_another_broker(joining.version) {
                return Err(Failure::Elsewhere(connack.code));
            }
        }
        seat.confirm();
        Ok(Joined {
            output: output(&broker),
            seat,
            stream,
            down: answer.down,
            written: answer.written,
            unread: answer.unread,
            connack: answer.connack,
            retries: 0,
        })
    }

    fn count_connack(&self, code: u8, metrics: &Metrics) {
        let labels = ByConnack {
            pool: Arc::clone(&self.name),
            code: code.into(),
        };
        metrics.connacks.get_or_create(&labels).inc();
    }

    /// Connects as far as MQTT may begin, for a client or for the gateway itself. Answers early bytes.
    pub(super) async fn open(
        &self,
        broker: &Broker,
        client: Option<&Identity>,
    ) -> Result<(Stream, Vec<u8>), Failure> {
        let mut stream = connect::connect(broker, client).await?;
        if !broker.transport.is_websocket() {
            return Ok((stream, Vec::new()));
        }
        let early = match client {
            Some(client) => handshake::upgrade(self, broker, client, &mut stream).await?,
            None => {
                let own = own_identity(&stream);
                handshake::upgrade(self, broker, &own, &mut stream).await?
            }
        };
        Ok((stream, early))
    }
}

/// The gateway as a client of its own.
fn own_identity(stream: &Stream) -> Identity {
    let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let local = stream.tcp().and_then(|tcp| tcp.local_addr().ok());
    let local = local.unwrap_or(unknown);
    Identity::of_gateway(local, local)
}

impl Reading {
    /// Sends CONNECT and waits for what is said to it.
    pub(super) async fn answer(
        self,
        stream: &mut Stream,
        early: Vec<u8>,
        connect: &[u8],
        broker: &Broker,
    ) -> Result<Answer, Failure> {
        send(stream, connect, broker).await?;
        self.connack(stream, early, broker).await
    }

    /// Reads until the first packet is whole.
    async fn connack(
        self,
        stream: &mut Stream,
        early: Vec<u8>,
        broker: &Broker,
    ) -> Result<Answer, Failure> {
        let input = match broker.transport.is_websocket() {
            true => Input::Frames(FrameReader::new(Peer::Broker)),
            false => Input::Stream,
        };
        let mut down = Translator::new(
            input,
            self.output,
            self.limits,
            Masks::new(0),
            self.counters,
        );
        for packet_type in &PacketType::ALL[1..] {
            down.watch(*packet_type);
        }
        let mut written = Vec::new();
        let mut read = early;
        loop {
            let mut input = &read[..];
            while let Some(signal) = down
                .translate(&mut input, &mut written, usize::MAX)
                .map_err(Failure::Garbage)?
            {
                let (packet_type, packet) = match signal {
                    Signal::Packet(packet_type, packet) => (packet_type, packet),
                    Signal::Control(crate::websocket::Control::Close(_)) => {
                        return Err(Failure::Closed);
                    }
                    // A pong is owed, but CONNACK will come before it is missed.
                    Signal::Control(_) => continue,
                };
                let connack = match packet_type {
                    PacketType::Connack => Some(
                        ConnackFields::read(&packet, self.version).ok_or(Failure::BrokenConnack)?,
                    ),
                    PacketType::Auth if self.version == Version::V5 => None,
                    other => return Err(Failure::NotConnack(other)),
                };
                for packet_type in &PacketType::ALL[1..] {
                    down.unwatch(*packet_type);
                }
                let unread = input.to_vec();
                return Ok(Answer {
                    down,
                    written,
                    unread,
                    connack,
                });
            }
            read.clear();
            match stream.read_buf(&mut read).await {
                Ok(0) => return Err(Failure::Closed),
                Ok(_) => {}
                Err(error) => return Err(broke(error)),
            }
        }
    }
}

fn output(broker: &Broker) -> Output {
    match broker.transport.is_websocket() {
        true => Output::MaskedFrames,
        false => Output::Stream,
    }
}

/// One packet.
pub(super) async fn send(
    stream: &mut Stream,
    packet: &[u8],
    broker: &Broker,
) -> Result<(), Failure> {
    let mut bytes = Vec::with_capacity(packet.len() + 14);
    if broker.transport.is_websocket() {
        let mask = fastrand::u32(..).to_ne_bytes();
        data_header(
            &mut bytes,
            Opcode::Binary,
            true,
            packet.len() as u64,
            Some(mask),
        );
        let start = bytes.len();
        bytes.extend_from_slice(packet);
        xor(&mut bytes[start..], mask);
    } else {
        bytes.extend_from_slice(packet);
    }
    stream.write_all(&bytes).await.map_err(broke)?;
    stream.flush().await.map_err(broke)
}

/// A reset is how a broker closes that has bytes unread; whether a read or a write hears of it is a matter of moments.
fn broke(error: std::io::Error) -> Failure {
    match error.kind() {
        std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe => Failure::Closed,
        _ => Failure::Io(error),
    }
}
