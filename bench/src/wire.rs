//! The few MQTT 3.1.1 packets and WebSocket frames that a load needs, cut anywhere. Nothing is checked that the gateway
//! under test would have to get right first: a packet that comes back wrong is counted by its reader.

use base64::Engine as _;

pub const CONNACK: u8 = 2;
pub const PUBLISH: u8 = 3;
pub const SUBSCRIBE: u8 = 8;
pub const SUBACK: u8 = 9;
pub const PINGREQ: u8 = 12;
pub const DISCONNECT: u8 = 14;

pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// Sec-WebSocket-Accept for a key (RFC 6455 4.2.2).
pub fn accept_key(key: &str) -> String {
    let salted = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let digest = aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY,
        salted.as_bytes(),
    );
    base64::engine::general_purpose::STANDARD.encode(digest)
}

/// The value of a header in a request or response head.
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Where the head ends that `bytes` begin with.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map(|at| at + 4)
}

pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + 5);
    bytes.push(first);
    let mut left = body.len();
    loop {
        let low = (left & 0x7f) as u8;
        left >>= 7;
        bytes.push(low | if left > 0 { 0x80 } else { 0 });
        if left == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

fn counted(body: &mut Vec<u8>, text: &str) {
    body.extend_from_slice(&(text.len() as u16).to_be_bytes());
    body.extend_from_slice(text.as_bytes());
}

/// Keepalive 0: the load sends no pings of its own.
pub fn connect(client_id: &str) -> Vec<u8> {
    let mut body = Vec::new();
    counted(&mut body, "MQTT");
    body.extend_from_slice(&[4, 2, 0, 0]);
    counted(&mut body, client_id);
    packet(0x10, &body)
}

pub fn subscribe(topic: &str) -> Vec<u8> {
    let mut body = vec![0, 1];
    counted(&mut body, topic);
    body.push(0);
    packet(SUBSCRIBE << 4 | 2, &body)
}

/// QoS 0.
pub fn publish(topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(payload.len() + topic.len() + 2);
    counted(&mut body, topic);
    body.extend_from_slice(payload);
    packet(PUBLISH << 4, &body)
}

/// Lengths of the fixed header and of the whole packet, once the bytes tell.
fn lengths(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0;
    for (at, byte) in bytes.iter().enumerate().skip(1).take(4) {
        length |= usize::from(byte & 0x7f) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            return Some((at + 1, at + 1 + length));
        }
    }
    None
}

/// Topic and payload of a PUBLISH with QoS 0.
pub fn published(packet: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, _) = lengths(packet)?;
    let body = packet.get(header..)?;
    let (count, rest) = body.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*count)))
}

/// Topic of a SUBSCRIBE with one filter.
pub fn subscribed(packet: &[u8]) -> Option<&[u8]> {
    let (header, _) = lengths(packet)?;
    let (count, rest) = packet.get(header + 2..)?.split_first_chunk::<2>()?;
    rest.get(..usize::from(u16::from_be_bytes(*count)))
}

/// Cuts a stream of bytes into packets; copies only what was left incomplete.
#[derive(Default)]
pub struct Packets {
    part: Vec<u8>,
}

impl Packets {
    pub fn feed(&mut self, mut bytes: &[u8], mut take: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            if self.part.is_empty()
                && let Some((_, whole)) = lengths(bytes)
            {
                if whole <= bytes.len() {
                    take(&bytes[..whole]);
                    bytes = &bytes[whole..];
                    continue;
                }
                self.part.reserve_exact(whole);
            }
            let wanted = match lengths(&self.part) {
                Some((_, whole)) => whole - self.part.len(),
                None => 1,
            };
            let (piece, rest) = bytes.split_at(wanted.min(bytes.len()));
            self.part.extend_from_slice(piece);
            bytes = rest;
            if lengths(&self.part).is_some_and(|(_, whole)| whole == self.part.len()) {
                take(&std::mem::take(&mut self.part));
            }
        }
    }
}

/// Appends the head of an unmasked frame, as servers send it.
pub fn frame_head(out: &mut Vec<u8>, opcode: u8, length: usize, mask_bit: u8) {
    out.push(0x80 | opcode);
    if length < 126 {
        out.push(mask_bit | length as u8);
    } else if let Ok(length) = u16::try_from(length) {
        out.push(mask_bit | 126);
        out.extend_from_slice(&length.to_be_bytes());
    } else {
        out.push(mask_bit | 127);
        out.extend_from_slice(&(length as u64).to_be_bytes());
    }
}

/// Appends a masked binary frame, as clients send it.
pub fn client_frame(out: &mut Vec<u8>, payload: &[u8], key: u32) {
    frame_head(out, BINARY, payload.len(), 0x80);
    let key = key.to_ne_bytes();
    out.extend_from_slice(&key);
    let start = out.len();
    out.extend_from_slice(payload);
    mask(&mut out[start..], key);
}

fn mask(bytes: &mut [u8], key: [u8; 4]) {
    let half = u64::from(u32::from_ne_bytes(key));
    let wide = half << 32 | half;
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// Reads frames. Payload is handed on piece by piece as it comes, unmasked in place.
#[derive(Default)]
pub struct Frames {
    head: [u8; 14],
    have: usize,
    left: u64,
    key: [u8; 4],
    opcode: u8,
}

impl Frames {
    pub fn feed(&mut self, mut bytes: &mut [u8], mut take: impl FnMut(u8, &[u8])) {
        while !bytes.is_empty() {
            if self.left == 0 {
                let count = (self.head_length() - self.have).min(bytes.len());
                self.head[self.have..self.have + count].copy_from_slice(&bytes[..count]);
                self.have += count;
                bytes = &mut bytes[count..];
                if self.have == self.head_length() {
                    self.begin();
                    if self.left == 0 {
                        take(self.opcode, &[]);
                    }
                }
                continue;
            }
            let count =
                usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            let (piece, rest) = bytes.split_at_mut(count);
            if self.key != [0; 4] {
                mask(piece, self.key);
                self.key.rotate_left(count % 4);
            }
            self.left -= count as u64;
            take(self.opcode, piece);
            bytes = rest;
        }
    }

    fn head_length(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        let length = match self.head[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + length + if self.head[1] & 0x80 == 0 { 0 } else { 4 }
    }

    fn begin(&mut self) {
        let head = &self.head;
        let wide = |from: usize, count: usize| {
            head[from..from + count]
                .iter()
                .fold(0_u64, |value, byte| value << 8 | u64::from(*byte))
        };
        let (length, at) = match head[1] & 0x7f {
            126 => (wide(2, 2), 4),
            127 => (wide(2, 8), 10),
            short => (u64::from(short), 2),
        };
        self.key = match head[1] & 0x80 {
            0 => [0; 4],
            _ => [head[at], head[at + 1], head[at + 2], head[at + 3]],
        };
        (self.opcode, self.left, self.have) = (head[0] & 0x0f, length, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_key_is_that_of_the_rfc() {
        assert_eq!(
            accept_key("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[test]
    fn packets_in_frames_survive_any_cut() {
        let sizes = [0_usize, 1, 100, 127, 128, 20_000, 70_000];
        let mut wire = Vec::new();
        for (key, size) in sizes.iter().enumerate() {
            client_frame(&mut wire, &publish("t", &vec![7; *size]), key as u32 * 77);
        }
        for cut in [1, 2, 5, 1000, 1 << 20] {
            let (mut frames, mut packets) = (Frames::default(), Packets::default());
            let mut seen = Vec::new();
            for piece in wire.clone().chunks_mut(cut) {
                frames.feed(piece, |_, payload| {
                    packets.feed(payload, |packet| {
                        let (topic, payload) = published(packet).unwrap();
                        assert_eq!(topic, b"t");
                        assert!(payload.iter().all(|byte| *byte == 7));
                        seen.push(payload.len());
                    });
                });
            }
            assert_eq!(seen, sizes, "cut {cut}");
        }
    }
}
