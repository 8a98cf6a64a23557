//! The tests that start the gateway and talk to it from outside: bytes in, bytes out, metrics, log lines.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on says so and ends"
)]

mod support;

mod brokers;
mod clients;
