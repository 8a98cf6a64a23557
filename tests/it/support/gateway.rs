//! The gateway under test, on a free port with a certificate of its own.

use std::path::Path;

/// A running gateway; dropping it stops it.
pub struct Gateway;

impl Gateway {
    /// Starts from a configuration that may leave out listeners, admin and certificates.
    pub async fn start(_yaml: &str) -> Self {
        panic!("the gateway cannot be started yet");
    }

    /// `wss://127.0.0.1:PORT` and the path.
    pub fn wss_url(&self, _path: &str) -> String {
        panic!("the gateway cannot be started yet");
    }

    /// The authority that clients must trust.
    pub fn ca_file(&self) -> &Path {
        panic!("the gateway cannot be started yet");
    }

    #[expect(dead_code, reason = "no test has asked for it yet")]
    pub fn port(&self) -> u16 {
        panic!("the gateway cannot be started yet");
    }
}
