//! The program: the allocator, the command line, the exit code. Everything else is in the library.

use std::process::ExitCode;

use tidegate::cli::Cli;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    Cli::read().execute()
}
