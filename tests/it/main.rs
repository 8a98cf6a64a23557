//! The integration tests, one binary: each module states the rules of one behaviour.
#![expect(clippy::unwrap_used, reason = "tests")]

mod static_files;
mod tls_files;
