//! Frames as they are written: one binary frame, or the fragments of one, and control frames (RFC 6455 5.2).

use tungstenite::protocol::frame::coding::CloseCode;

use super::mask::xor;

/// The opcodes of RFC 6455 5.2 that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

impl Opcode {
    /// `None` for the reserved ones.
    pub fn of(byte: u8) -> Option<Self> {
        match byte & 0x0f {
            0x0 => Some(Self::Continuation),
            0x1 => Some(Self::Text),
            0x2 => Some(Self::Binary),
            0x8 => Some(Self::Close),
            0x9 => Some(Self::Ping),
            0xa => Some(Self::Pong),
            _ => None,
        }
    }
}

/// Appends the header of a frame with `length` bytes of payload. `mask` is the key towards a broker; towards a client
/// there is none (RFC 6455 5.1).
pub fn data_header(
    out: &mut Vec<u8>,
    opcode: Opcode,
    last: bool,
    length: u64,
    mask: Option<[u8; 4]>,
) {
    let first = opcode as u8 | if last { 0x80 } else { 0 };
    let masked = if mask.is_some() { 0x80 } else { 0 };
    // The minimal number of bytes must be used for the length.
    if let Ok(short @ 0..=125) = u8::try_from(length) {
        out.extend_from_slice(&[first, masked | short]);
    } else if let Ok(medium) = u16::try_from(length) {
        out.extend_from_slice(&[first, masked | 126]);
        out.extend_from_slice(&medium.to_be_bytes());
    } else {
        out.extend_from_slice(&[first, masked | 127]);
        out.extend_from_slice(&length.to_be_bytes());
    }
    if let Some(key) = mask {
        out.extend_from_slice(&key);
    }
}

/// Appends a ping or pong. A payload over 125 bytes is cut there: no control frame may be longer (5.5).
pub fn control(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) {
    let payload = &payload[..payload.len().min(125)];
    data_header(out, opcode, true, payload.len() as u64, mask);
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(key) = mask {
        xor(&mut out[start..], key);
    }
}

/// Appends a Close with code and reason; the reason is cut at a character so that the frame fits (5.5.1).
pub fn close(out: &mut Vec<u8>, code: CloseCode, reason: &str, mask: Option<[u8; 4]>) {
    let mut payload = u16::from(code).to_be_bytes().to_vec();
    payload.extend_from_slice(&reason.as_bytes()[..reason.floor_char_boundary(123)]);
    control(out, Opcode::Close, &payload, mask);
}
