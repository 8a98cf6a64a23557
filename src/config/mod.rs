//! YAML → checked values. Opens the configuration file and the `${file:…}` secrets it names, nothing else; no sockets.

pub mod model;
pub mod problem;

pub use model::Config;
pub use problem::{Place, Problem, Problems};
