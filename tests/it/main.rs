//! The integration tests: one binary, one module per behaviour.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on should fail where it stands"
)]
#![expect(
    clippy::large_futures,
    reason = "a test has one or two sessions, not 100,000"
)]

mod support;

mod brokers;
mod clients;
mod configuration;
mod configuration_mistakes;
mod examples;
mod identity_out;
mod sessions;
mod source_ports;
mod static_files;
mod tls_files;
