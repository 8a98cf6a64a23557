//! The integration tests: one binary, one module per behaviour.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on should fail where it stands"
)]

mod support;

mod brokers;
mod cli;
mod clients;
mod configuration;
mod configuration_mistakes;
#[cfg(feature = "demo")]
mod demo;
mod documentation;
mod examples;
mod layers;
mod limits;
mod sessions;
mod silence;
mod startup;
mod static_files;
mod tls;
mod tls_files;
mod upgrade;
mod wrong_port;
