//! The packets that the gateway says itself: a CONNACK that refuses, and MQTT 5's DISCONNECT.
//! It never says DISCONNECT towards a broker (a Will would be lost) and never acknowledges for anyone.

use super::Version;

/// Why the gateway refuses or ends a session, in the words of MQTT 5 2.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReasonCode {
    MalformedPacket,
    ProtocolError,
    UnsupportedVersion,
    ClientIdNotValid,
    NotAuthorized,
    ServerUnavailable,
    ServerBusy,
    ServerShuttingDown,
    KeepAliveTimeout,
    PacketTooLarge,
    UseAnotherServer,
}

impl ReasonCode {
    /// The code of MQTT 5.
    pub fn v5(self) -> u8 {
        match self {
            Self::MalformedPacket => 0x81,
            Self::ProtocolError => 0x82,
            Self::UnsupportedVersion => 0x84,
            Self::ClientIdNotValid => 0x85,
            Self::NotAuthorized => 0x87,
            Self::ServerUnavailable => 0x88,
            Self::ServerBusy => 0x89,
            Self::ServerShuttingDown => 0x8b,
            Self::KeepAliveTimeout => 0x8d,
            Self::PacketTooLarge => 0x95,
            Self::UseAnotherServer => 0x9c,
        }
    }

    /// The CONNACK return code of MQTT 3.1 and 3.1.1 (3.2.2.3), where there is one.
    fn v3(self) -> Option<u8> {
        match self {
            Self::UnsupportedVersion => Some(0x01),
            Self::ClientIdNotValid => Some(0x02),
            Self::ServerUnavailable
            | Self::ServerBusy
            | Self::ServerShuttingDown
            | Self::UseAnotherServer => Some(0x03),
            Self::NotAuthorized => Some(0x05),
            // MQTT 3.1.1 4.8: the connection is closed without a CONNACK.
            Self::MalformedPacket
            | Self::ProtocolError
            | Self::KeepAliveTimeout
            | Self::PacketTooLarge => None,
        }
    }
}

/// A CONNACK that refuses.
#[derive(Debug, Clone, Copy)]
pub struct Connack;

impl Connack {
    /// The packet for a client of that version; `None` where the version has no code for the reason.
    pub fn refuse(version: Version, reason: ReasonCode) -> Option<Vec<u8>> {
        match version {
            Version::V31 | Version::V311 => reason.v3().map(|code| vec![0x20, 2, 0, code]),
            Version::V5 => Some(vec![0x20, 3, 0, reason.v5(), 0]),
        }
    }
}

/// MQTT 5's DISCONNECT with a reason (3.14); `None` for older clients, which know no such packet from a server.
pub fn disconnect(version: Version, reason: ReasonCode) -> Option<[u8; 4]> {
    (version == Version::V5).then(|| [0xe0, 2, reason.v5(), 0])
}
