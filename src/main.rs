//! The `personas` command. Everything it does is in the library.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// Short-lived small allocations by many threads are what this service does all day.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// After how many milliseconds the allocator gives free memory back to the system. It waits a second by itself, and
/// what bursts of large batches need stays with the process all the time then: a fifth more memory. Ten cost two
/// microseconds an event for clearing pages that are needed again at once (docs/performance.md).
const GIVE_BACK: (&str, &str) = ("MIMALLOC_PURGE_DELAY", "250");

fn main() -> ExitCode {
    begin_again_with_options();
    personas::cli::run()
}

/// The allocator reads its options once, before anything of ours runs, so the same process begins again with them.
fn begin_again_with_options() {
    let (name, value) = GIVE_BACK;
    let mut args = std::env::args_os();
    if let (None, Ok(program), Some(arg0)) = (std::env::var_os(name), std::env::current_exe(), args.next()) {
        // Comes back only when it cannot; everything works without it, too.
        let _error = Command::new(program).arg0(arg0).args(args).env(name, value).exec();
    }
}
