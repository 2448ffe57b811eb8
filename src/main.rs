//! The `personas` command. Everything it does is in the library.

use std::process::ExitCode;

/// Short-lived small allocations by many threads are what this service does all day.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    personas::cli::run()
}
