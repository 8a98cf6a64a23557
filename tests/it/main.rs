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
#![expect(
    clippy::duplicate_mod,
    reason = "the tests of sessions run over HTTP/1.1 and, in `http2`, over HTTP/2"
)]

mod support;

// What modules that run over HTTP/1.1 and HTTP/2 call theirs: `http2` has another.
use support::client::Client;

mod acme;
mod applications;
mod attacks;
mod balance;
mod brokers;
mod cli;
mod choosing;
mod client_certificates;
mod clients;
mod configuration;
mod configuration_mistakes;
#[cfg(feature = "demo")]
mod demo;
mod deploy;
mod documentation;
mod examples;
mod layers;
mod limits;
mod monitoring;
#[cfg(feature = "otlp")]
mod otlp;
mod origins;
mod paced;
mod pod_life;
mod connect;
mod cors;
mod discovery;
mod drain;
mod headers;
mod hsts;
mod relay;
mod reload;
mod take_over;
mod retry;
mod health;
mod herd;
mod http2;
mod proxy_in;
mod scanners;
mod sessions;
mod silence;
mod site;
mod sizes;
mod slow_clients;
mod startup;
mod steady;
mod identity_out;
mod source_ports;
mod system_calls;
mod status;
mod tls;
mod tls_hello;
mod tls_policy;
mod trusted_proxies;
mod unix_sockets;
mod tls_files;
mod upgrade;
mod wrong_port;
mod websocket;
