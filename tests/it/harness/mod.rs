//! What the tests stand on: one Postgres cluster per run, one database per test.

pub(crate) mod acts;
pub(crate) mod app;
pub(crate) mod browser;
pub(crate) mod cluster;
pub(crate) mod destinations;
pub(crate) mod docs;
pub(crate) mod generated;
pub(crate) mod people;
pub(crate) mod process;
pub(crate) mod random_log;
pub(crate) mod rebuild;
pub(crate) mod receiver;
pub(crate) mod regulations;
pub(crate) mod warehouse;

use std::process::Command;

/// This test binary again, running only the test of that name, in its own process group: for tests that need a
/// process to kill. The test finds out by `variable` that it is meant.
pub(crate) fn this_binary_as(test: &str, variable: &str, value: &str) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).env(variable, value).process_group(0);
    command
}
