//! Tidegate, the front door of an MQTT cluster. This file is the map; ARCHITECTURE.md tells the story.

pub mod config;
/// PEM files → rustls configurations, towards clients and towards brokers.
pub mod certificates;
/// Static files on `/`.
pub mod site;
