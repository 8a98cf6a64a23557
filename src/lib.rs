//! Tidegate, the front door of an MQTT cluster. This file is the map; ARCHITECTURE.md tells the story.

pub mod config;
#[cfg(feature = "demo")]
pub mod demo;
