//! One direction of one session: takes bytes as they were read, appends bytes as they are to be written.

use crate::mqtt::{FixedHeader, HeaderReader, Malformed, PacketType};
use crate::telemetry::Counters;
use crate::websocket::{
    CloseCode, Control, Event, FrameReader, NO_MASK, Opcode, Violation, control, data_header,
    rotate, xor,
};

/// How the bytes that come in are framed.
#[derive(Debug)]
pub enum Input {
    /// WebSocket frames.
    Frames(FrameReader),
    /// MQTT packets one after the other.
    Stream,
}

/// How the bytes that go out are framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Unmasked frames, towards a client.
    Frames,
    /// Masked frames, towards a broker.
    MaskedFrames,
    /// MQTT packets one after the other.
    Stream,
}

/// Bounds on what passes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one MQTT packet, header included.
    pub packet: u64,
    /// Bytes of payload of one frame that is written.
    pub frame: u64,
    /// Bytes of one packet of a watched type: it is held until it is whole.
    pub watched: u64,
}

/// Why a direction cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error(transparent)]
    Frame(#[from] Violation),
    #[error(transparent)]
    Packet(#[from] Malformed),
    #[error("a packet of {0} bytes is over the limit")]
    TooLarge(u64),
    #[error("{} must not come here", .0.name())]
    Forbidden(PacketType),
}

/// Something that the session must hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// A control frame of the peer that is read from.
    Control(Control),
    /// A packet of a watched type is whole. It has been written too.
    Packet(PacketType, Vec<u8>),
}

/// Packets and bytes by type, in the order of `PacketType::ALL`. Bytes are MQTT bytes, without frame headers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    pub packets: [u64; 16],
    pub bytes: [u64; 16],
}

/// See the module.
#[derive(Debug)]
pub struct Translator {
    input: Input,
    output: Output,
    limits: Limits,
    header: HeaderReader,
    /// Bytes of the packet in hand still to come, behind its header.
    remaining: u32,
    /// Bytes of the frame in hand still to be written. 0 at a frame's end.
    frame_left: u64,
    /// The output's key, rotated to the next byte of the frame in hand.
    key: [u8; 4],
    masks: Masks,
    /// One bit for each packet type that the session wants to hear of.
    watched: u16,
    /// One bit for each packet type that is a fault.
    forbidden: u16,
    /// The watched packet in hand.
    captured: Option<Box<(PacketType, Vec<u8>)>>,
    /// A control frame to be written before the next frame.
    owed: Option<Box<(Opcode, Vec<u8>)>>,
    pub tally: Tally,
    counters: Counters,
}

/// Where the mask keys of a session come from: unpredictable to whoever does not know the seed (RFC 6455 5.3), and a
/// fresh one for each frame. SplitMix64, since a call of the system's generator per frame would be its dearest part.
#[derive(Debug, Clone)]
pub struct Masks {
    state: u64,
}

impl Masks {
    /// `seed` from the system's generator.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn next(&mut self) -> [u8; 4] {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        let [a, b, c, d, ..] = (mixed ^ mixed >> 31).to_ne_bytes();
        [a, b, c, d]
    }
}

impl Translator {
    /// `counters` is where this direction's packets are counted for the whole process.
    pub fn new(
        input: Input,
        output: Output,
        limits: Limits,
        masks: Masks,
        counters: Counters,
    ) -> Self {
        Self {
            input,
            output,
            limits,
            header: HeaderReader::default(),
            remaining: 0,
            frame_left: 0,
            key: NO_MASK,
            masks,
            counters,
            watched: 0,
            forbidden: 0,
            captured: None,
            owed: None,
            tally: Tally::default(),
        }
    }

    /// From now on `Signal::Packet` tells of packets of this type.
    pub fn watch(&mut self, packet_type: PacketType) {
        self.watched |= 1 << packet_type.index();
    }

    /// From now on a packet of this type is a fault, found before a byte of it is written.
    pub fn forbid(&mut self, packet_type: PacketType) {
        self.unwatch(packet_type);
        self.forbidden |= 1 << packet_type.index();
    }

    pub fn unwatch(&mut self, packet_type: PacketType) {
        self.watched &= !(1 << packet_type.index());
    }

    /// True between packets, and so between frames that are written: only here may something else be written.
    pub fn at_boundary(&self) -> bool {
        self.remaining == 0 && self.header.is_empty()
    }

    /// True between frames that are written: here a control frame may be. A packet whose header is incomplete has not
    /// been written at all.
    pub fn at_frame_boundary(&self) -> bool {
        self.frame_left == 0
    }

    /// A control frame that is to stand before the next frame. RFC 6455 5.5.3: of several pings only the last need be
    /// answered, so one place is enough.
    pub fn owe(&mut self, opcode: Opcode, payload: Vec<u8>) {
        self.owed = Some(Box::new((opcode, payload)));
    }

    pub fn owes(&self) -> bool {
        self.owed.is_some()
    }

    /// Appends the control frame that is owed, if it may stand here. While packets pass it finds its place by itself.
    pub fn pay(&mut self, out: &mut Vec<u8>) {
        if self.at_frame_boundary()
            && let Some(owed) = self.owed.take()
        {
            let mask = self.mask();
            control(out, owed.0, &owed.1, mask);
        }
    }

    /// A key for the next frame towards the side that is written to.
    pub fn mask(&mut self) -> Option<[u8; 4]> {
        (self.output == Output::MaskedFrames).then(|| self.masks.next())
    }

    pub fn writes_frames(&self) -> bool {
        self.output != Output::Stream
    }

    /// A broker has the session: the limits and the output of the packets to come. Call it between packets.
    pub fn enter_session(&mut self, limits: Limits, output: Output, masks: Masks) {
        debug_assert!(self.at_boundary());
        self.limits = limits;
        self.output = output;
        self.masks = masks;
    }

    /// The Close frame that stands in bytes still to be translated, if there is one. They stay untranslated.
    pub fn close_ahead(&self, mut bytes: &[u8]) -> Option<CloseCode> {
        let Input::Frames(reader) = &self.input else {
            return None;
        };
        let mut reader = reader.clone();
        loop {
            match reader.next(&mut bytes) {
                Ok(Event::Control(Control::Close(code))) => return Some(code),
                Ok(Event::Control(_) | Event::Data { .. }) => {}
                // A violation is answered when it is translated.
                Ok(Event::End) | Err(_) => return None,
            }
        }
    }

    /// Takes bytes off `input` and appends to `out` until the input is used up, `out` has reached `enough` bytes, or
    /// there is something to hear of. What `input` still holds is to be given again.
    pub fn translate(
        &mut self,
        input: &mut &[u8],
        out: &mut Vec<u8>,
        enough: usize,
    ) -> Result<Option<Signal>, Fault> {
        while out.len() < enough {
            if self.pass_whole(input, out) {
                continue;
            }
            let whole = *input;
            let (bytes, key) = match &mut self.input {
                Input::Stream => (std::mem::take(input), NO_MASK),
                Input::Frames(reader) => match reader.next(input)? {
                    Event::Data { bytes, key } => (bytes, key),
                    Event::Control(control) => return Ok(Some(Signal::Control(control))),
                    Event::End => return Ok(None),
                },
            };
            if bytes.is_empty() {
                return Ok(None);
            }
            let end = whole.len() - input.len();
            let (taken, signal) = self.run(bytes, key, out, enough)?;
            let unread = bytes.len() - taken;
            *input = &whole[end - unread..];
            if let Input::Frames(reader) = &mut self.input {
                reader.unread(unread);
            }
            if signal.is_some() {
                return Ok(signal);
            }
        }
        Ok(None)
    }

    /// Passes one packet on that stands whole in the input, in a frame of its own where there are frames, and that nobody
    /// watches. False, and nothing taken, where it does not: `run` knows every other case, and would do this one as well,
    /// byte by byte.
    fn pass_whole(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> bool {
        if !self.at_boundary() || self.owed.is_some() {
            return false;
        }
        let (header_length, payload, key) = match &self.input {
            Input::Stream => (0, *input, NO_MASK),
            Input::Frames(reader) => match reader.whole(input) {
                Some(frame) => frame,
                None => return false,
            },
        };
        let Some(header) = FixedHeader::peek(payload, key) else {
            return false;
        };
        let length = header.packet_length();
        let Ok(count) = usize::try_from(length) else {
            return false;
        };
        let stands_alone = match self.input {
            Input::Stream => count <= payload.len(),
            Input::Frames(_) => count == payload.len(),
        };
        let index = header.packet_type().index();
        let passes = (self.watched | self.forbidden) & 1 << index == 0
            && length <= self.limits.packet.min(self.limits.frame);
        if !stands_alone || !passes {
            return false;
        }
        self.count(index, length);
        let mask = self.mask();
        if self.writes_frames() {
            data_header(out, Opcode::Binary, true, length, mask);
        }
        let start = out.len();
        out.extend_from_slice(&payload[..count]);
        xor(&mut out[start..], both(key, mask.unwrap_or(NO_MASK)));
        *input = &input[header_length + count..];
        true
    }

    fn count(&mut self, index: usize, length: u64) {
        self.tally.packets[index] += 1;
        self.tally.bytes[index] += length;
        self.counters.add(index, length);
    }

    /// One run of payload with one key. Answers how many bytes it took.
    fn run(
        &mut self,
        bytes: &[u8],
        key: [u8; 4],
        out: &mut Vec<u8>,
        enough: usize,
    ) -> Result<(usize, Option<Signal>), Fault> {
        let mut at = 0;
        while at < bytes.len() && out.len() < enough {
            let key = rotate(key, at as u64);
            if self.remaining > 0 {
                at += self.body(&bytes[at..], key, out);
            } else {
                let byte = bytes[at] ^ key[0];
                at += 1;
                let Some(header) = self.header.push(byte)? else {
                    continue;
                };
                self.begin(&header, out)?;
            }
            if self.remaining == 0
                && let Some(packet) = self.captured.take()
            {
                let (packet_type, bytes) = *packet;
                return Ok((at, Some(Signal::Packet(packet_type, bytes))));
            }
        }
        Ok((at, None))
    }

    /// A header is complete: count it, check it, and write it with the frame header before it.
    fn begin(&mut self, header: &FixedHeader, out: &mut Vec<u8>) -> Result<(), Fault> {
        let length = header.packet_length();
        if length > self.limits.packet {
            return Err(Fault::TooLarge(length));
        }
        let packet_type = header.packet_type();
        let index = packet_type.index();
        if self.forbidden & 1 << index != 0 {
            return Err(Fault::Forbidden(packet_type));
        }
        if self.watched & 1 << index != 0 {
            if length > self.limits.watched {
                return Err(Fault::TooLarge(length));
            }
            self.captured = Some(Box::new((packet_type, header.bytes().to_vec())));
        }
        self.count(index, length);
        self.remaining = header.remaining;
        if self.output == Output::Stream {
            out.extend_from_slice(header.bytes());
            return Ok(());
        }
        // The five bytes of the longest header always fit: `Limits::frame` is far above them.
        self.open_frame(Opcode::Binary, length, out);
        self.write(header.bytes(), NO_MASK, out);
        Ok(())
    }

    /// Begins a frame for `left` bytes of packet, or for as many as one frame may hold.
    fn open_frame(&mut self, opcode: Opcode, left: u64, out: &mut Vec<u8>) {
        self.pay(out);
        let length = left.min(self.limits.frame);
        let mask = self.mask();
        data_header(out, opcode, length == left, length, mask);
        self.frame_left = length;
        self.key = mask.unwrap_or(NO_MASK);
    }

    /// Passes on what the run holds of the packet in hand.
    fn body(&mut self, bytes: &[u8], key: [u8; 4], out: &mut Vec<u8>) -> usize {
        let packet_left = u64::from(self.remaining);
        let framed = self.output != Output::Stream;
        if framed && self.frame_left == 0 {
            self.open_frame(Opcode::Continuation, packet_left, out);
        }
        let room = if framed {
            self.frame_left.min(packet_left)
        } else {
            packet_left
        };
        let count = usize::try_from(room).map_or(bytes.len(), |room| room.min(bytes.len()));
        let bytes = &bytes[..count];
        if let Some(captured) = &mut self.captured {
            let start = captured.1.len();
            captured.1.extend_from_slice(bytes);
            xor(&mut captured.1[start..], key);
        }
        if framed {
            self.write(bytes, key, out);
        } else {
            let start = out.len();
            out.extend_from_slice(bytes);
            xor(&mut out[start..], key);
        }
        // `count` is at most `remaining`, a u32.
        self.remaining -= u32::try_from(count).unwrap_or(self.remaining);
        count
    }

    /// Writes into the frame in hand: off with the input's key and on with the output's, in one pass.
    fn write(&mut self, bytes: &[u8], key: [u8; 4], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(bytes);
        xor(&mut out[start..], both(key, self.key));
        self.key = rotate(self.key, bytes.len() as u64);
        self.frame_left -= bytes.len() as u64;
    }
}

/// The key that takes one mask off and puts the other on.
fn both(off: [u8; 4], on: [u8; 4]) -> [u8; 4] {
    (u32::from_ne_bytes(off) ^ u32::from_ne_bytes(on)).to_ne_bytes()
}

#[cfg(test)]
mod tests;
