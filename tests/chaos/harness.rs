//! What the other tests stand on too: the shared cluster, and a receiver of deliveries.

#[expect(dead_code, reason = "other tests ask more of it")]
#[path = "../it/harness/cluster.rs"]
pub(crate) mod cluster;
#[expect(dead_code, reason = "other tests ask more of it")]
#[path = "../it/harness/receiver.rs"]
pub(crate) mod receiver;

use std::process::Command;

/// This test binary again, running only the test of that name, in its own process group.
pub(crate) fn this_binary_as(test: &str, variable: &str, value: &str) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).env(variable, value).process_group(0);
    command
}
