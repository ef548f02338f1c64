//! Parse, dispatch, and turn the outcome into an exit code.

use std::process::ExitCode;

use clap::Parser;

/// Why not the system's: `docs/adr/0014-mimalloc.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match bellwether::cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
