//! What the kernel knows about this process, under the names every Prometheus client library uses.

use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

/// User and system CPU time of all threads, in seconds.
pub(super) fn cpu_seconds() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

/// Resident memory; `None` without a `/proc`.
pub(super) fn resident_bytes() -> Option<u64> {
    rss_bytes(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// Open file descriptors, the one that counts them not included; `None` without a `/proc`.
pub(super) fn open_fds() -> Option<u64> {
    let count = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    Some(count.saturating_sub(1))
}

/// The limit on file descriptors; `None`: unlimited.
pub(super) fn max_fds() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// `VmRSS:     1234 kB` (proc_pid_status(5)).
fn rss_bytes(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_size_is_read_from_its_line_only() {
        let status = "VmPeak:\t 9 kB\nVmRSS:\t    1234 kB\nRssAnon:\t 7 kB\n";
        assert_eq!(rss_bytes(status), Some(1234 * 1024));
        for odd in ["", "VmRSS:\n", "VmRSS: 12 MB\n", "VmRSS: x kB\n", "VmRSS: 99999999999999999999 kB\n"] {
            assert_eq!(rss_bytes(odd), None, "{odd}");
        }
    }

    #[test]
    fn this_process_has_memory_descriptors_and_time() {
        assert!(resident_bytes().unwrap() > 100_000);
        assert!(open_fds().unwrap() >= 3);
        assert!(cpu_seconds() > 0.0);
    }
}
