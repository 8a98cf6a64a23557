//! WebSocket frames (RFC 6455), no I/O: headers, masks, control frames, close codes.
//! Messages are never assembled: MQTT is a byte stream inside the frames, and a stream needs no message.
//! The close codes, and the handshake's accept key, are tungstenite's.

mod frame;
mod mask;
mod reader;

pub use frame::{Opcode, close, control, data_header};
pub use mask::{NO_MASK, rotate, xor};
pub use reader::{Control, Event, FrameReader, Peer, Violation};
pub use tungstenite::handshake::client::generate_key;
pub use tungstenite::handshake::derive_accept_key;
pub use tungstenite::protocol::frame::coding::CloseCode;
