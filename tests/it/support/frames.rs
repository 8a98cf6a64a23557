//! WebSocket frames by hand, for what tungstenite does not send and for what it does not show: where a frame ends.

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use super::PATIENCE;

pub const CONTINUATION: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xa;

/// Set in the first byte of a message's last frame.
pub const FIN: u8 = 0x80;

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// One frame as it came, unmasked.
#[derive(Debug, PartialEq, Eq, Clone)]
pub struct Frame {
    pub last: bool,
    pub opcode: u8,
    pub payload: Vec<u8>,
}

/// A client's frame: `first` is its first byte, whatever it says.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = head(first, payload.len(), 0x80);
    bytes.extend_from_slice(&KEY);
    let masked = payload.iter().zip(KEY.iter().cycle());
    bytes.extend(masked.map(|(byte, key)| byte ^ key));
    bytes
}

/// A server's frame.
pub fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = head(first, payload.len(), 0);
    bytes.extend_from_slice(payload);
    bytes
}

fn head(first: u8, length: usize, mask: u8) -> Vec<u8> {
    let mut bytes = vec![first];
    match length {
        0..=125 => bytes.push(mask | u8::try_from(length).unwrap()),
        126..=0xffff => {
            bytes.push(mask | 126);
            bytes.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        }
        _ => {
            bytes.push(mask | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes
}

/// The next frame.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Frame {
    timeout(PATIENCE, try_read(stream))
        .await
        .expect("no frame came in time")
        .expect("the connection ended")
}

/// The next frame, or how the connection ended. Not to be dropped half-way.
pub async fn try_read(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Frame> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await?;
    assert_eq!(head[0] & 0x70, 0, "reserved bits");
    let length = match head[1] & 0x7f {
        126 => usize::from(stream.read_u16().await?),
        127 => usize::try_from(stream.read_u64().await?).unwrap(),
        short => usize::from(short),
    };
    let mut key = [0; 4];
    if head[1] & 0x80 != 0 {
        stream.read_exact(&mut key).await?;
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await?;
    for (byte, key) in payload.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
    Ok(Frame {
        last: head[0] & FIN != 0,
        opcode: head[0] & 0x0f,
        payload,
    })
}

impl Frame {
    /// The whole packet in one frame.
    pub fn binary(payload: &[u8]) -> Self {
        Self {
            last: true,
            opcode: BINARY,
            payload: payload.to_vec(),
        }
    }

    /// The code of a Close frame.
    pub fn close_code(&self) -> u16 {
        assert_eq!(self.opcode, CLOSE, "{self:?} is no Close");
        u16::from_be_bytes([self.payload[0], self.payload[1]])
    }
}
