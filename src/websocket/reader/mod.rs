//! Frames as they are read, cut anywhere: payload runs of data frames are handed on where they stand in the input,
//! still masked; control frames are collected; everything else is a violation with its close code.

use tungstenite::protocol::frame::coding::CloseCode;

use super::frame::Opcode;
use super::mask::{NO_MASK, rotate, xor};

/// Who sends the frames that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Its frames must be masked (RFC 6455 5.1).
    Client,
    /// Its frames must not be.
    Broker,
}

/// Something that a peer must not send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("a text frame: MQTT needs binary frames (MQTT 6.0.0-1)")]
    Text,
    #[error("a reserved bit of a frame is set, but no extension was agreed on (RFC 6455 5.2)")]
    ReservedBits,
    #[error("a frame with a reserved opcode (RFC 6455 5.2)")]
    ReservedOpcode,
    #[error("a frame of a client is not masked (RFC 6455 5.1)")]
    Unmasked,
    #[error("a frame of a server is masked (RFC 6455 5.1)")]
    Masked,
    #[error("a frame length is not written in its shortest form (RFC 6455 5.2)")]
    Length,
    #[error("a control frame is longer than 125 bytes (RFC 6455 5.5)")]
    ControlTooLong,
    #[error("a control frame is fragmented (RFC 6455 5.5)")]
    ControlFragmented,
    #[error("a continuation frame without a message to continue (RFC 6455 5.4)")]
    Continuation,
    #[error("a new message begins inside a fragmented one (RFC 6455 5.4)")]
    Interrupted,
    #[error("a Close frame with a code that must not be sent (RFC 6455 7.4)")]
    CloseCode,
    #[error("the reason of a Close frame is not UTF-8 (RFC 6455 5.5.1)")]
    CloseReason,
}

impl Violation {
    /// The code of the Close frame that answers it (RFC 6455 7.4.1).
    pub fn close_code(self) -> CloseCode {
        match self {
            Self::Text => CloseCode::Unsupported,
            Self::CloseReason => CloseCode::Invalid,
            Self::ReservedBits
            | Self::ReservedOpcode
            | Self::Unmasked
            | Self::Masked
            | Self::Length
            | Self::ControlTooLong
            | Self::ControlFragmented
            | Self::Continuation
            | Self::Interrupted
            | Self::CloseCode => CloseCode::Protocol,
        }
    }
}

/// A complete control frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    Ping(Vec<u8>),
    Pong,
    /// The code, 1005 where the frame carries none.
    Close(CloseCode),
}

/// What the next bytes of the input are.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Payload of a data frame. `key[0]` belongs to `bytes[0]`.
    Data {
        bytes: &'a [u8],
        key: [u8; 4],
    },
    Control(Control),
    /// The input is used up.
    End,
}

/// Reads the frames of one direction of one connection.
#[derive(Debug, Clone)]
pub struct FrameReader {
    peer: Peer,
    /// Header bytes of the next frame, as far as they have come.
    head: [u8; 14],
    have: u8,
    /// Payload bytes of the current frame still to come.
    remaining: u64,
    /// Key of the current frame, rotated to its next byte.
    key: [u8; 4],
    /// A message was begun by a frame that is not its last.
    fragmented: bool,
    /// The control frame being collected; rare, so held outside.
    control: Option<Box<(Opcode, Vec<u8>)>>,
}

impl FrameReader {
    pub fn new(peer: Peer) -> Self {
        Self {
            peer,
            head: [0; 14],
            have: 0,
            remaining: 0,
            key: NO_MASK,
            fragmented: false,
            control: None,
        }
    }

    /// Takes the next piece off `input`.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Event<'a>, Violation> {
        loop {
            if self.control.is_some() {
                return self.collect(input);
            }
            if self.remaining > 0 {
                if input.is_empty() {
                    return Ok(Event::End);
                }
                let count = usize::try_from(self.remaining)
                    .map_or(input.len(), |left| left.min(input.len()));
                let (bytes, rest) = input.split_at(count);
                *input = rest;
                let key = self.key;
                self.remaining -= count as u64;
                self.key = rotate(key, count as u64);
                return Ok(Event::Data { bytes, key });
            }
            if !self.header(input)? {
                return Ok(Event::End);
            }
        }
    }

    /// The payload of the frame that stands whole at the front of `input`, with its key and the length of its header: one
    /// binary frame between messages, as nearly all are. `None` for every other; nothing is taken.
    pub fn whole<'a>(&self, input: &'a [u8]) -> Option<(usize, &'a [u8], [u8; 4])> {
        const LAST_BINARY: u8 = 0x80 | Opcode::Binary as u8;
        if self.have > 0 || self.remaining > 0 || self.fragmented || self.control.is_some() {
            return None;
        }
        let (&[first, second], rest) = input.split_first_chunk()?;
        let masked = match self.peer {
            Peer::Client => 0x80,
            Peer::Broker => 0,
        };
        if first != LAST_BINARY || second & 0x80 != masked {
            return None;
        }
        let (length, rest) = match second & 0x7f {
            126 => {
                let (length, rest) = rest.split_first_chunk()?;
                (usize::from(u16::from_be_bytes(*length)), rest)
            }
            127 => return None,
            short => (usize::from(short), rest),
        };
        // The shortest form is a rule.
        if second & 0x7f == 126 && length < 126 {
            return None;
        }
        let (key, rest) = match self.peer {
            Peer::Client => {
                let (key, rest) = rest.split_first_chunk()?;
                (*key, rest)
            }
            Peer::Broker => (NO_MASK, rest),
        };
        Some((input.len() - rest.len(), rest.get(..length)?, key))
    }

    /// Takes back the last `unread` bytes of the run that `next` gave last: it will be given again.
    pub fn unread(&mut self, unread: usize) {
        self.remaining += unread as u64;
        // Back by `unread` is forward by its complement to four.
        self.key = rotate(self.key, 4 - (unread as u64 & 3));
    }

    /// Collects header bytes; true when a header is complete and has been taken in.
    fn header(&mut self, input: &mut &[u8]) -> Result<bool, Violation> {
        loop {
            let have = usize::from(self.have);
            let wanted = header_length(&self.head[..have]);
            if have == wanted {
                break;
            }
            let count = (wanted - have).min(input.len());
            if count == 0 {
                return Ok(false);
            }
            let (bytes, rest) = input.split_at(count);
            *input = rest;
            self.head[have..have + count].copy_from_slice(bytes);
            // At most 14.
            self.have += u8::try_from(count).unwrap_or(u8::MAX);
            // A violation is answered at its first byte: the rest of the header may never come.
            if have < 2 && self.have >= 2 {
                self.check()?;
            }
        }
        self.begin()?;
        self.have = 0;
        Ok(true)
    }

    /// The rules on the first two bytes.
    fn check(&self) -> Result<(), Violation> {
        let [first, second] = [self.head[0], self.head[1]];
        if first & 0x70 != 0 {
            return Err(Violation::ReservedBits);
        }
        let last = first & 0x80 != 0;
        match Opcode::of(first).ok_or(Violation::ReservedOpcode)? {
            Opcode::Continuation if !self.fragmented => return Err(Violation::Continuation),
            Opcode::Text => return Err(Violation::Text),
            Opcode::Binary if self.fragmented => return Err(Violation::Interrupted),
            Opcode::Close | Opcode::Ping | Opcode::Pong if !last => {
                return Err(Violation::ControlFragmented);
            }
            Opcode::Close | Opcode::Ping | Opcode::Pong if second & 0x7f > 125 => {
                return Err(Violation::ControlTooLong);
            }
            Opcode::Continuation | Opcode::Binary | Opcode::Close | Opcode::Ping | Opcode::Pong => {
            }
        }
        match (self.peer, second & 0x80 != 0) {
            (Peer::Client, false) => Err(Violation::Unmasked),
            (Peer::Broker, true) => Err(Violation::Masked),
            (Peer::Client, true) | (Peer::Broker, false) => Ok(()),
        }
    }

    /// Takes a complete header in.
    fn begin(&mut self) -> Result<(), Violation> {
        let head = &self.head[..usize::from(self.have)];
        let (length, key_at) = match head[1] & 0x7f {
            126 => {
                let length = u64::from(u16::from_be_bytes([head[2], head[3]]));
                if length < 126 {
                    return Err(Violation::Length);
                }
                (length, 4)
            }
            127 => {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(&head[2..10]);
                let length = u64::from_be_bytes(bytes);
                if length < 0x1_0000 || length >> 63 != 0 {
                    return Err(Violation::Length);
                }
                (length, 10)
            }
            short => (u64::from(short), 2),
        };
        self.key = match self.peer {
            Peer::Client => [
                head[key_at],
                head[key_at + 1],
                head[key_at + 2],
                head[key_at + 3],
            ],
            Peer::Broker => NO_MASK,
        };
        self.remaining = length;
        match Opcode::of(head[0]) {
            Some(opcode @ (Opcode::Close | Opcode::Ping | Opcode::Pong)) => {
                self.control = Some(Box::new((opcode, Vec::new())));
            }
            Some(Opcode::Continuation | Opcode::Text | Opcode::Binary) | None => {
                self.fragmented = head[0] & 0x80 == 0;
            }
        }
        Ok(())
    }

    fn collect<'a>(&mut self, input: &mut &'a [u8]) -> Result<Event<'a>, Violation> {
        let Some(mut control) = self.control.take() else {
            return Ok(Event::End);
        };
        // A control frame has at most 125 bytes: checked with its header.
        let count =
            usize::try_from(self.remaining).map_or(input.len(), |left| left.min(input.len()));
        let (bytes, rest) = input.split_at(count);
        *input = rest;
        let start = control.1.len();
        control.1.extend_from_slice(bytes);
        xor(&mut control.1[start..], self.key);
        self.key = rotate(self.key, count as u64);
        self.remaining -= count as u64;
        if self.remaining > 0 {
            self.control = Some(control);
            return Ok(Event::End);
        }
        let (opcode, payload) = *control;
        Ok(Event::Control(match opcode {
            Opcode::Ping => Control::Ping(payload),
            Opcode::Close => Control::Close(close_code(&payload)?),
            Opcode::Pong | Opcode::Continuation | Opcode::Text | Opcode::Binary => Control::Pong,
        }))
    }
}

/// Bytes of the header, as far as the bytes at hand tell.
fn header_length(head: &[u8]) -> usize {
    let Some(second) = head.get(1) else {
        return 2;
    };
    let length = match second & 0x7f {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    if second & 0x80 != 0 {
        length + 4
    } else {
        length
    }
}

/// RFC 6455 5.5.1 and 7.4: no payload, or a code that may be sent and a reason in UTF-8.
fn close_code(payload: &[u8]) -> Result<CloseCode, Violation> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() {
            Ok(CloseCode::Status)
        } else {
            Err(Violation::CloseCode)
        };
    };
    let code = CloseCode::from(u16::from_be_bytes(*code));
    if !code.is_allowed() {
        return Err(Violation::CloseCode);
    }
    match std::str::from_utf8(reason) {
        Ok(_) => Ok(code),
        Err(_) => Err(Violation::CloseReason),
    }
}

#[cfg(test)]
mod tests;
