//! CONNECT, as far as the gateway must know it (MQTT 3.1): who, which version, how long it may be silent.
//! The packet itself goes to the broker unchanged; what is not needed here is checked by the broker.

use super::{Fields, FixedHeader, HeaderReader, PacketType, Version};

/// What a CONNECT packet says. Borrowed from the packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect<'a> {
    pub version: Version,
    /// Seconds; 0 turns the keepalive off.
    pub keepalive: u16,
    /// Clean session (3.x) or clean start (5).
    pub clean: bool,
    pub has_will: bool,
    /// Empty when the broker shall assign one.
    pub client_id: &'a str,
    pub user_name: Option<&'a str>,
}

/// Why bytes are not a CONNECT that a broker would take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    #[error("the first packet is {} and not CONNECT (MQTT 3.1)", .0.name())]
    NotConnect(PacketType),
    #[error("a field of CONNECT runs over the end of the packet")]
    Truncated,
    #[error("CONNECT has bytes behind its last field")]
    TrailingBytes,
    #[error("the protocol name is neither MQTT nor MQIsdp (MQTT 3.1.2.1)")]
    ProtocolName,
    #[error("protocol level {0} is none of 3 (MQTT 3.1), 4 (3.1.1) and 5")]
    ProtocolLevel(u8),
    #[error("a reserved flag of CONNECT is set (MQTT 3.1.2.3)")]
    ReservedFlag,
    #[error("the flags of CONNECT contradict each other (MQTT 3.1.2)")]
    ContradictingFlags,
    #[error("a string of CONNECT is not UTF-8 or contains U+0000 (MQTT 1.5.4)")]
    NotText,
    #[error("the client id has more bytes than the limit allows")]
    ClientIdTooLong,
}

impl<'a> Connect<'a> {
    /// Reads a complete packet, fixed header included. `longest_id` is the limit on the client id in bytes.
    pub fn read(packet: &'a [u8], longest_id: usize) -> Result<Self, ConnectError> {
        let mut reader = HeaderReader::default();
        let header: FixedHeader = packet
            .iter()
            .find_map(|byte| reader.push(*byte).ok().flatten())
            .ok_or(ConnectError::Truncated)?;
        if header.packet_type() != PacketType::Connect {
            return Err(ConnectError::NotConnect(header.packet_type()));
        }
        if packet[0] & 0x0f != 0 {
            return Err(ConnectError::ReservedFlag);
        }
        let mut fields = Fields {
            rest: &packet[header.bytes().len()..],
        };
        let connect = Self::fields(&mut fields, longest_id)?;
        if !fields.rest.is_empty() {
            return Err(ConnectError::TrailingBytes);
        }
        Ok(connect)
    }

    fn fields(fields: &mut Fields<'a>, longest_id: usize) -> Result<Self, ConnectError> {
        const CLEAN: u8 = 0x02;
        const WILL: u8 = 0x04;
        const WILL_DETAILS: u8 = 0x38;
        const WILL_QOS_3: u8 = 0x18;
        const PASSWORD: u8 = 0x40;
        const USER_NAME: u8 = 0x80;

        let name = fields.counted().ok_or(ConnectError::Truncated)?;
        let level = fields.byte().ok_or(ConnectError::Truncated)?;
        let version = version(name, level)?;
        let flags = fields.byte().ok_or(ConnectError::Truncated)?;
        if flags & 0x01 != 0 {
            return Err(ConnectError::ReservedFlag);
        }
        let has_will = flags & WILL != 0;
        if (!has_will && flags & WILL_DETAILS != 0) || flags & WILL_QOS_3 == WILL_QOS_3 {
            return Err(ConnectError::ContradictingFlags);
        }
        // MQTT 5 lets a password stand without a user name (3.1.2.9), the older versions do not.
        if version != Version::V5 && flags & PASSWORD != 0 && flags & USER_NAME == 0 {
            return Err(ConnectError::ContradictingFlags);
        }
        let keepalive = fields.two_bytes().ok_or(ConnectError::Truncated)?;
        skip_properties(fields, version)?;
        let client_id = text(fields)?;
        if client_id.len() > longest_id {
            return Err(ConnectError::ClientIdTooLong);
        }
        if has_will {
            skip_properties(fields, version)?;
            text(fields)?;
            fields.counted().ok_or(ConnectError::Truncated)?;
        }
        let user_name = match flags & USER_NAME {
            0 => None,
            _ => Some(text(fields)?),
        };
        if flags & PASSWORD != 0 {
            fields.counted().ok_or(ConnectError::Truncated)?;
        }
        Ok(Self {
            version,
            keepalive,
            clean: flags & CLEAN != 0,
            has_will,
            client_id,
            user_name,
        })
    }
}

/// The version that a packet claims, where its beginning is sound: whoever sent a broken CONNECT is answered in it. A
/// level that we do not know is answered as the nearest one is.
pub fn version_of(packet: &[u8]) -> Option<Version> {
    let mut reader = HeaderReader::default();
    let header = packet
        .iter()
        .find_map(|byte| reader.push(*byte).ok().flatten())?;
    let mut fields = Fields {
        rest: &packet[header.bytes().len()..],
    };
    let name = fields.counted()?;
    let level = fields.byte()?;
    match version(name, level) {
        Ok(version) => Some(version),
        Err(ConnectError::ProtocolLevel(level)) if level & 0x7f > 5 => Some(Version::V5),
        Err(ConnectError::ProtocolLevel(_)) => Some(Version::V311),
        Err(_) => None,
    }
}

/// Bridges set the top bit of the level byte (a mosquitto convention); the broker understands it, we look past it.
fn version(name: &[u8], level: u8) -> Result<Version, ConnectError> {
    match (name, level & 0x7f) {
        (b"MQIsdp", 3) => Ok(Version::V31),
        (b"MQTT", 4) => Ok(Version::V311),
        (b"MQTT", 5) => Ok(Version::V5),
        (b"MQTT" | b"MQIsdp", _) => Err(ConnectError::ProtocolLevel(level)),
        _ => Err(ConnectError::ProtocolName),
    }
}

pub(super) fn skip_properties(
    fields: &mut Fields<'_>,
    version: Version,
) -> Result<(), ConnectError> {
    if version == Version::V5 {
        let length = fields.variable().ok_or(ConnectError::Truncated)?;
        fields.take(length).ok_or(ConnectError::Truncated)?;
    }
    Ok(())
}

fn text<'a>(fields: &mut Fields<'a>) -> Result<&'a str, ConnectError> {
    let bytes = fields.counted().ok_or(ConnectError::Truncated)?;
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        Ok(_) | Err(_) => Err(ConnectError::NotText),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V311: &[u8] = b"\x10\x1a\x00\x04MQTT\x04\xc2\x00\x3c\x00\x02id\x00\x04user\x00\x02pw";

    #[test]
    fn fields_of_a_3_1_1_connect() {
        assert_eq!(
            Connect::read(V311, 23),
            Ok(Connect {
                version: Version::V311,
                keepalive: 60,
                clean: true,
                has_will: false,
                client_id: "id",
                user_name: Some("user"),
            })
        );
    }

    #[test]
    fn will_and_properties_of_mqtt_5_are_stepped_over() {
        let packet = b"\x10\x26\x00\x04MQTT\x05\x86\x00\x0a\x05\x11\x00\x00\x00\x05\x00\x02id\x02\x01\x01\x00\x01t\x00\x02xx\x00\x04user";
        let connect = Connect::read(packet, 23).unwrap();
        assert_eq!(connect.version, Version::V5);
        assert!(connect.has_will);
        assert_eq!(connect.user_name, Some("user"));
    }

    #[test]
    fn mqtt_3_1_has_its_own_name() {
        let packet = b"\x10\x10\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x02id";
        assert_eq!(Connect::read(packet, 23).unwrap().version, Version::V31);
    }

    #[test]
    fn every_cut_of_a_packet_is_refused_and_none_panics() {
        for end in 0..V311.len() {
            let mut cut = V311[..end].to_vec();
            if end > 1 {
                cut[1] = u8::try_from(end - 2).unwrap();
            }
            assert!(Connect::read(&cut, 23).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn mistakes_have_names() {
        let change = |at: usize, byte: u8| {
            let mut packet = V311.to_vec();
            packet[at] = byte;
            Connect::read(&packet, 23).unwrap_err()
        };
        assert_eq!(
            change(0, 0x30),
            ConnectError::NotConnect(PacketType::Publish)
        );
        assert_eq!(change(0, 0x11), ConnectError::ReservedFlag);
        assert_eq!(change(4, b'X'), ConnectError::ProtocolName);
        assert_eq!(change(8, 6), ConnectError::ProtocolLevel(6));
        assert_eq!(change(9, 0xc3), ConnectError::ReservedFlag);
        assert_eq!(change(9, 0x42), ConnectError::ContradictingFlags);
        assert_eq!(change(9, 0xca), ConnectError::ContradictingFlags);
        assert_eq!(change(14, 0xff), ConnectError::NotText);
        assert_eq!(change(15, 0), ConnectError::NotText);
        assert_eq!(Connect::read(V311, 1), Err(ConnectError::ClientIdTooLong));
    }
}
