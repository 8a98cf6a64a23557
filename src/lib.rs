//! Tidegate, the front door of an MQTT cluster. This file is the map, lowest layer last; ARCHITECTURE.md tells the story.

pub mod cli;
pub mod app;
pub mod admin;
pub mod gateway;
pub mod pool;
pub mod acme;
pub mod site;
pub mod certificates;
pub mod framing;
pub mod stream;
pub mod lifecycle;
pub mod telemetry;
pub mod identity;
pub mod tls;
pub mod http2;
pub mod proxy_protocol;
pub mod mqtt;
pub mod websocket;
pub mod config;
#[cfg(feature = "demo")]
pub mod demo;
