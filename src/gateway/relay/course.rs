//! What the relay heard of a session, and what follows from it: whose fault an end is, and what it is called.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::Lane;
use crate::config::model::Timeouts;
use crate::framing::{Fault, Signal};
use crate::gateway::outcome::{Reason, idle_limit};
use crate::mqtt::{ConnackFields, PacketType, Version};
use crate::websocket::{Control, Opcode};

/// What a session may do.
#[derive(Debug, Clone, Copy)]
pub(in crate::gateway) struct Rules {
    pub(in crate::gateway) version: Version,
    /// Silence that the client is allowed; `None`: it is pinged instead.
    pub(in crate::gateway) idle: Option<Duration>,
    pub(in crate::gateway) timeouts: Timeouts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Broker,
}

impl Side {
    pub(super) fn broke(self, error: io::Error) -> Reason {
        match (self, error.kind()) {
            (Self::Client, _) => Reason::client_broke(error),
            (
                Self::Broker,
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe,
            ) => Reason::BrokerClosed,
            (Self::Broker, _) => Reason::BrokerIo(error),
        }
    }

    pub(super) fn ended(self) -> Reason {
        match self {
            Self::Client => Reason::Vanished,
            Self::Broker => Reason::BrokerClosed,
        }
    }

    pub(super) fn faulted(self, fault: Fault) -> Reason {
        match (self, fault) {
            (Self::Broker, Fault::TooLarge(length)) => {
                Reason::BrokerGarbage(format!("a packet of {length} bytes is over limits.packet"))
            }
            (Self::Broker, fault) => Reason::BrokerGarbage(fault.to_string()),
            (Self::Client, Fault::Frame(violation)) => Reason::Violation(violation),
            (Self::Client, Fault::Packet(malformed)) => Reason::Malformed(malformed),
            (Self::Client, Fault::TooLarge(length)) => Reason::PacketTooLarge(length),
            (Self::Client, Fault::Forbidden(_)) => Reason::SecondConnect,
        }
    }
}

/// What was heard, and what follows from it.
#[derive(Debug)]
pub(super) struct Course {
    pub(super) rules: Rules,
    /// Silence counts from here: the client's last byte, or the last ping that it was sent.
    pub(super) quiet_since: Instant,
    /// WebSocket pings since its last byte.
    pub(super) pings: u8,
    /// The client said DISCONNECT: when the broker has it, the session is over.
    pub(super) leaving: bool,
    /// A write to the broker failed: what it said before is read, and then it is over.
    pub(super) takes_no_more: bool,
    /// CONNACK said yes.
    connected: bool,
    /// What the broker said of the end, before it closes.
    told: Option<Told>,
}

impl Course {
    /// `connack` is `None` in an authentication exchange (MQTT 5 4.12): it is still to come.
    pub(super) fn new(rules: Rules, connack: Option<ConnackFields>) -> Self {
        let refused = connack.filter(|connack| connack.code != 0);
        Self {
            rules,
            quiet_since: Instant::now(),
            pings: 0,
            leaving: false,
            takes_no_more: false,
            connected: connack.is_some_and(|connack| connack.code == 0),
            told: refused.map(|connack| Told::Refused(connack.code)),
        }
    }

    /// `lane` is the one that the signal came by, `back` the other.
    pub(super) fn hear(
        &mut self,
        from: Side,
        signal: Signal,
        lane: &mut Lane,
        back: &mut Lane,
    ) -> Result<(), Reason> {
        match (from, signal) {
            (_, Signal::Control(Control::Ping(payload))) => {
                back.translator.owe(Opcode::Pong, payload)
            }
            (_, Signal::Control(Control::Pong)) => {}
            (Side::Client, Signal::Control(Control::Close(code))) => {
                return Err(Reason::ClientClosed(code.into()));
            }
            (Side::Broker, Signal::Control(Control::Close(_))) => return Err(Reason::BrokerClosed),
            (Side::Client, Signal::Packet(..)) => self.leaving = true,
            (Side::Broker, Signal::Packet(PacketType::Connack, packet)) => {
                lane.translator.unwatch(PacketType::Connack);
                self.hear_connack(&packet);
            }
            (Side::Broker, Signal::Packet(_, packet)) => {
                // MQTT 5 3.14.2.1: without a reason code it is 0x00.
                self.told = Some(Told::Disconnected(reason_of(&packet)));
            }
        }
        Ok(())
    }

    /// The end of an authentication exchange (MQTT 5 4.12).
    fn hear_connack(&mut self, packet: &[u8]) {
        let Some(connack) = ConnackFields::read(packet, self.rules.version) else {
            return;
        };
        self.connected = connack.code == 0;
        if !self.connected {
            self.told = Some(Told::Refused(connack.code));
        }
        if let (Some(keepalive), Some(_)) = (connack.server_keepalive, self.rules.idle) {
            self.rules.idle = idle_limit(keepalive, &self.rules.timeouts);
        }
    }

    /// MQTT 5 3.14: no DISCONNECT before CONNACK has said yes, and none after the broker's own.
    pub(super) fn may_say_disconnect(&self) -> bool {
        self.connected && self.told.is_none()
    }

    /// A broker that closes has often said why.
    pub(super) fn name_the_end(&self, reason: Reason) -> Reason {
        match (reason, self.told) {
            (Reason::BrokerClosed | Reason::BrokerIo(_), Some(Told::Refused(code))) => {
                Reason::BrokerRefused(code)
            }
            (Reason::BrokerClosed | Reason::BrokerIo(_), Some(Told::Disconnected(code))) => {
                Reason::BrokerDisconnected(code)
            }
            // It was about to leave anyway: the broker heard DISCONNECT and was faster.
            (Reason::BrokerClosed | Reason::BrokerIo(_), None) if self.leaving => {
                Reason::Disconnected
            }
            (reason, _) => reason,
        }
    }
}

/// The first byte behind the fixed header, which has up to five (MQTT 5 2.1).
fn reason_of(disconnect: &[u8]) -> u8 {
    let length = disconnect
        .iter()
        .skip(1)
        .take_while(|byte| **byte & 0x80 != 0);
    let header = 2 + length.count();
    disconnect.get(header).copied().unwrap_or(0)
}

/// What a broker says before it closes.
#[derive(Debug, Clone, Copy)]
enum Told {
    Refused(u8),
    Disconnected(u8),
}
