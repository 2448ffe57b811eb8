//! What the operating system says about load, CPU and memory.

use std::fs;

/// Ticks a second of the times in `/proc`; Linux has no other.
const TICKS: f64 = 100.0;

/// The load average of the last minute.
pub(super) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0.0)
}

/// The fields of a process behind its name: the first is its state.
fn fields(pid: i32) -> Option<Vec<u64>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split(' ').map(|field| field.trim().parse().unwrap_or(0)).collect())
}

pub(super) fn parent(pid: i32) -> Option<i32> {
    fields(pid)?.get(1).map(|parent| *parent as i32)
}

/// CPU seconds of a process; with those of its ended children if asked for.
fn cpu(pid: i32, with_ended: bool) -> f64 {
    let fields = fields(pid).unwrap_or_default();
    let count = if with_ended { 4 } else { 2 };
    fields.iter().skip(11).take(count).sum::<u64>() as f64 / TICKS
}

/// CPU seconds of a process and all its children, ended ones included.
pub(super) fn cpu_of_family(pid: i32) -> f64 {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let children: f64 = pids.filter(|child| parent(*child) == Some(pid)).map(|child| cpu(child, false)).sum();
    cpu(pid, true) + children
}

/// Lets the count of [`peak_memory`] begin anew.
pub(super) fn forget_peak_memory(pid: i32) {
    // Where that is not allowed, the peak is that of the whole run.
    let _not_allowed = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// The most memory a process had, in MiB.
pub(super) fn peak_memory(pid: i32) -> f64 {
    mebibytes(pid, "VmHWM:")
}

/// The memory a process has, in MiB.
pub(super) fn memory(pid: i32) -> f64 {
    mebibytes(pid, "VmRSS:")
}

fn mebibytes(pid: i32, of: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(of));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1_024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_and_had_no_less() {
        let pid = std::process::id() as i32;
        assert!(memory(pid) > 1.0 && peak_memory(pid) >= memory(pid) - 1.0);
        assert!(memory(-1) < 1e-9, "there is no such process");
    }
}
