//! The integration tests: one binary, one module per behaviour.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on should fail where it stands"
)]
#![expect(
    clippy::large_futures,
    reason = "a test is one future, and there are few at a time"
)]

mod support;

mod balance;
mod brokers;
mod clients;
mod configuration;
mod configuration_mistakes;
mod connect;
mod drain;
mod examples;
mod headers;
mod relay;
mod retry;
mod sessions;
mod static_files;
mod tls_files;
mod websocket;
