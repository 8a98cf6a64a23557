//! MQTT packets from the framing of one side to the framing of the other, streamed. No I/O.
//!
//! INVARIANT: the MQTT bytes that leave are the MQTT bytes that came. Towards a WebSocket peer each packet is exactly
//! one message: one binary frame, or above `Limits::frame` the fragments of one. Its length is known from the fixed
//! header, so a packet is never held: memory does not depend on its size.

mod translator;

pub use translator::{Fault, Input, Limits, Masks, Output, Signal, Tally, Translator};
