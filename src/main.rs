//! The program: the allocator, the command line, the exit code. Everything else is in the library.

#[cfg(feature = "jemalloc")]
mod allocator;

use std::process::ExitCode;

use tidegate::cli::Cli;

fn main() -> ExitCode {
    Cli::read().execute()
}
