//! What a configuration may come to use, against what the system lets the process have.
//!
//! In: a checked configuration, the limit on descriptors, the memory limit of the process's cgroup. Out: warnings
//! with both figures and the key to lower, and how many connections callers get, in all and from one address. What must
//! never happen: callers who only hold connections leave no descriptor for the requests of others, or one address that
//! does leaves no connection for another.
//!
//! **Memory, at worst.** Every connection that is allowed is open and holds as much as its buffers may grow to: bytes
//! behind a request in flight, an answer that its caller does not take. Socket buffers are the kernel's, which shrinks
//! them when memory is short, and are not counted.
//!
//! | what | bytes |
//! |---|---|
//! | the process | 16 MiB, and 2 MiB a worker |
//! | a caller's connection | 2 x `header_bytes_max` + 96 KiB; 96 KiB more with TLS |
//! | a connection to an upstream | 384 KiB; 2 MiB more if any caller has `mask_fields` |

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::process::{Resource, getrlimit};

use crate::config::{Config, Limits};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

const PROCESS_BYTES: u64 = 16 * MIB;
const WORKER_BYTES: u64 = 2 * MIB;
/// The gate's scratch that one read may fill behind a request, tasks and state.
const CALLER_BYTES: u64 = 96 * KIB;
/// A TLS session: what is to be sent, a record that is coming, its plaintext.
const TLS_BYTES: u64 = 96 * KIB;
/// What was read ahead of TLS, a head of 64 KiB, and 16 pieces of 16 KiB on their way to a caller who does not take them.
const UPSTREAM_BYTES: u64 = 384 * KIB;

/// An answer that is read whole, and what becomes of it.
const MASKED_BYTES: u64 = 2 * MIB;

/// Descriptors for all that is no connection of a request: event loops, listeners, files, operators.
const OWN_DESCRIPTORS: u64 = 64;

/// The most memory that `config` lets the process use, in bytes.
#[must_use]
pub fn memory_at_worst(config: &Config) -> u64 {
    let workers = config.process.workers.unwrap_or_else(cores) as u64;
    let with_tls = config.listeners.iter().any(|listener| listener.tls.is_some());
    let head = 2 * config.limits.header_bytes_max as u64;
    let caller = head + CALLER_BYTES + if with_tls { TLS_BYTES } else { 0 };
    let masks = config.callers.iter().any(|caller| !caller.mask_fields.is_empty());
    let upstream = UPSTREAM_BYTES + if masks { MASKED_BYTES } else { 0 };
    PROCESS_BYTES
        + workers * WORKER_BYTES
        + config.limits.connections_max as u64 * caller
        + upstream_connections(config) * upstream
}

/// One worker for each core that the process may use, following a CPU quota.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn upstream_connections(config: &Config) -> u64 {
    config.environments.values().map(|environment| environment.connections_max as u64).sum()
}

/// The configured limits, with as many connections as leave descriptors for the requests on them: all that upstreams
/// may need, or, where there are too few, half. One address then gets its share of those, and never more than half: a
/// bound above what there is in all would bound nothing.
pub(crate) fn limits(config: &Config) -> Limits {
    limits_with(config, descriptors())
}

fn limits_with(config: &Config, descriptors: Option<u64>) -> Limits {
    let mut limits = config.limits.clone();
    if let Some(descriptors) = descriptors {
        let free = descriptors.saturating_sub(OWN_DESCRIPTORS);
        let callers = free.saturating_sub(upstream_connections(config)).max(free / 2).max(1);
        let callers = usize::try_from(callers).unwrap_or(usize::MAX);
        if callers < limits.connections_max {
            let share = limits.connections_per_address_max.saturating_mul(callers) / limits.connections_max;
            limits.connections_per_address_max = share.min(callers / 2).max(1);
            limits.connections_max = callers;
        }
    }
    limits
}

/// The hard limit, to which the start raises the soft one; `None` is no limit.
fn descriptors() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// What does not fit, each with both figures and what to do.
pub(crate) fn warnings(config: &Config) -> Vec<String> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let memory = memory_limit(&own, Path::new("/sys/fs/cgroup"));
    [memory_warning(config, memory), descriptors_warning(config, descriptors())]
        .into_iter()
        .flatten()
        .collect()
}

fn memory_warning(config: &Config, limit: Option<u64>) -> Option<String> {
    let worst = memory_at_worst(config);
    let limit = limit.filter(|limit| worst > *limit)?;
    let (callers, upstreams) = (config.limits.connections_max, upstream_connections(config));
    Some(format!(
        "{callers} connections of callers and {upstreams} to upstreams may come to use {} MiB, and the memory limit of \
         this process's cgroup is {} MiB: lower limits.connections_max or an environment's connections_max, or raise \
         the limit",
        worst.div_ceil(MIB),
        limit / MIB
    ))
}

fn descriptors_warning(config: &Config, limit: Option<u64>) -> Option<String> {
    let wanted = config.limits.connections_max;
    let granted = limits_with(config, limit);
    let (granted, from_one) = (granted.connections_max, granted.connections_per_address_max);
    let limit = limit.filter(|_| granted < wanted)?;
    let all = wanted as u64 + upstream_connections(config) + OWN_DESCRIPTORS;
    Some(format!(
        "{wanted} connections of callers and what their requests need are {all} descriptors, and this process may open \
         {limit}: callers get {granted} connections, {from_one} from one address; raise the limit (LimitNOFILE=, \
         ulimit -n) or lower limits.connections_max"
    ))
}

/// The least memory limit of the cgroups that this process is in; `None` is no limit, or none that can be seen.
///
/// `own` is `/proc/self/cgroup`, `root` is where cgroups are mounted. A container may see its own cgroup as the root,
/// while `own` still has the host's path; so every ancestor is looked at, as far as there is one.
fn memory_limit(own: &str, root: &Path) -> Option<u64> {
    let mut least = None;
    for line in own.lines() {
        // "4:memory:/docker/ab" (version 1), "0::/system.slice/mxgate.service" (version 2)
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (mounts, file): (&[PathBuf], _) = match controllers {
            "" => (&[root.to_owned(), root.join("unified")], "memory.max"),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                (&[root.join("memory")], "memory.limit_in_bytes")
            }
            _ => continue,
        };
        for mount in mounts {
            for folder in Path::new(path.trim_start_matches('/')).ancestors() {
                least = [least, read_limit(&mount.join(folder).join(file))].into_iter().flatten().min();
            }
        }
    }
    least
}

/// A number of bytes. Version 2 says `max` for none; version 1 a number beyond any memory.
fn read_limit(file: &Path) -> Option<u64> {
    let bytes: u64 = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    (bytes < 1 << 60).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::overrides::Overrides;

    fn config(more: &str) -> Config {
        let text = format!(
            "allow = [\"127.0.0.0/8\"]\n[[listener]]\naddress = \"127.0.0.1:0\"\nenvironment = \"sandbox\"\n\
             [environment.sandbox]\nconnections_max = 100\n\
             credential = {{ kind = \"basic\", client_id = \"id\", api_key = \"env:KEY\" }}\n\
             [process]\nworkers = 2\n{more}"
        );
        Config::parse(&text, "mxgate.toml", &Overrides::none()).unwrap().config
    }

    fn cgroups(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_worst_case_counts_every_connection_that_is_allowed() {
        let base = memory_at_worst(&config("[limits]\nconnections_max = 1"));
        assert_eq!(base, 20 * MIB + 128 * KIB + 100 * 384 * KIB);
        let more = memory_at_worst(&config("[limits]\nconnections_max = 11"));
        assert_eq!(more - base, 10 * 128 * KIB);
        let larger = memory_at_worst(&config("[limits]\nconnections_max = 1\nheader_bytes_max = 65_536"));
        assert_eq!(larger - base, 96 * KIB);
        let caller =
            "[[caller]]\nname = \"a\"\nnetworks = [\"127.0.0.0/8\"]\ngrant = { sandbox = [\"read\"] }";
        let plain = memory_at_worst(&config(&format!("[limits]\nconnections_max = 1\n{caller}")));
        let masked = memory_at_worst(&config(&format!(
            "[limits]\nconnections_max = 1\n{caller}\nmask_fields = [\"a\"]"
        )));
        assert_eq!((plain, masked), (base, base + 100 * 2 * MIB));
    }

    #[test]
    fn the_least_limit_on_the_way_up_counts_in_either_version() {
        for (own, files, limit) in [
            ("0::/a/b\n", &[("a/b/memory.max", "max\n"), ("a/memory.max", "1048576\n")][..], Some(MIB)),
            ("0::/a/b\n", &[("a/b/memory.max", "4096\n"), ("a/memory.max", "1048576\n")], Some(4096)),
            ("0::/a\n", &[("a/memory.max", "max\n")], None),
            // A container that sees its own cgroup as the root, and the host's path.
            ("0::/docker/ab\n", &[("memory.max", "1048576\n")], Some(MIB)),
            ("9:cpu:/x\n4:memory:/a\n0::/\n", &[("memory/a/memory.limit_in_bytes", "4096\n")], Some(4096)),
            ("4:memory:/a\n", &[("memory/a/memory.limit_in_bytes", "9223372036854771712\n")], None),
            ("4:cpu,memory:/d\n", &[("memory/memory.limit_in_bytes", "1048576\n")], Some(MIB)),
            ("0::/\n", &[("unified/memory.max", "1048576\n")], Some(MIB)),
            // Another controller's, and what cannot be read.
            ("4:cpu:/a\n", &[("cpu/a/memory.limit_in_bytes", "4096\n")], None),
            ("0::/a\n", &[("a/memory.max", "much\n")], None),
            ("nonsense\n", &[], None),
        ] {
            let root = cgroups(files);
            assert_eq!(memory_limit(own, root.path()), limit, "{own:?} {files:?}");
        }
    }

    #[test]
    fn a_limit_below_the_worst_case_is_told_with_both_figures_and_the_keys() {
        let config = config("[limits]\nconnections_max = 1000");
        let worst = memory_at_worst(&config);
        assert_eq!(memory_warning(&config, Some(worst)), None);
        assert_eq!(memory_warning(&config, None), None);
        let said = memory_warning(&config, Some(128 * MIB)).unwrap();
        for part in ["1000 connections", "100 to upstreams", "183 MiB", "128 MiB", "limits.connections_max"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }

    #[test]
    fn callers_leave_descriptors_for_their_requests() {
        let config = config("[limits]\nconnections_max = 1000");
        for (descriptors, callers) in [
            (None, 1000),
            (Some(1164), 1000),
            (Some(1163), 999),
            (Some(264), 100),
            (Some(128), 32),
            (Some(64), 1),
        ] {
            let limits = limits_with(&config, descriptors);
            assert_eq!(limits.connections_max, callers, "{descriptors:?}");
            assert_eq!(descriptors_warning(&config, descriptors).is_some(), callers < 1000);
        }
        let said = descriptors_warning(&config, Some(128)).unwrap();
        for part in
            ["1000 connections", "1164 descriptors", "open 128", "get 32 connections, 16 from one address"]
        {
            assert!(said.contains(part), "{part}: {said}");
        }
    }

    #[test]
    fn one_address_gets_its_share_of_fewer_connections_and_at_most_half() {
        for (in_all, per_address, descriptors, granted) in [
            // Nothing is cut where there is enough, not even a bound that bounds nothing.
            (1000, 2048, None, 2048),
            (1000, 1000, Some(1164), 1000),
            (1000, 1000, Some(1163), 499),
            (1000, 2048, Some(128), 16),
            (1000, 500, Some(128), 16),
            (1000, 250, Some(128), 8),
            (1000, 1, Some(128), 1),
            (1000, 1_000_000, Some(64), 1),
        ] {
            let limits =
                format!("[limits]\nconnections_max = {in_all}\nconnections_per_address_max = {per_address}");
            let limits = limits_with(&config(&limits), descriptors);
            assert_eq!(limits.connections_per_address_max, granted, "{per_address} {descriptors:?}");
        }
    }
}
