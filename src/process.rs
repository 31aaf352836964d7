//! What the process asks of the kernel at its start, so that secrets do not leave its memory.
//!
//! In comes nothing, out comes one [`Hardening`] for a line of the log. Nothing here stops the start: a container
//! may forbid any of it, and the line says what did not hold. What must never happen: the line claims more than
//! the kernel granted.
//!
//! Memory is locked only where swap exists and the limit on locked memory is none. A smaller limit would
//! be worse than no lock: it counts address space, not pages in use, and every later allocation would fail.
//! Locking single pages takes `unsafe`. With `MCL_ONFAULT` pages count when they are first touched, so the
//! resident size does not grow at once; but pages once used cannot be given back to the system.

use std::fmt;

use rustix::{
    io::Errno,
    mm::{MlockAllFlags, mlockall},
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit},
    system::sysinfo,
    thread::{CapabilitySet, capabilities, set_no_new_privs},
};

/// What the kernel granted, each with the reason when it did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardening {
    /// `RLIMIT_CORE` is 0, hard limit too: no core file. A pipe in `core_pattern` ignores it, hence the next.
    pub core_limit: Result<(), Errno>,
    /// `PR_SET_DUMPABLE` is 0: no core dump at all, no `ptrace` and no `/proc/PID/mem` or `environ` for others of this user.
    pub not_dumpable: Result<(), Errno>,
    /// `PR_SET_NO_NEW_PRIVS`: nothing that this process starts gains privileges.
    pub no_new_privileges: Result<(), Errno>,
    /// Whether pages can be written to swap.
    pub memory: Memory,
    /// Open files: the soft limit is the hard one.
    pub open_files: OpenFiles,
}

/// Whether pages can be written to swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// The system has no swap: nothing to lock against.
    NoSwap,
    /// All pages, now and later, stay in memory.
    Locked,
    /// The limit on locked memory is this many bytes and `CAP_IPC_LOCK` is absent.
    Limited(u64),
    /// The kernel said no.
    Refused(Errno),
}

/// The limit on open files and sockets; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFiles {
    /// The soft limit as it was.
    pub before: Option<u64>,
    /// As it is now.
    pub now: Option<u64>,
}

/// Asks for all of it. Call it first in `main`, while there is one thread and no secret yet.
pub fn harden() -> Hardening {
    Hardening {
        core_limit: setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }),
        not_dumpable: set_dumpable_behavior(DumpableBehavior::NotDumpable),
        no_new_privileges: set_no_new_privs(true),
        memory: lock_memory(),
        open_files: raise_open_files(),
    }
}

fn lock_memory() -> Memory {
    if sysinfo().totalswap == 0 { Memory::NoSwap } else { lock_all() }
}

fn lock_all() -> Memory {
    let may_lock_all = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    let limit = getrlimit(Resource::Memlock).maximum;
    match limit {
        Some(bytes) if !may_lock_all => return Memory::Limited(bytes),
        _ if !may_lock_all => {
            if let Err(error) = setrlimit(Resource::Memlock, Rlimit { current: limit, maximum: limit }) {
                return Memory::Refused(error);
            }
        }
        _ => {}
    }
    match mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT) {
        Ok(()) => Memory::Locked,
        Err(error) => Memory::Refused(error),
    }
}

/// Idle connections are many and cheap; a soft limit of 1024, a common default, would be met first.
fn raise_open_files() -> OpenFiles {
    let limit = getrlimit(Resource::Nofile);
    // Refused or not, what is true afterwards is what counts.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    OpenFiles { before: limit.current, now: getrlimit(Resource::Nofile).current }
}

impl fmt::Display for Hardening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let granted = |name, result: Result<(), Errno>| match result {
            Ok(()) => format!("{name}: yes"),
            Err(error) => format!("{name}: NO ({error})"),
        };
        write!(
            f,
            "{}, {}, {}, memory: {}, open files: {}",
            granted("core limit 0", self.core_limit),
            granted("not dumpable", self.not_dumpable),
            granted("no new privileges", self.no_new_privileges),
            self.memory,
            self.open_files,
        )
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSwap => f.write_str("not locked, the system has no swap"),
            Self::Locked => f.write_str("locked"),
            Self::Limited(bytes) => write!(
                f,
                "NOT LOCKED, secrets may be written to swap: the limit is {bytes} bytes; \
                 allow unlimited (LimitMEMLOCK=infinity) or switch swap off"
            ),
            Self::Refused(error) => write!(f, "NOT LOCKED, secrets may be written to swap: {error}"),
        }
    }
}

impl fmt::Display for OpenFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.now {
            Some(now) => write!(f, "{now}")?,
            None => f.write_str("no limit")?,
        }
        match self.before {
            Some(before) if self.now != self.before => write!(f, " (raised from {before})"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::{
        process::dumpable_behavior,
        thread::{no_new_privs, set_capabilities},
    };

    use super::*;

    fn child(test: &str) {
        let run = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("process::tests::{test}"), "--ignored", "--nocapture"])
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success() && output.contains("1 passed"), "{output}");
    }

    fn is_locked() -> bool {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
        !locked.trim().starts_with("0 ")
    }

    #[test]
    fn the_kernel_holds_what_is_reported() {
        child("in_a_child_the_kernel_is_asked");
    }

    #[test]
    fn memory_is_locked_or_said_not_to_be_and_allocating_goes_on() {
        child("in_a_child_memory_is_locked");
    }

    #[test]
    #[ignore = "runs in a child process: it cannot be undone"]
    fn in_a_child_a_limit_means_no_lock() {
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::IPC_LOCK);
        set_capabilities(None, sets).unwrap();
        setrlimit(Resource::Memlock, Rlimit { current: Some(65_536), maximum: Some(65_536) }).unwrap();
        assert_eq!(lock_all(), Memory::Limited(65_536));
        assert!(!is_locked());
    }

    #[test]
    fn with_a_limit_memory_is_not_locked() {
        child("in_a_child_a_limit_means_no_lock");
    }

    #[test]
    #[ignore = "runs in a child process: it cannot be undone"]
    fn in_a_child_memory_is_locked() {
        assert!(!is_locked());
        let memory = lock_all();
        assert_eq!(memory == Memory::Locked, is_locked(), "{memory}");
        println!("{memory}");
        // Beyond the usual limit on locked memory, and touched.
        assert_eq!(vec![1_u8; 64 << 20].iter().filter(|byte| **byte == 1).count(), 64 << 20);
    }

    #[test]
    #[ignore = "runs in a child process: it cannot be undone"]
    fn in_a_child_the_kernel_is_asked() {
        let files = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: files.maximum }).unwrap();
        assert_eq!(dumpable_behavior(), Ok(DumpableBehavior::Dumpable));
        assert_eq!(no_new_privs(), Ok(false));

        let hardening = harden();
        assert_eq!(getrlimit(Resource::Core), Rlimit { current: Some(0), maximum: Some(0) });
        assert_eq!(dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
        assert_eq!(no_new_privs(), Ok(true));
        assert_eq!(hardening.open_files, OpenFiles { before: Some(64), now: files.maximum });
        assert_eq!(getrlimit(Resource::Nofile).current, files.maximum);
        assert_eq!(hardening.memory == Memory::Locked, is_locked(), "{hardening}");
        println!("{hardening}");
    }

    #[test]
    fn the_line_says_what_was_granted_and_what_was_not() {
        let mut hardening = Hardening {
            core_limit: Ok(()),
            not_dumpable: Ok(()),
            no_new_privileges: Ok(()),
            memory: Memory::Locked,
            open_files: OpenFiles { before: Some(1024), now: Some(4096) },
        };
        assert_eq!(
            hardening.to_string(),
            "core limit 0: yes, not dumpable: yes, no new privileges: yes, memory: locked, open files: 4096 (raised from 1024)"
        );
        hardening.not_dumpable = Err(Errno::PERM);
        hardening.memory = Memory::Limited(8_388_608);
        hardening.open_files = OpenFiles { before: None, now: None };
        let line = hardening.to_string();
        assert!(line.contains("not dumpable: NO (Operation not permitted"), "{line}");
        assert!(
            line.contains("NOT LOCKED, secrets may be written to swap: the limit is 8388608 bytes"),
            "{line}"
        );
        assert!(line.ends_with("open files: no limit"), "{line}");
    }
}
