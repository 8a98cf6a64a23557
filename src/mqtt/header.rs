//! The fixed header of every packet (MQTT 5 2.1): one byte of type and flags, one to four bytes of remaining length.
//! The reader takes it byte by byte, so that it may be cut anywhere.

/// The sixteen values of the upper four bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum PacketType {
    Reserved = 0,
    Connect = 1,
    Connack = 2,
    Publish = 3,
    Puback = 4,
    Pubrec = 5,
    Pubrel = 6,
    Pubcomp = 7,
    Subscribe = 8,
    Suback = 9,
    Unsubscribe = 10,
    Unsuback = 11,
    Pingreq = 12,
    Pingresp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl PacketType {
    /// In the order of their numbers, so that `ALL[n]` is the type numbered `n`.
    pub const ALL: [Self; 16] = [
        Self::Reserved,
        Self::Connect,
        Self::Connack,
        Self::Publish,
        Self::Puback,
        Self::Pubrec,
        Self::Pubrel,
        Self::Pubcomp,
        Self::Subscribe,
        Self::Suback,
        Self::Unsubscribe,
        Self::Unsuback,
        Self::Pingreq,
        Self::Pingresp,
        Self::Disconnect,
        Self::Auth,
    ];

    pub fn of(first_byte: u8) -> Self {
        Self::ALL[usize::from(first_byte >> 4)]
    }

    /// Index into tables of sixteen.
    pub fn index(self) -> usize {
        usize::from(self as u8)
    }

    /// The label in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Connect => "connect",
            Self::Connack => "connack",
            Self::Publish => "publish",
            Self::Puback => "puback",
            Self::Pubrec => "pubrec",
            Self::Pubrel => "pubrel",
            Self::Pubcomp => "pubcomp",
            Self::Subscribe => "subscribe",
            Self::Suback => "suback",
            Self::Unsubscribe => "unsubscribe",
            Self::Unsuback => "unsuback",
            Self::Pingreq => "pingreq",
            Self::Pingresp => "pingresp",
            Self::Disconnect => "disconnect",
            Self::Auth => "auth",
        }
    }
}

/// A complete fixed header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedHeader {
    bytes: [u8; 5],
    length: u8,
    /// Bytes that follow the header, 0 to 268,435,455.
    pub remaining: u32,
}

impl FixedHeader {
    /// The header of a packet whose first bytes are `bytes`, masked with `key` (RFC 6455 5.3; `[0; 4]` changes nothing).
    /// `None` where it is cut, or is no header that a packet may have.
    pub fn peek(bytes: &[u8], key: [u8; 4]) -> Option<Self> {
        let mut header = [0; 5];
        let mut remaining = 0;
        for (length, (byte, place)) in (1..).zip(bytes.iter().zip(&mut header)) {
            let at = usize::from(length - 1_u8);
            let byte = byte ^ key[at & 3];
            *place = byte;
            if at == 0 {
                if PacketType::of(byte) == PacketType::Reserved {
                    return None;
                }
                continue;
            }
            remaining |= u32::from(byte & 0x7f) << (7 * (at - 1));
            if byte & 0x80 == 0 {
                return Some(Self {
                    bytes: header,
                    length,
                    remaining,
                });
            }
        }
        None
    }

    pub fn packet_type(&self) -> PacketType {
        PacketType::of(self.bytes[0])
    }

    /// The header as it stood on the wire.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// Bytes of the whole packet, header included: 2 to 268,435,460.
    pub fn packet_length(&self) -> u64 {
        u64::from(self.length) + u64::from(self.remaining)
    }
}

/// A header that no packet may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("packet type 0 is reserved (MQTT 2.1.2)")]
    ReservedType,
    #[error("the remaining length has more than four bytes (MQTT 2.1.4)")]
    LengthTooLong,
}

/// Collects the bytes of one fixed header after the other.
#[derive(Debug, Default, Clone, Copy)]
pub struct HeaderReader {
    bytes: [u8; 5],
    have: u8,
}

impl HeaderReader {
    /// True between packets: no byte of a header has been taken.
    pub fn is_empty(&self) -> bool {
        self.have == 0
    }

    /// Takes one byte; answers the header when it was the last one, and is then empty again.
    pub fn push(&mut self, byte: u8) -> Result<Option<FixedHeader>, Malformed> {
        if self.have == 0 && PacketType::of(byte) == PacketType::Reserved {
            return Err(Malformed::ReservedType);
        }
        self.bytes[usize::from(self.have)] = byte;
        self.have += 1;
        if self.have == 1 {
            return Ok(None);
        }
        if byte & 0x80 != 0 {
            return if self.have == 5 {
                Err(Malformed::LengthTooLong)
            } else {
                Ok(None)
            };
        }
        let remaining = self.bytes[1..usize::from(self.have)]
            .iter()
            .rev()
            .fold(0, |value, byte| value << 7 | u32::from(byte & 0x7f));
        let header = FixedHeader {
            bytes: self.bytes,
            length: self.have,
            remaining,
        };
        self.have = 0;
        Ok(Some(header))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Option<FixedHeader>, Malformed> {
        let mut reader = HeaderReader::default();
        let mut last = Ok(None);
        for byte in bytes {
            last = reader.push(*byte);
        }
        last
    }

    #[test]
    fn lengths_at_the_borders_of_the_table_in_mqtt_2_1_4() {
        let table: [(&[u8], u32); 8] = [
            (&[0x00], 0),
            (&[0x7f], 127),
            (&[0x80, 0x01], 128),
            (&[0xff, 0x7f], 16_383),
            (&[0x80, 0x80, 0x01], 16_384),
            (&[0xff, 0xff, 0x7f], 2_097_151),
            (&[0x80, 0x80, 0x80, 0x01], 2_097_152),
            (&[0xff, 0xff, 0xff, 0x7f], 268_435_455),
        ];
        for (length, expected) in table {
            let mut bytes = vec![0x30];
            bytes.extend_from_slice(length);
            let header = read(&bytes).unwrap().unwrap();
            assert_eq!(header.remaining, expected);
            assert_eq!(header.bytes(), bytes);
            assert_eq!(header.packet_type(), PacketType::Publish);
        }
    }

    #[test]
    fn a_fifth_length_byte_is_refused() {
        assert_eq!(
            read(&[0x30, 0x80, 0x80, 0x80, 0x80]),
            Err(Malformed::LengthTooLong)
        );
    }

    #[test]
    fn type_zero_is_refused_at_its_first_byte() {
        assert_eq!(read(&[0x0f]), Err(Malformed::ReservedType));
    }
}
