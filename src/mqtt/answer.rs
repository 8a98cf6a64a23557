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
    MaximumConnectTime,
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
            Self::MaximumConnectTime => 0xa0,
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
            | Self::MaximumConnectTime
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

/// DISCONNECT 0x9C with a Server Reference (MQTT 5 3.14.2.2.5); `None` for older clients, and for a reference that no MQTT string
/// can hold.
pub fn send_away(version: Version, reference: &str) -> Option<Vec<u8>> {
    const SERVER_REFERENCE: u8 = 0x1c;
    let length = u16::try_from(reference.len()).ok()?;
    let properties = 3 + reference.len();
    let mut body = vec![ReasonCode::UseAnotherServer.v5()];
    variable(&mut body, properties);
    body.push(SERVER_REFERENCE);
    body.extend(length.to_be_bytes());
    body.extend(reference.bytes());
    let mut packet = vec![0xe0];
    variable(&mut packet, body.len());
    packet.extend(body);
    (version == Version::V5).then_some(packet)
}

/// Variable byte integer (MQTT 5 1.5.5).
fn variable(to: &mut Vec<u8>, mut value: usize) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or_default();
        value >>= 7;
        if value == 0 {
            to.push(low);
            return;
        }
        to.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_server_is_named_in_a_property() {
        let packet = send_away(Version::V5, "b:1").unwrap();
        assert_eq!(packet, b"\xe0\x08\x9c\x06\x1c\x00\x03b:1");
        let long = send_away(Version::V5, &"x".repeat(300)).unwrap();
        assert_eq!(long[..8], [0xe0, 0xb2, 0x02, 0x9c, 0xaf, 0x02, 0x1c, 0x01]);
        assert_eq!(long.len(), 3 + 0x132);
        assert_eq!(send_away(Version::V311, "b:1"), None);
    }
}
