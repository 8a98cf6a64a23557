//! Tidegate, the front door of an MQTT cluster. This file is the map, lowest layer last; ARCHITECTURE.md tells the story.

pub mod framing;
pub mod lifecycle;
pub mod telemetry;
pub mod mqtt;
pub mod websocket;
pub mod config;
/// PEM files → rustls configurations, towards clients and towards brokers.
pub mod certificates;
