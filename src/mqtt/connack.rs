//! CONNACK, as far as the gateway must know it (MQTT 3.2): was the session taken, and is another keepalive in force.

use super::{Fields, FixedHeader, HeaderReader, PacketType, Version};

/// What a CONNACK packet says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnackFields {
    pub session_present: bool,
    /// Return code (3.x) or reason code (5); 0 is success.
    pub code: u8,
    /// Server Keep Alive (MQTT 5 3.2.2.3.14), seconds: it replaces the client's own.
    pub server_keepalive: Option<u16>,
}

impl ConnackFields {
    /// Reads a complete packet; `None` when it is not a CONNACK of that version.
    pub fn read(packet: &[u8], version: Version) -> Option<Self> {
        let mut reader = HeaderReader::default();
        let header: FixedHeader = packet
            .iter()
            .find_map(|byte| reader.push(*byte).ok().flatten())?;
        if header.packet_type() != PacketType::Connack {
            return None;
        }
        let mut fields = Fields {
            rest: &packet[header.bytes().len()..],
        };
        let flags = fields.byte()?;
        let code = fields.byte()?;
        let server_keepalive = match version {
            // A broker that refuses the version may answer a 5 client in the 3.1.1 form, without properties.
            Version::V5 if !fields.rest.is_empty() => {
                let length = fields.variable()?;
                server_keepalive(fields.take(length)?)?
            }
            Version::V5 | Version::V31 | Version::V311 => None,
        };
        Some(Self {
            session_present: flags & 1 != 0,
            code,
            server_keepalive,
        })
    }

    /// The broker says that another one may take the session: 0x03 (3.x); 0x88 unavailable, 0x89 busy,
    /// 0x9C use another server, 0x9D server moved, 0x9F connection rate exceeded (5).
    pub fn asks_for_another_broker(&self, version: Version) -> bool {
        match version {
            Version::V31 | Version::V311 => self.code == 0x03,
            Version::V5 => matches!(self.code, 0x88 | 0x89 | 0x9c | 0x9d | 0x9f),
        }
    }
}

/// Walks the properties of CONNACK (MQTT 5 3.2.2.3) by the length of each type; `None` for an unknown one.
fn server_keepalive(properties: &[u8]) -> Option<Option<u16>> {
    let mut fields = Fields { rest: properties };
    while !fields.rest.is_empty() {
        match fields.byte()? {
            0x13 => return fields.two_bytes().map(Some),
            // Session expiry interval, maximum packet size.
            0x11 | 0x27 => drop(fields.take(4)?),
            // Receive maximum, topic alias maximum.
            0x21 | 0x22 => drop(fields.take(2)?),
            // Maximum QoS, retain, wildcard, subscription identifier and shared subscription available.
            0x24 | 0x25 | 0x28 | 0x29 | 0x2a => drop(fields.take(1)?),
            // Assigned client id, authentication method and data, response information, server reference, reason.
            0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => drop(fields.counted()?),
            0x26 => {
                fields.counted()?;
                fields.counted()?;
            }
            _ => return None,
        }
    }
    Some(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_keep_alive_is_found_behind_other_properties() {
        let packet = b"\x20\x12\x01\x00\x0f\x24\x01\x12\x00\x02id\x22\x00\x0a\x13\x00\x1e\x29\x01";
        assert_eq!(
            ConnackFields::read(packet, Version::V5),
            Some(ConnackFields {
                session_present: true,
                code: 0,
                server_keepalive: Some(30)
            })
        );
    }

    #[test]
    fn a_refusal_in_the_older_form_reaches_a_version_5_client() {
        let fields = ConnackFields::read(b"\x20\x02\x00\x01", Version::V5).unwrap();
        assert_eq!(fields.code, 1);
        assert!(!fields.asks_for_another_broker(Version::V5));
    }

    #[test]
    fn unavailable_asks_for_another_broker() {
        let of = |packet: &[u8], version| {
            ConnackFields::read(packet, version)
                .unwrap()
                .asks_for_another_broker(version)
        };
        assert!(of(b"\x20\x02\x00\x03", Version::V311));
        assert!(!of(b"\x20\x02\x00\x05", Version::V311));
        assert!(of(b"\x20\x03\x00\x9c\x00", Version::V5));
        assert!(!of(b"\x20\x03\x00\x87\x00", Version::V5));
    }

    #[test]
    fn garbage_is_not_a_connack() {
        for packet in [
            &b"\x30\x02\x00\x00"[..],
            b"\x20\x01\x00",
            b"\x20\x05\x00\x00\x02\x13\x00",
            b"HTTP",
        ] {
            assert_eq!(ConnackFields::read(packet, Version::V5), None);
        }
    }
}
