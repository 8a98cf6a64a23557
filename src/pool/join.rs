//! Joining a session to a broker: choose, connect, forward CONNECT, wait for CONNACK; on any failure before it, the next
//! broker. The client sees none of this: its CONNECT is kept until a CONNACK is there.

use std::fmt;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Broker, Failure, Pool, Seat, connect, handshake};
use crate::framing::{Input, Limits, Masks, Output, Signal, Translator};
use crate::identity::Identity;
use crate::mqtt::{ConnackFields, PacketType, Version};
use crate::stream::Stream;
use crate::telemetry::metrics::{ByBrokerCause, ByConnack, ByPool, Name};
use crate::telemetry::{Counters, Metrics};
use crate::websocket::{FrameReader, Opcode, Peer, data_header, xor};

/// One session's wish.
#[derive(Debug)]
pub struct Joining<'a> {
    pub client: &'a Identity,
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
}

impl JoinError {
    /// The brokers may be well: it is the gateway that has no source port left towards any of them.
    pub fn is_crowded(&self) -> bool {
        let of_ports = |(_, failure): &(Name, Failure)| matches!(failure, Failure::SourcePorts);
        !self.attempts.is_empty() && self.attempts.iter().all(of_ports)
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
        let deadline = Instant::now() + self.timeouts.join;
        let mut tried = Vec::new();
        let mut attempts = Vec::new();
        while let Some(at) = self.choose(&tried) {
            let broker = &self.brokers[at];
            let failure = match timeout_at(deadline, self.attempt(broker, joining, metrics)).await {
                Ok(Ok(mut joined)) => {
                    joined.retries = tried.len();
                    return Ok(joined);
                }
                Ok(Err(failure)) => failure,
                Err(_) => {
                    return Err(JoinError {
                        attempts,
                        late: true,
                    });
                }
            };
            tracing::debug!(pool = %self.name, broker = %broker.label, %failure, "broker failed before CONNACK");
            let labels = ByBrokerCause {
                pool: Arc::clone(&self.name),
                broker: Arc::clone(&broker.label),
                cause: failure.cause(),
            };
            metrics.broker_failures.get_or_create(&labels).inc();
            attempts.push((Arc::clone(&broker.label), failure));
            tried.push(at);
        }
        Err(JoinError {
            attempts,
            late: false,
        })
    }

    async fn attempt(
        &self,
        broker: &Arc<Broker>,
        joining: &Joining<'_>,
        metrics: &Metrics,
    ) -> Result<Joined, Failure> {
        let by_pool = ByPool {
            pool: Arc::clone(&self.name),
        };
        let begun = Instant::now();
        let connecting = async {
            let mut stream = connect::connect(broker, Some(joining.client)).await?;
            let early = match broker.transport.is_websocket() {
                true => handshake::upgrade(self, broker, joining.client, &mut stream).await?,
                false => Vec::new(),
            };
            Ok::<_, Failure>((stream, early))
        };
        let (mut stream, early) = timeout(self.timeouts.broker_connect, connecting)
            .await
            .map_err(|_elapsed| Failure::ConnectTimeout)??;
        let connected = Instant::now();
        metrics
            .broker_connect_seconds
            .get_or_create(&by_pool)
            .observe((connected - begun).as_secs_f64());
        let seat = Seat::take(Arc::clone(broker));
        let answer = async {
            send_connect(&mut stream, joining.connect, broker).await?;
            self.connack(&mut stream, early, broker, joining).await
        };
        let answer = timeout(self.timeouts.connack, answer)
            .await
            .map_err(|_elapsed| Failure::ConnackTimeout)??;
        let waited = connected.elapsed().as_secs_f64();
        metrics
            .connack_seconds
            .get_or_create(&by_pool)
            .observe(waited);
        if let Some(connack) = answer.connack {
            let labels = ByConnack {
                pool: Arc::clone(&self.name),
                code: connack.code.into(),
            };
            metrics.connacks.get_or_create(&labels).inc();
            if connack.asks_for_another_broker(joining.version) {
                return Err(Failure::Elsewhere(connack.code));
            }
        }
        seat.confirm();
        Ok(Joined {
            seat,
            stream,
            down: answer.down,
            written: answer.written,
            unread: answer.unread,
            connack: answer.connack,
            retries: 0,
            output: output(broker),
        })
    }

    /// Reads until the first packet is whole.
    async fn connack(
        &self,
        stream: &mut Stream,
        early: Vec<u8>,
        broker: &Broker,
        joining: &Joining<'_>,
    ) -> Result<Answer, Failure> {
        let input = match broker.transport.is_websocket() {
            true => Input::Frames(FrameReader::new(Peer::Broker)),
            false => Input::Stream,
        };
        let mut down = Translator::new(
            input,
            joining.output,
            joining.limits,
            Masks::new(0),
            joining.counters.clone(),
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
                        ConnackFields::read(&packet, joining.version)
                            .ok_or(Failure::BrokenConnack)?,
                    ),
                    PacketType::Auth if joining.version == Version::V5 => None,
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
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                    return Err(Failure::Closed);
                }
                Err(error) => return Err(Failure::Io(error)),
            }
        }
    }
}

struct Answer {
    down: Translator,
    written: Vec<u8>,
    unread: Vec<u8>,
    connack: Option<ConnackFields>,
}

fn output(broker: &Broker) -> Output {
    match broker.transport.is_websocket() {
        true => Output::MaskedFrames,
        false => Output::Stream,
    }
}

async fn send_connect(stream: &mut Stream, connect: &[u8], broker: &Broker) -> Result<(), Failure> {
    let mut bytes = Vec::with_capacity(connect.len() + 14);
    if broker.transport.is_websocket() {
        let mask = fastrand::u32(..).to_ne_bytes();
        data_header(
            &mut bytes,
            Opcode::Binary,
            true,
            connect.len() as u64,
            Some(mask),
        );
        let start = bytes.len();
        bytes.extend_from_slice(connect);
        xor(&mut bytes[start..], mask);
    } else {
        bytes.extend_from_slice(connect);
    }
    stream.write_all(&bytes).await.map_err(Failure::Io)?;
    stream.flush().await.map_err(Failure::Io)
}
