//! How the process lives: when it is ready, how it stops, which signals it hears.

mod drain;
mod readiness;
pub mod signals;

pub use drain::{Drain, Ended, Group, Membership, Pace};
pub use readiness::{BlockReady, Readiness};
