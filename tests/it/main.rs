//! The integration tests: one binary, one module per behaviour.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on should fail where it stands"
)]

mod support;

mod balance;
mod brokers;
mod clients;
mod connect;
mod configuration;
mod configuration_mistakes;
mod drain;
mod examples;
mod headers;
mod relay;
mod retry;
mod sessions;
mod static_files;
mod tls_files;
mod websocket;
