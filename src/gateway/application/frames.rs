//! Where the frames of a WebSocket end (RFC 6455 5.2), in bytes that are only passed on: a goodbye of ours must not stand
//! inside one of the application's.

/// Longest header: two bytes, eight of length, four of mask.
const HEADER: usize = 14;

#[derive(Debug, Default)]
pub(super) struct Frames {
    header: [u8; HEADER],
    /// Of the header, so far.
    known: usize,
    /// Of the payload.
    left: u64,
    /// A Close was begun: nothing may follow it (5.5.1).
    closed: bool,
}

impl Frames {
    pub(super) fn walk(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let step =
                    usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
                self.left -= step as u64;
                bytes = &bytes[step..];
                continue;
            }
            self.header[self.known] = bytes[0];
            self.known += 1;
            bytes = &bytes[1..];
            if self.known == self.header_length() {
                self.left = self.payload();
                self.closed |= self.header[0] & 0x0f == 0x8;
                self.known = 0;
            }
        }
    }

    /// A frame of ours may stand here.
    pub(super) fn may_close(&self) -> bool {
        self.at_boundary() && !self.closed
    }

    pub(super) fn at_boundary(&self) -> bool {
        self.known == 0 && self.left == 0
    }

    fn header_length(&self) -> usize {
        if self.known < 2 {
            return HEADER;
        }
        let length = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.header[1] & 0x80 == 0 { 0 } else { 4 };
        2 + length + mask
    }

    fn payload(&self) -> u64 {
        let behind = &self.header[2..];
        match self.header[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes([behind[0], behind[1]])),
            127 => behind[..8]
                .iter()
                .fold(0, |length, byte| length << 8 | u64::from(*byte)),
            short => u64::from(short),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::websocket::{Opcode, data_header};

    proptest! {
        /// However the bytes are cut.
        #[test]
        fn a_frame_ends_where_it_ends(
            frames in prop::collection::vec((0..200_000_usize, any::<Option<[u8; 4]>>()), 1..4),
            cut in 1..5000_usize,
        ) {
            let (mut bytes, mut ends) = (Vec::new(), vec![0]);
            for (length, mask) in frames {
                data_header(&mut bytes, Opcode::Binary, true, length as u64, mask);
                bytes.resize(bytes.len() + length, 7);
                ends.push(bytes.len());
            }
            let (mut walked, mut seen) = (Frames::default(), 0);
            for piece in bytes.chunks(cut) {
                walked.walk(piece);
                seen += piece.len();
                prop_assert_eq!(walked.at_boundary(), ends.contains(&seen));
            }
            prop_assert!(walked.may_close());
        }
    }

    #[test]
    fn nothing_follows_a_close() {
        let mut frames = Frames::default();
        frames.walk(&[0x88, 2, 3, 0xe8]);
        assert!(frames.at_boundary() && !frames.may_close());
    }
}
