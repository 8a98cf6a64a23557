//! What a client says before it has a broker: CONNECT, and what it sends ahead of CONNACK.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::framing::{Fault, Input, Limits, Masks, Output, Signal, Translator};
use crate::gateway::outcome::Reason;
use crate::mqtt::{ConnectError, PacketType};
use crate::stream::Stream;
use crate::telemetry::Counters;
use crate::websocket::{Control, FrameReader, Opcode, Peer, control};

/// Bytes that a client may send behind its CONNECT before the broker has answered it.
const AHEAD: usize = 16 * 1024;

/// The client's bytes until a broker has the session.
pub(super) struct Reading {
    pub(super) translator: Translator,
    /// What was read and is not translated.
    pub(super) unread: Vec<u8>,
}

impl Reading {
    pub(super) fn new(early: Vec<u8>, longest: usize, counters: Counters) -> Self {
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
    pub(super) async fn connect(&mut self, client: &mut Stream) -> Result<Vec<u8>, Reason> {
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
    pub(super) async fn ahead(&mut self, client: &mut Stream) -> Reason {
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
