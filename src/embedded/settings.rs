//! The server's settings, all given on its command line: they win over anything written in the data folder.

use std::{fs, path::Path, process::Command};

use super::Profile;

const MIB: u64 = 1 << 20;
/// What the machine is taken to have when it does not say.
const MEMORY_MIB_DEFAULT: u64 = 2_048;
/// More connections than any number of parallel tests opens.
const CONNECTIONS_IN_TESTS: u32 = 400;

/// `name=value` for each setting.
pub(super) fn settings(profile: Profile, socket_dir: &Path, wal_compression: &str) -> Vec<String> {
    let mut all = vec![
        // No port, ever: the socket is in a folder only the server's account may enter.
        "listen_addresses=".to_owned(),
        format!("unix_socket_directories={}", socket_dir.display()),
        "unix_socket_permissions=0700".to_owned(),
        "port=5432".to_owned(),
        "timezone=UTC".to_owned(),
        "log_timezone=UTC".to_owned(),
        "logging_collector=off".to_owned(),
        "log_destination=stderr".to_owned(),
        // Our statements are short; compiling them costs more than it saves.
        "jit=off".to_owned(),
    ];
    match profile {
        Profile::Durable => all.extend(durable(memory_mib(), wal_compression)),
        Profile::Throwaway => all.extend(throwaway()),
    }
    all
}

fn durable(memory_mib: u64, wal_compression: &str) -> Vec<String> {
    vec![
        "fsync=on".to_owned(),
        "synchronous_commit=on".to_owned(),
        "full_page_writes=on".to_owned(),
        format!("shared_buffers={}MB", (memory_mib / 4).clamp(256, 4_096)),
        format!("effective_cache_size={}MB", (memory_mib / 2).max(512)),
        format!("maintenance_work_mem={}MB", (memory_mib / 16).clamp(64, 512)),
        // Checkpoints by time rather than by volume: fewer full pages in the log while events pour in.
        "max_wal_size=8GB".to_owned(),
        "min_wal_size=256MB".to_owned(),
        "checkpoint_timeout=15min".to_owned(),
        format!("wal_compression={wal_compression}"),
        // Solid-state disks: a page read at random costs about what one in sequence does.
        "random_page_cost=1.1".to_owned(),
    ]
}

fn throwaway() -> Vec<String> {
    let off =
        ["fsync", "synchronous_commit", "full_page_writes", "autovacuum"].map(|name| format!("{name}=off"));
    let mut all = Vec::from(off);
    all.extend(
        ["shared_buffers=32MB", "max_wal_size=4GB", "wal_level=minimal", "max_wal_senders=0"]
            .map(String::from),
    );
    all.push(format!("max_connections={CONNECTIONS_IN_TESTS}"));
    all
}

/// `lz4` when this build of Postgres has it, else `on`. Asked of the binary: packages differ.
pub(super) fn wal_compression(mut postgres: Command, cluster: &Path) -> &'static str {
    postgres.arg("-D").arg(cluster).args(["-c", "wal_compression=lz4", "-C", "wal_compression"]);
    if postgres.output().is_ok_and(|answer| answer.status.success()) { "lz4" } else { "on" }
}

/// The memory this process may use: the machine's, or the container's when that is less.
fn memory_mib() -> u64 {
    let machine =
        fs::read_to_string("/proc/meminfo").ok().and_then(|text| meminfo_mib(&text)).or_else(|| {
            // macOS has no /proc.
            let answer = Command::new("/usr/sbin/sysctl").args(["-n", "hw.memsize"]).output().ok()?;
            String::from_utf8_lossy(&answer.stdout).trim().parse::<u64>().ok().map(|bytes| bytes / MIB)
        });
    let container = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok())
        .map(|bytes| bytes / MIB);
    [machine, container].into_iter().flatten().min().unwrap_or(MEMORY_MIB_DEFAULT)
}

fn meminfo_mib(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durable_means_flushed_whatever_the_memory() {
        for (memory, buffers) in [(512, "256MB"), (8_192, "2048MB"), (1 << 20, "4096MB")] {
            let all = durable(memory, "on");
            for wanted in [
                "fsync=on",
                "synchronous_commit=on",
                "full_page_writes=on",
                &format!("shared_buffers={buffers}"),
            ] {
                assert!(all.iter().any(|setting| setting == wanted), "{wanted} with {memory} MiB: {all:?}");
            }
        }
    }

    #[test]
    fn reads_the_machines_memory() {
        assert_eq!(meminfo_mib("MemTotal:       16384000 kB\nMemFree: 1 kB\n"), Some(16_000));
        assert_eq!(meminfo_mib(""), None);
    }
}
