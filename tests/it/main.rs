//! The integration tests: one binary, one module per behaviour.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on should fail where it stands"
)]

mod support;

mod brokers;
mod client_certificates;
mod clients;
mod configuration;
mod configuration_mistakes;
mod examples;
mod proxy_in;
mod sessions;
mod static_files;
mod trusted_proxies;
mod tls_files;
