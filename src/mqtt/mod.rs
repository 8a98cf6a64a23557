//! Just enough MQTT to route a session: packet lengths, the CONNECT and CONNACK fields, and the few packets that the
//! gateway itself says. No I/O. Sources: MQTT 3.1.1 (OASIS 2014), MQTT 5.0 (OASIS 2019), MQTT 3.1 (IBM 2010).

mod header;
mod connect;
mod rewrite;
mod connack;
mod answer;

pub use answer::{Connack, ReasonCode, disconnect, send_away};
pub use connack::ConnackFields;
pub use connect::{Connect, ConnectError, version_of};
pub use header::{FixedHeader, HeaderReader, Malformed, PacketType};
pub use rewrite::NewNames;

/// The protocol a client speaks, from the level byte of CONNECT (MQTT 3.1.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// Level 3, name `MQIsdp`.
    V31,
    /// Level 4, name `MQTT`.
    V311,
    /// Level 5, name `MQTT`.
    V5,
}

impl Version {
    pub fn name(self) -> &'static str {
        match self {
            Self::V31 => "3.1",
            Self::V311 => "3.1.1",
            Self::V5 => "5",
        }
    }
}

/// A cursor over the body of a complete packet. Every read answers `None` at the end instead of running over it.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(head)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn two_bytes(&mut self) -> Option<u16> {
        self.take(2)
            .map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// Two bytes of length, then as many bytes (MQTT 5 1.5.4, 1.5.6).
    fn counted(&mut self) -> Option<&'a [u8]> {
        let length = self.two_bytes()?;
        self.take(usize::from(length))
    }

    /// Variable byte integer (MQTT 5 1.5.5): at most four bytes.
    fn variable(&mut self) -> Option<usize> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}
