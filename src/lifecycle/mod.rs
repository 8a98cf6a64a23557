//! How the process lives: when it is ready, how it stops, which signals it hears, who started it and what that one passed.

mod drain;
pub mod inherited;
mod readiness;
pub mod signals;
mod supervisor;

pub use drain::{Asked, Drain, Ended, Group, Membership, Progress};
pub use readiness::{BlockReady, Readiness};
pub use supervisor::Supervisor;
